//! One of the example servers as a process.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::client::{Connection, JSON, Reply, head};

pub(crate) const ALICE: &str = "canary-alice-7b1f";
pub(crate) const BOB: &str = "canary-bob-c02e";
pub(crate) const NOBODY: &str = "";

pub(crate) struct Server {
    which: &'static str,
    child: Child,
    args: Vec<String>,
    readers: Vec<JoinHandle<()>>,
    pub(crate) output: Arc<Mutex<String>>,
    pub(crate) address: String,
    pub(crate) data: tempfile::TempDir,
}

/// Where cargo puts the examples: next to the directory of this test.
pub(crate) fn binary(which: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples").join(which);
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    path
}

impl Server {
    /// With tokens for alice and bob; what the process survives, its data survives.
    pub(crate) fn start(which: &'static str) -> Self {
        let tokens = [format!("--token={ALICE}=alice"), format!("--token={BOB}=bob")];
        Self::with(which, tokens.iter().map(String::as_str).chain(["--durability=none"]))
    }

    pub(crate) fn with<'a>(which: &'static str, args: impl IntoIterator<Item = &'a str>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let output = Arc::default();
        let (child, readers, address) = launch(which, "127.0.0.1:0", data.path(), &args, &output);
        Self {
            which,
            child,
            args,
            readers,
            output,
            address,
            data,
        }
    }

    /// Again, on the same data and port.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.try_wait().unwrap().is_some(), "still running");
        let (child, readers, address) = launch(self.which, &self.address, self.data.path(), &self.args, &self.output);
        assert_eq!(address, self.address);
        (self.child, self.readers) = (child, readers);
    }

    /// SIGKILL: nothing can be tidied up.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Until it ends by itself; all it said is in `output` then.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let late = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(Instant::now() < late, "it runs still after {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(&self.address).await
    }

    pub(crate) async fn ask(&self, ask: &str, token: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        let len = body.len().to_string();
        let mut all = headers.to_vec();
        all.push(("Content-Length", &len));
        let mut connection = self.connect().await;
        connection.write(head(ask, token, &all)).await;
        connection.write(body).await;
        connection.reply().await.unwrap_or_else(|| panic!("no answer to {ask}"))
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Reply {
        self.ask(&format!("GET {path}"), token, &[], "").await
    }

    pub(crate) async fn json(&self, ask: &str, token: &str, body: Value) -> Reply {
        self.ask(ask, token, &[JSON], body.to_string()).await
    }

    /// The id of a new video of alice.
    pub(crate) async fn video(&self, title: &str) -> u64 {
        let made = self.json("POST create-video/", ALICE, json!({"title": title})).await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.data()["id"].as_u64().unwrap()
    }

    /// The id of a new upload of alice.
    pub(crate) async fn session(&self, file: &[u8], chunk_size: usize, video: Option<u64>, file_name: &str) -> String {
        let body = json!({"fileName": file_name, "fileSize": file.len(), "chunkSize": chunk_size, "videoId": video});
        let made = self.json("POST uploads/", ALICE, body).await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.data()["upload_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn put(&self, upload: &str, index: usize, bytes: &[u8]) -> Reply {
        self.ask(&format!("PUT uploads/{upload}/chunks/{index}"), ALICE, &[], bytes)
            .await
    }

    pub(crate) async fn status(&self, upload: &str) -> Value {
        self.get(&format!("uploads/{upload}/"), ALICE).await.data()
    }

    /// An address that needs no token.
    pub(crate) async fn ticket(&self, video: u64) -> String {
        let made = self.ask(&format!("POST videos/{video}/ticket"), ALICE, &[], "").await;
        made.data()["url"].as_str().unwrap().to_owned()
    }

    pub(crate) fn stored(&self, video_path: &str) -> Vec<u8> {
        std::fs::read(self.data.path().join("blobs").join(video_path)).unwrap()
    }

    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.which, self.output());
        }
    }
}

fn launch(
    which: &str,
    listen: &str,
    data: &Path,
    args: &[String],
    output: &Arc<Mutex<String>>,
) -> (Child, Vec<JoinHandle<()>>, String) {
    let mut command = Command::new(binary(which));
    command.args(["--listen", listen, "--data"]).arg(data).args(args);
    command
        .env("RUST_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (found, address) = mpsc::channel();
    let out = listen_to(child.stdout.take().unwrap(), output.clone(), Some(found));
    let err = listen_to(child.stderr.take().unwrap(), output.clone(), None);
    let Ok(address) = address.recv_timeout(Duration::from_secs(30)) else {
        let _ = child.kill();
        panic!("{which} does not listen: {}", output.lock().unwrap());
    };
    (child, vec![out, err], address)
}

fn listen_to(
    pipe: impl Read + Send + 'static,
    output: Arc<Mutex<String>>,
    mut found: Option<mpsc::Sender<String>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            *output.lock().unwrap() += &format!("{line}\n");
            if let Some(address) = line.strip_prefix("listening on http://")
                && let Some(found) = found.take()
            {
                let _ = found.send(address.to_owned());
            }
        }
    })
}

/// Bytes that differ everywhere.
pub(crate) fn file(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}
