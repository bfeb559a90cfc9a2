//! [`ObjectBlobs`]: blobs as objects, in S3, R2, Google Cloud Storage, Azure or any other store of the `object_store` crate.
//!
//! Where the store has multipart uploads, an upload is one from its beginning: what clients send becomes its parts, and the
//! blob is made of them where they lie. Chunks that cannot be parts (too small, or of unknown place) and the end of an append that
//! is shorter than a part are objects of their own until then. So are all chunks where the store has multipart uploads only
//! to write one object with, and where it has none: there a blob must fit into memory ([`ObjectOptions::staged`]).
//!
//! ```text
//! <prefix>/<key>                              a published blob
//! <prefix>/.uploads/<id>.<nonce>/begin        that an upload was begun: its handle
//! <prefix>/.uploads/<id>.<nonce>/<name>       bytes that are not a part yet; each name is written once
//! <prefix>/.uploads/clock                     tells what the backend's clock says
//! ```
//!
//! Several processes may share a bucket. What one of them put too late is told by its receipt: the backend checks the entity tag of
//! every part when the object is made.

mod backend;
mod claims;
mod complete;
mod join;
mod memory;
mod options;
mod orphans;
mod pieces;
mod place;
mod proof;
mod publish;
mod read;
#[cfg(any(feature = "aws", feature = "gcp"))]
mod signed;
mod steps;
mod sweep;
#[cfg(all(test, feature = "conformance"))]
mod tests;
mod trouble;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
mod url;
mod writer;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{ObjectStore, multipart::MultipartStore};

use self::{
    backend::Backend,
    claims::Registry,
    memory::Memory,
    place::{Cut, Paths, Place, Stored},
    steps::StepWriter,
    writer::ChunkWriter,
};
use crate::{
    blob::{
        Before, BlobBody, BlobStore, ByteRange, Completed, Joined, Limits, PartWriter, Slot,
        join::stream as stream_join, same_upload,
    },
    error::{Error, ErrorKind, Result},
    upload::{Blob, Handle, Key, Part, Plan, UploadId},
};

pub use options::{ObjectOptions, PartBounds};

/// Blobs as objects, in S3, R2, Google Cloud Storage, Azure or any other store of the `object_store` crate.
///
/// ```no_run
/// # #[cfg(feature = "aws")]
/// # fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_upload::blob::ObjectBlobs;
///
/// // Credentials, region and endpoint come from the environment, as `AWS_ACCESS_KEY_ID` and others.
/// let blobs = ObjectBlobs::from_url("s3://my-bucket/media")?;
/// # Ok(()) }
/// ```
///
/// What was acknowledged is as durable as the store makes it. A rule of the bucket that ends unfinished multipart uploads some days
/// after they began (more than an upload may take from its creation to its end) is a good thing to have in any case.
#[derive(Clone)]
pub struct ObjectBlobs {
    shared: Arc<Shared>,
}

/// What all clones share.
struct Shared {
    backend: Backend,
    options: ObjectOptions,
    paths: Paths,
    memory: Memory,
    registry: Registry,
    /// Handles as their marks say, by directory: so that a sweep need not read them again.
    begun: Mutex<HashMap<String, sweep::Begun>>,
    /// Multipart uploads that no mark speaks of, and when this process saw each first.
    strays: Mutex<HashMap<String, i64>>,
    /// Begins the names of this process.
    nonce: u64,
    names: AtomicU64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
}

