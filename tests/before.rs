//! Hooks are asked before an upload exists, and before its bytes are published.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use tower_upload::{
    Builder, Caller, Error, ErrorKind, EventKind, FileName, Hook, Key, NewChunk, NewUpload, Ready, State, Target,
    UploadId, Uploads,
    access::OwnerOnly,
    blob::{BlobBody, BlobStore, ByteRange, MemoryBlobs},
    metadata::MemoryMetadata,
    upload::Record,
};

const LIMIT: Duration = Duration::from_secs(60);

fn ann() -> Caller {
    Caller::new("ann")
}

fn chunk(bytes: &'static [u8]) -> stream::Iter<std::array::IntoIter<Result<Bytes, std::io::Error>, 1>> {
    stream::iter([Ok(Bytes::from_static(bytes))])
}

fn builder<S: BlobStore>(blobs: &Arc<S>) -> Builder<Ready> {
    Uploads::with(Arc::clone(blobs), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .without_driver()
}

/// What a scanner does the next time; after all of it, it scans.
#[derive(Clone, Copy)]
enum Trouble {
    Fails,
    Hangs,
    Panics,
}

/// What it read, and whether there was a blob under the key then.
type Scanned = Arc<Mutex<Vec<(Vec<u8>, bool)>>>;

struct Scanner<S> {
    blobs: Arc<S>,
    trouble: Mutex<VecDeque<Trouble>>,
    scanned: Scanned,
}

impl<S: BlobStore> Scanner<S> {
    fn new(blobs: &Arc<S>, trouble: impl IntoIterator<Item = Trouble>) -> (Self, Scanned) {
        let scanned = Scanned::default();
        let scanner = Self {
            blobs: Arc::clone(blobs),
            trouble: Mutex::new(trouble.into_iter().collect()),
            scanned: Arc::clone(&scanned),
        };
        (scanner, scanned)
    }
}

#[async_trait]
impl<S: BlobStore> Hook for Scanner<S> {
    fn name(&self) -> &str {
        "scanner"
    }

    fn wants(&self, _: EventKind) -> bool {
        false
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    fn time_limit(&self) -> Duration {
        LIMIT
    }

    async fn before_publish(&self, record: &Record, bytes: Option<BlobBody>) -> tower_upload::Result<()> {
        let trouble = self.trouble.lock().unwrap().pop_front();
        match trouble {
            Some(Trouble::Fails) => return Err(Error::unavailable("the scanner is away")),
            Some(Trouble::Hangs) => std::future::pending().await,
            Some(Trouble::Panics) => panic!("planned"),
            None => {}
        }
        let is_published = self.blobs.head(&record.key).await?.is_some();
        let bytes = bytes.unwrap().try_collect::<Vec<_>>().await?.concat();
        let is_infected = bytes.windows(5).any(|window| window == b"virus");
        self.scanned.lock().unwrap().push((bytes, is_published));
        if is_infected {
            return Err(Error::new(ErrorKind::Forbidden, "There is a virus in it"));
        }
        Ok(())
    }
}

/// In two chunks, the later one first.
async fn sent(uploads: &Uploads, first: &'static [u8], second: &'static [u8]) -> UploadId {
    let new = NewUpload::new("a.mp4")
        .target(Target::parse("7").unwrap())
        .size((first.len() + second.len()) as u64)
        .chunk_size(first.len() as u64);
    let id = uploads.create(&ann(), new).await.unwrap().id();
    for (number, bytes) in [(1, second), (0, first)] {
        uploads
            .put_chunk(&ann(), id, NewChunk::new(number), chunk(bytes))
            .await
            .unwrap();
    }
    id
}

async fn a_scanner_reads_what_is_to_be_published<S: BlobStore>(blobs: Arc<S>) {
    let (scanner, scanned) = Scanner::new(&blobs, []);
    let uploads = builder(&blobs).hook(scanner).build().await.unwrap();

    // The virus lies across two chunks.
    let id = sent(&uploads, b"012vi", b"rus").await;
    let refused = uploads.assemble(&ann(), id, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Failed, "{refused:?}");
    assert!(refused.to_string().contains("There is a virus in it"), "{refused}");
    let upload = uploads.status(&ann(), id).await.unwrap();
    assert_eq!(upload.state(), State::Failed);
    assert!(upload.failure().unwrap().contains("There is a virus in it"));
    let key = upload.key().clone();
    assert_eq!(blobs.head(&key).await.unwrap(), None);
    assert!(blobs.begun(Duration::ZERO).await.unwrap().is_empty());
    assert_eq!(
        uploads.read(&ann(), id, ByteRange::ALL).await.err().unwrap().kind(),
        refused.kind()
    );
    // Asked again it answers the same, and nobody is asked for that.
    let again = uploads.assemble(&ann(), id, None).await.unwrap_err();
    assert_eq!(again.to_string(), refused.to_string());

    // The name and the key are free for one that is clean.
    let id = sent(&uploads, b"01234", b"567").await;
    let upload = uploads.assemble(&ann(), id, None).await.unwrap();
    assert_eq!((upload.state(), upload.key()), (State::Assembled, &key));
    let (_, body) = uploads.read(&ann(), id, ByteRange::ALL).await.unwrap();
    assert_eq!(body.try_collect::<Vec<_>>().await.unwrap().concat(), b"01234567");
    let scanned = scanned.lock().unwrap().clone();
    assert_eq!(
        scanned,
        [(b"012virus".to_vec(), false), (b"01234567".to_vec(), false)],
        "each is read once, before it is published"
    );
}

#[tokio::test]
async fn a_scanner_reads_what_is_to_be_published_from_memory() {
    a_scanner_reads_what_is_to_be_published(Arc::new(MemoryBlobs::new())).await;
}

#[cfg(feature = "disk")]
#[tokio::test]
async fn a_scanner_reads_what_is_to_be_published_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = tower_upload::blob::DiskBlobs::open(directory.path()).await.unwrap();
    a_scanner_reads_what_is_to_be_published(Arc::new(blobs)).await;
}

#[tokio::test(start_paused = true)]
async fn a_scanner_that_comes_to_no_end_is_asked_again() {
    for trouble in [Trouble::Fails, Trouble::Hangs, Trouble::Panics] {
        let blobs = Arc::new(MemoryBlobs::new());
        let (scanner, scanned) = Scanner::new(&blobs, [trouble]);
        let uploads = builder(&blobs).hook(scanner).build().await.unwrap();
        let id = sent(&uploads, b"01234", b"567").await;
        let asked = async { uploads.assemble(&ann(), id, None).await.unwrap_err() };
        let error = tokio::time::timeout(2 * LIMIT, asked).await.expect("it is given up");
        let (kind, says) = match trouble {
            Trouble::Fails => (ErrorKind::Unavailable, "away"),
            Trouble::Hangs => (ErrorKind::Unavailable, "longer than it may"),
            Trouble::Panics => (ErrorKind::Internal, "panicked"),
        };
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
        // It is noted when the driver is to try again.
        let record = uploads.status(&ann(), id).await.unwrap().record().clone();
        assert_eq!((record.state, record.attempts), (State::Assembling, 1));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
        assert_eq!(blobs.head(&record.key).await.unwrap(), None);

        let upload = uploads.assemble(&ann(), id, None).await.unwrap();
        assert_eq!(upload.state(), State::Assembled);
        assert_eq!(scanned.lock().unwrap().len(), 1);
    }
}

/// Sorts uploads by who sent them, and leaves word that it did.
struct Sorts;

#[async_trait]
impl Hook for Sorts {
    async fn before_create(&self, record: &mut Record) -> tower_upload::Result<()> {
        record.key = Key::parse(&format!("by/{}/{}", record.owner.as_str(), record.file_name.as_str()))?;
        record.metadata.remove("draft");
        record.metadata.insert("sorted".to_owned(), "yes".to_owned());
        Ok(())
    }
}

#[tokio::test]
async fn a_hook_changes_metadata_and_key_of_what_is_created() {
    let blobs = Arc::new(MemoryBlobs::new());
    let uploads = builder(&blobs).hook(Sorts).build().await.unwrap();
    let sorted = |key: &str, id| {
        let (uploads, key) = (uploads.clone(), key.to_owned());
        async move {
            let record = uploads.status(&ann(), id).await.unwrap().record().clone();
            assert!(record.key.as_str().starts_with(&key), "{}", record.key.as_str());
            let metadata: Vec<_> = record.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(metadata, [("sorted", "yes"), ("title", "A film")]);
            record.key
        }
    };
    let new = || {
        NewUpload::new("a.mp4")
            .size(3)
            .metadata("title", "A film")
            .metadata("draft", "1")
    };
    let created = uploads.create(&ann(), new()).await.unwrap();
    assert_eq!(created.key().as_str(), "by/ann/a.mp4", "the answer says it already");
    let id = created.id();
    sorted("by/ann/a.mp4", id).await;
    uploads.append(&ann(), id, 0, chunk(b"abc")).await.unwrap();
    uploads.assemble(&ann(), id, None).await.unwrap();
    let key = sorted("by/ann/a.mp4", id).await;
    assert_eq!(key.as_str(), "by/ann/a.mp4");
    assert_eq!(blobs.head(&key).await.unwrap().unwrap().size, 3);

    // Another one that is given the same key does not write over it, nor do two that are under way.
    let mut keys = vec![key];
    for _ in 0..2 {
        let id = uploads.create(&ann(), new()).await.unwrap().id();
        uploads.append(&ann(), id, 0, chunk(b"xyz")).await.unwrap();
        keys.push(sorted("by/ann/a", id).await);
    }
    let distinct: std::collections::BTreeSet<_> = keys.iter().map(Key::as_str).collect();
    assert_eq!(distinct.len(), 3, "{keys:?}");

    // So with an upload that its first chunk creates.
    let (target, name) = (Target::parse("7").unwrap(), FileName::parse("b.mp4").unwrap());
    let first = NewChunk::new(0).total(1);
    let to = tower_upload::Address::Name(Some(&target), &name);
    let id = uploads
        .put_chunk(&ann(), to, first, chunk(b"abc"))
        .await
        .unwrap()
        .upload_id;
    let upload = uploads.assemble(&ann(), id, None).await.unwrap();
    assert_eq!(upload.key().as_str(), "by/ann/b.mp4");
    assert_eq!(upload.record().metadata["sorted"], "yes");
    assert!(blobs.head(upload.key()).await.unwrap().is_some());
}
