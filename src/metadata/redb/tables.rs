//! What lies in the file: the tables, and what keeps them in step with one another.

use super::encoding::{decode_part, decode_tally, encode_part, encode_tally, name_key};
use crate::{
    error::{Error, Result},
    upload::{FileName, Owner, Part, Record, State, Tally, Target, UploadId},
};
use ::redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

/// The format of the tables, kept in [`META`] under [`FORMAT_KEY`].
pub(super) const FORMAT: u64 = 1;
pub(super) const FORMAT_KEY: &str = "format";
/// How far the store's clock came, in [`META`], in milliseconds since 1970. Not there in a file that was not written to.
pub(super) const CLOCK_KEY: &str = "clock";

type Id = &'static [u8; 16];

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const UPLOADS: TableDefinition<'_, Id, &[u8]> = TableDefinition::new("uploads");
const TALLY: TableDefinition<'_, Id, &[u8]> = TableDefinition::new("tally");
const PARTS: TableDefinition<'_, (Id, u32), &[u8]> = TableDefinition::new("parts");
const NAMES: TableDefinition<'_, &[u8], Id> = TableDefinition::new("names");
const KEYS: TableDefinition<'_, &str, Id> = TableDefinition::new("keys");
const DUE: TableDefinition<'_, (u64, Id), ()> = TableDefinition::new("due");
/// Owner, time of creation, and the order among those of one owner created in the same millisecond.
const OWNERS: TableDefinition<'_, (&str, u64, u32), Id> = TableDefinition::new("owners");
const USAGE: TableDefinition<'_, &str, (u64, u128)> = TableDefinition::new("usage");

/// Why an operation has no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// This one upload's data is damaged, or the call makes no sense; others are well.
    Item(Error),
    /// The file failed.
    Store(::redb::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Item(error)
    }
}

/// `?` for redb's results where a [`Fault`] is returned.
pub(super) trait OrFault<T> {
    fn or_fault(self) -> Result<T, Fault>;
}

impl<T, E: Into<::redb::Error>> OrFault<T> for std::result::Result<T, E> {
    fn or_fault(self) -> Result<T, Fault> {
        self.map_err(|error| Fault::Store(error.into()))
    }
}

/// An upload as it is stored, its parts aside.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) record: Record,
    pub(super) tally: Tally,
    /// Its order among those of its owner created in the same millisecond.
    pub(super) sequence: u32,
}

/// The tables of a write transaction.
pub(super) struct Tables<'txn> {
    uploads: Table<'txn, Id, &'static [u8]>,
    tally: Table<'txn, Id, &'static [u8]>,
    parts: Table<'txn, (Id, u32), &'static [u8]>,
    names: Table<'txn, &'static [u8], Id>,
    keys: Table<'txn, &'static str, Id>,
    due: Table<'txn, (u64, Id), ()>,
    owners: Table<'txn, (&'static str, u64, u32), Id>,
    usage: Table<'txn, &'static str, (u64, u128)>,
    changed: bool,
}

impl<'txn> Tables<'txn> {
    /// Opens all of them, creating those that are missing.
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, ::redb::TableError> {
        Ok(Self {
            uploads: txn.open_table(UPLOADS)?,
            tally: txn.open_table(TALLY)?,
            parts: txn.open_table(PARTS)?,
            names: txn.open_table(NAMES)?,
            keys: txn.open_table(KEYS)?,
            due: txn.open_table(DUE)?,
            owners: txn.open_table(OWNERS)?,
            usage: txn.open_table(USAGE)?,
            changed: false,
        })
    }

    /// Whether anything was written: a transaction of refusals alone needs no sync.
    pub(super) const fn changed(&self) -> bool {
        self.changed
    }

    pub(super) fn get(&self, id: UploadId) -> Result<Option<Stored>, Fault> {
        stored(&self.uploads, &self.tally, id)
    }

    pub(super) fn by_name(&self, record: &Record) -> Result<Option<UploadId>, Fault> {
        let Some((owner, target, file_name)) = record.name() else {
            return Ok(None);
        };
        let found = self.names.get(&*name_key(owner, target, file_name)).or_fault()?;
        Ok(found.map(|id| UploadId::from_bytes(*id.value())))
    }

