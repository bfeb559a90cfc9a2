use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;

use self::shelves::{Content, Published, Shelves, Stored};
use super::{BlobBody, BlobStore, ByteRange, Completed, Limits, PartWriter, Slot};
use crate::{
    engine::{Clock, SystemClock},
    error::{Error, ErrorKind, Result},
    upload::{Blob, Handle, Key, Part, Plan, Receipt, UploadId},
};

mod shelves;

/// Blobs in memory, for tests and small things. Frames are kept as they are, never copied.
///
/// It fulfils every clause of [`BlobStore`] but the durable one.
pub struct MemoryBlobs {
    clock: Arc<dyn Clock>,
    shelves: Shared,
}

impl MemoryBlobs {
    /// An empty store without a bound.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(u64::MAX)
    }

    /// An empty store that answers [`NoSpace`](ErrorKind::NoSpace) past `bytes` in parts and blobs together.
    #[must_use]
    pub fn with_capacity(bytes: u64) -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            shelves: Shared(Arc::new(Mutex::new(Shelves::with_capacity(bytes)))),
        }
    }

    /// Goes by `clock` for what was [`begun`](BlobStore::begun) when.
    #[must_use]
    pub fn by_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The bytes in parts and blobs together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shelves.lock().used
    }
}

impl Default for MemoryBlobs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shelves = self.shelves.lock();
        f.debug_struct("MemoryBlobs")
            .field("staged", &shelves.staged.len())
            .field("blobs", &shelves.blobs.len())
            .field("used", &shelves.used)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    fn limits(&self) -> Limits {
        Limits::UNBOUNDED
    }

    async fn begin(&self, id: UploadId, _: &Key, plan: &Plan) -> Result<Handle> {
        self.shelves.lock().begin(self.clock.now(), id, plan)
    }

    async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
        let attempt = self.shelves.lock().claim(handle, slot.number)?;
        Ok(Box::new(MemoryWriter {
            shelves: self.shelves.clone(),
            handle: handle.clone(),
            slot,
            attempt,
            content: Content::default(),
        }))
    }

    async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> {
        let shelves = self.shelves.lock();
        let contents: Option<Vec<Vec<Bytes>>> = parts
            .iter()
            .map(|part| Some(shelves.find(handle, part)?.frames.clone()))
            .collect();
        let contents = contents.ok_or_else(|| Error::new(ErrorKind::NotFound, "A part is not there as recorded"))?;
        Ok(Some(body(contents.concat())))
    }

    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        self.shelves.lock().complete(handle, key, parts)
    }

    async fn discard(&self, handle: &Handle) -> Result<()> {
        self.shelves.lock().discard(handle);
        Ok(())
    }

    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        let now = self.clock.now();
        let shelves = self.shelves.lock();
        let old = shelves
            .staged
            .iter()
            .filter(|(_, staged)| now.since(staged.begun) >= older_than);
        Ok(old.map(|(handle, staged)| (staged.id, handle.clone())).collect())
    }

    async fn head(&self, key: &Key) -> Result<Option<Blob>> {
        Ok(self.shelves.lock().blobs.get(key).map(Published::blob))
    }

    async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> {
        let shelves = self.shelves.lock();
        let published = shelves.blobs.get(key).ok_or_else(no_blob)?;
        let size = published.size();
        if range.start > size {
            return Err(Error::invalid("range", format!("The blob ends at byte {size}")));
        }
        Ok(body(published.bytes(range.start, range.end.unwrap_or(size).min(size))))
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let mut shelves = self.shelves.lock();
        if let Some(published) = shelves.blobs.remove(key) {
            shelves.used -= published.size();
        }
        Ok(())
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        self.shelves.lock().put(key, bytes)
    }

    async fn clear(&self, folder: &Key) -> Result<()> {
        self.shelves.lock().clear(folder);
        Ok(())
    }
}

/// One attempt: its bytes are its own until `finish` puts them into the slot.
struct MemoryWriter {
    shelves: Shared,
    handle: Handle,
    slot: Slot,
    attempt: u64,
    content: Content,
}

#[async_trait]
impl PartWriter for MemoryWriter {
    async fn write(&mut self, frames: Vec<Bytes>) -> Result<()> {
        let mut shelves = self.shelves.lock();
        shelves.claimed(&self.handle, self.slot.number, self.attempt)?;
        let more = Content::of(frames);
        if self.content.len.saturating_add(more.len) > self.slot.max_len {
            return Err(Error::too_large("The part is longer than its slot", self.slot.max_len));
        }
        shelves.reserve(more.len)?;
        self.content.len += more.len;
        self.content.frames.extend(more.frames);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Receipt> {
        let mut shelves = self.shelves.lock();
        let place = shelves.claimed(&self.handle, self.slot.number, self.attempt)?;
        let stored = Stored {
            receipt: Receipt::new(self.attempt.to_string()),
            content: std::mem::take(&mut self.content),
        };
        let receipt = stored.receipt.clone();
        let replaced = place.stored.replace(stored);
        shelves.used -= replaced.map_or(0, |replaced| replaced.content.len);
        Ok(receipt)
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        self.shelves.lock().used -= self.content.len;
    }
}

impl fmt::Debug for MemoryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWriter")
            .field("handle", &self.handle)
            .field("slot", &self.slot)
            .field("attempt", &self.attempt)
            .field("len", &self.content.len)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Shelves>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn body(frames: Vec<Bytes>) -> BlobBody {
    Box::pin(stream::iter(frames.into_iter().map(Ok)))
}

fn no_blob() -> Error {
    Error::new(ErrorKind::NotFound, "There is no such blob")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    async fn begun(store: &MemoryBlobs) -> Handle {
        let id = UploadId::from_bytes([7; 16]);
        store.begin(id, &key("a"), &Plan::sequential(None)).await.unwrap()
    }

    #[tokio::test]
    async fn space_is_given_back_by_whatever_ends() {
        let store = MemoryBlobs::with_capacity(10);
        let handle = begun(&store).await;
        let bytes = |len: usize| vec![Bytes::from(vec![1; len])];

        let mut dropped = store.open(&handle, Slot::aside(0, 100)).await.unwrap();
        dropped.write(bytes(8)).await.unwrap();
        assert_eq!(dropped.write(bytes(3)).await.unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(store.used(), 8);
        drop(dropped);
        assert_eq!(store.used(), 0);

        let mut receipt = Receipt::new("none");
        for _ in 0..3 {
            let mut writer = store.open(&handle, Slot::at(0, 0, 100)).await.unwrap();
            writer.write(bytes(4)).await.unwrap();
            receipt = writer.finish().await.unwrap();
        }
        assert_eq!(store.used(), 4);
        let mut unused = store.open(&handle, Slot::at(1, 4, 100)).await.unwrap();
        unused.write(bytes(2)).await.unwrap();
        let done = store
            .complete(&handle, &key("a"), &[Part::new(0, 4, 0, receipt)])
            .await
            .unwrap();
        assert_eq!(done, Completed::Done(Blob::new(4, None)));
        store.discard(&handle).await.unwrap();
        drop(unused);
        assert_eq!(store.used(), 4);
        assert_eq!(
            store
                .begin(UploadId::from_bytes([8; 16]), &key("b"), &Plan::sequential(Some(7)))
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::NoSpace
        );
        store.delete(&key("a")).await.unwrap();
        assert_eq!(store.used(), 0);
    }
}
