//! The driver: finishes, expires, tells and cleans by itself, with no client's help.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{Swept, Uploads};
use crate::{
    error::{Error, Result},
    metadata::{Lookup, PartRange, PartsEdit},
    observe,
    planted::{Bug, planted},
    upload::{Record, State, Timestamp, UploadId, Wake},
};

/// How many records are taken at once, and worked on at the same time.
const BATCH: usize = 64;
const AT_ONCE: usize = 8;
/// How often it is looked up how much is unfinished, for figures.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Uploads {
    pub(super) fn start_driver(&self) {
        let weak = Arc::downgrade(&self.inner);
        let tasks = self.inner.tasks.clone();
        let (tick, sweep_every) = (self.inner.config.tick, self.inner.config.sweep_every);
        let driver = tokio::spawn(async move {
            let mut next_sweep = Instant::now();
            let mut next_look = next_sweep;
            loop {
                let Some(inner) = weak.upgrade() else { return };
                let uploads = Self { inner };
                if Instant::now() >= next_sweep {
                    match uploads.sweep().instrument(tracing::info_span!("sweep")).await {
                        Ok(Swept {
                            ended: 0, unknown: 0, ..
                        }) => {}
                        Ok(Swept { ended, unknown, .. }) => {
                            tracing::info!(ended, unknown, "bytes of no unfinished upload were removed");
                        }
                        Err(error) => tracing::warn!(%error, "the sweep did not succeed and is tried again"),
                    }
                    next_sweep = Instant::now() + sweep_every;
                }
                if observe::ENABLED && Instant::now() >= next_look {
                    uploads.look().await;
                    next_look = Instant::now() + LOOK_EVERY;
                }
                let busy = match uploads.drive().await {
                    Ok(driven) => driven == BATCH,
                    Err(error) => {
                        tracing::warn!(%error, "the driver is held up by the metadata store");
                        false
                    }
                };
                drop(uploads);
                tokio::select! {
                    biased;
                    () = tasks.closing() => return,
                    () = tokio::time::sleep(if busy { Duration::ZERO } else { tick }) => {}
                }
            }
        });
        *self
            .inner
            .driver
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(driver);
    }

    /// Tells what a gauge shows. What is unfinished is asked of the store: a count of what this process saw begin and end would
    /// be wrong after a restart, and beside other nodes.
    async fn look(&self) {
        let (memory, files) = self.inner.budget.used();
        observe::budget(memory, files);
        match self.inner.metadata.unfinished().await {
            Ok(now) => now.into_iter().for_each(observe::unfinished),
            Err(error) => tracing::debug!(%error, "what is unfinished is counted later"),
        }
    }

    /// Takes what is due and drives it on: interrupted assemblies, expiry, events that wait to be told, leftovers.
    /// Answers how many there were. The driver does this by itself, unless the builder was told otherwise.
    ///
    /// # Errors
    /// Those of the metadata store. What fails for one upload is tried again later.
    pub async fn drive(&self) -> Result<usize> {
        // From before they were asked for: the lease is over then at the latest, and somebody else may take them.
        let until = Instant::now() + self.inner.config.lease;
        let mut due = self.inner.metadata.due(self.inner.config.lease, BATCH).await?;
        let count = due.len();
        if count > AT_ONCE {
            // Those that hang every time do not keep the others from being begun.
            let round = self.inner.rounds.fetch_add(1, Ordering::Relaxed);
            due.rotate_left(round.wrapping_mul(AT_ONCE) % count);
        }
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, |record| async move {
                if Instant::now() >= until {
                    return;
                }
                let id = record.id;
                match tokio::time::timeout_at(until, self.drive_one(record)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%id, %error, "an upload is driven on later"),
                    Err(_) => tracing::warn!(%id, "an upload is not driven on within its lease, and later again"),
                }
            })
            .await;
        Ok(count)
    }

    async fn drive_one(&self, record: Record) -> Result<()> {
        // The store moved `due_at` on by the lease, which tells what its clock says.
        let Some(leased) = record.due_at else { return Ok(()) };
        let lease = self.inner.config.lease;
        let now = Timestamp::from_millis(
            leased
                .as_millis()
                .saturating_sub(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)),
        );
        let now = if planted(Bug::ExpiryByNodeClock) {
            now.after(Duration::from_secs(2 * 86_400))
        } else {
            now
        };
        match record.state {
            State::Open if record.expires_at.is_some_and(|expires| expires <= now) => self.expire(&record).await,
            State::Assembling => self
                .finish(record.id)
                .await
                .map(drop)
                .or_else(|error| match error.kind() {
                    // Definite: the record says so now.
                    crate::ErrorKind::Gone | crate::ErrorKind::Failed | crate::ErrorKind::Incomplete => Ok(()),
                    _ => Err(error),
                }),
            State::Open if record.joins().is_some() => {
                self.events_pending(&record);
                self.drive_join(record.id, now).await
            }
            _ if !record.outbox.is_empty() => {
                self.events_pending(&record);
                if !record.state.is_live() && (record.staged || record.key_held) {
                    self.clean(&record).await?;
                }
                Ok(())
            }
            State::Open => Ok(()),
            State::Assembled if record.staged && record.joins().is_some() => {
                self.inner.blobs.discard(&record.handle).await?;
                self.end_partials(&record).await
            }
            State::Assembled => {
                self.inner.blobs.discard(&record.handle).await?;
                match self.inner.config.retain_assembled {
                    Some(_) => self.inner.metadata.remove(record.id, record.version).await.map(drop),
                    None => self.update(&record, PartsEdit::Keep, Wake::Never).await.map(drop),
                }
            }
            _ if record.staged || record.key_held => self.clean(&record).await,
            _ => {
                self.inner.blobs.discard(&record.handle).await?;
                // What was put too late, by a process that stood still, goes now.
                self.clear_derived(&record).await?;
                self.inner.metadata.remove(record.id, record.version).await.map(drop)
            }
        }
    }

    /// Removes what lies in the blob store and belongs to no unfinished upload: what a crash left behind, creations that were
    /// never recorded. The driver does this at its start and every hour.
    ///
    /// # Errors
    /// Those of the stores: the first one, once all else is removed.
    pub async fn sweep(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let (mut strange, mut failed) = (false, None);
        for (id, handle) in self.inner.blobs.begun(Duration::ZERO).await? {
            let removed = match self.is_left_over(id).await {
                Ok(None) => continue,
                Ok(Some(Leftover::Ended)) => self.inner.blobs.discard(&handle).await,
                Ok(Some(Leftover::Unknown)) => {
                    strange = true;
                    continue;
                }
                Err(error) => Err(error),
            };
            swept.ended += usize::from(sweep_on(id, removed, &mut failed));
        }
        if strange {
            for (id, handle) in self.inner.blobs.begun(self.inner.config.orphan_grace).await? {
                let removed = match self.is_left_over(id).await {
                    Ok(Some(Leftover::Unknown)) => self.inner.blobs.discard(&handle).await,
                    Ok(_) => continue,
                    Err(error) => Err(error),
                };
                swept.unknown += usize::from(sweep_on(id, removed, &mut failed));
            }
        }
        failed.map_or(Ok(swept), Err)
    }

    async fn is_left_over(&self, id: UploadId) -> Result<Option<Leftover>> {
        if self.inner.live.is_creating(id) {
            return Ok(None);
        }
        let found = self.inner.metadata.load(Lookup::Id(id), PartRange::NONE).await?;
        Ok(match found {
            Some(snapshot) if !snapshot.record.state.is_final() => None,
            Some(_) => Some(Leftover::Ended),
            None => Some(Leftover::Unknown),
        })
    }
}

/// Whose bytes are left over.
enum Leftover {
    /// An upload's that has ended.
    Ended,
    /// No record speaks of them.
    Unknown,
}

/// Whether it was removed. One that cannot be, as of a record that cannot be read, keeps none of the others.
fn sweep_on(id: UploadId, removed: Result<()>, failed: &mut Option<Error>) -> bool {
    match removed {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%id, %error, "what is left over of an upload is swept later");
            failed.get_or_insert(error);
            false
        }
    }
}

#[cfg(test)]
mod tests;