    pub(super) fn by_key(&self, record: &Record) -> Result<Option<UploadId>, Fault> {
        let Some(key) = record.held_key() else {
            return Ok(None);
        };
        let found = self.keys.get(key.as_str()).or_fault()?;
        Ok(found.map(|id| UploadId::from_bytes(*id.value())))
    }

    /// Unfinished uploads of `owner` and the bytes they reserve: wide enough that no sum of declared
    /// sizes wraps.
    pub(super) fn usage(&self, owner: &Owner) -> Result<(u64, u128), Fault> {
        let found = self.usage.get(owner.as_str()).or_fault()?;
        Ok(found.map(|usage| usage.value()).unwrap_or_default())
    }

    /// The order of one more upload of `owner` created at `at`.
    pub(super) fn next_sequence(&self, owner: &Owner, at: u64) -> Result<u32, Fault> {
        let range = (owner.as_str(), at, 0)..=(owner.as_str(), at, u32::MAX);
        match self.owners.range(range).or_fault()?.next_back() {
            Some(last) => Ok(last.or_fault()?.0.value().2.saturating_add(1)),
            None => Ok(0),
        }
    }

    pub(super) fn part(&self, id: UploadId, number: u32) -> Result<Option<Part>, Fault> {
        match self.parts.get((id.as_bytes(), number)).or_fault()? {
            Some(bytes) => Ok(Some(decode_part(number, bytes.value())?)),
            None => Ok(None),
        }
    }

    /// The ids whose time has come by `now`, oldest first.
    pub(super) fn due(&self, now: u64) -> Result<impl Iterator<Item = Result<UploadId, Fault>>, Fault> {
        let range = self.due.range(..=(now, &[0xff; 16])).or_fault()?;
        Ok(range.map(|entry| {
            let (key, _) = entry.or_fault()?;
            Ok(UploadId::from_bytes(*key.value().1))
        }))
    }

    /// The ids whose time comes after `now`.
    pub(super) fn due_after(&self, now: u64) -> Result<impl Iterator<Item = Result<UploadId, Fault>>, Fault> {
        let range = self.due.range((now.saturating_add(1), &[0; 16])..).or_fault()?;
        Ok(range.map(|entry| {
            let (key, _) = entry.or_fault()?;
            Ok(UploadId::from_bytes(*key.value().1))
        }))
    }

    pub(super) fn insert_parts(&mut self, id: UploadId, parts: &[Part]) -> Result<(), Fault> {
        for part in parts {
            let bytes = encode_part(part)?;
            self.changed = true;
            self.parts.insert((id.as_bytes(), part.number), &*bytes).or_fault()?;
        }
        Ok(())
    }

    pub(super) fn remove_part(&mut self, id: UploadId, number: u32) -> Result<(), Fault> {
        self.changed = true;
        self.parts.remove((id.as_bytes(), number)).or_fault()?;
        Ok(())
    }

    pub(super) fn clear_parts(&mut self, id: UploadId) -> Result<(), Fault> {
        self.changed = true;
        let range = (id.as_bytes(), 0)..=(id.as_bytes(), u32::MAX);
        self.parts.retain_in(range, |_, _| false).or_fault()
    }

    /// Puts `new` in the place of `old`, in the indexes and the owner's usage too.
    pub(super) fn replace(&mut self, old: Option<&Stored>, new: Option<&Stored>) -> Result<(), Fault> {
        self.changed = true;
        self.replace_record(old, new)?;
        self.replace_name(old, new)?;
        self.replace_key(old, new)?;
        self.replace_due(old, new)?;
        self.replace_owner(old, new)?;
        self.replace_usage(old, new)
    }

