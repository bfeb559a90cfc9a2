//! One append under way: bytes in, checkpoints, the end, and what becomes of it when it is cut off.

use bytes::Bytes;
use futures_core::stream::BoxStream;
use tracing::Instrument as _;

use super::{
    NewAppend, Uploads,
    append::Expected,
    checksum::Hasher,
    ended_or_sealed,
    intake::{Intake, Next, next},
    live::{Turn, superseded},
    receive::over_quota,
    tasks::shutting_down,
};
use crate::{
    blob::{Before, Slot},
    error::{Error, ErrorKind, Result},
    metadata::{Committed, Guard, PartRange},
    planted::{Bug, planted},
    upload::{Digest, Part, Receipt, Record, State},
};

/// One append. Whenever it is dropped, what it received is settled.
pub(super) struct Run(Option<Box<Writing>>);

/// The end of what is committed.
pub(super) struct End {
    pub(super) offset: u64,
    /// How many parts that is.
    pub(super) parts: u32,
    /// The receipt of the last one, if the store has a use for it.
    pub(super) last: Option<Receipt>,
}

/// How far an append is.
struct Writing {
    uploads: Uploads,
    record: Record,
    append: NewAppend,
    /// End of what is committed, how many parts that is, and the last one's receipt.
    end: u64,
    parts: u32,
    committed: Option<Receipt>,
    sealed: bool,
    /// Where the file ends, if this request brings its end and has said how far that is.
    last: Option<u64>,
    /// Durable, but not to be committed before the checksum of all is verified.
    finished: Vec<Part>,
    intake: Option<Intake>,
    /// How long the part that is written gets.
    part_len: u64,
    /// Of this request's bytes, by each algorithm that the client named.
    hashers: Vec<Hasher>,
    /// Of the whole file, from its first byte.
    running: Option<Hasher>,
    turn: Turn,
}

impl Run {
    /// An append behind `end`, by a request that has the turn.
    pub(super) fn new(uploads: Uploads, record: Record, end: End, append: NewAppend, turn: Turn) -> Self {
        Self(Some(Box::new(Writing::new(uploads, record, end, append, turn))))
    }

    /// Takes the body in; answers where the upload ends now, and whether it is sealed.
    pub(super) async fn take(mut self, mut body: BoxStream<'_, Result<Bytes>>, room: u64) -> Result<(u64, bool)> {
        let Some(writing) = &self.0 else {
            return Err(shutting_down());
        };
        let announced = writing.append.len;
        let newer = writing.turn.superseded();
        tokio::pin!(newer);
        let mut received = 0;
        let broken = loop {
            let gathering = self.0.as_ref().is_some_and(|writing| writing.is_gathering());
            let next = tokio::select! {
                biased;
                () = &mut newer => break Some(superseded()),
                next = next(&mut body, gathering) => next,
            };
            let mut frame = match next {
                Ok(Next::Frame(frame)) => frame,
                Ok(Next::Idle) => {
                    self = self.detached(Step::Flush).await?;
                    continue;
                }
                Ok(Next::End) => break None,
                Err(error) => break Some(error),
            };
            let fits = room - received;
            let too_long = frame.len() as u64 > fits;
            if too_long {
                frame.truncate(usize::try_from(fits).unwrap_or(usize::MAX));
            }
            received += frame.len() as u64;
            while !frame.is_empty() {
                let Some(writing) = &mut self.0 else {
                    return Err(shutting_down());
                };
                if let Some(step) = writing.gather(&mut frame).await? {
                    self = self.detached(step).await?;
                }
            }
            if too_long {
                break Some(too_much(room));
            }
        };
        let broken = broken.or_else(|| {
            let announced = announced.filter(|announced| received < *announced)?;
            let message = format!("The body ended after {received} of {announced} bytes");
            Some(Error::new(ErrorKind::Interrupted, message))
        });
        match broken {
            Some(error) => {
                if self.0.as_ref().is_some_and(|writing| writing.keeps_prefix()) {
                    self.detached(Step::Cut).await?;
                } else {
                    self.0 = None;
                }
                Err(error)
            }
            None => {
                let run = self.detached(Step::End).await?;
                Ok(run
                    .0
                    .as_ref()
                    .map_or((0, false), |writing| (writing.end, writing.sealed)))
            }
        }
    }

    /// Does a step that comes to its end although the request may not: while a write or a
    /// commit is under way nobody else may write here.
    async fn detached(mut self, step: Step) -> Result<Self> {
        let Some(mut writing) = self.0.take() else {
            return Err(shutting_down());
        };
        let tasks = writing.uploads.inner.tasks.clone();
        let work = async move {
            writing.step(step).await?;
            Ok(Self(Some(writing)))
        };
        tasks.see_through(work).await
    }
}

