//! Writers of appends, which are cut at steps.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{
    Shared,
    claims::Claim,
    memory::Load,
    place::{Native, Piece, Place, Put, Stored, total},
    trouble::{Trouble, Why},
    writer::{check_len, ended, too_long},
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
    /// Not all parts before it are of one step.
    is_free: bool,
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
        let (index, behind) = match last.next {
            Some(next) => (next, total(&last.pieces)),
            None => (u32::try_from(offset / step).map_err(|_| unknown())?, offset % step),
        };
        if total(&last.pieces) != behind || behind >= step || (before.last().is_none() && offset > 0) {
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
            is_free: last.next.is_some(),
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
    pub(super) fn filled(&self) -> u64 {
        total(&self.pieces) + self.load.len()
    }

    pub(super) fn claim(&self) -> Arc<Claim> {
        Arc::clone(&self.claim)
    }

    /// Where the upload ends by now.
    pub(super) const fn end_offset(&self) -> u64 {
        self.offset + self.len
    }

    /// Puts what lies behind the last step as a part, by a task of its own.
    fn cut(&mut self) -> Result<()> {
        let fresh = Load::new(self.shared.memory.clone(), self.step);
        let load = std::mem::replace(&mut self.load, fresh);
        let pieces = std::mem::take(&mut self.pieces);
        self.spent.extend(pieces.iter().map(|piece| piece.name.clone()));
        let (shared, place) = (Arc::clone(&self.shared), Arc::clone(&self.place));
        let claim = Arc::clone(&self.claim);
        self.put(move |native, index| async move {
            let len = total(&pieces) + load.len();
            let ready = load.ready(total(&pieces)).await?;
            let mut frames = shared.read_pieces(&place, &pieces).await?;
            frames.extend(ready.frames);
            claim.check()?;
            let put = shared.backend.put_part(&native, index, &frames).await;
            let put = put.map_err(|trouble| refused(&claim, trouble))?;
            shared.counters.sent(len);
            drop(ready.reserved);
            Ok(put)
        })
    }

    /// The same wherever the part is by now; nothing where one has just ended.
    pub(super) fn cut_here(&mut self) -> Result<()> {
        if self.filled() == 0 {
            return Ok(());
        }
        self.is_free |= self.filled() != self.step;
        self.cut()
    }

    /// Makes the next part of `len` bytes that do not come through here.
    pub(super) fn put_elsewhere<F>(&mut self, len: u64, put: impl FnOnce(Native, u32) -> F) -> Result<()>
    where
        F: Future<Output = Result<Put>> + Send + 'static,
    {
        self.len += len;
        if self.len > self.slot.max_len {
            return Err(too_long(self.slot));
        }
        self.is_free |= len != self.step;
        self.put(put)
    }

    /// Puts the next part, by a task of its own.
    fn put<F>(&mut self, put: impl FnOnce(Native, u32) -> F) -> Result<()>
    where
        F: Future<Output = Result<Put>> + Send + 'static,
    {
        let count = self.shared.options.parts.count;
        if self.index >= count {
            let most = self.step.saturating_mul(count.into());
            return Err(Error::too_large(
                format!("Without its length told at the beginning a file may have {most} bytes here; tell it"),
                most,
            ));
        }
        let (claim, put) = (Arc::clone(&self.claim), put(self.native.clone(), self.index));
        self.index += 1;
        self.puts.push(tokio::spawn(async move {
            let _permit = claim.permit().await?;
            put.await
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

    /// As [`end`](Self::end); what can be a part, with `least` bytes, becomes one.
    pub(super) async fn end_joined(mut self: Box<Self>, least: u64) -> Result<Stored> {
        if self.load.len() > 0 && self.filled() >= least {
            self.cut_here()?;
        }
        self.end().await
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
            next: self.is_free.then_some(self.index),
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

/// Why a part was not put.
pub(super) fn refused(claim: &Claim, trouble: Trouble) -> Error {
    if trouble.why != Why::NotThere {
        return trouble.into();
    }
    claim.entry.set_dropped();
    Error::internal("The object store has dropped the unfinished upload; begin a new one")
}
