//! A server as a process of its own, and what it used.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tower_service::Service as _;

use crate::{floors, ours};

const ROLE: &str = "TOWER_UPLOAD_BENCH_SERVER";
const READY: &str = "listening on ";

/// What a server does with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discard,
    Write,
    Sync,
    Disk,
    /// This crate; `inline` is [`Writes::Inline`](tower_upload::blob::disk::Writes).
    Ours {
        durable: bool,
        inline: bool,
    },
}

impl Kind {
    pub(crate) const fn ours(durable: bool, inline: bool) -> Self {
        Self::Ours { durable, inline }
    }

    const NAMED: [(Self, &'static str); 7] = [
        (Self::Discard, "discard"),
        (Self::Write, "write"),
        (Self::Sync, "sync"),
        (Self::ours(true, false), "ours"),
        (Self::ours(true, true), "ours-inline"),
        (Self::ours(false, false), "ours-none"),
        (Self::ours(false, true), "ours-none-inline"),
    ];
}

/// A running server; ended when dropped.
pub(crate) struct Server {
    child: Child,
    pid: u32,
    pub(crate) address: SocketAddr,
    trace: Option<PathBuf>,
}

impl Server {
    pub(crate) fn start(kind: Kind, directory: &Path, traced: bool) -> Self {
        let name = Kind::NAMED.iter().find(|(other, _)| *other == kind).unwrap().1;
        let program = std::env::current_exe().unwrap();
        let trace = traced.then(|| directory.with_extension("strace"));
        let mut command = match &trace {
            Some(path) => {
                let mut command = Command::new("strace");
                command
                    .args(["-f", "-c", "-U", "name,calls", "-o"])
                    .arg(path)
                    .arg(program);
                command
            }
            None => Command::new(program),
        };
        let mut child = command
            .env(ROLE, format!("{name} {}", directory.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = line.trim().strip_prefix(READY).expect("the server did not start");
        let (address, pid) = ready.split_once(' ').unwrap();
        Self {
            child,
            pid: pid.parse().unwrap(),
            address: address.parse().unwrap(),
            trace,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.pid)
    }

    /// The most memory that it had resident, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Ends it; calls by name, if it was traced.
    pub(crate) fn syscalls(mut self) -> HashMap<String, u64> {
        self.end();
        let text = std::fs::read_to_string(self.trace.as_ref().unwrap()).unwrap();
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
            })
            .collect()
    }

    fn end(&mut self) {
        drop(self.child.stdin.take());
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Seconds on a processor, in the process and in the kernel for it.
    pub(crate) cpu: f64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Self {
            cpu: (ticks(11) + ticks(12)) as f64 / 100.0,
        }
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
        }
    }
}

/// Serves until standard input ends, if this process was started for that.
pub(crate) fn serve_if_asked() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let (name, directory) = role.split_once(' ').unwrap();
    let kind = Kind::NAMED.iter().find(|(_, other)| *other == name).unwrap().0;
    let directory = PathBuf::from(directory);
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async move {
        if let Kind::Ours { durable, inline } = kind {
            let service = ours::service(&directory, durable, inline).await;
            serve(move |request| service.clone().call(request)).await;
        } else {
            let directory = Arc::new(directory);
            serve(move |request| floors::answer(kind, directory.clone(), request)).await;
        }
    });
    true
}

async fn serve<F, R, B>(answer: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{READY}{} {}", listener.local_addr().unwrap(), std::process::id());
    std::io::stdout().flush().unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = stream.set_nodelay(true);
        let answer = hyper::service::service_fn(answer.clone());
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}
