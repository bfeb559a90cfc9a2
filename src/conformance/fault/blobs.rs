use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Call, Fault, Faults, injected, suffer, suffer_at_once};
use crate::{
    blob::{Before, BlobBody, BlobStore, ByteRange, Completed, Joined, Limits, PartWriter, Slot},
    error::Result,
    upload::{Blob, Handle, Key, Part, Plan, Receipt, UploadId},
};

/// A blob store that fails as a plan says, its writers too.
pub struct FaultyBlobs<B: ?Sized> {
    faults: Arc<dyn Faults>,
    inner: Arc<B>,
}

impl<B: BlobStore> FaultyBlobs<B> {
    /// Wraps `inner`; to look behind the faults, give an `Arc` and keep its clone.
    pub fn new(inner: B, faults: Arc<dyn Faults>) -> Self {
        Self {
            faults,
            inner: Arc::new(inner),
        }
    }
}

impl<B: fmt::Debug + ?Sized> fmt::Debug for FaultyBlobs<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBlobs")
            .field("inner", &&*self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<B: BlobStore> BlobStore for FaultyBlobs<B> {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle> {
        let (inner, key, plan) = (self.inner.clone(), key.clone(), plan.clone());
        let call = async move { inner.begin(id, &key, &plan).await };
        suffer(self.faults.next(Call::Begin), call).await
    }

    async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
        let (inner, handle) = (self.inner.clone(), handle.clone());
        let call = async move { inner.open(&handle, slot).await };
        let writer = suffer(self.faults.next(Call::Open), call).await?;
        Ok(FaultyWriter::over(writer, &self.faults))
    }

    async fn append(&self, handle: &Handle, slot: Slot, before: Before<'_>) -> Result<Box<dyn PartWriter>> {
        let (inner, handle) = (self.inner.clone(), handle.clone());
        let (committed, finished) = (before.committed.cloned(), before.finished.cloned());
        let call = async move {
            let before = Before::committed(committed.as_ref()).and_finished(finished.as_ref());
            inner.append(&handle, slot, before).await
        };
        let writer = suffer(self.faults.next(Call::Open), call).await?;
        Ok(FaultyWriter::over(writer, &self.faults))
    }

    fn step(&self, handle: &Handle) -> Option<u64> {
        self.inner.step(handle)
    }

    async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> {
        suffer_at_once(self.faults.next(Call::ReadParts), self.inner.read_parts(handle, parts)).await
    }

    async fn join(
        &self,
        into: &Handle,
        slot: Slot,
        before: Before<'_>,
        from: &Handle,
        parts: &[Part],
    ) -> Result<Joined> {
        let (inner, into, from, parts) = (self.inner.clone(), into.clone(), from.clone(), parts.to_vec());
        let (committed, finished) = (before.committed.cloned(), before.finished.cloned());
        let call = async move {
            let before = Before::committed(committed.as_ref()).and_finished(finished.as_ref());
            inner.join(&into, slot, before, &from, &parts).await
        };
        suffer(self.faults.next(Call::Join), call).await
    }

    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        let (inner, handle, key, parts) = (self.inner.clone(), handle.clone(), key.clone(), parts.to_vec());
        let call = async move { inner.complete(&handle, &key, &parts).await };
        suffer(self.faults.next(Call::Complete), call).await
    }

    async fn discard(&self, handle: &Handle) -> Result<()> {
        let (inner, handle) = (self.inner.clone(), handle.clone());
        let call = async move { inner.discard(&handle).await };
        suffer(self.faults.next(Call::Discard), call).await
    }

    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        suffer_at_once(self.faults.next(Call::Begun), self.inner.begun(older_than)).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Blob>> {
        suffer_at_once(self.faults.next(Call::Head), self.inner.head(key)).await
    }

    async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> {
        suffer_at_once(self.faults.next(Call::Read), self.inner.read(key, range)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let (inner, key) = (self.inner.clone(), key.clone());
        let call = async move { inner.delete(&key).await };
        suffer(self.faults.next(Call::Delete), call).await
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        let (inner, key) = (self.inner.clone(), key.clone());
        let call = async move { inner.put(&key, bytes).await };
        suffer(self.faults.next(Call::Put), call).await
    }

    async fn clear(&self, folder: &Key) -> Result<()> {
        let (inner, folder) = (self.inner.clone(), folder.clone());
        let call = async move { inner.clear(&folder).await };
        suffer(self.faults.next(Call::Clear), call).await
    }

    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        self.inner.local_path(key)
    }
}

