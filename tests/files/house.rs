//! A server with the service of files below `/media`, on a store that can be looked at.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::request::Parts;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tower_upload::{
    Authorizer, Builder, Caller, Clock, Digest, Error, Key, NewUpload, Ready, Result, UploadId, Uploads,
    access::{Action, Denied, OwnerOnly, Subject},
    blob::{BlobBody, BlobStore, ByteRange, Completed, DiskBlobs, Limits, PartWriter, Slot},
    http::{FileService, UrlSigner},
    metadata::MemoryMetadata,
    upload::{Algorithm, Blob, Handle, Part, Plan, Timestamp},
};

pub(crate) type Who = fn(&Parts) -> Option<Caller>;

/// The bearer's name is the user.
fn bearer(parts: &Parts) -> Option<Caller> {
    let value = parts.headers.get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(Caller::new)
}

/// A clock that goes when it is told to, in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Hands(pub(crate) Arc<AtomicU64>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What was read of the store.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Bodies that were given out and not dropped.
    pub(crate) open: AtomicUsize,
    /// Bytes that they gave.
    pub(crate) bytes: AtomicU64,
    /// Bodies break after this many bytes of the store, 0: never.
    pub(crate) break_after: AtomicU64,
}

/// Blobs on disk, whose reads are counted.
#[derive(Debug)]
struct Watched {
    inner: DiskBlobs,
    seen: Arc<Seen>,
}

struct WatchedBody {
    inner: BlobBody,
    seen: Arc<Seen>,
}

impl Stream for WatchedBody {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let item = self.inner.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &item {
            let before = self.seen.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            let break_after = self.seen.break_after.load(Ordering::SeqCst);
            if break_after > 0 && before >= break_after {
                return Poll::Ready(Some(Err(Error::unavailable("planted"))));
            }
        }
        item
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.seen.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl BlobStore for Watched {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
    async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle> {
        self.inner.begin(id, key, plan).await
    }
    async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
        self.inner.open(handle, slot).await
    }
    async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> {
        self.inner.read_parts(handle, parts).await
    }
    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        self.inner.complete(handle, key, parts).await
    }
    async fn discard(&self, handle: &Handle) -> Result<()> {
        self.inner.discard(handle).await
    }
    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        self.inner.begun(older_than).await
    }
    async fn head(&self, key: &Key) -> Result<Option<Blob>> {
        self.inner.head(key).await
    }
    async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> {
        let inner = self.inner.read(key, range).await?;
        self.seen.open.fetch_add(1, Ordering::SeqCst);
        let seen = self.seen.clone();
        Ok(Box::pin(WatchedBody { inner, seen }))
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        self.inner.put(key, bytes).await
    }
    async fn clear(&self, folder: &Key) -> Result<()> {
        self.inner.clear(folder).await
    }
}

/// Owners only, until they are locked out.
struct Door(Arc<AtomicBool>);

#[async_trait]
impl Authorizer for Door {
    async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Denied> {
        if action == Action::Read && self.0.load(Ordering::SeqCst) {
            return Err(Denied::Forbidden);
        }
        OwnerOnly.authorize(caller, action, subject).await
    }
}

pub(crate) struct House {
    pub(crate) uploads: Uploads,
    pub(crate) seen: Arc<Seen>,
    pub(crate) hands: Hands,
    /// The time of the metadata store.
    pub(crate) store_hands: Hands,
    pub(crate) signer: UrlSigner,
    pub(crate) locked_out: Arc<AtomicBool>,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) const KEY: [u8; 32] = [7; 32];

/// When files are published unless the store's clock is moved, in milliseconds: `Tue, 14 Nov 2023 22:13:20 GMT`.
const PUBLISHED: u64 = 1_700_000_000_999;

impl House {
    pub(crate) async fn new(set: impl FnOnce(FileService<Who>) -> FileService<Who>) -> Self {
        Self::built(|builder| builder, set).await
    }

