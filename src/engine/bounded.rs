use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    error::{Error, Result},
    metadata::{
        Committed, Created, Guard, Lookup, MetadataStore, Page, PartRange, PartsEdit, Quota, Unfinished, Updated,
    },
    upload::{Owner, Part, Record, Snapshot, UploadId, Version, Wake},
};

/// A metadata store whose calls end: one that hangs must not hold the claim on a slot, or the driver, for ever. Its outcome is
/// unknown then.
#[derive(Debug)]
pub(super) struct Bounded {
    pub(super) inner: Arc<dyn MetadataStore>,
    pub(super) limit: Duration,
}

impl Bounded {
    async fn within<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable("The metadata store did not answer; try again")),
        }
    }
}

#[async_trait]
impl MetadataStore for Bounded {
    async fn create(&self, new: &Record, first: &[Part], quota: &Quota, wake: Wake) -> Result<Created> {
        self.within(self.inner.create(new, first, quota, wake)).await
    }

    async fn load(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>> {
        self.within(self.inner.load(by, parts)).await
    }

    async fn commit(&self, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed> {
        self.within(self.inner.commit(id, guard, parts)).await
    }

    async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Updated> {
        self.within(self.inner.update(next, edit, wake)).await
    }

    async fn due(&self, lease: Duration, limit: usize) -> Result<Vec<Record>> {
        self.within(self.inner.due(lease, limit)).await
    }

    async fn list(&self, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>> {
        self.within(self.inner.list(owner, page)).await
    }

    async fn remove(&self, id: UploadId, expected: Version) -> Result<bool> {
        self.within(self.inner.remove(id, expected)).await
    }

    async fn unfinished(&self) -> Result<Option<Unfinished>> {
        self.within(self.inner.unfinished()).await
    }
}
