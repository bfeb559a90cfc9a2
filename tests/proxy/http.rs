//! A proxy in front of a server that speaks S3.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use md5::{Digest as _, Md5};
use tokio::net::{TcpListener, TcpStream};

use super::{super::wire::Numbers, Record};

/// A request by what it asks of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// CreateMultipartUpload
    Create,
    /// UploadPart, UploadPartCopy
    Part,
    /// CompleteMultipartUpload
    Complete,
    /// AbortMultipartUpload
    Abort,
    Put,
    Get,
    Head,
    Delete,
    List,
    Other,
}

impl Kind {
    fn of(method: &Method, query: &str) -> Self {
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        match (method.as_str(), has("uploadId")) {
            ("POST", false) if has("uploads") => Self::Create,
            ("PUT", true) => Self::Part,
            ("POST", true) => Self::Complete,
            ("DELETE", true) => Self::Abort,
            ("GET", true) => Self::List,
            ("GET", false) if has("uploads") || has("list-type") || has("prefix") => Self::List,
            ("POST", false) if has("delete") => Self::Delete,
            ("PUT", false) => Self::Put,
            ("GET", false) => Self::Get,
            ("HEAD", _) => Self::Head,
            ("DELETE", false) => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Answered with this status at once, not forwarded.
    Refuse(u16),
    /// Not forwarded; answered with 200 and an error in its body, as S3 may answer a completion that took long.
    Contradict,
    /// Neither forwarded nor answered; the connection breaks after this time.
    Hang(Duration),
    /// The connection breaks before anything is forwarded.
    Cut,
    /// Both connections break after so many bytes of the body.
    CutBody(u64),
    /// Forwarded and carried out; its answer gets lost, and the connection breaks after this time.
    LoseReply(Duration),
    /// Forwarded after this time.
    Delay(Duration),
    /// Taken and answered as a part that is stored, and thrown away: what no test may overlook.
    Forge,
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Refuse(500) => "500",
            Self::Refuse(503) => "503",
            Self::Refuse(_) => "refused",
            Self::Contradict => "error in a 200",
            Self::Hang(_) => "no answer",
            Self::Cut => "cut before",
            Self::CutBody(_) => "cut in the body",
            Self::LoseReply(_) => "reply lost",
            Self::Delay(_) => "late",
            Self::Forge => "forged",
        }
    }
}

/// Says what happens to the so-manieth request of a kind.
pub(crate) trait Plan: Send + Sync + 'static {
    fn next(&self, kind: Kind, n: u64) -> Fault;
}

impl<F: Fn(Kind, u64) -> Fault + Send + Sync + 'static> Plan for F {
    fn next(&self, kind: Kind, n: u64) -> Fault {
        self(kind, n)
    }
}

/// Faults that a seed tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeded {
    pub(crate) seed: u64,
    /// Of so many requests one suffers.
    pub(crate) one_in: usize,
    /// How long a request hangs at most.
    pub(crate) patience: Duration,
}

impl Plan for Seeded {
    fn next(&self, kind: Kind, n: u64) -> Fault {
        let mut numbers = Numbers::new(self.seed ^ (kind as u64).rotate_right(8) ^ n.rotate_left(20));
        numbers.next();
        if !numbers.one_in(self.one_in.max(1)) {
            return Fault::None;
        }
        let wait = self.patience.mul_f64(numbers.below(1000) as f64 / 1000.0);
        match numbers.below(14) {
            0..=2 => Fault::Refuse(500),
            4 if kind == Kind::Complete => Fault::Contradict,
            3..=5 => Fault::Refuse(503),
            6 => Fault::Hang(wait),
            7 | 8 => Fault::Cut,
            9 if matches!(kind, Kind::Part | Kind::Put) => Fault::CutBody(numbers.below(1 << 20) as u64),
            9..=11 => Fault::LoseReply(Duration::ZERO),
            12 => Fault::LoseReply(wait),
            _ => Fault::Delay(wait / 4),
        }
    }
}

/// What passed of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) count: u64,
    /// Of their bodies, as far as they were read.
    pub(crate) bytes: u64,
}

const ERROR: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code><Message>Injected; try again</Message></Error>";

type Counts = Arc<Mutex<BTreeMap<Kind, Requests>>>;

