//! Derived files: what a hook made of an upload's blob, kept in the same blob store, below a folder that is the upload's alone.
//!
//! The record names the folder before the first file is put there, so that nothing lies anywhere that no record speaks of. The folder is
//! cleared when the upload is deleted, as soon as no hook is at work any more that may put something there.

use std::time::Duration;

use bytes::Bytes;

use super::{Address, CONTENTION, Telling, Uploads, contended, ended, live::Spot};
use crate::{
    access::{Action, Caller},
    blob::{BlobBody, ByteRange},
    error::{Error, ErrorKind, Result},
    metadata::{PartRange, PartsEdit},
    upload::{Blob, Delivery, DerivedName, EventKind, Key, Record, State, UploadId, Wake},
};

/// How soon a hook learns of an end that came about in another process, and how often it looks at most.
const POLL: Duration = Duration::from_secs(2);
const PACE: Duration = Duration::from_millis(200);

impl Telling {
    /// The folder of the files that are made of this upload. The upload speaks of it, durably, from the first time on.
    ///
    /// # Errors
    /// [`Gone`](ErrorKind::Gone) if the upload is not assembled any more, [`NotFound`](ErrorKind::NotFound) if it was
    /// forgotten; those of the metadata store.
    pub async fn derive(&self) -> Result<Key> {
        self.derive_if(|_| Ok(())).await
    }

    async fn derive_if(&self, may: impl Fn(&Delivery) -> Result<()>) -> Result<Key> {
        for _ in 0..CONTENTION {
            let mut next = self.record().await?.ok_or_else(Error::not_found)?;
            if next.state != State::Assembled {
                return Err(ended(&next));
            }
            may(next.deliveries.get(&self.hook).unwrap_or(&Delivery::default()))?;
            if let Some(folder) = next.derived {
                return Ok(folder);
            }
            let folder = self.uploads.inner.config.derived(next.id, next.target.as_ref())?;
            next.derived = Some(folder.clone());
            if self.uploads.update(&next, PartsEdit::Keep, Wake::Keep).await?.is_some() {
                return Ok(folder);
            }
        }
        Err(contended())
    }

    /// Stores a file in that folder, whole and durably, in place of one of the same name: readers see the old one or the new
    /// one. It is done to its end if this future is dropped.
    ///
    /// Only playlists (`.m3u8`) and what lies directly in the folder (`poster.jpg`) may be replaced. A file further below
    /// (`720p-1/00000.m4s`) is written once, and its name is not used again after a [`clear`](Self::clear) either: over HTTP such files are
    /// taken for ones that never change, which browsers keep for a day and whose broken downloads they go on with. What is made anew goes to a
    /// folder with a name of its own. Nobody looks whether a file is there already: that would cost a store a request for each.
    ///
    /// # Errors
    /// As [`derive`](Self::derive); [`Invalid`](ErrorKind::Invalid) for what is no [name](DerivedName) or if the blob store
    /// cannot [put](crate::blob::BlobStore::put); those of the blob store.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.put_if(name, bytes, |_| Ok(())).await
    }

    /// The same, unless what is written down of the hook right before, after all that was put earlier, is an error.
    pub(crate) async fn put_if(
        &self,
        name: &str,
        bytes: Bytes,
        may: impl Fn(&Delivery) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let name = DerivedName::parse(name)?;
        let telling = self.clone();
        self.in_folder(async move {
            let key = name.within(&telling.derive_if(may).await?)?;
            telling.uploads.inner.blobs.put(&key, bytes).await
        })
        .await
    }

    /// Deletes what lies below a folder within that folder.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn clear(&self, name: &str) -> Result<()> {
        let name = DerivedName::parse(name)?;
        let telling = self.clone();
        self.in_folder(async move {
            let folder = name.within(&telling.derive().await?)?;
            telling.uploads.inner.blobs.clear(&folder).await
        })
        .await
    }

    /// One at a time, each to its end, and none while the folder is cleared.
    async fn in_folder(&self, work: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
        let inner = &self.uploads.inner;
        let turn = inner.live.queue(Spot::Derived(self.id)).await;
        let work = async move {
            let _turn = turn;
            work.await
        };
        inner.tasks.see_through(work).await
    }

    /// Returns once the upload has ended without a blob or was forgotten: what is made of it then is made in vain.
    pub async fn ended(&self) {
        let changes = self.uploads.inner.live.watch(self.id);
        loop {
            let changed = changes.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change falls in between.
            changed.as_mut().enable();
            match self.record().await {
                Ok(Some(record)) if record.state.is_live() => {}
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "whether the upload has ended is asked again"),
            }
            let _ = tokio::time::timeout(POLL, changed).await;
            tokio::time::sleep(PACE).await;
        }
    }
}

