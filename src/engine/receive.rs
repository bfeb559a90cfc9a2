//! Chunks: claim, look up, write, sync, commit, acknowledge.

use bytes::Bytes;
use futures_core::{Stream, stream::BoxStream};
use futures_util::StreamExt as _;

use super::{
    Address, Held, NewChunk, StoredChunk, Uploads,
    again::{check_announced, check_digest},
    ended, ended_or_sealed,
    intake::Intake,
    live::{Spot, Turn},
    request::check_len,
};
use crate::{
    access::{Action, Caller, Subject},
    blob::Slot,
    error::{Error, ErrorKind, Result},
    metadata::{Committed, Guard, Lookup, PartRange, QuotaBound},
    observe,
    planted::{Bug, planted},
    upload::{Digest, Part, Plan, Record, Snapshot, State, Tally},
};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where the bytes of a chunk come from.
pub(super) enum Source<'a> {
    Stream(BoxStream<'a, Result<Bytes>>),
    Held(Held),
}

impl Uploads {
    /// Stores one chunk of an indexed upload: any one, in any order, in parallel with others.
    ///
    /// When it answers, the chunk is durable. The same bytes again are answered the same; a newer request for the same
    /// chunk stops an older one that is still receiving. If the chunk is addressed by name, knows its
    /// [`total`](NewChunk::total) and there is no such upload, it creates it.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) for other bytes than those stored; [`Invalid`](ErrorKind::Invalid) for a chunk that
    /// does not fit what the upload began with; [`Interrupted`](ErrorKind::Interrupted) if the body ends early;
    /// [`ChecksumMismatch`](ErrorKind::ChecksumMismatch); [`Superseded`](ErrorKind::Superseded);
    /// [`QuotaExceeded`](ErrorKind::QuotaExceeded); those of the stores. After an error nothing of the chunk counts, unless
    /// it was [`Unavailable`](ErrorKind::Unavailable): then the outcome is unknown until the same request is answered.
    pub async fn put_chunk<S, E>(
        &self,
        caller: &Caller,
        to: impl Into<Address<'_>> + Send,
        chunk: NewChunk,
        body: S,
    ) -> Result<StoredChunk>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BoxError>,
    {
        self.put(caller, to.into(), chunk, Source::Stream(frames(body))).await
    }

    /// Stores a chunk that was [held](Self::hold).
    ///
    /// # Errors
    /// As [`put_chunk`](Self::put_chunk).
    pub async fn put_held(
        &self,
        caller: &Caller,
        to: impl Into<Address<'_>> + Send,
        chunk: NewChunk,
        held: Held,
    ) -> Result<StoredChunk> {
        self.put(caller, to.into(), chunk, Source::Held(held)).await
    }

    /// Takes a body in before it is known where it belongs: in memory, if all of `len` bytes (or of the largest chunk)
    /// can be reserved at once, else in an anonymous temporary file.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) for more than the largest chunk; [`Interrupted`](ErrorKind::Interrupted) if fewer bytes
    /// than `len` come.
    pub async fn hold<S, E>(&self, len: Option<u64>, body: S) -> Result<Held>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BoxError>,
    {
        let _working = self.inner.tasks.begin()?;
        self.inner
            .budget
            .hold(len, self.inner.config.max_chunk, &mut frames(body))
            .await
    }

    /// As [`hold`](Self::hold), for a body of which only a bound is known: `most` bytes, or the largest chunk if that is less.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) for more.
    pub async fn hold_at_most<S, E>(&self, most: u64, body: S) -> Result<Held>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BoxError>,
    {
        let _working = self.inner.tasks.begin()?;
        let most = most.min(self.inner.config.max_chunk);
        self.inner.budget.hold(None, most, &mut frames(body)).await
    }

    async fn put(&self, caller: &Caller, to: Address<'_>, chunk: NewChunk, source: Source<'_>) -> Result<StoredChunk> {
        let _working = self.inner.tasks.begin()?;
        let by = match to {
            Address::Id(id) => Lookup::Id(id),
            Address::Name(target, file_name) => Lookup::Name(caller.owner(), target, file_name),
        };
        let found = self.inner.metadata.load(by, PartRange::one(chunk.index)).await?;
        match (found, to) {
            (Some(snapshot), _) => {
                observe::concerns(snapshot.record.id);
                self.authorize(caller, Action::Write, Subject::Upload(&snapshot.record))
                    .await?;
                self.put_existing(snapshot, &chunk, source).await
            }
            (None, Address::Name(target, file_name)) if chunk.total.is_some() => {
                Box::pin(self.put_first(caller, target, file_name, chunk, source)).await
            }
            (None, _) => Err(Error::not_found()),
        }
    }

