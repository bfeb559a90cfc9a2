//! The operations: each checks first and writes after, so that a refused one leaves nothing behind
//! in a transaction it shares with others.

use std::time::Duration;

use super::tables::{Fault, Stored, Tables, View, dangling, usage_of};
use crate::{
    error::Error,
    metadata::{Committed, Created, Guard, Lookup, Page, PartRange, PartsEdit, Quota, Unfinished, Updated},
    upload::{Owner, Part, Record, Snapshot, State, Tally, Timestamp, UploadId, Version, Wake},
};

pub(super) fn create(
    tables: &mut Tables<'_>,
    now: Timestamp,
    mut record: Record,
    first: &[Part],
    quota: Quota,
    wake: Wake,
) -> Result<Created, Fault> {
    if let Some(id) = tables.by_name(&record)? {
        let holder = tables.get(id)?.ok_or_else(dangling)?;
        return Ok(Created::NameTaken(holder.record));
    }
    if tables.get(record.id)?.is_some() || tables.by_key(&record)?.is_some() {
        return Ok(Created::KeyTaken);
    }
    distinct(first)?;
    record.version = Version::default();
    record.stamp(now, wake);
    record.version = record.version.next();
    let new = Stored {
        tally: Tally::default().with(first, &[]),
        sequence: tables.next_sequence(&record.owner, record.created_at.as_millis())?,
        record,
    };
    let (uploads, bytes) = usage_of(&new);
    let used = tables.usage(&new.record.owner)?;
    if let Some(bound) = quota.passed_by(used.0 + uploads, narrow(used.1 + bytes)) {
        return Ok(Created::OverQuota(bound));
    }
    tables.insert_parts(new.record.id, first)?;
    tables.replace(None, Some(&new))?;
    Ok(Created::New(new.record))
}

pub(super) fn commit(
    tables: &mut Tables<'_>,
    now: Timestamp,
    id: UploadId,
    guard: &Guard,
    parts: &[Part],
) -> Result<Committed, Fault> {
    let Some(old) = tables.get(id)? else {
        return Ok(Committed::Unknown);
    };
    let fenced = old.record.state != State::Open || old.record.epoch != guard.epoch;
    if fenced || guard.end.is_some_and(|end| end != old.tally.bytes) {
        return Ok(Committed::Refused(old.record, old.tally));
    }
    for part in parts {
        if let Some(present) = tables.part(id, part.number)? {
            return Ok(Committed::Present(present));
        }
    }
    distinct(parts)?;
    let Some(mut record) = guard.apply(&old.record, old.tally) else {
        return Ok(Committed::Refused(old.record, old.tally));
    };
    if let Some(wake) = guard.wake(&old.record, now) {
        record.stamp(now, wake);
    }
    if record != old.record {
        record.version = record.version.next();
    }
    let new = Stored {
        record,
        tally: old.tally.with(parts, &[]),
        sequence: old.sequence,
    };
    let (before, after) = (usage_of(&old).1, usage_of(&new).1);
    // Who is over a bound that was lowered meanwhile may still finish what is reserved.
    if after > before {
        let used = tables.usage(&new.record.owner)?.1;
        let bytes = used.saturating_sub(before).saturating_add(after);
        let bound = Quota {
            uploads: None,
            ..guard.quota
        };
        if let Some(bound) = bound.passed_by(0, narrow(bytes)) {
            return Ok(Committed::OverQuota(bound));
        }
    }
    tables.insert_parts(id, parts)?;
    tables.replace(Some(&old), Some(&new))?;
    Ok(Committed::Done(new.tally))
}

