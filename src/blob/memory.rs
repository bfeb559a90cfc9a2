use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;

use super::{BlobBody, BlobStore, ByteRange, Completed, Limits, PartWriter, Slot};
use crate::{
    engine::{Clock, SystemClock},
    error::{Error, ErrorKind, Result},
    upload::{Blob, Handle, Key, Part, Plan, Receipt, Timestamp, UploadId},
};

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
            shelves: Shared(Arc::new(Mutex::new(Shelves {
                capacity: bytes,
                ..Shelves::default()
            }))),
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

#[derive(Default)]
struct Shelves {
    staged: HashMap<Handle, Staged>,
    blobs: BTreeMap<Key, Published>,
    capacity: u64,
    used: u64,
    /// The last number given to a handle or an attempt.
    last: u64,
}

struct Staged {
    id: UploadId,
    begun: Timestamp,
    places: HashMap<u32, Place>,
    published: Option<Key>,
}

#[derive(Default)]
struct Place {
    /// The newest attempt: the only one that may write.
    claim: u64,
    stored: Option<Stored>,
}

struct Stored {
    receipt: Receipt,
    content: Content,
}

impl Stored {
    fn is(&self, part: &Part) -> bool {
        self.receipt == part.receipt && self.content.len == part.len
    }
}

#[derive(Default)]
struct Content {
    frames: Vec<Bytes>,
    len: u64,
}

impl Content {
    fn of(frames: Vec<Bytes>) -> Self {
        let len = frames.iter().map(|frame| frame.len() as u64).sum();
        Self { frames, len }
    }
}

/// A blob, with what it was made of, so that a second `complete` can be told from another upload's.
struct Published {
    handle: Handle,
    parts: Vec<(u32, Stored)>,
}

impl Published {
    fn size(&self) -> u64 {
        self.parts.iter().map(|(_, stored)| stored.content.len).sum()
    }

    fn blob(&self) -> Blob {
        Blob::new(self.size(), None)
    }

    fn is(&self, handle: &Handle, parts: &[Part]) -> bool {
        self.handle == *handle
            && self.parts.len() == parts.len()
            && self
                .parts
                .iter()
                .zip(parts)
                .all(|((number, stored), part)| *number == part.number && stored.is(part))
    }

    fn bytes(&self, start: u64, end: u64) -> Vec<Bytes> {
        let mut at = 0;
        let mut out = Vec::new();
        for frame in self.parts.iter().flat_map(|(_, stored)| &stored.content.frames) {
            let len = frame.len() as u64;
            let (from, to) = (start.max(at), end.min(at + len));
            if let (Ok(first), Ok(last), true) = (
                usize::try_from(from - at),
                usize::try_from(to.saturating_sub(at)),
                from < to,
            ) {
                out.push(frame.slice(first..last));
            }
            at += len;
        }
        out
    }
}

impl Shelves {
    fn begin(&mut self, now: Timestamp, id: UploadId, plan: &Plan) -> Result<Handle> {
        if plan.size.is_some_and(|size| size > self.capacity - self.used) {
            return Err(no_space());
        }
        let handle = Handle::new(format!("{id}.{}", self.number()));
        self.staged.insert(
            handle.clone(),
            Staged {
                id,
                begun: now,
                places: HashMap::new(),
                published: None,
            },
        );
        Ok(handle)
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn claim(&mut self, handle: &Handle, number: u32) -> Result<u64> {
        let attempt = self.number();
        let staged = self.staged.get_mut(handle).ok_or_else(superseded)?;
        if staged.published.is_some() {
            return Err(superseded());
        }
        staged.places.entry(number).or_default().claim = attempt;
        Ok(attempt)
    }

    fn claimed(&mut self, handle: &Handle, number: u32, attempt: u64) -> Result<&mut Place> {
        self.staged
            .get_mut(handle)
            .and_then(|staged| staged.places.get_mut(&number))
            .filter(|place| place.claim == attempt)
            .ok_or_else(superseded)
    }

    fn reserve(&mut self, bytes: u64) -> Result<()> {
        match self.used.checked_add(bytes) {
            Some(used) if used <= self.capacity => {
                self.used = used;
                Ok(())
            }
            _ => Err(no_space()),
        }
    }

    fn find(&self, handle: &Handle, part: &Part) -> Option<&Content> {
        let staged = self.staged.get(handle)?;
        let stored = match staged.published.as_ref().and_then(|key| self.blobs.get(key)) {
            Some(published) => published
                .parts
                .iter()
                .find(|(number, _)| *number == part.number)
                .map(|(_, stored)| stored),
            None => staged.places.get(&part.number).and_then(|place| place.stored.as_ref()),
        };
        stored.filter(|stored| stored.is(part)).map(|stored| &stored.content)
    }

    fn complete(&mut self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        if let Some(published) = self.blobs.get(key) {
            return Ok(if published.is(handle, parts) {
                Completed::Done(published.blob())
            } else {
                Completed::KeyTaken
            });
        }
        let lost: Vec<u32> = parts
            .iter()
            .filter(|part| self.find(handle, part).is_none())
            .map(|part| part.number)
            .collect();
        if !lost.is_empty() {
            return Ok(Completed::PartsLost(lost));
        }
        let staged = self
            .staged
            .get_mut(handle)
            .ok_or_else(|| Error::internal("The handle was discarded"))?;
        if staged.published.is_some() {
            return Err(Error::internal("The upload was published under another key"));
        }

        // From here on no attempt holds a claim, so that nobody writes any more.
        let mut places = std::mem::take(&mut staged.places);
        staged.published = Some(key.clone());
        let parts = parts
            .iter()
            .filter_map(|part| Some((part.number, places.remove(&part.number)?.stored?)))
            .collect();
        let published = Published {
            handle: handle.clone(),
            parts,
        };
        let blob = published.blob();
        self.blobs.insert(key.clone(), published);
        self.free(places);
        Ok(Completed::Done(blob))
    }

    fn discard(&mut self, handle: &Handle) {
        if let Some(staged) = self.staged.remove(handle) {
            self.free(staged.places);
        }
    }

    fn free(&mut self, places: HashMap<u32, Place>) {
        self.used -= places
            .into_values()
            .filter_map(|place| place.stored)
            .map(|stored| stored.content.len)
            .sum::<u64>();
    }
}

fn body(frames: Vec<Bytes>) -> BlobBody {
    Box::pin(stream::iter(frames.into_iter().map(Ok)))
}

fn superseded() -> Error {
    Error::new(
        ErrorKind::Superseded,
        "A newer request took over; nothing more is written",
    )
}

fn no_space() -> Error {
    Error::new(ErrorKind::NoSpace, "The memory store is full; delete something first")
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
