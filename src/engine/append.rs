//! Appends: one writer at the end of a sequential upload, whose durable prefix counts.

use std::fmt;

use bytes::Bytes;
use futures_core::Stream;

use super::{
    Address, Appended, CONTENTION, Uploads, contended, ended_or_sealed,
    live::Spot,
    receive::{BoxError, frames},
    writing::{End, Run, other_size, too_much},
};
use crate::{
    access::{Action, Caller, Subject},
    error::{Error, ErrorKind, Result},
    metadata::{PartRange, PartsEdit},
    planted::{Bug, planted},
    upload::{Algorithm, Digest, Layout, Record, Snapshot, State, UploadId, Wake},
};

/// What a client says of an append. See [`Uploads::append_with`].
#[derive(Default)]
#[non_exhaustive]
pub struct NewAppend {
    pub(super) len: Option<u64>,
    pub(super) checksum: Expected,
    pub(super) completes: bool,
    pub(super) seals_when_whole: bool,
    pub(super) progress: Option<Progress>,
}

/// Is told the offset after every checkpoint.
pub(super) type Progress = Box<dyn Fn(u64) + Send + Sync>;

/// The checksum of a body, as far as it is known.
#[derive(Default)]
pub(super) enum Expected {
    #[default]
    None,
    Given(Digest),
    Later(Vec<Algorithm>, Box<dyn FnOnce() -> Result<Digest> + Send + Sync>),
}

impl NewAppend {
    /// Nothing said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The length that the body announced, in bytes.
    #[must_use]
    pub const fn len(mut self, bytes: u64) -> Self {
        self.len = Some(bytes);
        self
    }

    /// The checksum of the body. All of it counts or nothing.
    #[must_use]
    pub fn checksum(mut self, checksum: Digest) -> Self {
        self.checksum = Expected::Given(checksum);
        self
    }

    /// The same, told by `checksum` after the end of the body: by one of `algorithms`, all of which are computed.
    #[must_use]
    pub fn checksum_later(
        mut self,
        algorithms: impl IntoIterator<Item = Algorithm>,
        checksum: impl FnOnce() -> Result<Digest> + Send + Sync + 'static,
    ) -> Self {
        self.checksum = Expected::Later(algorithms.into_iter().collect(), Box::new(checksum));
        self
    }

    /// The end of the body is the end of the file: the upload is sealed with its last byte, and
    /// [`assemble`](Uploads::assemble) or the driver makes the blob.
    #[must_use]
    pub const fn completes(mut self) -> Self {
        self.completes = true;
        self
    }

    /// The upload is sealed by the byte that reaches its size, as one is that its protocol began so: if the caller may
    /// assemble it.
    #[cfg(feature = "http")]
    pub(crate) const fn seals_when_whole(mut self) -> Self {
        self.seals_when_whole = true;
        self
    }

    /// Is told the offset whenever more is durable, on the way.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }
}

impl fmt::Debug for NewAppend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checksum = match &self.checksum {
            Expected::None => None,
            Expected::Given(digest) => Some(digest.to_string()),
            Expected::Later(..) => Some("later".to_owned()),
        };
        f.debug_struct("NewAppend")
            .field("len", &self.len)
            .field("checksum", &checksum)
            .field("completes", &self.completes)
            .finish_non_exhaustive()
    }
}

impl Uploads {
    /// Appends `body` to a sequential upload at `offset`, which must be its end.
    ///
    /// Every [checkpoint](super::Builder::checkpoint) is made durable on the way. If the body breaks off, a newer append
    /// takes over or this future is dropped, the prefix that was received is made durable and counts.
    ///
    /// # Errors
    /// [`OffsetMismatch`](ErrorKind::OffsetMismatch) with the true offset; [`TooLarge`](ErrorKind::TooLarge) for a body that goes
    /// past the end of the file, whose legal prefix counts; [`Interrupted`](ErrorKind::Interrupted);
    /// [`Superseded`](ErrorKind::Superseded); those of the stores.
    pub async fn append<S, E>(&self, caller: &Caller, id: UploadId, offset: u64, body: S) -> Result<Appended>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BoxError>,
    {
        self.append_with(caller, id, offset, NewAppend::new(), body).await
    }

