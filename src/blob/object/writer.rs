//! Writers of chunks, each of which is a part or a staged object as it is.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{
    Shared,
    claims::Claim,
    memory::Load,
    place::{Cut, Native, Place, Stored},
    trouble::Why,
};
use crate::{
    blob::{PartWriter, Slot},
    error::{Error, Result},
    upload::Receipt,
};

/// One attempt at a part that is kept as it comes.
pub(super) struct ChunkWriter {
    shared: Arc<Shared>,
    place: Arc<Place>,
    claim: Arc<Claim>,
    slot: Slot,
    load: Load,
}

impl ChunkWriter {
    pub(super) fn new(shared: Arc<Shared>, place: Place, claim: Arc<Claim>, slot: Slot) -> Self {
        let load = Load::new(shared.memory.clone(), slot.max_len);
        Self {
            shared,
            place: Arc::new(place),
            claim,
            slot,
            load,
        }
    }

    /// The multipart upload, if a chunk of `len` bytes can be a part of it.
    fn native(&self, len: u64) -> Option<&Native> {
        let native = self.place.native.as_ref()?;
        let Cut::Chunks(chunks) = native.cut else { return None };
        let offset = self.slot.offset?;
        let number = self.slot.number;
        let chunk = match number {
            0 if chunks == 1 => len,
            0 => self.slot.max_len,
            _ => offset / u64::from(number),
        };
        let is_last = number + 1 == chunks;
        let fits = self.shared.options.parts.fit(chunk, chunks)
            && number < chunks
            && offset == chunk * u64::from(number)
            && if is_last { len <= chunk } else { len == chunk };
        (fits && !self.claim.entry.is_dropped()).then_some(native)
    }

    async fn put(self) -> Result<Stored> {
        let len = self.load.len();
        let mut stored = Stored {
            number: self.slot.number,
            len,
            ..Stored::default()
        };
        let permit = self.claim.permit().await?;
        if len == 0 {
            return Ok(stored);
        }
        let native = self.native(len).cloned();
        let Self {
            shared,
            place,
            claim,
            load,
            slot,
        } = self;
        let ready = load.ready(0).await?;
        claim.check()?;
        if let Some(native) = native {
            match shared.backend.put_part(&native, slot.number, &ready.frames).await {
                Ok(put) => {
                    shared.counters.sent(len);
                    stored.puts.push(put);
                    return Ok(stored);
                }
                Err(trouble) if trouble.why == Why::NotThere => claim.entry.set_dropped(),
                Err(trouble) => return Err(trouble.into()),
            }
        }
        stored.pieces.push(shared.stage(&place, &ready.frames).await?);
        drop((ready, permit));
        Ok(stored)
    }
}

#[async_trait]
impl PartWriter for ChunkWriter {
    async fn write(&mut self, frames: Vec<Bytes>) -> Result<()> {
        self.claim.check()?;
        check_len(self.load.len(), &frames, self.slot)?;
        self.load.push(frames).await
    }

    async fn finish(self: Box<Self>) -> Result<Receipt> {
        // A task of its own: a newer claim waits for the request, although this future may be dropped.
        let stored = ended(tokio::spawn(self.put())).await?;
        Ok(stored.receipt())
    }
}

impl fmt::Debug for ChunkWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkWriter")
            .field("place", &self.place)
            .field("slot", &self.slot)
            .field("len", &self.load.len())
            .finish_non_exhaustive()
    }
}

/// The length with `frames`, if the slot has room for them.
pub(super) fn check_len(len: u64, frames: &[Bytes], slot: Slot) -> Result<u64> {
    let more: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
    match len.checked_add(more) {
        Some(len) if len <= slot.max_len => Ok(len),
        _ => Err(too_long(slot)),
    }
}

pub(super) fn too_long(slot: Slot) -> Error {
    Error::too_large("The part is longer than its slot", slot.max_len)
}

/// What a task came to.
pub(super) async fn ended<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Error::internal("The request failed; try again").with_source(error)),
        Err(_) => Err(Error::unavailable("The server is going down; try again in a moment")),
    }
}
