//! A server of its own process: this test program once more, told by an environment variable to serve.
#![allow(dead_code, clippy::unwrap_used, reason = "each suite uses some of it")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tower_service::Service as _;
use tower_upload::{
    Caller, Uploads,
    access::OwnerOnly,
    http::{Resumable, Tus},
};

const ROLE: &str = "TOWER_UPLOAD_TEST_SERVER";
const READY: &str = "listening on http://";

/// hyper's own.
pub(crate) const DEFAULT_READ_BUFFER: usize = 8192 + 4096 * 100;

/// How the server is set up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Worker threads; 0 serves on the main thread alone.
    pub(crate) workers: usize,
    /// Threads for what blocks, at most.
    pub(crate) blocking: usize,
    pub(crate) memory_budget: u64,
    pub(crate) max_chunk: u64,
    /// Of each connection, in bytes.
    pub(crate) read_buffer: usize,
    /// Of each connection, in the kernel; its own choice unless set.
    pub(crate) receive_buffer: Option<u32>,
    /// Of this process, for all it opens.
    pub(crate) open_files: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 2,
            blocking: 512,
            memory_budget: 64 << 20,
            max_chunk: 128 << 20,
            read_buffer: DEFAULT_READ_BUFFER,
            receive_buffer: None,
            open_files: None,
        }
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a server on `directory` and waits until it listens. The program needs a test named `server` that calls
    /// [`serve_if_asked`].
    pub(crate) fn start(directory: &Path, settings: &Settings) -> Self {
        let role = json!({
            "directory": directory,
            "workers": settings.workers,
            "blocking": settings.blocking,
            "memory_budget": settings.memory_budget,
            "max_chunk": settings.max_chunk,
            "read_buffer": settings.read_buffer,
            "receive_buffer": settings.receive_buffer,
        });
        let program = std::env::current_exe().unwrap();
        let mut command = match settings.open_files {
            Some(files) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={files}:{files}")).arg("--").arg(program);
                command
            }
            None => Command::new(program),
        };
        let mut child = command
            .args(["server", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, address) = line.split_once(READY)?;
            Some(address.parse().unwrap())
        });
        // What else it says is dropped, but the pipe must stay open.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            address: address.expect("the server ended before it listened"),
            child,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL. Answers the signal that the process died of, if it was one.
    pub(crate) fn kill(mut self) -> Option<i32> {
        self.child.kill().unwrap();
        self.child.wait().unwrap().signal()
    }

    /// The signal that it died of, if it has ended by itself.
    pub(crate) fn died_of(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|status| status.signal())
    }

    /// Threads by id and name.
    pub(crate) fn threads(&self) -> Vec<(u32, String)> {
        let mut threads = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap() {
            let path = entry.unwrap().path();
            if let Ok(name) = std::fs::read_to_string(path.join("comm")) {
                let id = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
                threads.push((id, name.trim().to_owned()));
            }
        }
        threads.sort_unstable();
        threads
    }

    /// A line of `/proc/PID/status` that is a number of KiB, in bytes.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
        let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until standard input ends, if this process was started for that.
pub(crate) fn serve_if_asked() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let role: Value = serde_json::from_str(&role).unwrap();
    let number = |name: &str| role[name].as_u64().unwrap();
    let count = |name: &str| usize::try_from(number(name)).unwrap();
    // Whoever started it may be killed too.
    let until_the_end = || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    };
    let watch = std::thread::Builder::new().name("stdin".to_owned());
    watch.spawn(until_the_end).unwrap();
    let mut runtime = match count("workers") {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if count("workers") > 0 {
        runtime.worker_threads(count("workers"));
    }
    let runtime = runtime
        .max_blocking_threads(count("blocking"))
        .thread_keep_alive(Duration::from_secs(3600))
        .thread_name("upload-io")
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let directory = PathBuf::from(role["directory"].as_str().unwrap());
        let uploads = Uploads::open(directory)
            .authorizer(OwnerOnly)
            .memory_budget(number("memory_budget"))
            .max_chunk_size(number("max_chunk"))
            .build()
            .await
            .unwrap();
        let receive_buffer = role["receive_buffer"].as_u64().map(|bytes| bytes.try_into().unwrap());
        serve(&uploads, count("read_buffer"), receive_buffer).await;
    });
}

async fn serve(uploads: &Uploads, read_buffer: usize, receive_buffer: Option<u32>) {
    let service = uploads.service(|parts: &http::request::Parts| {
        let user = parts.headers.get("x-user")?.to_str().ok()?;
        Some(Caller::new(user))
    });
    let service = service.tus(Tus::new()).resumable(Resumable::new());
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1024).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\n{READY}{}", listener.local_addr().unwrap()).unwrap();
    out.flush().unwrap();
    loop {
        // Out of descriptors: those who are served will give theirs back.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        tokio::spawn(async move {
            let answer = hyper::service::service_fn(move |request| service.clone().call(request));
            let _ = hyper::server::conn::http1::Builder::new()
                .max_buf_size(read_buffer)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}
