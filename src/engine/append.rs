//! Appends: one writer at the end of a sequential upload, whose durable prefix counts.

use std::fmt;

use bytes::Bytes;
use futures_core::{Stream, stream::BoxStream};

use super::{
    Address, Appended, CONTENTION, Uploads,
    checksum::Hasher,
    contended, ended_or_sealed,
    intake::{Intake, Next, next},
    live::{Spot, Turn, superseded},
    receive::{BoxError, frames, over_quota},
    tasks::{join, shutting_down},
};
use crate::{
    access::{Action, Caller},
    blob::Slot,
    error::{Error, ErrorKind, Result},
    metadata::{Committed, Guard, PartRange, PartsEdit},
    planted::{Bug, planted},
    upload::{Algorithm, Digest, Layout, Part, Record, Snapshot, State, UploadId, Wake},
};

/// What a client says of an append. See [`Uploads::append_with`].
#[derive(Default)]
#[non_exhaustive]
pub struct NewAppend {
    len: Option<u64>,
    checksum: Expected,
    completes: bool,
    progress: Option<Progress>,
}

/// Is told the offset after every checkpoint.
type Progress = Box<dyn Fn(u64) + Send + Sync>;

/// The checksum of a body, as far as it is known.
#[derive(Default)]
enum Expected {
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
        append: NewAppend,
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
        let turn = self.inner.live.take_over(Spot::End(id)).await?;
        let snapshot = self.load(id, PartRange::NONE).await?;
        check(&snapshot, offset)?;
        let end_of_file = snapshot.record.plan.size;
        let room = end_of_file.unwrap_or(self.inner.config.max_size).saturating_sub(offset);
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
        if record.version != before {
            // Only from here on can no older commit come: one may have come since the end was read.
            let now = self.load(id, PartRange::NONE).await?;
            check(&now, offset)?;
            (record.plan, tally) = (now.record.plan, now.tally);
        }
        let writing = Writing::new(self.clone(), record, offset, tally.parts, append, turn);
        let (end, sealed) = Run(Some(Box::new(writing))).take(frames(body), room).await?;
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

fn other_size(size: u64, end: u64) -> Error {
    Error::invalid(
        "size",
        format!("The upload has {size} bytes, but would end after {end} bytes"),
    )
}

fn too_much(room: u64) -> Error {
    Error::too_large(format!("The upload has room for {room} bytes more"), room)
}

/// One append. Whenever it is dropped, what it received is settled.
struct Run(Option<Box<Writing>>);

/// How far an append is.
struct Writing {
    uploads: Uploads,
    record: Record,
    append: NewAppend,
    /// End of what is committed, and how many parts that is.
    end: u64,
    parts: u32,
    sealed: bool,
    /// Where the file ends, if this request brings its end and has said how far that is.
    last: Option<u64>,
    /// Durable, but not to be committed before the checksum of all is verified.
    finished: Vec<Part>,
    intake: Option<Intake>,
    /// Of this request's bytes, by each algorithm that the client named.
    hashers: Vec<Hasher>,
    /// Of the whole file, from its first byte.
    running: Option<Hasher>,
    turn: Turn,
}

impl Run {
    /// Takes the body in; answers where the upload ends now, and whether it is sealed.
    async fn take(mut self, mut body: BoxStream<'_, Result<Bytes>>, room: u64) -> Result<(u64, bool)> {
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

    /// Does a step as a task of its own, which comes to its end although the request may not: while a write or a
    /// commit is under way nobody else may write here.
    async fn detached(mut self, step: Step) -> Result<Self> {
        let Some(mut writing) = self.0.take() else {
            return Err(shutting_down());
        };
        let tasks = writing.uploads.inner.tasks.clone();
        join(tasks.spawn(async move {
            writing.step(step).await?;
            Ok(Self(Some(writing)))
        }))
        .await
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
            tasks.spawn(async move {
                if let Err(error) = writing.step(Step::Cut).await {
                    tracing::debug!(%error, "the received prefix of a cut append was not kept");
                }
            });
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
    fn new(uploads: Uploads, record: Record, offset: u64, parts: u32, append: NewAppend, turn: Turn) -> Self {
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
        let last = append.len.filter(|_| append.completes).map(|len| offset + len);
        Self {
            uploads,
            record,
            append,
            end: offset,
            parts,
            sealed: false,
            last,
            finished: Vec::new(),
            intake: None,
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
        let checkpoint = self.uploads.inner.config.checkpoint;
        let intake = match &mut self.intake {
            Some(intake) => intake,
            None => {
                let number = self.next_number()?;
                let offset = self.end + self.finished.iter().map(|part| part.len).sum::<u64>();
                let slot = Slot::at(number, offset, checkpoint);
                let writer = self.uploads.inner.blobs.open(&self.record.handle, slot).await?;
                self.look_again().await?;
                self.intake.insert(Intake::new(writer, None, true))
            }
        };
        let left = usize::try_from(checkpoint - intake.len()).unwrap_or(usize::MAX);
        let piece = frame.split_to(left.min(frame.len()));
        for hasher in self.hashers.iter_mut().chain(&mut self.running) {
            hasher.update(&piece);
        }
        let flush = intake.gather(&self.uploads.inner, piece);
        Ok(if intake.len() >= checkpoint {
            Some(Step::Checkpoint)
        } else {
            flush.then_some(Step::Flush)
        })
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
        let max = self.uploads.inner.limits.max_parts;
        if number >= max {
            return Err(Error::too_large(
                format!("The upload has {max} parts, more cannot be kept"),
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
            _ => self.record.seals_itself && size == Some(end),
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
