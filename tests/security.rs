//! What an attacker tries over HTTP, and that it comes to nothing: the service is called directly, on stores that can
//! be looked into.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "security/attacks.rs"]
mod attacks;
#[path = "security/canary.rs"]
mod canary;
#[path = "security/matrix.rs"]
mod matrix;
#[path = "security/numbers.rs"]
mod numbers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, request::Parts};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::{Value, json};
use tower_service::Service as _;
use tower_upload::{
    Authorizer, Builder, Caller, Clock, Ready, UploadId, Uploads,
    blob::{BlobStore as _, MemoryBlobs},
    conformance::fault::{Call, Fault, FaultyBlobs},
    http::UploadService,
    metadata::{Lookup, MemoryMetadata, MetadataStore as _, Page, PartRange},
    upload::{Handle, Snapshot, State, Timestamp},
};

type Who = fn(&Parts) -> Option<Caller>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The bearer's name is the user.
fn bearer(parts: &Parts) -> Option<Caller> {
    let value = parts.headers.get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(Caller::new)
}

const ANN: (&str, &str) = ("authorization", "Bearer ann");
const EVE: (&str, &str) = ("authorization", "Bearer eve");
const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=----X");
const UNKNOWN: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// A clock that goes when it is told to.
#[derive(Debug, Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_678 + self.0.load(Ordering::SeqCst))
    }
}

/// The service, and behind it the stores.
struct House {
    uploads: Uploads,
    service: UploadService<Who>,
    metadata: Arc<MemoryMetadata>,
    blobs: Arc<MemoryBlobs>,
    clock: Arc<Hands>,
    /// Whether `complete` hangs.
    stuck: Arc<AtomicBool>,
}

#[derive(Clone, Debug, PartialEq)]
struct Reply {
    /// 0: there was no answer.
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn field(&self) -> Option<String> {
        self.json()["error"]["field"].as_str().map(str::to_owned)
    }

    fn id(&self) -> String {
        self.json()["data"]["upload_id"].as_str().unwrap().to_owned()
    }
}

/// All that both stores hold.
#[derive(Clone, Debug, PartialEq)]
struct Holdings {
    uploads: Vec<Snapshot>,
    begun: Vec<(UploadId, Handle)>,
    used: u64,
}

impl Holdings {
    /// The uploads of one owner alone.
    fn of(&self, owner: &str) -> Vec<Snapshot> {
        let theirs = self.uploads.iter().filter(|one| one.record.owner.as_str() == owner);
        theirs.cloned().collect()
    }
}

impl House {
    async fn new(authorizer: impl Authorizer) -> Self {
        Self::built(authorizer, |builder| builder).await
    }

    async fn built(authorizer: impl Authorizer, set: impl FnOnce(Builder<Ready>) -> Builder<Ready>) -> Self {
        let clock = Arc::new(Hands::default());
        let metadata = Arc::new(MemoryMetadata::with_clock(clock.clone()));
        let blobs = Arc::new(MemoryBlobs::new().by_clock(clock.clone()));
        let stuck = Arc::new(AtomicBool::new(false));
        let is_stuck = stuck.clone();
        let faults = move |call: Call| match call {
            Call::Complete if is_stuck.load(Ordering::SeqCst) => Fault::Hang,
            _ => Fault::None,
        };
        let builder = Uploads::with(FaultyBlobs::new(blobs.clone(), Arc::new(faults)), metadata.clone());
        let builder = builder.authorizer(authorizer).max_chunk_size(1 << 20).without_driver();
        // Longer than a request is waited for here.
        let builder = builder.assembly_timeout(Duration::from_secs(1000 * 86_400));
        let uploads = set(builder).build().await.unwrap();
        let service = uploads.service(bearer as Who).mount("/api/streaming");
        Self {
            uploads,
            service,
            metadata,
            blobs,
            clock,
            stuck,
        }
    }

