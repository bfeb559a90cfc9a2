//! Assembly: check coverage, seal, complete in the blob store, verify, publish.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tracing::Instrument as _;

use super::{
    Address, CONTENTION, Upload, Uploads,
    checksum::{Combiner, Hasher},
    conclude::longer,
    contended, ended,
    live::{Spot, Turn},
    verify::Verdict,
};
use crate::{
    access::{Action, Caller},
    blob::{BlobBody, ByteRange, Completed},
    error::{Error, ErrorKind, Result},
    metadata::{PartRange, PartsEdit},
    observe,
    planted::{Bug, planted},
    upload::{Algorithm, Blob, Digest, EventKind, Intent, Part, Record, Snapshot, State, Tally, UploadId, Wake},
};

/// Why an upload failed for whose blob there was no key.
const TAKEN: &str = "its key and others like it are taken: a file may lie where a folder of the key must be";

impl Uploads {
    /// Makes the blob of what was sent and publishes it. Asked again it answers the same.
    ///
    /// `checksum` is the client's of the whole file: it is verified first, and if it is another nothing changes.
    ///
    /// Once it began, the assembly goes on without this request, also after a crash: the driver finishes it.
    ///
    /// # Errors
    /// [`Incomplete`](ErrorKind::Incomplete) with what is missing; [`ChecksumMismatch`](ErrorKind::ChecksumMismatch);
    /// [`Gone`](ErrorKind::Gone), [`Failed`](ErrorKind::Failed); those of the stores, and then it is tried again by itself.
    pub async fn assemble(
        &self,
        caller: &Caller,
        which: impl Into<Address<'_>> + Send,
        checksum: Option<&Digest>,
    ) -> Result<Upload> {
        let _working = self.inner.tasks.begin()?;
        let mut snapshot = self
            .find(caller, which.into(), Action::Assemble, PartRange::ALL)
            .await?;
        let id = snapshot.record.id;
        for _ in 0..CONTENTION {
            match snapshot.record.state {
                State::Open if snapshot.record.is_partial() => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "This is a partial upload: it is joined with others, not assembled by itself",
                    ));
                }
                State::Open if snapshot.record.joins().is_some() => {
                    self.join_and_publish(id, None).await?;
                    snapshot = self.load(id, PartRange::ALL).await?;
                }
                State::Open => {
                    let size = coverage(&snapshot)?;
                    if let Some(expected) = checksum {
                        self.check_whole(&snapshot, expected).await?;
                    }
                    let mut next = snapshot.record.clone();
                    next.state = State::Assembling;
                    next.attempts = 0;
                    next.plan.size = Some(size);
                    let lease = Wake::After(self.inner.config.lease);
                    let turn = self.inner.live.queue(Spot::Assembly(id)).await;
                    if let Some(record) = self.update(&next, PartsEdit::Keep, lease).await? {
                        // Where every number has its part none came since, as a further append may have.
                        let sealed = record.plan.chunks.is_some().then(|| {
                            let tally = Tally {
                                revision: snapshot.tally.revision + 1,
                                ..snapshot.tally
                            };
                            Snapshot::new(record, tally, snapshot.parts)
                        });
                        return self.see_to_end(id, sealed, turn).await;
                    }
                    drop(turn);
                    snapshot = self.load(id, PartRange::ALL).await?;
                }
                State::Assembling => return self.finish(id).await,
                State::Assembled => {
                    if let Some(expected) = checksum {
                        self.check_published(&snapshot, expected).await?;
                    }
                    return Ok(Upload::new(snapshot));
                }
                _ => return Err(ended(&snapshot.record)),
            }
        }
        Err(contended())
    }

    /// Drives a sealed upload to its end, as a task of its own. Whoever waits for another's attempt does so without
    /// one, so that requests that were given up leave nothing behind.
    pub(super) async fn finish(&self, id: UploadId) -> Result<Upload> {
        let turn = self.inner.live.queue(Spot::Assembly(id)).await;
        self.see_to_end(id, None, turn).await
    }

    /// The same for whoever has the turn, and may know what is sealed.
    async fn see_to_end(&self, id: UploadId, sealed: Option<Snapshot>, turn: Turn) -> Result<Upload> {
        let uploads = self.clone();
        let work = async move { uploads.drive_assembly(id, sealed, turn).await };
        self.inner.tasks.see_through(work).await
    }

    async fn drive_assembly(&self, id: UploadId, sealed: Option<Snapshot>, turn: Turn) -> Result<Upload> {
        let snapshot = match sealed {
            Some(sealed) => sealed,
            // Whoever was here before us may have finished it.
            None => self.load(id, PartRange::ALL).await?,
        };
        let result = match snapshot.record.state {
            State::Assembling => {
                let began = Instant::now();
                let span = tracing::info_span!("assemble", %id, parts = snapshot.parts.len());
                let result = self.assemble_sealed(snapshot).instrument(span).await;
                observe::assembled(began, result.as_ref().map(|now| now.record.state));
                result
            }
            State::Assembled => Ok(snapshot),
            State::Open => Err(coverage(&snapshot).err().unwrap_or_else(contended)),
            _ => Err(ended(&snapshot.record)),
        };
        drop(turn);
        let snapshot = result?;
        if snapshot.record.state == State::Assembled {
            self.clear_up(&snapshot.record).await;
            if snapshot.record.joins().is_some()
                && let Err(error) = self.end_partials(&snapshot.record).await
            {
                tracing::warn!(%id, %error, "the partial uploads of a finished one end later");
            }
            Ok(Upload::new(snapshot))
        } else {
            self.after_end(&snapshot.record).await;
            Err(ended(&snapshot.record))
        }
    }

    async fn assemble_sealed(&self, snapshot: Snapshot) -> Result<Snapshot> {
        let Snapshot {
            mut record,
            tally,
            parts,
        } = snapshot;
        let crc64 = combined(&parts);
        let size: u64 = parts.iter().map(|part| part.len).sum();
        let wanted = record.key.clone();
        for _ in 0..CONTENTION {
            if let Err(verdict) = self.verify_unpublished(&record, &parts, crc64).await {
                return match self.published_before(&record, &parts, &verdict).await {
                    Ok(published) => self.conclude(record, tally, parts, verdict, published).await,
                    Err(error) => Err(self.try_later(record, error).await),
                };
            }
            let completed = match self.complete(&record, &parts).await {
                Ok(completed) => completed,
                Err(error) => return Err(self.try_later(record, error).await),
            };
            let blob = match completed {
                Completed::Done(blob) if blob.size == size => blob,
                Completed::Done(blob) => {
                    let verdict = Verdict::Refused("the stored object has another size".into());
                    return self.conclude(record, tally, parts, verdict, Some(blob)).await;
                }
                Completed::PartsLost(lost) => {
                    return self.conclude(record, tally, parts, Verdict::Lost(lost), None).await;
                }
                Completed::Refused(reason) => {
                    return self
                        .conclude(record, tally, parts, Verdict::Refused(reason), None)
                        .await;
                }
                Completed::KeyTaken => {
                    let next = Record {
                        key: self.free_key(&wanted).await?,
                        ..record
                    };
                    record = match self.update(&next, PartsEdit::Keep, Wake::Keep).await? {
                        Some(record) => record,
                        None => {
                            let now = self.load(next.id, PartRange::NONE).await?;
                            if now.record.state != State::Assembling {
                                return Ok(Snapshot::new(now.record, now.tally, parts));
                            }
                            now.record
                        }
                    };
                    continue;
                }
            };
            if let Err(verdict) = self.verify_published(&record, &parts).await {
                return self.conclude(record, tally, parts, verdict, Some(blob)).await;
            }
            return self.publish(record, tally, parts, blob, crc64).await;
        }
        // Another suffix does not help where the folder cannot be.
        let verdict = Verdict::Refused(TAKEN.into());
        self.conclude(record, tally, parts, verdict, None).await
    }

    /// Makes the blob, for no longer than is given for it: a store that hangs must not hold an assembly for ever. Each further
    /// attempt has more of it, so that one that copies for long ends all the same.
    pub(super) async fn complete(&self, record: &Record, parts: &[Part]) -> Result<Completed> {
        let complete = self.inner.blobs.complete(&record.handle, &record.key, parts);
        let time = longer(self.inner.config.assembly_timeout, record.attempts);
        match tokio::time::timeout(time, complete).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(
                "The blob store did not finish the blob in time; it is tried again",
            )),
        }
    }

    async fn publish(
        &self,
        mut record: Record,
        tally: Tally,
        parts: Vec<Part>,
        blob: Blob,
        crc64: u64,
    ) -> Result<Snapshot> {
        if planted(Bug::PartialsEndedBeforePublication) {
            self.end_partials(&record).await?;
            record = self.load(record.id, PartRange::NONE).await?.record;
        }
        for _ in 0..CONTENTION {
            let mut next = record.clone();
            next.crc64 = Some(crc64);
            next.blob = Some(blob.clone());
            next.failure = None;
            let edit = match record.intent {
                None => {
                    next.state = State::Assembled;
                    if !planted(Bug::EventOutsideStateChange) {
                        self.push_event(&mut next, EventKind::Assembled);
                    }
                    PartsEdit::Keep
                }
                Some(intent) => {
                    next.state = if intent == Intent::Abort {
                        State::Aborted
                    } else {
                        State::Deleted
                    };
                    let kind = if intent == Intent::Abort {
                        EventKind::Aborted
                    } else {
                        EventKind::Deleted
                    };
                    self.push_event(&mut next, kind);
                    PartsEdit::Clear
                }
            };
            let wake = self.end_wake(&next);
            if let Some(published) = self.update(&next, edit, wake).await? {
                observe::ended(&published);
                if planted(Bug::EventOutsideStateChange) {
                    let mut told = published.clone();
                    self.push_event(&mut told, EventKind::Assembled);
                    if let Some(told) = self.update(&told, PartsEdit::Keep, Wake::After(Duration::ZERO)).await? {
                        return Ok(Snapshot::new(told, tally, parts));
                    }
                }
                if published.state == State::Assembled {
                    self.events_pending(&published);
                }
                return Ok(Snapshot::new(
                    published,
                    Tally {
                        revision: tally.revision + 1,
                        ..tally
                    },
                    parts,
                ));
            }
            let now = self.load(record.id, PartRange::NONE).await?;
            if now.record.state != State::Assembling {
                return Ok(Snapshot::new(now.record, now.tally, parts));
            }
            record = now.record;
        }
        Err(contended())
    }

    /// Compares an open, complete upload with the checksum that came with the request to assemble it. Its parts
    /// change no more, so that they can be read before it is sealed.
    async fn check_whole(&self, snapshot: &Snapshot, expected: &Digest) -> Result<()> {
        let actual = if expected.algorithm() == Algorithm::Crc64Nvme {
            Digest::crc64(combined(&snapshot.parts))
        } else {
            let read = self.inner.blobs.read_parts(&snapshot.record.handle, &snapshot.parts);
            let read = async {
                match read.await? {
                    Some(body) => digest(expected.algorithm(), body).await.map(Some),
                    None => Ok(None),
                }
            };
            match read.await {
                Ok(Some(digest)) => digest,
                Ok(None) => {
                    let message = "This store verifies such a checksum only if it is given at creation";
                    return Err(Error::invalid("checksum", message));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let message =
                        "Bytes that were stored are lost; ask for the assembly without a checksum to learn which";
                    return Err(Error::internal(message).with_source(error));
                }
                Err(error) => return Err(error),
            }
        };
        if *expected == actual {
            Ok(())
        } else {
            Err(Error::checksum_mismatch(expected.clone(), actual))
        }
    }

    async fn check_published(&self, snapshot: &Snapshot, expected: &Digest) -> Result<()> {
        let record = &snapshot.record;
        let actual = match (expected.algorithm(), record.crc64) {
            (Algorithm::Crc64Nvme, Some(crc64)) => Digest::crc64(crc64),
            (algorithm, _) => digest(algorithm, self.inner.blobs.read(&record.key, ByteRange::ALL).await?).await?,
        };
        if *expected == actual {
            Ok(())
        } else {
            Err(Error::checksum_mismatch(expected.clone(), actual))
        }
    }
}

