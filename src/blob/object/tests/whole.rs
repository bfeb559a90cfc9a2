//! Whole uploads through the engine: what arrives, how often it is sent, and what is left over.

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use object_store::ObjectStoreExt as _;

use super::{
    fake::{Fake, Op},
    *,
};
use crate::{
    Address, Builder, Caller, Clock, FileName, NewChunk, NewUpload, Ready, State, Target, UploadId, Uploads,
    access::OwnerOnly, metadata::MemoryMetadata, upload::Timestamp,
};

pub(super) const PART: u64 = 4096;

pub(super) fn alice() -> Caller {
    Caller::new("alice")
}

pub(super) fn bytes(who: u64, len: usize) -> Vec<u8> {
    let mut state = who.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

pub(super) fn body(bytes: &[u8]) -> impl futures_core::Stream<Item = crate::Result<Bytes>> + Send + use<> {
    let frames: Vec<_> = bytes
        .chunks(700)
        .map(|frame| Ok(Bytes::copy_from_slice(frame)))
        .collect();
    stream::iter(frames)
}

pub(super) fn engine(blobs: impl BlobStore, metadata: Arc<MemoryMetadata>) -> Builder<Ready> {
    Uploads::with(blobs, metadata)
        .authorizer(OwnerOnly)
        .checkpoint(3 * PART - 100)
        .expire_after(Duration::from_secs(5 * 86_400))
        .configure(|config| {
            config.tick = Duration::from_secs(10);
            config.sweep_every = Duration::from_secs(300);
        })
}

/// Goes by tokio's clock, which tests turn on.
#[derive(Debug)]
struct Virtual(tokio::time::Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000).after(self.0.elapsed())
    }
}

pub(super) fn metadata() -> Arc<MemoryMetadata> {
    let clock = Arc::new(Virtual(tokio::time::Instant::now()));
    Arc::new(MemoryMetadata::with_clock(clock))
}

pub(super) async fn content(uploads: &Uploads, id: UploadId) -> Vec<u8> {
    let (_, body) = uploads.read(&alice(), id, ByteRange::ALL).await.unwrap();
    body.try_collect::<Vec<_>>().await.unwrap().concat()
}

/// Nothing lies in the backend but these many blobs.
pub(super) async fn is_clean(fake: &Fake, blobs: usize) {
    let all: Vec<_> = fake.objects.list(None).try_collect().await.unwrap();
    let paths: Vec<String> = all.iter().map(|meta| meta.location.to_string()).collect();
    let staged = paths
        .iter()
        .filter(|path| path.contains(".uploads") && !path.ends_with("clock"));
    assert_eq!(staged.collect::<Vec<_>>(), Vec::<&String>::new(), "something is staged");
    assert_eq!(paths.iter().filter(|path| !path.contains(".uploads")).count(), blobs);
    assert_eq!(fake.uploads(), 0, "a multipart upload is left");
}

struct Sent {
    whole: Vec<u8>,
    fake: Fake,
    uploads: Uploads,
    blobs: ObjectBlobs,
    id: Option<UploadId>,
}

impl Sent {
    async fn new(bounds: PartBounds, len: usize) -> Self {
        let fake = Fake::new(bounds);
        let blobs = on(&fake, options(bounds).with_prefix("media"));
        Self {
            whole: bytes(7, len),
            uploads: engine(blobs.clone(), Arc::default())
                .without_driver()
                .build()
                .await
                .unwrap(),
            blobs,
            fake,
            id: None,
        }
    }

    async fn chunks(&mut self, size: u64, order: impl IntoIterator<Item = u32>) {
        let new = NewUpload::new("a.mp4").size(self.whole.len() as u64).chunk_size(size);
        let id = self.uploads.create(&alice(), new).await.unwrap().id();
        self.id = Some(id);
        for number in order {
            let at = u64::from(number) * size;
            let chunk = &self.whole[at as usize..self.whole.len().min((at + size) as usize)];
            let new = NewChunk::new(number);
            self.uploads.put_chunk(&alice(), id, new, body(chunk)).await.unwrap();
        }
    }

    async fn appends(&mut self, new: NewUpload, lens: impl IntoIterator<Item = usize>) {
        let id = self.uploads.create(&alice(), new).await.unwrap().id();
        self.id = Some(id);
        let mut at = 0;
        for len in lens {
            let end = self.whole.len().min(at + len);
            let piece = body(&self.whole[at..end]);
            let done = self.uploads.append(&alice(), id, at as u64, piece).await.unwrap();
            assert_eq!(done.offset, end as u64);
            at = end;
        }
    }

