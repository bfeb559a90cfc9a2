//! Every point at which the process can be killed or the power can go, and every single error of a sync.

use std::{future::Future, sync::Arc, sync::Mutex as StdMutex, time::Duration};

use super::*;
use crate::{
    blob::disk::{
        DiskOptions,
        sim::{Fault, OpKind, SimFs},
        store::Disk,
    },
    upload::Blob,
};

pub(super) const FIRST: usize = 1500;
pub(super) const SECOND: usize = 900;

/// What the client was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) handle: Option<Handle>,
    pub(super) parts: Vec<Part>,
    pub(super) done: bool,
    pub(super) discarded: bool,
}

pub(super) type Log = Arc<StdMutex<Told>>;

pub(super) fn slots() -> [(Slot, Bytes); 2] {
    [
        (Slot::at(0, 0, FIRST as u64), pattern(1, FIRST)),
        (Slot::aside(1, 4000), pattern(2, SECOND)),
    ]
}

pub(super) fn whole() -> Vec<u8> {
    slots().iter().flat_map(|(_, bytes)| bytes.to_vec()).collect()
}

pub(super) fn the_key() -> Key {
    key("a/b/c")
}

/// Begins an upload or goes on with it, until it is published and discarded. `log` is what was recorded.
pub(super) async fn upload(fs: SimFs, log: Log) -> Result<()> {
    let store = Disk::on(fs, &DiskOptions::default()).await?;
    let told = log.lock().unwrap().clone();
    if told.discarded {
        return Ok(());
    }
    let handle = match told.handle {
        Some(handle) => handle,
        None => {
            let orphans = store.begun(Duration::ZERO).await?;
            for (_, orphan) in orphans {
                store.discard(&orphan).await?;
            }
            let handle = begin(&store, 1, Some(5000)).await?;
            log.lock().unwrap().handle = Some(handle.clone());
            handle
        }
    };
    if !told.done {
        for (slot, bytes) in slots() {
            if log.lock().unwrap().parts.iter().any(|part| part.number == slot.number) {
                continue;
            }
            // An attempt that is given up, longer than the true one, at the end of the file.
            let mut abandoned = store.open(&handle, Slot { max_len: 4000, ..slot }).await?;
            if slot.number == 1 {
                abandoned.write(vec![pattern(7, 2000)]).await?;
            }
            drop(abandoned);
            let part = put(&store, &handle, slot, &bytes).await?;
            log.lock().unwrap().parts.push(part);
        }
        let mut parts = log.lock().unwrap().parts.clone();
        parts.sort_by_key(|part| part.number);
        match store.complete(&handle, &the_key(), &parts).await? {
            Completed::Done(blob) => assert_eq!(blob, Blob::new((FIRST + SECOND) as u64, None)),
            other => panic!("acknowledged parts are lost: {other:?}"),
        }
        log.lock().unwrap().done = true;
    }
    store.discard(&handle).await?;
    log.lock().unwrap().discarded = true;
    Ok(())
}

/// What must hold for whoever comes after a crash, before anything is repaired.
pub(super) async fn check(fs: SimFs, log: &Log) -> Result<(), String> {
    let told = log.lock().unwrap().clone();
    let store = Disk::on(fs, &DiskOptions::default())
        .await
        .map_err(|error| error.to_string())?;
    let blob = store.head(&the_key()).await.map_err(|error| error.to_string())?;
    if told.done && blob.is_none() {
        return Err("the published blob is gone".into());
    }
    if blob.is_some() && read_all(&store, &the_key()).await.ok() != Some(whole()) {
        return Err("the published blob is not what was sent".into());
    }
    if told.discarded {
        return Ok(());
    }
    for part in &told.parts {
        let body = store
            .read_parts(told.handle.as_ref().unwrap(), std::slice::from_ref(part))
            .await;
        let bytes = match body {
            Ok(Some(body)) => collect(body).await.unwrap_or_default(),
            _ => Vec::new(),
        };
        if bytes != slots()[part.number as usize].1 && !told.done {
            return Err(format!("the acknowledged part {} is lost", part.number));
        }
    }
    Ok(())
}

/// Goes on after a crash; panics of it are errors too.
async fn recover(fs: SimFs, log: &Log) -> Result<(), String> {
    check(fs.clone(), log).await?;
    // What dies here is a crash again, not the end of the test.
    let fs = fs.crash();
    match tokio::spawn(upload(fs.clone(), Arc::clone(log))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(format!("no recovery: {error:?}")),
        Err(panic) => {
            let words = panic.into_panic();
            return Err(words.downcast_ref::<String>().cloned().unwrap_or_default());
        }
    }
    check(fs.clone(), log).await?;
    // Discards are not synced: a name may come back, and the sweep finds it.
    let fs = fs.power_loss();
    check(fs.clone(), log).await?;
    let store = Disk::on(fs.clone(), &DiskOptions::default())
        .await
        .map_err(|error| error.to_string())?;
    for (_, orphan) in store.begun(Duration::ZERO).await.map_err(|error| error.to_string())? {
        store.discard(&orphan).await.map_err(|error| error.to_string())?;
    }
    match fs.paths().as_slice() {
        [only] if only == "blobs/a/b/c" => Ok(()),
        paths => Err(format!("left behind: {paths:?}")),
    }
}

/// Runs until the process dies, or to the end.
async fn until_death(fs: &SimFs, log: &Log, run: impl Future<Output = Result<()>> + Send + 'static) -> bool {
    let task = tokio::spawn(run);
    tokio::select! {
        () = fs.died() => true,
        ended = task => {
            // An injected error ends a run early.
            let _ = (ended, log);
            false
        }
    }
}

