//! The wire, line by line of the protocol: each row is named by what the text says, and asks it of each draft it is of.
#![allow(clippy::unwrap_used)]

mod append;
mod connection;
mod creation;
mod digests;
mod durable;
mod foreign;
mod interim;
mod limits;
mod offset;
mod retries;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::sync::Notify;
use tower_service::Service as _;

use super::Resumable;
use crate::{
    Builder, Caller, NewUpload, Ready, Uploads,
    access::OwnerOnly,
    blob::{ByteRange, MemoryBlobs},
    http::{
        UploadBody, UploadService,
        tests::{Reply, Who, bearer, request},
    },
    metadata::{MemoryMetadata, Page},
    upload::{Protocol, State, UploadId},
};

/// A draft by its interop version; `None` is the final form.
type Draft = Option<u64>;

const FINAL: Draft = None;
const ALL: &[Draft] = &[
    Some(3),
    Some(4),
    Some(5),
    Some(6),
    Some(7),
    Some(8),
    Some(9),
    Some(10),
    FINAL,
];
/// Those that must be met in full.
const FULL: &[Draft] = &[Some(6), Some(10), FINAL];
const TO_6: &[Draft] = &[Some(3), Some(4), Some(5), Some(6)];
const FROM_7: &[Draft] = &[Some(7), Some(8), Some(9), Some(10), FINAL];
const TO_8: &[Draft] = &[Some(3), Some(4), Some(5), Some(6), Some(7), Some(8)];
const FROM_9: &[Draft] = &[Some(9), Some(10), FINAL];

const MEDIA: (&str, &str) = ("content-type", "application/partial-upload");
const MORE: (&str, &str) = ("upload-complete", "?0");
const LAST: (&str, &str) = ("upload-complete", "?1");
const AT_5: (&str, &str) = ("upload-offset", "5");
const AT_10: (&str, &str) = ("upload-offset", "10");
const NOWHERE: &str = "/files/AAAAAAAAAAAAAAAAAAAAAA";

struct Wire {
    uploads: Uploads,
    service: UploadService<Who>,
}

fn stores() -> Builder<Ready> {
    Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .max_size(100)
        .max_chunk_size(1 << 20)
        .never_expire()
}

impl Wire {
    async fn new() -> Self {
        Self::of(stores().build().await.unwrap(), Resumable::new())
    }

    async fn with(resumable: Resumable) -> Self {
        Self::of(stores().build().await.unwrap(), resumable)
    }

    fn of(uploads: Uploads, resumable: Resumable) -> Self {
        let service = uploads.service(bearer as Who).resumable(resumable);
        Self { uploads, service }
    }

