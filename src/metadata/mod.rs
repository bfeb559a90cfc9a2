//! Where the truth about uploads lies: [`MetadataStore`] and the stores that come with the crate.
//!
//! A host that writes its own keeps two tables, uploads and parts, with unique indexes on id,
//! [name](crate::upload::Record::name) and [held key](crate::upload::Record::held_key), and a usage
//! sum per owner. The `conformance` feature has the suite that says whether it is right.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    error::Result,
    planted::{Bug, planted},
    upload::{
        FileName, HashState, Owner, Part, Record, Snapshot, State, Tally, Target, Timestamp, UploadId, Version, Wake,
    },
};

mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redb")]
mod redb;

#[cfg(feature = "postgres")]
pub use self::postgres::{PostgresMetadata, PostgresOptions};
#[cfg(feature = "redb")]
pub use self::redb::{Durability, RedbMetadata, RedbOptions};
pub use memory::MemoryMetadata;

/// Keeps the records and parts of uploads: the only truth, whose conditional writes are the only
/// commit points.
///
/// # What a store guarantees
/// * **Atomic**: each call happens wholly or not at all, at one moment between call and answer.
///   `commit` and `update` of the same upload are linearizable: once an `update` moved it out of
///   [`State::Open`], no commit succeeds. (In SQL: lock the upload's row first;
///   a bare `INSERT … SELECT … WHERE open` races under READ COMMITTED.)
/// * **Durable**: what a call answered survives a crash right after; reads see only what is durable.
/// * **Definite or unknown**: an answer is definite. An error of kind
///   [`Unavailable`](crate::ErrorKind::Unavailable) or [`Internal`](crate::ErrorKind::Internal) leaves the
///   outcome open, and the call may even take effect after the error; the engine reads again.
/// * **Cancel-safe**: a dropped future is an unknown outcome, nothing worse.
/// * **Clock**: the store's own clock sets every time of a record, by [`Record::stamp`].
///
/// `Arc<T>` and `Box<T>` of a store are stores.
#[async_trait]
pub trait MetadataStore: fmt::Debug + Send + Sync + 'static {
    /// Creates `new` and its `first` parts in one step, unless an upload with that id, a live one with
    /// that name or one that holds that key exists, or the owner's `quota` would be passed. Sets
    /// version 1, [`Tally::revision`] 1 and the times (`stamp` with [`Wake::AtExpiry`], or after `wake`
    /// if the caller said so).
    async fn create(&self, new: &Record, first: &[Part], quota: &Quota, wake: Wake) -> Result<Created>;

    /// Reads an upload with its tally and the parts in `parts`, as of one moment.
    async fn load(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>>;

    /// Adds `parts`, if the upload is open, `guard` holds and none of their numbers is taken; sets the
    /// hash state, the pin, the seal ([`Guard::apply`]) and the times ([`Guard::wake`]) that `guard` asks for in the same
    /// step. Costs the same for
    /// the 10,000th part as for the first.
    ///
    /// The record's version grows only when the record changes (pin, hash, seal, expiry); the revision always.
    async fn commit(&self, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed>;

    /// Replaces the record, if its stored version is still `next.version`, and edits the parts in the same
    /// step. The store sets version (plus one), revision (plus one) and times; that of the creation stays.
    ///
    /// Names and keys are released as `next` says. Where `next` takes a name or a key that another
    /// upload holds the answer is [`Updated::KeyTaken`], and nothing changed.
    async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Updated>;

    /// Takes up to `limit` records whose `due_at` has come, oldest first, and moves each one's `due_at` on
    /// by `lease` in the same step (a new version and revision), so that nobody else is given them meanwhile.
    async fn due(&self, lease: Duration, limit: usize) -> Result<Vec<Record>>;

    /// The uploads of `owner` without their parts, newest first; without an owner everybody's, in a fixed order.
    async fn list(&self, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>>;

    /// Forgets an upload and its parts, if its stored version is still `expected`. `false` if it was not.
    async fn remove(&self, id: UploadId, expected: Version) -> Result<bool>;

    /// What is unfinished, of all owners together; `None` from a store that cannot tell cheaply. For figures alone: nothing is
    /// decided by it.
    async fn unfinished(&self) -> Result<Option<Unfinished>> {
        Ok(None)
    }
}

/// What is unfinished, as [quotas](Quota) count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Open and assembling uploads.
    pub uploads: u64,
    /// The sum of [`Record::reserved`] over them, in bytes.
    pub bytes: u64,
}

impl Unfinished {
    /// So many uploads, which reserve so many bytes.
    #[must_use]
    pub const fn new(uploads: u64, bytes: u64) -> Self {
        Self { uploads, bytes }
    }
}

/// The answer of [`MetadataStore::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Created {
    /// It exists now, as given here.
    New(Record),
    /// A live upload has that name: this one. Told before the others.
    NameTaken(Record),
    /// Another upload holds that key (or, never seen in practice, has that id).
    KeyTaken,
    /// The owner would pass this bound; nothing was stored.
    OverQuota(QuotaBound),
}