    fn replace_record(&mut self, old: Option<&Stored>, new: Option<&Stored>) -> Result<(), Fault> {
        if let Some(new) = new {
            let id = new.record.id.as_bytes();
            self.tally
                .insert(id, &encode_tally(new.tally, new.sequence)[..])
                .or_fault()?;
            if old.is_none_or(|old| old.record != new.record) {
                self.uploads.insert(id, &*new.record.encode()).or_fault()?;
            }
        } else if let Some(old) = old {
            let id = old.record.id.as_bytes();
            self.tally.remove(id).or_fault()?;
            self.uploads.remove(id).or_fault()?;
        }
        Ok(())
    }

    fn replace_name(&mut self, old: Option<&Stored>, new: Option<&Stored>) -> Result<(), Fault> {
        let key = |stored: &Stored| {
            let (owner, target, file_name) = stored.record.name()?;
            Some((name_key(owner, target, file_name), stored.record.id))
        };
        let (old, new) = (old.and_then(key), new.and_then(key));
        if old != new {
            if let Some((name, _)) = old {
                self.names.remove(&*name).or_fault()?;
            }
            if let Some((name, id)) = new {
                self.names.insert(&*name, id.as_bytes()).or_fault()?;
            }
        }
        Ok(())
    }

    fn replace_key(&mut self, old: Option<&Stored>, new: Option<&Stored>) -> Result<(), Fault> {
        let key = |stored: &Stored| Some((stored.record.held_key()?.clone(), stored.record.id));
        let (old, new) = (old.and_then(key), new.and_then(key));
        if old != new {
            if let Some((key, _)) = old {
                self.keys.remove(key.as_str()).or_fault()?;
            }
            if let Some((key, id)) = new {
                self.keys.insert(key.as_str(), id.as_bytes()).or_fault()?;
            }
        }
        Ok(())
    }

    fn replace_due(&mut self, old: Option<&Stored>, new: Option<&Stored>) -> Result<(), Fault> {
        let key = |stored: &Stored| Some((stored.record.due_at?.as_millis(), stored.record.id));
        let (old, new) = (old.and_then(key), new.and_then(key));
        if old != new {
            if let Some((at, id)) = old {
                self.due.remove((at, id.as_bytes())).or_fault()?;
            }
            if let Some((at, id)) = new {
                self.due.insert((at, id.as_bytes()), ()).or_fault()?;
            }
        }
        Ok(())
    }

    fn replace_owner(&mut self, old: Option<&Stored>, new: Option<&Stored>) -> Result<(), Fault> {
        let key = |stored: &Stored| {
            let record = &stored.record;
            let place = (record.owner.clone(), record.created_at.as_millis(), stored.sequence);
            (place, record.id)
        };
        let (old, new) = (old.map(key), new.map(key));
        if old != new {
            if let Some(((owner, at, sequence), _)) = old {
                self.owners.remove((owner.as_str(), at, sequence)).or_fault()?;
            }
            if let Some(((owner, at, sequence), id)) = new {
                self.owners
                    .insert((owner.as_str(), at, sequence), id.as_bytes())
                    .or_fault()?;
            }
        }
        Ok(())
    }

    fn replace_usage(&mut self, old: Option<&Stored>, new: Option<&Stored>) -> Result<(), Fault> {
        let share = |stored: &Stored| (stored.record.owner.clone(), usage_of(stored));
        let (old, new) = (old.map(share), new.map(share));
        if old == new {
            return Ok(());
        }
        if let Some((owner, (uploads, bytes))) = old {
            let usage = self.usage(&owner)?;
            let left = (usage.0.saturating_sub(uploads), usage.1.saturating_sub(bytes));
            self.set_usage(&owner, left)?;
        }
        if let Some((owner, (uploads, bytes))) = new {
            let usage = self.usage(&owner)?;
            self.set_usage(&owner, (usage.0 + uploads, usage.1 + bytes))?;
        }
        Ok(())
    }

    fn set_usage(&mut self, owner: &Owner, usage: (u64, u128)) -> Result<(), Fault> {
        if usage == (0, 0) {
            self.usage.remove(owner.as_str()).or_fault()?;
        } else {
            self.usage.insert(owner.as_str(), usage).or_fault()?;
        }
        Ok(())
    }
}

