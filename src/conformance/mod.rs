//! Suites for people who write their own store, and wrappers that make any store fail on purpose.
//!
//! A store is right when its suite passes. Each test gets a fresh, empty store from the closure, and
//! panics with a sentence that tells which clause of the contract is broken:
//!
//! ```
//! # #[tokio::main] async fn main() {
//! use tower_upload::{blob::MemoryBlobs, conformance, metadata::MemoryMetadata};
//!
//! // in your crate: #[tokio::test(flavor = "multi_thread")]
//! conformance::metadata::run(async || MemoryMetadata::new()).await;
//! conformance::blob::run(async || MemoryBlobs::new()).await;
//! # }
//! ```
//!
//! A durable store has its second suite, [`metadata::durability`] or [`blob::durability`], whose closure opens
//! the same location again and again. Every test is also public by itself.
//!
//! Run them on a multi-thread runtime, or races between threads are not seen, and with the real clock, not a paused
//! one: leases and expiries are waited for, in milliseconds. [`fault`] has the wrappers.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::task::JoinHandle;

pub mod blob;
pub mod fault;
pub mod metadata;

#[cfg(test)]
mod broken;

/// How many do the same thing at once in a race.
const RACERS: u32 = 8;

/// Runs one test of a suite, for no longer than any sane store needs.
async fn bounded(name: &str, test: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(Duration::from_secs(120), Box::pin(test)).await;
    assert!(ended.is_ok(), "{name}: the store did not answer within two minutes");
}

/// What each of `tasks` came to, in their order.
async fn all<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut out = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await {
            Ok(value) => out.push(value),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    out
}

/// Polls `future` until it is ready or was polled `polls` times, then drops it.
async fn cut<T>(future: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(value) = polled {
            return Some(value);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        blob::{BlobStore, MemoryBlobs},
        metadata::{MemoryMetadata, MetadataStore},
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_metadata() {
        metadata::run(async || MemoryMetadata::new()).await;
        metadata::run(|| async { Arc::new(MemoryMetadata::new()) as Arc<dyn MetadataStore> }).await;
        metadata::run(async || Box::new(MemoryMetadata::new()) as Box<dyn MetadataStore>).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_blobs() {
        blob::run(async || MemoryBlobs::new()).await;
        blob::run(|| async { Arc::new(MemoryBlobs::new()) as Arc<dyn BlobStore> }).await;
        blob::run(async || Box::new(MemoryBlobs::new()) as Box<dyn BlobStore>).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn durability_on_what_is_never_closed() {
        let (metadata, blobs) = (Arc::new(MemoryMetadata::new()), Arc::new(MemoryBlobs::new()));
        metadata::durability(async || metadata.clone()).await;
        blob::durability(async || blobs.clone()).await;
    }
}