/// The answer of [`MetadataStore::commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "it is taken apart where it is answered")]
#[non_exhaustive]
pub enum Committed {
    /// The parts are durable; the tally includes them.
    Done(Tally),
    /// A part with that number is there already, this one; nothing changed.
    Present(Part),
    /// The upload is not open, or `guard` does not hold: this is the record now. Nothing changed.
    Refused(Record, Tally),
    /// The owner would pass this bound; nothing was stored.
    OverQuota(QuotaBound),
    /// There is no such upload.
    Unknown,
}

/// The answer of [`MetadataStore::update`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "it is taken apart where it is answered")]
#[non_exhaustive]
pub enum Updated {
    /// Replaced; this is the record now.
    Done(Record),
    /// The stored version is another, or there is no such upload; nothing changed.
    Stale,
    /// Another upload has the name or key that `next` takes; nothing changed.
    KeyTaken,
}

/// What must hold for a [`commit`](MetadataStore::commit), and what it sets besides.
///
/// Checked in this order: upload exists, state open, `epoch`, `end`, parts present, `pin`, quota.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guard {
    /// The record's epoch must be this.
    pub epoch: u64,
    /// [`Tally::bytes`] must be this (sequential uploads).
    pub end: Option<u64>,
    /// The record's chunk size must be this or unknown, and becomes this.
    pub pin: Option<u64>,
    /// The record's file size must be this or unknown, and becomes this.
    pub size: Option<u64>,
    /// Becomes the record's hash state.
    pub hash: Option<HashState>,
    /// The bytes bound of the owner's quota.
    pub quota: Quota,
    /// The upload is sealed in the same step: it becomes [`Assembling`](State::Assembling), and the driver looks at it
    /// after this time. Goes with `size`, and may go without parts.
    pub seal: Option<Duration>,
}

impl Guard {
    /// Asks for the epoch alone.
    #[must_use]
    pub const fn new(epoch: u64) -> Self {
        Self {
            epoch,
            end: None,
            pin: None,
            size: None,
            hash: None,
            quota: Quota::UNLIMITED,
            seal: None,
        }
    }

    /// The part of the check that concerns the record: what `record` becomes by this commit (its times
    /// aside), or `None` if the guard does not hold. For stores to use.
    #[must_use]
    pub fn apply(&self, record: &Record, tally: Tally) -> Option<Record> {
        let agrees = |stored: Option<u64>, asked: Option<u64>| stored.is_none() || asked.is_none() || stored == asked;
        let open = record.state == State::Open || planted(Bug::CommitWithoutOpenCheck);
        let holds = open
            && record.epoch == self.epoch
            && self.end.is_none_or(|end| end == tally.bytes)
            && agrees(record.plan.chunk_size, self.pin)
            && agrees(record.plan.size, self.size);
        holds.then(|| {
            let mut next = record.clone();
            next.plan.chunk_size = next.plan.chunk_size.or(self.pin);
            next.plan.size = next.plan.size.or(self.size);
            if self.hash.is_some() {
                next.hash.clone_from(&self.hash);
            }
            if self.seal.is_some() {
                next.state = State::Assembling;
                next.attempts = 0;
            }
            next
        })
    }

