//! Servers as processes of their own: the service on an object store, and the simplest that does the same.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use object_store::{
    ObjectStoreExt as _, PutPayload,
    aws::AmazonS3,
    multipart::{MultipartStore as _, PartId},
    path::Path,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower_service::Service as _;
use tower_upload::{Caller, Uploads, access::OwnerOnly, blob::object::ObjectOptions, metadata::RedbOptions};

use crate::{
    MIB, PART, block, floors,
    support::served::{self, Served},
};

/// What a stalled connection may hold; hyper's own bound is six times this.
const BUFFER: Option<usize> = Some(64 << 10);
/// Of bodies in memory; of parts in memory.
pub(crate) const BUDGET: u64 = 64 * MIB;
pub(crate) const STORE_MEMORY: u64 = 64 * MIB;

/// A running server; ended when dropped.
pub(crate) struct Server(Served);

impl Server {
    /// `ours` or `naive`
    pub(crate) fn start(kind: &str, url: &str) -> Self {
        Self(Served::start(&format!("{kind} {url}")))
    }

    /// As [`Served::memory`].
    pub(crate) fn memory(&self, line: &str) -> u64 {
        self.0.memory(line)
    }

    /// Creation, chunks, so many at once, and assembly.
    pub(crate) async fn upload(&self, len: u64, at_once: usize) -> String {
        let mut connection = Connection::open(&self.0.address).await;
        let name = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        let body = format!("{{\"fileName\":\"{name}.mp4\",\"fileSize\":{len},\"chunkSize\":{PART}}}");
        let (status, text) = connection
            .ask("POST /uploads/", "application/json", body.as_bytes())
            .await;
        assert!(status == 201, "{status} {text}");
        let id = text
            .split_once("\"upload_id\":\"")
            .unwrap()
            .1
            .split('"')
            .next()
            .unwrap()
            .to_owned();
        let next = Arc::new(Mutex::new(0..len.div_ceil(PART)));
        let block = block();
        let sending = stream::iter(0..at_once).for_each_concurrent(None, |_| {
            let (next, block, id) = (Arc::clone(&next), block.clone(), &id);
            async move {
                let mut connection = Connection::open(&self.0.address).await;
                loop {
                    let Some(index) = next.lock().unwrap().next() else {
                        return;
                    };
                    let piece = block.slice(..PART.min(len - index * PART) as usize);
                    let line = format!("PUT /uploads/{id}/chunks/{index}");
                    let (status, text) = connection.ask(&line, "application/octet-stream", &piece).await;
                    assert!(status == 200, "{status} {text}");
                }
            }
        });
        sending.await;
        let (status, text) = connection
            .ask(&format!("POST /uploads/{id}/assemble/"), "application/json", b"{}")
            .await;
        assert!(status == 200, "{status} {text}");
        id
    }

    pub(crate) async fn delete(&self, id: &str) {
        let mut connection = Connection::open(&self.0.address).await;
        let (status, text) = connection
            .ask(&format!("DELETE /uploads/{id}/"), "text/plain", b"")
            .await;
        assert!(status == 204, "{status} {text}");
    }
}

struct Connection(tokio::net::TcpStream);

impl Connection {
    async fn open(address: &str) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    async fn ask(&mut self, line: &str, media: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: bench\r\ncontent-type: {media}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(head.as_bytes()).await.unwrap();
        self.0.write_all(body).await.unwrap();
        let mut bytes = Vec::new();
        loop {
            assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0, "no answer to {line}");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((head, rest)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let len = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if rest.len() == len.unwrap_or(0) {
                return (head.split(' ').nth(1).unwrap().parse().unwrap(), rest.to_owned());
            }
        }
    }
}

/// Serves in this role until standard input ends.
pub(crate) fn play(kind: &str, url: &str) {
    served::run(async {
        if kind == "naive" {
            let naive = Arc::new(Naive {
                store: floors::store(url),
                uploads: Mutex::default(),
            });
            served::serve(BUFFER, move |request| Arc::clone(&naive).answer(request)).await;
        } else {
            let directory = tempfile::tempdir().unwrap();
            let blobs = ObjectOptions::default()
                .with_memory(STORE_MEMORY)
                .from_url(url)
                .unwrap();
            let metadata = RedbOptions::default()
                .open(directory.path().join("metadata.redb"))
                .await
                .unwrap();
            let builder = Uploads::with(blobs, metadata).authorizer(OwnerOnly);
            let uploads = builder.memory_budget(BUDGET).build().await.unwrap();
            let service = uploads.service(|_: &http::request::Parts| Some(Caller::new("bench")));
            served::serve(BUFFER, move |request| service.clone().call(request)).await;
        }
    });
}

/// A server that does no more than it must: each part is held in memory, then sent.
struct Naive {
    store: AmazonS3,
    uploads: Mutex<BTreeMap<String, Begun>>,
}

/// Path, multipart upload and the parts that are there.
type Begun = (Path, String, BTreeMap<usize, PartId>);

impl Naive {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (status, text) = match (&method, words.as_slice()) {
            (&Method::POST, ["uploads"]) => {
                let name = format!("naive/{}", blake3::hash(&body).to_hex());
                let path = Path::from(name.as_str());
                let id = self.store.create_multipart(&path).await.unwrap();
                let name = name.replace('/', "-");
                self.uploads
                    .lock()
                    .unwrap()
                    .insert(name.clone(), (path, id, BTreeMap::new()));
                (201, format!("{{\"upload_id\":\"{name}\"}}"))
            }
            (&Method::PUT, ["uploads", name, "chunks", index]) => {
                let (path, id) = {
                    let uploads = self.uploads.lock().unwrap();
                    let (path, id, _) = &uploads[*name];
                    (path.clone(), id.clone())
                };
                let index = index.parse().unwrap();
                let part = self
                    .store
                    .put_part(&path, &id, index, PutPayload::from_bytes(body))
                    .await
                    .unwrap();
                self.uploads
                    .lock()
                    .unwrap()
                    .get_mut(*name)
                    .unwrap()
                    .2
                    .insert(index, part);
                (200, "{}".to_owned())
            }
            (&Method::POST, ["uploads", name, "assemble"]) => {
                let (path, id, parts) = {
                    let mut uploads = self.uploads.lock().unwrap();
                    let (path, id, parts) = uploads.get_mut(*name).unwrap();
                    (path.clone(), id.clone(), std::mem::take(parts))
                };
                let parts = parts.into_values().collect();
                self.store.complete_multipart(&path, &id, parts).await.unwrap();
                (200, "{}".to_owned())
            }
            (&Method::DELETE, ["uploads", name]) => {
                let upload = self.uploads.lock().unwrap().remove(*name);
                self.store.delete(&upload.unwrap().0).await.unwrap();
                (204, String::new())
            }
            _ => (404, String::new()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }
}
