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

/// A key beneath a file can never be had, with whatever suffix: the upload fails, and does not try for ever.
#[cfg(feature = "disk")]
#[tokio::test]
async fn an_upload_whose_key_lies_beneath_a_file_ends() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::{ErrorKind, upload::Key};

    let directory = tempfile::tempdir().unwrap();
    let disk = crate::blob::DiskBlobs::open(directory.path()).await.unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&fails);
    let faults = move |call| match call {
        Call::Complete if asked.load(Ordering::SeqCst) => Fault::FailBefore,
        _ => Fault::None,
    };
    let uploads = Uploads::with(FaultyBlobs::new(disk, Arc::new(faults)), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .without_driver()
        .build()
        .await
        .unwrap();
    let alice = Caller::new("alice");
    let send = async |key: &str| {
        let new = NewUpload::new("a").size(3).key(Key::parse(key).unwrap());
        let up = uploads.create(&alice, new).await.unwrap();
        let body = stream::iter([Ok::<_, Error>(Bytes::from_static(b"abc"))]);
        uploads.append(&alice, up.id(), 0, body).await.unwrap();
        up.id()
    };
    let state = async |id| uploads.status(&alice, id).await.unwrap().record().clone();
    let left = || std::fs::read_dir(directory.path().join("partial")).unwrap().count();

    let file = send("a").await;
    uploads.assemble(&alice, file, None).await.unwrap();
    let id = send("a/b.mp4").await;
    let error = uploads.assemble(&alice, id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.message().contains("a file may lie"), "{error}");
    let failed = state(id).await;
    assert_eq!((failed.state, failed.key_held, left()), (State::Failed, false, 0));
    assert!(
        failed.key.as_str().len() <= "a/b-0123456789abcdef.mp4".len(),
        "{}",
        failed.key
    );

    // One that waits to be tried again can be given up.
    let id = send("a/c").await;
    fails.store(true, Ordering::SeqCst);
    uploads.assemble(&alice, id, None).await.unwrap_err();
    assert_eq!((state(id).await.state, left()), (State::Assembling, 1));
    fails.store(false, Ordering::SeqCst);
    uploads.abort(&alice, id).await.unwrap();
    let aborted = state(id).await;
    assert_eq!((aborted.state, aborted.key_held, left()), (State::Aborted, false, 0));
    let (blob, _) = uploads.read(&alice, file, crate::blob::ByteRange::ALL).await.unwrap();
    assert_eq!(blob.size, 3, "the file that was in the way is there");
}