    /// Stores a chunk of an upload that exists and that the caller may write to.
    pub(super) async fn put_existing(
        &self,
        snapshot: Snapshot,
        chunk: &NewChunk,
        mut source: Source<'_>,
    ) -> Result<StoredChunk> {
        let id = snapshot.record.id;
        if let Some(part) = self.stored(&snapshot, chunk)?
            && !planted(Bug::RetryOverwritesCommittedSlot)
        {
            return self.compare(&snapshot, &part, chunk, source).await;
        }
        if !is_placed(&snapshot.record.plan) {
            // Its place depends on the length of another chunk: nothing goes in place before that is fixed.
            source = Source::Held(self.held(source, chunk).await?);
        }
        let turn = self.inner.live.take_over(Spot::Chunk(id, chunk.index)).await?;
        let snapshot = self.load(id, PartRange::one(chunk.index)).await?;
        if let Some(part) = self.stored(&snapshot, chunk)?
            && !planted(Bug::RetryOverwritesCommittedSlot)
        {
            drop(turn);
            return self.compare(&snapshot, &part, chunk, source).await;
        }
        let record = self.fence(snapshot.record).await?;
        if let Source::Held(held) = &source {
            check_len(&record.plan, chunk.index, held.len(), self.inner.config.max_chunk)?;
        }
        let slot = self.slot(&record.plan, chunk, &source);
        let writer = self.inner.blobs.open(&record.handle, slot).await?;
        let intake = self
            .take_in(writer, &record.plan, chunk, &mut source, slot, &turn)
            .await?;
        let guard = self.guard(&record, chunk, intake.len())?;
        let settle = self.clone().settle(intake, record, guard, chunk.index, turn);
        drop(source);
        self.inner.tasks.see_through(settle).await
    }

    /// The stored part, if the chunk is stored; an error if it does not fit the upload or can be stored no more.
    fn stored(&self, snapshot: &Snapshot, chunk: &NewChunk) -> Result<Option<Part>> {
        let record = &snapshot.record;
        chunk.check(&record.plan, self.inner.config.max_chunk)?;
        match (record.state, snapshot.parts.first()) {
            (State::Open | State::Assembling | State::Assembled, Some(part)) => Ok(Some(part.clone())),
            (State::Open, None) => Ok(None),
            (State::Assembling | State::Assembled, None) => Err(ended_or_sealed(record)),
            _ => Err(ended(record)),
        }
    }

    /// Where a chunk is written.
    pub(super) fn slot(&self, plan: &Plan, chunk: &NewChunk, source: &Source<'_>) -> Slot {
        let max_len = plan
            .chunk_len(chunk.index)
            .or(plan.chunk_size)
            .unwrap_or(self.inner.config.max_chunk);
        let max_len = max_len + u64::from(planted(Bug::ChunkSizePlusOneAccepted));
        match (plan.chunk_offset(chunk.index), source) {
            (Some(offset), _) if is_placed(plan) => Slot::at(chunk.index, offset, max_len),
            (_, Source::Held(held)) if planted(Bug::WriteInPlaceBeforePin) => {
                Slot::at(chunk.index, u64::from(chunk.index) * held.len(), max_len)
            }
            _ => Slot::aside(chunk.index, max_len),
        }
    }

    /// Takes a chunk's bytes in and checks all that is said of them.
    pub(super) async fn take_in(
        &self,
        writer: Box<dyn crate::blob::PartWriter>,
        plan: &Plan,
        chunk: &NewChunk,
        source: &mut Source<'_>,
        slot: Slot,
        turn: &Turn,
    ) -> Result<Intake> {
        let algorithm = chunk.checksum.as_ref().map(Digest::algorithm);
        let intake = match source {
            Source::Stream(body) => {
                let mut intake = Intake::new(writer, algorithm, true);
                intake.take_all(&self.inner, body, slot.max_len, turn).await?;
                intake
            }
            Source::Held(held) => {
                let mut intake = Intake::new(writer, algorithm, held.is_in_file());
                intake
                    .take_all(&self.inner, &mut held.read()?, slot.max_len, turn)
                    .await?;
                intake
            }
        };
        check_announced(chunk, intake.len())?;
        if !planted(Bug::ChunkSizePlusOneAccepted) {
            check_len(plan, chunk.index, intake.len(), self.inner.config.max_chunk)?;
        }
        check_digest(chunk, intake.digest()?)?;
        Ok(intake)
    }

