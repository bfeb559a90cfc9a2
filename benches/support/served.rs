//! A server as a process of its own: this very program, started again with a role.

use std::{
    convert::Infallible,
    future::Future,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

const ROLE: &str = "TOWER_UPLOAD_BENCH_ROLE";
const READY: &str = "listening on ";

/// A running server; ended when dropped.
pub(crate) struct Served {
    child: Child,
    pid: u32,
    /// HOST:PORT
    pub(crate) address: String,
}

impl Served {
    pub(crate) fn start(role: &str) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), role)
    }

    /// By a command that ends with this program.
    pub(crate) fn start_by(mut command: Command, role: &str) -> Self {
        let mut child = command
            .env(ROLE, role)
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
            address: address.to_owned(),
        }
    }

    /// What /proc/PID/status has in this line, in bytes: `VmRSS:` is what is resident, `VmHWM:` the most that was.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Seconds on a processor, in the process and in the kernel for it.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        (ticks(11) + ticks(12)) as f64 / 100.0
    }

    pub(crate) fn end(&mut self) {
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

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

/// The role that this process was started with. It lives as long as its standard input is open.
pub(crate) fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    Some(role)
}

pub(crate) fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work);
}

/// Listens and answers, for ever. `buffer`: what is read at once, in bytes, if it is not left to hyper.
pub(crate) async fn serve<F, R, B>(buffer: Option<usize>, answer: F)
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
    let mut http1 = hyper::server::conn::http1::Builder::new();
    if let Some(buffer) = buffer {
        http1.max_buf_size(buffer);
    }
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = stream.set_nodelay(true);
        let answer = hyper::service::service_fn(answer.clone());
        let connection = http1.serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move { drop(connection.await) });
    }
}