struct FaultyWriter {
    faults: Arc<dyn Faults>,
    /// Gone after an error, or once a late write has it.
    inner: Option<Box<dyn PartWriter>>,
}

impl FaultyWriter {
    fn over(inner: Box<dyn PartWriter>, faults: &Arc<dyn Faults>) -> Box<dyn PartWriter> {
        Box::new(Self {
            faults: faults.clone(),
            inner: Some(inner),
        })
    }
}

impl fmt::Debug for FaultyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyWriter")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PartWriter for FaultyWriter {
    async fn write(&mut self, frames: Vec<Bytes>) -> Result<()> {
        let mut inner = self.inner.take().ok_or_else(injected)?;
        let call = async move { inner.write(frames).await.map(|()| inner) };
        self.inner = Some(suffer(self.faults.next(Call::Write), call).await?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Receipt> {
        let inner = self.inner.take().ok_or_else(injected)?;
        suffer(self.faults.next(Call::Finish), inner.finish()).await
    }

    async fn finish_with(mut self: Box<Self>, frames: Vec<Bytes>) -> Result<Receipt> {
        let mut inner = self.inner.take().ok_or_else(injected)?;
        match self.faults.next(Call::Write) {
            Fault::None => suffer(self.faults.next(Call::Finish), inner.finish_with(frames)).await,
            fault => {
                let call = async move { inner.write(frames).await.map(|()| inner) };
                let inner = suffer(fault, call).await?;
                suffer(self.faults.next(Call::Finish), inner.finish()).await
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{blob::MemoryBlobs, conformance::fault::ScriptedFaults, error::ErrorKind};

    #[tokio::test(start_paused = true)]
    async fn a_late_finish_meets_the_newer_claim() {
        let wait = Duration::from_secs(3);
        let plan = Arc::new(ScriptedFaults::new().on(Call::Finish, 0, Fault::LateApply(wait)));
        let store = FaultyBlobs::new(MemoryBlobs::new(), plan.clone());
        let key = Key::parse("k").unwrap();
        let handle = store
            .begin(UploadId::from_bytes([1; 16]), &key, &Plan::sequential(None))
            .await
            .unwrap();
        let mut older = store.open(&handle, Slot::at(0, 0, 9)).await.unwrap();
        older.write(vec![Bytes::from_static(b"older")]).await.unwrap();
        assert_eq!(older.finish().await.unwrap_err().kind(), ErrorKind::Unavailable);
        let mut newer = store.open(&handle, Slot::at(0, 0, 9)).await.unwrap();
        newer.write(vec![Bytes::from_static(b"newer")]).await.unwrap();
        let part = Part::new(0, 5, 0, newer.finish().await.unwrap());
        tokio::time::sleep(2 * wait).await;
        assert_eq!(
            store.complete(&handle, &key, &[part]).await.unwrap(),
            Completed::Done(Blob::new(5, None))
        );
        assert_eq!(
            plan.calls(),
            [
                Call::Begin,
                Call::Open,
                Call::Write,
                Call::Finish,
                Call::Open,
                Call::Write,
                Call::Finish,
                Call::Complete
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_error_the_attempt_is_over() {
        let store = FaultyBlobs::new(
            MemoryBlobs::new(),
            Arc::new(ScriptedFaults::new().on(Call::Write, 1, Fault::FailBefore)),
        );
        let key = Key::parse("k").unwrap();
        let handle = store
            .begin(UploadId::from_bytes([1; 16]), &key, &Plan::sequential(None))
            .await
            .unwrap();
        let mut writer = store.open(&handle, Slot::at(0, 0, 9)).await.unwrap();
        writer.write(vec![Bytes::from_static(b"abc")]).await.unwrap();
        writer.write(vec![Bytes::from_static(b"def")]).await.unwrap_err();
        writer.write(vec![Bytes::from_static(b"ghi")]).await.unwrap_err();
        writer.finish().await.unwrap_err();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_faults_it_is_a_right_store() {
        crate::conformance::blob::run(async || FaultyBlobs::new(MemoryBlobs::new(), Arc::new(|_: Call| Fault::None)))
            .await;
    }
}
