//! The sink in the blob store, without any ffmpeg: files that are as they should not be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::{sync::mpsc, time::Instant};

use super::*;
use crate::{
    Caller, Clock, ErrorKind, Event, EventKind, Hook, NewUpload, UploadId, Uploads,
    access::OwnerOnly,
    blob::{ByteRange, MemoryBlobs},
    conformance::fault::{Call, Fault, FaultyBlobs, FaultyMetadata},
    hook::{Telling, ffmpeg::store::Stored},
    metadata::MemoryMetadata,
    upload::{Outcome as HookOutcome, Timestamp},
};

/// Gives away what it is told with, and works until it is dropped.
struct Lends(mpsc::UnboundedSender<Telling>);

#[async_trait]
impl Hook for Lends {
    fn name(&self) -> &str {
        FfmpegHls::NAME
    }

    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Assembled
    }

    fn works(&self) -> bool {
        true
    }

    async fn on_event(&self, _: &Event, telling: &Telling) -> Result<()> {
        self.0.send(telling.clone()).unwrap();
        std::future::pending().await
    }
}

/// Stores, and an upload that the hook was told of.
struct Told {
    blobs: Arc<MemoryBlobs>,
    telling: Telling,
    _uploads: Uploads,
}

async fn told() -> Told {
    let (send, mut tellings) = mpsc::unbounded_channel();
    let blobs = Arc::new(MemoryBlobs::new());
    let uploads = Uploads::with(Arc::clone(&blobs), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .hook(Lends(send))
        .build()
        .await
        .unwrap();
    let alice = Caller::new("alice");
    let id = uploads
        .create(&alice, NewUpload::new("film.mp4").size(3))
        .await
        .unwrap()
        .id();
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
    uploads.append(&alice, id, 0, body).await.unwrap();
    uploads.assemble(&alice, id, None).await.unwrap();
    Told {
        blobs,
        telling: tellings.recv().await.unwrap(),
        _uploads: uploads,
    }
}

fn file<'a>(name: &'a str, path: &'a Path) -> OutputFile<'a> {
    OutputFile {
        name,
        content_type: content_type(name),
        path,
        size: fs::metadata(path).unwrap().len(),
    }
}

#[tokio::test]
async fn a_file_too_large_to_be_held_in_memory_is_not_read() {
    let told = told().await;
    let stored = Stored::new(told.telling.clone(), 1 << 20).await.unwrap();
    let bench = Bench::new();
    let path = bench.path("00000.m4s");
    fs::File::create(&path).unwrap().set_len((1 << 20) + 1).unwrap();
    let error = stored.put(file("720p/00000.m4s", &path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    stored.put(file("720p/00000.m4s", &path)).await.unwrap();
    assert_eq!(told.blobs.used(), 3 + (1 << 20));
}

impl Told {
    async fn interrupted(&self) -> u32 {
        let record = self.telling.record().await.unwrap().unwrap();
        record.deliveries[FfmpegHls::NAME].interrupted
    }
}

#[tokio::test]
async fn it_counts_as_at_work_once_its_turn_has_come_and_until_a_rendition_is_finished() {
    let told = told().await;
    assert_eq!(told.interrupted().await, 1, "it was begun");
    let stored = Stored::new(told.telling.clone(), 1 << 20).await.unwrap();
    assert_eq!(
        told.interrupted().await,
        0,
        "it waits, while another may be what ends the process"
    );
    stored.renditions().await.unwrap();
    assert_eq!(told.interrupted().await, 1);
    let bench = Bench::new();
    let path = bench.path("any");
    fs::write(&path, "any").unwrap();
    stored.put(file("720p/00000.m4s", &path)).await.unwrap();
    assert_eq!(told.interrupted().await, 1, "nothing is spared the next one yet");
    stored.finished(&rendition("720p")).await.unwrap();
    assert_eq!(told.interrupted().await, 0);
}

fn rendition(name: &str) -> Rendition {
    Rendition {
        name: name.to_owned(),
        resolution: None,
        frame_rate: None,
        codecs: "mp4a.40.2".to_owned(),
        bandwidth: 1,
        average_bandwidth: 1,
        duration: 4.0,
        segments: 1,
        bytes: 3,
        copied: false,
        recipe: "recipe".to_owned(),
    }
}

#[tokio::test]
async fn an_older_attempt_changes_nothing_once_a_later_one_has_begun() {
    let told = told().await;
    let bench = Bench::new();
    let path = bench.path("any");
    fs::write(&path, "any").unwrap();
    let begin = async || Stored::new(told.telling.clone(), 1 << 20).await.unwrap();
    let older = begin().await;
    older.put(file("720p/00000.m4s", &path)).await.unwrap();
    let later = begin().await;
    assert_eq!(told.blobs.used(), 3, "what the older one put is deleted");
    let notes = async || {
        let record = told.telling.record().await.unwrap().unwrap();
        record.deliveries[FfmpegHls::NAME].notes.clone()
    };
    let before = notes().await;
    let outcome = Outcome {
        renditions: vec![rendition("720p")],
        poster: false,
        shortfall: None,
        containment: Containment::default(),
    };
    for refused in [
        older.put(file("720p/00001.m4s", &path)).await,
        older.put(file("360p/00000.m4s", &path)).await,
        older.put(file(POSTER, &path)).await,
        older.put(file(MASTER_PLAYLIST, &path)).await,
        older.finished(&rendition("720p")).await,
        older.conclude(&outcome).await,
    ] {
        assert!(refused.unwrap_err().to_string().contains("taken this over"));
    }
    assert_eq!((notes().await, told.blobs.used()), (before, 3));
    later.put(file("720p/00000.m4s", &path)).await.unwrap();
    later.finished(&rendition("720p")).await.unwrap();
    later.put(file(MASTER_PLAYLIST, &path)).await.unwrap();
    later.conclude(&outcome).await.unwrap();
    assert!(older.conclude(&outcome).await.is_err(), "the stream is not its own");
}

/// What [`FfmpegHls`] does with its sink, without ffmpeg: a rendition of two segments.
struct Streams(Bench);

#[async_trait]
impl Hook for Streams {
    fn name(&self) -> &str {
        FfmpegHls::NAME
    }

    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Assembled
    }

    fn works(&self) -> bool {
        true
    }

    fn time_limit(&self) -> Duration {
        Duration::from_secs(86_400)
    }

    async fn on_event(&self, _: &Event, telling: &Telling) -> Result<()> {
        let stored = Stored::new(telling.clone(), 1 << 20).await?;
        let path = self.0.path("any");
        fs::write(&path, "any").unwrap();
        let mut made = stored.renditions().await?;
        if made.is_empty() {
            for name in ["720p/00000.m4s", "720p/00001.m4s", "720p/index.m3u8"] {
                stored.put(file(name, &path)).await?;
            }
            made.push(rendition("720p"));
            stored.finished(&made[0]).await?;
        }
        stored.put(file(MASTER_PLAYLIST, &path)).await?;
        let outcome = Outcome {
            renditions: made,
            poster: false,
            shortfall: None,
            containment: Containment::default(),
        };
        stored.conclude(&outcome).await
    }
}

#[derive(Debug)]
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000).after(self.0.elapsed())
    }
}

