//! Which store to run on: the same work through the engine on any pair of stores, measured.
//!
//! ```
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use tower_upload::{benchmark, blob::MemoryBlobs, metadata::MemoryMetadata};
//!
//! let options = benchmark::Options::quick().with_progress(|step| eprintln!("{step}"));
//! # let options = options.with_large(1 << 20).with_small(8).with_parts(100).with_open_uploads(100).with_progress(|_| {});
//! let stores = (Arc::new(MemoryBlobs::new()), Arc::new(MemoryMetadata::new())); // or your own
//! let report = benchmark::run("memory", stores.0, stores.1, &options).await?;
//! println!("{}", benchmark::markdown(std::slice::from_ref(&report)));
//! std::fs::write(std::env::temp_dir().join("stores.html"), benchmark::html(&[report]))?;
//! # Ok(()) }
//! ```
//!
//! Run it in a release build, on a multi-thread runtime and on stores that nobody else uses at that time. It writes beneath
//! keys and owners of its own, `tower-upload-benchmark`, so that stores in use are not harmed, and deletes what it made, also
//! when it fails. What a run that was killed leaves behind expires within an hour, by any engine on these stores.
//!
//! # What is measured
//! | [`Workload`] | |
//! | --- | --- |
//! | [`Append`](Workload::Append) | one large file, one append after the other |
//! | [`Indexed`](Workload::Indexed) | one large file in numbered chunks, 4 and 16 at once |
//! | [`Small`](Workload::Small) | files of 64 KiB, whole: created, stored, assembled |
//! | [`Parts`](Workload::Parts) | a chunk of an upload that has few or many already |
//! | [`Assembly`](Workload::Assembly) | the assembly of few or many parts |
//! | [`Read`](Workload::Read) | a finished file, whole and in random ranges of 64 KiB |
//! | [`Metadata`](Workload::Metadata) | the metadata store alone, beside few or many open uploads |
//!
//! Reads find what was just written, so that on a local disk they tell of the page cache; memory hands out what it has and
//! copies nothing.

mod bench;
mod files;
mod fit;
mod html;
mod markdown;
mod metadata;
#[cfg(feature = "http")]
#[doc(hidden)]
pub mod micro;
mod options;
mod report;
mod svg;
mod units;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use fit::exponent;
pub use html::html;
pub use markdown::markdown;
pub use options::{Options, Progress};
pub use report::{Growth, Latency, Measured, Point, Report, Workload};

use self::bench::Bench;
use crate::{blob::BlobStore, error::Result, metadata::MetadataStore};

/// Measures a pair of stores, under a name for the report.
///
/// The future is to be awaited: dropped, it leaves what it made to expiry.
///
/// # Errors
/// The first one of the stores, after everything that was made is deleted, as far as the stores let it.
pub async fn run(
    name: impl Into<String>,
    blobs: Arc<dyn BlobStore>,
    metadata: Arc<dyn MetadataStore>,
    options: &Options,
) -> Result<Report> {
    let mut bench = Bench::new(name.into(), blobs, metadata, options.clone()).await?;
    let ran = bench.workloads().await;
    let cleaned = bench.clean().await;
    ran.and(cleaned).map(|()| bench.into_report())
}
