//! How records and parts are written: columns for what statements check, change or look up by, and the rest of a record
//! as JSON.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    error::{Error, Result},
    upload::{FileName, HashState, Key, Owner, Part, Receipt, Record, State, Tally, Target, Timestamp, UploadId, Wake},
};

/// The format of the column `record`.
const FORMAT: u32 = 1;

/// Fields of a record that have a column of their own.
const COLUMNS: [&str; 16] = [
    "id",
    "version",
    "state",
    "owner",
    "target",
    "file_name",
    "named",
    "key",
    "key_held",
    "epoch",
    "hash",
    "attempts",
    "created_at",
    "published_at",
    "expires_at",
    "due_at",
];

/// From here on a time is never: no clock comes near, and sums of two stay within a `bigint`.
const NEVER: u64 = 1 << 62;

/// A row of `uploads`; `record` goes in as text and comes out as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row<R> {
    id: UploadId,
    version: u64,
    revision: u64,
    parts: u64,
    bytes: u64,
    state: State,
    owner: Owner,
    target: Option<Target>,
    file_name: FileName,
    named: bool,
    key: Key,
    key_held: bool,
    size: Option<u64>,
    chunk_size: Option<u64>,
    epoch: i64,
    hash_end: Option<u64>,
    hash_state: Option<String>,
    attempts: u32,
    waits: bool,
    expire_after: Option<u64>,
    created_at: u64,
    /// A database that was made before there was this column tells none.
    #[serde(default)]
    published_at: Option<u64>,
    expires_at: Option<u64>,
    due_at: Option<u64>,
    format: u32,
    record: R,
}

impl Row<String> {
    pub(super) fn of(record: &Record, tally: Tally) -> Result<Self> {
        Ok(Self {
            id: record.id,
            version: fits(record.version.get())?,
            revision: tally.revision,
            parts: tally.parts.into(),
            bytes: fits(tally.bytes)?,
            state: record.state,
            owner: record.owner.clone(),
            target: record.target.clone(),
            file_name: record.file_name.clone(),
            named: record.named,
            key: record.key.clone(),
            key_held: record.key_held,
            size: record.plan.size.map(fits).transpose()?,
            chunk_size: record.plan.chunk_size.map(fits).transpose()?,
            epoch: signed(record.epoch),
            hash_end: record.hash.as_ref().map(|hash| fits(hash.end)).transpose()?,
            hash_state: record.hash.as_ref().map(hash_text),
            attempts: record.attempts,
            waits: record.waits(),
            expire_after: record.expire_after.map(millis),
            created_at: time(record.created_at),
            published_at: record.published_at.map(time),
            expires_at: record.expires_at.map(time),
            due_at: record.due_at.map(time),
            format: FORMAT,
            record: rest(record)?,
        })
    }
}

impl Row<Value> {
    pub(super) fn read(self) -> Result<(Record, Tally)> {
        if self.format != FORMAT {
            return Err(Error::internal(format!(
                "The metadata record of upload {} has format {}, this release reads format {FORMAT}; run the release \
                 that wrote it",
                self.id, self.format
            )));
        }
        let id = self.id;
        let damaged = || Error::internal(format!("The metadata record of upload {id} is damaged"));
        let tally = Tally {
            parts: u32::try_from(self.parts).map_err(|_| damaged())?,
            bytes: self.bytes,
            revision: self.revision,
        };
        let hash = match (self.hash_end, &self.hash_state) {
            (Some(end), Some(text)) => Some(HashState::new(end, STANDARD.decode(text).map_err(|_| damaged())?)),
            _ => None,
        };
        let (size, chunk_size) = (self.size, self.chunk_size);
        let whole = self.whole().ok_or_else(damaged)?;
        let mut record: Record = serde_json::from_value(whole).map_err(|error| damaged().with_source(error))?;
        record.plan.size = size;
        record.plan.chunk_size = chunk_size;
        record.hash = hash;
        Ok((record, tally))
    }

    fn whole(self) -> Option<Value> {
        let mut columns = json!({
            "id": self.id,
            "version": self.version,
            "state": self.state,
            "owner": self.owner,
            "file_name": self.file_name,
            "named": self.named,
            "key": self.key,
            "key_held": self.key_held,
            "epoch": self.epoch.cast_unsigned(),
            "attempts": self.attempts,
            "created_at": self.created_at,
            "published_at": self.published_at.map(moment),
            "target": self.target,
            "expires_at": self.expires_at.map(moment),
            "due_at": self.due_at.map(moment),
        });
        let Value::Object(mut rest) = self.record else {
            return None;
        };
        columns.as_object_mut()?.append(&mut rest);
        Some(columns)
    }
}

/// What has no column, as JSON.
fn rest(record: &Record) -> Result<String> {
    let unwritable = |error| Error::internal("A metadata record cannot be written").with_source(error);
    let mut whole: Map<String, Value> =
        serde_json::from_slice(&serde_json::to_vec(record).map_err(unwritable)?).map_err(unwritable)?;
    for column in COLUMNS {
        whole.remove(column);
    }
    if let Some(Value::Object(plan)) = whole.get_mut("plan") {
        plan.remove("size");
        plan.remove("chunk_size");
    }
    serde_json::to_string(&whole).map_err(unwritable)
}

pub(super) fn hash_text(hash: &HashState) -> String {
    STANDARD.encode(&hash.state)
}

/// A row of `parts`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PartRow {
    number: u32,
    len: u64,
    crc64: i64,
    receipt: Receipt,
}

impl PartRow {
    /// The rows of `parts`, and their bytes in all.
    pub(super) fn of(parts: &[Part]) -> Result<(Vec<Self>, u64)> {
        let mut numbers: Vec<u32> = parts.iter().map(|part| part.number).collect();
        numbers.sort_unstable();
        if let Some(pair) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(
                "parts",
                format!("Part {} is given twice in one call", pair[0]),
            ));
        }
        let bytes = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.len));
        let rows = parts.iter().map(|part| Self {
            number: part.number,
            len: part.len,
            crc64: signed(part.crc64),
            receipt: part.receipt.clone(),
        });
        Ok((rows.collect(), fits(bytes)?))
    }

    pub(super) fn read(self) -> Part {
        Part::new(self.number, self.len, self.crc64.cast_unsigned(), self.receipt)
    }
}

/// A [`Wake`] as (`wake`, `wait` in milliseconds).
pub(super) fn waking(wake: Wake) -> (&'static str, u64) {
    match wake {
        Wake::Keep => ("keep", 0),
        Wake::Never => ("never", 0),
        Wake::After(wait) => ("after", millis(wait)),
        Wake::AtExpiry => ("expiry", 0),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(NEVER)
}

fn time(at: Timestamp) -> u64 {
    at.as_millis().min(NEVER)
}

fn moment(millis: u64) -> u64 {
    if millis < NEVER { millis } else { u64::MAX }
}

/// What uses all 64 bits and is not counted with: Postgres knows no unsigned numbers.
pub(super) const fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// What is counted with.
pub(super) fn fits(number: u64) -> Result<u64> {
    const MAX: u64 = i64::MAX.cast_unsigned();
    if number > MAX {
        return Err(Error::too_large("Sizes end at 8 EiB on this server", MAX));
    }
    Ok(number)
}