/// How a node fares: after how many files it stands still, and for how long.
#[derive(Debug)]
struct Fares {
    puts: AtomicUsize,
    stops_at: usize,
    stops_for: Duration,
    goes_on: Mutex<Option<Instant>>,
}

impl Fares {
    fn new(stops_at: usize, stops_for: Duration) -> Arc<Self> {
        Arc::new(Self {
            puts: AtomicUsize::new(0),
            stops_at,
            stops_for,
            goes_on: Mutex::new(None),
        })
    }

    fn next(&self, call: Call) -> Fault {
        let mut goes_on = self.goes_on.lock().unwrap();
        if call == Call::Put && self.puts.fetch_add(1, Ordering::SeqCst) == self.stops_at {
            *goes_on = Some(Instant::now() + self.stops_for);
            return Fault::Delay(self.stops_for);
        }
        // It does not keep others away while it stands still.
        let stands_still = goes_on.is_some_and(|goes_on| Instant::now() < goes_on);
        match call {
            Call::Update | Call::Due if stands_still => Fault::FailBefore,
            _ => Fault::None,
        }
    }

    async fn open(self: &Arc<Self>, blobs: &Arc<MemoryBlobs>, metadata: &Arc<MemoryMetadata>) -> Uploads {
        let plan = || {
            let fares = Arc::clone(self);
            Arc::new(move |call: Call| fares.next(call))
        };
        let (blobs, metadata) = (
            FaultyBlobs::new(Arc::clone(blobs), plan()),
            FaultyMetadata::new(Arc::clone(metadata), plan()),
        );
        let builder = Uploads::with(blobs, metadata).authorizer(OwnerOnly);
        builder.hook(Streams(Bench::new())).build().await.unwrap()
    }
}

