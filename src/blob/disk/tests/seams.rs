//! Late jobs across claims, seals and discards; what a slot holds; what runs out.

use std::{
    future::Future,
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};

use super::*;
use crate::{
    blob::disk::{
        DiskOptions,
        sim::{Fault, Op, OpKind, SimFs},
        store::Disk,
    },
    error::ErrorKind,
};

const LATE: Duration = Duration::from_secs(60);

async fn store(fs: &SimFs) -> Disk<SimFs> {
    Disk::on(fs.clone(), &DiskOptions::default()).await.unwrap()
}

/// Does something to the first call of this kind alone.
fn once(fs: &SimFs, kind: OpKind, fault: Fault) {
    let mut left = Some(fault);
    fs.set_hook(move |op: &Op<'_>| if op.kind == kind { left.take() } else { None });
}

/// Begins the future, then drops it.
async fn drop_midway<T>(future: impl Future<Output = T>) {
    let waited = tokio::time::timeout(Duration::from_secs(1), future).await;
    assert!(waited.is_err(), "it was over before it could be dropped");
}

fn expect(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// A request is dropped while its job writes; a newer one claims the slot and is acknowledged.
pub(super) async fn a_late_job_and_a_newer_claim() -> Result<(), String> {
    let fs = SimFs::new(1);
    let store = store(&fs).await;
    let handle = begin(&store, 1, None).await.unwrap();
    let slot = Slot::at(0, 0, 1000);
    once(&fs, OpKind::Write, Fault::Pause(LATE));
    let mut old = store.open(&handle, slot).await.unwrap();
    drop_midway(old.write(vec![pattern(9, 1000)])).await;
    drop(old);
    let part = put(&store, &handle, slot, &pattern(1, 1000)).await.unwrap();
    tokio::time::sleep(2 * LATE).await;
    let body = store.read_parts(&handle, &[part]).await.unwrap().unwrap();
    expect(
        collect(body).await.unwrap() == pattern(1, 1000),
        "a late job changed an acknowledged part",
    )
}

/// A writer's job is still at it when the upload is sealed and published.
pub(super) async fn a_late_job_and_a_seal() -> Result<(), String> {
    let fs = SimFs::new(2);
    let store = store(&fs).await;
    let handle = begin(&store, 1, None).await.unwrap();
    let slot = Slot::at(0, 0, 1000);
    let part = put(&store, &handle, slot, &pattern(1, 1000)).await.unwrap();
    once(&fs, OpKind::Write, Fault::Pause(LATE));
    let mut late = store.open(&handle, Slot::at(1, 1000, 1000)).await.unwrap();
    drop_midway(late.write(vec![pattern(9, 1000)])).await;
    let answer = store.complete(&handle, &key("a"), &[part]).await.unwrap();
    assert_eq!(done(answer), 1000);
    let then = read_all(&store, &key("a")).await.unwrap();
    tokio::time::sleep(2 * LATE).await;
    expect(
        read_all(&store, &key("a")).await.unwrap() == then,
        "a late job changed a published blob",
    )
}

/// A part that is one byte longer than its slot, beside one that is acknowledged.
pub(super) async fn one_byte_too_many() -> Result<(), String> {
    let fs = SimFs::new(3);
    let store = store(&fs).await;
    let handle = begin(&store, 1, None).await.unwrap();
    let neighbour = put(&store, &handle, Slot::at(1, 100, 100), &pattern(2, 100))
        .await
        .unwrap();
    let mut writer = store.open(&handle, Slot::at(0, 0, 100)).await.unwrap();
    writer.write(vec![pattern(1, 60)]).await.unwrap();
    let before = fs.effects();
    let refused = writer.write(vec![pattern(1, 20), pattern(1, 21)]).await;
    let kind = refused.err().map(|error| error.kind());
    expect(kind == Some(ErrorKind::TooLarge), "a part may be too long")?;
    expect(fs.effects() == before, "a frame that was refused was written")?;
    expect(writer.finish().await.is_err(), "an attempt went on after its error")?;
    let body = store.read_parts(&handle, &[neighbour]).await.unwrap().unwrap();
    expect(
        collect(body).await.unwrap() == pattern(2, 100),
        "the neighbour was changed",
    )
}

/// Somebody else's blob lies under the key.
pub(super) async fn a_strangers_blob() -> Result<(), String> {
    let fs = SimFs::new(4);
    let store = store(&fs).await;
    let mut answers = Vec::new();
    for seed in [1, 2] {
        let handle = begin(&store, seed, None).await.unwrap();
        let part = put(&store, &handle, Slot::at(0, 0, 100), &pattern(seed.into(), 100))
            .await
            .unwrap();
        answers.push(store.complete(&handle, &key("a"), &[part]).await.unwrap());
    }
    expect(
        answers[1] == Completed::KeyTaken,
        "a stranger's blob was taken for the upload's",
    )
}

#[tokio::test(start_paused = true)]
async fn a_late_job_is_waited_for_by_a_newer_claim() {
    a_late_job_and_a_newer_claim().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_late_job_is_waited_for_by_the_seal() {
    a_late_job_and_a_seal().await.unwrap();
}

#[tokio::test]
async fn a_part_never_leaves_its_slot() {
    one_byte_too_many().await.unwrap();
}

#[tokio::test]
async fn a_key_alone_proves_nothing() {
    a_strangers_blob().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_dropped_while_it_waits_frees_nothing() {
    let fs = SimFs::new(5);
    let store = store(&fs).await;
    let handle = begin(&store, 1, None).await.unwrap();
    let slot = Slot::at(0, 0, 1000);
    once(&fs, OpKind::Write, Fault::Pause(LATE));
    let mut old = store.open(&handle, slot).await.unwrap();
    drop_midway(old.write(vec![pattern(9, 1000)])).await;
    drop(old);
    drop_midway(store.open(&handle, slot)).await;
    drop_midway(store.open(&handle, slot)).await;
    // Another number for the same bytes waits as well.
    let part = put(&store, &handle, Slot::at(1, 500, 100), &pattern(1, 100))
        .await
        .unwrap();
    let body = store
        .read_parts(&handle, std::slice::from_ref(&part))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(collect(body).await.unwrap(), pattern(1, 100));
    tokio::time::sleep(2 * LATE).await;
    let body = store.read_parts(&handle, &[part]).await.unwrap().unwrap();
    assert_eq!(collect(body).await.unwrap(), pattern(1, 100));
}

#[tokio::test]
async fn two_writers_of_the_same_bytes_are_refused() {
    let fs = SimFs::new(6);
    let store = store(&fs).await;
    let handle = begin(&store, 1, None).await.unwrap();
    let first = store.open(&handle, Slot::at(0, 0, 100)).await.unwrap();
    for slot in [Slot::at(1, 99, 1), Slot::at(1, 0, 1), Slot::at(1, 50, u64::MAX)] {
        let error = store.open(&handle, slot).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    let beside = store.open(&handle, Slot::at(1, 100, 100)).await.unwrap();
    let aside = store.open(&handle, Slot::aside(2, 100)).await.unwrap();
    drop((first, aside));
    drop(store.open(&handle, Slot::at(3, 50, 10)).await.unwrap());
    drop(beside);
}

#[tokio::test]
async fn a_finished_part_claims_only_the_bytes_it_has() {
    let fs = SimFs::new(7);
    let store = store(&fs).await;
    let handle = begin(&store, 1, None).await.unwrap();
    let whole = pattern(1, 250);
    let mut parts = Vec::new();
    for (number, range) in [(0, 0..100), (1, 100..130), (2, 130..250)] {
        let slot = Slot::at(number, range.start as u64, u64::MAX);
        parts.push(put(&store, &handle, slot, &whole.slice(range)).await.unwrap());
    }
    done(store.complete(&handle, &key("a"), &parts).await.unwrap());
    assert_eq!(read_all(&store, &key("a")).await.unwrap(), whole);
}

#[tokio::test(start_paused = true)]
async fn whatever_future_is_dropped_at_whatever_effect_the_upload_goes_on() {
    for effect in 0.. {
        let fs = SimFs::new(effect);
        let log = super::power::Log::default();
        let count = Arc::new(StdMutex::new(0));
        let seen = Arc::clone(&count);
        fs.set_hook(move |op| {
            let mut seen = seen.lock().unwrap();
            *seen += u64::from(op.kind.is_effect());
            (op.kind.is_effect() && *seen == effect + 1).then_some(Fault::Pause(LATE))
        });
        let whole = super::power::upload(fs.clone(), Arc::clone(&log));
        let _ = tokio::time::timeout(Duration::from_secs(1), whole).await;
        let ended = log.lock().unwrap().discarded;
        fs.clear_hook();
        tokio::time::sleep(2 * LATE).await;
        super::power::upload(fs.clone(), Arc::clone(&log)).await.unwrap();
        assert_eq!(fs.paths(), ["blobs/a/b/c"], "dropped at effect {effect}");
        assert_eq!(fs.open_files(), 0, "dropped at effect {effect}");
        super::power::check(fs, &log).await.unwrap();
        if ended {
            assert!(effect > 10);
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_complete_that_waited_past_a_broken_seal_does_nothing() {
    let fs = SimFs::new(8);
    let store = store(&fs).await;
    let handle = begin(&store, 1, None).await.unwrap();
    let part = put(&store, &handle, Slot::at(0, 0, 10), &pattern(1, 10)).await.unwrap();
    let lost = Part::new(1, 10, 0, crate::upload::Receipt::new("i:10:10:0000000000000001"));
    once(&fs, OpKind::Stat, Fault::Pause(LATE));
    let key = key("a");
    let parts = [part, lost];
    let (first, second) = tokio::join!(
        store.complete(&handle, &key, &parts),
        store.complete(&handle, &key, &parts[..1])
    );
    assert_eq!(first.unwrap(), Completed::PartsLost(vec![1]));
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Unavailable);
    let again = put(&store, &handle, Slot::at(1, 10, 10), &pattern(2, 10))
        .await
        .unwrap();
    let [part, _] = parts;
    done(store.complete(&handle, &key, &[part, again]).await.unwrap());
}

#[tokio::test]
async fn a_discard_ends_writers_and_forgets_everything() {
    let fs = SimFs::new(9);
    fs.set_capacity(1 << 20);
    let store = store(&fs).await;
    let handle = begin(&store, 1, Some(1 << 20)).await.unwrap();
    assert_eq!(begin(&store, 2, Some(1)).await.unwrap_err().kind(), ErrorKind::NoSpace);
    let mut writer = store.open(&handle, Slot::aside(0, 100)).await.unwrap();
    writer.write(vec![pattern(1, 50)]).await.unwrap();
    assert_eq!(fs.paths().len(), 2);
    store.discard(&handle).await.unwrap();
    assert_eq!(fs.paths(), [""; 0]);
    assert_eq!(
        writer.write(vec![pattern(1, 50)]).await.unwrap_err().kind(),
        ErrorKind::Superseded
    );
    drop(writer);
    for slot in [Slot::at(0, 0, 1), Slot::aside(0, 1)] {
        let mut late = store.open(&handle, slot).await.unwrap();
        let error = late.write(vec![pattern(1, 1)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    assert_eq!(fs.paths(), [""; 0]);
    assert_eq!(store.known_uploads(), 0);
    assert_eq!(store.reserved_bytes(), 0);
    assert_eq!(fs.open_files(), 0);
    begin(&store, 2, Some(1 << 20)).await.unwrap();
}

#[tokio::test]
async fn finished_parts_are_no_longer_reserved() {
    let fs = SimFs::new(10);
    fs.set_capacity(1 << 20);
    let store = store(&fs).await;
    let handle = begin(&store, 1, Some(800_000)).await.unwrap();
    put(&store, &handle, Slot::at(0, 0, 400_000), &pattern(1, 400_000))
        .await
        .unwrap();
    assert_eq!(store.reserved_bytes(), 400_000);
    begin(&store, 2, Some(200_000)).await.unwrap();
    assert_eq!(
        begin(&store, 3, Some(200_000)).await.unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    assert_eq!(store.reserved_bytes(), 600_000);
}

#[tokio::test]
async fn abandoned_side_files_do_not_pile_up() {
    let fs = SimFs::new(11);
    let store = store(&fs).await;
    let handle = begin(&store, 1, None).await.unwrap();
    for _ in 0..20 {
        let mut writer = store.open(&handle, Slot::aside(3, 100)).await.unwrap();
        writer.write(vec![pattern(1, 50)]).await.unwrap();
    }
    // The last one's goes with the next attempt, or with the upload.
    let part = put(&store, &handle, Slot::aside(3, 100), &pattern(1, 100))
        .await
        .unwrap();
    assert!(fs.paths().len() <= 3, "{:?}", fs.paths());
    done(store.complete(&handle, &key("a"), &[part]).await.unwrap());
}

/// Who is told that a blob is gone may give its key to another one.
#[tokio::test(start_paused = true)]
async fn a_late_deletion_deletes_no_later_blob() {
    for kind in [OpKind::Open, OpKind::Unlink] {
        let fs = SimFs::new(14);
        let store = store(&fs).await;
        let publish = async |seed| {
            let handle = begin(&store, seed, Some(10)).await.unwrap();
            let part = put(&store, &handle, Slot::at(0, 0, 10), &pattern(u64::from(seed), 10))
                .await
                .unwrap();
            done(store.complete(&handle, &key("a"), &[part]).await.unwrap());
            store.discard(&handle).await.unwrap();
        };
        publish(1).await;
        once(&fs, kind, Fault::Pause(LATE));
        drop_midway(store.delete(&key("a"))).await;
        store.delete(&key("b")).await.unwrap();
        store.delete(&key("a")).await.unwrap();
        publish(2).await;
        tokio::time::sleep(2 * LATE).await;
        assert!(read_all(&store, &key("a")).await.unwrap() == pattern(2, 10), "{kind:?}");
    }
}

#[tokio::test]
async fn without_descriptors_a_store_is_unavailable_and_recovers() {
    let fs = SimFs::new(12);
    let store = store(&fs).await;
    let handle = begin(&store, 1, None).await.unwrap();
    fs.set_max_open(0);
    assert_eq!(begin(&store, 2, None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let slot = Slot::at(0, 0, 100);
    let error = put(&store, &handle, slot, &pattern(1, 100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(store.head(&key("a")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let parts = [Part::new(
        0,
        100,
        0,
        crate::upload::Receipt::new("i:0:100:0000000000000001"),
    )];
    let error = store.complete(&handle, &key("a"), &parts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    fs.set_max_open(100);
    let parts = [Part::new(
        0,
        0,
        0,
        crate::upload::Receipt::new("i:0:0:0000000000000001"),
    )];
    done(store.complete(&handle, &key("a"), &parts).await.unwrap());
}

#[tokio::test]
async fn an_answer_that_was_lost_changes_nothing() {
    for kind in [
        OpKind::Link,
        OpKind::Sync,
        OpKind::Mkdir,
        OpKind::Unlink,
        OpKind::Copy,
        OpKind::SetLen,
    ] {
        let fs = SimFs::new(13);
        let log = super::power::Log::default();
        once(&fs, kind, Fault::ErrorAfter(libc::EIO));
        for _ in 0..4 {
            if super::power::upload(fs.clone(), Arc::clone(&log)).await.is_ok() {
                break;
            }
        }
        assert!(log.lock().unwrap().discarded, "{kind:?}");
        super::power::check(fs, &log).await.unwrap();
    }
}

#[tokio::test]
async fn conforms() {
    crate::conformance::blob::run(async || store(&SimFs::new(14)).await).await;
    let fs = SimFs::new(15);
    crate::conformance::blob::durability(async || store(&fs.power_loss()).await).await;
}