    async fn send<B>(&self, draft: Draft, request: Request<B>) -> Reply
    where
        B: Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request = spoken(draft, request);
        let response = self.service.clone().call(request).await.unwrap();
        read(draft, response).await
    }

    /// `ask` is METHOD PATH; the user is ann, unless the headers name another one.
    async fn ask(&self, draft: Draft, ask: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.send(draft, request(ask, headers, Full::new(body.into()))).await
    }

    /// An upload of "0123456789" as it is in a row's `{word}`; its path.
    async fn prepared(&self, word: &str) -> String {
        let ann = Caller::new("ann");
        let begin = |headers: &'static [(&str, &str)], body: &'static str| async move {
            let reply = self.ask(FINAL, "POST /files", headers, body).await;
            assert_eq!(reply.status, 201, "{}", reply.text);
            reply.header("location").to_owned()
        };
        let other = |id: UploadId| format!("/files/{id}");
        match word {
            "open" => begin(&[MORE, ("upload-length", "10")], "01234").await,
            "loose" => begin(&[MORE], "01234").await,
            "full" => begin(&[MORE, ("upload-length", "10")], "0123456789").await,
            "done" => {
                let path = begin(&[MORE], "01234").await;
                let headers = [MEDIA, LAST, AT_5];
                let reply = self.ask(FINAL, &format!("PATCH {path}"), &headers, "56789").await;
                assert_eq!(reply.status, 200, "{}", reply.text);
                path
            }
            "gone" => {
                let path = begin(&[MORE], "01234").await;
                assert_eq!(self.ask(FINAL, &format!("DELETE {path}"), &[], "").await.status, 204);
                path
            }
            "chunk" => {
                let new = NewUpload::new("a").size(10).chunk_size(4).protocol(Protocol::Chunk);
                let id = self.uploads.create(&ann, new).await.unwrap().id();
                for (index, bytes) in [(0, "0123"), (2, "89")] {
                    let chunk = crate::NewChunk::new(index);
                    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
                    self.uploads.put_chunk(&ann, id, chunk, body).await.unwrap();
                }
                other(id)
            }
            "tus" | "part" => {
                let mut new = NewUpload::new("a").size(10).protocol(Protocol::Tus).seals_itself();
                if word == "part" {
                    new = new.partial();
                }
                let id = self.uploads.create(&ann, new).await.unwrap().id();
                let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from("01234"))]);
                self.uploads.append(&ann, id, 0, body).await.unwrap();
                other(id)
            }
            "nowhere" => NOWHERE.to_owned(),
            word => panic!("{word}"),
        }
    }

    /// What a client is told of an upload: `OFFSET COMPLETE`, or the status of a refusal.
    async fn now(&self, path: &str) -> String {
        let reply = self.ask(Some(10), &format!("HEAD {path}"), &[], "").await;
        match reply.status {
            204 => format!("{} {}", reply.header("upload-offset"), reply.header("upload-complete")),
            status => status.to_string(),
        }
    }

    async fn count(&self) -> usize {
        let all = self.uploads.list(&Caller::new("ann"), Page::new(0, 100)).await.unwrap();
        let live = |upload: &&crate::Upload| upload.state().is_live();
        all.iter().filter(live).count()
    }

    /// The bytes of the finished file.
    async fn file(&self, path: &str) -> String {
        let id = id(path);
        let (_, body) = self
            .uploads
            .read(&Caller::new("ann"), id, ByteRange::ALL)
            .await
            .unwrap();
        let frames: Vec<Bytes> = body.try_collect().await.unwrap();
        String::from_utf8(frames.concat()).unwrap()
    }

    async fn upload(&self, path: &str) -> crate::Upload {
        self.uploads.status(&Caller::new("ann"), id(path)).await.unwrap()
    }
}

fn id(path: &str) -> UploadId {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

/// The request as a client of this draft writes it.
fn spoken<B>(draft: Draft, mut request: Request<B>) -> Request<B> {
    let headers = request.headers_mut();
    if let Some(version) = draft {
        headers.insert("upload-draft-interop-version", version.into());
    }
    if draft == Some(3)
        && let Some(complete) = headers.remove("upload-complete")
    {
        let inverse = match complete.as_bytes() {
            b"?1" => "?0".parse().unwrap(),
            b"?0" => "?1".parse().unwrap(),
            _ => complete,
        };
        headers.insert("upload-incomplete", inverse);
    }
    request
}

/// The answer, with what every one must have.
async fn read(draft: Draft, response: Response<UploadBody>) -> Reply {
    let (mut parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let version = parts.headers.get("upload-draft-interop-version");
    let known = draft.filter(|version| (3..=10).contains(version));
    assert_eq!(
        version.map(|version| version.to_str().unwrap().to_owned()),
        known.map(|version| version.to_string()),
        "the version comes back"
    );
    if draft == Some(3) {
        assert!(!parts.headers.contains_key("upload-complete"));
        if let Some(incomplete) = parts.headers.remove("upload-incomplete") {
            let inverse = if incomplete == "?0" { "?1" } else { "?0" };
            parts.headers.insert("upload-complete", inverse.parse().unwrap());
        }
    }
    assert!(!parts.headers.contains_key("upload-incomplete"));
    assert!(!parts.status.is_redirection(), "no answer redirects");
    if !text.is_empty() {
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let problem = parts.status.as_u16() >= 400;
        let media = if problem {
            "application/problem+json"
        } else {
            "application/json"
        };
        assert_eq!(parts.headers["content-type"], media);
        if problem {
            assert_eq!(json["status"], parts.status.as_u16(), "{text}");
            assert!(json["title"].is_string() && json["detail"].is_string(), "{text}");
        }
    }
    if parts.status.is_server_error() {
        assert!(parts.headers.contains_key("retry-after"));
    }
    if parts.status == 409 {
        let fields = ["upload-offset", "upload-complete"];
        assert!(
            fields.iter().all(|field| parts.headers.contains_key(*field)),
            "a bare 409"
        );
    }
    Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        text,
    }
}

/// What the text says; the drafts that say it; METHOD PATH, where `{word}` is what [`Wire::prepared`] makes; headers; body; status; what
/// must be in the body, or in a header if it reads `name: value`, or be no header if it reads `!name`; what the
/// upload of the path is afterwards, or how many there are if it begins with `#`.
type Row<'a> = (
    &'a str,
    &'a [Draft],
    &'a str,
    &'a [(&'a str, &'a str)],
    &'a str,
    u16,
    &'a [&'a str],
    &'a str,
);

