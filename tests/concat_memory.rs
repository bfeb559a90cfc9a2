//! What the naming of many uploads holds in memory. A process of its own, as it is what is measured.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tower_upload::{
    Caller, ErrorKind, NewUpload, State, Uploads, access::OwnerOnly, blob::MemoryBlobs, metadata::MemoryMetadata,
};

const MIB: u64 = 1 << 20;

/// The most memory this process had until now.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A thousand partial uploads whose clients said as much about them as they may.
#[tokio::test]
async fn a_list_of_a_thousand_uploads_holds_little_of_each() {
    let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .expire_after(Duration::from_secs(3600))
        .without_driver()
        .build()
        .await
        .unwrap();
    let caller = Caller::new("alice");
    let create = async |size: u64| {
        let new = NewUpload::new("a.bin").size(size).partial();
        let new = new
            .metadata("said", "x".repeat(16_000))
            .note("came", "y".repeat(16_000));
        uploads.create(&caller, new).await.unwrap().id()
    };
    let mut ids = Vec::new();
    for _ in 0..999 {
        let id = create(1).await;
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"z"))]);
        uploads.append(&caller, id, 0, body).await.unwrap();
        ids.push(id);
    }
    let mut unfinished = ids.clone();
    unfinished.push(create(1).await);

    let before = peak();
    let new = || NewUpload::new("b.bin");
    let refused = uploads.concatenate(&caller, new(), &unfinished, false).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    let looked_at = peak() - before;
    uploads.abort(&caller, unfinished[999]).await.unwrap();
    let upload = uploads.concatenate(&caller, new(), &ids, false).await.unwrap();
    assert_eq!((upload.state(), upload.size()), (State::Assembled, Some(999)));
    let joined = peak() - before;
    println!(
        "looked at: {} KiB more; joined: {} KiB more",
        looked_at >> 10,
        joined >> 10
    );
    assert!(looked_at <= 2 * MIB && joined <= 8 * MIB, "{looked_at}, {joined}");
}
