//! Bytes that rot or go missing beneath the engine: what an assembly finds, what is trusted, and what `audit` and `sweep` say.
#![cfg(feature = "disk")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::{
    fs,
    io::Error as IoError,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use tower_upload::{
    Caller, Digest, ErrorKind, Key, NewChunk, NewUpload, Problem, Result, State, Target, Upload, UploadId, Uploads,
    Verify,
    access::OwnerOnly,
    blob::{BlobBody, BlobStore, ByteRange, Completed, DiskBlobs, Limits, MemoryBlobs, PartWriter, Slot},
    metadata::MemoryMetadata,
    upload::{Algorithm, Blob, Handle, Part, Plan},
};

const CHUNK: usize = 1000;
/// Four chunks, the last one short.
const SIZE: usize = 3500;

fn alice() -> Caller {
    Caller::new("alice")
}

fn body(bytes: &[u8]) -> impl futures_util::Stream<Item = std::result::Result<Bytes, IoError>> + Send + Unpin + use<> {
    stream::iter([Ok(Bytes::copy_from_slice(bytes))])
}

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| (at * 7 % 251) as u8).collect()
}

fn chunk(index: u32) -> Vec<u8> {
    content().chunks(CHUNK).nth(index as usize).unwrap().to_vec()
}

/// A service on a directory, whose bytes lie in files.
struct Disk {
    uploads: Uploads,
    directory: tempfile::TempDir,
}

impl Disk {
    async fn new(verify: Verify) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(directory.path()).await.unwrap();
        let uploads = Uploads::with(blobs, MemoryMetadata::new())
            .authorizer(OwnerOnly)
            .verify(verify)
            .orphan_grace(Duration::ZERO)
            .without_driver()
            .build()
            .await
            .unwrap();
        Self { uploads, directory }
    }

    /// All but the last chunk first, or only then, so that it is kept aside.
    async fn chunked(&self, name: &str, last_first: bool) -> UploadId {
        let (target, file) = (Target::parse("v").unwrap(), name.parse().unwrap());
        let to = tower_upload::Address::Name(Some(&target), &file);
        let mut order: Vec<u32> = (0..4).collect();
        order.rotate_right(usize::from(last_first));
        let mut id = None;
        for index in order {
            let new = NewChunk::new(index).total(4);
            let stored = self.uploads.put_chunk(&alice(), to, new, body(&chunk(index))).await;
            id = Some(stored.unwrap().upload_id);
        }
        id.unwrap()
    }

    async fn appended(&self, name: &str, checksum: Option<Digest>) -> UploadId {
        let mut new = NewUpload::new(name).size(SIZE as u64);
        if let Some(checksum) = checksum {
            new = new.checksum(checksum);
        }
        let id = self.uploads.create(&alice(), new).await.unwrap().id();
        self.uploads.append(&alice(), id, 0, body(&content())).await.unwrap();
        id
    }

    fn file(&self, id: UploadId) -> PathBuf {
        self.directory.path().join("partial").join(id.to_string())
    }

    /// The file of the last part, which was kept aside.
    fn aside(&self, id: UploadId) -> PathBuf {
        let sides = files(&self.directory.path().join("partial"));
        let prefix = format!("{id}.3.");
        let mut sides = sides.into_iter().filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(&prefix)
        });
        let only = sides.next().unwrap();
        assert_eq!(sides.next(), None);
        only
    }

    fn published(&self) -> Vec<PathBuf> {
        files(&self.directory.path().join("blobs"))
    }

    async fn problems(&self, deep: bool) -> Vec<(UploadId, Problem)> {
        let audit = self.uploads.audit(deep).await.unwrap();
        audit
            .findings
            .into_iter()
            .map(|found| (found.id, found.problem))
            .collect()
    }

    async fn status(&self, id: UploadId) -> Upload {
        self.uploads.status(&alice(), id).await.unwrap()
    }

    async fn read(&self, id: UploadId) -> Vec<u8> {
        let (_, body) = self.uploads.read(&alice(), id, ByteRange::ALL).await.unwrap();
        body.try_collect::<Vec<_>>().await.unwrap().concat()
    }

    /// The assembly names `index` as missing, publishes nothing, and does its work once that was sent again.
    async fn opens_again_for(&self, id: UploadId, index: u32) {
        let error = self.uploads.assemble(&alice(), id, None).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.missing()),
            (ErrorKind::Incomplete, &[(index, index)][..]),
            "{error:?}"
        );
        assert_eq!(self.published(), [] as [PathBuf; 0]);
        let open = self.status(id).await;
        assert_eq!((open.state(), open.missing()), (State::Open, vec![(index, index)]));
        assert_eq!(self.problems(true).await, [], "what was lost is not claimed any more");

        let again = NewChunk::new(index).total(4);
        let stored = self.uploads.put_chunk(&alice(), id, again, body(&chunk(index))).await;
        assert!(stored.unwrap().is_complete);
        self.uploads.assemble(&alice(), id, None).await.unwrap();
        assert_eq!(self.read(id).await, content());
        assert_eq!(self.problems(true).await, []);
    }

    /// The assembly fails the upload with a reason, and nothing of it is left.
    async fn fails(&self, id: UploadId) {
        let error = self.uploads.assemble(&alice(), id, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
        let failed = self.status(id).await;
        assert_eq!(failed.state(), State::Failed);
        assert!(failed.failure().unwrap().contains("are lost"), "{failed:?}");
        assert_eq!(self.published(), [] as [PathBuf; 0]);
        assert!(!self.file(id).exists());
    }
}

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Flips one bit of a file.
fn flip(file: &Path, at: usize, bit: u32) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(file, bytes).unwrap();
}

