//! Ends without a blob: abort, delete, expiry; and what is cleaned up after any end.

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{CONTENTION, Uploads, contended, ended, live::Spot};
use crate::{
    access::{Action, Caller},
    error::{Error, ErrorKind, Result},
    metadata::{Lookup, PartRange, PartsEdit},
    observe,
    planted::{Bug, planted},
    upload::{EventKind, Intent, Layout, Record, State, UploadId, Wake},
};

impl Uploads {
    /// Gives up an unfinished upload. Aborted again it answers the same. One that is being assembled is given up
    /// once the outcome of that is definite.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if it is assembled: [`delete`](Self::delete) deletes the blob too.
    pub async fn abort(&self, caller: &Caller, id: UploadId) -> Result<()> {
        self.give_up(caller, id, Intent::Abort).await
    }

    /// Deletes an upload in whatever state it is, of an assembled one also the blob. Deleted again it answers the same.
    ///
    /// # Errors
    /// Those of the authorizer, which is asked for [`Action::Delete`] if the upload is assembled and for
    /// [`Action::Abort`] otherwise, and of the stores.
    pub async fn delete(&self, caller: &Caller, id: UploadId) -> Result<()> {
        self.give_up(caller, id, Intent::Delete).await
    }

    async fn give_up(&self, caller: &Caller, id: UploadId, intent: Intent) -> Result<()> {
        let _working = self.inner.tasks.begin()?;
        let (mut stopped, mut turn) = (false, None);
        for _ in 0..CONTENTION {
            // Hidden uploads stay hidden whichever action is asked for; which one it is depends on the state.
            let snapshot = self.load(id, PartRange::NONE).await?;
            let record = snapshot.record;
            let action = if record.state == State::Assembled && intent == Intent::Delete {
                Action::Delete
            } else {
                Action::Abort
            };
            self.authorize(caller, action, crate::access::Subject::Upload(&record))
                .await?;
            let writes_at_end = record.state == State::Open && record.plan.layout == Layout::Sequential;
            if writes_at_end && !stopped {
                // Whoever appends is stopped now rather than refused at its next commit.
                stopped = true;
                turn = self.inner.live.take_over(Spot::End(id)).await.ok();
                continue;
            }
            let mut next = record.clone();
            match record.state {
                State::Open => {
                    if planted(Bug::DeleteBeforeCompareAndSet) {
                        self.inner.blobs.discard(&record.handle).await?;
                    }
                    next.state = State::Aborted;
                    next.key_held = false;
                    self.push_event(&mut next, EventKind::Aborted);
                }
                State::Assembling => {
                    next.intent = Some(intent);
                    if self.update(&next, PartsEdit::Keep, Wake::Keep).await?.is_none() {
                        continue;
                    }
                    return match self.finish(id).await {
                        Err(error) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::Failed) => Ok(()),
                        Ok(_) => continue,
                        // It is noted, and the driver sees to it.
                        Err(_) => Ok(()),
                    };
                }
                State::Assembled if intent == Intent::Abort => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "The upload is assembled; delete it instead",
                    ));
                }
                State::Assembled => {
                    // The key stays taken until the blob is gone, so that nobody's new one is deleted.
                    next.state = State::Deleted;
                    self.push_event(&mut next, EventKind::Deleted);
                }
                State::Aborted | State::Deleted | State::Failed => return Ok(()),
                State::Expired => return Err(ended(&record)),
            }
            let wake = self.end_wake(&next);
            if let Some(changed) = self.update(&next, PartsEdit::Clear, wake).await? {
                observe::ended(&changed);
                drop(turn);
                let uploads = self.clone();
                let cleaning = self.inner.tasks.spawn(async move { uploads.after_end(&changed).await });
                let _ = cleaning.await;
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Lets an upload expire, unless somebody has gone on with it since `record` was read.
    pub(super) async fn expire(&self, record: &Record) -> Result<()> {
        let mut next = record.clone();
        if planted(Bug::DeleteBeforeCompareAndSet) {
            self.inner.blobs.discard(&record.handle).await?;
        }
        next.state = State::Expired;
        next.key_held = false;
        self.push_event(&mut next, EventKind::Expired);
        let wake = self.end_wake(&next);
        if let Some(changed) = self.update(&next, PartsEdit::Clear, wake).await? {
            observe::ended(&changed);
            self.after_end(&changed).await;
        }
        Ok(())
    }

    /// Tells of an end, and removes what the upload still has in the blob store. What fails is done again when the driver comes by.
    pub(super) async fn after_end(&self, record: &Record) {
        // First: the removal may take long.
        self.events_pending(record);
        // Only the driver knows that somebody else's lease is over.
        if record.cleaner.is_some() {
            return;
        }
        if let Err(error) = self.clean(record).await {
            tracing::warn!(id = %record.id, %error, "bytes of an ended upload are removed later");
        }
    }

    /// Removes what an ended upload still has in the blob store, and releases the key once there is nothing under it that is ours.
    /// Of a record with a [`cleaner`](Record::cleaner) the caller has the lease.
    pub(super) async fn clean(&self, record: &Record) -> Result<()> {
        self.inner.blobs.discard(&record.handle).await?;
        let mut record = match record.key_held && record.blob.is_some() {
            false => record.clone(),
            true => match self.delete_blob(record).await? {
                Some(claimed) => claimed,
                None => return Ok(()),
            },
        };
        let cleared = self.clear_derived(&record).await?;
        for _ in 0..CONTENTION {
            let next = Record {
                staged: !cleared,
                key_held: false,
                cleaner: None,
                ..record.clone()
            };
            let wake = self.end_wake(&next);
            if self.update(&next, PartsEdit::Keep, wake).await?.is_some() {
                return Ok(());
            }
            // A hook was told something meanwhile; or it took so long that somebody else does it again, who may be deleting yet.
            let found = self.inner.metadata.load(Lookup::Id(record.id), PartRange::NONE).await?;
            match found.map(|snapshot| snapshot.record) {
                Some(now) if (now.key_held, now.cleaner) == (record.key_held, record.cleaner) => record = now,
                _ => return Ok(()),
            }
        }
        Err(contended())
    }

    /// Deletes the blob of an ended upload, whose key stays taken: answers the record by which that was claimed, or `None` if it is
    /// somebody else's to do.
    async fn delete_blob(&self, record: &Record) -> Result<Option<Record>> {
        let until = Instant::now() + self.inner.config.lease / 2;
        let Some(claimed) = self.claim_blob(record).await? else {
            return Ok(None);
        };
        // Once it is over nothing is deleted any more, long before somebody else may do it and release the key. Looked at first: a
        // process that stood still must not let the store try once more.
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => {
                return Err(Error::unavailable("The blob was not deleted in time; it is deleted later"));
            }
            deleted = self.inner.blobs.delete(&claimed.key) => deleted?,
        }
        Ok(Some(claimed))
    }

    /// Whoever releases the key must be the only one to delete what is under it, or might delete what another upload has published
    /// there since.
    async fn claim_blob(&self, record: &Record) -> Result<Option<Record>> {
        let mut record = record.clone();
        for _ in 0..CONTENTION {
            let next = Record {
                cleaner: Some(record.version.next()),
                ..record
            };
            let lease = Wake::After(self.inner.config.lease);
            if let Some(claimed) = self.update(&next, PartsEdit::Keep, lease).await? {
                return Ok(Some(claimed));
            }
            let found = self.inner.metadata.load(Lookup::Id(next.id), PartRange::NONE).await?;
            match found.map(|snapshot| snapshot.record) {
                Some(now) if now.key_held && now.cleaner.is_none() => record = now,
                _ => return Ok(None),
            }
        }
        Err(contended())
    }

    /// Removes what a finished assembly left over, which nobody waits for if it takes several requests to a store far away. What
    /// fails is left to the sweep.
    pub(super) async fn clear_up(&self, record: &Record) {
        let (uploads, id, handle) = (self.clone(), record.id, record.handle.clone());
        let mut clearing = Box::pin(async move {
            if let Err(error) = uploads.inner.blobs.discard(&handle).await {
                tracing::warn!(%id, %error, "leftovers of a finished assembly are left to the sweep");
            }
        });
        if self.inner.limits.in_place {
            clearing.await;
        } else if clearing.as_mut().now_or_never().is_none() {
            drop(self.inner.tasks.spawn(clearing));
        }
    }

    /// When the driver looks at an ended upload next.
    pub(super) fn end_wake(&self, record: &Record) -> Wake {
        let config = &self.inner.config;
        match record.state {
            // Nobody else may come by before that one's lease is over.
            _ if record.cleaner.is_some() => Wake::Keep,
            _ if !record.outbox.is_empty() => Wake::After(super::tell::RETELL),
            // Its partial uploads are there yet.
            State::Assembled if record.staged && record.joins().is_some() => Wake::After(config.lease),
            State::Assembled => config.retain_assembled.map_or(Wake::Never, Wake::After),
            // Bytes are left to be removed: somebody must, should this process die first.
            _ if record.staged || record.key_held => Wake::After(config.lease),
            _ if !record.dead_letters.is_empty() => Wake::After(config.retain_dead_letters.max(config.retain)),
            _ => Wake::After(config.retain),
        }
    }

    pub(super) fn push_event(&self, record: &mut Record, kind: EventKind) {
        let owed = self.inner.config.hooks_for(kind, None);
        if !owed.is_empty() {
            record.push_event(kind, owed);
        }
    }
}

#[cfg(test)]
mod tests;