impl Uploads {
    /// A file that a hook made of an upload's blob (a playlist, a segment, a poster), by its name in the upload's folder.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if `name` is not a [`DerivedName`], or for a range past the end;
    /// [`NotFound`](ErrorKind::NotFound) if there is no such file, or not yet; [`Gone`](ErrorKind::Gone) or
    /// [`Failed`](ErrorKind::Failed) if there never will be; those of [`read`](Self::read) otherwise.
    pub async fn read_derived(
        &self,
        caller: &Caller,
        id: UploadId,
        name: &str,
        range: ByteRange,
    ) -> Result<(Blob, BlobBody)> {
        let (key, blob) = self.find_derived(caller, id, &DerivedName::parse(name)?).await?;
        let body = self.inner.blobs.read(&key, range).await?;
        Ok((blob, body))
    }

    /// Where such a file lies and how large it is, for a caller who may read it.
    pub(crate) async fn find_derived(&self, caller: &Caller, id: UploadId, name: &DerivedName) -> Result<(Key, Blob)> {
        let found = self
            .find(caller, Address::Id(id), Action::Read, PartRange::NONE)
            .await?;
        let record = found.record;
        if !record.state.is_live() {
            return Err(ended(&record));
        }
        let folder = record.derived.ok_or_else(no_file)?;
        let key = name.within(&folder)?;
        let blob = self.inner.blobs.head(&key).await?.ok_or_else(no_file)?;
        Ok((key, blob))
    }

    /// Whether hooks will yet work on what was assembled, as a sentence for the one who uploaded it.
    #[cfg(feature = "http")]
    pub(crate) fn announcement(&self, record: &Record) -> Option<&str> {
        use crate::upload::Outcome;
        let mut hooks = self.inner.config.hooks.iter();
        hooks.find_map(|hook| {
            let outcome = record.deliveries.get(hook.name()).and_then(|delivery| delivery.outcome);
            let is_over = matches!(outcome, Some(Outcome::Finished | Outcome::Failed));
            hook.announcement().filter(|_| !is_over)
        })
    }

    /// Whether nothing more will become of it by itself: it has ended, and no hook is at work on its blob.
    pub(crate) fn is_settled(&self, record: &Record) -> bool {
        let is_used = record.state == State::Assembled && self.is_worked_on(record);
        record.state.is_final() && !is_used
    }

    /// Whether a hook may still put derived files of an ended upload: it was told of the blob, and has not come to its end.
    pub(super) fn is_worked_on(&self, record: &Record) -> bool {
        let may_work = |name: &String| {
            let mut hooks = self.inner.config.hooks.iter();
            // Those that run elsewhere are not known here.
            hooks.find(|hook| hook.name() == name).is_none_or(|hook| hook.works())
        };
        let told = record
            .outbox
            .iter()
            .filter(|outgoing| outgoing.event.kind == EventKind::Assembled);
        told.flat_map(|outgoing| &outgoing.owed).any(may_work)
    }

    /// Deletes the derived files of an ended upload; `false` if a hook is still at work on it.
    pub(super) async fn clear_derived(&self, record: &Record) -> Result<bool> {
        let Some(folder) = &record.derived else {
            return Ok(true);
        };
        if self.is_worked_on(record) {
            return Ok(false);
        }
        let _turn = self.inner.live.queue(Spot::Derived(record.id)).await;
        self.inner.blobs.clear(folder).await?;
        Ok(true)
    }
}

fn no_file() -> Error {
    Error::new(ErrorKind::NotFound, "There is no such file, or not yet")
}
