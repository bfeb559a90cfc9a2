//! What is read back is not what was stored: nothing stays of it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use tokio::sync::Notify;

use super::{
    fake::{Fake, Fate, Op},
    whole::{PART, alice, body, bytes, content, engine, is_clean, metadata},
    *,
};
use crate::{Caller, Hook, NewChunk, NewUpload, State, UploadId, Uploads, Verify, upload::Record};

async fn send_chunks(uploads: &Uploads, whole: &[u8]) -> UploadId {
    let new = NewUpload::new("a.mp4").size(whole.len() as u64).chunk_size(PART);
    let id = uploads.create(&alice(), new).await.unwrap().id();
    for (number, chunk) in (0..).zip(whole.chunks(PART as usize)) {
        let new = NewChunk::new(number);
        uploads.put_chunk(&alice(), id, new, body(chunk)).await.unwrap();
    }
    id
}

async fn send_appends(uploads: &Uploads, whole: &[u8], new: NewUpload) -> UploadId {
    let id = uploads.create(&alice(), new).await.unwrap().id();
    for (at, piece) in (0..).zip(whole.chunks(7000)) {
        uploads.append(&alice(), id, at * 7000, body(piece)).await.unwrap();
    }
    id
}

async fn reader(blobs: impl BlobStore, metadata: Arc<crate::metadata::MemoryMetadata>) -> Uploads {
    let engine = engine(blobs, metadata).verify(Verify::Read).without_driver();
    engine.build().await.unwrap()
}

/// The upload has failed, for the reason that it should, and nothing is left of it.
async fn has_failed(uploads: &Uploads, fake: &Fake, id: UploadId) {
    let error = uploads.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    assert!(error.to_string().contains("read back"), "{error}");
    let upload = uploads.status(&alice(), id).await.unwrap();
    assert_eq!(upload.state(), State::Failed);
    assert!(!upload.record().key_held, "the key is free");
    is_clean(fake, 0).await;
}

/// The same client's next try, under the same name.
async fn goes_through(uploads: &Uploads, fake: &Fake, whole: &[u8]) {
    let id = send_chunks(uploads, whole).await;
    let upload = uploads.assemble(&alice(), id, None).await.unwrap();
    assert_eq!(upload.state(), State::Assembled);
    assert!(content(uploads, id).await == whole);
    is_clean(fake, 1).await;
}

#[tokio::test]
async fn what_rotted_in_a_multipart_upload_fails_and_leaves_nothing() {
    let whole = bytes(3, 5 * PART as usize + 100);
    for fake in [Fake::new(SMALL), Fake::new(SMALL).opaque(), Fake::new(SMALL).silent()] {
        let blobs = on(&fake, options(SMALL));
        let uploads = reader(blobs.clone(), metadata()).await;
        let id = send_chunks(&uploads, &whole).await;
        fake.rot(2);
        has_failed(&uploads, &fake, id).await;

        let id = send_appends(&uploads, &whole, NewUpload::new("a.mp4").size(whole.len() as u64)).await;
        fake.rot(1);
        has_failed(&uploads, &fake, id).await;

        goes_through(&uploads, &fake, &whole).await;
        assert_eq!(blobs.shared.registry.alive(), 0, "an entry is left");
    }
}

/// It was published, and then could not be read: another process finds the object.
#[tokio::test(start_paused = true)]
async fn what_rotted_is_found_by_the_next_process() {
    let whole = bytes(3, 5 * PART as usize + 100);
    let calm = Fake::new(SMALL);
    let made = AtomicBool::new(false);
    let failing = calm.clone().failing(move |op, _| {
        made.fetch_or(op == Op::Complete, SeqCst);
        match op {
            Op::Get if made.load(SeqCst) => Fate::FailBefore,
            _ => Fate::Fine,
        }
    });
    let metadata = metadata();
    let first = reader(on(&failing, options(SMALL)), metadata.clone()).await;
    let id = send_chunks(&first, &whole).await;
    calm.rot(2);
    let error = first.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    first.shutdown(Duration::from_secs(1)).await;

    let next = reader(on(&calm, options(SMALL)), metadata).await;
    has_failed(&next, &calm, id).await;
    goes_through(&next, &calm, &whole).await;
}