/// Cut off in the middle: what was received still counts, unless it waits for a checksum.
impl Drop for Run {
    fn drop(&mut self) {
        let Some(mut writing) = self.0.take() else { return };
        if writing.intake.is_none() || !writing.keeps_prefix() {
            return;
        }
        // Without a runtime the process is ending, and what was not acknowledged may be lost.
        if tokio::runtime::Handle::try_current().is_ok() {
            let tasks = writing.uploads.inner.tasks.clone();
            let settle = async move {
                if let Err(error) = writing.step(Step::Cut).await {
                    tracing::debug!(%error, "the received prefix of a cut append was not kept");
                }
            };
            tasks.spawn(settle.in_current_span());
        }
    }
}

/// What cannot be cut off in the middle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Write what was gathered.
    Flush,
    /// Make the part durable, and commit it unless a checksum is awaited.
    Checkpoint,
    /// The same, and no more comes: the body broke off.
    Cut,
    /// The same, and the body came to its end.
    End,
}

impl Writing {
    fn new(uploads: Uploads, record: Record, end: End, append: NewAppend, turn: Turn) -> Self {
        let End { offset, parts, last } = end;
        let algorithm = record.checksum.as_ref().map(Digest::algorithm).or(record.wanted_digest);
        let running = algorithm.and_then(|algorithm| match &record.hash {
            None if offset == 0 => Some(Hasher::new(algorithm)),
            Some(saved) if saved.end == offset => Hasher::restore(algorithm, saved),
            _ => None,
        });
        let hashers = match &append.checksum {
            Expected::None => Vec::new(),
            Expected::Given(digest) => vec![Hasher::new(digest.algorithm())],
            Expected::Later(algorithms, _) => algorithms.iter().copied().map(Hasher::new).collect(),
        };
        let end_of_file = append.len.filter(|_| append.completes).map(|len| offset + len);
        Self {
            uploads,
            record,
            append,
            end: offset,
            parts,
            committed: last,
            sealed: false,
            last: end_of_file,
            finished: Vec::new(),
            intake: None,
            part_len: 0,
            hashers,
            running,
            turn,
        }
    }

    /// Whether what was received counts although the body broke off.
    const fn keeps_prefix(&self) -> bool {
        matches!(self.append.checksum, Expected::None)
    }

    fn is_gathering(&self) -> bool {
        self.intake.as_ref().is_some_and(Intake::is_gathering)
    }

    /// Takes in as much of `frame` as belongs to the present part; the step that is due then.
    async fn gather(&mut self, frame: &mut Bytes) -> Result<Option<Step>> {
        let intake = match &mut self.intake {
            Some(intake) => intake,
            None => {
                let number = self.next_number()?;
                let offset = self.end + self.finished.iter().map(|part| part.len).sum::<u64>();
                self.part_len = self.len_at(offset);
                let slot = Slot::at(number, offset, self.part_len);
                let before = Before::committed(self.committed.as_ref())
                    .and_finished(self.finished.last().map(|part| &part.receipt));
                let blobs = &self.uploads.inner.blobs;
                let writer = blobs.append(&self.record.handle, slot, before).await?;
                self.look_again().await?;
                self.intake.insert(Intake::new(writer, None, true))
            }
        };
        let left = usize::try_from(self.part_len - intake.len()).unwrap_or(usize::MAX);
        let piece = frame.split_to(left.min(frame.len()));
        for hasher in self.hashers.iter_mut().chain(&mut self.running) {
            hasher.update(&piece);
        }
        let flush = intake.gather(&self.uploads.inner, piece);
        Ok(if intake.len() >= self.part_len {
            Some(Step::Checkpoint)
        } else {
            flush.then_some(Step::Flush)
        })
    }

    /// How long a part at `offset` gets: a checkpoint, cut where the store likes it.
    fn len_at(&self, offset: u64) -> u64 {
        let checkpoint = self.uploads.inner.config.checkpoint;
        match self.uploads.inner.blobs.step(&self.record.handle) {
            Some(step) if step > 0 => {
                let within = offset.saturating_add(checkpoint) / step * step;
                within.max((offset / step + 1).saturating_mul(step)) - offset
            }
            _ => checkpoint,
        }
    }

    /// On a store that many processes share another one may have taken over, and have committed in the slot that was just
    /// claimed: that is not written over.
    async fn look_again(&mut self) -> Result<()> {
        if self.uploads.inner.limits.in_place {
            return Ok(());
        }
        let now = self.uploads.load(self.record.id, PartRange::NONE).await?;
        if now.record.epoch == self.record.epoch && now.tally.bytes == self.end {
            Ok(())
        } else {
            Err(superseded())
        }
    }

