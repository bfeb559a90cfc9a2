use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::{
    blob::Completed,
    error::{Error, ErrorKind, Result},
    upload::{Blob, Handle, Key, Part, Plan, Receipt, Timestamp, UploadId},
};

/// All that a memory store holds: every method is one step.
#[derive(Default)]
pub(super) struct Shelves {
    pub(super) staged: HashMap<Handle, Staged>,
    pub(super) blobs: BTreeMap<Key, Published>,
    capacity: u64,
    pub(super) used: u64,
    /// The last number given to a handle or an attempt.
    last: u64,
}

pub(super) struct Staged {
    pub(super) id: UploadId,
    pub(super) begun: Timestamp,
    places: HashMap<u32, Place>,
    published: Option<Key>,
}

#[derive(Default)]
pub(super) struct Place {
    /// The newest attempt: the only one that may write.
    claim: u64,
    pub(super) stored: Option<Stored>,
}

pub(super) struct Stored {
    pub(super) receipt: Receipt,
    pub(super) content: Content,
}

impl Stored {
    pub(super) fn is(&self, part: &Part) -> bool {
        self.receipt == part.receipt && self.content.len == part.len
    }
}

#[derive(Default)]
pub(super) struct Content {
    pub(super) frames: Vec<Bytes>,
    pub(super) len: u64,
}

impl Content {
    pub(super) fn of(frames: Vec<Bytes>) -> Self {
        let len = frames.iter().map(|frame| frame.len() as u64).sum();
        Self { frames, len }
    }
}

/// A blob, with what it was made of, so that a second `complete` can be told from another upload's.
pub(super) struct Published {
    handle: Handle,
    parts: Vec<(u32, Stored)>,
}

impl Published {
    pub(super) fn size(&self) -> u64 {
        self.parts.iter().map(|(_, stored)| stored.content.len).sum()
    }

    pub(super) fn blob(&self) -> Blob {
        Blob::new(self.size(), None)
    }

    pub(super) fn is(&self, handle: &Handle, parts: &[Part]) -> bool {
        self.handle == *handle
            && self.parts.len() == parts.len()
            && self
                .parts
                .iter()
                .zip(parts)
                .all(|((number, stored), part)| *number == part.number && stored.is(part))
    }

    pub(super) fn bytes(&self, start: u64, end: u64) -> Vec<Bytes> {
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
    pub(super) fn with_capacity(bytes: u64) -> Self {
        Self {
            capacity: bytes,
            ..Self::default()
        }
    }

    pub(super) fn begin(&mut self, now: Timestamp, id: UploadId, plan: &Plan) -> Result<Handle> {
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

    pub(super) fn claim(&mut self, handle: &Handle, number: u32) -> Result<u64> {
        let attempt = self.number();
        let staged = self.staged.get_mut(handle).ok_or_else(superseded)?;
        if staged.published.is_some() {
            return Err(superseded());
        }
        staged.places.entry(number).or_default().claim = attempt;
        Ok(attempt)
    }

    pub(super) fn claimed(&mut self, handle: &Handle, number: u32, attempt: u64) -> Result<&mut Place> {
        self.staged
            .get_mut(handle)
            .and_then(|staged| staged.places.get_mut(&number))
            .filter(|place| place.claim == attempt)
            .ok_or_else(superseded)
    }

    pub(super) fn reserve(&mut self, bytes: u64) -> Result<()> {
        match self.used.checked_add(bytes) {
            Some(used) if used <= self.capacity => {
                self.used = used;
                Ok(())
            }
            _ => Err(no_space()),
        }
    }

    pub(super) fn find(&self, handle: &Handle, part: &Part) -> Option<&Content> {
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

    pub(super) fn complete(&mut self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
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

    pub(super) fn discard(&mut self, handle: &Handle) {
        if let Some(staged) = self.staged.remove(handle) {
            self.free(staged.places);
        }
    }

    pub(super) fn put(&mut self, key: &Key, bytes: Bytes) -> Result<()> {
        self.reserve(bytes.len() as u64)?;
        let stored = Stored {
            receipt: Receipt::new(""),
            content: Content::of(vec![bytes]),
        };
        let put = Published {
            handle: Handle::new(format!("put.{}", self.number())),
            parts: vec![(0, stored)],
        };
        let replaced = self.blobs.insert(key.clone(), put);
        self.used -= replaced.map_or(0, |replaced| replaced.size());
        Ok(())
    }

    pub(super) fn clear(&mut self, folder: &Key) {
        let is_below = |key: &Key| {
            let rest = key.as_str().strip_prefix(folder.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let mut freed = 0;
        self.blobs.retain(|key, published| {
            let goes = is_below(key);
            freed += if goes { published.size() } else { 0 };
            !goes
        });
        self.used -= freed;
    }

    fn free(&mut self, places: HashMap<u32, Place>) {
        self.used -= places
            .into_values()
            .filter_map(|place| place.stored)
            .map(|stored| stored.content.len)
            .sum::<u64>();
    }
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
