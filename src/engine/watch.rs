use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, stream};

use super::{Upload, Uploads};
use crate::{
    access::{Action, Caller},
    error::Result,
    metadata::PartRange,
    upload::UploadId,
};

/// How soon a change is seen that another process made.
const POLL: Duration = Duration::from_secs(2);
/// How often a busy upload is shown.
const PACE: Duration = Duration::from_millis(200);

impl Uploads {
    /// Full snapshots of an upload whenever it has changed, each with its [`revision`](Upload::revision): first the present
    /// one, unless its revision is `after`; at last the one that has ended, once no hook that [works](crate::Hook::works) on its
    /// blob will change it any more. Changes in quick succession are shown as one.
    ///
    /// # Errors
    /// Those of [`status`](Self::status), at once or as the last item.
    pub async fn watch(
        &self,
        caller: &Caller,
        id: UploadId,
        after: Option<u64>,
    ) -> Result<BoxStream<'static, Result<Upload>>> {
        self.find(caller, id.into(), Action::Inspect, PartRange::NONE).await?;
        let watching = Watching {
            uploads: self.clone(),
            caller: caller.clone(),
            id,
            shown: after,
            done: false,
        };
        Ok(stream::unfold(watching, Watching::next).boxed())
    }
}

struct Watching {
    uploads: Uploads,
    caller: Caller,
    id: UploadId,
    shown: Option<u64>,
    done: bool,
}

impl Watching {
    /// The upload, unless it is as it was shown and will change yet. Its parts may be many, and are read only if something changed.
    async fn look(&self) -> Result<Option<Upload>> {
        if self.shown.is_some() {
            let seen = self
                .uploads
                .find(&self.caller, self.id.into(), Action::Inspect, PartRange::NONE);
            let seen = seen.await?;
            if self.shown == Some(seen.tally.revision) && !self.uploads.is_settled(&seen.record) {
                return Ok(None);
            }
        }
        self.uploads.status(&self.caller, self.id).await.map(Some)
    }

    async fn next(mut self) -> Option<(Result<Upload>, Self)> {
        if self.done {
            return None;
        }
        let changes = self.uploads.inner.live.watch(self.id);
        loop {
            let changed = changes.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change falls in between.
            changed.as_mut().enable();
            match self.look().await {
                Ok(None) => {}
                Ok(Some(upload)) if self.shown == Some(upload.revision()) => return None,
                Ok(Some(upload)) => {
                    self.shown = Some(upload.revision());
                    self.done = self.uploads.is_settled(upload.record());
                    return Some((Ok(upload), self));
                }
                Err(error) => {
                    self.done = true;
                    return Some((Err(error), self));
                }
            }
            tokio::select! {
                biased;
                () = self.uploads.inner.tasks.closing() => return None,
                _ = tokio::time::timeout(POLL, changed) => tokio::time::sleep(PACE).await,
            }
        }
    }
}
