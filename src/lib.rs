//! Chunked, resumable uploads for Tower: large files come in pieces, in any order, in parallel, over bad networks and across
//! crashes of client and server, and become one object without being copied again.
//!
//! There are three ways of use:
//!
//! * a [`tower::Service`](http::UploadService), nested under any route of axum, hyper, warp or whatever speaks Tower;
//! * a [`tower::Layer`](http::UploadLayer) in front of an application, which answers its own prefix and passes everything else on;
//! * the plain engine, [`Uploads`], with no HTTP at all.
//!
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
//! | `webhook` | no | [`Webhook`](hook::webhook::Webhook): events told to an HTTPS receiver, signed |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade |
//! | `conformance` | no | suites and fault-injecting wrappers for your own stores |
//! | `benchmark` | no | the same work on any pair of stores, measured and plotted |
//!
//! # Your own store
//! Implement [`MetadataStore`](metadata::MetadataStore) or [`BlobStore`](blob::BlobStore): their documentation says who
//! guarantees what. With the feature `conformance` the suite tells whether it is right, in ten lines:
//!
//! ```
//! # #[cfg(feature = "conformance")]
//! # async fn example() {
//! use tower_upload::{blob::MemoryBlobs, conformance, metadata::MemoryMetadata};
//!
//! conformance::metadata::run(async || MemoryMetadata::new()).await;
//! conformance::blob::run(async || MemoryBlobs::new()).await;
//! # }
//! ```
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

pub mod access;
#[cfg(feature = "benchmark")]
pub mod benchmark;
pub mod blob;
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
