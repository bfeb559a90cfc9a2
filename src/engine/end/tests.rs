#![allow(clippy::unwrap_used)]

use std::{
    collections::HashSet,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use crate::{
    Caller, Clock, Error, EventKind, NewUpload, State, Uploads,
    access::OwnerOnly,
    blob::{BlobBody, BlobStore, ByteRange, Completed, Limits, MemoryBlobs, PartWriter, Slot},
    conformance::fault::{Call, Fault, FaultyBlobs},
    engine::{Builder, Ready},
    error::Result,
    metadata::MemoryMetadata,
    upload::{Blob, Handle, Key, Part, Plan, Timestamp, UploadId, Wake},
};

const LEASE: Duration = Duration::from_secs(20);

/// Goes by tokio's clock, which tests turn on.
#[derive(Debug)]
struct Virtual(tokio::time::Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000).after(self.0.elapsed())
    }
}

/// What several nodes share. Nothing is driven but by the tests.
struct Shared {
    blobs: Arc<MemoryBlobs>,
    metadata: Arc<MemoryMetadata>,
}

impl Shared {
    fn new() -> Self {
        let clock = Arc::new(Virtual(tokio::time::Instant::now()));
        Self {
            blobs: Arc::new(MemoryBlobs::new()),
            metadata: Arc::new(MemoryMetadata::with_clock(clock)),
        }
    }

    fn builder(&self, faults: impl Fn(Call) -> Fault + Send + Sync + 'static) -> Builder<Ready> {
        let blobs = FaultyBlobs::new(Arc::clone(&self.blobs), Arc::new(faults));
        Uploads::with(blobs, Arc::clone(&self.metadata))
            .authorizer(OwnerOnly)
            .lease(LEASE)
            .without_driver()
    }

    async fn node(&self, faults: impl Fn(Call) -> Fault + Send + Sync + 'static) -> Uploads {
        self.builder(faults).build().await.unwrap()
    }
}

/// This call of this kind takes so long, all others nothing.
fn slow_once(slow: Call, nth: usize, wait: u64) -> impl Fn(Call) -> Fault + Send + Sync {
    let calls = AtomicUsize::new(0);
    move |call| match call == slow && calls.fetch_add(1, Ordering::SeqCst) == nth {
        true => Fault::Delay(Duration::from_secs(wait)),
        false => Fault::None,
    }
}

fn alice() -> Caller {
    Caller::new("alice")
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A small upload, published under this very key.
async fn publish(uploads: &Uploads, key: &str) -> UploadId {
    let new = NewUpload::new("a").size(3).key(Key::parse(key).unwrap());
    let up = uploads.create(&alice(), new).await.unwrap();
    assert_eq!(up.key().as_str(), key, "the key is free");
    let body = stream::iter([Ok::<_, Error>(Bytes::from_static(b"abc"))]);
    uploads.append(&alice(), up.id(), 0, body).await.unwrap();
    uploads.assemble(&alice(), up.id(), None).await.unwrap();
    up.id()
}

async fn must_be_there(uploads: &Uploads, id: UploadId) {
    let (_, body) = uploads
        .read(&alice(), id, ByteRange::ALL)
        .await
        .expect("what was acknowledged is there");
    assert_eq!(body.try_collect::<Vec<_>>().await.unwrap().concat(), b"abc");
}

/// Deletes an upload on `first`, where it takes long; after so many seconds `other` cleans up, and the key is used again.
async fn delete_and_use_again(first: &Uploads, other: &Uploads, wait: u64) {
    let old = publish(first, "film").await;
    let deleting = tokio::spawn({
        let first = first.clone();
        async move { first.delete(&alice(), old).await }
    });
    seconds(wait).await;
    other.drive().await.unwrap();
    assert!(
        !other.status(&alice(), old).await.unwrap().record().key_held,
        "it is released"
    );
    let new = publish(other, "film").await;
    deleting.await.unwrap().unwrap();
    seconds(100).await;
    must_be_there(other, new).await;
    assert_eq!(first.drive().await.unwrap(), 0, "nothing is left to be done");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_past_its_lease_deletes_no_later_blob() {
    // What the store tries again and again comes through in the end; and an assembly clears up after itself, too.
    for (call, skipped) in [(Call::Delete, 0), (Call::Discard, 1)] {
        for alone in [true, false] {
            let shared = Shared::new();
            let first = shared.node(slow_once(call, skipped, 30)).await;
            let other = if alone {
                first.clone()
            } else {
                shared.node(|_| Fault::None).await
            };
            delete_and_use_again(&first, &other, 25).await;
        }
    }
}

/// Hooks are told meanwhile, fail, and are told again soon: nobody who comes by for that cleans, too.
#[tokio::test(start_paused = true)]
async fn what_is_told_during_a_deletion_lets_no_second_one_in() {
    let shared = Shared::new();
    let told = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&told);
    let began = tokio::time::Instant::now();
    let slow = slow_once(Call::Delete, 0, 9);
    let builder = shared.builder(slow).on_event(move |event| {
        let heard = Arc::clone(&heard);
        async move {
            if event.kind() != EventKind::Deleted {
                return Ok(());
            }
            heard.fetch_max(began.elapsed().as_secs() + 1, Ordering::SeqCst);
            Err(Error::unavailable("not heard"))
        }
    });
    let uploads = builder.build().await.unwrap();
    let old = publish(&uploads, "film").await;
    let deleting = tokio::spawn({
        let uploads = uploads.clone();
        async move { uploads.delete(&alice(), old).await }
    });
    for _ in 0..8 {
        seconds(1).await;
        uploads.drive().await.unwrap();
        let now = uploads.status(&alice(), old).await.unwrap();
        assert!(now.record().key_held, "the blob is not deleted yet");
        assert_eq!(told.load(Ordering::SeqCst), 1, "hooks are told at once");
    }
    deleting.await.unwrap().unwrap();
    let new = publish(&uploads, "film").await;
    seconds(100).await;
    must_be_there(&uploads, new).await;
    uploads.drive().await.unwrap();
    seconds(1).await;
    assert!(told.load(Ordering::SeqCst) > 100, "and again once it is done");
}

/// A process that dies while it deletes leaves the key taken, for no longer than its lease.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_broke_off_is_finished_by_another() {
    let shared = Shared::new();
    let hangs = |call| if call == Call::Delete { Fault::Hang } else { Fault::None };
    let (first, other) = (shared.node(hangs).await, shared.node(|_| Fault::None).await);
    let old = publish(&first, "film").await;
    let deleting = tokio::spawn(async move { first.delete(&alice(), old).await });
    seconds(1).await;
    deleting.abort();
    other.drive().await.unwrap();
    assert!(other.status(&alice(), old).await.unwrap().record().key_held);
    seconds(LEASE.as_secs()).await;
    other.drive().await.unwrap();
    let record = other.status(&alice(), old).await.unwrap().record().clone();
    assert_eq!((record.key_held, record.cleaner), (false, None));
    publish(&other, "film").await;
}