fn cut(file: &Path, len: u64) {
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .unwrap()
        .set_len(len)
        .unwrap();
}

fn sha256() -> Digest {
    use sha2::Digest as _;
    Digest::new(Algorithm::Sha256, sha2::Sha256::digest(content()).to_vec()).unwrap()
}

#[tokio::test]
async fn a_chunk_that_rots_is_found_by_reading_and_sent_again() {
    for (index, at, bit) in [(0, 0, 0), (0, 999, 7), (2, 2500, 3), (3, 3000, 1), (3, 3499, 0)] {
        let disk = Disk::new(Verify::Read).await;
        let id = disk.chunked("a", false).await;
        assert_eq!(disk.problems(true).await, []);
        flip(&disk.file(id), at, bit);
        assert_eq!(disk.problems(false).await, [], "it is there");
        assert_eq!(disk.problems(true).await, [(id, Problem::Parts(vec![index]))]);
        disk.opens_again_for(id, index).await;
    }
}

#[tokio::test]
async fn a_chunk_that_rots_where_it_is_kept_aside_is_found_too() {
    let disk = Disk::new(Verify::Read).await;
    let id = disk.chunked("a", true).await;
    flip(&disk.aside(id), 250, 5);
    disk.opens_again_for(id, 3).await;
}

#[tokio::test]
async fn a_stream_that_rots_fails_with_a_reason() {
    for at in [0, 1750, SIZE - 1] {
        let disk = Disk::new(Verify::Read).await;
        let id = disk.appended("a", None).await;
        flip(&disk.file(id), at, 4);
        disk.fails(id).await;
        // Whoever sends it anew has no trouble.
        let id = disk.appended("a", None).await;
        disk.uploads.assemble(&alice(), id, None).await.unwrap();
        assert_eq!(disk.read(id).await, content());
    }
}

