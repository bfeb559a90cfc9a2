#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;

use crate::{
    Caller, Clock, Error, NewUpload, State, Uploads,
    access::OwnerOnly,
    blob::MemoryBlobs,
    conformance::fault::{Call, Fault, FaultyBlobs},
    metadata::MemoryMetadata,
    upload::Timestamp,
};

/// Goes by tokio's clock, which tests turn on.
#[derive(Debug)]
struct Virtual(tokio::time::Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000).after(self.0.elapsed())
    }
}

/// The store takes longer than is given for it, and than the lease, which somebody else takes meanwhile: each attempt has twice
/// the time, so that one succeeds.
#[tokio::test(start_paused = true)]
async fn an_assembly_that_takes_long_ends_all_the_same() {
    let slow = |call| match call {
        Call::Complete => Fault::Delay(Duration::from_secs(20)),
        _ => Fault::None,
    };
    let clock = Arc::new(Virtual(tokio::time::Instant::now()));
    let blobs = FaultyBlobs::new(MemoryBlobs::new(), Arc::new(slow));
    let uploads = Uploads::with(blobs, MemoryMetadata::with_clock(clock))
        .authorizer(OwnerOnly)
        .lease(Duration::from_secs(1))
        .assembly_timeout(Duration::from_secs(3))
        .build()
        .await
        .unwrap();
    let alice = Caller::new("alice");
    let up = uploads.create(&alice, NewUpload::new("a").size(3)).await.unwrap();
    let body = stream::iter([Ok::<_, Error>(Bytes::from_static(b"abc"))]);
    uploads.append(&alice, up.id(), 0, body).await.unwrap();
    uploads.assemble(&alice, up.id(), None).await.unwrap_err();
    let began = tokio::time::Instant::now();
    while uploads.status(&alice, up.id()).await.unwrap().state() != State::Assembled {
        assert!(began.elapsed() < Duration::from_secs(300), "it is tried for ever");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