pub(super) fn update(
    tables: &mut Tables<'_>,
    now: Timestamp,
    next: Record,
    edit: &PartsEdit,
    wake: Wake,
) -> Result<Updated, Fault> {
    let Some(old) = tables.get(next.id)?.filter(|old| old.record.version == next.version) else {
        return Ok(Updated::Stale);
    };
    let elsewhere = |holder: Option<UploadId>| holder.is_some_and(|holder| holder != next.id);
    if elsewhere(tables.by_name(&next)?) || elsewhere(tables.by_key(&next)?) {
        return Ok(Updated::KeyTaken);
    }
    let tally = match edit {
        PartsEdit::Keep => old.tally.with(&[], &[]),
        PartsEdit::Clear => {
            tables.clear_parts(next.id)?;
            let mut tally = old.tally.with(&[], &[]);
            (tally.parts, tally.bytes) = (0, 0);
            tally
        }
        PartsEdit::Remove(numbers) => {
            let mut removed = Vec::with_capacity(numbers.len());
            let mut seen = std::collections::BTreeSet::new();
            for number in numbers.iter().filter(|number| seen.insert(**number)) {
                removed.extend(tables.part(next.id, *number)?);
            }
            for part in &removed {
                tables.remove_part(next.id, part.number)?;
            }
            old.tally.with(&[], &removed)
        }
    };
    let mut record = next;
    record.created_at = old.record.created_at;
    record.version = record.version.next();
    record.stamp(now, wake);
    let sequence = if record.owner == old.record.owner {
        old.sequence
    } else {
        tables.next_sequence(&record.owner, record.created_at.as_millis())?
    };
    let new = Stored {
        record,
        tally,
        sequence,
    };
    tables.replace(Some(&old), Some(&new))?;
    Ok(Updated::Done(new.record))
}

/// A damaged record is passed over, loudly: it must not keep the others from their turn.
pub(super) fn due(
    tables: &mut Tables<'_>,
    now: Timestamp,
    lease: Duration,
    limit: usize,
) -> Result<Vec<Record>, Fault> {
    let mut taken = Vec::new();
    for id in tables.due(now.as_millis())? {
        if taken.len() >= limit {
            break;
        }
        let id = id?;
        match tables.get(id) {
            Ok(Some(old)) => taken.push(old),
            Ok(None) => tracing::error!(upload = %id, "the due index names an upload that is not there"),
            Err(Fault::Item(error)) => tracing::error!(upload = %id, %error, "a due upload cannot be read"),
            Err(fault) => return Err(fault),
        }
    }
    let mut records = Vec::with_capacity(taken.len());
    for old in taken {
        let mut new = old.clone();
        new.record.due_at = Some(now.after(lease));
        new.record.version = new.record.version.next();
        new.tally = new.tally.with(&[], &[]);
        tables.replace(Some(&old), Some(&new))?;
        records.push(new.record);
    }
    Ok(records)
}

pub(super) fn remove(tables: &mut Tables<'_>, id: UploadId, expected: Version) -> Result<bool, Fault> {
    let Some(old) = tables.get(id)?.filter(|old| old.record.version == expected) else {
        return Ok(false);
    };
    tables.clear_parts(id)?;
    tables.replace(Some(&old), None)?;
    Ok(true)
}

pub(super) fn load(view: &View, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>, Fault> {
    Ok(load_few(view, by, parts, u32::MAX)?.flatten())
}

/// As [`load`], unless the range has more parts than `most`.
#[allow(clippy::option_option, reason = "whether it was loaded, and whether there is one")]
pub(super) fn load_few(
    view: &View,
    by: Lookup<'_>,
    parts: PartRange,
    most: u32,
) -> Result<Option<Option<Snapshot>>, Fault> {
    let id = match by {
        Lookup::Id(id) => Some(id),
        Lookup::Name(owner, target, file_name) => view.by_name(owner, target, file_name)?,
    };
    let Some(id) = id else { return Ok(Some(None)) };
    let Some(Stored { record, tally, .. }) = view.get(id)? else {
        return Ok(Some(None));
    };
    if tally.parts.min(parts.end.saturating_sub(parts.start)) > most {
        return Ok(None);
    }
    let parts = view.parts(id, parts.start, parts.end)?;
    Ok(Some(Some(Snapshot::new(record, tally, parts))))
}

pub(super) fn list(view: &View, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>, Fault> {
    let stored = view.of_owner(owner, page.skip, page.limit)?;
    Ok(stored
        .into_iter()
        .map(|Stored { record, tally, .. }| Snapshot::new(record, tally, Vec::new()))
        .collect())
}

pub(super) fn unfinished(view: &View) -> Result<Option<Unfinished>, Fault> {
    let (uploads, bytes) = view.usage()?;
    Ok(Some(Unfinished::new(uploads, narrow(bytes))))
}

fn distinct(parts: &[Part]) -> Result<(), Error> {
    let mut numbers: Vec<u32> = parts.iter().map(|part| part.number).collect();
    numbers.sort_unstable();
    match numbers.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::invalid(
            "parts",
            format!("Part {} is given twice in one call", pair[0]),
        )),
        None => Ok(()),
    }
}

fn narrow(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
