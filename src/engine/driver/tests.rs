#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    Caller, ErrorKind, NewUpload, Uploads,
    access::OwnerOnly,
    blob::{BlobStore, MemoryBlobs},
    conformance::fault::{Call, Fault, FaultyBlobs, FaultyMetadata},
    metadata::MemoryMetadata,
    upload::{Key, Plan, UploadId},
};

/// One record that cannot be read, or one leftover that cannot be removed, keeps none of the others.
#[tokio::test(start_paused = true)]
async fn a_sweep_goes_on_after_an_error() {
    for failing in [Call::Load, Call::Discard] {
        for ended in [true, false] {
            let blobs = Arc::new(MemoryBlobs::new());
            let metadata = Arc::new(MemoryMetadata::new());
            if ended {
                let refuses = |call| match call {
                    Call::Discard => Fault::FailBefore,
                    _ => Fault::None,
                };
                let refusing = FaultyBlobs::new(Arc::clone(&blobs), Arc::new(refuses));
                let uploads = node(refusing, Arc::clone(&metadata)).await;
                for _ in 0..4 {
                    let alice = Caller::new("alice");
                    let up = uploads.create(&alice, NewUpload::new("a")).await.unwrap();
                    uploads.abort(&alice, up.id()).await.unwrap();
                }
            } else {
                let key = Key::parse("a").unwrap();
                for seed in 0..4 {
                    let id = UploadId::from_bytes([seed; 16]);
                    blobs.begin(id, &key, &Plan::sequential(None)).await.unwrap();
                }
            }
            // That of the second upload, each time one is looked for.
            let calls = AtomicUsize::new(0);
            let plan =
                Arc::new(
                    move |call| match call == failing && matches!(calls.fetch_add(1, Ordering::SeqCst), 1 | 5) {
                        true => Fault::FailBefore,
                        false => Fault::None,
                    },
                );
            let faulty = FaultyBlobs::new(Arc::clone(&blobs), plan.clone());
            let uploads = node(faulty, FaultyMetadata::new(metadata, plan)).await;
            let error = uploads.sweep().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let left = blobs.begun(Duration::ZERO).await.unwrap();
            assert_eq!(left.len(), 1, "{failing:?}, ended: {ended}");
            let swept = uploads.sweep().await.unwrap();
            assert_eq!((swept.ended, swept.unknown), if ended { (1, 0) } else { (0, 1) });
            assert_eq!(blobs.begun(Duration::ZERO).await.unwrap(), []);
        }
    }
}

async fn node(blobs: impl BlobStore, metadata: impl crate::metadata::MetadataStore) -> Uploads {
    Uploads::with(blobs, metadata)
        .authorizer(OwnerOnly)
        .orphan_grace(Duration::ZERO)
        .without_driver()
        .build()
        .await
        .unwrap()
}