    async fn send<B>(&self, request: Request<B>) -> Reply
    where
        B: Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let answer = self.service.clone().call(request);
        // The clock is paused: what waits for ever is known at once.
        let Ok(response) = tokio::time::timeout(Duration::from_secs(3600), answer).await else {
            return Reply {
                status: 0,
                headers: HeaderMap::new(),
                text: String::new(),
            };
        };
        let (parts, mut body) = response.unwrap().into_parts();
        let mut text = Vec::new();
        // Events go on for ever: an hour of them is enough.
        while let Ok(Some(frame)) = tokio::time::timeout(Duration::from_secs(1), body.frame()).await {
            text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        for (name, value) in &parts.headers {
            assert!(!name.as_str().starts_with("access-control"), "{name}: {value:?}");
        }
        assert_eq!(parts.headers["x-content-type-options"], "nosniff");
        assert_eq!(parts.headers["cache-control"], "no-store");
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(text).unwrap(),
        }
    }

    /// `ask` is METHOD PATH.
    async fn ask(&self, ask: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.send(request(ask, headers, Full::new(body.into()))).await
    }

    async fn json(&self, ask: &str, body: &Value) -> Reply {
        self.ask(ask, &[ANN, JSON], body.to_string()).await
    }

    /// Ann's upload of `a.mp4` for video `v1`: 10 bytes in chunks of 4, nothing stored yet.
    async fn begun(&self, checksum: Option<&str>) -> String {
        let mut session = session("v1");
        session["checksum"] = json!(checksum);
        let reply = self.json("POST /uploads/", &session).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.id()
    }

    async fn put(&self, id: &str, index: usize) {
        let ask = format!("PUT /uploads/{id}/chunks/{index}");
        let reply = self.ask(&ask, &[ANN], CHUNKS[index]).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }

    async fn filled(&self, checksum: Option<&str>) -> String {
        let id = self.begun(checksum).await;
        for index in 0..CHUNKS.len() {
            self.put(&id, index).await;
        }
        id
    }

    async fn assemble(&self, id: &str) -> Reply {
        self.ask(&format!("POST /uploads/{id}/assemble/"), &[ANN], "").await
    }

    async fn delete(&self, id: &str) {
        let reply = self.ask(&format!("DELETE /uploads/{id}/"), &[ANN], "").await;
        assert_eq!(reply.status, 204, "{}", reply.text);
    }

    /// Lets a day and an hour go by, for the driver too.
    async fn tomorrow(&self) {
        self.clock.0.fetch_add(25 * 3_600_000, Ordering::SeqCst);
        while self.uploads.drive().await.unwrap() > 0 {}
    }

    async fn state(&self, id: &str) -> Option<State> {
        let by = Lookup::Id(id.parse().unwrap());
        let found = self.metadata.load(by, PartRange::NONE).await.unwrap();
        found.map(|snapshot| snapshot.record.state)
    }

    async fn holdings(&self) -> Holdings {
        let mut uploads = Vec::new();
        for listed in self.metadata.list(None, Page::new(0, 1000)).await.unwrap() {
            let by = Lookup::Id(listed.record.id);
            uploads.extend(self.metadata.load(by, PartRange::ALL).await.unwrap());
        }
        uploads.sort_by_key(|upload| upload.record.id);
        let mut begun = self.blobs.begun(Duration::ZERO).await.unwrap();
        begun.sort_by_key(|(id, _)| *id);
        Holdings {
            uploads,
            begun,
            used: self.blobs.used(),
        }
    }
}

const CHUNKS: [&str; 3] = ["0123", "4567", "89"];

fn session(video: &str) -> Value {
    json!({"fileName": "a.mp4", "fileSize": 10, "chunkSize": 4, "videoId": video})
}

fn request<B>(ask: &str, headers: &[(&str, &str)], body: B) -> Request<B> {
    let (method, path) = ask.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

fn form(fields: &[(&str, &str)]) -> String {
    let mut form: String = fields
        .iter()
        .map(|(name, value)| {
            let file = if *name == "chunk" { "; filename=\"blob\"" } else { "" };
            format!("------X\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
        })
        .collect();
    form.push_str("------X--\r\n");
    form
}

/// A body of `frames`, and how many bytes of it were asked for.
fn counted(
    frames: impl Iterator<Item = Bytes> + Send + 'static,
) -> (impl Body<Data = Bytes, Error = BoxError>, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let frames = stream::iter(frames).map(move |frame| {
        counter.fetch_add(frame.len(), Ordering::SeqCst);
        Ok::<_, BoxError>(Frame::data(frame))
    });
    (StreamBody::new(frames), taken)
}