    /// How a commit by this guard moves the times of `record`, as it was before: for [`Record::stamp`], unless `None`. For
    /// stores to use.
    #[must_use]
    pub fn wake(&self, record: &Record, now: Timestamp) -> Option<Wake> {
        match self.seal {
            Some(wait) => Some(Wake::After(wait)),
            None => record.slides(now).then_some(Wake::AtExpiry),
        }
    }
}

/// What one owner may have unfinished at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// Open and assembling uploads.
    pub uploads: Option<u64>,
    /// The sum of [`Record::reserved`] over them, in bytes.
    pub bytes: Option<u64>,
}

impl Quota {
    /// No bound.
    pub const UNLIMITED: Self = Self {
        uploads: None,
        bytes: None,
    };

    /// The bound that this usage would pass, if any.
    #[must_use]
    pub fn passed_by(&self, uploads: u64, bytes: u64) -> Option<QuotaBound> {
        match (self.uploads, self.bytes) {
            (Some(limit), _) if uploads > limit => Some(QuotaBound::Uploads(limit)),
            (_, Some(limit)) if bytes > limit => Some(QuotaBound::Bytes(limit)),
            _ => None,
        }
    }
}

/// A bound of a [`Quota`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuotaBound {
    /// This many unfinished uploads.
    Uploads(u64),
    /// This many bytes in unfinished uploads.
    Bytes(u64),
}

/// How an upload is looked up.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Lookup<'a> {
    /// By id, in any state, while remembered.
    Id(UploadId),
    /// The live upload with this name.
    Name(&'a Owner, Option<&'a Target>, &'a FileName),
}

/// Part numbers `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartRange {
    /// The first.
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

impl PartRange {
    /// No part.
    pub const NONE: Self = Self { start: 0, end: 0 };
    /// Every part.
    pub const ALL: Self = Self {
        start: 0,
        end: u32::MAX,
    };

    /// The part with this number.
    #[must_use]
    pub const fn one(number: u32) -> Self {
        Self {
            start: number,
            end: number.saturating_add(1),
        }
    }
}

/// What an [`update`](MetadataStore::update) does to the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartsEdit {
    /// Nothing.
    Keep,
    /// Removes all.
    Clear,
    /// Removes those with these numbers.
    Remove(Vec<u32>),
}

/// A stretch of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// How many to pass over.
    pub skip: usize,
    /// How many at most.
    pub limit: usize,
}

impl Page {
    /// `limit` items after the first `skip`.
    #[must_use]
    pub const fn new(skip: usize, limit: usize) -> Self {
        Self { skip, limit }
    }
}

macro_rules! through_pointer {
    ($pointer:ident) => {
        #[async_trait]
        impl<T: MetadataStore + ?Sized> MetadataStore for $pointer<T> {
            async fn create(&self, new: &Record, first: &[Part], quota: &Quota, wake: Wake) -> Result<Created> {
                (**self).create(new, first, quota, wake).await
            }
            async fn load(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>> {
                (**self).load(by, parts).await
            }
            async fn commit(&self, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed> {
                (**self).commit(id, guard, parts).await
            }
            async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Updated> {
                (**self).update(next, edit, wake).await
            }
            async fn due(&self, lease: Duration, limit: usize) -> Result<Vec<Record>> {
                (**self).due(lease, limit).await
            }
            async fn list(&self, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>> {
                (**self).list(owner, page).await
            }
            async fn remove(&self, id: UploadId, expected: Version) -> Result<bool> {
                (**self).remove(id, expected).await
            }
            async fn unfinished(&self) -> Result<Option<Unfinished>> {
                (**self).unfinished().await
            }
        }
    };
}

through_pointer!(Arc);
through_pointer!(Box);