    /// Bytes sent for each one received, and the requests of each kind.
    async fn publish(self, what: &str) -> f64 {
        let id = self.id.unwrap();
        let before = self.fake.asked().get(&Op::Part).copied().unwrap_or_default();
        let upload = self.uploads.assemble(&alice(), id, None).await.unwrap();
        assert_eq!(upload.state(), State::Assembled);
        assert!(content(&self.uploads, id).await == self.whole, "{what}: other bytes");
        is_clean(&self.fake, 1).await;
        assert!(self.blobs.shared.memory.is_free(), "{what}: memory is held");
        assert_eq!(self.blobs.shared.registry.alive(), 0, "{what}: an entry is left");
        let ratio = self.fake.sent() as f64 / self.whole.len() as f64;
        let asked = self.fake.asked();
        println!("{what}: {ratio:.4} bytes sent for each received, {before} parts before the end; {asked:?}");
        ratio
    }
}

fn shuffled(count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by_key(|number| number.wrapping_mul(0x9E37_79B9));
    order
}

#[tokio::test]
async fn chunks_are_sent_once_in_whatever_order() {
    let bounds = PartBounds::new(PART, 1 << 30, 10_000).equal();
    for (what, order) in [("in order", (0..250).collect()), ("shuffled", shuffled(250))] {
        let mut sent = Sent::new(bounds, 250 * PART as usize - 1234).await;
        sent.chunks(PART, order).await;
        let ratio = sent.publish(what).await;
        assert!(ratio <= 1.01, "{what}: {ratio}");
    }
}

#[tokio::test]
async fn a_last_chunk_that_comes_first_is_sent_twice_and_the_others_once() {
    let mut sent = Sent::new(SMALL, 100 * PART as usize - 1234).await;
    let (target, name) = (Target::parse("9").unwrap(), FileName::parse("a.mp4").unwrap());
    for number in (0..100).rev() {
        let at = number as usize * PART as usize;
        let chunk = &sent.whole[at..sent.whole.len().min(at + PART as usize)];
        let new = NewChunk::new(number).total(100);
        let stored = sent
            .uploads
            .put_chunk(&alice(), Address::Name(Some(&target), &name), new, body(chunk))
            .await;
        sent.id = Some(stored.unwrap().upload_id);
    }
    let ratio = sent.publish("last first").await;
    assert!(ratio <= 1.02, "{ratio}");
}

#[tokio::test]
async fn chunks_too_small_for_parts_are_cut_anew() {
    let bounds = PartBounds::new(PART, 1 << 30, 10_000).equal();
    let mut sent = Sent::new(bounds, 100 * 777 - 50).await;
    sent.chunks(777, shuffled(100)).await;
    let ratio = sent.publish("small chunks").await;
    assert!(ratio <= 2.1, "{ratio}");
}

#[tokio::test]
async fn more_chunks_than_parts_are_cut_anew() {
    let bounds = PartBounds::new(10, 1 << 30, 50);
    let mut sent = Sent::new(bounds, 100 * 777 - 50).await;
    sent.chunks(777, 0..100).await;
    sent.publish("more chunks than parts").await;
}

#[tokio::test]
async fn a_stream_is_sent_once() {
    let bounds = PartBounds::new(PART, 1 << 30, 10_000).equal();
    let len = 300 * PART as usize + 1234;
    let mut sent = Sent::new(bounds, len).await;
    sent.appends(NewUpload::new("a.mp4").size(len as u64), [len]).await;
    let ratio = sent.publish("one stream, its length known").await;
    assert!(ratio <= 1.001, "{ratio}");
    let mut sent = Sent::new(bounds, len).await;
    sent.appends(NewUpload::new("a.mp4"), [len]).await;
    let ratio = sent.publish("one stream, its length not known").await;
    assert!(ratio <= 1.01, "{ratio}");
}

#[tokio::test]
async fn appends_of_odd_lengths_are_sent_at_most_about_twice() {
    let bounds = PartBounds::new(PART, 1 << 30, 10_000).equal();
    let len = 60 * PART as usize + 77;
    for (what, step, most) in [
        ("appends of two and a half parts", 10_240, 1.6),
        ("appends of a third of a part", 1365, 2.1),
        ("appends of a part", PART as usize, 1.01),
        ("appends of a thirtieth of a part", 137, 2.8),
        ("appends of ten parts and a bit", 41_000, 1.2),
    ] {
        let mut sent = Sent::new(bounds, len).await;
        let new = NewUpload::new("a.mp4").size(len as u64);
        sent.appends(new, (0..len.div_ceil(step)).map(|_| step)).await;
        let ratio = sent.publish(what).await;
        assert!(ratio <= most, "{what}: {ratio}");
    }
}