/// Each row on a service of its own for each draft.
async fn rows(rows: &[Row<'_>]) {
    rows_with(&Resumable::new(), rows).await;
}

async fn rows_with(resumable: &Resumable, rows: &[Row<'_>]) {
    for (says, drafts, ask, headers, body, status, needed, after) in rows {
        for draft in *drafts {
            let wire = Wire::with(resumable.clone()).await;
            let word = ask.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            let (path, ask) = match word {
                None => (String::new(), (*ask).to_owned()),
                Some((word, _)) => {
                    let path = wire.prepared(word).await;
                    let ask = ask.replace(&format!("{{{word}}}"), &path);
                    (path, ask)
                }
            };
            let reply = wire.ask(*draft, &ask, headers, (*body).to_owned()).await;
            let about = format!("{says}\n{draft:?} {ask} {headers:?} {body:?}\n{reply:?}");
            assert_eq!(reply.status, *status, "{about}");
            for needed in *needed {
                let is_there = match (needed.strip_prefix('!'), needed.split_once(": ")) {
                    (Some(name), _) => !reply.headers.contains_key(name),
                    (_, Some((name, value))) if !needed.contains('"') => {
                        reply.header(name) == value.replace("{path}", &path)
                    }
                    _ => reply.text.contains(&needed.replace("{path}", &path)),
                };
                assert!(is_there, "{needed} is not so: {about}");
            }
            match after.strip_prefix('#') {
                _ if after.is_empty() => {}
                Some(count) => assert_eq!(wire.count().await.to_string(), count, "afterwards: {about}"),
                None => assert_eq!(wire.now(&path).await, **after, "afterwards: {about}"),
            }
        }
    }
}

/// What is left of what a client may go on with.
fn is_open(upload: &crate::Upload) -> bool {
    upload.state() == State::Open
}

/// A body that stalls after these bytes, and what tells that they were taken.
fn held_up(
    bytes: &str,
) -> (
    impl Body<Data = Bytes, Error = std::io::Error> + Send + 'static,
    Arc<Notify>,
) {
    let taken = Arc::new(Notify::new());
    let tells = taken.clone();
    let first = stream::iter([Ok(Frame::data(Bytes::copy_from_slice(bytes.as_bytes())))]);
    let then = stream::poll_fn(move |_| {
        tells.notify_one();
        std::task::Poll::Pending
    });
    (StreamBody::new(first.chain(then)), taken)
}

/// Sends a request until its bytes are taken, then drops it.
async fn send_and_drop(wire: &Wire, draft: Draft, ask: &str, headers: &[(&str, &str)], bytes: &str) {
    let (body, taken) = held_up(bytes);
    tokio::select! {
        biased;
        reply = wire.send(draft, request(ask, headers, body)) => panic!("{reply:?}"),
        () = taken.notified() => {}
    }
}