impl Counters {
    fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    /// A name that no other attempt has, in any process.
    fn name(&self) -> String {
        format!("{:016x}{:x}", self.nonce, self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// The bytes of parts, where all are staged; what is read is reserved in `memory`.
    fn read_parts(&self, handle: &Handle, parts: &[Part], memory: Option<Memory>) -> Result<Option<BlobBody>> {
        let place = Place::parse(handle)?;
        let is_cut = matches!(place.native.as_ref().map(|native| native.cut), Some(Cut::Steps { .. }));
        let stored: Option<Vec<Stored>> = parts.iter().map(Stored::of).collect();
        let stored = stored.ok_or_else(|| Error::new(ErrorKind::NotFound, "A part is not there as recorded"))?;
        if is_cut || stored.iter().any(|stored| !stored.puts.is_empty()) {
            return Ok(None);
        }
        let pieces = stored.into_iter().flat_map(|stored| stored.pieces).collect();
        Ok(Some(self.stream_pieces(&place, pieces, memory)))
    }
}

impl ObjectBlobs {
    /// On any store, with the default [options](ObjectOptions): see [`ObjectOptions::staged`].
    ///
    /// # Errors
    /// None with these options.
    pub fn new(store: Arc<dyn ObjectStore>) -> Result<Self> {
        ObjectOptions::default().staged(store)
    }

    /// On a store with multipart uploads, with the default options: see [`ObjectOptions::native`].
    ///
    /// # Errors
    /// None with these options.
    pub fn native<T: ObjectStore + MultipartStore>(store: T) -> Result<Self> {
        ObjectOptions::default().native(store)
    }

    fn over(backend: Backend, options: ObjectOptions) -> Result<Self> {
        options.check()?;
        let paths = Paths::new(&options.prefix, options.staging.as_deref())?;
        let shared = Shared {
            memory: Memory::new(options.memory, options.temporary_files.clone()),
            nonce: getrandom::u64().map_err(|error| Error::internal("No random bytes").with_source(error))?,
            backend,
            options,
            paths,
            registry: Registry::default(),
            begun: Mutex::default(),
            strays: Mutex::default(),
            names: AtomicU64::new(0),
            counters: Counters::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// How many bytes of uploads were sent to the store since this was made, each as often as it was sent.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.shared.counters.sent.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for ObjectBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectBlobs")
            .field("backend", &self.shared.backend)
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for ObjectBlobs {
    fn limits(&self) -> Limits {
        let options = &self.shared.options;
        Limits {
            in_place: false,
            // What is smaller than the backend's parts is staged, and as many as there are.
            min_part: 0,
            max_part: options.parts.max,
            max_parts: u32::MAX,
            preferred_part: options.part_size,
            max_idle: options.max_idle,
        }
    }

    async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle> {
        let (shared, options) = (&self.shared, &self.shared.options);
        let path = shared.paths.blob(key)?;
        let native = shared.backend.is_native() && !plan.joined && plan.size != Some(0);
        let step = options.parts.step(options.part_size, plan.size);
        let cut = if native { Cut::of(plan, step) } else { None };
        shared.begin(id, &path, cut).await
    }

    async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
        self.append(handle, slot, Before::default()).await
    }

    async fn append(&self, handle: &Handle, slot: Slot, before: Before<'_>) -> Result<Box<dyn PartWriter>> {
        let shared = Arc::clone(&self.shared);
        let place = Place::parse(handle)?;
        let entry = shared.registry.entry(&place.dir);
        match place.native.clone().map(|native| (native.cut, native)) {
            Some((Cut::Steps { step, size }, native)) => {
                // One writer at the end, whatever number its part has: parts of the backend reach over several.
                let claim = entry.claim(0).await?;
                let native = (native, step, size);
                Ok(Box::new(StepWriter::new(shared, place, native, claim, slot, before)?))
            }
            _ => {
                let claim = entry.claim(slot.number).await?;
                Ok(Box::new(ChunkWriter::new(shared, place, claim, slot)))
            }
        }
    }

    fn step(&self, handle: &Handle) -> Option<u64> {
        match Place::parse(handle).ok()?.native?.cut {
            Cut::Steps { step, .. } => Some(step),
            Cut::Chunks(_) => None,
        }
    }

    async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> {
        self.shared.read_parts(handle, parts, None)
    }

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
        let place = Place::parse(into)?;
        // Held from before, so that it is the one that learns what the backend has dropped.
        let entry = self.shared.registry.entry(&place.dir);
        let joined = async {
            if let Some(joined) = self.shared.join_by_copies(into, slot, before, from, parts).await? {
                return Ok(joined);
            }
            let writer = self.append(into, slot, before).await?;
            let body = self.shared.read_parts(from, parts, Some(self.shared.memory.clone()));
            stream_join(writer, body, parts).await
        };
        match joined.await {
            Err(error) if entry.is_dropped() => Err(self.shared.never_joined(&place, error).await),
            joined => joined,
        }
    }

    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        self.shared.complete(handle, key, parts).await
    }

    async fn discard(&self, handle: &Handle) -> Result<()> {
        self.shared.discard(handle).await
    }

    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        self.shared.begun(older_than).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Blob>> {
        let found = self.shared.backend.head(&self.shared.paths.blob(key)?).await?;
        Ok(found.as_ref().map(proof::blob))
    }

    async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> {
        self.shared.read(self.shared.paths.blob(key)?, range).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let path = self.shared.paths.blob(key)?;
        Ok(self.shared.backend.delete(vec![path]).await?)
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        let (shared, path) = (&self.shared, self.shared.paths.blob(key)?);
        shared.counters.sent(bytes.len() as u64);
        shared.backend.put(&path, &[bytes]).await?;
        Ok(())
    }

    async fn clear(&self, folder: &Key) -> Result<()> {
        let (shared, path) = (&self.shared, self.shared.paths.blob(folder)?);
        let listed = shared.backend.list(&path).await?;
        // The object under the very key is not below it.
        let below: Vec<_> = listed.into_iter().map(|meta| meta.location).collect();
        let below: Vec<_> = below.into_iter().filter(|at| *at != path).collect();
        for some in below.chunks(1000) {
            shared.backend.delete(some.to_vec()).await?;
        }
        Ok(())
    }
}