#[tokio::test]
async fn small_and_empty_files() {
    for len in [0, 1, 500, PART as usize] {
        let mut sent = Sent::new(PartBounds::new(PART, 1 << 30, 10_000), len).await;
        sent.appends(NewUpload::new("a.mp4").size(len as u64), [len]).await;
        sent.publish(&format!("a file of {len} bytes")).await;
        if len > 0 {
            let mut sent = Sent::new(PartBounds::new(PART, 1 << 30, 10_000), len).await;
            sent.chunks(PART, [0]).await;
            sent.publish(&format!("a file of {len} bytes in a chunk")).await;
        }
    }
}

/// Of a stream a multipart upload began, as nobody knew; an object of no parts is not made of it.
#[tokio::test]
async fn a_file_that_turns_out_empty_leaves_no_multipart_upload() {
    let mut sent = Sent::new(SMALL, 0).await;
    sent.appends(NewUpload::new("a.mp4"), [0]).await;
    assert_eq!(sent.fake.uploads(), 1);
    sent.publish("an empty stream").await;

    let mut sent = Sent::new(SMALL, 0).await;
    let (target, name) = (Target::parse("9").unwrap(), FileName::parse("a.mp4").unwrap());
    let address = Address::Name(Some(&target), &name);
    let empty = NewChunk::new(0).total(1);
    let stored = sent.uploads.put_chunk(&alice(), address, empty, body(&[])).await;
    sent.id = Some(stored.unwrap().upload_id);
    sent.publish("an empty chunk").await;
}

#[tokio::test]
async fn a_file_of_unknown_length_may_need_too_many_parts() {
    let len = 30 * PART as usize;
    let bounds = PartBounds::new(PART, 1 << 30, 20);
    let sent = Sent::new(bounds, len).await;
    let id = sent
        .uploads
        .create(&alice(), NewUpload::new("a.mp4"))
        .await
        .unwrap()
        .id();
    let refused = sent.uploads.append(&alice(), id, 0, body(&sent.whole)).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    // With its length told, parts are as large as need be.
    let mut sent = Sent::new(PartBounds::new(1, 2 << 20, 20), 3 << 20).await;
    let new = NewUpload::new("a.mp4").size(3 << 20);
    sent.appends(new, [3 << 20]).await;
    sent.publish("parts made larger").await;
}

/// What is sent to the backend for each byte that is received, if these are joined.
async fn joined(fake: &Fake, bounds: PartBounds, pieces: &[Vec<u8>], step: usize) -> f64 {
    let blobs = on(fake, options(bounds));
    let uploads = engine(blobs.clone(), metadata())
        .configure(|config| config.join_step = 20_000)
        .without_driver()
        .build()
        .await
        .unwrap();
    let mut ids = Vec::new();
    for piece in pieces {
        let new = NewUpload::new("a.bin").size(piece.len() as u64).partial();
        let id = uploads.create(&alice(), new).await.unwrap().id();
        for at in (0..piece.len()).step_by(step) {
            let bytes = &piece[at..piece.len().min(at + step)];
            uploads.append(&alice(), id, at as u64, body(bytes)).await.unwrap();
        }
        ids.push(id);
    }
    let new = NewUpload::new("a.bin");
    let upload = uploads.concatenate(&alice(), new, &ids, false).await.unwrap();
    assert_eq!(upload.state(), State::Assembled);
    let whole = pieces.concat();
    assert!(content(&uploads, upload.id()).await == whole);
    is_clean(fake, 1).await;
    assert!(blobs.shared.memory.is_free(), "memory is held");
    blobs.sent_bytes() as f64 / whole.len() as f64
}

