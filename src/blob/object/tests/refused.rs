//! What a store can never make an object of: such an upload fails, with a reason and nothing left over.

use super::{
    fake::Fake,
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