/// What goes missing altogether is found with and without reading.
#[tokio::test]
async fn bytes_that_are_gone_are_found_in_either_mode() {
    for verify in [Verify::Read, Verify::Receipts] {
        let disk = Disk::new(verify).await;
        let short = disk.chunked("short", false).await;
        cut(&disk.file(short), 3400);
        assert_eq!(disk.problems(true).await, [(short, Problem::Parts(vec![3]))]);
        disk.opens_again_for(short, 3).await;

        let disk = Disk::new(verify).await;
        let aside = disk.chunked("aside", true).await;
        fs::remove_file(disk.aside(aside)).unwrap();
        assert_eq!(disk.problems(false).await, [(aside, Problem::Parts(vec![3]))]);
        disk.opens_again_for(aside, 3).await;

        let disk = Disk::new(verify).await;
        let stream = disk.appended("stream", None).await;
        cut(&disk.file(stream), 3499);
        disk.fails(stream).await;

        let stream = disk.appended("gone", None).await;
        fs::remove_file(disk.file(stream)).unwrap();
        assert_eq!(disk.problems(false).await, [(stream, Problem::Parts(vec![0]))]);
        let error = disk
            .uploads
            .assemble(&alice(), stream, Some(&sha256()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
        assert_eq!(disk.status(stream).await.state(), State::Open);
        disk.fails(stream).await;
    }
}

/// What [`Verify::Receipts`] promises: the disk is trusted for what it said was synced, and what it makes of that can be told.
#[tokio::test]
async fn without_reading_rot_is_published_and_told_by_an_audit() {
    let disk = Disk::new(Verify::default()).await;
    let chunked = disk.chunked("a", false).await;
    flip(&disk.file(chunked), 1500, 2);
    let published = disk.uploads.assemble(&alice(), chunked, None).await.unwrap();
    assert_ne!(disk.read(chunked).await, content());
    let sum = tower_upload::Crc64::of(&content()).to_be_bytes().to_vec();
    assert_eq!(
        published.checksum(),
        Some(Digest::new(Algorithm::Crc64Nvme, sum).unwrap()),
        "of what was sent"
    );
    assert_eq!(disk.problems(false).await, []);
    assert_eq!(disk.problems(true).await, [(chunked, Problem::Parts(vec![1]))]);
}

/// A promised checksum that did not run along is told by reading, in either mode.
#[tokio::test]
async fn a_promised_checksum_makes_the_assembly_read_numbered_chunks() {
    let disk = Disk::new(Verify::default()).await;
    let new = NewUpload::new("a")
        .size(SIZE as u64)
        .chunk_size(CHUNK as u64)
        .checksum(sha256());
    let id = disk.uploads.create(&alice(), new).await.unwrap().id();
    for index in 0..4 {
        let new = NewChunk::new(index);
        disk.uploads
            .put_chunk(&alice(), id, new, body(&chunk(index)))
            .await
            .unwrap();
    }
    flip(&disk.file(id), 1500, 2);
    disk.opens_again_for(id, 1).await;
}

#[tokio::test]
async fn an_audit_names_each_upload_whose_blob_is_not_as_recorded() {
    let disk = Disk::new(Verify::default()).await;
    let mut all = Vec::new();
    for name in ["longer", "shorter", "missing", "rotten", "well"] {
        let id = disk.chunked(name, false).await;
        let upload = disk.uploads.assemble(&alice(), id, None).await.unwrap();
        let file = disk.directory.path().join("blobs").join(upload.key().as_str());
        all.push((id, file));
    }
    let ended = disk.appended("ended", None).await;
    disk.uploads.abort(&alice(), ended).await.unwrap();
    assert_eq!(disk.problems(true).await, []);

    cut(&all[0].1, SIZE as u64 + 1);
    cut(&all[1].1, SIZE as u64 - 1);
    fs::remove_file(&all[2].1).unwrap();
    flip(&all[3].1, 3200, 6);
    let mut shallow = vec![
        (all[0].0, Problem::BlobSize(SIZE as u64 + 1)),
        (all[1].0, Problem::BlobSize(SIZE as u64 - 1)),
        (all[2].0, Problem::BlobMissing),
    ];
    let mut deep = shallow.clone();
    deep.push((all[3].0, Problem::Parts(vec![3])));
    let by_id = |(id, _): &(UploadId, Problem)| *id;
    shallow.sort_by_key(by_id);
    deep.sort_by_key(by_id);
    for (depth, expected) in [(false, shallow), (true, deep)] {
        let mut found = disk.problems(depth).await;
        found.sort_by_key(by_id);
        assert_eq!(found, expected, "deep: {depth}");
    }
    assert_eq!(disk.uploads.audit(false).await.unwrap().uploads, 6);
}

/// Bytes of which no record speaks are the sweep's to find, not the audit's, and only those that no blob is.
#[tokio::test]
async fn an_orphan_is_swept_and_nothing_else() {
    let disk = Disk::new(Verify::default()).await;
    let open = disk.chunked("open", true).await;
    let orphan = UploadId::from_bytes([7; 16]);
    let side = disk.file(orphan).with_extension("3.00000000000000ff");
    fs::write(disk.file(orphan), b"nobody's").unwrap();
    fs::write(&side, b"nobody's").unwrap();
    let blob = disk.directory.path().join("blobs/the_hosts_own");
    fs::write(&blob, b"the host's").unwrap();
    assert_eq!(disk.problems(true).await, []);
    let swept = disk.uploads.sweep().await.unwrap();
    assert_eq!((swept.unknown, swept.ended), (1, 0));
    assert!(!disk.file(orphan).exists() && !side.exists());
    assert!(blob.exists() && disk.file(open).exists() && disk.aside(open).exists());
    assert_eq!(disk.uploads.sweep().await.unwrap(), Default::default());
    disk.uploads.assemble(&alice(), open, None).await.unwrap();
    assert_eq!(disk.read(open).await, content());
}

/// A store that reads nothing before the blob is made, as one of multipart uploads; and what it reads then has rotted.
#[derive(Debug)]
struct Late(MemoryBlobs);

#[async_trait::async_trait]
impl BlobStore for Late {
    fn limits(&self) -> Limits {
        self.0.limits()
    }
    async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle> {
        self.0.begin(id, key, plan).await
    }
    async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
        self.0.open(handle, slot).await
    }
    async fn read_parts(&self, _: &Handle, _: &[Part]) -> Result<Option<BlobBody>> {
        Ok(None)
    }
    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        self.0.complete(handle, key, parts).await
    }
    async fn discard(&self, handle: &Handle) -> Result<()> {
        self.0.discard(handle).await
    }
    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        self.0.begun(older_than).await
    }
    async fn head(&self, key: &Key) -> Result<Option<Blob>> {
        self.0.head(key).await
    }
    async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> {
        let mut bytes = self.0.read(key, range).await?.try_collect::<Vec<_>>().await?.concat();
        bytes[1500] ^= 1;
        Ok(Box::pin(stream::iter([Ok(bytes.into())])))
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.0.delete(key).await
    }
}

