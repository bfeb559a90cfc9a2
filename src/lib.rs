//! Chunked, resumable uploads for Tower: large files come in pieces, in any order, in parallel, over bad networks and across
//! crashes of client and server, and become one object without being copied again.
//!
//! There are three ways of use: a [service](#a-service) nested under any route of axum, hyper, warp or whatever speaks Tower; a
//! [layer](#a-layer) in front of an application; and [the plain engine](#the-engine), with no HTTP at all. Whole programs for each
//! framework are in `docs/add-it-to-your-app.md`.
//!
//! # A service
//! ```no_run
//! # #[cfg(all(feature = "disk", feature = "redb", feature = "http"))]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, extract::Request, middleware::{Next, from_fn}};
//! use tower_upload::{Caller, Uploads, access::OwnerOnly};
//!
//! #[derive(Clone)]
//! struct User { id: String }
//!
//! let uploads = Uploads::open("./upload-data") // files on disk, metadata in redb
//!     .authorizer(OwnerOnly)
//!     .max_size(10 << 30)
//!     .on_event(|event| async move { println!("{} {}", event.upload_id(), event.kind()); Ok(()) })
//!     .build()
//!     .await?;
//! // The application's own authentication puts a `User` into the request's extensions.
//! # let auth = |request: Request, next: Next| next.run(request);
//! let who = |request: &::http::request::Parts| request.extensions.get::<User>().map(|user| Caller::new(&user.id));
//! let app: Router = Router::new()
//!     .nest_service("/api/streaming", uploads.service(who).mount("/api/streaming"))
//!     .layer(from_fn(auth));
//! # drop(app); Ok(()) }
//! ```
//!
//! # A layer
//! It answers its own prefix and passes everything else on, body untouched.
//!
//! ```
//! # #[cfg(feature = "http")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//! use tower_upload::{Uploads, blob::MemoryBlobs, metadata::MemoryMetadata};
//!
//! let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new()).allow_anonymous().build().await?;
//! # type Body = Full<bytes::Bytes>;
//! let app = service_fn(async |_: Request<Body>| Ok::<_, std::convert::Infallible>(Response::new(Body::from("mine"))));
//! let app = ServiceBuilder::new().layer(uploads.layer("/files", |_: &_| None)).service(app);
//!
//! let ask = |path: &str| Request::get(path).body(Body::default());
//! assert_eq!(app.clone().oneshot(ask("/about")?).await?.status(), StatusCode::OK);
//! assert_eq!(app.clone().oneshot(ask("/files/nothing")?).await?.status(), StatusCode::NOT_FOUND);
//! # Ok(()) }
//! # #[cfg(not(feature = "http"))] fn main() {}
//! ```
//!
//! # The engine
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> tower_upload::Result<()> {
//! use bytes::Bytes;
//! use futures_util::stream;
//! use tower_upload::{Caller, NewUpload, State, Uploads, access::OwnerOnly, blob::MemoryBlobs, metadata::MemoryMetadata};
//!
//! let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new()).authorizer(OwnerOnly).build().await?;
//! let alice = Caller::new("alice");
//! let upload = uploads.create(&alice, NewUpload::new("talk.mp4").size(10)).await?;
//! let body = |text: &'static str| stream::iter([Ok::<_, std::io::Error>(Bytes::from(text))]);
//! uploads.append(&alice, upload.id(), 0, body("hello")).await?;
//! uploads.append(&alice, upload.id(), 5, body("world")).await?;
//! let upload = uploads.assemble(&alice, upload.id(), None).await?;
//! assert_eq!(upload.state(), State::Assembled);
//! # Ok(()) }
//! ```
//!
//! Bytes flow one way:
//!
//! ```text
//! request ─► http (one dialect per file) ─► engine ─► metadata store   the only truth
//!                                             │  └──► blob store       where bytes lie
//!                                             └─────► hooks            told of events, durably
//! ```
//!
//! # What an acknowledgement means
//! A chunk that was answered with success is durable in the blob store and committed in the metadata store: it survives a
//! crash of the process and a loss of power right after. A status never tells of a byte that is not. The published
//! object is exactly the bytes that were acknowledged, with their CRC-64/NVME; it is published once and never changes.
//! It does not mean that a disk which lies about its syncs, or rots, is found out: for that there is [`Verify::Read`].
//!
//! # Features
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `http` | yes | the service, the layer, the chunk API |
//! | `disk` | yes | [`DiskBlobs`](blob::DiskBlobs): blobs as files beneath one directory |
//! | `redb` | yes | [`RedbMetadata`](metadata::RedbMetadata): metadata in one embedded file |
//! | `postgres` | no | `PostgresMetadata`: metadata in PostgreSQL, shared by many nodes |
//! | `postgres-tls` | no | TLS for it |
//! | `object-store` | no | `ObjectBlobs`: blobs in any store of the `object_store` crate |
//! | `aws`, `gcp`, `azure` | no | S3 and what speaks it, Google Cloud Storage, Azure Blob Storage for it |
//! | `ffmpeg` | no | `hook::ffmpeg`: videos become HLS streams, by an ffmpeg that is installed (Unix) |
//! | `webhook` | no | `Webhook`: events told to an HTTPS receiver, signed |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade |
//! | `conformance` | no | suites and fault-injecting wrappers for your own stores |
//! | `benchmark` | no | the same work on any pair of stores, measured and plotted |
//!
//! # Your own rules
//! An [`Authorizer`] is asked on every request, also on those by id.
//!
//! ```
//! use tower_upload::{Authorizer, Caller, access::{Action, Denied, Subject}};
//!
//! struct Videos; // your catalogue
//! # impl Videos { async fn owner(&self, video: &str) -> Option<String> { Some(video.to_owned()) } }
//!
//! #[async_trait::async_trait]
//! impl Authorizer for Videos {
//!     async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Denied> {
//!         match subject {
//!             _ if caller.is_anonymous() => return Err(Denied::Unauthenticated),
//!             // Cannot be told from one that does not exist.
//!             Subject::Upload(record) if record.owner != *caller.owner() => return Err(Denied::Hidden),
//!             _ => {}
//!         }
//!         if let (Action::Create | Action::Write, Some(video)) = (action, subject.target())
//!             && self.owner(video.as_str()).await.as_deref() != Some(caller.owner().as_str())
//!         {
//!             return Err(Denied::TargetNotFound);
//!         }
//!         Ok(())
//!     }
//! }
//! ```
//!
//! # Your own hook
//! A [`Hook`] may refuse an upload before it exists or before it is published, and is told of what happened, durably: at least once, in
//! order for each upload, also after a crash.
//!
//! ```
//! use tower_upload::{Error, Event, EventKind, Hook, Result, hook::Telling, upload::Record};
//!
//! struct Transcode; // your queue
//! # impl Transcode { async fn enqueue(&self, id: &str, key: &str) -> Result<()> { let _ = (id, key); Ok(()) } }
//!
//! #[async_trait::async_trait]
//! impl Hook for Transcode {
//!     fn name(&self) -> &str {
//!         "transcode" // what it is still owed is found by its name after a restart
//!     }
//!     fn wants(&self, kind: EventKind) -> bool {
//!         kind == EventKind::Assembled
//!     }
//!     async fn before_create(&self, record: &mut Record) -> Result<()> {
//!         match record.file_name.as_str().ends_with(".mp4") {
//!             true => Ok(()),
//!             false => Err(Error::invalid("fileName", "Only MP4 is taken here")),
//!         }
//!     }
//!     async fn on_event(&self, event: &Event, _: &Telling) -> Result<()> {
//!         // It may be told twice: the id is the same then. After an error it is told again.
//!         self.enqueue(&event.id.to_string(), event.key.as_str()).await
//!     }
//! }
//! ```
//!
//! # Your own store
//! Implement [`MetadataStore`](metadata::MetadataStore) or [`BlobStore`](blob::BlobStore): their documentation says who
//! guarantees what. With the feature `conformance` the suite tells whether it is right. Here one that keeps its blobs as another
//! one does, but for what your storage would do otherwise:
//!
//! ```
//! use std::time::Duration;
//! use tower_upload::{Key, Result, UploadId, blob::*, upload::{Blob, Handle, Part, Plan}};
//!
//! #[derive(Debug, Default)]
//! struct Mine(MemoryBlobs);
//!
//! #[async_trait::async_trait]
//! impl BlobStore for Mine {
//!     fn limits(&self) -> Limits {
//!         let mut limits = self.0.limits();
//!         limits.max_parts = 10_000;
//!         limits
//!     }
//!     async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle> {
//!         self.0.begin(id, key, plan).await
//!     }
//!     async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
//!         self.0.open(handle, slot).await
//!     }
//!     async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
//!         self.0.complete(handle, key, parts).await
//!     }
//!     // … and read_parts, discard, begun, head, read, delete
//! #   async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> { self.0.read_parts(handle, parts).await }
//! #   async fn discard(&self, handle: &Handle) -> Result<()> { self.0.discard(handle).await }
//! #   async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> { self.0.begun(older_than).await }
//! #   async fn head(&self, key: &Key) -> Result<Option<Blob>> { self.0.head(key).await }
//! #   async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> { self.0.read(key, range).await }
//! #   async fn delete(&self, key: &Key) -> Result<()> { self.0.delete(key).await }
//! }
//!
//! # #[cfg(feature = "conformance")]
//! #[tokio::main] // in your crate: #[tokio::test(flavor = "multi_thread")]
//! async fn main() {
//!     tower_upload::conformance::blob::run(async || Mine::default()).await;
//! }
//! # #[cfg(not(feature = "conformance"))] fn main() {}
//! ```
//!
//! # What an operator sees
//! Spans and events through `tracing`, figures through `metrics`: `docs/operating.md`
//! lists them.
//!
//! # Layers that hurt
//! Above the upload routes do without: a request timeout shorter than a chunk takes on a bad line; decompression of request
//! bodies; a limit on body size below that of a chunk (axum's `DefaultBodyLimit` concerns extractors and does no harm);
//! anything that collects a body before passing it on. A proxy in front must not buffer requests
//! (nginx: `proxy_request_buffering off; client_max_body_size 0;`).
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "http", feature = "disk", feature = "redb")),
    allow(rustdoc::broken_intra_doc_links, reason = "the overview links to what features add")
)]
#![cfg_attr(
    all(test, not(feature = "disk")),
    allow(dead_code, reason = "the simulation needs the disk store")
)]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        reason = "tests make small numbers"
    )
)]

/// The programs of the guide, which are compiled here.
#[cfg(all(doctest, feature = "disk", feature = "redb", feature = "http"))]
#[doc = include_str!("../docs/add-it-to-your-app.md")]
#[allow(missing_debug_implementations, reason = "nobody sees it")]
pub enum Guide {}

pub mod access;
#[cfg(feature = "benchmark")]
pub mod benchmark;
pub mod blob;
#[cfg(any(feature = "disk", feature = "redb"))]
mod detour;
mod engine;
mod error;
#[cfg(all(feature = "http", any(test, feature = "conformance")))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hook;
#[cfg(feature = "http")]
pub mod http;
pub mod metadata;
mod observe;
mod planted;
#[cfg(test)]
#[cfg(feature = "disk")]
mod simulation;
pub mod upload;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

#[doc(inline)]
pub use access::{Authorizer, Caller};
pub use engine::*;
pub use error::{Error, ErrorKind, Result};
#[doc(inline)]
pub use hook::Hook;
#[doc(inline)]
pub use upload::{Digest, Event, EventKind, FileName, Key, Owner, State, Target, UploadId};