    pub(crate) async fn built(
        build: impl FnOnce(Builder<Ready>) -> Builder<Ready>,
        set: impl FnOnce(FileService<Who>) -> FileService<Who>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (seen, locked_out) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let blobs = Watched {
            inner: DiskBlobs::open(directory.path()).await.unwrap(),
            seen: seen.clone(),
        };
        let store_hands = Hands(Arc::new(AtomicU64::new(PUBLISHED)));
        let metadata = MemoryMetadata::with_clock(Arc::new(store_hands.clone()));
        let builder = Uploads::with(blobs, metadata).authorizer(Door(locked_out.clone()));
        let uploads = build(builder).build().await.unwrap();
        let hands = Hands(Arc::new(AtomicU64::new(1_000_000_000)));
        let signer = UrlSigner::new(KEY).unwrap().with_clock(hands.clone());
        let service = set(uploads.files(bearer as Who).signed(signer.clone()));
        let app = axum::Router::new().nest_service("/media", service);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self {
            uploads,
            seen,
            hands,
            store_hands,
            signer,
            locked_out,
            address,
            server: tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }),
            _directory: directory,
        }
    }

    /// A finished file of ann's.
    pub(crate) async fn file(&self, name: &str, media: &str, bytes: &[u8]) -> UploadId {
        let ann = Caller::new("ann");
        let new = NewUpload::new(name)
            .size(bytes.len() as u64)
            .metadata("filetype", media);
        let upload = self.uploads.create(&ann, new.digest(Algorithm::Sha256)).await.unwrap();
        let body = stream::iter([Ok::<_, io::Error>(Bytes::copy_from_slice(bytes))]);
        self.uploads.append(&ann, upload.id(), 0, body).await.unwrap();
        self.uploads.assemble(&ann, upload.id(), None).await.unwrap();
        upload.id()
    }

    pub(crate) async fn digest(&self, id: UploadId) -> Digest {
        let upload = self.uploads.status(&Caller::new("ann"), id).await.unwrap();
        upload.digest().unwrap()
    }

    /// Sends a request and reads the head of its answer.
    pub(crate) async fn begin(&self, ask: &str, headers: &[(&str, &str)]) -> (Reply, BufReader<TcpStream>) {
        let mut stream = BufReader::new(TcpStream::connect(self.address).await.unwrap());
        let mut head = format!("{ask} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reply = Reply::default();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let line = line.trim();
            if reply.status == 0 {
                reply.status = line.split(' ').nth(1).unwrap().parse().unwrap();
            } else if let Some((name, value)) = line.split_once(": ") {
                reply.headers.push((name.to_ascii_lowercase(), value.to_owned()));
            } else {
                return (reply, stream);
            }
        }
    }

    /// All of it; `is_whole` says whether the body was as long as its head said.
    pub(crate) async fn ask(&self, ask: &str, headers: &[(&str, &str)]) -> Reply {
        let (mut reply, mut stream) = self.begin(ask, headers).await;
        let read = stream.read_to_end(&mut reply.body).await;
        let len = reply.header("content-length").parse().unwrap_or(0);
        let expected = if ask.starts_with("HEAD") || reply.status == 304 {
            0
        } else {
            len
        };
        reply.is_whole = read.is_ok() && reply.body.len() == expected;
        reply
    }

    pub(crate) async fn get_at(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.ask(&format!("GET /media/{path}"), headers).await
    }

    /// As ann.
    pub(crate) async fn get(&self, id: UploadId, headers: &[(&str, &str)]) -> Reply {
        let headers = [&[ANN], headers].concat();
        self.ask(&format!("GET /media/{id}"), &headers).await
    }
}

pub(crate) const ANN: (&str, &str) = ("authorization", "Bearer ann");
pub(crate) const EVE: (&str, &str) = ("authorization", "Bearer eve");

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) is_whole: bool,
}

impl Reply {
    /// Empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.iter().filter(|(other, _)| other == name);
        let value = values.next().map_or("", |(_, value)| value);
        assert!(values.next().is_none(), "{name} twice");
        value
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
