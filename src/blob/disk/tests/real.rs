//! On the machine's own file system.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};

use tempfile::TempDir;

use super::*;
use crate::{
    blob::disk::{DiskBlobs, DiskOptions, Durability, Writes},
    error::ErrorKind,
};

async fn store() -> (TempDir, DiskBlobs) {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskBlobs::open(dir.path()).await.unwrap();
    (dir, store)
}

fn files(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn parts_in_any_order_become_one_blob_without_a_copy() {
    let (dir, store) = store().await;
    let whole = pattern(1, 5 << 20);
    let handle = begin(&store, 1, Some(whole.len() as u64)).await.unwrap();
    let mut parts = Vec::new();
    for number in [2, 0, 4, 1, 3_u32] {
        let at = (number as usize) << 20;
        let slot = Slot::at(number, at as u64, 1 << 20);
        parts.push(
            put(&store, &handle, slot, &whole.slice(at..at + (1 << 20)))
                .await
                .unwrap(),
        );
    }
    parts.sort_by_key(|part| part.number);
    let early = store.read_parts(&handle, &parts).await.unwrap().unwrap();
    assert!(collect(early).await.unwrap() == whole);
    let inode = fs::metadata(dir.path().join("partial").join(handle.as_str()))
        .unwrap()
        .ino();

    let key = key("videos/originals/talk.mp4");
    for _ in 0..3 {
        assert_eq!(done(store.complete(&handle, &key, &parts).await.unwrap()), 5 << 20);
    }
    assert_eq!(store.copied_bytes(), 0);
    store.discard(&handle).await.unwrap();
    store.discard(&handle).await.unwrap();
    assert!(read_all(&store, &key).await.unwrap() == whole);
    assert_eq!(store.head(&key).await.unwrap().unwrap().size, 5 << 20);
    assert_eq!(files(&dir.path().join("partial")), [""; 0]);
    let blob = fs::metadata(dir.path().join("blobs").join(key.as_str())).unwrap();
    assert_eq!((blob.ino(), blob.nlink()), (inode, 1));

    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(store.head(&key).await.unwrap(), None);
    assert_eq!(
        store.read(&key, ByteRange::ALL).await.err().unwrap().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn parts_kept_aside_are_copied_to_their_place_and_cleared_away() {
    let (dir, store) = store().await;
    let whole = pattern(2, 300_000);
    let handle = begin(&store, 2, None).await.unwrap();
    let mut parts = Vec::new();
    for (number, range) in [(1, 100_000..250_000), (2, 250_000..300_000)] {
        let slot = Slot::aside(number, 1 << 20);
        parts.push(put(&store, &handle, slot, &whole.slice(range)).await.unwrap());
    }
    let first = put(&store, &handle, Slot::at(0, 0, 100_000), &whole.slice(..100_000))
        .await
        .unwrap();
    parts.insert(0, first);
    let early = store.read_parts(&handle, &parts).await.unwrap().unwrap();
    assert!(collect(early).await.unwrap() == whole);
    assert_eq!(done(store.complete(&handle, &key("a"), &parts).await.unwrap()), 300_000);
    assert_eq!(done(store.complete(&handle, &key("a"), &parts).await.unwrap()), 300_000);
    assert_eq!(store.copied_bytes(), 200_000);
    assert_eq!(files(&dir.path().join("partial")).len(), 3);
    store.discard(&handle).await.unwrap();
    assert_eq!(files(&dir.path().join("partial")), [""; 0]);
    assert!(read_all(&store, &key("a")).await.unwrap() == whole);
}

#[tokio::test]
async fn what_an_abandoned_attempt_wrote_behind_the_end_is_cut_off() {
    let (_dir, store) = store().await;
    let handle = begin(&store, 3, None).await.unwrap();
    let mut longer = store.open(&handle, Slot::at(0, 0, 1000)).await.unwrap();
    longer.write(vec![pattern(9, 1000)]).await.unwrap();
    drop(longer);
    let part = put(&store, &handle, Slot::at(0, 0, 1000), &pattern(3, 10))
        .await
        .unwrap();
    assert_eq!(done(store.complete(&handle, &key("x"), &[part]).await.unwrap()), 10);
    assert!(read_all(&store, &key("x")).await.unwrap() == pattern(3, 10));
}

#[tokio::test]
async fn an_empty_blob() {
    let (_dir, store) = store().await;
    let handle = begin(&store, 4, Some(0)).await.unwrap();
    let part = put(&store, &handle, Slot::at(0, 0, 0), &Bytes::new()).await.unwrap();
    assert_eq!(done(store.complete(&handle, &key("none"), &[part]).await.unwrap()), 0);
    assert_eq!(read_all(&store, &key("none")).await.unwrap(), b"");
}

#[tokio::test]
async fn ranges() {
    let (_dir, store) = store().await;
    let whole = pattern(5, 1_300_000);
    let handle = begin(&store, 5, None).await.unwrap();
    let part = put(&store, &handle, Slot::at(0, 0, u64::MAX), &whole).await.unwrap();
    done(store.complete(&handle, &key("r"), &[part]).await.unwrap());
    for (start, end, want) in [
        (0, None, 0..1_300_000),
        (1_299_999, None, 1_299_999..1_300_000),
        (10, Some(600_000), 10..600_000),
        (7, Some(7), 7..7),
        (1_300_000, None, 0..0),
        (1_300_000, Some(u64::MAX), 0..0),
        (524_287, Some(524_290), 524_287..524_290),
    ] {
        let body = store.read(&key("r"), ByteRange::new(start, end)).await.unwrap();
        assert!(collect(body).await.unwrap() == whole[want], "{start} {end:?}");
    }
    for range in [ByteRange::new(1_300_001, None), ByteRange::new(5, Some(4))] {
        let error = store.read(&key("r"), range).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_key_that_is_taken_is_never_written_over() {
    let (dir, store) = store().await;
    let mut handles = Vec::new();
    for seed in [6, 7] {
        let handle = begin(&store, seed, None).await.unwrap();
        let part = put(&store, &handle, Slot::at(0, 0, 99), &pattern(seed.into(), 99))
            .await
            .unwrap();
        handles.push((handle, part));
    }
    let (a, b) = (&handles[0], &handles[1]);
    done(
        store
            .complete(&a.0, &key("k/x"), std::slice::from_ref(&a.1))
            .await
            .unwrap(),
    );
    fs::create_dir(dir.path().join("blobs/folder")).unwrap();
    for taken in ["k/x", "k/x/y", "k", "folder"] {
        let answer = store
            .complete(&b.0, &key(taken), std::slice::from_ref(&b.1))
            .await
            .unwrap();
        assert_eq!(answer, Completed::KeyTaken, "{taken}");
    }
    assert_eq!(store.head(&key("folder")).await.unwrap(), None);
    assert_eq!(store.head(&key("k/x/y")).await.unwrap(), None);
    done(
        store
            .complete(&b.0, &key("k/x-2"), std::slice::from_ref(&b.1))
            .await
            .unwrap(),
    );
    assert!(read_all(&store, &key("k/x")).await.unwrap() == pattern(6, 99));
    assert!(read_all(&store, &key("k/x-2")).await.unwrap() == pattern(7, 99));
}

#[tokio::test]
async fn lost_parts_are_named_and_can_be_sent_again() {
    let (dir, store) = store().await;
    let whole = pattern(8, 300);
    let handle = begin(&store, 8, None).await.unwrap();
    let mut parts = Vec::new();
    for (number, slot) in [
        (0, Slot::at(0, 0, 100)),
        (1, Slot::aside(1, 100)),
        (2, Slot::at(2, 200, 100)),
    ] {
        parts.push(
            put(&store, &handle, slot, &whole.slice(number * 100..(number + 1) * 100))
                .await
                .unwrap(),
        );
    }
    let side = parts[1].receipt.as_str().strip_prefix("s:").unwrap().to_owned();
    fs::remove_file(dir.path().join(format!("partial/{}.{side}", handle.as_str()))).unwrap();
    let partial = fs::File::options()
        .write(true)
        .open(dir.path().join("partial").join(handle.as_str()))
        .unwrap();
    partial.set_len(250).unwrap();
    let mut late = store.open(&handle, Slot::at(2, 200, 100)).await.unwrap();
    let answer = store.complete(&handle, &key("l"), &parts).await.unwrap();
    assert_eq!(answer, Completed::PartsLost(vec![1, 2]));
    assert_eq!(
        late.write(vec![whole.clone()]).await.unwrap_err().kind(),
        ErrorKind::TooLarge
    );
    let mut late = store.open(&handle, Slot::at(2, 200, 100)).await.unwrap();
    assert_eq!(
        store.complete(&handle, &key("l"), &parts).await.unwrap(),
        Completed::PartsLost(vec![1, 2])
    );
    assert_eq!(
        late.write(vec![whole.slice(..1)]).await.unwrap_err().kind(),
        ErrorKind::Superseded
    );
    parts[1] = put(&store, &handle, Slot::at(1, 100, 100), &whole.slice(100..200))
        .await
        .unwrap();
    parts[2] = put(&store, &handle, Slot::aside(2, 100), &whole.slice(200..))
        .await
        .unwrap();
    done(store.complete(&handle, &key("l"), &parts).await.unwrap());
    assert!(read_all(&store, &key("l")).await.unwrap() == whole);
}

#[tokio::test]
async fn a_restarted_store_goes_on_and_leaves_published_bytes_alone() {
    let (dir, store) = store().await;
    let handle = begin(&store, 9, None).await.unwrap();
    let part = put(&store, &handle, Slot::at(0, 0, 10), &pattern(9, 10)).await.unwrap();
    drop(store);
    let store = DiskBlobs::open(dir.path()).await.unwrap();
    assert_eq!(store.begun(Duration::ZERO).await.unwrap(), [(id(9), handle.clone())]);
    assert_eq!(store.begun(Duration::from_secs(60)).await.unwrap(), []);
    let parts = [
        part,
        put(&store, &handle, Slot::aside(1, 10), &pattern(10, 10))
            .await
            .unwrap(),
    ];
    done(store.complete(&handle, &key("p/q"), &parts).await.unwrap());
    drop(store);
    let store = DiskBlobs::open(dir.path()).await.unwrap();
    let mut late = store.open(&handle, Slot::at(0, 0, 10)).await.unwrap();
    let error = late.write(vec![Bytes::from_static(b"x")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Superseded);
    done(store.complete(&handle, &key("p/q"), &parts).await.unwrap());
    assert_eq!(store.copied_bytes(), 0);
    let whole = [pattern(9, 10), pattern(10, 10)].concat();
    assert!(read_all(&store, &key("p/q")).await.unwrap() == whole);
    store.discard(&handle).await.unwrap();
    assert_eq!(store.begun(Duration::ZERO).await.unwrap(), []);
    assert_eq!(files(&dir.path().join("partial")), [""; 0]);
    assert!(read_all(&store, &key("p/q")).await.unwrap() == whole);
}

#[tokio::test]
async fn links_that_somebody_planted_are_not_followed() {
    let (dir, store) = store().await;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    symlink(outside.path(), dir.path().join("blobs/out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("blobs/file")).unwrap();
    let handle = begin(&store, 10, None).await.unwrap();
    let part = put(&store, &handle, Slot::at(0, 0, 5), &pattern(1, 5)).await.unwrap();

    assert_eq!(store.head(&key("file")).await.unwrap(), None);
    assert!(store.head(&key("out/secret")).await.is_ok_and(|blob| blob.is_none()));
    assert!(store.read(&key("out/secret"), ByteRange::ALL).await.is_err());
    store.delete(&key("out/secret")).await.unwrap();
    let parts = std::slice::from_ref(&part);
    assert_eq!(
        store.complete(&handle, &key("file"), parts).await.unwrap(),
        Completed::KeyTaken
    );
    assert!(!matches!(
        store.complete(&handle, &key("out/new"), parts).await,
        Ok(Completed::Done(_))
    ));
    assert!(!matches!(
        store.complete(&handle, &key("out/deep/new"), parts).await,
        Ok(Completed::Done(_))
    ));

    let planted = id(11).to_string();
    symlink(outside.path().join("secret"), dir.path().join("partial").join(&planted)).unwrap();
    let mut writer = store.open(&Handle::new(planted), Slot::at(0, 0, 5)).await.unwrap();
    assert!(writer.write(vec![pattern(1, 5)]).await.is_err());
    assert!(begin(&store, 11, None).await.is_err());
    assert_eq!(files(outside.path()), ["secret"]);
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    for handle in ["../blobs/file", "", "..", "x"] {
        assert!(store.open(&Handle::new(handle), Slot::at(0, 0, 1)).await.is_err());
    }
}

#[tokio::test]
async fn directory_and_files_are_the_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("not/there/yet");
    let store = DiskBlobs::open(&root).await.unwrap();
    let handle = begin(&store, 12, None).await.unwrap();
    let part = put(&store, &handle, Slot::aside(0, 5), &pattern(1, 5)).await.unwrap();
    done(store.complete(&handle, &key("a/b"), &[part]).await.unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for folder in ["", "..", "../..", "partial", "blobs", "blobs/a"] {
        assert_eq!(mode(&root.join(folder)), 0o700, "{folder}");
    }
    for name in files(&root.join("partial")) {
        assert_eq!(mode(&root.join("partial").join(name)), 0o600);
    }
    assert_eq!(mode(&root.join("blobs/a/b")), 0o600);
}

#[tokio::test]
async fn the_directory_belongs_to_one_process() {
    let (dir, store) = store().await;
    let options = DiskOptions::default().with_lock_wait(Duration::from_millis(50));
    let error = options.clone().open(dir.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.message().contains(&format!("process {}", std::process::id())),
        "{error}"
    );

    // A late job keeps the lock: what it writes is not another store's yet.
    let body = {
        let handle = begin(&store, 13, None).await.unwrap();
        let part = put(&store, &handle, Slot::at(0, 0, 5), &pattern(1, 5)).await.unwrap();
        done(store.complete(&handle, &key("a"), &[part]).await.unwrap());
        store.read(&key("a"), ByteRange::ALL).await.unwrap()
    };
    drop(store);
    assert!(options.clone().open(dir.path()).await.is_err());
    drop(body);
    let waiting = tokio::spawn(DiskOptions::default().open(dir.path().to_owned()));
    let store = waiting.await.unwrap().unwrap();
    drop(store);
    options.open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn declared_bytes_are_reserved_until_written_or_discarded() {
    let (dir, store) = store().await;
    drop(store);
    let free = {
        let stat = rustix::fs::statvfs(dir.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let store = DiskBlobs::open(dir.path()).await.unwrap();
    let most = free / 10 * 6;
    let first = begin(&store, 1, Some(most)).await.unwrap();
    assert_eq!(
        begin(&store, 2, Some(most)).await.unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    assert_eq!(store.begun(Duration::ZERO).await.unwrap().len(), 1);
    store.discard(&first).await.unwrap();
    begin(&store, 2, Some(most)).await.unwrap();
    drop(store);
    let options = DiskOptions::default()
        .with_overcommit(f64::INFINITY)
        .with_durability(Durability::None);
    let store = options.open(dir.path()).await.unwrap();
    begin(&store, 3, Some(u64::MAX)).await.unwrap();
    begin(&store, 4, Some(u64::MAX)).await.unwrap();
}

/// A file system of 4 MiB, where the test may mount one.
struct Small(TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_attempt_and_recovers_with_the_discard() {
    let Some(small) = Small::mount() else {
        println!("SKIPPED: no tmpfs can be mounted here");
        return;
    };
    let store = DiskOptions::default()
        .with_overcommit(f64::INFINITY)
        .open(small.0.path())
        .await
        .unwrap();
    let handle = begin(&store, 1, Some(8 << 20)).await.unwrap();
    let kept = put(&store, &handle, Slot::at(0, 0, 1 << 20), &pattern(1, 1 << 20))
        .await
        .unwrap();
    let mut writer = store.open(&handle, Slot::at(1, 1 << 20, 8 << 20)).await.unwrap();
    let error = loop {
        if let Err(error) = writer.write(vec![pattern(2, 300_000)]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(writer.write(vec![pattern(2, 1)]).await.is_err());
    assert!(writer.finish().await.is_err());
    let early = store
        .read_parts(&handle, std::slice::from_ref(&kept))
        .await
        .unwrap()
        .unwrap();
    assert!(collect(early).await.unwrap() == pattern(1, 1 << 20));
    store.discard(&handle).await.unwrap();
    let handle = begin(&store, 2, Some(3 << 20)).await.unwrap();
    let part = put(&store, &handle, Slot::at(0, 0, 3 << 20), &pattern(3, 3 << 20))
        .await
        .unwrap();
    done(store.complete(&handle, &key("a"), &[part]).await.unwrap());
    assert!(read_all(&store, &key("a")).await.unwrap() == pattern(3, 3 << 20));
}

#[tokio::test]
async fn an_older_attempt_changes_no_byte_after_a_newer_claim() {
    let (_dir, store) = store().await;
    let handle = begin(&store, 1, None).await.unwrap();
    let slot = Slot::at(0, 0, 200);
    let mut old = store.open(&handle, slot).await.unwrap();
    old.write(vec![pattern(1, 100)]).await.unwrap();
    let part = put(&store, &handle, slot, &pattern(2, 200)).await.unwrap();
    assert_eq!(
        old.write(vec![pattern(1, 100)]).await.unwrap_err().kind(),
        ErrorKind::Superseded
    );
    assert!(old.finish().await.is_err());
    let mut sealed_out = store.open(&handle, Slot::at(1, 200, 10)).await.unwrap();
    done(store.complete(&handle, &key("a"), &[part]).await.unwrap());
    assert_eq!(
        sealed_out.write(vec![pattern(1, 10)]).await.unwrap_err().kind(),
        ErrorKind::Superseded
    );
    assert_eq!(
        store.open(&handle, slot).await.err().unwrap().kind(),
        ErrorKind::Superseded
    );
    assert!(read_all(&store, &key("a")).await.unwrap() == pattern(2, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let dirs = std::cell::RefCell::new(Vec::new());
    crate::conformance::blob::run(async || {
        let (dir, store) = store().await;
        dirs.borrow_mut().push(dir);
        store
    })
    .await;
    assert!(!dirs.into_inner().is_empty());
}

#[tokio::test]
async fn conforms_when_it_writes_inline() {
    let dirs = std::cell::RefCell::new(Vec::new());
    crate::conformance::blob::run(async || {
        let dir = tempfile::tempdir().unwrap();
        let options = DiskOptions::default().with_writes(Writes::Inline);
        let store = options.open(dir.path()).await.unwrap();
        dirs.borrow_mut().push(dir);
        store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_durable() {
    let dir = tempfile::tempdir().unwrap();
    crate::conformance::blob::durability(async || DiskBlobs::open(dir.path()).await.unwrap()).await;
}
