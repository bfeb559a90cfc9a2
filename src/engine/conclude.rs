//! How an assembly ends that makes no blob: parts to be sent again, a failure, another attempt.

use std::time::Duration;

use super::{CONTENTION, Upload, Uploads, contended, verify::Verdict};
use crate::{
    blob::Completed,
    error::{Error, ErrorKind, Result},
    metadata::{PartRange, PartsEdit},
    observe,
    upload::{Blob, EventKind, Layout, Part, Record, Snapshot, State, Tally, Wake},
};

/// Why an upload failed that was published before it was read back.
const ROTTEN: &str = "the bytes that were read back are not those that were stored";

impl Uploads {
    /// Ends an assembly that cannot become a blob as it is: opens it again for parts that were lost, or fails it. What was
    /// `published` of it is deleted once that is recorded, as of any upload that ended: another node may have found it good.
    pub(super) async fn conclude(
        &self,
        mut record: Record,
        tally: Tally,
        parts: Vec<Part>,
        verdict: Verdict,
        published: Option<Blob>,
    ) -> Result<Snapshot> {
        let (lost, reason) = match verdict {
            Verdict::Later(error) => return Err(self.try_later(record, error).await),
            // A multipart upload that became an object is used up, and nothing is written to what lies under its key.
            Verdict::Lost(lost) if published.is_some() => {
                tracing::warn!(id = %record.id, ?lost, "parts were read back with other bytes than were stored");
                (Vec::new(), ROTTEN.to_owned())
            }
            Verdict::Lost(lost) if record.plan.layout == Layout::Indexed => (lost, String::new()),
            Verdict::Lost(_) => (Vec::new(), "bytes that were stored are lost".to_owned()),
            Verdict::Refused(reason) => (Vec::new(), reason),
        };
        for _ in 0..CONTENTION {
            let mut next = record.clone();
            let (edit, wake) = if record.intent.is_some() {
                next.state = State::Aborted;
                next.blob.clone_from(&published);
                next.key_held = published.is_some();
                self.push_event(&mut next, EventKind::Aborted);
                (PartsEdit::Clear, self.end_wake(&next))
            } else if lost.is_empty() {
                next.state = State::Failed;
                next.failure = Some(reason.clone());
                next.blob.clone_from(&published);
                next.key_held = published.is_some();
                self.push_event(&mut next, EventKind::Failed);
                (PartsEdit::Clear, self.end_wake(&next))
            } else {
                next.state = State::Open;
                next.epoch = if self.inner.limits.in_place {
                    self.incarnation()
                } else {
                    self.inner.random.u64()?
                };
                (PartsEdit::Remove(lost.clone()), Wake::AtExpiry)
            };
            if let Some(changed) = self.update(&next, edit, wake).await? {
                if changed.state == State::Open {
                    tracing::warn!(id = %changed.id, ?lost, "parts that were stored are lost, and can be sent again");
                    let remaining: Vec<Part> = parts.into_iter().filter(|part| !lost.contains(&part.number)).collect();
                    return Err(Error::incomplete(
                        Upload::new(Snapshot::new(changed, tally, remaining)).missing(),
                    ));
                }
                observe::ended(&changed);
                return Ok(Snapshot::new(changed, tally, parts));
            }
            let now = self.load(record.id, PartRange::NONE).await?;
            if now.record.state != State::Assembling {
                return Ok(Snapshot::new(now.record, now.tally, parts));
            }
            record = now.record;
        }
        Err(contended())
    }

    /// What an attempt that broke off has published, if it is ours: looked for where the verdict is not to try again.
    pub(super) async fn published_before(
        &self,
        record: &Record,
        parts: &[Part],
        verdict: &Verdict,
    ) -> Result<Option<Blob>> {
        if matches!(verdict, Verdict::Later(_)) || self.inner.blobs.head(&record.key).await?.is_none() {
            return Ok(None);
        }
        Ok(match self.complete(record, parts).await? {
            Completed::Done(blob) => Some(blob),
            _ => None,
        })
    }

    /// Notes a failed attempt; the driver tries again, later each time.
    pub(super) async fn try_later(&self, record: Record, error: Error) -> Error {
        // What is gone in the store is no answer to who asks for the upload, which is tried again.
        let error = match error.kind() {
            ErrorKind::NotFound => {
                Error::unavailable("The blob could not be made; it is tried again").with_source(error)
            }
            _ => error,
        };
        let mut next = record;
        next.attempts = next.attempts.saturating_add(1);
        let (attempts, wait) = (next.attempts, backoff(next.attempts));
        tracing::warn!(id = %next.id, %error, attempts, "an assembly did not succeed and is tried again");
        let mut wake = Wake::After(wait);
        for _ in 0..CONTENTION {
            // If this is not noted either, the lease runs out and the driver comes by all the same.
            if !matches!(self.update(&next, PartsEdit::Keep, wake).await, Ok(None)) {
                break;
            }
            let Ok(now) = self.load(next.id, PartRange::NONE).await else {
                break;
            };
            if now.record.state != State::Assembling || now.record.attempts >= attempts {
                break;
            }
            next = Record { attempts, ..now.record };
            // Somebody else came by when the lease was over, and has it now.
            wake = Wake::Keep;
        }
        error.with_retry_after(wait)
    }
}

/// How long to wait after so many failed attempts: from a second to ten minutes.
pub(super) fn backoff(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.saturating_sub(1).min(10)).min(Duration::from_secs(600))
}

/// What is given to an attempt after so many failed ones: each has twice the time of the one before, up to 32 times.
pub(super) fn longer(time: Duration, attempts: u32) -> Duration {
    time.saturating_mul(1 << attempts.min(5))
}
