//! The stores, with their calls measured. Every method is forwarded, those with a default too: clippy sees to it.

use std::{
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{called, committed, kind};
use crate::{
    blob::{Before, BlobBody, BlobStore, ByteRange, Completed, Joined, Limits, PartWriter, Slot},
    error::Result,
    metadata::{
        Committed, Created, Guard, Lookup, MetadataStore, Page, PartRange, PartsEdit, Quota, Unfinished, Updated,
    },
    upload::{Blob, Handle, Key, Owner, Part, Plan, Receipt, Record, Snapshot, UploadId, Version, Wake},
};

const BLOB: &str = "blob";
const METADATA: &str = "metadata";

async fn measure<T>(
    store: &'static str,
    operation: &'static str,
    call: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let mut under_way = UnderWay {
        store,
        operation,
        began: Instant::now(),
        error: Some("dropped"),
    };
    let result = call.await;
    under_way.error = result.as_ref().err().map(|error| kind(error.kind()));
    result
}

/// A call that has not ended, or was given up.
struct UnderWay {
    store: &'static str,
    operation: &'static str,
    began: Instant,
    error: Option<&'static str>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        called(self.store, self.operation, self.began.elapsed(), self.error);
    }
}

#[derive(Debug)]
pub(super) struct MeasuredBlobs(pub(super) Arc<dyn BlobStore>);

impl MeasuredBlobs {
    async fn measured(
        &self,
        operation: &'static str,
        writer: impl Future<Output = Result<Box<dyn PartWriter>>> + Send,
    ) -> Result<Box<dyn PartWriter>> {
        let writer = measure(BLOB, operation, writer).await?;
        Ok(Box::new(MeasuredWriter(writer)))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl BlobStore for MeasuredBlobs {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle> {
        measure(BLOB, "begin", self.0.begin(id, key, plan)).await
    }

    async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
        self.measured("open", self.0.open(handle, slot)).await
    }

    async fn append(&self, handle: &Handle, slot: Slot, before: Before<'_>) -> Result<Box<dyn PartWriter>> {
        self.measured("append", self.0.append(handle, slot, before)).await
    }

    fn step(&self, handle: &Handle) -> Option<u64> {
        self.0.step(handle)
    }

    async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> {
        measure(BLOB, "read_parts", self.0.read_parts(handle, parts)).await
    }

    async fn join(
        &self,
        into: &Handle,
        slot: Slot,
        before: Before<'_>,
        from: &Handle,
        parts: &[Part],
    ) -> Result<Joined> {
        measure(BLOB, "join", self.0.join(into, slot, before, from, parts)).await
    }

    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        measure(BLOB, "complete", self.0.complete(handle, key, parts)).await
    }

    async fn discard(&self, handle: &Handle) -> Result<()> {
        measure(BLOB, "discard", self.0.discard(handle)).await
    }

    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        measure(BLOB, "begun", self.0.begun(older_than)).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Blob>> {
        measure(BLOB, "head", self.0.head(key)).await
    }

    async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> {
        measure(BLOB, "read", self.0.read(key, range)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        measure(BLOB, "delete", self.0.delete(key)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        measure(BLOB, "put", self.0.put(key, bytes)).await
    }

    async fn clear(&self, folder: &Key) -> Result<()> {
        measure(BLOB, "clear", self.0.clear(folder)).await
    }

    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        self.0.local_path(key)
    }
}

#[derive(Debug)]
struct MeasuredWriter(Box<dyn PartWriter>);

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl PartWriter for MeasuredWriter {
    async fn write(&mut self, frames: Vec<Bytes>) -> Result<()> {
        measure(BLOB, "write", self.0.write(frames)).await
    }

    async fn finish(self: Box<Self>) -> Result<Receipt> {
        measure(BLOB, "finish", self.0.finish()).await
    }

    async fn finish_with(self: Box<Self>, frames: Vec<Bytes>) -> Result<Receipt> {
        measure(BLOB, "finish", self.0.finish_with(frames)).await
    }
}

#[derive(Debug)]
pub(super) struct MeasuredMetadata(pub(super) Arc<dyn MetadataStore>);

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl MetadataStore for MeasuredMetadata {
    async fn create(&self, new: &Record, first: &[Part], quota: &Quota, wake: Wake) -> Result<Created> {
        let created = measure(METADATA, "create", self.0.create(new, first, quota, wake)).await;
        if let Ok(Created::New(_)) = &created
            && !first.is_empty()
        {
            committed(first);
        }
        created
    }

    async fn load(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>> {
        measure(METADATA, "load", self.0.load(by, parts)).await
    }

    async fn commit(&self, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed> {
        let done = measure(METADATA, "commit", self.0.commit(id, guard, parts)).await;
        if let Ok(Committed::Done(_)) = &done {
            committed(parts);
        }
        done
    }

    async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Updated> {
        measure(METADATA, "update", self.0.update(next, edit, wake)).await
    }

    async fn due(&self, lease: Duration, limit: usize) -> Result<Vec<Record>> {
        measure(METADATA, "due", self.0.due(lease, limit)).await
    }

    async fn list(&self, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>> {
        measure(METADATA, "list", self.0.list(owner, page)).await
    }

    async fn remove(&self, id: UploadId, expected: Version) -> Result<bool> {
        measure(METADATA, "remove", self.0.remove(id, expected)).await
    }

    async fn unfinished(&self) -> Result<Option<Unfinished>> {
        measure(METADATA, "unfinished", self.0.unfinished()).await
    }
}