    fn next_number(&self) -> Result<u32> {
        let finished = u32::try_from(self.finished.len()).unwrap_or(u32::MAX);
        let number = self.parts.saturating_add(finished);
        let inner = &self.uploads.inner;
        let max = inner.limits.max_parts.min(inner.config.max_chunks);
        if number >= max {
            return Err(Error::too_large(
                format!("The upload came in {max} pieces, more cannot be kept; begin a new one and send more at once"),
                max.into(),
            ));
        }
        Ok(number)
    }

    async fn step(&mut self, step: Step) -> Result<()> {
        if step == Step::Flush {
            let Some(intake) = &mut self.intake else { return Ok(()) };
            let result = intake.flush().await;
            if result.is_err() {
                self.intake = None;
            }
            return result;
        }
        if let Some(intake) = self.intake.take() {
            let number = self.next_number()?;
            let (len, crc64) = (intake.len(), intake.crc64());
            let receipt = intake.finish().await?;
            self.finished.push(Part::new(number, len, crc64, receipt));
        }
        if step == Step::Checkpoint && !self.keeps_prefix() {
            return Ok(());
        }
        self.verify()?;
        self.commit(step).await
    }

    /// Compares what was received with the checksum that came with it.
    fn verify(&mut self) -> Result<()> {
        let expected = match std::mem::take(&mut self.append.checksum) {
            Expected::None => return Ok(()),
            Expected::Given(digest) => digest,
            Expected::Later(_, checksum) => checksum()?,
        };
        for hasher in std::mem::take(&mut self.hashers) {
            let actual = hasher.finish()?;
            if actual.algorithm() == expected.algorithm() {
                return if actual == expected {
                    Ok(())
                } else {
                    Err(Error::checksum_mismatch(expected, actual))
                };
            }
        }
        Err(Error::invalid(
            "checksum",
            format!("A checksum by {} is not understood here", expected.algorithm()),
        ))
    }

    async fn commit(&mut self, step: Step) -> Result<()> {
        let parts = std::mem::take(&mut self.finished);
        let end = self.end + parts.iter().map(|part| part.len).sum::<u64>();
        let size = self.record.plan.size;
        if step == Step::End
            && self.append.completes
            && let Some(size) = size.filter(|size| *size != end)
        {
            self.append.completes = false;
            if !parts.is_empty() {
                self.finished = parts;
                Box::pin(self.commit(Step::Cut)).await?;
            }
            return Err(other_size(size, end));
        }
        let seals = match step {
            _ if self.sealed => false,
            Step::End if self.append.completes => true,
            _ if self.last == Some(end) => true,
            _ => (self.record.seals_itself || self.append.seals_when_whole) && size == Some(end),
        };
        if parts.is_empty() && !seals {
            return Ok(());
        }
        let inner = &self.uploads.inner;
        let mut guard = Guard::new(self.record.epoch);
        guard.end = Some(self.end);
        guard.quota = inner.config.quota;
        guard.hash = self.running.as_ref().and_then(|hasher| hasher.save(end));
        if seals && !planted(Bug::LastByteDoesNotSeal) {
            guard.size = Some(end);
            guard.seal = Some(inner.config.lease);
        }
        match inner.metadata.commit(self.record.id, &guard, &parts).await {
            Ok(Committed::Done(tally)) => {
                (self.end, self.parts) = (tally.bytes, tally.parts);
                if let Some(last) = parts.into_iter().next_back() {
                    self.committed = Some(last.receipt);
                }
                self.sealed |= seals;
                if seals && step == Step::Cut {
                    // Nobody is there any more who would ask for it.
                    let (uploads, id) = (self.uploads.clone(), self.record.id);
                    drop(inner.tasks.spawn(async move { drop(uploads.finish(id).await) }));
                }
                inner.live.changed(self.record.id);
                if let Some(progress) = &self.append.progress {
                    progress(self.end);
                }
                Ok(())
            }
            Ok(Committed::Refused(now, _)) if now.state != State::Open => Err(ended_or_sealed(&now)),
            Ok(Committed::Refused(..) | Committed::Present(_)) => Err(superseded()),
            Ok(Committed::OverQuota(bound)) => Err(over_quota(bound)),
            Ok(Committed::Unknown) => Err(Error::not_found()),
            Err(error) => {
                self.uploads.doubt();
                Err(error)
            }
        }
    }
}

pub(super) fn other_size(size: u64, end: u64) -> Error {
    Error::invalid(
        "size",
        format!("The upload has {size} bytes, but would end after {end} bytes"),
    )
}

pub(super) fn too_much(room: u64) -> Error {
    Error::too_large(format!("The upload has room for {room} bytes more"), room)
}