#[tokio::test]
async fn uploads_are_joined() {
    let bounds = PartBounds::new(PART, 1 << 30, 10_000);
    let odd = || {
        [
            bytes(1, 50_000),
            bytes(2, 40),
            bytes(3, 0),
            bytes(4, 4096),
            bytes(5, 9999),
        ]
    };
    let large = || [bytes(1, 200_000), bytes(2, 333_333), bytes(3, 250_001)];
    let copies = |fake: &Fake| fake.asked().get(&Op::Copy).copied().unwrap_or_default();

    let fake = Fake::new(bounds);
    let ratio = joined(&fake, bounds, &large(), 1 << 20).await;
    assert!(ratio < 1.05 && copies(&fake) > 50, "{ratio}, {} copies", copies(&fake));
    joined(&Fake::new(bounds), bounds, &odd(), 1 << 20).await;
    joined(&Fake::new(bounds), bounds, &odd(), 3000).await;
    // Appends too small for parts are sent again.
    let ratio = joined(&Fake::new(bounds), bounds, &large(), 900).await;
    assert!(ratio < 2.5, "{ratio}");

    // Where parts must be equal, or tags say nothing, they are sent again, and one copy is enough to find that out.
    let fake = Fake::new(bounds.equal());
    joined(&fake, bounds.equal(), &odd(), 1 << 20).await;
    assert_eq!(copies(&fake), 0);
    let fake = Fake::new(bounds).opaque();
    joined(&fake, bounds, &large(), 1 << 20).await;
    assert!((1..10).contains(&copies(&fake)), "{} copies", copies(&fake));
    // More of them than there may be parts.
    let few = PartBounds::new(100, 1 << 30, 20);
    joined(&Fake::new(few), few, &large(), 3000).await;
}

#[tokio::test]
async fn one_look_is_enough_where_the_tag_of_an_object_is_not_told() {
    let fake = Fake::new(SMALL).silent();
    let blobs = on(&fake, options(SMALL));
    let uploads = engine(blobs.clone(), metadata())
        .without_driver()
        .build()
        .await
        .unwrap();
    let whole = bytes(7, 5 * PART as usize);
    let new = NewUpload::new("a.mp4").size(whole.len() as u64).chunk_size(PART);
    let id = uploads.create(&alice(), new).await.unwrap().id();
    for (number, chunk) in (0..).zip(whole.chunks(PART as usize)) {
        let new = NewChunk::new(number);
        uploads.put_chunk(&alice(), id, new, body(chunk)).await.unwrap();
    }
    let before = fake.asked();
    let upload = uploads.assemble(&alice(), id, None).await.unwrap();
    let asked = |op| fake.asked().get(&op).copied().unwrap_or(0) - before.get(&op).copied().unwrap_or(0);
    assert_eq!((asked(Op::Get), asked(Op::Complete)), (1, 1));
    let found = blobs.head(upload.key()).await.unwrap();
    assert_eq!(
        upload.record().blob,
        found,
        "the tag that follows from the parts is the object's"
    );
}

#[tokio::test]
async fn aborted_and_forgotten_uploads_leave_nothing() {
    let fake = Fake::new(SMALL);
    let options = || options(SMALL).with_prefix("media").with_orphan_age(Duration::ZERO);
    let metadata = metadata();
    let blobs = on(&fake, options());
    let uploads = engine(blobs.clone(), metadata.clone())
        .orphan_grace(Duration::from_millis(1))
        .without_driver()
        .build()
        .await
        .unwrap();
    let new = NewUpload::new("a.mp4").size(10 * PART).chunk_size(PART);
    let id = uploads.create(&alice(), new).await.unwrap().id();
    let chunk = bytes(1, PART as usize);
    uploads
        .put_chunk(&alice(), id, NewChunk::new(3), body(&chunk))
        .await
        .unwrap();
    uploads.abort(&alice(), id).await.unwrap();
    is_clean(&fake, 0).await;

    // Begun and recorded nowhere; a multipart upload alone; a directory without its mark; and others' things.
    let plan = Plan::indexed(2, Some(PART), Some(2 * PART));
    let key = Key::parse("lost").unwrap();
    let handle = blobs.begin(UploadId::from_bytes([3; 16]), &key, &plan).await.unwrap();
    let path = object_store::path::Path::from("media/orphan");
    fake.create_multipart(&path).await.unwrap();
    fake.create_multipart(&"elsewhere".into()).await.unwrap();
    let stray = format!("media/.uploads/{}.0/x", UploadId::from_bytes([4; 16]));
    fake.objects.put(&stray.into(), vec![1, 2].into()).await.unwrap();
    let foreign = "media/.uploads/not-ours/x";
    fake.objects.put(&foreign.into(), vec![1].into()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let swept = uploads.sweep().await.unwrap();
    assert_eq!(swept.unknown, 3, "{handle:?}");
    assert_eq!(fake.uploads(), 1, "what is not beneath the prefix is somebody else's");
    let left: Vec<_> = fake.objects.list(None).try_collect().await.unwrap();
    let left: Vec<String> = left.iter().map(|meta| meta.location.to_string()).collect();
    assert_eq!(left, ["media/.uploads/clock", foreign]);
}
