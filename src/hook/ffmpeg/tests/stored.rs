//! The sink in the blob store, without any ffmpeg: files that are as they should not be.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::*;
use crate::{
    Caller, ErrorKind, Event, EventKind, Hook, NewUpload, Uploads,
    access::OwnerOnly,
    blob::MemoryBlobs,
    hook::{
        Telling,
        ffmpeg::{ledger::Ledger, store::Stored},
    },
    metadata::MemoryMetadata,
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
    let ledger = Ledger::load(&told.telling, FfmpegHls::NAME).await.unwrap();
    let stored = Stored::new(told.telling.clone(), ledger, 1 << 20).await.unwrap();
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
    let ledger = Ledger::load(&told.telling, FfmpegHls::NAME).await.unwrap();
    let stored = Stored::new(told.telling.clone(), ledger, 1 << 20).await.unwrap();
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
