#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    Builder, Caller, Clock, Error, ErrorKind, EventKind, NewAppend, NewUpload, Ready, State, Upload, UploadId, Uploads,
    access::OwnerOnly,
    blob::{BlobStore, ByteRange, MemoryBlobs},
    conformance::fault::{Call, Fault, FaultyBlobs, ScriptedFaults},
    metadata::{MemoryMetadata, Page, PartRange, PartsEdit},
    upload::{Concat, Protocol, Timestamp, Wake},
};

fn alice() -> Caller {
    Caller::new("alice")
}

fn body(bytes: &[u8]) -> impl futures_core::Stream<Item = Result<Bytes, Error>> + Send + use<> {
    let frames: Vec<_> = bytes.chunks(7).map(|frame| Ok(Bytes::copy_from_slice(frame))).collect();
    stream::iter(frames)
}

/// Bytes that tell whose they are.
fn bytes(who: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| who.wrapping_mul(37) ^ (at % 251) as u8).collect()
}

/// Goes by tokio's clock, which tests turn on.
#[derive(Debug)]
struct Virtual(tokio::time::Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000).after(self.0.elapsed())
    }
}

fn builder(blobs: impl BlobStore) -> Builder<Ready> {
    let clock = Arc::new(Virtual(tokio::time::Instant::now()));
    Uploads::with(blobs, MemoryMetadata::with_clock(clock))
        .authorizer(OwnerOnly)
        .checkpoint(40)
        .configure(|config| config.join_step = 100)
}

async fn engine() -> Uploads {
    builder(MemoryBlobs::new()).build().await.unwrap()
}

async fn partial(uploads: &Uploads, bytes: &[u8]) -> UploadId {
    let new = NewUpload::new("a.bin").size(bytes.len() as u64).partial();
    let id = uploads.create(&alice(), new).await.unwrap().id();
    uploads.append(&alice(), id, 0, body(bytes)).await.unwrap();
    id
}

async fn content(uploads: &Uploads, id: UploadId) -> Vec<u8> {
    let (blob, body) = uploads.read(&alice(), id, ByteRange::ALL).await.unwrap();
    let bytes = body.try_collect::<Vec<_>>().await.unwrap().concat();
    assert_eq!(blob.size, bytes.len() as u64);
    bytes
}

async fn state(uploads: &Uploads, id: UploadId) -> State {
    uploads.status(&alice(), id).await.unwrap().state()
}