/// Passes requests on to a server, as its plan says.
#[derive(Debug)]
pub(crate) struct HttpProxy {
    pub(crate) address: SocketAddr,
    pub(crate) record: Arc<Record>,
    counts: Counts,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    upstream: String,
    plan: Box<dyn Plan>,
    record: Arc<Record>,
    counts: Counts,
}

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

impl HttpProxy {
    /// In front of HOST:PORT. Harmless until told otherwise.
    pub(crate) async fn start(upstream: &str, plan: impl Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (record, counts) = (Arc::new(Record::new()), Counts::default());
        let shared = Arc::new(Shared {
            upstream: upstream.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            plan: Box::new(plan),
            record: Arc::clone(&record),
            counts: Arc::clone(&counts),
        });
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let shared = Arc::clone(&shared);
                let pass = hyper::service::service_fn(move |request| pass(Arc::clone(&shared), request));
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), pass)
                        .await;
                });
            }
        });
        Self {
            address,
            record,
            counts,
            accepting,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn counts(&self) -> BTreeMap<Kind, Requests> {
        self.counts.lock().unwrap().clone()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An error breaks the connection.
async fn pass(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Answer> {
    let kind = Kind::of(request.method(), request.uri().query().unwrap_or_default());
    let n = {
        let mut counts = shared.counts.lock().unwrap();
        let requests = counts.entry(kind).or_default();
        requests.count += 1;
        requests.count - 1
    };
    let fault = match shared.record.is_harmful() {
        true => shared.plan.next(kind, n),
        false => Fault::None,
    };
    if fault != Fault::None {
        let (method, path) = (request.method(), request.uri().path());
        shared
            .record
            .note(fault.name(), format_args!("{kind:?} {n}: {method} {path}, {fault:?}"));
    }
    let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
    let (head, body) = request.into_parts();
    let body = |limit| Counted {
        body,
        left: limit,
        counts: Arc::clone(&shared.counts),
        kind,
    };
    match fault {
        Fault::Refuse(status) => {
            drain(body(u64::MAX)).await;
            Ok(answer(status, ERROR))
        }
        Fault::Contradict => {
            drain(body(u64::MAX)).await;
            Ok(answer(200, ERROR))
        }
        Fault::Hang(time) => {
            tokio::time::sleep(time).await;
            Err(broken())
        }
        Fault::Cut => Err(broken()),
        Fault::CutBody(bytes) => {
            let _ = forward(&shared.upstream, Request::from_parts(head, body(bytes))).await;
            Err(broken())
        }
        Fault::LoseReply(time) => {
            // Until all of it is carried out.
            if let Ok(reply) = forward(&shared.upstream, Request::from_parts(head, body(u64::MAX))).await {
                drain(reply.into_body()).await;
            }
            tokio::time::sleep(time).await;
            Err(broken())
        }
        Fault::Forge => {
            let mut hash = Md5::new();
            let mut body = body(u64::MAX);
            while let Some(Ok(frame)) = body.frame().await {
                hash.update(frame.into_data().unwrap_or_default());
            }
            let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            let mut reply = answer(200, "");
            reply
                .headers_mut()
                .insert("etag", format!("\"{hex}\"").parse().unwrap());
            Ok(reply)
        }
        Fault::None | Fault::Delay(_) => {
            if let Fault::Delay(time) = fault {
                tokio::time::sleep(time).await;
            }
            forward(&shared.upstream, Request::from_parts(head, body(u64::MAX)))
                .await
                .map(|reply| reply.map(BodyExt::boxed_unsync))
        }
    }
}

async fn forward(upstream: &str, request: Request<Counted>) -> io::Result<Response<Incoming>> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

fn answer(status: u16, text: &'static str) -> Answer {
    let never = |never: Infallible| match never {};
    let body = Full::new(Bytes::from_static(text.as_bytes()))
        .map_err(never)
        .boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

async fn drain<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// A body that is counted, and that breaks once `left` bytes have passed.
struct Counted {
    body: Incoming,
    left: u64,
    counts: Counts,
    kind: Kind,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            let len = data.len() as u64;
            self.counts.lock().unwrap().entry(self.kind).or_default().bytes += len;
            let Some(left) = self.left.checked_sub(len) else {
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
            };
            self.left = left;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
