//! What became of the clock while nobody had the file open: times that one process set are read by another.
//!
//! The file is told how far its store's clock came. What lies between that and the first moment of the next process is time in which
//! nobody could go on with an upload, or no time at all but a clock that was behind and was put right (of a machine that slept, was
//! restored, or asked for the time late). Nothing tells which, so neither counts. Where the clock is behind the file it was ahead before,
//! or is wrong now: what the driver was to look at soon it looks at now.

use std::time::Duration;

use super::tables::{Fault, Stored, Tables};
use crate::upload::{Record, State, Timestamp, UploadId};

/// How far the clock goes on before the file is told again.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The most that an upload has left of its time when that ran out while nobody was there.
const LEFT: Duration = Duration::from_secs(3600);

/// Brings the times in the file in line with `now`, the first moment of this process; `last` is what the file was told last.
pub(super) fn reckon(tables: &mut Tables<'_>, last: Timestamp, now: Timestamp) -> Result<(), Fault> {
    let behind = last > now.after(TOLD_EVERY);
    let ids: Vec<UploadId> = if behind {
        tables.due_after(now.as_millis())?.collect::<Result<_, _>>()?
    } else {
        tables.due(now.as_millis())?.collect::<Result<_, _>>()?
    };
    let mut changed = 0_usize;
    for id in ids {
        let old = match tables.get(id) {
            Ok(Some(old)) => old,
            // Whoever takes what is due says so.
            Ok(None) | Err(Fault::Item(_)) => continue,
            Err(fault) => return Err(fault),
        };
        let mut record = old.record.clone();
        if behind {
            bring_forward(&mut record, now);
        } else {
            keep_a_while(&mut record, last, now);
        }
        if record != old.record {
            record.version = record.version.next();
            let new = Stored {
                record,
                tally: old.tally.with(&[], &[]),
                sequence: old.sequence,
            };
            tables.replace(Some(&old), Some(&new))?;
            changed += 1;
        }
    }
    if behind {
        tracing::warn!(uploads = changed, %last, %now, "the clock is behind what the metadata file was told; what waits is looked at now");
    } else if changed > 0 {
        tracing::info!(uploads = changed, %last, %now, "uploads that ran out while the metadata file was closed are kept a while");
    }
    Ok(())
}

/// An open upload whose time ran out after `last` has what it had left then. While a process runs that becomes less, however often one
/// begins anew, and so it ends.
fn keep_a_while(record: &mut Record, last: Timestamp, now: Timestamp) {
    let Some(expires) = record.expires_at.filter(|at| *at > last && *at <= now) else {
        return;
    };
    if record.state == State::Open {
        record.expires_at = Some(now.after(expires.since(last).min(LEFT)));
        if !record.waits() {
            record.due_at = record.expires_at;
        }
    }
}

/// No upload lives longer than it would if it were gone on with now, and what waits for the driver is looked at. Ended and assembled
/// uploads are remembered for longer: who looked at one would forget it.
fn bring_forward(record: &mut Record, now: Timestamp) {
    let waits = match record.state {
        State::Assembling => true,
        State::Open => record.waits(),
        State::Assembled => !record.outbox.is_empty() || (record.staged && record.joins().is_some()),
        _ => !record.outbox.is_empty() || record.staged || record.key_held,
    };
    if let (State::Open, Some(after), Some(expires)) = (record.state, record.expire_after, record.expires_at) {
        let expires = expires.min(now.after(after));
        record.expires_at = Some(expires);
        record.due_at = record.due_at.map(|due| due.min(expires));
    }
    if waits {
        record.due_at = Some(now);
    }
}
