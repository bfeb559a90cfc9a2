//! What a store can never make an object of: such an upload fails, with a reason and nothing left over.

use super::{
    fake::{Fake, Op},
    whole::{PART, alice, body, bytes, content, engine, is_clean, metadata},
    *,
};
use crate::{NewChunk, NewUpload, State, UploadId, Uploads};

async fn send(uploads: &Uploads, whole: &[u8]) -> UploadId {
    let new = NewUpload::new("a.mp4").size(whole.len() as u64).chunk_size(PART);
    let id = uploads.create(&alice(), new).await.unwrap().id();
    for (number, chunk) in (0..).zip(whole.chunks(PART as usize)) {
        let new = NewChunk::new(number);
        uploads.put_chunk(&alice(), id, new, body(chunk)).await.unwrap();
    }
    id
}

/// It failed, and was not only put off; the reason.
async fn failure(uploads: &Uploads, id: UploadId) -> String {
    let error = uploads.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    let upload = uploads.status(&alice(), id).await.unwrap();
    assert_eq!(upload.state(), State::Failed);
    upload.record().failure.clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn without_multipart_uploads_a_blob_fits_into_memory_or_fails() {
    let fake = Fake::new(SMALL).plain();
    let blobs = options(SMALL)
        .with_memory(64 << 10)
        .staged(Arc::new(fake.clone()))
        .unwrap();
    let uploads = engine(blobs.clone(), metadata()).build().await.unwrap();
    let whole = bytes(1, 64 << 10);
    let id = send(&uploads, &whole).await;
    uploads.assemble(&alice(), id, None).await.unwrap();
    assert!(content(&uploads, id).await == whole);
    is_clean(&fake, 1).await;

    let id = send(&uploads, &bytes(2, (64 << 10) + 1)).await;
    let reason = failure(&uploads, id).await;
    assert!(
        reason.contains("larger than 65536 bytes") && reason.contains("with_memory"),
        "{reason}"
    );
    is_clean(&fake, 1).await;
    assert!(blobs.shared.memory.is_free(), "memory is held");
    uploads.shutdown(Duration::from_secs(1)).await;
}

/// Copied parts are as long as the objects they are of. What the backend says of them does not change by asking again.
#[tokio::test(start_paused = true)]
async fn unequal_parts_fail_where_they_must_be_equal_and_nobody_said_so() {
    let bounds = PartBounds::new(PART, 1 << 30, 10_000);
    let fake = Fake::new(bounds.equal());
    let uploads = engine(on(&fake, options(bounds)), metadata()).build().await.unwrap();
    let mut ids = Vec::new();
    for len in [30_000, 20_000, 40_000] {
        let new = NewUpload::new("a.bin").size(len as u64).partial();
        let id = uploads.create(&alice(), new).await.unwrap().id();
        uploads.append(&alice(), id, 0, body(&bytes(3, len))).await.unwrap();
        ids.push(id);
    }
    let (alice, new) = (alice(), NewUpload::new("a.bin"));
    let error = uploads.concatenate(&alice, new, &ids, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    assert_eq!(fake.uploads(), 0, "a multipart upload is left");
    let asked = |op| fake.asked().get(&op).copied().unwrap_or_default();
    assert!(asked(Op::Copy) > 0);
    assert_eq!(asked(Op::Complete), 2, "it is asked once more, and then believed");
    uploads.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn parts_that_the_store_finds_too_small_fail() {
    let strict = PartBounds::new(2 * PART, 1 << 30, 10_000);
    for lists in [true, false] {
        let fake = Fake::new(strict);
        let blobs = if lists {
            on(&fake, options(SMALL))
        } else {
            options(SMALL).native(fake.clone()).unwrap()
        };
        let uploads = engine(blobs, metadata()).build().await.unwrap();
        let id = send(&uploads, &bytes(4, 5 * PART as usize)).await;
        let reason = failure(&uploads, id).await;
        assert!(reason.contains("with_parts"), "{reason}");
        is_clean(&fake, 0).await;
        uploads.shutdown(Duration::from_secs(1)).await;
    }
}

/// A concatenation that waits for its second partial upload, of `told` length or not, until `meanwhile` was done. It fails; why it
/// did. What it was made of is not kept alive by it any more.
async fn never_joined(fake: &Fake, blobs: ObjectBlobs, told: bool, meanwhile: impl FnOnce()) -> String {
    let uploads = engine(blobs.clone(), metadata());
    let uploads = uploads.expire_after(Duration::from_secs(600)).build().await.unwrap();
    let (first, second) = (bytes(1, 30_000), bytes(2, 40_000));
    let new = || NewUpload::new("a.bin").partial();
    let done = uploads.create(&alice(), new().size(30_000)).await.unwrap().id();
    uploads.append(&alice(), done, 0, body(&first)).await.unwrap();
    let new = if told { new().size(40_000) } else { new() };
    let slow = uploads.create(&alice(), new).await.unwrap().id();
    uploads.append(&alice(), slow, 0, body(&second[..9000])).await.unwrap();
    let (alice, new) = (alice(), NewUpload::new("a.bin"));
    let id = uploads
        .concatenate(&alice, new, &[done, slow], true)
        .await
        .unwrap()
        .id();
    tokio::time::sleep(Duration::from_secs(100)).await;
    meanwhile();
    uploads.append(&alice, slow, 9000, body(&second[9000..])).await.unwrap();
    uploads.set_size(&alice, slow, 40_000).await.unwrap();
    tokio::time::sleep(Duration::from_secs(400)).await;
    let upload = uploads.status(&alice, id).await.unwrap();
    assert_eq!(upload.state(), State::Failed, "{upload:?}");
    tokio::time::sleep(Duration::from_secs(1300)).await;
    for partial in [done, slow] {
        let partial = uploads.status(&alice, partial).await.unwrap();
        assert_eq!(partial.state(), State::Expired);
    }
    is_clean(fake, 0).await;
    assert!(blobs.shared.memory.is_free(), "memory is held");
    uploads.shutdown(Duration::from_secs(1)).await;
    upload.record().failure.clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_concatenation_whose_multipart_upload_is_gone_fails() {
    for (bounds, lists) in [(SMALL, true), (SMALL, false), (SMALL.equal(), true)] {
        let fake = Fake::new(bounds);
        let blobs = if lists {
            on(&fake, options(bounds))
        } else {
            options(bounds).native(fake.clone()).unwrap()
        };
        let reason = never_joined(&fake, blobs, true, || fake.drop_uploads()).await;
        assert!(reason.contains("dropped the unfinished upload"), "{reason}");
    }
}

/// Its length was not known when it began, so that the parts could not be made large enough.
#[tokio::test(start_paused = true)]
async fn a_concatenation_of_too_many_parts_fails() {
    let few = PartBounds::new(1000, 1 << 20, 4);
    for bounds in [few, few.equal()] {
        let fake = Fake::new(bounds);
        let reason = never_joined(&fake, on(&fake, options(bounds)), false, || ()).await;
        assert!(reason.contains("may have 16384 bytes"), "{reason}");
    }
}
