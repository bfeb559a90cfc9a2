//! What many uploads at once into an object store hold in memory. A process of its own, as it is what is measured.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs)]

mod services;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use object_store::aws::AmazonS3Builder;
use tower_upload::{
    Caller, NewChunk, NewUpload, Uploads, access::OwnerOnly, blob::object::ObjectOptions, metadata::MemoryMetadata,
};

use services::Service;

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 32 * MIB;
const BOUND: u64 = 32 * MIB;
const CHUNK: u64 = 8 * MIB;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Frames as a connection gives them: each is memory of its own.
fn body() -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send {
    stream::iter(0..CHUNK / (64 << 10)).then(|at| async move {
        tokio::task::yield_now().await;
        Ok(Bytes::from(vec![at.to_le_bytes()[0]; 64 << 10]))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_chunks_at_once_stay_within_what_was_given() {
    let Some(service) = Service::start_or_skip("moto", &[]) else {
        return;
    };
    let mut builder = AmazonS3Builder::new().with_bucket_name(service.get("BUCKET"));
    for (name, value) in service.variables() {
        if let Ok(key) = name.to_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    // A server that simulates is slow: that is not what is asked.
    let timeout = object_store::ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(Duration::from_secs(600));
    let store = builder.with_client_options(timeout).build().unwrap();
    let options = ObjectOptions::default()
        .with_memory(BOUND)
        .with_request_timeout(Duration::from_secs(600));
    let uploads = Uploads::with(options.s3(store).unwrap(), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .memory_budget(BUDGET)
        .without_driver()
        .build()
        .await
        .unwrap();
    let before = resident();
    let peak = Arc::new(AtomicU64::new(0));
    let sampled = peak.clone();
    let sampler = tokio::spawn(async move {
        loop {
            sampled.fetch_max(resident(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let sends = (0..64).map(|number| {
        let uploads = uploads.clone();
        tokio::spawn(async move {
            let caller = Caller::new(format!("user-{number}"));
            let new = NewUpload::new("a.mp4").size(4 * CHUNK).chunk_size(CHUNK);
            let id = uploads.create(&caller, new).await.unwrap().id();
            uploads.put_chunk(&caller, id, NewChunk::new(1), body()).await.unwrap();
        })
    });
    for send in sends.collect::<Vec<_>>() {
        send.await.unwrap();
    }
    sampler.abort();
    let grown = peak.load(Ordering::Relaxed).saturating_sub(before);
    println!("64 chunks of 8 MiB at once: {} MiB more", grown / MIB);
    assert!(grown <= BUDGET + BOUND + 48 * MIB, "{} MiB", grown / MIB);
}
