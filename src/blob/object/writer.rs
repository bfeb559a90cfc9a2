//! Writers: of chunks, each of which is a part or a staged object as it is; of appends, which are cut at steps.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{
    Shared,
    backend::Why,
    claims::Claim,
    memory::Load,
    place::{Cut, Native, Piece, Place, Put, Stored, total},
};
use crate::{
    blob::{Before, PartWriter, Slot},
    error::{Error, Result},
    planted::{Bug, planted},
    upload::Receipt,
};

/// How many staged objects may lie behind the last step: more are made one.
const MOST_PIECES: usize = 16;
/// How many names of spent objects a receipt remembers. What it forgets goes when the upload ends.
const MOST_SPENT: usize = 64;

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

/// One attempt at an append to an upload that is cut at steps.
pub(super) struct StepWriter {
    shared: Arc<Shared>,
    place: Arc<Place>,
    native: Native,
    claim: Arc<Claim>,
    slot: Slot,
    step: u64,
    /// The size of the file, if it was known when the upload began.
    size: Option<u64>,
    offset: u64,
    len: u64,
    /// The part that the bytes go to.
    index: u32,
    /// What lies behind the last step: staged already, and not yet.
    pieces: Vec<Piece>,
    load: Load,
    spent: Vec<String>,
    puts: Vec<JoinHandle<Result<Put>>>,
}

impl StepWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        place: Place,
        (native, step, size): (Native, u64, Option<u64>),
        claim: Arc<Claim>,
        slot: Slot,
        before: Before<'_>,
    ) -> Result<Self> {
        let unknown = || Error::internal("What lies before the append is not known to the object store");
        let offset = slot.offset.ok_or_else(unknown)?;
        let last = match before.last() {
            Some(receipt) => Stored::parse(receipt).ok_or_else(unknown)?,
            None => Stored::default(),
        };
        let index = u32::try_from(offset / step).map_err(|_| unknown())?;
        if total(&last.pieces) != offset % step || (before.last().is_none() && offset > 0) {
            return Err(unknown());
        }
        // Spent by what may never be committed: they wait for the part that is, which is this one.
        let spent = match before.finished {
            Some(_) => last.spent,
            None => Vec::new(),
        };
        let load = Load::new(shared.memory.clone(), step.min(slot.max_len));
        let writer = Self {
            place: Arc::new(place),
            native,
            claim,
            slot,
            step,
            size,
            offset,
            len: 0,
            index,
            pieces: last.pieces,
            load,
            spent,
            puts: Vec::new(),
            shared,
        };
        writer.delete_spent(before.committed);
        Ok(writer)
    }

    /// Deletes what is needed no more since a part was committed. What is left goes when the upload ends.
    fn delete_spent(&self, committed: Option<&Receipt>) {
        let spent = if planted(Bug::TailDeletedTooEarly) {
            self.pieces.iter().map(|piece| piece.name.clone()).collect()
        } else {
            committed
                .and_then(Stored::parse)
                .map_or_else(Vec::new, |stored| stored.spent)
        };
        if spent.is_empty() {
            return;
        }
        let dir = self.shared.paths.dir(&self.place.dir);
        let paths = spent.into_iter().map(|name| dir.clone().join(name)).collect();
        let backend = self.shared.backend.clone();
        tokio::spawn(async move { drop(backend.delete(paths).await) });
    }

    /// Bytes that the part under way has by now.
    fn filled(&self) -> u64 {
        total(&self.pieces) + self.load.len()
    }

    /// Puts what lies behind the last step as a part, by a task of its own.
    fn cut(&mut self) -> Result<()> {
        let count = self.shared.options.parts.count;
        if self.index >= count {
            let most = self.step.saturating_mul(count.into());
            return Err(Error::too_large(
                format!("Without its length told at the beginning a file may have {most} bytes here; tell it"),
                most,
            ));
        }
        let fresh = Load::new(self.shared.memory.clone(), self.step);
        let load = std::mem::replace(&mut self.load, fresh);
        let pieces = std::mem::take(&mut self.pieces);
        self.spent.extend(pieces.iter().map(|piece| piece.name.clone()));
        let (shared, place) = (Arc::clone(&self.shared), Arc::clone(&self.place));
        let (native, claim, index) = (self.native.clone(), Arc::clone(&self.claim), self.index);
        self.index += 1;
        self.puts.push(tokio::spawn(async move {
            let _permit = claim.permit().await?;
            let len = total(&pieces) + load.len();
            let ready = load.ready(total(&pieces)).await?;
            let mut frames = shared.read_pieces(&place, &pieces).await?;
            frames.extend(ready.frames);
            claim.check()?;
            let put = shared.backend.put_part(&native, index, &frames).await;
            let put = put.map_err(|trouble| match trouble.why {
                Why::NotThere => {
                    claim.entry.set_dropped();
                    Error::internal("The object store has dropped the unfinished upload; begin a new one")
                }
                _ => trouble.into(),
            })?;
            shared.counters.sent(len);
            drop(ready.reserved);
            Ok(put)
        }));
        Ok(())
    }

    /// Keeps what lies behind the last step as a staged object, and makes one of many.
    async fn stage(&mut self) -> Result<()> {
        let _permit = self.claim.permit().await?;
        let fresh = Load::new(self.shared.memory.clone(), 0);
        let load = std::mem::replace(&mut self.load, fresh);
        let merged = if self.pieces.len() < MOST_PIECES {
            Vec::new()
        } else {
            let small = self.step / MOST_PIECES as u64;
            let large = self.pieces.iter().rposition(|piece| piece.len >= small);
            let from = large.map_or(0, |at| at + 1);
            self.pieces
                .split_off(if from + 1 < self.pieces.len() { from } else { 0 })
        };
        let ready = load.ready(total(&merged)).await?;
        let mut frames = self.shared.read_pieces(&self.place, &merged).await?;
        frames.extend(ready.frames);
        self.pieces.push(self.shared.stage(&self.place, &frames).await?);
        self.spent.extend(merged.into_iter().map(|piece| piece.name));
        Ok(())
    }

    async fn end(mut self) -> Result<Stored> {
        if self.load.len() > 0 {
            if self.size == Some(self.offset + self.len) {
                self.cut()?;
            } else {
                self.stage().await?;
            }
        }
        let mut puts = Vec::new();
        for put in std::mem::take(&mut self.puts) {
            puts.push(ended(put).await?);
        }
        self.claim.check()?;
        self.spent.truncate(MOST_SPENT);
        Ok(Stored {
            number: self.slot.number,
            len: self.len,
            puts,
            pieces: std::mem::take(&mut self.pieces),
            spent: std::mem::take(&mut self.spent),
        })
    }
}

