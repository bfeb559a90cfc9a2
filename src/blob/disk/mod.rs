//! [`DiskBlobs`]: blobs as files beneath one directory.
//!
//! An upload is one file, written in place and published by a second name: assembly moves no byte,
//! but those of parts that came before their place was known.
//!
//! ```text
//! root/lock                                  held as long as the process uses the directory
//! root/partial/<id>                          the bytes of an upload
//! root/partial/<id>.<number>.<attempt>       a part whose place was not known when it came
//! root/partial/put.<random>                  an object that is being put
//! root/blobs/<key>                           a published blob
//! ```
//!
//! Everything is opened beneath the directory; symbolic links are not followed. A link that somebody
//! else makes to a file in `partial` makes the store take it for published.

mod beneath;
mod claims;
pub(crate) mod fs;
mod join;
mod options;
mod place;
mod publish;
mod put;
mod read;
mod real;
#[cfg(test)]
pub(crate) mod sim;
mod space;
pub(crate) mod store;
mod sys;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use self::{real::RealFs, store::Disk};
use crate::{
    blob::{Before, BlobBody, BlobStore, ByteRange, Completed, Joined, Limits, PartWriter, Slot},
    error::Result,
    upload::{Blob, Handle, Key, Part, Plan, UploadId},
};

pub use options::{DiskOptions, Durability, Writes};

/// Blobs as files beneath one directory, which belongs to one process at a time.
///
/// What was acknowledged survives a power loss, unless [`Durability::None`] was chosen. The directory and its files
/// are the process's owner's alone (modes 0700 and 0600); a directory that exists keeps its mode.
///
/// Put it on a local file system that knows hard links. On one that several machines mount, the lock may not
/// hold between them.
#[derive(Clone, Debug)]
pub struct DiskBlobs {
    disk: Disk<RealFs>,
}

impl DiskBlobs {
    /// Opens `root` with the default [options](DiskOptions).
    ///
    /// # Errors
    /// As [`DiskOptions::open`].
    pub async fn open(root: impl AsRef<Path>) -> Result<Self> {
        DiskOptions::default().open(root).await
    }

    /// How many bytes were copied since the store was opened: those of parts that were kept aside, by
    /// [`complete`](BlobStore::complete), and all that was [joined](BlobStore::join), where the file system lets files
    /// share bytes too.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.disk.copied_bytes()
    }
}

#[async_trait]
impl BlobStore for DiskBlobs {
    fn limits(&self) -> Limits {
        self.disk.limits()
    }
    async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle> {
        self.disk.begin(id, key, plan).await
    }
    async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
        self.disk.open(handle, slot).await
    }
    async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> {
        self.disk.read_parts(handle, parts).await
    }
    async fn join(
        &self,
        into: &Handle,
        slot: Slot,
        before: Before<'_>,
        from: &Handle,
        parts: &[Part],
    ) -> Result<Joined> {
        self.disk.join(into, slot, before, from, parts).await
    }
    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        self.disk.complete(handle, key, parts).await
    }
    async fn discard(&self, handle: &Handle) -> Result<()> {
        self.disk.discard(handle).await
    }
    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        self.disk.begun(older_than).await
    }
    async fn head(&self, key: &Key) -> Result<Option<Blob>> {
        self.disk.head(key).await
    }
    async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> {
        self.disk.read(key, range).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.disk.delete(key).await
    }
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        self.disk.put(key, bytes).await
    }
    async fn clear(&self, folder: &Key) -> Result<()> {
        self.disk.clear(folder).await
    }
    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        self.disk.local_path(key)
    }
}