/// A blob was made of good bytes, whose answer was lost; when it is tried again those that it was made of are rotten.
#[tokio::test(start_paused = true)]
async fn what_rotted_after_a_lost_answer_fails_and_leaves_nothing() {
    let whole = bytes(3, 5 * PART as usize + 100);
    let calm = Fake::new(SMALL);
    let (armed, down) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let failing = calm.clone().failing({
        let (armed, down) = (armed.clone(), down.clone());
        move |op, _| match op {
            Op::Complete if armed.load(SeqCst) => {
                down.store(true, SeqCst);
                Fate::FailAfter
            }
            Op::Get if down.load(SeqCst) => Fate::FailBefore,
            _ => Fate::Fine,
        }
    });
    let blobs = options(SMALL).staged(Arc::new(failing)).unwrap();
    let uploads = reader(blobs, metadata()).await;
    let id = send_chunks(&uploads, &whole).await;
    armed.store(true, SeqCst);
    let error = uploads.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    armed.store(false, SeqCst);
    down.store(false, SeqCst);

    let staged: Vec<_> = calm.objects.list(None).try_collect().await.unwrap();
    assert!(staged.iter().any(|meta| !meta.location.as_ref().contains(".uploads")));
    let mut pieces = staged.into_iter().filter(|meta| meta.size == PART);
    let piece = pieces.next().unwrap().location;
    calm.objects.put(&piece, vec![0; PART as usize].into()).await.unwrap();
    has_failed(&uploads, &calm, id).await;
    goes_through(&uploads, &calm, &whole).await;
}

/// Staged bytes are read before anything is published: what rotted is sent again.
#[tokio::test]
async fn what_rotted_before_it_was_published_is_sent_again() {
    let whole = bytes(3, 5 * PART as usize + 100);
    let fake = Fake::new(SMALL);
    let uploads = reader(options(SMALL).staged(Arc::new(fake.clone())).unwrap(), metadata()).await;
    let id = send_chunks(&uploads, &whole).await;
    let staged: Vec<_> = fake.objects.list(None).try_collect().await.unwrap();
    let piece = staged.iter().find(|meta| meta.size == PART).unwrap();
    let rotten = vec![0; PART as usize].into();
    fake.objects.put(&piece.location, rotten).await.unwrap();
    let error = uploads.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete, "{error:?}");
    let [(number, last)] = *error.missing() else {
        panic!("{error:?}")
    };
    assert_eq!(number, last);
    let chunk = &whole[number as usize * PART as usize..][..PART as usize];
    let new = NewChunk::new(number);
    uploads.put_chunk(&alice(), id, new, body(chunk)).await.unwrap();
    uploads.assemble(&alice(), id, None).await.unwrap();
    assert!(content(&uploads, id).await == whole);
    is_clean(&fake, 1).await;
}

/// Refuses everything, once it may.
struct Refusing(Arc<(Notify, Notify)>);

#[async_trait]
impl Hook for Refusing {
    fn wants_bytes(&self) -> bool {
        true
    }

    async fn before_publish(&self, _: &Record, _: Option<BlobBody>) -> crate::Result<()> {
        self.0.0.notify_one();
        self.0.1.notified().await;
        Err(Error::invalid("file", "nobody likes it"))
    }
}

/// One node judges for so long that another one takes the assembly over, and finds nothing wrong.
#[tokio::test]
async fn a_late_verdict_deletes_nothing_that_was_published() {
    let whole = bytes(3, 5 * PART as usize + 100);
    let (fake, metadata) = (Fake::new(SMALL), metadata());
    let steps = Arc::new((Notify::new(), Notify::new()));
    let slow = engine(on(&fake, options(SMALL)), metadata.clone())
        .hook(Refusing(steps.clone()))
        .without_driver()
        .build()
        .await
        .unwrap();
    let quick = reader(on(&fake, options(SMALL)), metadata).await;
    let id = send_chunks(&quick, &whole).await;
    let caller: Caller = alice();
    let judged = slow.assemble(&caller, id, None);
    let overtaken = async {
        steps.0.notified().await;
        let upload = quick.assemble(&alice(), id, None).await.unwrap();
        assert_eq!(upload.state(), State::Assembled);
        steps.1.notify_one();
    };
    let (judged, ()) = tokio::join!(judged, overtaken);
    assert_eq!(judged.unwrap().state(), State::Assembled, "who was first was right");
    assert!(content(&quick, id).await == whole);
}
