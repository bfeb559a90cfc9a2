//! Where bytes lie: [`BlobStore`] and the stores that come with the crate.
//!
//! A store takes parts in any order and makes one blob of them without copying what it can keep
//! in place. It knows no protocol and no metadata: which parts count is told to it.

use std::{fmt, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::{
    error::{Error, Result},
    upload::{Blob, Handle, Key, Part, Plan, Receipt, UploadId},
};

#[cfg(feature = "disk")]
pub mod disk;
mod join;
mod memory;
#[cfg(feature = "object-store")]
pub mod object;

#[cfg(feature = "disk")]
pub use disk::DiskBlobs;
pub(crate) use join::same_upload;
pub use memory::MemoryBlobs;
#[cfg(feature = "object-store")]
pub use object::ObjectBlobs;

/// The bytes of a blob, in order.
pub type BlobBody = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Keeps the bytes of uploads.
///
/// # What a store guarantees
/// * **Durable**: what [`PartWriter::finish`], [`complete`](Self::complete) and [`begin`](Self::begin) answered
///   survives a power loss right after. A write error is reported once and never papered over by a second sync.
/// * **Claims**: [`open`](Self::open) takes a slot over. From its return on no byte of an older attempt at that
///   slot can change any more, although its writer or a job of it may still exist: that one gets
///   [`Superseded`](crate::ErrorKind::Superseded). `open` may wait for the older attempt's outstanding batch, never
///   for its next one.
/// * **Complete is idempotent**: any number of times, by anybody, also after a crash in the middle, and it
///   answers [`Completed::Done`] only if the key holds exactly these parts. Before it touches anything it makes sure
///   that no writer of the upload changes a byte any more. That an object exists under the key proves nothing.
/// * **Published bytes never change**, and a key that holds something else is never written over.
/// * **Cancel-safe**: a dropped future or writer abandons the attempt; what it left behind goes with
///   [`discard`](Self::discard).
///
/// `Arc<T>` and `Box<T>` of a store are stores.
#[async_trait]
pub trait BlobStore: fmt::Debug + Send + Sync + 'static {
    /// What the store can do.
    fn limits(&self) -> Limits;

    /// Prepares an upload that will be published under `key`. The handle is nothing until somebody
    /// records it: what nobody recorded is found by [`begun`](Self::begun) and discarded.
    ///
    /// # Errors
    /// [`NoSpace`](crate::ErrorKind::NoSpace) if `plan` says that it cannot fit.
    async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle>;

    /// Claims a slot for writing. Nothing in place changes before the first [`write`](PartWriter::write), so the
    /// caller can look the part up in between.
    async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>>;

    /// As [`open`](Self::open), for the slot at the end of a sequential upload: `before` is what lies before it. For stores that
    /// cut appends otherwise than the engine does, and so build each part on the one before.
    async fn append(&self, handle: &Handle, slot: Slot, before: Before<'_>) -> Result<Box<dyn PartWriter>> {
        let _ = before;
        self.open(handle, slot).await
    }

    /// Where a sequential upload is cheapest cut into parts: at multiples of this many bytes. `None`: anywhere.
    fn step(&self, handle: &Handle) -> Option<u64> {
        let _ = handle;
        None
    }

    /// The bytes of these parts before they are published, to be read back and inspected; `None`
    /// if the store cannot read them before [`complete`](Self::complete).
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), at once or within the body, if one of them is not there as recorded.
    async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>>;

    /// Puts the bytes of `parts` of another upload, one behind the other, into the slot at the end of this one, as one part.
    ///
    /// The other upload was begun as one to be [joined](Plan::to_be_joined).
    /// It is an attempt at that slot like one through [`append`](Self::append): it claims it, a newer claim or a seal supersedes it,
    /// and what it put there is durable on return. Asked again it does the same again. Of the upload `from`, which may be
    /// discarded meanwhile, nothing changes, and nothing that was published does.
    ///
    /// A store that can move bytes where they lie should. What is written here lets them stream through
    /// [`read_parts`](Self::read_parts) and [`append`](Self::append), and compares them with their checksums.
    ///
    /// # Errors
    /// As [`PartWriter::write`]; [`Invalid`](crate::ErrorKind::Invalid) from a store that cannot do it at all, if both uploads are
    /// the same one, or if this one is gone in the store. With these and [`TooLarge`](crate::ErrorKind::TooLarge) the upload fails;
    /// whatever else it is, it is tried again.
    async fn join(
        &self,
        into: &Handle,
        slot: Slot,
        before: Before<'_>,
        from: &Handle,
        parts: &[Part],
    ) -> Result<Joined> {
        if into == from {
            return Err(same_upload());
        }
        let writer = self.append(into, slot, before).await?;
        join::stream(writer, self.read_parts(from, parts).await, parts).await
    }

    /// Makes the blob of these parts, in this order, and publishes it under `key`.
    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed>;

    /// Removes whatever lies under the handle, recorded or not; a blob that was published stays. Succeeds if there is nothing.
    async fn discard(&self, handle: &Handle) -> Result<()>;

    /// Handles that were begun at least `older_than` ago and neither discarded: for the sweep that
    /// finds what nobody recorded.
    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>>;

    /// The blob under `key`, if there is one.
    async fn head(&self, key: &Key) -> Result<Option<Blob>>;

    /// The bytes of the blob under `key` within `range`, whose end is cut at the blob's.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is none; [`Invalid`](crate::ErrorKind::Invalid) if `range`
    /// starts past its end (at the end it is empty).
    async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody>;

    /// Deletes the blob under `key`. Succeeds if there is none.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// Stores a small object whole, in place of what is there: readers see the old one or the new one, never a part of either, and
    /// it is durable on return. For files that a hook made, which are put below a [folder](Self::clear) of their own, and
    /// never where an upload is published. One that was dropped or failed may be done yet: who puts the same key again first waits for it.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) from a store that cannot, as what is written here;
    /// [`Conflict`](crate::ErrorKind::Conflict) if a segment of the key's folder is an object, on a file system.
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        let _ = (key, bytes);
        Err(cannot_put())
    }

    /// Deletes every object whose key begins with `folder/`, durably on return. Succeeds if there is none. What is put
    /// there at the same time may be deleted or stay.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) from a store that cannot [put](Self::put) either, as what is written here.
    async fn clear(&self, folder: &Key) -> Result<()> {
        let _ = folder;
        Err(cannot_put())
    }

    /// Where the blob under `key` lies as a file of this machine, for programs that read files; `None` if it does not, or is not there.
    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        let _ = key;
        None
    }
}

