//! Chunks that are stored already: the same bytes get the same answer, others a conflict.

use futures_util::StreamExt as _;

use super::{
    NewChunk, StoredChunk, Uploads,
    checksum::{Crc64, Hasher},
    ended, ended_or_sealed,
    receive::{Source, stored_chunk},
    request::check_len,
};
use crate::{
    error::{Error, ErrorKind, Result},
    metadata::{Guard, PartRange},
    upload::{Digest, Part, Record, Snapshot, State},
};

impl Uploads {
    /// The answer to a chunk whose commit was refused.
    pub(super) async fn refused(&self, guard: &Guard, part: &Part, now: &Record) -> Result<StoredChunk> {
        let plan = &now.plan;
        match now.state {
            State::Open if guard.pin.is_some() && plan.chunk_size != guard.pin => {
                check_len(plan, part.number, part.len, self.inner.config.max_chunk)?;
                Err(Error::unavailable(
                    "The size of the chunks was fixed meanwhile; try again",
                ))
            }
            State::Open if guard.size.is_some() && plan.size.is_some() && plan.size != guard.size => {
                Err(Error::invalid("fileSize", "The upload began with another size"))
            }
            State::Open => Err(Error::unavailable("The upload changed meanwhile; try again")),
            State::Assembling | State::Assembled => {
                let snapshot = self.load(now.id, PartRange::one(part.number)).await?;
                match snapshot.parts.first() {
                    Some(stored) => self.same(now, part, stored).await,
                    None => Err(ended_or_sealed(now)),
                }
            }
            _ => Err(ended(now)),
        }
    }

    /// The answer to a chunk that somebody else stored first.
    pub(super) async fn same(&self, record: &Record, part: &Part, stored: &Part) -> Result<StoredChunk> {
        if (part.len, part.crc64) != (stored.len, stored.crc64) {
            return Err(conflict(part.number));
        }
        self.still_stored(record, part.number).await
    }

    /// Compares a chunk with the one that is stored.
    pub(super) async fn compare(
        &self,
        snapshot: &Snapshot,
        stored: &Part,
        chunk: &NewChunk,
        mut source: Source<'_>,
    ) -> Result<StoredChunk> {
        let held;
        let mut body = match &mut source {
            Source::Stream(body) => body.by_ref().boxed(),
            Source::Held(bytes) => {
                held = bytes;
                held.read()?
            }
        };
        let mut crc64 = Crc64::new();
        let mut hasher = chunk
            .checksum
            .as_ref()
            .map(|checksum| Hasher::new(checksum.algorithm()));
        let mut len = 0;
        while let Some(frame) = body.next().await {
            let frame = frame?;
            len += frame.len() as u64;
            if len > stored.len {
                return Err(conflict(chunk.index));
            }
            crc64.update(&frame);
            if let Some(hasher) = &mut hasher {
                hasher.update(&frame);
            }
        }
        check_announced(chunk, len)?;
        check_digest(chunk, hasher.map(Hasher::finish).transpose()?)?;
        if (len, crc64.value()) != (stored.len, stored.crc64) {
            return Err(conflict(chunk.index));
        }
        self.still_stored(&snapshot.record, chunk.index).await
    }

    /// The answer to a chunk that was stored before, unless the upload has ended since.
    async fn still_stored(&self, record: &Record, index: u32) -> Result<StoredChunk> {
        let now = self.load(record.id, PartRange::one(index)).await?;
        match (now.record.state.is_live(), now.parts.is_empty()) {
            (true, false) => Ok(stored_chunk(&now.record, index, now.tally)),
            (true, true) => Err(Error::unavailable("The chunk was lost meanwhile; send it again")),
            (false, _) => Err(ended(&now.record)),
        }
    }
}

fn conflict(index: u32) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("Chunk {index} is stored already, with other bytes"),
    )
}

pub(super) fn check_announced(chunk: &NewChunk, len: u64) -> Result<()> {
    match chunk.len {
        Some(announced) if len < announced => Err(Error::new(
            ErrorKind::Interrupted,
            format!("The body ended after {len} of {announced} bytes; send it again"),
        )),
        Some(announced) if len > announced => Err(Error::invalid("chunk", "The body is longer than announced")),
        _ => Ok(()),
    }
}

pub(super) fn check_digest(chunk: &NewChunk, actual: Option<Digest>) -> Result<()> {
    match (&chunk.checksum, actual) {
        (Some(expected), Some(actual)) if *expected != actual => {
            Err(Error::checksum_mismatch(expected.clone(), actual))
        }
        _ => Ok(()),
    }
}
