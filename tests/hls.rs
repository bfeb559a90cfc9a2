//! `FfmpegHls` in the engine, with a real ffmpeg: streams are whole, go on after an end of the process, and go with the upload.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

mod stream;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use stream::{Files, at_work, check_whole, reached, runs, video};
use tower_upload::{
    Builder, Caller, ErrorKind, EventKind, NewUpload, Ready, Uploads,
    access::OwnerOnly,
    blob::{BlobStore, ByteRange, DiskBlobs, MemoryBlobs},
    hook::ffmpeg::{FfmpegHls, Rung, TranscodeOptions},
    metadata::{MemoryMetadata, MetadataStore},
    upload::{Key, Outcome, Record, Target, UploadId},
};

/// Stores that outlive an engine, and a working directory.
struct Place {
    dir: tempfile::TempDir,
    metadata: Arc<MemoryMetadata>,
    memory: Option<Arc<MemoryBlobs>>,
    told: Arc<Mutex<Vec<EventKind>>>,
}

const LADDER: [Rung; 2] = [Rung::new(240, 400_000), Rung::new(120, 200_000)];

impl Place {
    fn new(on_disk: bool) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            metadata: Arc::new(MemoryMetadata::new()),
            memory: (!on_disk).then(|| Arc::new(MemoryBlobs::new())),
            told: Arc::default(),
        }
    }

    fn work(&self) -> std::path::PathBuf {
        self.dir.path().join("work")
    }

    fn options(&self) -> TranscodeOptions {
        TranscodeOptions::new(self.work()).with_ladder(LADDER).with_threads(1)
    }

    async fn blobs(&self) -> Arc<dyn BlobStore> {
        match &self.memory {
            Some(memory) => Arc::clone(memory) as Arc<dyn BlobStore>,
            None => Arc::new(DiskBlobs::open(self.dir.path().join("data")).await.unwrap()),
        }
    }

    async fn builder(&self) -> Builder<Ready> {
        let told = self.told.clone();
        let metadata: Arc<dyn MetadataStore> = self.metadata.clone();
        Uploads::with(self.blobs().await, metadata)
            .authorizer(OwnerOnly)
            .lease(Duration::from_secs(2))
            .on_event(move |event| {
                told.lock().unwrap().push(event.kind());
                async { Ok(()) }
            })
    }

    async fn open(&self) -> Uploads {
        let builder = self.builder().await;
        builder.hook(FfmpegHls::new(self.options())).build().await.unwrap()
    }

    fn told(&self) -> Vec<EventKind> {
        self.told.lock().unwrap().clone()
    }

    /// Something runs.
    async fn is_busy(&self) {
        for _ in 0..500 {
            if !at_work(&self.work()).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("nothing runs");
    }

    /// Nothing runs and nothing is left of runs.
    async fn is_idle(&self) {
        for _ in 0..100 {
            if at_work(&self.work()).is_empty() && runs(&self.work()).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{:?} {:?}", at_work(&self.work()), runs(&self.work()));
    }
}

fn alice() -> Caller {
    Caller::new("alice")
}

async fn upload(uploads: &Uploads, bytes: Vec<u8>) -> UploadId {
    let new = NewUpload::new("film.mkv")
        .size(bytes.len() as u64)
        .target(Target::parse("7").unwrap());
    let id = uploads.create(&alice(), new).await.unwrap().id();
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
    uploads.append(&alice(), id, 0, body).await.unwrap();
    uploads.assemble(&alice(), id, None).await.unwrap();
    id
}

async fn record(uploads: &Uploads, id: UploadId) -> Record {
    uploads.status(&alice(), id).await.unwrap().record().clone()
}

/// The record, as soon as it is as wanted.
async fn until(uploads: &Uploads, id: UploadId, wanted: impl Fn(&Record) -> bool) -> Record {
    for _ in 0..1200 {
        let record = record(uploads, id).await;
        if wanted(&record) {
            return record;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:#?}", record(uploads, id).await);
}

fn outcome(record: &Record) -> Option<Outcome> {
    record.deliveries.get(FfmpegHls::NAME)?.outcome
}

fn note<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let notes = &record.deliveries.get(FfmpegHls::NAME)?.notes;
    notes.get(name).map(String::as_str)
}

async fn read(uploads: &Uploads, id: UploadId, name: &str) -> Option<Vec<u8>> {
    match uploads.read_derived(&alice(), id, name, ByteRange::ALL).await {
        Ok((_, body)) => Some(body.try_collect::<Vec<_>>().await.unwrap().concat()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// All that the master playlist leads to, and the poster.
async fn files(uploads: &Uploads, id: UploadId) -> Files {
    let mut files = Files::new();
    loop {
        let missing = Mutex::new(None);
        let found = reached(|name| {
            let bytes = files.get(name).cloned();
            if bytes.is_none() {
                missing.lock().unwrap().get_or_insert(name.to_owned());
            }
            bytes
        });
        match missing.into_inner().unwrap() {
            Some(name) => {
                let bytes = read(uploads, id, &name).await;
                files.insert(
                    name.clone(),
                    bytes.unwrap_or_else(|| panic!("{name} is not there: {found:?}")),
                );
            }
            None => break,
        }
    }
    if let Some(poster) = read(uploads, id, "poster.jpg").await {
        files.insert("poster.jpg".to_owned(), poster);
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_video_becomes_a_stream_on_any_store() {
    if !stream::has_ffmpeg() {
        return;
    }
    for on_disk in [false, true] {
        let place = Place::new(on_disk);
        let uploads = place.open().await;
        let id = upload(&uploads, video("426x240", 5)).await;
        // As soon as one rendition is there it is played, and all that is listed is there.
        until(&uploads, id, |record| note(record, "playlist").is_some()).await;
        assert!(!files(&uploads, id).await.is_empty());
        let record = until(&uploads, id, |record| outcome(record) == Some(Outcome::Finished)).await;
        let files = files(&uploads, id).await;
        check_whole(&files, 2, 5.0);
        assert_eq!(note(&record, "poster"), Some("poster.jpg"));
        assert_eq!(note(&record, "shortfall"), None);

        // There is nothing besides: neither in the folder nor where runs work.
        let folder = record.derived.clone().unwrap();
        assert_eq!(
            folder.as_str(),
            format!("videos/hls/7/{}", Key::segment(&id.to_string()))
        );
        if on_disk {
            let below = place.dir.path().join("data/blobs").join(folder.as_str());
            assert_eq!(stream::files_below(&below), files);
        } else {
            let sizes: usize = files.values().map(Vec::len).sum();
            let blob = record.blob.as_ref().unwrap().size;
            assert_eq!(place.memory.as_ref().unwrap().used(), sizes as u64 + blob);
        }
        place.is_idle().await;
        uploads.delete(&alice(), id).await.unwrap();
        until(&uploads, id, |record| !record.staged).await;
        match &place.memory {
            Some(memory) => assert_eq!(memory.used(), 0),
            None => assert!(stream::files_below(&place.dir.path().join("data/blobs")).is_empty()),
        }
        uploads.shutdown(Duration::from_secs(10)).await;
        let expected = [
            EventKind::Created,
            EventKind::Assembled,
            EventKind::HookFinished,
            EventKind::Deleted,
        ];
        assert_eq!(place.told(), expected);
        let left: Vec<_> = std::fs::read_dir(place.work()).unwrap().collect();
        assert!(left.len() <= 1, "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_video_fails_with_a_reason_and_stays_as_it_is() {
    if !stream::has_ffmpeg() {
        return;
    }
    let place = Place::new(true);
    let uploads = place.open().await;
    let playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n".to_vec();
    let id = upload(&uploads, playlist.clone()).await;
    let record = until(&uploads, id, |record| outcome(record) == Some(Outcome::Failed)).await;
    let delivery = &record.deliveries[FfmpegHls::NAME];
    assert!(
        delivery.error.as_ref().unwrap().contains("no video or sound"),
        "{delivery:?}"
    );
    assert_eq!(record.dead_letters.len(), 1, "told once: it would be the same again");
    let (_, body) = uploads.read(&alice(), id, ByteRange::ALL).await.unwrap();
    assert_eq!(body.try_collect::<Vec<_>>().await.unwrap().concat(), playlist);
    assert_eq!(read(&uploads, id, "master.m3u8").await, None);
    until(&uploads, id, |record| record.outbox.is_empty()).await;
    assert_eq!(
        place.told(),
        [EventKind::Created, EventKind::Assembled, EventKind::HookFailed]
    );
    place.is_idle().await;
}

/// The folders of renditions that are listed.
fn folders(files: &Files) -> BTreeSet<String> {
    let folders = files.keys().filter_map(|name| name.split_once('/'));
    folders.map(|(folder, _)| folder.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_the_run_and_the_next_process_goes_on_with_it() {
    if !stream::has_ffmpeg() {
        return;
    }
    for on_disk in [false, true] {
        let place = Place::new(on_disk);
        let uploads = place.open().await;
        let id = upload(&uploads, video("426x240", 30)).await;
        until(&uploads, id, |record| note(record, "playlist").is_some()).await;
        let first = files(&uploads, id).await;
        place.is_busy().await;
        uploads.shutdown(Duration::from_secs(10)).await;
        assert_eq!(at_work(&place.work()), Vec::<String>::new());
        assert_eq!(runs(&place.work()), Vec::<std::path::PathBuf>::new());
        drop(uploads);

        let uploads = reopened(&place).await;
        let record = until(&uploads, id, |record| outcome(record) == Some(Outcome::Finished)).await;
        assert_eq!(
            record.deliveries[FfmpegHls::NAME].attempts,
            0,
            "a shutdown is no failure"
        );
        let files = files(&uploads, id).await;
        check_whole(&files, 2, 30.0);
        assert!(
            folders(&files).is_superset(&folders(&first)),
            "what was finished is not made again: {:?} {:?}",
            folders(&files),
            folders(&first)
        );
        if on_disk {
            let folder = record.derived.unwrap();
            let below = place.dir.path().join("data/blobs").join(folder.as_str());
            assert_eq!(
                stream::files_below(&below),
                files,
                "of the first attempt nothing is left"
            );
        }
        place.is_idle().await;
        uploads.shutdown(Duration::from_secs(10)).await;
    }
}

/// The directory is given up when the last job of the engine before is done.
async fn reopened(place: &Place) -> Uploads {
    tokio::time::sleep(Duration::from_millis(200)).await;
    place.open().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_stops_the_run_and_takes_all_away() {
    if !stream::has_ffmpeg() {
        return;
    }
    for on_disk in [false, true] {
        let place = Place::new(on_disk);
        let uploads = place.open().await;
        let id = upload(&uploads, video("426x240", 60)).await;
        until(&uploads, id, |record| note(record, "playlist").is_some()).await;
        place.is_busy().await;
        uploads.delete(&alice(), id).await.unwrap();
        place.is_idle().await;
        let record = until(&uploads, id, |record| !record.staged && record.outbox.is_empty()).await;
        assert!(record.dead_letters.is_empty());
        match &place.memory {
            Some(memory) => assert_eq!(memory.used(), 0),
            None => {
                let data = place.dir.path().join("data");
                assert!(stream::files_below(&data.join("blobs")).is_empty());
                assert!(stream::files_below(&data.join("partial")).is_empty());
                assert!(!data.join("blobs").join(record.derived.unwrap().as_str()).exists());
            }
        }
        uploads.shutdown(Duration::from_secs(10)).await;
    }
}

/// Programs in place of ffmpeg's: one that waits until its source is gone, and fails then as it does with a broken file.
fn waits_for_the_end(directory: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let script = |name: &str, acts: &str| {
        let path = directory.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{acts}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let stream = r#"{"index":0,"codec_name":"mp3","codec_type":"audio","sample_rate":"48000","channels":2}"#;
    let found = format!(r#"echo '{{"streams":[{stream}],"format":{{"duration":"4.0"}}}}'"#);
    let works = "case \"$*\" in *-encoders*) echo ' V..... libx264 x'; echo ' A..... aac y'; exit 0;; esac
        while [ -e source ]; do sleep 0.005; done; exit 1";
    (script("fake-ffmpeg", works), script("fake-ffprobe", &found))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_deleted_under_ffmpeg_is_not_taken_for_a_broken_one() {
    let place = Place::new(true);
    let (ffmpeg, ffprobe) = waits_for_the_end(place.dir.path());
    let options = place.options().with_programs(ffmpeg, ffprobe);
    let builder = place.builder().await;
    let uploads = builder.hook(FfmpegHls::new(options)).build().await.unwrap();
    for _ in 0..5 {
        let id = upload(&uploads, b"\0\0\0\x20ftypisom".to_vec()).await;
        place.is_busy().await;
        uploads.delete(&alice(), id).await.unwrap();
        let record = until(&uploads, id, |record| !record.staged && record.outbox.is_empty()).await;
        assert!(record.dead_letters.is_empty(), "{:?}", record.dead_letters);
        assert_eq!(outcome(&record), Some(Outcome::Finished), "{:?}", record.deliveries);
        place.is_idle().await;
    }
    assert!(!place.told().contains(&EventKind::HookFailed));
    uploads.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_another_ladder_what_is_not_asked_for_any_more_goes() {
    if !stream::has_ffmpeg() {
        return;
    }
    let place = Place::new(false);
    let uploads = place.open().await;
    let id = upload(&uploads, video("426x240", 30)).await;
    until(&uploads, id, |record| note(record, "playlist").is_some()).await;
    uploads.shutdown(Duration::from_secs(10)).await;
    let options = place.options().with_ladder([Rung::new(180, 300_000)]);
    let builder = place.builder().await;
    let uploads = builder.hook(FfmpegHls::new(options)).build().await.unwrap();
    let record = until(&uploads, id, |record| outcome(record) == Some(Outcome::Finished)).await;
    let files = files(&uploads, id).await;
    check_whole(&files, 1, 30.0);
    let sizes: usize = files.values().map(Vec::len).sum();
    let blob = record.blob.as_ref().unwrap().size;
    assert_eq!(place.memory.as_ref().unwrap().used(), sizes as u64 + blob);
}

#[tokio::test]
async fn an_engine_without_ffmpeg_is_not_built() {
    let place = Place::new(false);
    let options = place
        .options()
        .with_programs("no-such-ffmpeg", Path::new("no-such-ffprobe"));
    let builder = place.builder().await;
    let error = builder.hook(FfmpegHls::new(options)).build().await.unwrap_err();
    assert!(error.to_string().contains("not installed"), "{error}");
}
