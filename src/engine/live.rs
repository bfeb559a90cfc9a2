//! What this process knows of uploads beyond the metadata: who is writing where, what is being
//! created, who watches.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, OwnedMutexGuard};

use crate::{
    error::{Error, ErrorKind, Result},
    upload::UploadId,
};

/// A place where one request at a time may work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Spot {
    /// One chunk.
    Chunk(UploadId, u32),
    /// The end of a sequential upload.
    End(UploadId),
    /// The making of the blob.
    Assembly(UploadId),
    /// The telling of events.
    Outbox(UploadId),
    /// The files that hooks make of the blob.
    Derived(UploadId),
}

#[derive(Debug, Default)]
pub(crate) struct Live {
    spots: Weaks<Spot, Turns>,
    watched: Weaks<UploadId, Notify>,
    creating: Mutex<HashSet<UploadId>>,
}

impl Live {
    /// Takes `spot` over: tells whoever receives there to stop, and waits until what that one has begun to make
    /// durable is done, never for its client.
    pub(crate) async fn take_over(&self, spot: Spot) -> Result<Turn> {
        let turns = self.spots.get(spot);
        let ticket = turns.last.fetch_add(1, Ordering::SeqCst) + 1;
        turns.newer.notify_waiters();
        let guard = Arc::clone(&turns.lock).lock_owned().await;
        let turn = Turn {
            ticket,
            _guard: guard,
            turns,
        };
        if turn.is_superseded() {
            Err(superseded())
        } else {
            Ok(turn)
        }
    }

    /// Waits for `spot` without disturbing who is there.
    pub(crate) async fn queue(&self, spot: Spot) -> Turn {
        let turns = self.spots.get(spot);
        let guard = Arc::clone(&turns.lock).lock_owned().await;
        Turn {
            ticket: u64::MAX,
            _guard: guard,
            turns,
        }
    }

    /// Waits for `spot` without disturbing who is there, and gives way to whoever takes it over later.
    pub(crate) async fn queue_below(&self, spot: Spot) -> Turn {
        let turns = self.spots.get(spot);
        let ticket = turns.last.load(Ordering::SeqCst);
        let guard = Arc::clone(&turns.lock).lock_owned().await;
        Turn {
            ticket,
            _guard: guard,
            turns,
        }
    }

    /// The same, unless somebody is there.
    pub(crate) fn try_below(&self, spot: Spot) -> Option<Turn> {
        let turns = self.spots.get(spot);
        let ticket = turns.last.load(Ordering::SeqCst);
        let guard = Arc::clone(&turns.lock).try_lock_owned().ok()?;
        Some(Turn {
            ticket,
            _guard: guard,
            turns,
        })
    }

    /// Marks `id` as being created here, so that no sweep takes its bytes for left over.
    pub(crate) fn creating(self: &Arc<Self>, id: UploadId) -> Creating {
        lock(&self.creating).insert(id);
        Creating {
            live: Arc::clone(self),
            id,
        }
    }

    pub(crate) fn is_creating(&self, id: UploadId) -> bool {
        lock(&self.creating).contains(&id)
    }

    /// Tells those who watch `id` that it changed.
    pub(crate) fn changed(&self, id: UploadId) {
        if let Some(notify) = self.watched.find(&id) {
            notify.notify_waiters();
        }
    }

    pub(crate) fn watch(&self, id: UploadId) -> Arc<Notify> {
        self.watched.get(id)
    }
}

/// The right to work at a [`Spot`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    ticket: u64,
    _guard: OwnedMutexGuard<()>,
    turns: Arc<Turns>,
}

impl Turn {
    fn is_superseded(&self) -> bool {
        self.turns.last.load(Ordering::SeqCst) > self.ticket
    }

    /// Ends when a newer request wants this spot.
    pub(crate) fn superseded(&self) -> impl Future<Output = ()> + Send + use<> {
        let (turns, ticket) = (Arc::clone(&self.turns), self.ticket);
        async move {
            loop {
                let newer = turns.newer.notified();
                tokio::pin!(newer);
                newer.as_mut().enable();
                if turns.last.load(Ordering::SeqCst) > ticket {
                    return;
                }
                newer.await;
            }
        }
    }
}

pub(crate) fn superseded() -> Error {
    Error::new(
        ErrorKind::Superseded,
        "A newer request sends the same bytes; this one was stopped",
    )
}

/// `id` is being created by this process until this is dropped.
#[derive(Debug)]
pub(crate) struct Creating {
    live: Arc<Live>,
    id: UploadId,
}

impl Drop for Creating {
    fn drop(&mut self) {
        lock(&self.live.creating).remove(&self.id);
    }
}

#[derive(Debug, Default)]
struct Turns {
    lock: Arc<tokio::sync::Mutex<()>>,
    last: AtomicU64,
    newer: Notify,
}

/// Values that live as long as somebody uses them.
#[derive(Debug)]
struct Weaks<K, V>(Mutex<(HashMap<K, Weak<V>>, usize)>);

impl<K, V> Default for Weaks<K, V> {
    fn default() -> Self {
        Self(Mutex::new((HashMap::new(), 64)))
    }
}

impl<K: Eq + Hash, V: Default> Weaks<K, V> {
    fn get(&self, key: K) -> Arc<V> {
        let mut guard = lock(&self.0);
        let (map, sweep_at) = &mut *guard;
        if map.len() >= *sweep_at {
            map.retain(|_, value| value.strong_count() > 0);
            *sweep_at = (map.len() * 2).max(64);
        }
        let slot = map.entry(key).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let value = Arc::new(V::default());
            *slot = Arc::downgrade(&value);
            value
        })
    }

    fn find(&self, key: &K) -> Option<Arc<V>> {
        lock(&self.0).0.get(key).and_then(Weak::upgrade)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