#[async_trait]
impl PartWriter for StepWriter {
    async fn write(&mut self, frames: Vec<Bytes>) -> Result<()> {
        self.claim.check()?;
        self.len = check_len(self.len, &frames, self.slot)?;
        let mut batch = Vec::new();
        let mut left = self.step - self.filled();
        for mut frame in frames {
            while frame.len() as u64 >= left {
                batch.push(frame.split_to(usize::try_from(left).unwrap_or(usize::MAX)));
                self.load.push(std::mem::take(&mut batch)).await?;
                self.cut()?;
                left = self.step;
            }
            left -= frame.len() as u64;
            if !frame.is_empty() {
                batch.push(frame);
            }
        }
        if !batch.is_empty() {
            self.load.push(batch).await?;
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Receipt> {
        let stored = ended(tokio::spawn(self.end())).await?;
        Ok(stored.receipt())
    }
}

impl fmt::Debug for StepWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepWriter")
            .field("place", &self.place)
            .field("slot", &self.slot)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// The length with `frames`, if the slot has room for them.
fn check_len(len: u64, frames: &[Bytes], slot: Slot) -> Result<u64> {
    let more: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
    match len.checked_add(more) {
        Some(len) if len <= slot.max_len => Ok(len),
        _ => Err(Error::too_large("The part is longer than its slot", slot.max_len)),
    }
}

/// What a task came to.
pub(super) async fn ended<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Error::internal("The request failed; try again").with_source(error)),
        Err(_) => Err(Error::unavailable("The server is going down; try again in a moment")),
    }
}
