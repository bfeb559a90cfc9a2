//! Files that hooks make of a blob lie in a folder of the upload's own, are read as the upload is, and go with it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use tower_upload::{
    Builder, Caller, Clock, ErrorKind, Event, EventKind, Hook, NewUpload, Ready, Upload, Uploads,
    access::OwnerOnly,
    blob::{BlobStore, ByteRange, MemoryBlobs},
    conformance::fault::{Call, Fault, FaultyBlobs},
    hook::Telling,
    metadata::MemoryMetadata,
    upload::{Key, State, Target, Timestamp, UploadId},
};

#[derive(Debug)]
struct Paused(tokio::time::Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000).after(self.0.elapsed())
    }
}

/// Both stores, which processes share.
#[derive(Clone)]
struct Stores {
    blobs: Arc<MemoryBlobs>,
    metadata: Arc<MemoryMetadata>,
}

impl Stores {
    fn new() -> Self {
        let clock = Paused(tokio::time::Instant::now());
        Self {
            blobs: Arc::new(MemoryBlobs::new()),
            metadata: Arc::new(MemoryMetadata::with_clock(Arc::new(clock))),
        }
    }

    fn builder(&self) -> Builder<Ready> {
        Uploads::with(self.blobs.clone(), self.metadata.clone()).authorizer(OwnerOnly)
    }
}

fn alice() -> Caller {
    Caller::new("alice")
}

const BLOB: u64 = 3;

async fn finished(uploads: &Uploads, target: Option<&str>) -> Upload {
    let mut new = NewUpload::new("a").size(BLOB);
    if let Some(target) = target {
        new = new.target(Target::parse(target).unwrap());
    }
    let up = uploads.create(&alice(), new).await.unwrap();
    let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
    uploads.append(&alice(), up.id(), 0, body).await.unwrap();
    uploads.assemble(&alice(), up.id(), None).await.unwrap()
}

async fn read(uploads: &Uploads, who: &Caller, id: UploadId, name: &str) -> Result<Vec<u8>, ErrorKind> {
    let (blob, body) = uploads
        .read_derived(who, id, name, ByteRange::ALL)
        .await
        .map_err(|error| error.kind())?;
    let bytes: Vec<Bytes> = body.try_collect().await.unwrap();
    assert_eq!(blob.size, bytes.concat().len() as u64);
    Ok(bytes.concat())
}

/// An id as a segment of a key, which begins with no dash.
fn segment(id: UploadId) -> String {
    Key::segment(&id.to_string())
}

/// How the hook goes on once it has put its first files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Ends,
    /// Puts more until the upload has ended.
    PutsUntilEnded,
    /// Puts more, and looks at nothing, until it is refused; then takes its time.
    PutsUntilRefused,
    /// Does nothing more.
    Hangs,
}