/// Whether all bytes are there, and how many they are.
fn coverage(snapshot: &Snapshot) -> Result<u64> {
    let plan = &snapshot.record.plan;
    let size: u64 = snapshot.parts.iter().map(|part| part.len).sum();
    let complete = match plan.chunks {
        Some(_) => Upload::new(snapshot.clone()).missing().is_empty() || planted(Bug::OffsetIsSumOfSizes),
        None => plan.size.is_none_or(|expected| expected == size),
    };
    match (complete, plan.chunks, plan.size) {
        (false, None, _) => Err(Error::offset_mismatch(size)),
        (false, Some(_), _) => Err(Error::incomplete(Upload::new(snapshot.clone()).missing())),
        (true, Some(_), Some(expected)) if expected != size => Err(Error::new(
            ErrorKind::Conflict,
            format!("The chunks have {size} bytes, the file was said to have {expected}; abort and begin anew"),
        )),
        _ => Ok(size),
    }
}

pub(super) fn combined(parts: &[Part]) -> u64 {
    let mut combiner = Combiner::new();
    for part in parts {
        combiner.push(part.crc64, part.len);
    }
    combiner.value()
}

async fn digest(algorithm: Algorithm, mut body: BlobBody) -> Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    while let Some(bytes) = body.next().await {
        hasher.update(&bytes?);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
