use serde::{Deserialize, Serialize};

/// What a blob store needs to find an upload's bytes again: opaque to all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(String);

impl Handle {
    /// A handle of the store's own making.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text the store gave.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a blob store needs back to complete one part (an `ETag`, a block id, a file): opaque to all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Receipt(String);

impl Receipt {
    /// A receipt of the store's own making.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text the store gave.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A piece of the blob that is durable in the blob store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Part {
    /// Its place among the parts, from 0; the chunk's index for indexed uploads.
    pub number: u32,
    /// Its length in bytes.
    pub len: u64,
    /// CRC-64/NVME of its bytes.
    pub crc64: u64,
    /// What the blob store needs back.
    pub receipt: Receipt,
}

impl Part {
    /// A part.
    #[must_use]
    pub const fn new(number: u32, len: u64, crc64: u64, receipt: Receipt) -> Self {
        Self {
            number,
            len,
            crc64,
            receipt,
        }
    }
}

/// The state of a running hash over exactly the bytes `[0, end)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HashState {
    /// How many bytes went in.
    pub end: u64,
    /// The state as the hash's crate serializes it, led by algorithm and format.
    pub state: Vec<u8>,
}

impl HashState {
    /// A state after `end` bytes.
    #[must_use]
    pub const fn new(end: u64, state: Vec<u8>) -> Self {
        Self { end, state }
    }
}

/// A finished blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Blob {
    /// Its size in bytes.
    pub size: u64,
    /// The store's own validator, when it has one.
    pub etag: Option<String>,
}

impl Blob {
    /// A blob of `size` bytes.
    #[must_use]
    pub const fn new(size: u64, etag: Option<String>) -> Self {
        Self { size, etag }
    }
}

/// What has been committed of an upload, kept by the store so that asking is cheap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tally {
    /// How many parts.
    pub parts: u32,
    /// How many bytes; for sequential uploads this is the offset.
    pub bytes: u64,
    /// One more with every change of the upload, its record's and its parts' alike.
    pub revision: u64,
}

impl Tally {
    /// This tally with `parts` added or taken away.
    #[must_use]
    pub fn with(mut self, added: &[Part], removed: &[Part]) -> Self {
        for part in added {
            self.parts = self.parts.saturating_add(1);
            self.bytes = self.bytes.saturating_add(part.len);
        }
        for part in removed {
            self.parts = self.parts.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(part.len);
        }
        self.revision += 1;
        self
    }
}