    /// As [`append`](Self::append), with what the client says of the body. With a checksum nothing counts before all of it was
    /// verified.
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`ChecksumMismatch`](ErrorKind::ChecksumMismatch).
    pub async fn append_with<S, E>(
        &self,
        caller: &Caller,
        id: UploadId,
        offset: u64,
        mut append: NewAppend,
        body: S,
    ) -> Result<Appended>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BoxError>,
    {
        let _working = self.inner.tasks.begin()?;
        let found = self
            .find(caller, Address::Id(id), Action::Write, PartRange::NONE)
            .await?;
        check(&found, offset)?;
        if append.completes && found.record.is_partial() {
            return Err(Error::invalid(
                "complete",
                "A partial upload is not completed by itself, but joined with others",
            ));
        }
        if append.seals_when_whole {
            let may = self.authorize(caller, Action::Assemble, Subject::Upload(&found.record));
            append.seals_when_whole = !found.record.seals_itself && !found.record.is_partial() && may.await.is_ok();
        }
        let turn = self.inner.live.take_over(Spot::End(id)).await?;
        let snapshot = self.load(id, PartRange::NONE).await?;
        check(&snapshot, offset)?;
        let room_to = |end: Option<u64>| end.unwrap_or(self.inner.config.max_size).saturating_sub(offset);
        let mut end_of_file = snapshot.record.plan.size;
        let mut room = room_to(end_of_file);
        if append.len.is_some_and(|len| len > room) {
            return Err(too_much(room));
        }
        if append.completes
            && let (Some(len), Some(size)) = (append.len, end_of_file)
            && len != room
        {
            return Err(other_size(size, offset + len));
        }
        let (before, mut tally) = (snapshot.record.version, snapshot.tally);
        let mut record = self.own_end(snapshot.record).await?;
        let mut last = None;
        if record.version != before {
            // Only from here on can no older commit come: one may have come since the end was read.
            let now = self.load(id, last_of(tally.parts)).await?;
            check(&now, offset)?;
            if now.tally.parts != tally.parts {
                return Err(contended());
            }
            (record.plan, tally) = (now.record.plan, now.tally);
            end_of_file = record.plan.size;
            room = room_to(end_of_file);
            last = now.parts.into_iter().next_back().map(|part| part.receipt);
        }
        let end = End {
            offset,
            parts: tally.parts,
            last,
        };
        let run = Run::new(self.clone(), record, end, append, turn);
        let (end, sealed) = run.take(frames(body), room).await?;
        self.inner.live.changed(id);
        Ok(Appended {
            offset: end,
            is_complete: sealed || end_of_file == Some(end),
        })
    }

    /// Stops whoever appends to `id` and answers the offset from which the next append goes on: what a client asks before it
    /// resumes. Unlike [`status`](Self::status), which disturbs nobody. An upload that is made of others is gone on with in the
    /// background.
    ///
    /// # Errors
    /// Those of [`status`](Self::status).
    pub async fn take_over(&self, caller: &Caller, id: UploadId) -> Result<super::Upload> {
        let _working = self.inner.tasks.begin()?;
        let found = self
            .find(caller, Address::Id(id), Action::Write, PartRange::NONE)
            .await?;
        let is_written = found.record.plan.layout == Layout::Sequential && found.record.state == State::Open;
        if found.record.joins().is_some() {
            self.nudge(&found.record);
        } else if is_written && !planted(Bug::OffsetToldBeforeStopped) {
            // Where a still newer request came in between, that one stops the writer and this one need not.
            let turn = self.inner.live.take_over(Spot::End(id)).await;
            if turn.is_ok()
                && !self.inner.limits.in_place
                && let Err(error) = self.own_end(self.load(id, PartRange::NONE).await?.record).await
                && error.kind() == ErrorKind::Unavailable
            {
                return Err(error);
            } // Any other says that nobody writes any more.
            // Its end is all that is asked for: the parts may be many.
            let snapshot = self
                .find(caller, Address::Id(id), Action::Write, PartRange::NONE)
                .await?;
            return Ok(super::Upload::new(snapshot));
        }
        self.status(caller, id).await
    }

    /// Fixes the length of a sequential upload that began without one. Whoever appends to it is stopped first, as what he sent
    /// may be more.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if it is known and another, or less than what is stored; [`TooLarge`](ErrorKind::TooLarge).
    pub async fn set_size(&self, caller: &Caller, id: UploadId, size: u64) -> Result<super::Upload> {
        let _working = self.inner.tasks.begin()?;
        self.check_size(size)?;
        let mut turn = None;
        for _ in 0..CONTENTION {
            let snapshot = self.find(caller, id.into(), Action::Write, PartRange::NONE).await?;
            let (record, tally) = (snapshot.record, snapshot.tally);
            match record.plan.size {
                Some(known) if known == size => {
                    return Ok(super::Upload::new(Snapshot::new(record, tally, Vec::new())));
                }
                Some(known) => {
                    return Err(Error::invalid(
                        "size",
                        format!("The upload has {known} bytes, not {size}"),
                    ));
                }
                None if record.state != State::Open => return Err(ended_or_sealed(&record)),
                None if record.joins().is_some() => {
                    return Err(Error::new(
                        ErrorKind::Forbidden,
                        "The size of an upload that is made of partial ones follows from theirs",
                    ));
                }
                None if tally.bytes > size || record.plan.layout == Layout::Indexed => {
                    return Err(Error::invalid("size", "The upload has more bytes already"));
                }
                None => {}
            }
            if turn.is_none() {
                turn = Some(self.inner.live.take_over(Spot::End(id)).await?);
                continue;
            }
            let owned = self.own_end(record).await?;
            // Only from here on can no older commit come: one may have come since the end was read.
            let Snapshot { record, tally, .. } = self.load(id, PartRange::NONE).await?;
            if record.version != owned.version || tally.bytes > size {
                continue;
            }
            let mut next = record;
            next.plan.size = Some(size);
            let mut wake = Wake::Keep;
            if next.seals_itself && tally.bytes == size {
                (next.state, next.attempts) = (State::Assembling, 0);
                wake = Wake::After(self.inner.config.lease);
            }
            if let Some(record) = self.update(&next, PartsEdit::Keep, wake).await? {
                return Ok(super::Upload::new(Snapshot::new(record, tally, Vec::new())));
            }
        }
        Err(contended())
    }

    /// Makes this request the only one whose commits succeed: on stores that many processes share by a new epoch, else by
    /// the one of this process, whose turns keep its own requests apart.
    pub(super) async fn own_end(&self, record: Record) -> Result<Record> {
        if self.inner.limits.in_place {
            return self.fence(record).await;
        }
        let mut record = record;
        for _ in 0..CONTENTION {
            let next = Record {
                epoch: self.inner.random.u64()?,
                ..record
            };
            if let Some(owned) = self.update(&next, PartsEdit::Keep, Wake::Keep).await? {
                return Ok(owned);
            }
            record = self.load(next.id, PartRange::NONE).await?.record;
            if record.state != State::Open {
                return Err(ended_or_sealed(&record));
            }
        }
        Err(contended())
    }
}

/// The last of so many parts.
pub(super) fn last_of(parts: u32) -> PartRange {
    parts.checked_sub(1).map_or(PartRange::NONE, PartRange::one)
}

fn check(snapshot: &Snapshot, offset: u64) -> Result<()> {
    let record = &snapshot.record;
    if record.plan.layout != Layout::Sequential {
        return Err(Error::new(
            ErrorKind::Conflict,
            "This upload takes numbered chunks, not appends",
        ));
    }
    if record.state != State::Open {
        return Err(ended_or_sealed(record));
    }
    if record.joins().is_some() {
        return Err(Error::new(
            ErrorKind::Forbidden,
            "This upload is made of partial ones and takes no bytes of its own",
        ));
    }
    if snapshot.tally.bytes == offset {
        Ok(())
    } else {
        Err(Error::offset_mismatch(snapshot.tally.bytes))
    }
}
