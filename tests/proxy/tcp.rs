//! A proxy in front of a database: it knows connections and messages, not what they say.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};

use super::{super::wire::Numbers, Record};

/// What happens to a message of the client's: what it wrote at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    None,
    /// The connection breaks, the message is lost.
    Before,
    /// The server gets it and answers; the answer is lost, the connection breaks.
    After,
    /// Nothing passes on this connection for this time.
    Stall(Duration),
}

/// Says what happens to the so-manieth message of all.
pub(crate) trait BreakPlan: Send + Sync + 'static {
    fn next(&self, n: u64) -> Break;
}

impl<F: Fn(u64) -> Break + Send + Sync + 'static> BreakPlan for F {
    fn next(&self, n: u64) -> Break {
        self(n)
    }
}

/// Breaks that a seed tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeededBreaks {
    pub(crate) seed: u64,
    /// Of so many messages one suffers.
    pub(crate) one_in: usize,
    /// How long a connection stalls at most.
    pub(crate) patience: Duration,
}

impl BreakPlan for SeededBreaks {
    fn next(&self, n: u64) -> Break {
        let mut numbers = Numbers::new(self.seed ^ n.rotate_left(20));
        numbers.next();
        if !numbers.one_in(self.one_in.max(1)) {
            return Break::None;
        }
        match numbers.below(7) {
            0..=2 => Break::Before,
            3..=5 => Break::After,
            _ => Break::Stall(self.patience.mul_f64(numbers.below(1000) as f64 / 1000.0)),
        }
    }
}

/// Passes connections on to a server, as its plan says.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    pub(crate) address: SocketAddr,
    pub(crate) record: Arc<Record>,
    /// Counts the cuts of everything.
    cuts: watch::Sender<u64>,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    upstream: String,
    plan: Box<dyn BreakPlan>,
    record: Arc<Record>,
    messages: AtomicU64,
}

impl TcpProxy {
    /// In front of HOST:PORT. Harmless until told otherwise.
    pub(crate) async fn start(upstream: &str, plan: impl BreakPlan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Record::new());
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            plan: Box::new(plan),
            record: Arc::clone(&record),
            messages: AtomicU64::new(0),
        });
        let (cuts, cut) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let (shared, mut cut) = (Arc::clone(&shared), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        _ = cut.changed() => {}
                        _ = pass(&shared, client) => {}
                    }
                });
            }
        });
        Self {
            address,
            record,
            cuts,
            accepting,
        }
    }

    /// Breaks every connection.
    pub(crate) fn cut(&self) {
        self.record.note("all cut", "");
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Until either side is done, or an error breaks both connections.
async fn pass(shared: &Shared, client: TcpStream) -> io::Result<()> {
    let server = TcpStream::connect(&shared.upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let lost = watch::channel(false);
    tokio::select! {
        biased;
        done = asked(shared, from_client, to_server, lost.0) => done,
        done = answered(from_server, to_client, lost.1) => done,
    }
}

async fn asked(
    shared: &Shared,
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    lose: watch::Sender<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        let n = shared.messages.fetch_add(1, Ordering::Relaxed);
        let action = match shared.record.is_harmful() {
            true => shared.plan.next(n),
            false => Break::None,
        };
        match action {
            Break::None => {}
            Break::Before => {
                shared.record.note("cut before", n);
                return Ok(());
            }
            Break::After => {
                shared.record.note("answer lost", n);
                lose.send_replace(true);
            }
            Break::Stall(time) => {
                shared.record.note("stalled", format_args!("{n}, {time:?}"));
                tokio::time::sleep(time).await;
            }
        }
        to.write_all(&buffer[..len]).await?;
    }
}

async fn answered(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    lost: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut buffer).await?;
        // The server has done what it answers.
        if len == 0 || *lost.borrow() {
            return Ok(());
        }
        to.write_all(&buffer[..len]).await?;
    }
}