fn cannot_put() -> Error {
    Error::invalid(
        "store",
        "This blob store keeps uploads only; choose one that implements `put` and `clear`",
    )
}

/// Writes one attempt at one part. Dropping it abandons the attempt.
#[async_trait]
pub trait PartWriter: fmt::Debug + Send {
    /// Appends `frames` to the part. The caller batches; a store need not gather them.
    ///
    /// # Errors
    /// [`Superseded`](crate::ErrorKind::Superseded) when a newer attempt claimed the slot or the upload was sealed;
    /// [`TooLarge`](crate::ErrorKind::TooLarge) past [`Slot::max_len`], with nothing of `frames` written;
    /// [`NoSpace`](crate::ErrorKind::NoSpace). After an error the attempt is over.
    async fn write(&mut self, frames: Vec<Bytes>) -> Result<()>;

    /// Makes the part durable.
    ///
    /// # Errors
    /// As [`write`](Self::write). An error of the sync is final for this attempt.
    async fn finish(self: Box<Self>) -> Result<Receipt>;

    /// Appends the last `frames` and makes the part durable: [`write`](Self::write), then [`finish`](Self::finish), which a
    /// store may do in one go.
    ///
    /// # Errors
    /// As both.
    async fn finish_with(mut self: Box<Self>, frames: Vec<Bytes>) -> Result<Receipt> {
        self.write(frames).await?;
        self.finish().await
    }
}

/// The place a part is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slot {
    /// The part's number.
    pub number: u32,
    /// Where the part begins in the blob, in bytes. `None` while that is not known: such a part is kept
    /// aside and put in its place by `complete`.
    pub offset: Option<u64>,
    /// The longest the part may get, in bytes.
    pub max_len: u64,
}

impl Slot {
    /// A slot whose place is known.
    #[must_use]
    pub const fn at(number: u32, offset: u64, max_len: u64) -> Self {
        Self {
            number,
            offset: Some(offset),
            max_len,
        }
    }

    /// A slot whose place is not known yet.
    #[must_use]
    pub const fn aside(number: u32, max_len: u64) -> Self {
        Self {
            number,
            offset: None,
            max_len,
        }
    }
}

/// What lies before the slot at the end of a sequential upload. Nothing, unless said.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Before<'a> {
    /// The receipt of the last part that is committed: it stays whatever becomes of the others.
    pub committed: Option<&'a Receipt>,
    /// The receipt of the last part that was finished since and may never be committed.
    pub finished: Option<&'a Receipt>,
}

