//! What a hook has in hand while it is told an event: [`Telling`].

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    blob::BlobStore,
    engine::{CONTENTION, Uploads, contended},
    error::{Error, Result},
    metadata::{Lookup, PartRange, PartsEdit},
    upload::{Progress, Record, UploadId, Wake},
};

/// The most that a hook may note, in bytes.
const MAX_NOTES: usize = 16 << 10;

/// One event being told to one hook. All clones are one.
#[derive(Clone)]
pub struct Telling {
    pub(in crate::engine) uploads: Uploads,
    pub(in crate::engine) id: UploadId,
    pub(super) hook: String,
    pub(super) attempt: Arc<Mutex<u32>>,
    pub(super) progress: Arc<Mutex<Option<Progress>>>,
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
        for _ in 0..CONTENTION {
            let mut next = self.record().await?.ok_or_else(Error::not_found)?;
            let notes = &mut next.deliveries.entry(self.hook.clone()).or_default().notes;
            if notes.get(key).map_or("", String::as_str) == value {
                return Ok(());
            }
            if value.is_empty() {
                notes.remove(key);
            } else {
                notes.insert(key.to_owned(), value.to_owned());
            }
            let len = |notes: &std::collections::BTreeMap<String, String>| {
                notes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
            };
            if len(notes) > MAX_NOTES {
                let message = format!("A hook may note {MAX_NOTES} bytes at most");
                return Err(Error::too_large(message, MAX_NOTES as u64));
            }
            if self.uploads.update(&next, PartsEdit::Keep, Wake::Keep).await?.is_some() {
                return Ok(());
            }
        }
        Err(contended())
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
