use std::collections::BTreeMap;

use crate::upload::{Algorithm, Digest, FileName, Key, Plan, Protocol, Target, UploadId};

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

/// An upload to be created. See [`Uploads::create`](super::Uploads::create).
///
/// As it comes from [`new`](Self::new) it takes appends; [`chunked`](Self::chunked) or
/// [`chunk_size`](Self::chunk_size) make it one of numbered chunks.
#[derive(Clone, Debug)]
pub struct NewUpload {
    pub(super) file_name: String,
    pub(super) size: Option<u64>,
    pub(super) chunks: Chunks,
    pub(super) target: Option<Target>,
    pub(super) named: bool,
    pub(super) checksum: Option<Digest>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) key: Option<Key>,
    pub(super) protocol: Protocol,
    pub(super) notes: BTreeMap<String, String>,
    pub(super) seals_itself: bool,
    pub(super) wanted_digest: Option<Algorithm>,
    pub(super) partial: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    None,
    Proposed,
    Of(u64),
}

impl NewUpload {
    /// An upload of a file with this name, which is checked when it is created.
    pub fn new(file_name: impl Into<String>) -> Self {
        Self {
            file_name: file_name.into(),
            size: None,
            chunks: Chunks::None,
            target: None,
            named: false,
            checksum: None,
            metadata: BTreeMap::new(),
            key: None,
            protocol: Protocol::Engine,
            notes: BTreeMap::new(),
            seals_itself: false,
            wanted_digest: None,
            partial: false,
        }
    }

    /// Size of the whole file, in bytes.
    #[must_use]
    pub const fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Numbered chunks of `bytes` each, the last one shorter; needs [`size`](Self::size).
    #[must_use]
    pub const fn chunk_size(mut self, bytes: u64) -> Self {
        self.chunks = Chunks::Of(bytes);
        self
    }

    /// Numbered chunks of a size that suits the store; needs [`size`](Self::size).
    #[must_use]
    pub const fn chunked(mut self) -> Self {
        self.chunks = Chunks::Proposed;
        self
    }

    /// What it is for, in the host's world.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// (owner, target, file name) shall name this upload alone: a second creation of the same shape answers the first one,
    /// with [`Upload::is_new`](super::Upload::is_new) false; one of another shape is a conflict.
    #[must_use]
    pub const fn named(mut self) -> Self {
        self.named = true;
        self
    }

    /// The checksum of the whole file, verified before it is published.
    #[must_use]
    pub fn checksum(mut self, checksum: Digest) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// Something about the file, kept as it is: without control characters, 16 KiB together at most.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Where the blob shall lie, instead of where the key template says.
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// The protocol it is created by.
    #[must_use]
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Something that the protocol keeps for its own answers: without control characters, 64 KiB together at most.
    #[must_use]
    pub fn note(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.notes.insert(key.into(), value.into());
        self
    }

    /// The commit of the last byte seals the upload, which is then assembled although nobody asks for it. For uploads
    /// that take appends.
    #[must_use]
    pub const fn seals_itself(mut self) -> Self {
        self.seals_itself = true;
        self
    }

    /// The client wants to be told the digest of the whole file by this algorithm: see
    /// [`Upload::digest`](super::Upload::digest). For uploads that take appends.
    #[must_use]
    pub const fn digest(mut self, algorithm: Algorithm) -> Self {
        self.wanted_digest = Some(algorithm);
        self
    }

    /// It is sent to be joined with others and never published by itself.
    #[must_use]
    pub const fn partial(mut self) -> Self {
        self.partial = true;
        self
    }
}

/// A chunk to be stored: its index and what the client says of it. See
/// [`Uploads::put_chunk`](super::Uploads::put_chunk).
#[derive(Clone, Debug)]
pub struct NewChunk {
    pub(super) index: u32,
    pub(super) total: Option<u32>,
    pub(super) file_size: Option<u64>,
    pub(super) len: Option<u64>,
    pub(super) checksum: Option<Digest>,
}

impl NewChunk {
    /// The chunk at `index`, from 0.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self {
            index,
            total: None,
            file_size: None,
            len: None,
            checksum: None,
        }
    }

    /// How many chunks the client says there are. A chunk that is addressed by name and knows the total creates the
    /// upload if there is none.
    #[must_use]
    pub const fn total(mut self, chunks: u32) -> Self {
        self.total = Some(chunks);
        self
    }

    /// How long the client says its file is, in bytes.
    #[must_use]
    pub const fn file_size(mut self, bytes: u64) -> Self {
        self.file_size = Some(bytes);
        self
    }

    /// The length that the body announced, in bytes.
    #[must_use]
    pub const fn len(mut self, bytes: u64) -> Self {
        self.len = Some(bytes);
        self
    }

    /// The checksum of this chunk. Computed only when given.
    #[must_use]
    pub fn checksum(mut self, checksum: Digest) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// Checks what the chunk says against what is known of the upload.
    pub(super) fn check(&self, plan: &Plan, max_chunk: u64) -> crate::error::Result<()> {
        use crate::error::{Error, ErrorKind};
        let Some(chunks) = plan.chunks else {
            return Err(Error::new(
                ErrorKind::Conflict,
                "This upload takes appends, not numbered chunks",
            ));
        };
        if let Some(total) = self.total.filter(|total| *total != chunks) {
            return Err(Error::invalid(
                "totalChunks",
                format!("The upload began with {chunks} chunks, not {total}"),
            ));
        }
        if self.index >= chunks {
            return Err(Error::invalid(
                "chunkIndex",
                format!("The index must be below the {chunks} chunks"),
            ));
        }
        if let (Some(size), Some(claimed)) = (plan.size, self.file_size)
            && size != claimed
        {
            return Err(Error::invalid(
                "fileSize",
                format!("The upload began with {size} bytes, not {claimed}"),
            ));
        }
        if let Some(len) = self.len {
            check_len(plan, self.index, len, max_chunk)?;
        }
        Ok(())
    }
}

/// Checks a chunk's length against what is known of the upload.
pub(super) fn check_len(plan: &Plan, index: u32, len: u64, max_chunk: u64) -> crate::error::Result<()> {
    use crate::error::Error;
    let max = plan.chunk_size.unwrap_or(max_chunk);
    if let Some(exact) = plan.chunk_len(index).filter(|exact| *exact != len) {
        return Err(Error::invalid(
            "chunk",
            format!("Chunk {index} of this upload has {exact} bytes, not {len}"),
        ));
    }
    if plan.chunk_size.is_some() && len > max {
        return Err(Error::invalid(
            "chunk",
            format!("No chunk of this upload has more than {max} bytes"),
        ));
    }
    if len > max {
        return Err(Error::too_large(format!("A chunk may have {max} bytes at most"), max));
    }
    if len == 0 && plan.chunks != Some(1) && !plan.is_last(index) {
        return Err(Error::invalid("chunk", "Only the last chunk may be empty"));
    }
    Ok(())
}

/// A chunk that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
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
