//! The servers, each a process of its own, and what they used.

use std::{
    convert::Infallible,
    future::Future,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, request::Parts};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tower_http::services::ServeDir;
use tower_service::Service as _;
use tower_upload::{Caller, NewUpload, Uploads, access::OwnerOnly};

use crate::client::Numbers;

const ROLE: &str = "TOWER_UPLOAD_BENCH_SERVER";
const READY: &str = "listening on ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ServeDir,
    /// With a buffer as large as ours.
    Buffered,
    Ours,
}

impl Kind {
    /// The one that others are compared with is the first.
    pub(crate) const ALL: [Self; 3] = [Self::ServeDir, Self::Buffered, Self::Ours];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ServeDir => "ServeDir",
            Self::Buffered => "ServeDir-256KiB",
            Self::Ours => "ours",
        }
    }
}

/// The files, which both servers send.
pub(crate) struct Setting {
    directory: PathBuf,
    /// Their paths below the service of files, and in the directory of blobs.
    pub(crate) files: Vec<(String, String)>,
    /// Of each, in bytes.
    pub(crate) size: u64,
}

async fn open(directory: &Path) -> Uploads {
    let uploads = Uploads::open(directory).authorizer(OwnerOnly).build();
    uploads.await.unwrap()
}

impl Setting {
    /// Uploads `count` files.
    pub(crate) fn make(directory: &Path, count: usize, size: u64) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let files = runtime.block_on(async {
            let uploads = open(directory).await;
            let (bench, mut files) = (Caller::new("bench"), Vec::new());
            for number in 0..count {
                let new = NewUpload::new(format!("film-{number}.mp4")).size(size);
                let new = new.metadata("filetype", "video/mp4");
                let id = uploads.create(&bench, new).await.unwrap().id();
                let mut numbers = Numbers::new(number as u64);
                let step: Vec<u8> = (0..128 << 10).flat_map(|_| numbers.next().to_le_bytes()).collect();
                let step = Bytes::from(step);
                let frames = (0..size.div_ceil(step.len() as u64)).map(|at| {
                    let left = (size - at * step.len() as u64).min(step.len() as u64);
                    Ok::<_, Infallible>(step.slice(..left as usize))
                });
                uploads.append(&bench, id, 0, stream::iter(frames)).await.unwrap();
                let done = uploads.assemble(&bench, id, None).await.unwrap();
                files.push((format!("/{id}"), format!("/{}", done.key())));
            }
            uploads.shutdown(Duration::from_secs(5)).await;
            files
        });
        Self {
            directory: directory.to_owned(),
            files,
            size,
        }
    }
}

/// A running server; ended when dropped.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(kind: Kind, setting: &Setting) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, format!("{} {}", kind.name(), setting.directory.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix(READY).expect("the server did not start");
        Self {
            kind,
            address: address.parse().unwrap(),
            child,
        }
    }

    /// The path of a file at this server.
    pub(crate) fn path(&self, setting: &Setting, file: usize) -> String {
        let (ours, key) = &setting.files[file];
        match self.kind {
            Kind::ServeDir | Kind::Buffered => key.clone(),
            Kind::Ours => ours.clone(),
        }
    }

    /// Seconds on a processor until now, in the process and in the kernel for it.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        (ticks(11) + ticks(12)) as f64 / 100.0
    }

    /// The most memory that it had resident, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
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

/// Serves until standard input ends, if this process was started for that.
pub(crate) fn serve_if_asked() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let (name, directory) = role.split_once(' ').unwrap();
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
        if name == Kind::Ours.name() {
            let uploads = open(&directory).await;
            let service = uploads.files(|_: &Parts| Some(Caller::new("bench")));
            serve(move |request| service.clone().call(request)).await;
        } else {
            let mut service = ServeDir::new(directory.join("blobs"));
            if name == Kind::Buffered.name() {
                service = service.with_buf_chunk_size(256 << 10);
            }
            serve(move |request| service.clone().call(request)).await;
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
    println!("{READY}{}", listener.local_addr().unwrap());
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
