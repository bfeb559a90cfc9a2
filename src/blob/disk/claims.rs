//! Who may write where: a gate for each upload, a claim for each slot.
//!
//! A claim belongs to a writer, a [`Permit`] to the job that writes for it. What a newer claim or a
//! seal waits for is the permit, so a dropped request frees nothing while its job still runs.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{Mutex as JobLock, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::{
    blob::Slot,
    error::{Error, ErrorKind, Result},
    planted::{Bug, planted},
    upload::{Key, UploadId},
};

/// Held by the job that writes to a slot.
type Jobs = Arc<JobLock<()>>;

/// The uploads that have a claim or are sealed.
#[derive(Debug, Default)]
pub(super) struct Registry {
    uploads: Mutex<Uploads>,
}

#[derive(Debug, Default)]
struct Uploads {
    known: HashMap<UploadId, Weak<Entry>>,
    /// A seal outlives the writers.
    sealed: HashMap<UploadId, Arc<Entry>>,
}

impl Registry {
    /// The one entry of an upload.
    pub(super) fn entry(self: &Arc<Self>, id: UploadId) -> Arc<Entry> {
        let mut uploads = lock(&self.uploads);
        if let Some(entry) = uploads.known.get(&id).and_then(Weak::upgrade) {
            return entry;
        }
        let entry = Arc::new(Entry {
            id,
            gate: Arc::default(),
            state: Mutex::default(),
            registry: Arc::downgrade(self),
        });
        uploads.known.insert(id, Arc::downgrade(&entry));
        entry
    }

    /// Forgets an upload that is gone. Late writers keep the seal.
    pub(super) fn forget(&self, id: UploadId) {
        let mut uploads = lock(&self.uploads);
        let entry = uploads.sealed.remove(&id);
        uploads.known.remove(&id);
        // The entry's drop locks the registry: not within the lock.
        drop(uploads);
        drop(entry);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.uploads).known.len()
    }
}

/// What is known of an upload while somebody writes, or since it was sealed.
#[derive(Debug)]
pub(super) struct Entry {
    id: UploadId,
    /// Jobs that write hold it shared, complete and discard hold it alone.
    gate: Arc<RwLock<()>>,
    state: Mutex<State>,
    registry: Weak<Registry>,
}

#[derive(Debug, Default)]
struct State {
    sealed: bool,
    /// How often a seal was broken.
    unsealed: u64,
    generation: u64,
    claims: HashMap<u32, Claimed>,
    published: Option<Key>,
    resize_failed: bool,
}

#[derive(Debug)]
struct Claimed {
    /// The claim that may write.
    generation: u64,
    /// Its writer is there.
    live: bool,
    /// The bytes it may change in place.
    range: Option<Range<u64>>,
    /// Held by the job that writes.
    jobs: Jobs,
}

impl Entry {
    /// Takes a slot over, and waits for the job of the one it is taken from.
    pub(super) async fn claim(self: &Arc<Self>, slot: Slot) -> Result<Arc<Claim>> {
        let range = slot.offset.map(|offset| offset..offset.saturating_add(slot.max_len));
        let (claim, others) = self.take_over(slot.number, range.clone())?;
        for jobs in others.iter().chain([&claim.jobs]) {
            drop(jobs.lock().await);
        }
        self.state().current(&claim)?.range = range;
        Ok(claim)
    }

    fn take_over(self: &Arc<Self>, number: u32, range: Option<Range<u64>>) -> Result<(Arc<Claim>, Vec<Jobs>)> {
        let mut state = self.state();
        if state.sealed {
            return Err(superseded());
        }
        let overlapping = |claimed: &&Claimed| match (&claimed.range, &range) {
            (Some(a), Some(b)) => a.start < b.end && b.start < a.end,
            _ => false,
        };
        let others: Vec<&Claimed> = (state.claims.iter())
            .filter(|(other, _)| **other != number)
            .map(|(_, claimed)| claimed)
            .filter(overlapping)
            .collect();
        if others.iter().any(|other| other.live) {
            return Err(Error::internal("Two parts claim the same bytes of an upload"));
        }
        let others = others.into_iter().map(|other| Arc::clone(&other.jobs)).collect();
        state.generation += 1;
        let generation = state.generation;
        let claimed = state.claims.entry(number).or_insert_with(|| Claimed {
            generation,
            live: true,
            range: None,
            jobs: Arc::default(),
        });
        claimed.generation = generation;
        claimed.live = true;
        // The older one's job may still write: until it was waited for, both ranges count.
        claimed.range = hull(claimed.range.take(), range);
        let claim = Claim {
            entry: Arc::clone(self),
            number,
            generation,
            jobs: Arc::clone(&claimed.jobs),
        };
        Ok((Arc::new(claim), others))
    }

