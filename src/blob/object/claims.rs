//! Who may write within this process: a gate for each upload, a claim for each slot.
//!
//! Between processes the engine's epochs decide, and what a late attempt leaves behind is told by its receipt.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::{
    error::{Error, ErrorKind, Result},
    upload::{Blob, Key},
};

/// The uploads that somebody writes to, or that something is known of, and the keys that something is published under just now.
#[derive(Debug, Default)]
pub(super) struct Registry {
    known: Mutex<HashMap<String, Known>>,
    keys: Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug)]
enum Known {
    /// As long as a writer is there.
    Written(Weak<Entry>),
    /// Until it is discarded.
    Kept(Arc<Entry>),
}

impl Registry {
    /// The one entry of a directory.
    pub(super) fn entry(&self, dir: &str) -> Arc<Entry> {
        let mut known = lock(&self.known);
        let found = match known.get(dir) {
            Some(Known::Written(entry)) => entry.upgrade(),
            Some(Known::Kept(entry)) => Some(Arc::clone(entry)),
            None => None,
        };
        if let Some(entry) = found {
            return entry;
        }
        if known.len() >= 1024 && known.len().is_power_of_two() {
            known.retain(|_, known| matches!(known, Known::Kept(_)) || known.is_alive());
        }
        let entry = Arc::new(Entry::default());
        known.insert(dir.to_owned(), Known::Written(Arc::downgrade(&entry)));
        entry
    }

    /// Keeps the entry of an upload that is published, or has no multipart upload any more.
    pub(super) fn keep(&self, dir: &str, entry: &Arc<Entry>) {
        lock(&self.known).insert(dir.to_owned(), Known::Kept(Arc::clone(entry)));
    }

    /// Forgets an upload that is gone. Late writers keep the seal.
    pub(super) fn forget(&self, dir: &str) {
        lock(&self.known).remove(dir);
    }

    /// Waits until nobody else of this process publishes under `key`.
    pub(super) async fn key(&self, key: &Key) -> OwnedMutexGuard<()> {
        let turn = {
            let mut keys = lock(&self.keys);
            match keys.get(key).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    keys.retain(|_, turn| turn.strong_count() > 0);
                    let turn = Arc::default();
                    keys.insert(key.clone(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }

    #[cfg(test)]
    pub(super) fn alive(&self) -> usize {
        lock(&self.known).values().filter(|known| known.is_alive()).count()
    }
}

impl Known {
    fn is_alive(&self) -> bool {
        match self {
            Self::Written(entry) => entry.strong_count() > 0,
            Self::Kept(_) => true,
        }
    }
}

/// What this process knows of an unfinished upload.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Requests that put bytes hold it shared, complete and discard hold it alone.
    gate: Arc<RwLock<()>>,
    state: Mutex<State>,
    /// The backend has dropped the multipart upload.
    dropped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    sealed: bool,
    generation: u64,
    claims: HashMap<u32, Claimed>,
    published: Option<Published>,
}

#[derive(Debug)]
struct Claimed {
    /// The claim that may write.
    generation: u64,
    /// Held by requests that put bytes for it.
    puts: Arc<RwLock<()>>,
}

/// What was published, as this process saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) key: Key,
    /// Of the parts it was made of.
    pub(super) parts: u64,
    pub(super) blob: Blob,
}

impl Entry {
    /// Takes a slot over, and waits for requests under way of the one it is taken from.
    pub(super) async fn claim(self: &Arc<Self>, slot: u32) -> Result<Arc<Claim>> {
        let claim = {
            let mut state = lock(&self.state);
            if state.sealed {
                return Err(superseded());
            }
            state.generation += 1;
            let generation = state.generation;
            let claimed = state.claims.entry(slot).or_insert_with(|| Claimed {
                generation,
                puts: Arc::default(),
            });
            claimed.generation = generation;
            Claim {
                entry: Arc::clone(self),
                slot,
                generation,
                puts: Arc::clone(&claimed.puts),
            }
        };
        drop(claim.puts.write().await);
        claim.check()?;
        Ok(Arc::new(claim))
    }

    /// Supersedes all writers, and waits for requests under way.
    pub(super) async fn seal(self: &Arc<Self>) -> Sealed {
        {
            let state = &mut *lock(&self.state);
            state.sealed = true;
            for claimed in state.claims.values_mut() {
                state.generation += 1;
                claimed.generation = state.generation;
            }
        }
        Sealed {
            alone: Arc::clone(&self.gate).write_owned().await,
            entry: Arc::clone(self),
        }
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::SeqCst)
    }

    /// Notes that the backend knows nothing of the multipart upload any more.
    pub(super) fn set_dropped(&self) {
        self.dropped.store(true, Ordering::SeqCst);
    }

    pub(super) fn published(&self) -> Option<Published> {
        lock(&self.state).published.clone()
    }
}

/// An upload that nobody writes to.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) entry: Arc<Entry>,
    #[allow(dead_code, reason = "held for what it keeps out")]
    alone: OwnedRwLockWriteGuard<()>,
}

impl Sealed {
    /// Lets slots be opened again.
    pub(super) fn unseal(&self) {
        let mut state = lock(&self.entry.state);
        state.sealed = state.published.is_some();
    }

    pub(super) fn set_published(&self, published: Published) {
        lock(&self.entry.state).published = Some(published);
    }
}

/// The right to write to a slot, until a newer claim or a seal.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) entry: Arc<Entry>,
    slot: u32,
    generation: u64,
    puts: Arc<RwLock<()>>,
}

impl Claim {
    /// # Errors
    /// [`Superseded`](ErrorKind::Superseded).
    pub(super) fn check(&self) -> Result<()> {
        let state = lock(&self.entry.state);
        let newest = state.claims.get(&self.slot).map(|claimed| claimed.generation);
        if state.sealed || newest != Some(self.generation) {
            return Err(superseded());
        }
        Ok(())
    }

    /// What a request that puts bytes holds.
    ///
    /// # Errors
    /// [`Superseded`](ErrorKind::Superseded).
    pub(super) async fn permit(&self) -> Result<Permit> {
        let permit = Permit {
            _gate: Arc::clone(&self.entry.gate).read_owned().await,
            _puts: Arc::clone(&self.puts).read_owned().await,
        };
        self.check()?;
        Ok(permit)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = lock(&self.entry.state);
        // One is the table's, one is this one's: nobody else has the slot, nor a request under way for it.
        if Arc::strong_count(&self.puts) == 2 {
            state.claims.remove(&self.slot);
        }
    }
}

/// Held by a request that puts bytes.
#[derive(Debug)]
pub(super) struct Permit {
    _puts: OwnedRwLockReadGuard<()>,
    _gate: OwnedRwLockReadGuard<()>,
}

pub(super) fn superseded() -> Error {
    Error::new(
        ErrorKind::Superseded,
        "A newer request took these bytes over, or the upload was sealed",
    )
}

/// Nothing panics while it holds one of these locks, so none is ever left half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
