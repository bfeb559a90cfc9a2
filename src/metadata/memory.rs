use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    Committed, Created, Guard, Lookup, MetadataStore, Page, PartRange, PartsEdit, Quota, QuotaBound, Unfinished,
    Updated,
};
use crate::{
    engine::{Clock, SystemClock},
    error::{Error, Result},
    planted::{Bug, planted},
    upload::{FileName, Key, Owner, Part, Record, Snapshot, State, Tally, Target, Timestamp, UploadId, Version, Wake},
};

/// Metadata in memory, for tests and for uploads that need not survive the process.
///
/// It fulfils every clause of [`MetadataStore`] but the durable one. Each call costs O(log n).
pub struct MemoryMetadata {
    clock: Arc<dyn Clock>,
    tables: Mutex<Tables>,
}

impl MemoryMetadata {
    /// An empty store that goes by the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// An empty store that goes by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            tables: Mutex::default(),
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryMetadata {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryMetadata")
            .field("uploads", &self.tables().uploads.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl MetadataStore for MemoryMetadata {
    async fn create(&self, new: &Record, first: &[Part], quota: &Quota, wake: Wake) -> Result<Created> {
        let mut tables = self.tables();
        tables.create(self.clock.now(), new, first, *quota, wake)
    }

    async fn load(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>> {
        Ok(self.tables().load(by, parts))
    }

    async fn commit(&self, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed> {
        let mut tables = self.tables();
        tables.commit(self.clock.now(), id, guard, parts)
    }

    async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Updated> {
        let mut tables = self.tables();
        Ok(tables.update(self.clock.now(), next, edit, wake))
    }

    async fn due(&self, lease: Duration, limit: usize) -> Result<Vec<Record>> {
        let mut tables = self.tables();
        Ok(tables.due(self.clock.now(), lease, limit))
    }

    async fn list(&self, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>> {
        Ok(self.tables().list(owner, page))
    }

    async fn remove(&self, id: UploadId, expected: Version) -> Result<bool> {
        Ok(self.tables().remove(id, expected))
    }

    async fn unfinished(&self) -> Result<Option<Unfinished>> {
        let tables = self.tables();
        let used = tables
            .owners
            .values()
            .fold(Usage::default(), |sum, owned| sum.plus(owned.usage));
        Ok(Some(Unfinished::new(
            used.uploads,
            u64::try_from(used.bytes).unwrap_or(u64::MAX),
        )))
    }
}

/// The uploads and what is looked up by: every change goes through `put` and `take`, so that the
/// indexes never disagree with the rows.
#[derive(Default)]
struct Tables {
    uploads: HashMap<UploadId, Row>,
    names: HashMap<Name, UploadId>,
    keys: HashMap<Key, UploadId>,
    owners: HashMap<Owner, Owned>,
    due: BTreeSet<(Timestamp, UploadId)>,
    created: u64,
}

type Name = (Owner, Option<Target>, FileName);

struct Row {
    record: Record,
    tally: Tally,
    parts: BTreeMap<u32, Part>,
    /// Tells apart what was created in the same millisecond.
    sequence: u64,
}

impl Row {
    fn usage(&self) -> Usage {
        Usage::of(&self.record, self.tally)
    }

    fn snapshot(&self, range: PartRange) -> Snapshot {
        let parts = if range.start < range.end {
            self.parts
                .range(range.start..range.end)
                .map(|(_, part)| part.clone())
                .collect()
        } else {
            Vec::new()
        };
        Snapshot::new(self.record.clone(), self.tally, parts)
    }
}

#[derive(Default)]
struct Owned {
    uploads: BTreeSet<(Timestamp, u64, UploadId)>,
    usage: Usage,
}

#[derive(Clone, Copy, Default)]
struct Usage {
    uploads: u64,
    /// Wide enough that no sum of declared sizes wraps or saturates.
    bytes: u128,
}

impl Usage {
    fn of(record: &Record, tally: Tally) -> Self {
        Self {
            uploads: u64::from(matches!(record.state, State::Open | State::Assembling)),
            bytes: record.reserved(tally).into(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            uploads: self.uploads + other.uploads,
            bytes: self.bytes + other.bytes,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            uploads: self.uploads - other.uploads,
            bytes: self.bytes - other.bytes,
        }
    }

    fn passes(self, quota: Quota) -> Option<QuotaBound> {
        quota.passed_by(self.uploads, u64::try_from(self.bytes).unwrap_or(u64::MAX))
    }
}

impl Tables {
    fn create(&mut self, now: Timestamp, new: &Record, first: &[Part], quota: Quota, wake: Wake) -> Result<Created> {
        if let Some(holder) = self.named(new).and_then(|id| self.uploads.get(&id)) {
            return Ok(Created::NameTaken(holder.record.clone()));
        }
        if self.uploads.contains_key(&new.id) || self.key_of_another(new) {
            return Ok(Created::KeyTaken);
        }
        let parts = by_number(first)?;
        let tally = Tally::default().with(first, &[]);
        let usage = self.usage(&new.owner).plus(Usage::of(new, tally));
        if let Some(bound) = usage.passes(quota) {
            return Ok(Created::OverQuota(bound));
        }

        let mut record = new.clone();
        record.version = Version::default();
        record.stamp(now, wake);
        record.version = record.version.next();
        self.created += 1;
        self.put(Row {
            record: record.clone(),
            tally,
            parts,
            sequence: self.created,
        });
        Ok(Created::New(record))
    }

    fn load(&self, by: Lookup<'_>, parts: PartRange) -> Option<Snapshot> {
        let id = match by {
            Lookup::Id(id) => id,
            Lookup::Name(owner, target, file_name) => {
                *self.names.get(&(owner.clone(), target.cloned(), file_name.clone()))?
            }
        };
        self.uploads.get(&id).map(|row| row.snapshot(parts))
    }

    fn commit(&mut self, now: Timestamp, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed> {
        let Some(row) = self.uploads.get(&id) else {
            return Ok(Committed::Unknown);
        };
        let (record, tally) = (&row.record, row.tally);
        let refused = || Ok(Committed::Refused(record.clone(), tally));
        let open = record.state == State::Open || planted(Bug::CommitWithoutOpenCheck);
        if !open || record.epoch != guard.epoch || guard.end.is_some_and(|end| end != tally.bytes) {
            return refused();
        }
        if let Some(present) = parts.iter().find_map(|part| row.parts.get(&part.number)) {
            return Ok(Committed::Present(present.clone()));
        }
        let added = by_number(parts)?;
        let Some(mut next) = guard.apply(record, tally) else {
            return refused();
        };
        let tally = tally.with(parts, &[]);
        let (before, after) = (row.usage(), Usage::of(&next, tally));
        let bound = self.usage(&record.owner).minus(before).plus(after).passes(Quota {
            uploads: None,
            bytes: guard.quota.bytes,
        });
        // Who is over a bound that was lowered meanwhile may still finish what is reserved.
        if let Some(bound) = bound.filter(|_| after.bytes > before.bytes) {
            return Ok(Committed::OverQuota(bound));
        }

        if let Some(wake) = guard.wake(record, now) {
            next.stamp(now, wake);
        }
        if next != *record {
            next.version = record.version.next();
        }
        if let Some(mut row) = self.take(id) {
            row.record = next;
            row.tally = tally;
            row.parts.extend(added);
            self.put(row);
        }
        Ok(Committed::Done(tally))
    }

    fn update(&mut self, now: Timestamp, next: &Record, edit: PartsEdit, wake: Wake) -> Updated {
        if self
            .uploads
            .get(&next.id)
            .is_none_or(|row| row.record.version != next.version)
        {
            return Updated::Stale;
        }
        if self.named(next).is_some_and(|holder| holder != next.id) || self.key_of_another(next) {
            return Updated::KeyTaken;
        }
        let Some(mut row) = self.take(next.id) else {
            return Updated::Stale;
        };
        let removed: Vec<Part> = match edit {
            PartsEdit::Keep => Vec::new(),
            PartsEdit::Clear => std::mem::take(&mut row.parts).into_values().collect(),
            PartsEdit::Remove(numbers) => numbers.iter().filter_map(|number| row.parts.remove(number)).collect(),
        };
        row.tally = row.tally.with(&[], &removed);
        let created_at = row.record.created_at;
        row.record = next.clone();
        row.record.created_at = created_at;
        row.record.stamp(now, wake);
        row.record.version = next.version.next();
        let record = row.record.clone();
        self.put(row);
        Updated::Done(record)
    }

    fn due(&mut self, now: Timestamp, lease: Duration, limit: usize) -> Vec<Record> {
        let come: Vec<UploadId> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(limit)
            .map(|(_, id)| *id)
            .collect();
        come.into_iter()
            .filter_map(|id| {
                let mut row = self.take(id)?;
                row.record.due_at = Some(now.after(lease));
                row.record.version = row.record.version.next();
                row.tally = row.tally.with(&[], &[]);
                let record = row.record.clone();
                self.put(row);
                Some(record)
            })
            .collect()
    }

    fn list(&self, owner: Option<&Owner>, page: Page) -> Vec<Snapshot> {
        let mut uploads: Vec<_> = match owner {
            Some(owner) => self
                .owners
                .get(owner)
                .into_iter()
                .flat_map(|owned| owned.uploads.iter())
                .collect(),
            None => self.owners.values().flat_map(|owned| owned.uploads.iter()).collect(),
        };
        uploads.sort_unstable_by(|a, b| b.cmp(a));
        uploads
            .into_iter()
            .filter_map(|(.., id)| self.uploads.get(id))
            .skip(page.skip)
            .take(page.limit)
            .map(|row| row.snapshot(PartRange::NONE))
            .collect()
    }

    fn remove(&mut self, id: UploadId, expected: Version) -> bool {
        let is_that = self.uploads.get(&id).is_some_and(|row| row.record.version == expected);
        is_that && self.take(id).is_some()
    }

    fn put(&mut self, row: Row) {
        let Row { record, .. } = &row;
        let id = record.id;
        if let Some((owner, target, file_name)) = record.name() {
            self.names
                .insert((owner.clone(), target.cloned(), file_name.clone()), id);
        }
        if let Some(key) = record.held_key() {
            self.keys.insert(key.clone(), id);
        }
        if let Some(at) = record.due_at {
            self.due.insert((at, id));
        }
        let owned = self.owners.entry(record.owner.clone()).or_default();
        owned.usage = owned.usage.plus(row.usage());
        owned.uploads.insert((record.created_at, row.sequence, id));
        self.uploads.insert(id, row);
    }

    fn take(&mut self, id: UploadId) -> Option<Row> {
        let row = self.uploads.remove(&id)?;
        let record = &row.record;
        if let Some((owner, target, file_name)) = record.name() {
            self.names.remove(&(owner.clone(), target.cloned(), file_name.clone()));
        }
        if let Some(key) = record.held_key() {
            self.keys.remove(key);
        }
        if let Some(at) = record.due_at {
            self.due.remove(&(at, id));
        }
        if let hash_map::Entry::Occupied(mut entry) = self.owners.entry(record.owner.clone()) {
            let owned = entry.get_mut();
            owned.usage = owned.usage.minus(row.usage());
            owned.uploads.remove(&(record.created_at, row.sequence, id));
            if owned.uploads.is_empty() {
                entry.remove();
            }
        }
        Some(row)
    }

    fn usage(&self, owner: &Owner) -> Usage {
        self.owners.get(owner).map(|owned| owned.usage).unwrap_or_default()
    }

    fn named(&self, record: &Record) -> Option<UploadId> {
        let (owner, target, file_name) = record.name()?;
        self.names
            .get(&(owner.clone(), target.cloned(), file_name.clone()))
            .copied()
    }

    fn key_of_another(&self, record: &Record) -> bool {
        record
            .held_key()
            .and_then(|key| self.keys.get(key))
            .is_some_and(|holder| *holder != record.id)
    }
}

fn by_number(parts: &[Part]) -> Result<BTreeMap<u32, Part>> {
    let map: BTreeMap<u32, Part> = parts.iter().map(|part| (part.number, part.clone())).collect();
    if map.len() == parts.len() {
        Ok(map)
    } else {
        Err(Error::invalid("parts", "The same part is given twice in one call"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::upload::{Handle, Plan};

    #[tokio::test]
    async fn declared_sizes_that_add_up_past_64_bits_are_given_back_exactly() {
        let store = MemoryMetadata::new();
        let owner = Owner::new("o");
        let mut records = Vec::new();
        for n in 0..3 {
            let record = Record::new(
                UploadId::from_bytes([n; 16]),
                owner.clone(),
                FileName::parse("f").unwrap(),
                Key::parse(&format!("k{n}")).unwrap(),
                Plan::sequential(Some(u64::MAX)),
                Handle::new("h"),
            );
            let created = store
                .create(&record, &[], &Quota::UNLIMITED, Wake::AtExpiry)
                .await
                .unwrap();
            let Created::New(record) = created else {
                panic!("{created:?}")
            };
            records.push(record);
        }
        for record in records {
            assert!(store.remove(record.id, record.version).await.unwrap());
        }
        assert!(store.tables().owners.is_empty());
        assert_eq!(store.tables().usage(&owner).bytes, 0);
    }
}
