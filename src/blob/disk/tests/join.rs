//! Joins that are cut off: by a kill, by a power loss, by a sync that fails, by a newer claim.

use std::{
    future::Future,
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};

use super::*;
use crate::blob::Before;
use crate::{
    blob::{
        Joined,
        disk::{
            DiskOptions,
            sim::{Fault, OpKind, SimFs},
            store::Disk,
        },
    },
    error::ErrorKind,
};

const LENS: [usize; 2] = [1500, 2700];

/// What was recorded.
#[derive(Clone, Debug, Default)]
struct Told {
    source: Option<Handle>,
    parts: Vec<Part>,
    joint: Option<Handle>,
    joined: Vec<Part>,
    done: bool,
    discarded: bool,
}

type Log = Arc<StdMutex<Told>>;

fn piece(number: usize) -> Bytes {
    pattern(number as u64 + 1, LENS[number])
}

/// Which parts of the source each part of the joint one is made of.
const LISTS: [&[usize]; 3] = [&[0, 1], &[1], &[0]];

fn made_of(number: usize) -> Vec<u8> {
    LISTS[number].iter().flat_map(|at| piece(*at)).collect()
}

fn whole() -> Vec<u8> {
    (0..LISTS.len()).flat_map(made_of).collect()
}

fn slot(number: usize) -> Slot {
    let offset: usize = (0..number).map(|before| made_of(before).len()).sum();
    Slot::at(number as u32, offset as u64, made_of(number).len() as u64)
}

/// Goes on from what was recorded until the joint upload is published and all else is gone.
async fn go_on(fs: SimFs, log: Log) -> Result<()> {
    let store = Disk::on(fs, &DiskOptions::default()).await?;
    let told = || log.lock().unwrap().clone();
    if told().discarded {
        return Ok(());
    }
    if told().source.is_none() {
        for (_, orphan) in store.begun(Duration::ZERO).await? {
            store.discard(&orphan).await?;
        }
        log.lock().unwrap().source = Some(begin(&store, 1, None).await?);
    }
    let source = told().source.unwrap();
    let mut offset = 0;
    for (number, len) in LENS.iter().enumerate() {
        if told().parts.len() <= number {
            let slot = Slot::at(number as u32, offset, *len as u64);
            let part = put(&store, &source, slot, &piece(number)).await?;
            log.lock().unwrap().parts.push(part);
        }
        offset += *len as u64;
    }
    if told().joint.is_none() {
        for (_, orphan) in store.begun(Duration::ZERO).await? {
            if orphan != source {
                store.discard(&orphan).await?;
            }
        }
        let known = begin(&store, 2, Some(whole().len() as u64)).await?;
        log.lock().unwrap().joint = Some(known);
    }
    let joint = told().joint.unwrap();
    if !told().done {
        for (number, list) in LISTS.iter().enumerate().skip(told().joined.len()) {
            // An attempt that is given up, of other bytes.
            let mut abandoned = store.open(&joint, slot(number)).await?;
            abandoned.write(vec![pattern(9, 700)]).await?;
            let parts: Vec<Part> = list.iter().map(|at| told().parts[*at].clone()).collect();
            match store
                .join(&joint, slot(number), Before::default(), &source, &parts)
                .await?
            {
                Joined::Done(receipt) => {
                    let part = Part::new(number as u32, made_of(number).len() as u64, 0, receipt);
                    log.lock().unwrap().joined.push(part);
                }
                lost @ Joined::PartsLost(_) => panic!("acknowledged parts are lost: {lost:?}"),
            }
            drop(abandoned);
        }
        match store.complete(&joint, &key("j"), &told().joined).await? {
            Completed::Done(_) => {}
            other => panic!("joined parts are lost: {other:?}"),
        }
        log.lock().unwrap().done = true;
    }
    store.discard(&joint).await?;
    store.discard(&source).await?;
    log.lock().unwrap().discarded = true;
    Ok(())
}