/// Stops before each effect in turn, in both ways.
pub(super) async fn every_crash(seeds: u64) -> Result<u64, String> {
    let mut crashes = 0;
    for power in [false, true] {
        for effect in 0.. {
            let mut ended = false;
            for seed in 0..if power { seeds } else { 1 } {
                let (fs, log) = (SimFs::new(seed), Log::default());
                fs.stop_before(effect);
                if !until_death(&fs, &log, upload(fs.clone(), Arc::clone(&log))).await {
                    ended = true;
                }
                let next = if power { fs.power_loss() } else { fs.crash() };
                crashes += 1;
                let at = format!("power: {power}, before effect {effect}, seed {seed}");
                recover(next, &log).await.map_err(|error| format!("{at}: {error}"))?;
            }
            if ended {
                break;
            }
        }
    }
    Ok(crashes)
}

/// Fails each sync in turn, goes on as a client would, and takes the power away.
pub(super) async fn every_failed_sync(seeds: u64) -> Result<u64, String> {
    let mut failures = 0;
    for sync in 0.. {
        let mut reached = false;
        for seed in 0..seeds {
            let (fs, log) = (SimFs::new(seed), Log::default());
            let count = Arc::new(StdMutex::new(0));
            let seen = Arc::clone(&count);
            fs.set_hook(move |op| {
                if op.kind != OpKind::Sync {
                    return None;
                }
                let mut seen = seen.lock().unwrap();
                *seen += 1;
                (*seen == sync + 1).then_some(Fault::Error(libc::EIO))
            });
            // In the same process as often as it takes, then without power.
            let again = {
                let (fs, log) = (fs.clone(), Arc::clone(&log));
                async move {
                    for _ in 0..3 {
                        if upload(fs.clone(), Arc::clone(&log)).await.is_ok() {
                            break;
                        }
                    }
                    Ok(())
                }
            };
            until_death(&fs, &log, again).await;
            reached |= *count.lock().unwrap() > sync;
            failures += 1;
            let at = format!("sync {sync} failed, seed {seed}");
            recover(fs.power_loss(), &log)
                .await
                .map_err(|error| format!("{at}: {error}"))?;
        }
        if !reached {
            break;
        }
    }
    Ok(failures)
}

#[tokio::test(start_paused = true)]
async fn killed_or_without_power_at_any_point_nothing_acknowledged_is_lost() {
    let crashes = every_crash(40).await.unwrap();
    println!("{crashes} crashes");
    assert!(crashes > 1000, "{crashes}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_is_never_believed_later() {
    let failures = every_failed_sync(40).await.unwrap();
    println!("{failures} failed syncs");
    assert!(failures > 300, "{failures}");
}

const CHUNK: usize = 700;
const CHUNKS: u32 = 5;

fn chunk(number: u32) -> Bytes {
    pattern(u64::from(number) + 20, CHUNK)
}

/// Chunks in parallel, each tried again until it is acknowledged; some in place, some aside, some sent twice.
async fn parallel(store: Disk<SimFs>, handle: Handle, log: Log) {
    let tasks: Vec<_> = (0..CHUNKS)
        .map(|number| {
            let (store, handle, log) = (store.clone(), handle.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                let slot = match number % 2 {
                    0 => Slot::at(number, u64::from(number) * CHUNK as u64, CHUNK as u64),
                    _ => Slot::aside(number, CHUNK as u64),
                };
                while !log.lock().unwrap().parts.iter().any(|part| part.number == number) {
                    let bytes = chunk(number);
                    let twice = tokio::join!(put(&store, &handle, slot, &bytes), put(&store, &handle, slot, &bytes));
                    // One of them is superseded, unless the second began after the first was done.
                    if let Ok(part) = twice.1.or(twice.0) {
                        log.lock().unwrap().parts.push(part);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn parallel_chunks_survive_a_power_loss_at_any_time() {
    let (mut kept, mut cut) = (0, 0);
    for seed in 0..300 {
        let fs = SimFs::new(seed);
        let (log, key) = (Log::default(), key("p"));
        let store = Disk::on(fs.clone(), &DiskOptions::default()).await.unwrap();
        let handle = begin(&store, 1, None).await.unwrap();
        fs.set_latency(Duration::from_millis(5));
        // Here and there a file fails to be synced.
        let failing = (seed % 3 == 0).then_some(seed % 7);
        let mut syncs = 0;
        fs.set_hook(move |op| {
            let counts = op.kind == OpKind::Sync && op.path != "partial";
            syncs += u64::from(counts);
            (counts && failing == Some(syncs)).then_some(Fault::Error(libc::EIO))
        });
        let running = tokio::spawn(parallel(store, handle.clone(), Arc::clone(&log)));
        tokio::time::sleep(Duration::from_millis(seed % 150)).await;
        cut += u32::from(!running.is_finished());
        let fs = fs.power_loss();
        running.abort();
        kept += log.lock().unwrap().parts.len();

        let store = Disk::on(fs.clone(), &DiskOptions::default()).await.unwrap();
        parallel(store.clone(), handle.clone(), Arc::clone(&log)).await;
        let mut parts = log.lock().unwrap().parts.clone();
        parts.sort_by_key(|part| part.number);
        done(store.complete(&handle, &key, &parts).await.unwrap());
        store.discard(&handle).await.unwrap();
        let whole: Vec<u8> = (0..CHUNKS).flat_map(chunk).collect();
        assert!(read_all(&store, &key).await.unwrap() == whole, "seed {seed}");
        assert_eq!(fs.paths(), ["blobs/p"], "seed {seed}");
        assert_eq!(fs.open_files(), 0, "seed {seed}");
    }
    println!("{cut} cut, {kept} chunks acknowledged before");
    assert!(cut > 50 && kept > 100, "{cut} {kept}");
}