/// Bytes that can only be read when they are a blob cannot be sent again: the upload fails, and the blob goes.
#[tokio::test]
async fn a_blob_that_is_found_rotten_after_it_was_made_does_not_stay() {
    for chunked in [true, false] {
        let blobs = Arc::new(Late(MemoryBlobs::new()));
        let uploads = Uploads::with(Arc::clone(&blobs) as Arc<dyn BlobStore>, MemoryMetadata::new())
            .authorizer(OwnerOnly)
            .verify(Verify::Read)
            .without_driver()
            .build()
            .await
            .unwrap();
        let mut new = NewUpload::new("a").size(SIZE as u64);
        if chunked {
            new = new.chunk_size(CHUNK as u64);
        }
        let upload = uploads.create(&alice(), new).await.unwrap();
        if chunked {
            for index in 0..4 {
                let new = NewChunk::new(index);
                uploads
                    .put_chunk(&alice(), upload.id(), new, body(&chunk(index)))
                    .await
                    .unwrap();
            }
        } else {
            uploads
                .append(&alice(), upload.id(), 0, body(&content()))
                .await
                .unwrap();
        }
        let error = uploads.assemble(&alice(), upload.id(), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
        let failed = uploads.status(&alice(), upload.id()).await.unwrap();
        assert!(
            failed.failure().unwrap().contains("not those that were stored"),
            "{failed:?}"
        );
        assert_eq!(blobs.head(upload.key()).await.unwrap(), None, "nothing rotten stays");
    }
}

/// Of a file that is gone altogether all is missing, and whoever sends it again is told to begin anew.
#[tokio::test]
async fn an_upload_whose_file_is_gone_says_so() {
    for verify in [Verify::Read, Verify::Receipts] {
        let disk = Disk::new(verify).await;
        let id = disk.chunked("a", false).await;
        fs::remove_file(disk.file(id)).unwrap();
        let error = disk.uploads.assemble(&alice(), id, None).await.unwrap_err();
        assert_eq!((error.kind(), error.missing()), (ErrorKind::Incomplete, &[(0, 3)][..]));
        let again = disk
            .uploads
            .put_chunk(&alice(), id, NewChunk::new(0).total(4), body(&chunk(0)))
            .await
            .unwrap_err();
        assert!(again.message().contains("begin a new upload"), "{again:?}");
    }
}