    /// Takes the gate alone: nothing writes any more, and nothing opens a slot. The seal stays when
    /// the guard is dropped.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the seal was broken while waiting.
    pub(super) async fn seal(self: &Arc<Self>) -> Result<Sealed> {
        let broken = self.state().unsealed;
        self.close();
        let alone = if planted(Bug::SealWithoutDrainingWriters) {
            None
        } else {
            Some(Arc::clone(&self.gate).write_owned().await)
        };
        if self.state().unsealed != broken {
            return Err(Error::unavailable("The upload was opened again meanwhile; ask again"));
        }
        Ok(Sealed {
            entry: Arc::clone(self),
            _alone: alone,
        })
    }

    /// As [`seal`](Self::seal), for an upload that ends: whatever happened meanwhile.
    pub(super) async fn seal_for_good(self: &Arc<Self>) -> Sealed {
        loop {
            if let Ok(sealed) = self.seal().await {
                return sealed;
            }
        }
    }

    fn close(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.sealed = true;
            let state = &mut *state;
            for claimed in state.claims.values_mut() {
                state.generation += 1;
                claimed.generation = state.generation;
                claimed.live = false;
            }
        }
        if let Some(registry) = self.registry.upgrade() {
            lock(&registry.uploads).sealed.insert(self.id, Arc::clone(self));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            let mut uploads = lock(&registry.uploads);
            if uploads
                .known
                .get(&self.id)
                .is_some_and(|entry| entry.strong_count() == 0)
            {
                uploads.known.remove(&self.id);
            }
        }
    }
}

impl State {
    fn current(&mut self, claim: &Claim) -> Result<&mut Claimed> {
        if self.sealed {
            return Err(superseded());
        }
        self.claims
            .get_mut(&claim.number)
            .filter(|claimed| claimed.generation == claim.generation)
            .ok_or_else(superseded)
    }
}

/// The right to write to a slot, until a newer claim or a seal. Its writer and that one's job share it.
#[derive(Debug)]
pub(super) struct Claim {
    entry: Arc<Entry>,
    number: u32,
    generation: u64,
    jobs: Jobs,
}

impl Claim {
    /// What a job holds while it writes for this claim.
    ///
    /// # Errors
    /// [`Superseded`](ErrorKind::Superseded).
    pub(super) async fn permit(self: &Arc<Self>) -> Result<Permit> {
        self.entry.state().current(self)?;
        let gate = Arc::clone(&self.entry.gate).read_owned().await;
        let job = Arc::clone(&self.jobs).lock_owned().await;
        self.entry.state().current(self)?;
        Ok(Permit {
            _gate: gate,
            _job: job,
            _claim: Arc::clone(self),
        })
    }

    /// Says that only these bytes are written any more.
    pub(super) fn narrow(&self, range: Range<u64>) {
        if let Ok(claimed) = self.entry.state().current(self) {
            claimed.range = Some(range);
        }
    }

    /// Whether the upload was sealed, or is gone.
    pub(super) fn is_sealed(&self) -> bool {
        self.entry.state().sealed
    }

    /// Says that the writer is gone; its job may still be there.
    pub(super) fn abandon(&self) {
        if let Ok(claimed) = self.entry.state().current(self) {
            claimed.live = false;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.abandon();
        let mut state = self.entry.state();
        // One is the table's, one is this one's: nobody else has the slot, nor has a job for it.
        if Arc::strong_count(&self.jobs) == 2 {
            state.claims.remove(&self.number);
        }
    }
}

/// Held by the job that writes.
#[derive(Debug)]
pub(super) struct Permit {
    _job: OwnedMutexGuard<()>,
    _gate: OwnedRwLockReadGuard<()>,
    _claim: Arc<Claim>,
}

/// The gate of an upload, held alone.
#[derive(Debug)]
pub(super) struct Sealed {
    entry: Arc<Entry>,
    _alone: Option<OwnedRwLockWriteGuard<()>>,
}

impl Sealed {
    /// Breaks the seal: slots can be opened again.
    pub(super) fn unseal(&self) {
        {
            let mut state = self.entry.state();
            state.sealed = false;
            state.unsealed += 1;
        }
        if let Some(registry) = self.entry.registry.upgrade() {
            // The entry lives on in `self`.
            lock(&registry.uploads).sealed.remove(&self.entry.id);
        }
    }

    /// Whether this process knows that the blob lies durably under `key`.
    pub(super) fn is_published(&self, key: &Key) -> bool {
        self.entry.state().published.as_ref() == Some(key)
    }

    pub(super) fn set_published(&self, key: &Key) {
        self.entry.state().published = Some(key.clone());
    }

    /// Whether a change of the length may be lost although a later sync would say otherwise.
    pub(super) fn resize_failed(&self) -> bool {
        self.entry.state().resize_failed
    }

    pub(super) fn set_resize_failed(&self, failed: bool) {
        self.entry.state().resize_failed = failed;
    }
}

pub(super) fn superseded() -> Error {
    Error::new(
        ErrorKind::Superseded,
        "A newer request took these bytes over, or the upload was sealed",
    )
}

fn hull(a: Option<Range<u64>>, b: Option<Range<u64>>) -> Option<Range<u64>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.start.min(b.start)..a.end.max(b.end)),
        (a, b) => a.or(b),
    }
}

/// Nothing panics while it holds one of these locks, so none is ever left half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
