//! The directory and the receipts as every release writes them: if this fails, a release loses what an older one stored.

use std::fs;

use super::*;
use crate::{blob::disk::DiskBlobs, upload::Receipt};

/// Of the upload whose id is 16 times the byte 7.
const HANDLE: &str = "BwcHBwcHBwcHBwcHBwcHBw";

fn recorded(number: u32, len: u64, receipt: &str) -> Part {
    Part::new(number, len, 0, Receipt::new(receipt))
}

#[tokio::test]
async fn what_an_older_release_stored_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("partial")).unwrap();
    fs::create_dir_all(at("blobs/videos/originals")).unwrap();
    fs::write(at("lock"), "").unwrap();
    fs::write(at("blobs/videos/originals/123_my_video.mp4"), "a film").unwrap();
    fs::write(at(&format!("partial/{HANDLE}")), "0123456789").unwrap();
    fs::write(at(&format!("partial/{HANDLE}.2.00000000000000ff")), "tail").unwrap();
    fs::write(at("partial/put.00000000000000ff"), "half of an object").unwrap();

    let store = DiskBlobs::open(dir.path()).await.unwrap();
    let film = key("videos/originals/123_my_video.mp4");
    assert_eq!(store.head(&film).await.unwrap().unwrap().size, 6);
    assert_eq!(read_all(&store, &film).await.unwrap(), b"a film");

    let handle = Handle::new(HANDLE);
    let begun = store.begun(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(begun, [(id(7), handle.clone())]);
    let parts = [
        recorded(0, 6, "i:0:6:feedfeedfeedfeed"),
        recorded(1, 4, "i:6:4:0000000000000001"),
        recorded(2, 4, "s:2.00000000000000ff"),
    ];
    let body = store.read_parts(&handle, &parts).await.unwrap().unwrap();
    assert_eq!(collect(body).await.unwrap(), b"0123456789tail");
    let whole = key("whole");
    assert_eq!(done(store.complete(&handle, &whole, &parts).await.unwrap()), 14);
    assert_eq!(fs::read(at("blobs/whole")).unwrap(), b"0123456789tail");
    store.discard(&handle).await.unwrap();
    assert_eq!(fs::read_dir(at("partial")).unwrap().count(), 0);
}

#[tokio::test]
async fn it_is_written_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskBlobs::open(dir.path()).await.unwrap();
    let handle = begin(&store, 7, None).await.unwrap();
    assert_eq!(handle.as_str(), HANDLE);
    let bytes = Bytes::from_static(b"0123456789");
    let placed = put(&store, &handle, Slot::at(0, 5, 10), &bytes).await.unwrap();
    let aside = put(&store, &handle, Slot::aside(3, 10), &bytes).await.unwrap();

    let attempt = placed.receipt.as_str().strip_prefix("i:5:10:").unwrap();
    let suffix = aside.receipt.as_str().strip_prefix("s:").unwrap();
    for attempt in [attempt, suffix.strip_prefix("3.").unwrap()] {
        assert_eq!(attempt.len(), 16, "{attempt}");
        assert!(
            attempt.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
            "{attempt}"
        );
    }
    let file = |name: &str| fs::read(dir.path().join("partial").join(name)).unwrap();
    assert_eq!(file(HANDLE)[5..], *bytes);
    assert_eq!(file(&format!("{HANDLE}.{suffix}")), bytes);
    assert!(dir.path().join("lock").exists());
}
