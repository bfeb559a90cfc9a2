//! Hooks that read the bytes, where only what is complete can be read.

use async_trait::async_trait;
use futures_util::TryStreamExt as _;

use super::{
    fake::Fake,
    whole::{PART, alice, body, bytes, content, engine, is_clean, metadata},
    *,
};
use crate::{
    Hook, NewChunk, NewUpload, State, Target, UploadId, Uploads,
    upload::{EventKind, Record},
};

/// Refuses what begins with a zero; is away the first time.
struct Scanner {
    blobs: ObjectBlobs,
    read: Arc<std::sync::Mutex<Vec<Vec<u8>>>>,
}

#[async_trait]
impl Hook for Scanner {
    fn wants(&self, _: EventKind) -> bool {
        false
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    async fn before_publish(&self, record: &Record, bytes: Option<BlobBody>) -> Result<()> {
        assert!(self.blobs.head(&record.key).await?.is_some(), "it is complete");
        let bytes = bytes.unwrap().try_collect::<Vec<_>>().await?.concat();
        let is_refused = bytes[0] == 0;
        let mut read = self.read.lock().unwrap();
        read.push(bytes);
        match read.len() {
            1 => Err(Error::unavailable("the scanner is away")),
            _ if is_refused => Err(Error::new(ErrorKind::Forbidden, "There is a virus in it")),
            _ => Ok(()),
        }
    }
}

async fn sent(uploads: &Uploads, whole: &[u8]) -> UploadId {
    let new = NewUpload::new("a.mp4")
        .target(Target::parse("7").unwrap())
        .size(whole.len() as u64)
        .chunk_size(PART);
    let id = uploads.create(&alice(), new).await.unwrap().id();
    for (number, chunk) in (0..).zip(whole.chunks(PART as usize)) {
        let new = NewChunk::new(number);
        uploads.put_chunk(&alice(), id, new, body(chunk)).await.unwrap();
    }
    id
}

#[tokio::test]
async fn a_scanner_reads_what_is_complete_and_what_it_refuses_is_withdrawn() {
    let fake = Fake::new(SMALL);
    let blobs = on(&fake, options(SMALL).with_prefix("media"));
    let read = Arc::default();
    let scanner = Scanner {
        blobs: blobs.clone(),
        read: Arc::clone(&read),
    };
    let builder = engine(blobs.clone(), metadata()).hook(scanner).without_driver();
    let uploads = builder.build().await.unwrap();
    let mut infected = bytes(7, 3 * PART as usize + 99);
    infected[0] = 0;
    let mut clean = infected.clone();
    clean[0] = 1;

    let id = sent(&uploads, &infected).await;
    let away = uploads.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(away.kind(), ErrorKind::Unavailable, "{away:?}");
    let refused = uploads.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Failed, "{refused:?}");
    let upload = uploads.status(&alice(), id).await.unwrap();
    assert_eq!(upload.state(), State::Failed);
    assert!(upload.failure().unwrap().contains("There is a virus in it"));
    assert!(blobs.head(upload.key()).await.unwrap().is_none());
    is_clean(&fake, 0).await;

    // The name and the key are free for one that is clean.
    let id = sent(&uploads, &clean).await;
    let published = uploads.assemble(&alice(), id, None).await.unwrap();
    assert_eq!((published.state(), published.key()), (State::Assembled, upload.key()));
    assert!(content(&uploads, id).await == clean);
    is_clean(&fake, 1).await;
    assert!(
        *read.lock().unwrap() == [infected.clone(), infected, clean],
        "other bytes"
    );
}