/// What must hold for whoever comes after a crash.
async fn check(fs: SimFs, log: &Log) -> Result<(), String> {
    let told = log.lock().unwrap().clone();
    let store = Disk::on(fs, &DiskOptions::default())
        .await
        .map_err(|error| error.to_string())?;
    let blob = store.head(&key("j")).await.map_err(|error| error.to_string())?;
    if told.done && blob.is_none() {
        return Err("the published blob is gone".into());
    }
    if blob.is_some() && read_all(&store, &key("j")).await.ok() != Some(whole()) {
        return Err("the published blob is not what was joined".into());
    }
    if told.done {
        return Ok(());
    }
    for (number, part) in told.joined.iter().enumerate() {
        let body = store
            .read_parts(told.joint.as_ref().unwrap(), std::slice::from_ref(part))
            .await;
        let bytes = match body {
            Ok(Some(body)) => collect(body).await.unwrap_or_default(),
            _ => Vec::new(),
        };
        if bytes != made_of(number) {
            return Err(format!("the joined part {number} is lost"));
        }
    }
    Ok(())
}

async fn recover(fs: SimFs, log: &Log) -> Result<(), String> {
    check(fs.clone(), log).await?;
    let fs = fs.crash();
    match tokio::spawn(go_on(fs.clone(), Arc::clone(log))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(format!("no recovery: {error:?}")),
        Err(panic) => {
            let words = panic.into_panic();
            return Err(words.downcast_ref::<String>().cloned().unwrap_or_default());
        }
    }
    let fs = fs.power_loss();
    check(fs.clone(), log).await?;
    let store = Disk::on(fs.clone(), &DiskOptions::default())
        .await
        .map_err(|error| error.to_string())?;
    for (_, orphan) in store.begun(Duration::ZERO).await.map_err(|error| error.to_string())? {
        store.discard(&orphan).await.map_err(|error| error.to_string())?;
    }
    match fs.paths().as_slice() {
        [only] if only == "blobs/j" => Ok(()),
        paths => Err(format!("left behind: {paths:?}")),
    }
}

/// Whether the process died before its end.
async fn dies(fs: &SimFs, run: impl Future<Output = Result<()>> + Send + 'static) -> bool {
    let task = tokio::spawn(run);
    tokio::select! {
        biased;
        () = fs.died() => true,
        _ = task => false,
    }
}