struct Makes {
    then: Then,
    put: Arc<AtomicUsize>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Makes {
    fn new(then: Then) -> (Self, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>) {
        let (put, log) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let hook = Self {
            then,
            put: put.clone(),
            log: log.clone(),
        };
        (hook, put, log)
    }

    async fn put(&self, telling: &Telling, name: &str) -> tower_upload::Result<()> {
        telling.put(name, Bytes::from(name.to_owned())).await?;
        self.put.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[async_trait]
impl Hook for Makes {
    fn name(&self) -> &str {
        "makes"
    }
    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Assembled
    }
    fn works(&self) -> bool {
        true
    }
    fn time_limit(&self) -> Duration {
        Duration::from_secs(36_000)
    }
    async fn on_event(&self, _: &Event, telling: &Telling) -> tower_upload::Result<()> {
        let say = |text: String| self.log.lock().unwrap().push(text);
        let first = async {
            self.put(telling, "master.m3u8").await?;
            self.put(telling, "720p/0.m4s").await?;
            self.put(telling, "old/deep/0.m4s").await?;
            telling.clear("old").await
        };
        if let Err(error) = first.await {
            say(format!("refused: {:?}", error.kind()));
            return Ok(());
        }
        let more = async {
            for number in 0.. {
                tokio::time::sleep(Duration::from_millis(300)).await;
                if let Err(error) = self.put(telling, &format!("480p/{number}.m4s")).await {
                    say(format!("refused: {:?}", error.kind()));
                    return;
                }
            }
        };
        match self.then {
            Then::Ends => {}
            Then::Hangs => std::future::pending().await,
            Then::PutsUntilEnded => tokio::select! {
                biased;
                () = telling.ended() => say("ended".into()),
                () = more => {}
            },
            Then::PutsUntilRefused => {
                more.await;
                tokio::time::sleep(Duration::from_secs(200)).await;
                say("done".into());
            }
        }
        Ok(())
    }
}

async fn state(uploads: &Uploads, id: UploadId) -> State {
    uploads.status(&alice(), id).await.unwrap().state()
}

#[tokio::test(start_paused = true)]
async fn they_are_read_as_the_upload_is_and_go_with_it() {
    let stores = Stores::new();
    let uploads = stores.builder().hook(Makes::new(Then::Ends).0).build().await.unwrap();
    let up = finished(&uploads, Some("../my film")).await;
    let id = up.id();
    assert_eq!(
        read(&uploads, &alice(), id, "master.m3u8").await,
        Err(ErrorKind::NotFound),
        "nothing was made yet"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let record = uploads.status(&alice(), id).await.unwrap();
    let folder = record.record().derived.clone().unwrap();
    assert_eq!(folder.as_str(), format!("videos/hls/_.._my_film/{}", segment(id)));

    assert_eq!(read(&uploads, &alice(), id, "720p/0.m4s").await.unwrap(), b"720p/0.m4s");
    let (blob, body) = uploads
        .read_derived(&alice(), id, "master.m3u8", ByteRange::new(1, Some(4)))
        .await
        .unwrap();
    assert_eq!(blob.size, 11, "of the whole");
    assert_eq!(body.try_collect::<Vec<_>>().await.unwrap().concat(), b"ast");
    for (who, name, kind) in [
        (Caller::new("mallory"), "master.m3u8", ErrorKind::NotFound),
        (Caller::anonymous(), "master.m3u8", ErrorKind::Unauthenticated),
        (alice(), "old/deep/0.m4s", ErrorKind::NotFound),
        (alice(), "720p", ErrorKind::NotFound),
        (alice(), "../../../originals/x", ErrorKind::Invalid),
        (alice(), "/master.m3u8", ErrorKind::Invalid),
        (alice(), "", ErrorKind::Invalid),
    ] {
        assert_eq!(read(&uploads, &who, id, name).await, Err(kind), "{name}");
    }

    uploads.delete(&alice(), id).await.unwrap();
    assert_eq!(read(&uploads, &alice(), id, "master.m3u8").await, Err(ErrorKind::Gone));
    assert_eq!(stores.blobs.used(), 0, "nothing was at work, so it went at once");
}

#[tokio::test(start_paused = true)]
async fn without_a_target_the_folder_is_the_uploads_own_all_the_same() {
    let stores = Stores::new();
    let builder = stores.builder().derived_prefix("made/here");
    let uploads = builder.hook(Makes::new(Then::Ends).0).build().await.unwrap();
    let (one, other) = (finished(&uploads, None).await, finished(&uploads, Some("t")).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    uploads.delete(&alice(), one.id()).await.unwrap();
    let record = uploads.status(&alice(), one.id()).await.unwrap();
    assert_eq!(
        record.record().derived.as_ref().unwrap().as_str(),
        format!("made/here/{}", segment(one.id()))
    );
    assert!(read(&uploads, &alice(), other.id(), "master.m3u8").await.is_ok());
    for bad in ["", "a//b", "../x", &"x/".repeat(400)] {
        let built = stores.builder().derived_prefix(bad).build().await;
        assert_eq!(built.unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_at_work_learns_of_the_deletion_and_then_all_is_gone() {
    let stores = Stores::new();
    let (hook, put, log) = Makes::new(Then::PutsUntilEnded);
    let uploads = stores.builder().hook(hook).build().await.unwrap();
    let id = finished(&uploads, None).await.id();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = put.load(Ordering::SeqCst);
    assert!(before > 20, "{before}");
    uploads.delete(&alice(), id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*log.lock().unwrap(), ["ended"]);
    assert!(put.load(Ordering::SeqCst) <= before + 3);
    assert_eq!(stores.blobs.used(), 0);
    assert_eq!(state(&uploads, id).await, State::Deleted);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_cleared_under_a_hook_that_goes_on_and_nothing_more_is_put() {
    let stores = Stores::new();
    let (hook, _, log) = Makes::new(Then::PutsUntilRefused);
    let uploads = stores.builder().hook(hook).build().await.unwrap();
    let id = finished(&uploads, None).await.id();
    tokio::time::sleep(Duration::from_secs(10)).await;
    uploads.delete(&alice(), id).await.unwrap();
    let left = stores.blobs.used();
    assert!(left > 0);
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(*log.lock().unwrap(), ["refused: Gone"]);
    assert_eq!(stores.blobs.used(), left, "the hook has not come to its end");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*log.lock().unwrap(), ["refused: Gone", "done"]);
    assert_eq!(stores.blobs.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_process_that_is_gone_had_put_is_cleared_by_another() {
    let stores = Stores::new();
    let (hook, put, _) = Makes::new(Then::Hangs);
    let first = stores.builder().hook(hook).build().await.unwrap();
    let id = finished(&first, None).await.id();
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.shutdown(Duration::ZERO).await;
    assert_eq!(put.load(Ordering::SeqCst), 3);

    let (hook, put, log) = Makes::new(Then::Ends);
    let second = stores.builder().hook(hook).build().await.unwrap();
    second.delete(&alice(), id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(*log.lock().unwrap(), ["refused: Gone"]);
    assert_eq!(put.load(Ordering::SeqCst), 0);
    assert_eq!(stores.blobs.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn clearing_is_tried_until_it_succeeds() {
    let stores = Stores::new();
    let failed = Arc::new(AtomicUsize::new(0));
    let faults = {
        let failed = failed.clone();
        Arc::new(move |call: Call| match call {
            // The first is that of the hook itself.
            Call::Clear if (1..4).contains(&failed.fetch_add(1, Ordering::SeqCst)) => Fault::FailBefore,
            _ => Fault::None,
        })
    };
    let blobs = FaultyBlobs::new(stores.blobs.clone(), faults);
    let builder = Uploads::with(blobs, stores.metadata.clone()).authorizer(OwnerOnly);
    let uploads = builder.hook(Makes::new(Then::Ends).0).build().await.unwrap();
    let id = finished(&uploads, None).await.id();
    tokio::time::sleep(Duration::from_secs(1)).await;
    uploads.delete(&alice(), id).await.unwrap();
    assert!(stores.blobs.used() > 0);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(failed.load(Ordering::SeqCst) >= 5);
    assert_eq!(stores.blobs.used(), 0);
    // Long after, the record goes too.
    tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
    let gone = uploads.status(&alice(), id).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn what_came_too_late_goes_when_the_record_is_forgotten() {
    let stores = Stores::new();
    let uploads = stores.builder().hook(Makes::new(Then::Ends).0).build().await.unwrap();
    let up = finished(&uploads, None).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    uploads.delete(&alice(), up.id()).await.unwrap();
    let record = uploads.status(&alice(), up.id()).await.unwrap();
    let folder = record.record().derived.clone().unwrap();
    // A process that stood still and knows of nothing.
    let late = Key::parse(&format!("{folder}/480p/late.m4s")).unwrap();
    stores.blobs.put(&late, Bytes::from_static(b"late")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
    assert_eq!(stores.blobs.used(), 0);
}