/// Waits, for an hour of the virtual clock at most.
async fn ended(uploads: &Uploads, id: UploadId) -> Upload {
    for _ in 0..3600 {
        let upload = uploads.status(&alice(), id).await.unwrap();
        if upload.state().is_final() {
            return upload;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it did not end: {:?}", uploads.status(&alice(), id).await.unwrap());
}

/// Nothing is stored but the blob of `id`, and it is sound.
async fn nothing_else_is_left(uploads: &Uploads, id: UploadId) {
    uploads.sweep().await.unwrap();
    assert!(uploads.audit(true).await.unwrap().findings.is_empty());
    let begun = uploads.inner.blobs.begun(Duration::ZERO).await.unwrap();
    assert_eq!(begun, vec![], "something is staged");
    for upload in uploads.list(&alice(), Page::new(0, 999)).await.unwrap() {
        let expected = if upload.id() == id {
            State::Assembled
        } else {
            State::Deleted
        };
        assert_eq!(upload.state(), expected);
        if upload.id() != id {
            assert!(uploads.inner.blobs.head(upload.key()).await.unwrap().is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn partials_are_joined_in_the_order_of_the_list() {
    let uploads = engine().await;
    let pieces = [bytes(1, 333), bytes(2, 40), bytes(3, 0), bytes(4, 101)];
    let mut ids = Vec::new();
    for piece in &pieces {
        ids.push(partial(&uploads, piece).await);
    }
    // Some more than once, and not in the order they were sent in.
    let list = [ids[3], ids[0], ids[2], ids[1], ids[0]];
    let whole = [&pieces[3][..], &pieces[0], &pieces[2], &pieces[1], &pieces[0]].concat();
    let new = NewUpload::new("a.bin").protocol(Protocol::Tus).note("said", "final;…");
    let upload = uploads.concatenate(&alice(), new, &list, false).await.unwrap();
    assert_eq!((upload.state(), upload.is_new()), (State::Assembled, true));
    assert_eq!(upload.size(), Some(whole.len() as u64));
    assert_eq!(upload.concat(), Some(&Concat::Final(list.to_vec())));
    assert_eq!(
        upload.key().as_str(),
        format!("videos/originals/{}_a.bin", upload.id()),
        "the key that comes to mind is not a partial one's"
    );
    assert_eq!(content(&uploads, upload.id()).await, whole);
    nothing_else_is_left(&uploads, upload.id()).await;
    let again = uploads
        .concatenate(&alice(), NewUpload::new("b"), &list[..1], false)
        .await
        .unwrap_err();
    assert_eq!((again.kind(), again.state()), (ErrorKind::Gone, Some(State::Deleted)));
}

#[tokio::test(start_paused = true)]
async fn nothing_makes_an_empty_file() {
    let uploads = engine().await;
    let ids = [partial(&uploads, b"").await, partial(&uploads, b"").await];
    let upload = uploads
        .concatenate(&alice(), NewUpload::new("a"), &ids, false)
        .await
        .unwrap();
    assert_eq!(content(&uploads, upload.id()).await, b"");
    nothing_else_is_left(&uploads, upload.id()).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_joined_is_refused_and_changes_nothing() {
    let uploads = builder(MemoryBlobs::new()).max_size(150).build().await.unwrap();
    let whole = partial(&uploads, &bytes(1, 100)).await;
    let half = uploads
        .create(&alice(), NewUpload::new("half").size(10).partial())
        .await
        .unwrap()
        .id();
    let common = uploads
        .create(&alice(), NewUpload::new("common").size(0))
        .await
        .unwrap()
        .id();
    let joined =
        async |new: NewUpload, list: &[UploadId]| uploads.concatenate(&alice(), new, list, false).await.unwrap_err();
    let new = || NewUpload::new("a");
    let unknown = UploadId::from_bytes([9; 16]);
    let not_found = joined(new(), &[whole, unknown]).await;
    assert_eq!(not_found.kind(), ErrorKind::NotFound);
    let strangers = uploads
        .concatenate(&Caller::new("eve"), new(), &[whole], false)
        .await
        .unwrap_err();
    assert_eq!(
        (strangers.kind(), strangers.message()),
        (not_found.kind(), not_found.message())
    );
    for list in [vec![], vec![half], vec![whole, common], vec![whole; 1001]] {
        let error = joined(new(), &list).await;
        assert_eq!((error.kind(), error.field()), (ErrorKind::Invalid, Some("partials")));
    }
    let error = joined(new(), &[whole, whole]).await;
    assert_eq!((error.kind(), error.limit()), (ErrorKind::TooLarge, Some(150)));
    assert_eq!(joined(new().size(100), &[whole]).await.field(), Some("size"));
    assert_eq!(joined(new().partial(), &[whole]).await.field(), Some("partial"));
    let bound = NewUpload::new("a").size(10).chunk_size(5).partial();
    assert_eq!(
        uploads.create(&alice(), bound).await.unwrap_err().field(),
        Some("partial")
    );
    assert_eq!(uploads.list(&alice(), Page::new(0, 9)).await.unwrap().len(), 3);
    assert_eq!(state(&uploads, whole).await, State::Open);
}

#[tokio::test(start_paused = true)]
async fn neither_a_partial_nor_a_final_one_is_what_it_is_not() {
    let uploads = engine().await;
    let whole = partial(&uploads, &bytes(1, 100)).await;
    let error = uploads.assemble(&alice(), whole, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let new = NewUpload::new("half").seals_itself().partial();
    let half = uploads.create(&alice(), new).await.unwrap().id();
    let completes = uploads
        .append_with(&alice(), half, 0, NewAppend::new().completes(), body(b"abc"))
        .await
        .unwrap_err();
    assert_eq!(completes.kind(), ErrorKind::Invalid);
    uploads.append(&alice(), half, 0, body(b"abc")).await.unwrap();

    let upload = uploads
        .concatenate(&alice(), NewUpload::new("a"), &[whole, half], true)
        .await
        .unwrap();
    assert_eq!((upload.state(), upload.size()), (State::Open, None));
    let id = upload.id();
    for error in [
        uploads.append(&alice(), id, 0, body(b"x")).await.unwrap_err(),
        uploads.set_size(&alice(), id, 3).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Forbidden);
    }
    let early = uploads.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Conflict);

    // The length alone was missing; whoever asks need not wait for the driver.
    uploads.set_size(&alice(), half, 3).await.unwrap();
    assert_eq!(state(&uploads, half).await, State::Open, "it does not seal itself");
    let upload = uploads.assemble(&alice(), id, None).await.unwrap();
    assert_eq!(upload.state(), State::Assembled);
    assert_eq!(content(&uploads, id).await, [&bytes(1, 100)[..], b"abc"].concat());
    nothing_else_is_left(&uploads, id).await;
}

#[tokio::test(start_paused = true)]
async fn unfinished_partials_are_waited_for() {
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let uploads = builder(MemoryBlobs::new())
        .expire_after(Duration::from_secs(600))
        .on_event(move |event| {
            log.lock().unwrap().push((event.upload_id(), event.kind()));
            async { Ok(()) }
        })
        .build()
        .await
        .unwrap();
    let first = partial(&uploads, &bytes(1, 222)).await;
    let (second, rest) = (bytes(2, 90), 30);
    let slow = uploads
        .create(&alice(), NewUpload::new("b").size(90).partial())
        .await
        .unwrap()
        .id();
    let id = uploads
        .concatenate(&alice(), NewUpload::new("a"), &[first, slow], true)
        .await
        .unwrap()
        .id();
    let mut from = 0;
    while from < second.len() {
        // Longer than it lives without activity, all in all: what is complete is kept for it.
        tokio::time::sleep(Duration::from_secs(500)).await;
        let upload = uploads.take_over(&alice(), id).await.unwrap();
        assert_eq!((upload.state(), upload.size()), (State::Open, Some(312)));
        uploads
            .append(&alice(), slow, from as u64, body(&second[from..from + rest]))
            .await
            .unwrap();
        from += rest;
    }
    assert_eq!(ended(&uploads, id).await.state(), State::Assembled);
    assert_eq!(content(&uploads, id).await, [bytes(1, 222), second].concat());
    tokio::time::sleep(Duration::from_secs(120)).await;
    nothing_else_is_left(&uploads, id).await;
    let heard = heard.lock().unwrap();
    for (upload, end) in [
        (first, EventKind::Deleted),
        (slow, EventKind::Deleted),
        (id, EventKind::Assembled),
    ] {
        let of_it: Vec<_> = heard
            .iter()
            .filter(|(of, _)| *of == upload)
            .map(|(_, kind)| *kind)
            .collect();
        assert_eq!(of_it, [EventKind::Created, end]);
    }
}

#[tokio::test(start_paused = true)]
async fn asking_for_it_joins_what_was_waited_for() {
    let uploads = builder(MemoryBlobs::new()).without_driver().build().await.unwrap();
    let slow = uploads
        .create(&alice(), NewUpload::new("b").size(3).partial())
        .await
        .unwrap()
        .id();
    let id = uploads
        .concatenate(&alice(), NewUpload::new("a"), &[slow], true)
        .await
        .unwrap()
        .id();
    uploads.append(&alice(), slow, 0, body(b"abc")).await.unwrap();
    uploads.take_over(&alice(), id).await.unwrap();
    assert_eq!(ended(&uploads, id).await.state(), State::Assembled);
    assert_eq!(content(&uploads, id).await, b"abc");
}

#[tokio::test(start_paused = true)]
async fn with_a_partial_that_ends_it_fails() {
    let uploads = builder(MemoryBlobs::new())
        .expire_after(Duration::from_secs(600))
        .build()
        .await
        .unwrap();
    for by_hand in [true, false] {
        let first = partial(&uploads, &bytes(1, 222)).await;
        let new = NewUpload::new("b").size(90).partial();
        let slow = uploads.create(&alice(), new).await.unwrap().id();
        let new = NewUpload::new("a").named();
        let upload = uploads
            .concatenate(&alice(), new.clone(), &[first, slow], true)
            .await
            .unwrap();
        let again = uploads
            .concatenate(&alice(), new.clone(), &[first, slow], true)
            .await
            .unwrap();
        assert_eq!((again.id(), again.is_new()), (upload.id(), false));
        let other = uploads
            .concatenate(&alice(), new, &[slow, first], true)
            .await
            .unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Conflict);
        if by_hand {
            uploads.abort(&alice(), slow).await.unwrap();
        }
        let failed = ended(&uploads, upload.id()).await;
        assert_eq!(failed.state(), State::Failed);
        let how = if by_hand { "aborted" } else { "expired" };
        assert!(failed.failure().unwrap().contains(how), "{:?}", failed.failure());
        assert_eq!(state(&uploads, first).await, State::Open, "the other one stays");
        tokio::time::sleep(Duration::from_secs(1300)).await;
        assert_eq!(state(&uploads, first).await, State::Expired);
    }
    uploads.sweep().await.unwrap();
    assert_eq!(uploads.inner.blobs.begun(Duration::ZERO).await.unwrap(), vec![]);
}

#[tokio::test(start_paused = true)]
async fn lost_bytes_make_it_fail() {
    let blobs = Arc::new(MemoryBlobs::new());
    let uploads = builder(Arc::clone(&blobs)).build().await.unwrap();
    let ids = [
        partial(&uploads, &bytes(1, 300)).await,
        partial(&uploads, &bytes(2, 300)).await,
    ];
    let record = uploads.load(ids[1], PartRange::NONE).await.unwrap().record;
    blobs.discard(&record.handle).await.unwrap();
    let failed = uploads
        .concatenate(&alice(), NewUpload::new("a"), &ids, false)
        .await
        .unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Failed);
    assert!(failed.message().contains("lost"), "{failed}");
    let all = uploads.list(&alice(), Page::new(0, 9)).await.unwrap();
    assert_eq!(all.iter().filter(|upload| upload.state() == State::Failed).count(), 1);
    assert_eq!(all.iter().filter(|upload| upload.state() == State::Open).count(), 2);
    assert!(all.iter().all(|upload| upload.state() != State::Assembled));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_one_leaves_its_partials_for_another() {
    let uploads = engine().await;
    let ids = [partial(&uploads, &bytes(1, 300)).await, partial(&uploads, b"").await];
    let slow = uploads
        .create(&alice(), NewUpload::new("b").size(3).partial())
        .await
        .unwrap()
        .id();
    let aborted = uploads
        .concatenate(&alice(), NewUpload::new("a"), &[ids[0], slow], true)
        .await
        .unwrap()
        .id();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(uploads.status(&alice(), aborted).await.unwrap().offset(), 300);
    uploads.abort(&alice(), aborted).await.unwrap();
    assert_eq!(state(&uploads, aborted).await, State::Aborted);
    uploads.abort(&alice(), slow).await.unwrap();
    let upload = uploads
        .concatenate(&alice(), NewUpload::new("a"), &ids, false)
        .await
        .unwrap();
    assert_eq!(content(&uploads, upload.id()).await, bytes(1, 300));
    uploads.delete(&alice(), upload.id()).await.unwrap();
    assert_eq!(uploads.inner.blobs.begun(Duration::ZERO).await.unwrap(), vec![]);
}

#[tokio::test(start_paused = true)]
async fn partials_live_on_from_when_they_are_named() {
    let uploads = builder(MemoryBlobs::new())
        .expire_after(Duration::from_secs(600))
        .build()
        .await
        .unwrap();
    let id = partial(&uploads, b"abc").await;
    let slow = uploads
        .create(&alice(), NewUpload::new("b").size(3).partial())
        .await
        .unwrap()
        .id();
    tokio::time::sleep(Duration::from_secs(590)).await;
    uploads
        .concatenate(&alice(), NewUpload::new("a"), &[id, slow], true)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(state(&uploads, slow).await, State::Open);
}

#[tokio::test(start_paused = true)]
async fn any_single_fault_of_the_blob_store_is_survived() {
    let run = async |plan: ScriptedFaults| {
        let plan = Arc::new(plan);
        let uploads = builder(FaultyBlobs::new(MemoryBlobs::new(), plan.clone()))
            .orphan_grace(Duration::ZERO)
            .configure(|config| {
                config.join_step = 100;
                config.lease = Duration::from_secs(20);
            })
            .build()
            .await
            .unwrap();
        let (first, second) = (bytes(1, 333), bytes(2, 120));
        let mut ids = Vec::new();
        for piece in [&first, &second] {
            let new = NewUpload::new("p").size(piece.len() as u64).partial();
            let id = uploads.create(&alice(), new).await.unwrap().id();
            while let Ok(at) = uploads.take_over(&alice(), id).await
                && at.offset() < piece.len() as u64
            {
                let rest = &piece[usize::try_from(at.offset()).unwrap()..];
                let _ = uploads.append(&alice(), id, at.offset(), body(rest)).await;
            }
            ids.push(id);
        }
        let calls = plan.calls().len();
        let (patience, alice) = (Duration::from_secs(100), alice());
        let join = uploads.concatenate(&alice, NewUpload::new("a"), &ids, false);
        let _ = tokio::time::timeout(patience, join).await;
        let all = uploads.list(&alice, Page::new(0, 9)).await.unwrap();
        let id = match all.iter().find(|upload| upload.concat() != Some(&Concat::Partial)) {
            Some(upload) => upload.id(),
            // Its creation failed: it is asked for again.
            None => uploads
                .concatenate(&alice, NewUpload::new("a"), &ids, false)
                .await
                .unwrap()
                .id(),
        };
        assert_eq!(
            ended(&uploads, id).await.state(),
            State::Assembled,
            "{:?}",
            plan.calls()
        );
        tokio::time::sleep(Duration::from_secs(1000)).await;
        let calls = (calls, plan.calls());
        assert_eq!(content(&uploads, id).await, [first, second].concat());
        nothing_else_is_left(&uploads, id).await;
        calls
    };
    let (from, calls) = run(ScriptedFaults::new()).await;
    let joins = calls.iter().filter(|call| **call == Call::Join).count();
    assert!(joins > 4, "{joins}");
    let mut faults = 0;
    for k in from..calls.len() {
        let late = Fault::LateApply(Duration::from_secs(7));
        for fault in [Fault::FailBefore, Fault::FailAfter, late] {
            run(ScriptedFaults::new().nth(k, fault)).await;
            faults += 1;
        }
    }
    println!("{faults} faults");
}

#[tokio::test(start_paused = true)]
async fn the_driver_ends_what_an_assembled_one_was_made_of() {
    let uploads = builder(MemoryBlobs::new())
        .remember_assembled(Duration::from_secs(100))
        .build()
        .await
        .unwrap();
    let id = partial(&uploads, b"abc").await;
    let upload = uploads
        .concatenate(&alice(), NewUpload::new("a"), &[id], false)
        .await
        .unwrap();
    // As if the process had died after the publication.
    let other = partial(&uploads, b"abcd").await;
    let mut record = uploads.load(upload.id(), PartRange::NONE).await.unwrap().record;
    assert!(!record.staged);
    record.staged = true;
    record.concat = Some(Concat::Final(vec![id, other]));
    let wake = uploads.end_wake(&record);
    assert_ne!(wake, Wake::Never);
    uploads.update(&record, PartsEdit::Keep, wake).await.unwrap().unwrap();
    assert_eq!(state(&uploads, other).await, State::Open);
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(state(&uploads, other).await, State::Deleted);
    assert_eq!(state(&uploads, upload.id()).await, State::Assembled);
    tokio::time::sleep(Duration::from_secs(102)).await;
    let gone = uploads.status(&alice(), upload.id()).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn processes_that_share_their_stores_do_not_stop_each_other() {
    let (blobs, metadata) = (
        Arc::new(MemoryBlobs::new()),
        Arc::new(MemoryMetadata::with_clock(Arc::new(Virtual(
            tokio::time::Instant::now(),
        )))),
    );
    let plan = Arc::new(Calls::default());
    let process = async || {
        Uploads::with(
            FaultyBlobs::new(blobs.clone(), Arc::new(plan.clone())),
            metadata.clone(),
        )
        .authorizer(OwnerOnly)
        .checkpoint(40)
        .configure(|config| {
            config.join_step = 100;
            config.lease = Duration::from_secs(20);
        })
        .build()
        .await
        .unwrap()
    };
    let (one, other) = (process().await, process().await);
    let (first, second) = (bytes(1, 800), bytes(2, 80));
    let ids = [partial(&one, &first).await];
    let id = one
        .concatenate(&alice(), NewUpload::new("a"), &ids, true)
        .await
        .unwrap()
        .id();
    assert_eq!(state(&one, id).await, State::Assembled);
    assert_eq!(plan.joins(), 10, "80 bytes a step");

    // It takes longer than a lease, and clients ask the other process all the time.
    let ids = [partial(&one, &first).await, partial(&one, &second).await];
    let (joining, list) = (one.clone(), ids);
    let join = tokio::spawn(async move { joining.concatenate(&alice(), NewUpload::new("a"), &list, false).await });
    while !join.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for upload in other.list(&alice(), Page::new(0, 9)).await.unwrap() {
            if !upload.record().is_partial() {
                other.take_over(&alice(), upload.id()).await.unwrap();
            }
        }
    }
    let upload = join.await.unwrap().unwrap();
    assert_eq!(upload.state(), State::Assembled);
    assert_eq!(plan.joins(), 10 + 11, "none was done in vain");
    assert_eq!(content(&other, upload.id()).await, [first, second].concat());

    // The one that is at it dies: the other goes on once the lease is over.
    let ids = [partial(&one, &bytes(3, 800)).await];
    let alice = alice();
    let join = one.concatenate(&alice, NewUpload::new("a"), &ids, false);
    assert!(tokio::time::timeout(Duration::from_secs(12), join).await.is_err());
    one.shutdown(Duration::ZERO).await;
    let all = other.list(&alice, Page::new(0, 1)).await.unwrap();
    assert_eq!(ended(&other, all[0].id()).await.state(), State::Assembled);
    assert_eq!(content(&other, all[0].id()).await, bytes(3, 800));
}

/// Each join takes five seconds, and is counted.
#[derive(Debug, Default)]
struct Calls(std::sync::atomic::AtomicUsize);

impl Calls {
    fn joins(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl crate::conformance::fault::Faults for Arc<Calls> {
    fn next(&self, call: Call) -> Fault {
        if call != Call::Join {
            return Fault::None;
        }
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Fault::Delay(Duration::from_secs(5))
    }
}

#[tokio::test]
async fn many_small_ones_make_one() {
    let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .build()
        .await
        .unwrap();
    let pieces: Vec<Vec<u8>> = (0..60).map(|who| bytes(who, usize::from(who) * 11)).collect();
    let ids: Vec<UploadId> = stream::iter(&pieces)
        .map(async |piece| partial(&uploads, piece).await)
        .buffered(8)
        .collect()
        .await;
    let (joining, list) = (uploads.clone(), ids);
    // As a server asks.
    let join = async move { joining.concatenate(&alice(), NewUpload::new("a"), &list, false).await };
    let upload = tokio::spawn(join).await.unwrap().unwrap();
    assert_eq!(content(&uploads, upload.id()).await, pieces.concat());
    nothing_else_is_left(&uploads, upload.id()).await;
}

/// A concatenation that is dropped at any await is done by the driver, or not at all.
#[cfg(feature = "disk")]
#[tokio::test(start_paused = true)]
async fn a_concatenation_can_be_dropped_at_every_await() {
    use crate::{
        blob::disk::{DiskOptions, sim::SimFs, store::Disk},
        conformance::fault::FaultyMetadata,
    };
    let (mut at, mut begun) = (0, 0);
    loop {
        let fs = SimFs::new(7);
        fs.set_latency(Duration::from_millis(1));
        let disk = Disk::on(fs.clone(), &DiskOptions::default()).await.unwrap();
        let metadata = MemoryMetadata::with_clock(Arc::new(Virtual(tokio::time::Instant::now())));
        let slow = |_: Call| Fault::Delay(Duration::from_millis(1));
        let uploads = Uploads::with(disk, FaultyMetadata::new(metadata, Arc::new(slow)))
            .authorizer(OwnerOnly)
            .checkpoint(40)
            .orphan_grace(Duration::ZERO)
            .configure(|config| config.join_step = 50)
            .build()
            .await
            .unwrap();
        let pieces = [bytes(1, 100), bytes(2, 30)];
        let ids = [partial(&uploads, &pieces[0]).await, partial(&uploads, &pieces[1]).await];
        let alice = alice();
        let join = uploads.concatenate(&alice, NewUpload::new("a"), &ids, false);
        let mut join = Box::pin(join);
        let mut left = at;
        let done = std::future::poll_fn(|context| match join.as_mut().poll(context) {
            std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
            std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
            std::task::Poll::Pending => {
                left -= 1;
                std::task::Poll::Pending
            }
        })
        .await;
        drop(join);
        if done.is_none() {
            tokio::time::sleep(Duration::from_secs(200)).await;
        }
        let all = uploads.list(&alice, Page::new(0, 9)).await.unwrap();
        let id = match all.iter().find(|upload| !upload.record().is_partial()) {
            Some(upload) => {
                begun += 1;
                upload.id()
            }
            None => uploads
                .concatenate(&alice, NewUpload::new("a"), &ids, false)
                .await
                .unwrap()
                .id(),
        };
        assert_eq!(state(&uploads, id).await, State::Assembled, "dropped at await {at}");
        assert_eq!(content(&uploads, id).await, pieces.concat());
        nothing_else_is_left(&uploads, id).await;
        assert_eq!(fs.paths().len(), 1, "dropped at await {at}: {:?}", fs.paths());
        uploads.shutdown(Duration::from_secs(1)).await;
        if matches!(done, Some(done) if done.is_ok()) {
            break;
        }
        at += 1;
    }
    assert!(at > 5 && begun > 2, "{at} {begun}");
}

#[cfg(all(feature = "disk", feature = "redb"))]
mod restarted {
    use super::*;
    use crate::{blob::DiskBlobs, metadata::RedbMetadata};

    async fn open(root: &std::path::Path, plan: Arc<ScriptedFaults>) -> Uploads {
        let blobs = DiskBlobs::open(root).await.unwrap();
        let metadata = RedbMetadata::open(root.join("metadata.redb")).await.unwrap();
        Uploads::with(FaultyBlobs::new(blobs, plan), metadata)
            .authorizer(OwnerOnly)
            .checkpoint(5_000)
            .configure(|config| {
                config.join_step = 20_000;
                config.lease = Duration::from_millis(300);
                config.tick = Duration::from_millis(20);
            })
            .build()
            .await
            .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_join_that_was_cut_off_goes_on_where_it_was() {
        // A step never answers, and the process ends.
        for (step, fault) in [(0, Fault::HangAfter), (2, Fault::Hang), (5, Fault::HangAfter)] {
            let root = tempfile::tempdir().unwrap();
            let plan = Arc::new(ScriptedFaults::new().on(Call::Join, step, fault));
            let uploads = open(root.path(), plan.clone()).await;
            let pieces = [bytes(1, 70_001), bytes(2, 30_000)];
            let ids = [partial(&uploads, &pieces[0]).await, partial(&uploads, &pieces[1]).await];
            let alice = alice();
            let join = uploads.concatenate(&alice, NewUpload::new("a"), &ids, false);
            let seen = plan.clone();
            let hangs = async move {
                while seen.calls().iter().filter(|call| **call == Call::Join).count() <= step {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                biased;
                ended = join => panic!("{ended:?}"),
                () = hangs => {}
            }
            let all = uploads.list(&alice, Page::new(0, 9)).await.unwrap();
            let id = all.iter().find(|upload| !upload.record().is_partial()).unwrap().id();
            let before = uploads.status(&alice, id).await.unwrap();
            assert_eq!(before.tally().parts as usize, step, "{before:?}");
            uploads.shutdown(Duration::from_secs(5)).await;
            drop(uploads);

            let plan = Arc::new(ScriptedFaults::new());
            let uploads = open(root.path(), plan.clone()).await;
            for _ in 0..500 {
                if state(&uploads, id).await.is_final() && state(&uploads, ids[1]).await.is_final() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(content(&uploads, id).await, pieces.concat());
            let joins = plan.calls().iter().filter(|call| **call == Call::Join).count();
            assert_eq!(joins, 6 - step, "what is committed is not joined again");
            nothing_else_is_left(&uploads, id).await;
            uploads.shutdown(Duration::from_secs(5)).await;
        }
    }
}