#[tokio::test(start_paused = true)]
async fn killed_or_without_power_at_any_point_nothing_joined_is_lost() {
    let mut crashes = 0;
    for power in [false, true] {
        for effect in 0.. {
            let mut ended = false;
            for seed in 0..if power { 20 } else { 3 } {
                let (fs, log) = (SimFs::new(seed), Log::default());
                fs.stop_before(effect);
                ended |= !dies(&fs, go_on(fs.clone(), Arc::clone(&log))).await;
                let next = if power { fs.power_loss() } else { fs.crash() };
                crashes += 1;
                let at = format!("power: {power}, before effect {effect}, seed {seed}");
                recover(next, &log)
                    .await
                    .unwrap_or_else(|error| panic!("{at}: {error}"));
            }
            if ended {
                break;
            }
        }
    }
    println!("{crashes} crashes");
    assert!(crashes > 500, "{crashes}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_of_joined_bytes_is_never_believed_later() {
    let mut failures = 0;
    for failing in 0.. {
        let mut reached = false;
        for seed in 0..20 {
            let (fs, log) = (SimFs::new(seed), Log::default());
            let count = Arc::new(StdMutex::new(0));
            let seen = Arc::clone(&count);
            fs.set_hook(move |op| {
                if op.kind != OpKind::Sync {
                    return None;
                }
                let mut seen = seen.lock().unwrap();
                *seen += 1;
                (*seen == failing + 1).then_some(Fault::Error(libc::EIO))
            });
            let again = {
                let (fs, log) = (fs.clone(), Arc::clone(&log));
                async move {
                    for _ in 0..3 {
                        if go_on(fs.clone(), Arc::clone(&log)).await.is_ok() {
                            break;
                        }
                    }
                    Ok(())
                }
            };
            dies(&fs, again).await;
            reached |= *count.lock().unwrap() > failing;
            failures += 1;
            recover(fs.power_loss(), &log)
                .await
                .unwrap_or_else(|error| panic!("sync {failing} failed, seed {seed}: {error}"));
        }
        if !reached {
            break;
        }
    }
    println!("{failures} failed syncs");
    assert!(failures > 150, "{failures}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_still_runs_is_waited_for_by_a_newer_claim() {
    let fs = SimFs::new(1);
    let store = Disk::on(fs.clone(), &DiskOptions::default()).await.unwrap();
    let source = begin(&store, 1, None).await.unwrap();
    let part = put(&store, &source, Slot::at(0, 0, 1500), &piece(0)).await.unwrap();
    let joint = begin(&store, 2, None).await.unwrap();
    fs.set_hook(|op| (op.kind == OpKind::Copy).then_some(Fault::Pause(Duration::from_secs(9))));
    let to = Slot::at(0, 0, 1500);
    let parts = [part];
    let late = store.join(&joint, to, Before::default(), &source, &parts);
    assert!(tokio::time::timeout(Duration::from_secs(1), late).await.is_err());
    let began = tokio::time::Instant::now();
    let newer = put(&store, &joint, to, &pattern(7, 1500)).await.unwrap();
    assert!(
        began.elapsed() > Duration::from_secs(5),
        "it waits for the job, not for its own turn"
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    done(store.complete(&joint, &key("j"), &[newer]).await.unwrap());
    assert_eq!(read_all(&store, &key("j")).await.unwrap(), pattern(7, 1500));
    let sealed = store
        .join(&joint, Slot::at(1, 1500, 1500), Before::default(), &source, &parts)
        .await;
    assert_eq!(sealed.unwrap_err().kind(), ErrorKind::Superseded);
    for handle in [joint, source] {
        store.discard(&handle).await.unwrap();
    }
    assert_eq!((fs.open_files(), store.known_uploads()), (0, 0));
}

#[tokio::test]
async fn bytes_are_joined_by_the_machines_file_system() {
    let root = tempfile::tempdir().unwrap();
    let store = crate::blob::DiskBlobs::open(root.path()).await.unwrap();
    let source = begin(&store, 1, None).await.unwrap();
    let (first, second) = (pattern(1, 300_000), pattern(2, 12_345));
    let parts = [
        put(&store, &source, Slot::at(0, 0, 300_000), &first).await.unwrap(),
        put(&store, &source, Slot::at(1, 300_000, 99_999), &second)
            .await
            .unwrap(),
    ];
    let joint = begin(&store, 2, None).await.unwrap();
    let mut joined = Vec::new();
    for (number, parts) in [&parts[..], &parts[1..]].into_iter().enumerate() {
        let len = parts.iter().map(|part| part.len).sum();
        let at: u64 = joined.iter().map(|part: &Part| part.len).sum();
        let slot = Slot::at(number as u32, at, len);
        match store
            .join(&joint, slot, Before::default(), &source, parts)
            .await
            .unwrap()
        {
            Joined::Done(receipt) => joined.push(Part::new(slot.number, len, 0, receipt)),
            lost @ Joined::PartsLost(_) => panic!("{lost:?}"),
        }
    }
    assert_eq!(store.copied_bytes(), 300_000 + 2 * 12_345);
    store.discard(&source).await.unwrap();
    done(store.complete(&joint, &key("j"), &joined).await.unwrap());
    let whole = [&first[..], &second, &second].concat();
    assert!(read_all(&store, &key("j")).await.unwrap() == whole);
}