/// One consistent, durable view.
pub(super) struct View(ReadTransaction);

impl View {
    pub(super) const fn new(txn: ReadTransaction) -> Self {
        Self(txn)
    }

    pub(super) fn get(&self, id: UploadId) -> Result<Option<Stored>, Fault> {
        let uploads = self.0.open_table(UPLOADS).or_fault()?;
        let tally = self.0.open_table(TALLY).or_fault()?;
        stored(&uploads, &tally, id)
    }

    pub(super) fn by_name(
        &self,
        owner: &Owner,
        target: Option<&Target>,
        file_name: &FileName,
    ) -> Result<Option<UploadId>, Fault> {
        let names = self.0.open_table(NAMES).or_fault()?;
        let found = names.get(&*name_key(owner, target, file_name)).or_fault()?;
        Ok(found.map(|id| UploadId::from_bytes(*id.value())))
    }

    /// The parts with numbers in `start..end`, in order.
    pub(super) fn parts(&self, id: UploadId, start: u32, end: u32) -> Result<Vec<Part>, Fault> {
        if start >= end {
            return Ok(Vec::new());
        }
        let parts = self.0.open_table(PARTS).or_fault()?;
        let mut found = Vec::new();
        for entry in parts.range((id.as_bytes(), start)..(id.as_bytes(), end)).or_fault()? {
            let (key, bytes) = entry.or_fault()?;
            found.push(decode_part(key.value().1, bytes.value())?);
        }
        Ok(found)
    }

    /// Unfinished uploads of all owners and the bytes they reserve.
    pub(super) fn usage(&self) -> Result<(u64, u128), Fault> {
        let mut sum = (0_u64, 0_u128);
        for entry in self.0.open_table(USAGE).or_fault()?.range::<&str>(..).or_fault()? {
            let (uploads, bytes) = entry.or_fault()?.1.value();
            sum = (sum.0.saturating_add(uploads), sum.1.saturating_add(bytes));
        }
        Ok(sum)
    }

    /// The uploads of `owner`, newest first; without one everybody's, owner by owner.
    pub(super) fn of_owner(&self, owner: Option<&Owner>, skip: usize, limit: usize) -> Result<Vec<Stored>, Fault> {
        let owners = self.0.open_table(OWNERS).or_fault()?;
        let uploads = self.0.open_table(UPLOADS).or_fault()?;
        let tally = self.0.open_table(TALLY).or_fault()?;
        let entries = match owner.map(Owner::as_str) {
            Some(owner) => owners.range((owner, 0, 0)..=(owner, u64::MAX, u32::MAX)),
            None => owners.range::<(&str, u64, u32)>(..),
        };
        let mut found = Vec::new();
        for entry in entries.or_fault()?.rev().skip(skip).take(limit) {
            let (_, id) = entry.or_fault()?;
            let id = UploadId::from_bytes(*id.value());
            found.push(stored(&uploads, &tally, id)?.ok_or_else(dangling)?);
        }
        Ok(found)
    }
}

fn stored(
    uploads: &impl ReadableTable<Id, &'static [u8]>,
    tally: &impl ReadableTable<Id, &'static [u8]>,
    id: UploadId,
) -> Result<Option<Stored>, Fault> {
    let Some(record) = uploads.get(id.as_bytes()).or_fault()? else {
        return Ok(None);
    };
    let tally = tally.get(id.as_bytes()).or_fault()?.ok_or_else(dangling)?;
    let (tally, sequence) = decode_tally(tally.value())?;
    Ok(Some(Stored {
        record: Record::decode(record.value())?,
        tally,
        sequence,
    }))
}

/// An index that leads nowhere: nothing this release does makes one.
pub(super) fn dangling() -> Error {
    Error::internal("The metadata file is damaged: an index names an upload that is not there")
}

/// What an upload counts for against its owner's quota: (uploads, bytes).
pub(super) fn usage_of(stored: &Stored) -> (u64, u128) {
    let unfinished = matches!(stored.record.state, State::Open | State::Assembling);
    (u64::from(unfinished), stored.record.reserved(stored.tally).into())
}
