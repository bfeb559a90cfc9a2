use serde::{Deserialize, Serialize};

use super::UploadId;

/// How a client sends its pieces; fixed at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Layout {
    /// Numbered chunks, in any order, in parallel.
    Indexed,
    /// Appends at the end.
    Sequential,
}

/// What is known of the shape of an upload. What is `None` becomes known later and is then fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// Numbered chunks or appends.
    pub layout: Layout,
    /// Size of the whole file in bytes.
    pub size: Option<u64>,
    /// Size of every chunk but the last, in bytes: the pin. Indexed uploads only.
    pub chunk_size: Option<u64>,
    /// Number of chunks, at least 1. Indexed uploads only.
    pub chunks: Option<u32>,
    /// Its bytes are to be joined to those of other uploads. Not stored: the record says it too.
    #[serde(skip)]
    pub joined: bool,
}

impl Plan {
    /// Appends of a file of `size` bytes.
    #[must_use]
    pub const fn sequential(size: Option<u64>) -> Self {
        Self {
            layout: Layout::Sequential,
            size,
            chunk_size: None,
            chunks: None,
            joined: false,
        }
    }

    /// `chunks` numbered chunks; their size may not be known yet.
    #[must_use]
    pub const fn indexed(chunks: u32, chunk_size: Option<u64>, size: Option<u64>) -> Self {
        Self {
            layout: Layout::Indexed,
            size,
            chunk_size,
            chunks: Some(chunks),
            joined: false,
        }
    }

    /// This plan, of an upload that is to be joined with others: its parts must be readable before they are published.
    #[must_use]
    pub const fn to_be_joined(mut self) -> Self {
        self.joined = true;
        self
    }

    /// Whether `number` is the last chunk.
    #[must_use]
    pub fn is_last(&self, number: u32) -> bool {
        self.chunks == number.checked_add(1)
    }

    /// The exact length of chunk `number` in bytes, when it follows from what is known.
    #[must_use]
    pub fn chunk_len(&self, number: u32) -> Option<u64> {
        if self.chunks == Some(1) {
            return self.size;
        }
        let chunk_size = self.chunk_size?;
        if self.is_last(number) {
            self.size?.checked_sub(chunk_size.checked_mul(number.into())?)
        } else {
            Some(chunk_size)
        }
    }

    /// Where chunk `number` begins in the file, in bytes, when it is known.
    #[must_use]
    pub fn chunk_offset(&self, number: u32) -> Option<u64> {
        if number == 0 {
            Some(0)
        } else {
            self.chunk_size?.checked_mul(number.into())
        }
    }
}

/// The place of an upload in a concatenation: a blob made of uploads that were sent side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Concat {
    /// It is sent to be joined with others and never published by itself.
    Partial,
    /// It takes no bytes of its own: it is these partial uploads, in this order.
    Final(Vec<UploadId>),
}
