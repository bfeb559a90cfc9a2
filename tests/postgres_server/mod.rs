//! A PostgreSQL of the test's own, from the binaries of this machine: on loopback, in a temporary directory, stopped when
//! the last test that uses it ends.
//!
//! From a shell: `cargo test --features conformance,postgres --test postgres -- --ignored --nocapture serve` runs one until Enter is pressed.
#![allow(
    dead_code,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "each test takes what it needs of it"
)]

use std::{
    net::{TcpListener, TcpStream},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Unsynced, because what these tests lose is processes and not power.
const SETTINGS: [&str; 5] = [
    "fsync=off",
    "max_connections=300",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "log_min_messages=fatal",
];

pub const USER: &str = "tester";

pub struct Server {
    postmaster: Mutex<Child>,
    binaries: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
    names: AtomicU32,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

/// The server that tests share. `None`, after a line that says why, where there are no binaries; on CI that is a failure.
pub fn shared() -> Option<Arc<Server>> {
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let server = Arc::new(start()?);
    *shared = Arc::downgrade(&server);
    Some(server)
}

/// A server alone, for a test that kills it.
pub fn start() -> Option<Server> {
    let Some(binaries) = binaries() else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "there is no PostgreSQL, and nothing is skipped on CI"
        );
        println!("skipped: PostgreSQL is not installed (Debian: apt install postgresql)");
        return None;
    };
    let directory = tempfile::Builder::new().prefix("postgres-").tempdir().unwrap();
    let data = directory.path().join("data");
    let mut initdb = Command::new(binaries.join("initdb"));
    initdb
        .args([
            "--no-sync",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "-U",
            USER,
            "-D",
        ])
        .arg(&data);
    succeed(as_somebody(&mut initdb, directory.path()));
    let port = free_port();
    let postmaster = launch(&binaries, directory.path(), port);
    Some(Server {
        postmaster: Mutex::new(postmaster),
        binaries,
        directory,
        port,
        names: AtomicU32::new(0),
    })
}

impl Server {
    pub fn url(&self) -> String {
        url(self.port)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The name of a schema that nobody else here has.
    pub fn fresh_name(&self) -> String {
        format!("s{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Ends all its processes at once, as a crash would.
    pub fn kill(&self) {
        let mut postmaster = self.postmaster.lock().unwrap();
        // It stands still meanwhile, and so their numbers stay theirs.
        signal("-STOP", postmaster.id());
        for backend in children(postmaster.id()) {
            signal("-KILL", backend);
        }
        postmaster.kill().unwrap();
        postmaster.wait().unwrap();
    }

    /// A hot standby that follows this server.
    pub fn standby(&self) -> Self {
        let directory = tempfile::Builder::new().prefix("postgres-").tempdir().unwrap();
        let mut copy = Command::new(self.binaries.join("pg_basebackup"));
        copy.args([
            "--no-sync",
            "--checkpoint=fast",
            "-R",
            "-h",
            "127.0.0.1",
            "-U",
            USER,
            "-p",
        ])
        .arg(self.port.to_string())
        .arg("-D")
        .arg(directory.path().join("data"));
        as_somebody(&mut copy, directory.path());
        succeed(&mut copy);
        let port = free_port();
        let postmaster = launch(&self.binaries, directory.path(), port);
        Self {
            postmaster: Mutex::new(postmaster),
            binaries: self.binaries.clone(),
            directory,
            port,
            names: AtomicU32::new(0),
        }
    }

    /// Puts a key and a certificate for 127.0.0.1 where the server looks for them; the certificate's place.
    pub fn certify(&self) -> PathBuf {
        let data = self.directory.path().join("data");
        let config = self.directory.path().join("openssl.cnf");
        let text = "[req]\nprompt = no\ndistinguished_name = dn\nx509_extensions = ext\n[dn]\nCN = 127.0.0.1\n\
                    [ext]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = critical,CA:FALSE\n";
        std::fs::write(&config, text).unwrap();
        let mut make = Command::new("openssl");
        make.args([
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-days",
            "2",
        ])
        .arg("-config")
        .arg(&config)
        .arg("-keyout")
        .arg(data.join("server.key"))
        .arg("-out")
        .arg(data.join("server.crt"));
        as_somebody(&mut make, self.directory.path());
        succeed(&mut make);
        data.join("server.crt")
    }

    /// After [`kill`](Self::kill).
    pub fn restart(&self) {
        *self.postmaster.lock().unwrap() = launch(&self.binaries, self.directory.path(), self.port);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let postmaster = self
            .postmaster
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(postmaster.try_wait(), Ok(None)) {
            // At once, with its children.
            signal("-QUIT", postmaster.id());
            let _ = postmaster.wait();
        }
    }
}

/// Starts a program that must not run as root (PostgreSQL, pgbouncer) as somebody who owns `directory`.
pub fn as_somebody<'a>(command: &'a mut Command, directory: &Path) -> &'a mut Command {
    command.current_dir("/").stdin(Stdio::null());
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        let (uid, gid) = somebody();
        std::os::unix::fs::chown(directory, Some(uid), Some(gid)).unwrap();
        command.uid(uid).gid(gid);
    }
    command
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn url(port: u16) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/postgres?sslmode=disable")
}

/// Waits until something listens.
pub fn wait_for(port: u16, child: &mut Child) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it ended while it started");
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it did not start in a minute"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn succeed(command: &mut Command) {
    let said = command.output().unwrap();
    let texts = (
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr),
    );
    assert!(said.status.success(), "{command:?}: {}{}", texts.0, texts.1);
}

fn launch(binaries: &Path, directory: &Path, port: u16) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .unwrap();
    // What is left of a killed server may hold on for a moment; then the new one ends at once.
    for _ in 0..50 {
        let mut command = Command::new(binaries.join("postgres"));
        command
            .arg("-D")
            .arg(directory.join("data"))
            .arg("-p")
            .arg(port.to_string());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        as_somebody(&mut command, directory)
            .stdout(log.try_clone().unwrap())
            .stderr(log.try_clone().unwrap());
        let mut postmaster = command.spawn().unwrap();
        while postmaster.try_wait().unwrap().is_none() {
            if is_ready(binaries, port) {
                return postmaster;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!(
        "PostgreSQL does not start: {}",
        std::fs::read_to_string(directory.join("log")).unwrap_or_default()
    );
}

fn is_ready(binaries: &Path, port: u16) -> bool {
    let port = port.to_string();
    let mut asked = Command::new(binaries.join("pg_isready"));
    asked.args(["-q", "-h", "127.0.0.1", "-p", &port]);
    asked.status().is_ok_and(|status| status.success())
}

/// The newest of Debian's, or what is in the path.
fn binaries() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = debian
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<u32>().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    found.sort();
    let elsewhere = std::env::var_os("PATH");
    found
        .into_iter()
        .rev()
        .map(|(_, path)| path)
        .chain(elsewhere.iter().flat_map(std::env::split_paths))
        .find(|path| path.join("initdb").exists() && path.join("postgres").exists() && path.join("pg_isready").exists())
}

/// (uid, gid) of somebody who is not root.
fn somebody() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .expect("a user who is not root")
}

fn signal(name: &str, pid: u32) {
    let _ = Command::new("kill")
        .args([name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

fn children(of: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent: u32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            (parent == of).then_some(pid)
        })
        .collect()
}
