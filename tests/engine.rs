//! The engine by its public face, on the stores in memory.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tower_upload::{
    Builder, Caller, Digest, ErrorKind, EventKind, FileName, Hook, Key, NewAppend, NewChunk, NewUpload, Ready, State,
    Target, Upload, UploadId, Uploads, Verify,
    access::OwnerOnly,
    blob::{ByteRange, MemoryBlobs},
    metadata::{MemoryMetadata, Page},
    upload::{Algorithm, Record},
};

type Body = stream::Iter<std::vec::IntoIter<Result<Bytes, std::io::Error>>>;

fn body(bytes: &[u8]) -> Body {
    let frames: Vec<_> = bytes.chunks(7).map(|frame| Ok(Bytes::copy_from_slice(frame))).collect();
    stream::iter(frames)
}

fn cut(bytes: &[u8]) -> Body {
    let mut frames: Vec<_> = bytes.chunks(7).map(|frame| Ok(Bytes::copy_from_slice(frame))).collect();
    frames.push(Err(std::io::Error::other("gone")));
    stream::iter(frames)
}

fn builder() -> Builder<Ready> {
    Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .checkpoint(64)
}

fn alice() -> Caller {
    Caller::new("alice")
}

fn name() -> (Target, FileName) {
    (Target::parse("123").unwrap(), FileName::parse("my_video.mp4").unwrap())
}

async fn content(uploads: &Uploads, id: UploadId) -> Vec<u8> {
    let (blob, body) = uploads.read(&alice(), id, ByteRange::ALL).await.unwrap();
    let bytes = body.try_collect::<Vec<_>>().await.unwrap().concat();
    assert_eq!(blob.size, bytes.len() as u64);
    bytes
}

fn crc64(bytes: &[u8]) -> Digest {
    Digest::new(
        Algorithm::Crc64Nvme,
        tower_upload::Crc64::of(bytes).to_be_bytes().to_vec(),
    )
    .unwrap()
}

#[tokio::test]
async fn the_three_original_requests() {
    let uploads = builder().build().await.unwrap();
    let (target, file) = name();
    let bytes: Vec<u8> = (0..100).collect();
    let to = tower_upload::Address::Name(Some(&target), &file);
    for (count, index) in [2_u32, 0, 3, 1].into_iter().enumerate() {
        let at = index as usize * 30;
        let chunk = &bytes[at..(at + 30).min(100)];
        let stored = uploads
            .put_chunk(&alice(), to, NewChunk::new(index).total(4), body(chunk))
            .await
            .unwrap();
        assert_eq!(
            (stored.index, stored.stored, stored.total),
            (index, count as u32 + 1, 4)
        );
        assert_eq!(stored.is_complete, count == 3);
    }
    let upload = uploads.assemble(&alice(), to, None).await.unwrap();
    assert_eq!(upload.key().as_str(), "videos/originals/123_my_video.mp4");
    assert_eq!(upload.checksum().unwrap(), crc64(&bytes));
    assert_eq!(content(&uploads, upload.id()).await, bytes);
    let again = uploads.assemble(&alice(), to, Some(&crc64(&bytes))).await.unwrap();
    assert_eq!((again.id(), again.state()), (upload.id(), State::Assembled));
    let late = uploads
        .put_chunk(&alice(), to, NewChunk::new(1).total(4), body(&bytes[30..60]))
        .await
        .unwrap();
    assert!(late.is_complete);
    let other = uploads
        .put_chunk(&alice(), to, NewChunk::new(1).total(4), body(&bytes[31..61]))
        .await
        .unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict);
}

/// Gives files the name that its host wants, and says that they are for somebody else.
struct Renames {
    key: Option<&'static str>,
}

