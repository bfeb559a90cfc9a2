//! What a hook has in hand while it is told an event: [`Telling`].

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    blob::BlobStore,
    engine::{CONTENTION, Uploads, contended},
    error::{Error, Result},
    metadata::{Lookup, PartRange, PartsEdit},
    upload::{Delivery, Progress, Record, UploadId, Wake},
};

/// The most that a hook may note, in bytes.
const MAX_NOTES: usize = 16 << 10;

/// One event being told to one hook. All clones are one.
#[derive(Clone)]
pub struct Telling {
    pub(in crate::engine) uploads: Uploads,
    pub(in crate::engine) id: UploadId,
    pub(in crate::engine) hook: String,
    pub(super) attempt: Arc<Mutex<u32>>,
    pub(super) progress: Arc<Mutex<Option<Progress>>>,
    pub(super) superseded: Arc<AtomicBool>,
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling")
            .field("id", &self.id)
            .field("hook", &self.hook)
            .finish_non_exhaustive()
    }
}

impl Telling {
    /// How often this event was told to this hook before, without being heard.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        *lock(&self.attempt)
    }

    /// Says how far the hook is; shown in the upload's status if the hook [works](crate::hook::Hook::works).
    pub fn progress(&self, progress: Progress) {
        *lock(&self.progress) = Some(progress);
    }

    /// Keeps `value` with the upload, durably on return: where something lies that the hook made, say. An empty one is removed.
    ///
    /// # Errors
    /// [`TooLarge`](crate::ErrorKind::TooLarge) past 16 KiB in all; [`NotFound`](crate::ErrorKind::NotFound) if the upload was forgotten; those of
    /// the metadata store.
    pub async fn note(&self, key: &str, value: &str) -> Result<()> {
        self.change(|delivery| {
            if value.is_empty() {
                delivery.notes.remove(key);
            } else {
                delivery.notes.insert(key.to_owned(), value.to_owned());
            }
            Ok(())
        })
        .await
    }

    /// Changes what is written down of the hook, durably on return, and from what is written down when it is: `change` is called again
    /// if something else came first, and its error ends it.
    pub(crate) async fn change<T>(&self, change: impl Fn(&mut Delivery) -> Result<T>) -> Result<T> {
        for _ in 0..CONTENTION {
            let mut next = self.record().await?.ok_or_else(Error::not_found)?;
            let before = next.deliveries.get(&self.hook).cloned().unwrap_or_default();
            let mut delivery = before.clone();
            let changed = change(&mut delivery)?;
            if delivery == before {
                return Ok(changed);
            }
            let notes = delivery.notes.iter();
            if notes.map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_NOTES {
                let message = format!("A hook may note {MAX_NOTES} bytes at most");
                return Err(Error::too_large(message, MAX_NOTES as u64));
            }
            next.deliveries.insert(self.hook.clone(), delivery);
            if self.uploads.update(&next, PartsEdit::Keep, Wake::Keep).await?.is_some() {
                return Ok(changed);
            }
        }
        Err(contended())
    }

    /// The error of a hook that another process tells by now, for this one stood still for longer than its lease: what it comes to here is not
    /// written down, and nobody is told of it.
    #[cfg(all(feature = "ffmpeg", unix))]
    pub(crate) fn superseded(&self) -> Error {
        self.superseded.store(true, Ordering::SeqCst);
        Error::unavailable("Another process has taken this over")
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::SeqCst)
    }

    /// From now on the hook waits for its turn: if the process ends meanwhile, it is not on its account.
    #[cfg(all(feature = "ffmpeg", unix))]
    pub(crate) async fn waits(&self) -> Result<()> {
        self.recount(|begun| begun.saturating_sub(1)).await
    }

    /// The turn of a hook that waited has come.
    #[cfg(all(feature = "ffmpeg", unix))]
    pub(crate) async fn goes_on(&self) -> Result<()> {
        self.recount(|begun| begun.saturating_add(1)).await
    }

    /// Nothing that was begun is counted as interrupted: it is ended in good order.
    pub(super) async fn take_back(&self) -> Result<()> {
        self.recount(|_| 0).await
    }

    async fn recount(&self, count: impl Fn(u32) -> u32) -> Result<()> {
        self.change(|delivery| {
            delivery.interrupted = count(delivery.interrupted);
            Ok(())
        })
        .await
    }

    /// The upload as it is recorded now; `None` if it was forgotten.
    ///
    /// # Errors
    /// Those of the metadata store.
    pub async fn record(&self) -> Result<Option<Record>> {
        let found = self
            .uploads
            .inner
            .metadata
            .load(Lookup::Id(self.id), PartRange::NONE)
            .await?;
        Ok(found.map(|snapshot| snapshot.record))
    }

    /// Where bytes lie: to read the blob under the event's key, or to put others beside it.
    #[must_use]
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.uploads.inner.blobs
    }

    pub(super) fn to_write_down(&self) -> Option<(&str, Progress)> {
        let progress = *lock(&self.progress);
        progress.map(|progress| (self.hook.as_str(), progress))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