impl<'a> Before<'a> {
    /// Behind the first part nothing, behind any other the part that is committed.
    #[must_use]
    pub const fn committed(receipt: Option<&'a Receipt>) -> Self {
        Self {
            committed: receipt,
            finished: None,
        }
    }

    /// And, behind that one, a part that is not committed yet.
    #[must_use]
    pub const fn and_finished(mut self, receipt: Option<&'a Receipt>) -> Self {
        self.finished = receipt;
        self
    }

    /// The receipt of the part just before the slot.
    #[must_use]
    pub fn last(&self) -> Option<&'a Receipt> {
        self.finished.or(self.committed)
    }
}

/// The answer of [`BlobStore::join`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Joined {
    /// The slot holds exactly these bytes, durably.
    Done(Receipt),
    /// These parts are definitely not there as recorded; the slot holds nothing that counts.
    PartsLost(Vec<u32>),
}

/// The answer of [`BlobStore::complete`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completed {
    /// The key holds exactly these parts.
    Done(Blob),
    /// These parts are definitely not there as recorded; nothing was published.
    PartsLost(Vec<u32>),
    /// The key holds something else; nothing was published.
    KeyTaken,
    /// These parts can never become a blob in this store, for the reason that is told; nothing was published. The upload fails with
    /// it: what another attempt could put right is an error instead.
    Refused(String),
}

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Parts lie where the blob will be, so that a late write of an abandoned attempt could do harm.
    /// Such a store belongs to one process; the engine fences its uploads after a restart.
    pub in_place: bool,
    /// The smallest part but the last, in bytes.
    pub min_part: u64,
    /// The largest part, in bytes.
    pub max_part: u64,
    /// The most parts of a blob.
    pub max_parts: u32,
    /// The chunk size to propose for small files, in bytes.
    pub preferred_part: u64,
    /// How long an unfinished upload may lie idle before the backend itself drops it.
    pub max_idle: Option<Duration>,
}

impl Limits {
    /// No bound but those of the numbers themselves; 5 MiB proposed.
    pub const UNBOUNDED: Self = Self {
        in_place: false,
        min_part: 0,
        max_part: u64::MAX,
        max_parts: u32::MAX,
        preferred_part: 5 << 20,
        max_idle: None,
    };
}

/// Bytes `start..end` of a blob; without an end, to the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: Option<u64>,
}

impl ByteRange {
    /// The whole blob.
    pub const ALL: Self = Self { start: 0, end: None };

    /// Bytes `start..end`.
    #[must_use]
    pub const fn new(start: u64, end: Option<u64>) -> Self {
        Self { start, end }
    }
}

macro_rules! through_pointer {
    ($pointer:ident) => {
        #[async_trait]
        impl<T: BlobStore + ?Sized> BlobStore for $pointer<T> {
            fn limits(&self) -> Limits {
                (**self).limits()
            }
            async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle> {
                (**self).begin(id, key, plan).await
            }
            async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
                (**self).open(handle, slot).await
            }
            async fn append(&self, handle: &Handle, slot: Slot, before: Before<'_>) -> Result<Box<dyn PartWriter>> {
                (**self).append(handle, slot, before).await
            }
            fn step(&self, handle: &Handle) -> Option<u64> {
                (**self).step(handle)
            }
            async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> {
                (**self).read_parts(handle, parts).await
            }
            async fn join(
                &self,
                into: &Handle,
                slot: Slot,
                before: Before<'_>,
                from: &Handle,
                parts: &[Part],
            ) -> Result<Joined> {
                (**self).join(into, slot, before, from, parts).await
            }
            async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
                (**self).complete(handle, key, parts).await
            }
            async fn discard(&self, handle: &Handle) -> Result<()> {
                (**self).discard(handle).await
            }
            async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
                (**self).begun(older_than).await
            }
            async fn head(&self, key: &Key) -> Result<Option<Blob>> {
                (**self).head(key).await
            }
            async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> {
                (**self).read(key, range).await
            }
            async fn delete(&self, key: &Key) -> Result<()> {
                (**self).delete(key).await
            }
            async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
                (**self).put(key, bytes).await
            }
            async fn clear(&self, folder: &Key) -> Result<()> {
                (**self).clear(folder).await
            }
            fn local_path(&self, key: &Key) -> Option<PathBuf> {
                (**self).local_path(key)
            }
        }
    };
}

through_pointer!(Arc);
through_pointer!(Box);
