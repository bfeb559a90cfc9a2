use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{Call, Faults, suffer, suffer_at_once};
use crate::{
    error::Result,
    metadata::{
        Committed, Created, Guard, Lookup, MetadataStore, Page, PartRange, PartsEdit, Quota, Unfinished, Updated,
    },
    upload::{Owner, Part, Record, Snapshot, UploadId, Version, Wake},
};

/// A metadata store that fails as a plan says.
pub struct FaultyMetadata<M: ?Sized> {
    faults: Arc<dyn Faults>,
    inner: Arc<M>,
}

impl<M: MetadataStore> FaultyMetadata<M> {
    /// Wraps `inner`; to look behind the faults, give an `Arc` and keep its clone.
    pub fn new(inner: M, faults: Arc<dyn Faults>) -> Self {
        Self {
            faults,
            inner: Arc::new(inner),
        }
    }
}

impl<M: fmt::Debug + ?Sized> fmt::Debug for FaultyMetadata<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyMetadata")
            .field("inner", &&*self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<M: MetadataStore> MetadataStore for FaultyMetadata<M> {
    async fn create(&self, new: &Record, first: &[Part], quota: &Quota, wake: Wake) -> Result<Created> {
        let (inner, new, first, quota) = (self.inner.clone(), new.clone(), first.to_vec(), *quota);
        let call = async move { inner.create(&new, &first, &quota, wake).await };
        suffer(self.faults.next(Call::Create), call).await
    }

    async fn load(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>> {
        suffer_at_once(self.faults.next(Call::Load), self.inner.load(by, parts)).await
    }

    async fn commit(&self, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed> {
        let (inner, guard, parts) = (self.inner.clone(), guard.clone(), parts.to_vec());
        let call = async move { inner.commit(id, &guard, &parts).await };
        suffer(self.faults.next(Call::Commit), call).await
    }

    async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Updated> {
        let (inner, next) = (self.inner.clone(), next.clone());
        let call = async move { inner.update(&next, edit, wake).await };
        suffer(self.faults.next(Call::Update), call).await
    }

    async fn due(&self, lease: Duration, limit: usize) -> Result<Vec<Record>> {
        let inner = self.inner.clone();
        let call = async move { inner.due(lease, limit).await };
        suffer(self.faults.next(Call::Due), call).await
    }

    async fn list(&self, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>> {
        suffer_at_once(self.faults.next(Call::List), self.inner.list(owner, page)).await
    }

    async fn remove(&self, id: UploadId, expected: Version) -> Result<bool> {
        let inner = self.inner.clone();
        let call = async move { inner.remove(id, expected).await };
        suffer(self.faults.next(Call::Remove), call).await
    }

    /// Figures are not worth a fault: nothing is decided by them.
    async fn unfinished(&self) -> Result<Option<Unfinished>> {
        self.inner.unfinished().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        conformance::fault::{Fault, ScriptedFaults, SeededFaults},
        error::ErrorKind,
        metadata::MemoryMetadata,
        upload::{FileName, Handle, Key, Plan},
    };

    const SOON: Duration = Duration::from_secs(5);

    fn record() -> Record {
        Record::new(
            UploadId::from_bytes([1; 16]),
            Owner::new("o"),
            FileName::parse("f").unwrap(),
            Key::parse("k").unwrap(),
            Plan::sequential(None),
            Handle::new("h"),
        )
    }

    /// Whether the creation was there right after the call, and whether it was after a while.
    async fn created_under(fault: Fault) -> (Option<ErrorKind>, bool, bool) {
        let behind = Arc::new(MemoryMetadata::new());
        let plan = Arc::new(ScriptedFaults::new().on(Call::Create, 0, fault));
        let store = FaultyMetadata::new(behind.clone(), plan);
        let there = async || {
            behind
                .load(Lookup::Id(record().id), PartRange::NONE)
                .await
                .unwrap()
                .is_some()
        };
        let new = record();
        let answer = tokio::time::timeout(2 * SOON, store.create(&new, &[], &Quota::UNLIMITED, Wake::Keep)).await;
        let at_once = there().await;
        tokio::time::sleep(2 * SOON).await;
        let kind = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.kind()),
            Err(_) => Some(ErrorKind::TooSlow),
        };
        (kind, at_once, there().await)
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_is_what_it_says() {
        let lost = Some(ErrorKind::Unavailable);
        let hung = Some(ErrorKind::TooSlow);
        assert_eq!(created_under(Fault::None).await, (None, true, true));
        assert_eq!(created_under(Fault::Delay(SOON)).await, (None, true, true));
        assert_eq!(created_under(Fault::FailBefore).await, (lost, false, false));
        assert_eq!(created_under(Fault::FailAfter).await, (lost, true, true));
        assert_eq!(created_under(Fault::LateApply(SOON)).await, (lost, false, true));
        assert_eq!(created_under(Fault::Hang).await, (hung, false, false));
        assert_eq!(created_under(Fault::HangAfter).await, (hung, true, true));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_faults_it_is_a_right_store() {
        let make = async || FaultyMetadata::new(MemoryMetadata::new(), Arc::new(SeededFaults::new(1, 0.0)));
        crate::conformance::metadata::run(make).await;
    }
}