/// The files that the master playlist leads to, and whether each is there.
async fn listed(uploads: &Uploads, alice: &Caller, id: UploadId) -> Vec<(String, bool)> {
    let read = async |name: &str| {
        let (_, body) = uploads.read_derived(alice, id, name, ByteRange::ALL).await.ok()?;
        let bytes: Vec<Bytes> = body.try_collect().await.unwrap();
        Some(String::from_utf8(bytes.concat()).unwrap())
    };
    let master = read(MASTER_PLAYLIST).await.unwrap_or_default();
    let mut listed = Vec::new();
    for index in master.lines().filter(|line| !line.starts_with('#')) {
        let folder = index.split_once('/').unwrap().0;
        for name in ["00000.m4s", "00001.m4s", "index.m3u8"] {
            let name = format!("{folder}/{name}");
            let is_there = read(&name).await.is_some();
            listed.push((name, is_there));
        }
    }
    listed
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stood_still_does_not_finish_what_another_has_begun_anew() {
    let clock = Arc::new(Paused(Instant::now()));
    let (blobs, metadata) = (
        Arc::new(MemoryBlobs::new()),
        Arc::new(MemoryMetadata::with_clock(clock)),
    );
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    // The first stands still with one segment stored, for so long that the second takes over; that one hangs at its first.
    let first = Fares::new(1, minutes(30)).open(&blobs, &metadata).await;
    let alice = Caller::new("alice");
    let new = NewUpload::new("film.mp4").size(3);
    let id = first.create(&alice, new).await.unwrap().id();
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
    first.append(&alice, id, 0, body).await.unwrap();
    first.assemble(&alice, id, None).await.unwrap();
    tokio::time::sleep(minutes(1)).await;
    let fares = Fares::new(0, minutes(600));
    let second = fares.open(&blobs, &metadata).await;
    tokio::time::sleep(minutes(20)).await;
    assert_eq!(fares.puts.load(Ordering::SeqCst), 1, "it has taken over");
    *fares.goes_on.lock().unwrap() = None;

    // The first goes on, and the second is gone.
    tokio::time::sleep(minutes(15)).await;
    let delivery = async || {
        let record = first.status(&alice, id).await.unwrap().record().clone();
        assert!(record.dead_letters.is_empty(), "{:?}", record.dead_letters);
        record.deliveries[FfmpegHls::NAME].clone()
    };
    let found = listed(&first, &alice, id).await;
    assert!(found.iter().all(|(_, is_there)| *is_there), "{found:?}");
    let now = delivery().await;
    let come_to = (now.outcome, now.attempts, now.error);
    assert_eq!(come_to, (Some(HookOutcome::Running), 0, None), "the second is at it");
    second.shutdown(Duration::ZERO).await;
    drop(second);
    tokio::time::sleep(minutes(30)).await;
    assert_eq!(delivery().await.outcome, Some(HookOutcome::Finished));
    let found = listed(&first, &alice, id).await;
    assert!(
        found.len() == 3 && found.iter().all(|(_, is_there)| *is_there),
        "{found:?}"
    );
}
