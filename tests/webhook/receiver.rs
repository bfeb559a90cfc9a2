//! A receiver of webhooks on a raw socket, which answers as it is told to.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// What it does once it has read a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Say(String),
    /// Sends this over and over, every so often, until the other side is gone.
    Repeat(&'static str, &'static str, Duration),
    /// Nothing, until the other side is gone.
    Wait,
}

impl Answer {
    pub(crate) fn status(code: u16) -> Self {
        Self::Say(format!("HTTP/1.1 {code} X\r\ncontent-length: 2\r\n\r\nhi"))
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    changed: watch::Receiver<usize>,
}

impl Receiver {
    /// Gives each connection the next answer; the last one again and again.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::start_with(answers, None).await
    }

    pub(crate) async fn start_with(answers: impl IntoIterator<Item = Answer>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (change, changed) = watch::channel(0);
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            heard: Arc::default(),
            connections: Arc::default(),
            changed,
        };
        let (heard, connections) = (receiver.heard.clone(), receiver.connections.clone());
        let answers: Vec<_> = answers.into_iter().collect();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let before = connections.fetch_add(1, Ordering::SeqCst);
                let answer = answers.get(before).or(answers.last()).cloned();
                let (heard, change, tls) = (heard.clone(), change.clone(), tls.clone());
                let answer = answer.unwrap_or(Answer::Wait);
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &answer, &heard, &change).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &answer, &heard, &change).await;
                            }
                        }
                    }
                });
            }
        });
        receiver
    }

    pub(crate) fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hooks?secret=canary", self.address.port())
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn heard(&self) -> Vec<Request> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has read so many requests.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Request> {
        let mut changed = self.changed.clone();
        let heard = changed.wait_for(|heard| *heard >= count);
        tokio::time::timeout(Duration::from_secs(30), heard)
            .await
            .expect("it is told within 30 s")
            .unwrap();
        self.heard()
    }
}

async fn serve<S>(mut stream: S, answer: &Answer, heard: &Mutex<Vec<Request>>, change: &watch::Sender<usize>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(request) = read(&mut stream).await else { return };
    let count = {
        let mut heard = heard.lock().unwrap();
        heard.push(request);
        heard.len()
    };
    change.send_replace(count);
    match answer {
        Answer::Say(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Answer::Repeat(first, more, pause) => {
            let mut text = *first;
            while stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok() {
                tokio::time::sleep(*pause).await;
                text = more;
            }
        }
        Answer::Wait => {
            let _ = stream.read(&mut [0]).await;
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n").map(str::to_owned);
    let line = lines.next()?;
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        })
        .collect();
    let len: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = bytes.split_off(end + 4);
    while body.len() < len {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { line, headers, body })
}