    /// What the commit of a chunk of `len` bytes asks for and fixes.
    pub(super) fn guard(&self, record: &Record, chunk: &NewChunk, len: u64) -> Result<Guard> {
        let plan = &record.plan;
        let mut guard = Guard::new(record.epoch);
        guard.quota = self.inner.config.quota;
        let chunks = u64::from(plan.chunks.unwrap_or(1));
        if chunks == 1 {
            guard.size = Some(len);
            return Ok(guard);
        }
        if plan.chunk_size.is_none() && !plan.is_last(chunk.index) {
            guard.pin = Some(len);
        }
        if let Some(chunk_size) = plan.chunk_size.or(guard.pin) {
            let fewest = chunk_size.saturating_mul(chunks - 1);
            if fewest > self.inner.config.max_size {
                let max = self.inner.config.max_size;
                return Err(Error::too_large(format!("A file may have {max} bytes at most"), max));
            }
            if let Some(size) = chunk.file_size {
                if size < fewest || size > chunk_size.saturating_mul(chunks) {
                    let message = format!("{chunks} chunks of {chunk_size} bytes make no file of {size} bytes");
                    return Err(Error::invalid("fileSize", message));
                }
                guard.size = Some(size);
            }
        }
        Ok(guard)
    }

    /// Makes a chunk durable and commits it. Runs to its end although the request may not, and holds `turn` until then, so
    /// that nobody writes to the slot while the commit is under way.
    async fn settle(
        self,
        intake: Intake,
        record: Record,
        mut guard: Guard,
        index: u32,
        turn: Turn,
    ) -> Result<StoredChunk> {
        let (len, crc64) = (intake.len(), intake.crc64());
        let receipt = intake.finish().await?;
        let part = Part::new(index, len, crc64, receipt);
        let id = record.id;
        if planted(Bug::AcknowledgeBeforeCommit) {
            let tally = self
                .load(id, PartRange::NONE)
                .await?
                .tally
                .with(std::slice::from_ref(&part), &[]);
            tokio::spawn(async move { self.inner.metadata.commit(id, &guard, &[part]).await });
            return Ok(stored_chunk(&record, index, tally));
        }
        let result = loop {
            match self
                .inner
                .metadata
                .commit(id, &guard, std::slice::from_ref(&part))
                .await
            {
                Ok(Committed::Done(tally)) => {
                    self.inner.live.changed(id);
                    break Ok(stored_chunk(&record, index, tally));
                }
                Ok(Committed::Present(stored)) => break self.same(&record, &part, &stored).await,
                // Fenced since, by this very process: this slot is still ours and no older commit of it is in doubt.
                Ok(Committed::Refused(now, _))
                    if now.state == State::Open
                        && now.epoch != guard.epoch
                        && self.inner.limits.in_place
                        && now.epoch == self.incarnation() =>
                {
                    guard.epoch = now.epoch;
                }
                Ok(Committed::Refused(now, _)) => break self.refused(&guard, &part, &now).await,
                Ok(Committed::OverQuota(bound)) => break Err(over_quota(bound)),
                Ok(Committed::Unknown) => break Err(Error::not_found()),
                Err(error) => {
                    self.doubt();
                    break Err(error);
                }
            }
        };
        drop(turn);
        result
    }

    /// Takes the whole chunk in, because where it belongs is not known before its end.
    pub(super) async fn held(&self, source: Source<'_>, chunk: &NewChunk) -> Result<Held> {
        match source {
            Source::Held(held) => Ok(held),
            Source::Stream(mut body) => {
                self.inner
                    .budget
                    .hold(chunk.len, self.inner.config.max_chunk, &mut body)
                    .await
            }
        }
    }
}

/// Whether the place of every chunk is fixed.
pub(super) fn is_placed(plan: &Plan) -> bool {
    plan.chunk_size.is_some() || plan.chunks == Some(1)
}

pub(super) fn stored_chunk(record: &Record, index: u32, tally: Tally) -> StoredChunk {
    let total = record.plan.chunks.unwrap_or(tally.parts);
    StoredChunk {
        upload_id: record.id,
        index,
        stored: tally.parts,
        total,
        is_complete: tally.parts == total,
    }
}

pub(super) fn over_quota(bound: QuotaBound) -> Error {
    Error::new(
        ErrorKind::QuotaExceeded,
        match bound {
            QuotaBound::Uploads(limit) => format!("You have {limit} unfinished uploads; finish or abort some first"),
            QuotaBound::Bytes(limit) => {
                format!("Your unfinished uploads may have {limit} bytes; finish or abort some first")
            }
        },
    )
    .with_retry_after(std::time::Duration::from_secs(60))
}

/// A body as the engine reads it. An [`Error`] of the crate in it is passed on; any other one is an interruption.
pub(super) fn frames<'a, S, E>(body: S) -> BoxStream<'a, Result<Bytes>>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'a,
    E: Into<BoxError>,
{
    body.map(|frame| {
        frame.map_err(|error| match error.into().downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::new(ErrorKind::Interrupted, "The body ended early; send it again").with_source(error),
        })
    })
    .boxed()
}