/// The driver takes many at once and works on a few: none is begun when its lease is over.
#[tokio::test(start_paused = true)]
async fn what_the_driver_took_long_ago_it_does_not_begin() {
    let shared = Shared::new();
    let refused = shared
        .node(|call| {
            if call == Call::Delete {
                Fault::FailBefore
            } else {
                Fault::None
            }
        })
        .await;
    let mut old = Vec::new();
    for number in 0..20 {
        let id = publish(&refused, &format!("film-{number}")).await;
        refused.delete(&alice(), id).await.unwrap();
        old.push(id);
    }
    let seen = Arc::new(Hangs::default());
    let slow = Uploads::with(Arc::clone(&seen) as Arc<dyn BlobStore>, Arc::clone(&shared.metadata))
        .authorizer(OwnerOnly)
        .lease(LEASE)
        .without_driver()
        .build()
        .await
        .unwrap();
    // Those that hang do not keep the others from being begun the next time.
    for begun in [8, 16, 20] {
        seconds(LEASE.as_secs()).await;
        let began = tokio::time::Instant::now();
        assert_eq!(slow.drive().await.unwrap(), 20);
        assert_eq!(began.elapsed(), LEASE);
        assert_eq!(seen.0.lock().unwrap().len(), begun);
    }
    let other = shared.node(|_| Fault::None).await;
    seconds(LEASE.as_secs()).await;
    assert_eq!(other.drive().await.unwrap(), 20);
    for id in old {
        let upload = other.status(&alice(), id).await.unwrap();
        assert_eq!((upload.state(), upload.record().key_held), (State::Deleted, false));
    }
}

/// A store that notes what it is to remove, and never does.
#[derive(Debug, Default)]
struct Hangs(Mutex<HashSet<String>>);

#[async_trait]
impl BlobStore for Hangs {
    fn limits(&self) -> Limits {
        Limits::UNBOUNDED
    }
    async fn begin(&self, _: UploadId, _: &Key, _: &Plan) -> Result<Handle> {
        pending().await
    }
    async fn open(&self, _: &Handle, _: Slot) -> Result<Box<dyn PartWriter>> {
        pending().await
    }
    async fn read_parts(&self, _: &Handle, _: &[Part]) -> Result<Option<BlobBody>> {
        pending().await
    }
    async fn complete(&self, _: &Handle, _: &Key, _: &[Part]) -> Result<Completed> {
        pending().await
    }
    async fn discard(&self, handle: &Handle) -> Result<()> {
        self.0.lock().unwrap().insert(handle.as_str().to_owned());
        pending().await
    }
    async fn begun(&self, _: Duration) -> Result<Vec<(UploadId, Handle)>> {
        pending().await
    }
    async fn head(&self, _: &Key) -> Result<Option<Blob>> {
        pending().await
    }
    async fn read(&self, _: &Key, _: ByteRange) -> Result<BlobBody> {
        pending().await
    }
    async fn delete(&self, _: &Key) -> Result<()> {
        pending().await
    }
}

/// Whatever is told or edited while a blob is deleted, nobody comes by earlier for it.
#[tokio::test(start_paused = true)]
async fn no_change_shortens_the_lease_of_a_deletion() {
    let uploads = Shared::new().node(|_| Fault::None).await;
    let id = publish(&uploads, "film").await;
    let mut record = uploads.status(&alice(), id).await.unwrap().record().clone();
    record.state = State::Deleted;
    for derived in [None, Some(Key::parse("hls").unwrap())] {
        for waits in [false, true] {
            record.derived.clone_from(&derived);
            if waits {
                record.push_event(EventKind::Deleted, vec!["hook".into()]);
            } else {
                record.outbox.clear();
            }
            record.cleaner = None;
            assert_ne!(uploads.end_wake(&record), Wake::Keep);
            record.cleaner = Some(record.version);
            assert_eq!(uploads.end_wake(&record), Wake::Keep);
            assert_eq!(uploads.told_wake(&record), Wake::Keep);
        }
    }
}
