//! Nodes: example servers on one database and one object store, behind a proxy that asks them in turn.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    client::Ask,
    proxy::{HttpProxy, Plan, SeededBreaks, TcpProxy},
    services::Service,
};

pub(crate) const NODES: usize = 3;
/// How long a node keeps what it works on, if it says nothing more: short, so that a pause can outlast it.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// How long an upload lives that nobody goes on with.
pub(crate) const EXPIRY: Duration = Duration::from_secs(40);
/// Where the bucket has what is ours.
pub(crate) const PREFIX: &str = "nodes";

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) proxy: SocketAddr,
    pub(crate) store: Service,
    pub(crate) database: Service,
    /// Between the nodes and the store; the database.
    pub(crate) store_faults: HttpProxy,
    pub(crate) database_faults: TcpProxy,
    _front: Service,
    keeps: bool,
    _directory: tempfile::TempDir,
}

/// One server, which may be dead for a while.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) port: u16,
    number: usize,
    data: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

/// What to have in front of the nodes, and behind them.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) store: String,
    pub(crate) front: String,
    pub(crate) seed: u64,
    /// Videos become HLS streams.
    pub(crate) streams: bool,
}

impl Cluster {
    /// None, and a line that says why, if a service cannot be had.
    pub(crate) async fn start(setup: &Setup, users: &[String], faults: impl Plan) -> Option<Self> {
        let store = Service::start_or_skip(&setup.store, &[])?;
        let database = Service::start_or_skip("postgres", &[])?;
        let store_faults = HttpProxy::start(store.get("AWS_ENDPOINT"), faults).await;
        let breaks = SeededBreaks {
            seed: setup.seed,
            one_in: 40,
            patience: Duration::from_secs(2),
        };
        let url = database.get("POSTGRES_URL");
        let (user, rest) = url.strip_prefix("postgres://").unwrap().split_once('@').unwrap();
        let (address, name) = rest.split_once('/').unwrap();
        let database_faults = TcpProxy::start(address, breaks).await;
        let metadata = format!("postgres://{user}@{}/{name}", database_faults.address);

        let mut environment: Vec<(String, String)> = store.variables().clone().into_iter().collect();
        environment.push(("AWS_ENDPOINT".to_owned(), store_faults.url()));
        let mut args = vec![
            format!("--blobs=s3://{}/{PREFIX}", store.get("BUCKET")),
            format!("--metadata={metadata}"),
            format!("--expire-after={}", EXPIRY.as_secs()),
            format!("--lease={}", LEASE.as_secs()),
        ];
        args.extend(users.iter().map(|user| format!("--token={user}={user}")));
        args.extend(setup.streams.then(|| "--hls".to_owned()));
        let directory = tempfile::tempdir().unwrap();
        let ports = free_ports(NODES);
        let mut nodes = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            let mut node = Node {
                port: *port,
                number,
                data: directory.path().join(number.to_string()),
                args: args.clone(),
                environment: environment.clone(),
                child: None,
            };
            node.start();
            node.answers().await;
            nodes.push(node);
        }
        let front = Service::start_or_skip(&setup.front, &ports)?;
        let proxy = front.get("PROXY_URL").strip_prefix("http://").unwrap().parse().unwrap();
        Some(Self {
            nodes,
            proxy,
            store,
            database,
            store_faults,
            database_faults,
            _front: front,
            keeps: setup.store == "rgw",
            _directory: directory,
        })
    }

    /// Whether the store keeps what it has when it is killed.
    pub(crate) fn store_restarts(&self) -> bool {
        self.keeps
    }

    /// No harm any more, and every node alive.
    pub(crate) async fn calm(&mut self) {
        self.store_faults.record.harm(false);
        self.database_faults.record.harm(false);
        for node in &mut self.nodes {
            node.signal("CONT");
            if !node.is_alive() {
                node.start();
            }
        }
        for node in &self.nodes {
            node.answers().await;
        }
    }

    /// The ends of the nodes' logs.
    pub(crate) fn logs(&self) -> String {
        self.nodes.iter().map(|node| node.log(15)).collect()
    }
}

impl Node {
    pub(crate) fn start(&mut self) {
        std::fs::create_dir_all(&self.data).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.data.join("log"))
            .unwrap();
        let mut command = Command::new("setpriv");
        // It must not outlive this test, however that ends.
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary());
        let child = command
            .arg(format!("--listen=127.0.0.1:{}", self.port))
            .arg(format!("--data={}", self.data.join("data").display()))
            .args(&self.args)
            .envs(self.environment.iter().cloned())
            .env(
                "RUST_LOG",
                std::env::var("NODES_LOG").unwrap_or_else(|_| "info,request=warn".into()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Until it answers requests.
    pub(crate) async fn answers(&self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let late = Instant::now() + Duration::from_secs(30);
        loop {
            let end = Ask::new("GET /", "").send(address).await;
            if end.reply.is_some_and(|reply| reply.status == 200) {
                return;
            }
            assert!(
                Instant::now() < late,
                "node {} does not start: {}",
                self.number,
                self.log(20)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether it was started and nobody killed it since.
    pub(crate) const fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Where its ffmpeg works.
    pub(crate) fn work(&self) -> PathBuf {
        self.data.join("data/transcode")
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// SIGKILL
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let sent = Command::new("kill")
                .arg(format!("-{name}"))
                .arg(child.id().to_string())
                .status();
            let _ = sent.unwrap();
        }
    }

    /// Until it has ended by itself.
    pub(crate) async fn ended(&mut self, within: Duration) -> bool {
        let late = Instant::now() + within;
        while self.is_alive() {
            if Instant::now() > late {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    fn log(&self, count: usize) -> String {
        let text = std::fs::read(self.data.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(count)..].join("\n");
        format!("--- node {}\n{end}\n", self.number)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where cargo puts the example: next to the directory of this test.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/axum");
    assert!(
        path.exists(),
        "{} is missing: cargo build --features aws,ffmpeg,postgres --example axum",
        path.display()
    );
    path
}

/// Ports that nothing listens on; all at once, so that none is there twice.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}