#[async_trait]
impl Hook for Renames {
    fn name(&self) -> &str {
        "renames"
    }
    async fn before_create(&self, record: &mut Record) -> tower_upload::Result<()> {
        record.file_name = FileName::parse(&format!("{}_{}", self.key.unwrap_or("0"), record.file_name)).unwrap();
        record.target = None;
        if let Some(key) = self.key {
            record.key = Key::parse(key).unwrap();
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_file_that_a_hook_renames_is_found_by_the_name_its_client_gave() {
    for (key, expected) in [(None, "videos/originals/123_0_my_video.mp4"), (Some("mine"), "mine")] {
        let uploads = builder().hook(Renames { key }).build().await.unwrap();
        let (target, file) = name();
        let to = tower_upload::Address::Name(Some(&target), &file);
        for (index, bytes) in (0..).zip([b"abc", b"def"]) {
            let chunk = NewChunk::new(index).total(2);
            uploads.put_chunk(&alice(), to, chunk, body(bytes)).await.unwrap();
        }
        let upload = uploads.assemble(&alice(), to, None).await.unwrap();
        assert_eq!(content(&uploads, upload.id()).await, b"abcdef");
        assert_eq!(
            upload.file_name().as_str(),
            format!("{}_my_video.mp4", key.unwrap_or("0"))
        );
        assert_eq!(upload.target(), Some(&target), "it is found by it");
        assert_eq!(upload.key().as_str(), expected);
        let named = NewUpload::new("my_video.mp4")
            .target(target.clone())
            .size(6)
            .chunk_size(3)
            .named();
        assert_eq!(uploads.create(&alice(), named).await.unwrap().id(), upload.id());
        assert_eq!(uploads.list(&alice(), Page::new(0, 9)).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_last_chunk_first_and_racing_first_chunks() {
    let uploads = builder().build().await.unwrap();
    let (target, file) = name();
    let to = tower_upload::Address::Name(Some(&target), &file);
    let bytes: Vec<u8> = (0..230).collect();
    uploads
        .put_chunk(&alice(), to, NewChunk::new(4).total(5), body(&bytes[200..]))
        .await
        .unwrap();
    let racing = (0..4_u32).map(|index| {
        let at = index as usize * 50;
        let chunk = NewChunk::new(index).total(5);
        let (uploads, bytes) = (&uploads, &bytes);
        async move {
            uploads
                .put_chunk(&alice(), to, chunk, body(&bytes[at..at + 50]))
                .await
                .unwrap()
        }
    });
    futures_util::future::join_all(racing).await;
    let upload = uploads.assemble(&alice(), to, None).await.unwrap();
    assert_eq!(content(&uploads, upload.id()).await, bytes);
    assert_eq!(
        uploads.list(&alice(), Page::new(0, 9)).await.unwrap().len(),
        1,
        "one upload, not four"
    );
}

#[tokio::test]
async fn chunks_that_do_not_fit_are_refused_and_change_nothing() {
    let uploads = builder().build().await.unwrap();
    let new = NewUpload::new("a.bin").size(25).chunk_size(10);
    let up = uploads.create(&alice(), new).await.unwrap();
    let put = async |chunk: NewChunk, bytes: &[u8]| {
        uploads
            .put_chunk(&alice(), up.id(), chunk, body(bytes))
            .await
            .unwrap_err()
    };
    assert_eq!(put(NewChunk::new(3), &[0; 5]).await.field(), Some("chunkIndex"));
    assert_eq!(
        put(NewChunk::new(0).total(4), &[0; 10]).await.field(),
        Some("totalChunks")
    );
    assert_eq!(put(NewChunk::new(0), &[0; 11]).await.field(), Some("chunk"));
    assert_eq!(put(NewChunk::new(0), &[0; 9]).await.field(), Some("chunk"));
    assert_eq!(put(NewChunk::new(2), &[0; 6]).await.field(), Some("chunk"));
    assert_eq!(
        put(NewChunk::new(0).len(10), &[0; 9]).await.kind(),
        ErrorKind::Interrupted
    );
    let sum: Digest = "crc32c:00000000".parse().unwrap();
    let mismatch = put(NewChunk::new(0).checksum(sum.clone()), &[1; 10]).await;
    assert_eq!(
        (mismatch.kind(), mismatch.expected()),
        (ErrorKind::ChecksumMismatch, Some(&sum))
    );
    let status = uploads.status(&alice(), up.id()).await.unwrap();
    assert_eq!(
        (status.received(), status.missing(), status.revision()),
        (vec![], vec![(0, 2)], 1)
    );
    let incomplete = uploads.assemble(&alice(), up.id(), None).await.unwrap_err();
    assert_eq!(incomplete.missing(), [(0, 2)]);
}

#[tokio::test]
async fn strangers_see_nothing() {
    let uploads = builder().build().await.unwrap();
    let up = uploads.create(&alice(), NewUpload::new("a.bin").size(5)).await.unwrap();
    let eve = Caller::new("eve");
    let unknown = uploads.status(&eve, UploadId::from_bytes([7; 16])).await.unwrap_err();
    for error in [
        uploads.status(&eve, up.id()).await.unwrap_err(),
        uploads.append(&eve, up.id(), 0, body(b"x")).await.unwrap_err(),
        uploads
            .put_chunk(&eve, up.id(), NewChunk::new(0), body(b"x"))
            .await
            .unwrap_err(),
        uploads.assemble(&eve, up.id(), None).await.unwrap_err(),
        uploads.abort(&eve, up.id()).await.unwrap_err(),
        uploads.delete(&eve, up.id()).await.unwrap_err(),
        uploads.take_over(&eve, up.id()).await.unwrap_err(),
        uploads.set_size(&eve, up.id(), 5).await.unwrap_err(),
        uploads
            .read(&eve, up.id(), ByteRange::ALL)
            .await
            .map(|_| ())
            .unwrap_err(),
        uploads.watch(&eve, up.id(), None).await.map(|_| ()).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.message()), (unknown.kind(), unknown.message()));
    }
    let nobody = uploads
        .create(&Caller::anonymous(), NewUpload::new("a"))
        .await
        .unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn appends_keep_the_prefix_of_a_cut_body() {
    let uploads = builder().build().await.unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    let sum = Digest::new(Algorithm::Sha256, sha256(&bytes)).unwrap();
    let up = uploads
        .create(&alice(), NewUpload::new("a.bin").size(256).checksum(sum))
        .await
        .unwrap();
    let error = uploads
        .append(&alice(), up.id(), 0, cut(&bytes[..100]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(uploads.status(&alice(), up.id()).await.unwrap().offset(), 100);
    let error = uploads
        .append(&alice(), up.id(), 64, body(&bytes[64..]))
        .await
        .unwrap_err();
    assert_eq!(error.offset(), Some(100));
    let wrong = NewAppend::new().checksum("md5:00000000000000000000000000000000".parse().unwrap());
    let error = uploads
        .append_with(&alice(), up.id(), 100, wrong, body(&bytes[100..]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert_eq!(
        uploads.status(&alice(), up.id()).await.unwrap().offset(),
        100,
        "nothing of it counts"
    );
    let too_much = [&bytes[100..], b"more"].concat();
    let error = uploads
        .append(&alice(), up.id(), 100, body(&too_much))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let end = uploads.append(&alice(), up.id(), 256, body(b"")).await.unwrap();
    assert!(end.is_complete, "the legal prefix counts");
    let upload = uploads.assemble(&alice(), up.id(), None).await.unwrap();
    assert_eq!(content(&uploads, upload.id()).await, bytes);
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).to_vec()
}

#[tokio::test]
async fn a_dropped_append_keeps_what_came() {
    let uploads = builder().build().await.unwrap();
    let up = uploads
        .create(&alice(), NewUpload::new("a.bin").size(1000))
        .await
        .unwrap();
    let stalled = body(&[1; 100]).chain(stream::pending());
    let alice = alice();
    let append = uploads.append(&alice, up.id(), 0, stalled);
    assert!(tokio::time::timeout(Duration::from_millis(5), append).await.is_err());
    let resumed = uploads.take_over(&alice, up.id()).await.unwrap();
    assert_eq!(resumed.offset(), 100);
}

#[tokio::test]
async fn the_last_byte_seals_what_seals_itself() {
    let uploads = builder().build().await.unwrap();
    let whole = NewUpload::new("a.bin").seals_itself();
    let sized = uploads.create(&alice(), whole.clone().size(100)).await.unwrap();
    let error = uploads
        .append(&alice(), sized.id(), 0, cut(&[1; 60]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let end = uploads.append(&alice(), sized.id(), 60, body(&[2; 40])).await.unwrap();
    assert!(end.is_complete);

    let deferred = uploads.create(&alice(), whole).await.unwrap();
    let end = uploads
        .append(&alice(), deferred.id(), 0, body(&[3; 100]))
        .await
        .unwrap();
    assert!(!end.is_complete);
    uploads.set_size(&alice(), deferred.id(), 100).await.unwrap();
    for id in [sized.id(), deferred.id()] {
        let sealed = uploads.status(&alice(), id).await.unwrap();
        assert_eq!((sealed.state(), sealed.offset()), (State::Assembling, 100));
        let error = uploads.append(&alice(), id, 100, body(b"")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let done = uploads.assemble(&alice(), id, None).await.unwrap();
        assert_eq!((done.state(), done.size()), (State::Assembled, Some(100)));
    }
    assert_eq!(
        content(&uploads, sized.id()).await,
        [[1; 60].as_slice(), &[2; 40]].concat()
    );
}

#[tokio::test]
async fn a_body_that_completes_tells_the_size_by_its_end() {
    let uploads = builder().build().await.unwrap();
    let new = NewUpload::new("a.bin").digest(Algorithm::Sha256);
    let up = uploads.create(&alice(), new.clone()).await.unwrap();
    let last = || NewAppend::new().completes();
    let cut = uploads
        .append_with(&alice(), up.id(), 0, last(), cut(&[1; 90]))
        .await
        .unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::Interrupted);
    let open = uploads.status(&alice(), up.id()).await.unwrap();
    assert_eq!((open.state(), open.offset(), open.size()), (State::Open, 90, None));
    let end = uploads
        .append_with(&alice(), up.id(), 90, last(), body(&[2; 10]))
        .await
        .unwrap();
    assert!(end.is_complete);
    let done = uploads.assemble(&alice(), up.id(), None).await.unwrap();
    let bytes = [[1; 90].as_slice(), &[2; 10]].concat();
    assert_eq!(done.digest().unwrap().as_bytes(), sha256(&bytes));

    let empty = uploads.create(&alice(), new.clone()).await.unwrap();
    let end = uploads
        .append_with(&alice(), empty.id(), 0, last(), body(b""))
        .await
        .unwrap();
    assert!(end.is_complete);
    let done = uploads.assemble(&alice(), empty.id(), None).await.unwrap();
    assert_eq!(done.digest().unwrap().as_bytes(), sha256(b""));

    // A size that was told before must agree: nothing is sealed, and the bytes stay.
    let told = uploads.create(&alice(), new.size(100)).await.unwrap();
    for len in [None, Some(50)] {
        let append = len.map_or_else(last, |len| last().len(len));
        let error = uploads
            .append_with(&alice(), told.id(), 0, append, body(&[1; 50]))
            .await
            .unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Invalid | ErrorKind::OffsetMismatch),
            "{error}"
        );
        let open = uploads.status(&alice(), told.id()).await.unwrap();
        assert_eq!((open.state(), open.offset()), (State::Open, 50));
    }
}

/// All pieces are in memory when the file is put together.
#[tokio::test]
async fn appends_leave_no_more_pieces_than_an_upload_may_have() {
    let uploads = builder().max_chunks(3).build().await.unwrap();
    let up = uploads.create(&alice(), NewUpload::new("a")).await.unwrap();
    for offset in 0..3 {
        uploads.append(&alice(), up.id(), offset, body(b"x")).await.unwrap();
    }
    let error = uploads.append(&alice(), up.id(), 3, body(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    // What is there can still become a file.
    let completes = NewAppend::new().completes();
    let end = uploads.append_with(&alice(), up.id(), 3, completes, body(b"")).await;
    assert!(end.unwrap().is_complete);
    uploads.assemble(&alice(), up.id(), None).await.unwrap();
    assert_eq!(content(&uploads, up.id()).await, b"xxx");
}

#[tokio::test]
async fn a_checksum_may_come_after_the_bytes() {
    let uploads = builder().build().await.unwrap();
    let up = uploads
        .create(&alice(), NewUpload::new("a.bin").size(200))
        .await
        .unwrap();
    let algorithms = [Algorithm::Sha1, Algorithm::Sha256];
    let told = |digest: Option<Digest>| {
        let missing = || tower_upload::Error::invalid("Upload-Checksum", "It is missing");
        NewAppend::new().checksum_later(algorithms, move || digest.ok_or_else(missing))
    };
    let right = Digest::new(Algorithm::Sha256, sha256(&[1; 200])).unwrap();
    for (digest, kind) in [
        (None, ErrorKind::Invalid),
        (Some(crc64(&[1; 200])), ErrorKind::Invalid),
        (
            Some(Digest::new(Algorithm::Sha256, sha256(b"other")).unwrap()),
            ErrorKind::ChecksumMismatch,
        ),
    ] {
        let error = uploads
            .append_with(&alice(), up.id(), 0, told(digest), body(&[1; 200]))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(uploads.status(&alice(), up.id()).await.unwrap().offset(), 0);
    }
    let end = uploads
        .append_with(&alice(), up.id(), 0, told(Some(right)), body(&[1; 200]))
        .await
        .unwrap();
    assert!(end.is_complete);
}

#[tokio::test]
async fn deleting_stops_whoever_writes() {
    let uploads = builder().build().await.unwrap();
    let up = uploads
        .create(&alice(), NewUpload::new("a.bin").size(1000))
        .await
        .unwrap();
    let (writer, id) = (uploads.clone(), up.id());
    let stalled = tokio::spawn(async move {
        writer
            .append(&alice(), id, 0, body(&[1; 5]).chain(stream::pending()))
            .await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    uploads.delete(&alice(), up.id()).await.unwrap();
    assert_eq!(stalled.await.unwrap().unwrap_err().kind(), ErrorKind::Superseded);
    assert_eq!(uploads.status(&alice(), up.id()).await.unwrap().state(), State::Aborted);
}

#[tokio::test]
async fn a_newer_request_stops_a_stalled_one() {
    let uploads = builder().build().await.unwrap();
    let up = uploads
        .create(&alice(), NewUpload::new("a.bin").size(20).chunk_size(10))
        .await
        .unwrap();
    let (first, id) = (uploads.clone(), up.id());
    let stalled = tokio::spawn(async move {
        first
            .put_chunk(&alice(), id, NewChunk::new(0), body(&[1; 5]).chain(stream::pending()))
            .await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    uploads
        .put_chunk(&alice(), up.id(), NewChunk::new(0), body(&[2; 10]))
        .await
        .unwrap();
    assert_eq!(stalled.await.unwrap().unwrap_err().kind(), ErrorKind::Superseded);
    uploads
        .put_chunk(&alice(), up.id(), NewChunk::new(1), body(&[3; 10]))
        .await
        .unwrap();
    uploads.assemble(&alice(), up.id(), None).await.unwrap();
    assert_eq!(content(&uploads, up.id()).await, [[2; 10], [3; 10]].concat());
}

#[tokio::test]
async fn ended_uploads_are_remembered_and_their_name_is_free() {
    let uploads = builder().build().await.unwrap();
    let new = || NewUpload::new("a.bin").size(10).chunked().named();
    let first = uploads.create(&alice(), new()).await.unwrap();
    let again = uploads.create(&alice(), new()).await.unwrap();
    assert_eq!((again.id(), first.is_new(), again.is_new()), (first.id(), true, false));
    let other = uploads.create(&alice(), new().size(11)).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict);
    uploads.abort(&alice(), first.id()).await.unwrap();
    uploads.abort(&alice(), first.id()).await.unwrap();
    let gone = uploads
        .put_chunk(&alice(), first.id(), NewChunk::new(0), body(&[0; 10]))
        .await
        .unwrap_err();
    assert_eq!((gone.kind(), gone.state()), (ErrorKind::Gone, Some(State::Aborted)));
    let second = uploads.create(&alice(), new()).await.unwrap();
    assert_ne!(second.id(), first.id());
    uploads
        .put_chunk(&alice(), second.id(), NewChunk::new(0), body(&[5; 10]))
        .await
        .unwrap();
    uploads.assemble(&alice(), second.id(), None).await.unwrap();
    uploads.delete(&alice(), second.id()).await.unwrap();
    uploads.delete(&alice(), second.id()).await.unwrap();
    let gone = uploads
        .read(&alice(), second.id(), ByteRange::ALL)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(gone.state(), Some(State::Deleted));
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let uploads = builder().build().await.unwrap();
    let chunked = uploads
        .create(&alice(), NewUpload::new("a").size(0).chunked())
        .await
        .unwrap();
    assert_eq!(chunked.plan().chunks, Some(1));
    uploads
        .put_chunk(&alice(), chunked.id(), NewChunk::new(0), body(b""))
        .await
        .unwrap();
    let appended = uploads.create(&alice(), NewUpload::new("b").size(0)).await.unwrap();
    for up in [chunked, appended] {
        uploads.assemble(&alice(), up.id(), None).await.unwrap();
        assert_eq!(content(&uploads, up.id()).await, b"");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_uploads_expire_and_active_ones_do_not() {
    let clock = Arc::new(Paused(tokio::time::Instant::now()));
    let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::with_clock(clock))
        .authorizer(OwnerOnly)
        .expire_after(Duration::from_secs(160))
        .remember_ended(Duration::from_secs(500))
        .build()
        .await
        .unwrap();
    let up = uploads
        .create(&alice(), NewUpload::new("a.bin").size(100).chunk_size(10))
        .await
        .unwrap();
    for index in 0..5 {
        tokio::time::sleep(Duration::from_secs(100)).await;
        uploads
            .put_chunk(&alice(), up.id(), NewChunk::new(index), body(&[0; 10]))
            .await
            .unwrap();
    }
    tokio::time::sleep(Duration::from_secs(165)).await;
    assert_eq!(uploads.status(&alice(), up.id()).await.unwrap().state(), State::Expired);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        uploads.status(&alice(), up.id()).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[derive(Debug)]
struct Paused(tokio::time::Instant);

impl tower_upload::Clock for Paused {
    fn now(&self) -> tower_upload::upload::Timestamp {
        tower_upload::upload::Timestamp::from_millis(1_000_000).after(self.0.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_told_in_order_until_they_are_heard() {
    let heard: Arc<Mutex<Vec<(EventKind, bool)>>> = Arc::default();
    let log = Arc::clone(&heard);
    let uploads = builder()
        .on_event(move |event| {
            let log = Arc::clone(&log);
            async move {
                let mut log = log.lock().unwrap();
                let deaf = log.len().is_multiple_of(2);
                log.push((event.kind(), !deaf));
                if deaf {
                    Err(tower_upload::Error::unavailable("not now"))
                } else {
                    Ok(())
                }
            }
        })
        .build()
        .await
        .unwrap();
    let up = uploads.create(&alice(), NewUpload::new("a").size(3)).await.unwrap();
    uploads.append(&alice(), up.id(), 0, body(b"abc")).await.unwrap();
    uploads.assemble(&alice(), up.id(), None).await.unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        std::thread::sleep(Duration::from_millis(120));
    }
    let heard: Vec<_> = heard
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, heard)| *heard)
        .map(|(kind, _)| *kind)
        .collect();
    assert_eq!(heard, [EventKind::Created, EventKind::Assembled]);
}

#[tokio::test]
async fn watchers_see_every_end() {
    let uploads = builder().build().await.unwrap();
    let up = uploads
        .create(&alice(), NewUpload::new("a").size(6).chunk_size(3))
        .await
        .unwrap();
    let watch = uploads.watch(&alice(), up.id(), None).await.unwrap();
    let watcher = tokio::spawn(watch.map(|upload| upload.unwrap()).collect::<Vec<Upload>>());
    tokio::task::yield_now().await;
    for index in 0..2 {
        uploads
            .put_chunk(&alice(), up.id(), NewChunk::new(index), body(b"abc"))
            .await
            .unwrap();
    }
    uploads.assemble(&alice(), up.id(), None).await.unwrap();
    let seen = watcher.await.unwrap();
    assert_eq!(seen.last().unwrap().state(), State::Assembled);
    assert!(seen.windows(2).all(|pair| pair[0].revision() < pair[1].revision()));
    let last = seen.last().unwrap().revision();
    assert_eq!(
        uploads
            .watch(&alice(), up.id(), Some(last))
            .await
            .unwrap()
            .count()
            .await,
        0
    );
}

#[tokio::test]
async fn reading_back_finds_nothing_wrong_with_good_bytes() {
    let uploads = builder().verify(Verify::Read).build().await.unwrap();
    let bytes = [9; 200];
    let sum = Digest::new(Algorithm::Sha256, sha256(&bytes)).unwrap();
    let new = NewUpload::new("a").size(200).chunk_size(64).checksum(sum.clone());
    let up = uploads.create(&alice(), new).await.unwrap();
    for (index, chunk) in bytes.chunks(64).enumerate() {
        uploads
            .put_chunk(&alice(), up.id(), NewChunk::new(index as u32), body(chunk))
            .await
            .unwrap();
    }
    let wrong = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
        .parse()
        .unwrap();
    let error = uploads.assemble(&alice(), up.id(), Some(&wrong)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert_eq!(
        uploads.status(&alice(), up.id()).await.unwrap().state(),
        State::Open,
        "nothing changed"
    );
    assert!(uploads.audit(true).await.unwrap().findings.is_empty());
    uploads.assemble(&alice(), up.id(), Some(&sum)).await.unwrap();
    assert!(uploads.audit(true).await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn a_wrong_promise_fails_the_upload() {
    let uploads = builder().build().await.unwrap();
    let sum: Digest = "crc64nvme:0000000000000001".parse().unwrap();
    let up = uploads
        .create(&alice(), NewUpload::new("a").size(3).checksum(sum))
        .await
        .unwrap();
    uploads.append(&alice(), up.id(), 0, body(b"abc")).await.unwrap();
    let error = uploads.assemble(&alice(), up.id(), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    let status = uploads.status(&alice(), up.id()).await.unwrap();
    assert_eq!(status.state(), State::Failed);
    assert!(status.failure().unwrap().contains("crc64nvme"));
}

#[tokio::test]
async fn shutdown_refuses_new_requests() {
    let uploads = builder().build().await.unwrap();
    uploads.shutdown(Duration::from_secs(1)).await;
    let error = uploads.create(&alice(), NewUpload::new("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_key_that_a_stranger_holds_gets_a_suffix() {
    let uploads = builder().build().await.unwrap();
    let (target, file) = name();
    let to = tower_upload::Address::Name(Some(&target), &file);
    let mut keys = Vec::new();
    for caller in [alice(), Caller::new("bob"), Caller::new("carol")] {
        let stored = uploads
            .put_chunk(&caller, to, NewChunk::new(0).total(2), body(b"abc"))
            .await
            .unwrap();
        let upload = uploads.status(&caller, stored.upload_id).await.unwrap();
        let new = NewUpload::new("my_video.mp4").size(3).target(target.clone()).named();
        assert!(uploads.create(&Caller::new("dave"), new).await.unwrap().key() != upload.key());
        uploads
            .delete(
                &Caller::new("dave"),
                uploads.list(&Caller::new("dave"), Page::new(0, 1)).await.unwrap()[0].id(),
            )
            .await
            .unwrap();
        keys.push(upload.key().to_string());
    }
    assert_eq!(keys[0], "videos/originals/123_my_video.mp4");
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3);
}
