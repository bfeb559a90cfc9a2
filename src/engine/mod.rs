//! The engine: [`Uploads`] takes bytes in, makes blobs of them and cleans up, with no HTTP in it.

mod builder;
pub(crate) mod checksum;
mod clock;
mod view;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_core::{Stream, stream::BoxStream};

pub use builder::{Builder, Ready, Unauthorized, Verify};
pub use checksum::Crc64;
pub use clock::{Clock, SystemClock};
pub use view::Upload;

use crate::{
    access::Caller,
    blob::{BlobBody, ByteRange},
    error::{Error, Result},
    metadata::Page,
    upload::{Blob, Digest, FileName, Key, Protocol, Target, UploadId},
};

/// The engine. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Uploads {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {}

/// How a request names an upload.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Address<'a> {
    /// By its id.
    Id(UploadId),
    /// The caller's live upload of a file for a target.
    Name(Option<&'a Target>, &'a FileName),
}

impl From<UploadId> for Address<'_> {
    fn from(id: UploadId) -> Self {
        Self::Id(id)
    }
}

impl From<&UploadId> for Address<'_> {
    fn from(id: &UploadId) -> Self {
        Self::Id(*id)
    }
}

/// An upload to be created. See [`Uploads::create`].
#[derive(Clone, Debug)]
pub struct NewUpload {}

impl NewUpload {
    /// An upload of a file with this name. Without a chunk layout it takes appends.
    pub fn new(file_name: impl Into<String>) -> Self {
        todo!()
    }
    /// Size of the whole file, in bytes.
    pub fn size(self, bytes: u64) -> Self {
        todo!()
    }
    /// Numbered chunks of `bytes` each; needs [`size`](Self::size).
    pub fn chunk_size(self, bytes: u64) -> Self {
        todo!()
    }
    /// Numbered chunks of a size that suits the store; needs [`size`](Self::size).
    pub fn chunked(self) -> Self {
        todo!()
    }
    /// What it is for, in the host's world.
    pub fn target(self, target: Target) -> Self {
        todo!()
    }
    /// (owner, target, file name) shall name this upload alone: a second creation with the same shape answers
    /// the first one, with [`Upload::is_new`] false; one of another shape is a conflict.
    pub fn named(self) -> Self {
        todo!()
    }
    /// The checksum of the whole file, verified before publication.
    pub fn checksum(self, checksum: Digest) -> Self {
        todo!()
    }
    /// Something about the file, kept as it is.
    pub fn metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        todo!()
    }
    /// The protocol that creates it.
    #[allow(dead_code)]
    pub(crate) fn protocol(self, protocol: Protocol) -> Self {
        todo!()
    }
    /// Where the blob shall lie, instead of what the key template says.
    pub fn key(self, key: Key) -> Self {
        todo!()
    }
}

/// A chunk to be stored: its index and what the client says of it. See [`Uploads::put_chunk`].
#[derive(Clone, Debug)]
pub struct NewChunk {}

impl NewChunk {
    /// The chunk at `index`, from 0.
    pub fn new(index: u32) -> Self {
        todo!()
    }
    /// How many chunks the client says there are; creates the upload if it is addressed by name and does not exist.
    pub fn total(self, chunks: u32) -> Self {
        todo!()
    }
    /// How long the client says its file is, in bytes.
    pub fn file_size(self, bytes: u64) -> Self {
        todo!()
    }
    /// The length that the body announced (`Content-Length`), in bytes.
    pub fn len(self, bytes: u64) -> Self {
        todo!()
    }
    /// The checksum of this chunk; computed only when given.
    pub fn checksum(self, checksum: Digest) -> Self {
        todo!()
    }
}

/// A chunk that is durable.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredChunk {
    /// The upload it belongs to.
    pub upload_id: UploadId,
    /// Its index, from 0.
    pub index: u32,
    /// How many distinct chunks are durable now.
    pub stored: u32,
    /// How many there will be.
    pub total: u32,
    /// Whether all are.
    pub is_complete: bool,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// Where the next append begins, in bytes.
    pub offset: u64,
    /// Whether that is the end of the file.
    pub is_complete: bool,
}

/// A body that was taken in before it is known what it is: in memory within the budget, else in an
/// anonymous temporary file. Dropping it frees both.
#[derive(Debug)]
pub struct Held {}

impl Held {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Uploads {
    /// Whether `caller` may upload at all: [`Action::Create`](crate::access::Action::Create) on
    /// [`Subject::Own`](crate::access::Subject::Own). To be asked before a body is read.
    pub async fn admit(&self, caller: &Caller) -> Result<()> {
        todo!()
    }

    /// Creates an upload.
    pub async fn create(&self, caller: &Caller, new: NewUpload) -> Result<Upload> {
        todo!()
    }

    /// Stores one chunk of an indexed upload, any one in any order, in parallel.
    pub async fn put_chunk<S, E>(
        &self,
        caller: &Caller,
        to: impl Into<Address<'_>>,
        chunk: NewChunk,
        body: S,
    ) -> Result<StoredChunk>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        todo!()
    }

    /// Takes a body in before it is known where it belongs.
    pub async fn hold<S, E>(&self, len: Option<u64>, body: S) -> Result<Held>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        todo!()
    }

    /// Stores a chunk that was held.
    pub async fn put_held(
        &self,
        caller: &Caller,
        to: impl Into<Address<'_>>,
        chunk: NewChunk,
        held: Held,
    ) -> Result<StoredChunk> {
        todo!()
    }

    /// Appends to a sequential upload at `offset`.
    pub async fn append<S, E>(&self, caller: &Caller, id: UploadId, offset: u64, body: S) -> Result<Appended>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        todo!()
    }

    /// The upload with its parts.
    pub async fn status(&self, caller: &Caller, of: impl Into<Address<'_>>) -> Result<Upload> {
        todo!()
    }

    /// The caller's uploads, newest first, without their parts.
    pub async fn list(&self, caller: &Caller, page: Page) -> Result<Vec<Upload>> {
        todo!()
    }

    /// Makes the blob. Idempotent. `checksum`: of the whole file, verified first.
    pub async fn assemble(
        &self,
        caller: &Caller,
        which: impl Into<Address<'_>>,
        checksum: Option<&Digest>,
    ) -> Result<Upload> {
        todo!()
    }

    /// Gives up an unfinished upload.
    pub async fn abort(&self, caller: &Caller, id: UploadId) -> Result<()> {
        todo!()
    }

    /// Deletes an upload in whatever state; of an assembled one also the blob.
    pub async fn delete(&self, caller: &Caller, id: UploadId) -> Result<()> {
        todo!()
    }

    /// The bytes of an assembled upload.
    pub async fn read(&self, caller: &Caller, id: UploadId, range: ByteRange) -> Result<(Blob, BlobBody)> {
        todo!()
    }

    /// Full snapshots of an upload whenever it changed, beginning with the present one unless its revision is
    /// `after`; ends after one in a final state.
    pub async fn watch(
        &self,
        caller: &Caller,
        id: UploadId,
        after: Option<u64>,
    ) -> Result<BoxStream<'static, Result<Upload>>> {
        todo!()
    }

    /// Lets running requests end until `deadline`, then stops the driver. What is cut can be resumed.
    pub async fn shutdown(&self, deadline: Duration) {
        todo!()
    }
}
