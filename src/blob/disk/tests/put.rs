//! Objects that are put and folders that are cleared: at every crash, power loss and failed sync.

use std::{
    os::unix::fs::symlink,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    blob::{
        DiskBlobs,
        disk::{
            DiskOptions,
            sim::{Fault, OpKind, SimFs},
            store::Disk,
        },
    },
    error::ErrorKind,
};

/// How far a run came, as it was told: puts of one key, one behind the other, then a clear of its folder, then one put more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    puts: u64,
    cleared: bool,
    again: bool,
}

const PUTS: u64 = 3;

fn master() -> Key {
    key("d/f/master")
}

fn version(number: u64) -> Vec<u8> {
    pattern(number, 700 * usize::try_from(number).unwrap() + 1).to_vec()
}

async fn work(fs: SimFs, told: Arc<Mutex<Told>>) -> Result<()> {
    let store = Disk::on(fs, &DiskOptions::default()).await?;
    let so_far = || *told.lock().unwrap();
    while so_far().puts < PUTS {
        let number = so_far().puts + 1;
        store.put(&master(), version(number).into()).await?;
        told.lock().unwrap().puts = number;
        let segment = key(&format!("d/f/{number}/deep"));
        store.put(&segment, pattern(number, 100)).await?;
    }
    if !so_far().cleared {
        store.clear(&key("d/f")).await?;
        told.lock().unwrap().cleared = true;
    }
    if !so_far().again {
        store.put(&master(), version(9).into()).await?;
        told.lock().unwrap().again = true;
    }
    Ok(())
}

/// What whoever comes after a crash must find.
async fn check(fs: &SimFs, told: Told) {
    let store = Disk::on(fs.clone(), &DiskOptions::default()).await.unwrap();
    let found = match store.head(&master()).await.unwrap() {
        Some(_) => Some(read_all(&store, &master()).await.unwrap()),
        None => None,
    };
    let may: &[Option<u64>] = match told {
        Told { again: true, .. } => &[Some(9)],
        Told { cleared: true, .. } => &[None, Some(9)],
        Told { puts: PUTS, .. } => &[Some(PUTS), None],
        Told { puts: 0, .. } => &[None, Some(1)],
        Told { puts, .. } => &[Some(puts), Some(puts + 1)],
    };
    assert!(may.iter().any(|may| may.map(version) == found), "{told:?}");
    for path in fs.paths() {
        let is_put = path.starts_with("partial/");
        assert!(!is_put, "left behind after opening: {path}, {told:?}");
        let is_old = told.cleared && path != "blobs/d/f/master";
        assert!(!is_old, "cleared, and there again: {path}");
    }
    assert_eq!(fs.open_files(), 0);
}

#[tokio::test(start_paused = true)]
async fn killed_or_without_power_at_any_point_it_is_the_old_one_or_the_new_one() {
    let mut crashes = 0;
    for power in [false, true] {
        for effect in 0.. {
            let mut ended = false;
            for seed in 0..if power { 30 } else { 1 } {
                let (fs, told) = (SimFs::new(seed), Arc::default());
                fs.stop_before(effect);
                let running = tokio::spawn(work(fs.clone(), Arc::clone(&told)));
                tokio::select! {
                    biased;
                    () = fs.died() => {}
                    done = running => {
                        done.unwrap().unwrap();
                        ended = true;
                    }
                }
                let next = if power { fs.power_loss() } else { fs.crash() };
                let so_far = *told.lock().unwrap();
                check(&next, so_far).await;
                work(next.clone(), Arc::clone(&told)).await.unwrap();
                let last = next.power_loss();
                let so_far = *told.lock().unwrap();
                check(&last, so_far).await;
                assert_eq!(last.paths(), ["blobs/d/f/master"]);
                crashes += 1;
            }
            if ended {
                break;
            }
        }
    }
    assert!(crashes > 500, "{crashes}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_of_a_put_or_a_clear_is_never_believed_later() {
    let mut failures = 0;
    for sync in 1.. {
        let mut reached = false;
        for seed in 0..30 {
            let (fs, told) = (SimFs::new(seed), Arc::<Mutex<Told>>::default());
            let seen = Arc::new(Mutex::new(0));
            let count = Arc::clone(&seen);
            fs.set_hook(move |op| {
                let mut seen = count.lock().unwrap();
                *seen += u32::from(op.kind == OpKind::Sync);
                (op.kind == OpKind::Sync && *seen == sync).then_some(Fault::Error(libc::EIO))
            });
            for _ in 0..3 {
                if work(fs.clone(), Arc::clone(&told)).await.is_ok() {
                    break;
                }
            }
            reached |= *seen.lock().unwrap() >= sync;
            failures += 1;
            let next = fs.power_loss();
            let so_far = *told.lock().unwrap();
            check(&next, so_far).await;
            work(next.clone(), Arc::clone(&told)).await.unwrap();
            let so_far = *told.lock().unwrap();
            check(&next.power_loss(), so_far).await;
        }
        if !reached {
            break;
        }
    }
    assert!(failures > 300, "{failures}");
}

#[tokio::test]
async fn no_link_leads_out_of_the_store() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = DiskBlobs::open(root.path()).await.unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "kept").unwrap();
    store.put(&key("d/f/a"), Bytes::from_static(b"a")).await.unwrap();
    let at = root.path().join("blobs/d/f");
    assert_eq!(store.local_path(&key("d/f/a")), Some(at.join("a")));
    symlink(&secret, at.join("link")).unwrap();
    symlink(outside.path(), at.join("out")).unwrap();

    assert_eq!(store.local_path(&key("d/f/link")), None);
    assert_eq!(store.local_path(&key("d/f/out/secret")), None);
    assert_eq!(store.local_path(&key("d/f")), None, "a directory is no blob");
    store.put(&key("d/f/out/secret"), Bytes::new()).await.unwrap_err();
    store.clear(&key("d/f/out")).await.unwrap();
    assert!(secret.exists(), "a link is no folder");
    // The link itself is replaced, not what it leads to.
    store.put(&key("d/f/link"), Bytes::from_static(b"b")).await.unwrap();
    assert_eq!(read_all(&store, &key("d/f/link")).await.unwrap(), b"b");
    let taken = store.put(&key("d/f/a/below"), Bytes::new()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    let taken = store.put(&key("d/f"), Bytes::new()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);

    store.clear(&key("d/f")).await.unwrap();
    assert!(!at.exists());
    assert_eq!(std::fs::read(&secret).unwrap(), b"kept");
    let left = std::fs::read_dir(root.path().join("partial")).unwrap().count();
    assert_eq!(left, 0);
}
