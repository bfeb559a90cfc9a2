use std::{path::PathBuf, sync::Arc, time::Duration};

use object_store::{ObjectStore, multipart::MultipartStore};

use super::{ObjectBlobs, backend::Backend};
use crate::error::{Error, Result};

const MIB: u64 = 1 << 20;

/// How [`ObjectBlobs`] keeps its objects.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ObjectOptions {
    pub(super) prefix: String,
    pub(super) staging: Option<String>,
    pub(super) part_size: u64,
    pub(super) parts: PartBounds,
    pub(super) memory: u64,
    pub(super) temporary_files: Option<PathBuf>,
    pub(super) request_timeout: Duration,
    pub(super) slowest: u64,
    pub(super) max_idle: Option<Duration>,
    pub(super) sole_use: Option<bool>,
    pub(super) orphan_age: Duration,
    /// How much of a blob one request asks for at most, in bytes: little beside what the timeout of a client leaves time for at a
    /// common pace, much beside what would come while a request waits for its first byte.
    pub(super) read_step: u64,
    /// The backend ends a multipart upload when it is told to.
    pub(super) aborts: bool,
}

/// What the backend takes as a part of a multipart upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartBounds {
    /// The smallest part but the last, in bytes.
    pub min: u64,
    /// The largest part, in bytes.
    pub max: u64,
    /// The most parts of an object.
    pub count: u32,
    /// All parts but the last must have the same length.
    pub equal: bool,
}

impl PartBounds {
    /// Those of S3, and of Google Cloud Storage: 5 MiB to 5 GiB, 10,000 parts.
    pub const S3: Self = Self::new(5 * MIB, 5 << 30, 10_000);
    /// Those of Azure: at most 4,000 MiB, 50,000 blocks.
    pub const AZURE: Self = Self::new(1, 4000 * MIB, 50_000);

    /// Parts of `min` to `max` bytes, `count` of them at most, each as long as it likes.
    #[must_use]
    pub const fn new(min: u64, max: u64, count: u32) -> Self {
        Self {
            min,
            max,
            count,
            equal: false,
        }
    }

    /// All parts but the last must have the same length: R2.
    #[must_use]
    pub const fn equal(mut self) -> Self {
        self.equal = true;
        self
    }

    /// The length of equal parts for `size` bytes: `wanted`, or as much more as it takes to need no more parts than there may be.
    pub(super) fn step(&self, wanted: u64, size: Option<u64>) -> u64 {
        let fewest = size.unwrap_or(0).div_ceil(u64::from(self.count.max(1)));
        let needed = if fewest > wanted {
            fewest.div_ceil(MIB).saturating_mul(MIB)
        } else {
            wanted
        };
        needed.clamp(self.min.max(1), self.max)
    }

    /// Whether chunks of `chunk` bytes, `chunks` of them, can be the parts as they are.
    pub(super) const fn fit(&self, chunk: u64, chunks: u32) -> bool {
        chunk <= self.max && (chunks <= 1 || chunk >= self.min) && chunks <= self.count
    }
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            staging: None,
            part_size: 8 * MIB,
            parts: PartBounds::S3,
            memory: 64 * MIB,
            temporary_files: None,
            request_timeout: Duration::from_secs(60),
            slowest: 128 << 10,
            max_idle: None,
            sole_use: None,
            orphan_age: Duration::from_secs(24 * 3600),
            read_step: 32 * MIB,
            aborts: true,
        }
    }
}

impl ObjectOptions {
    /// Where keys begin: all lies beneath `prefix`, as in `media/uploads`. At the bucket's root if not said.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Where unfinished uploads lie: `.uploads` beneath the prefix if not said, where no key can be.
    #[must_use]
    pub fn with_staging(mut self, prefix: impl Into<String>) -> Self {
        self.staging = Some(prefix.into());
        self
    }

    /// The size of the parts that the store cuts itself, in bytes; 8 MiB if not said. Files whose size is known and that would
    /// have too many such parts get larger ones. It is also the chunk size that is proposed to clients.
    #[must_use]
    pub const fn with_part_size(mut self, bytes: u64) -> Self {
        self.part_size = bytes;
        self
    }

    /// What the backend takes as a part; [`PartBounds::S3`] if not said.
    #[must_use]
    pub const fn with_parts(mut self, bounds: PartBounds) -> Self {
        self.parts = bounds;
        self
    }

    /// The bytes of parts that may be in memory at once, or one part, if that is larger; 64 MiB if not said. It comes on top of the
    /// engine's own [budget](crate::Builder::memory_budget), which has a body's bytes until the store takes them. What finds no
    /// room goes through temporary files.
    #[must_use]
    pub const fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Where those temporary files lie; in the system's directory for them if not said.
    #[must_use]
    pub fn with_temporary_files(mut self, directory: impl Into<PathBuf>) -> Self {
        self.temporary_files = Some(directory.into());
        self
    }

    /// How long a request may take, with its retries and besides what its bytes take; a minute if not said. The client within
    /// the store has a timeout of its own, 30 seconds by default with the body: give it time for a part. (Blobs are read by several
    /// requests, and what is left of one that ran out of time is asked for anew.)
    #[must_use]
    pub const fn with_request_timeout(mut self, time: Duration) -> Self {
        self.request_timeout = time;
        self
    }

    /// The slowest that bytes may be on their way, in bytes for each second; 128 KiB if not said.
    #[must_use]
    pub const fn with_slowest(mut self, bytes_per_second: u64) -> Self {
        self.slowest = bytes_per_second;
        self
    }

    /// How long the backend keeps an unfinished upload that lies idle, where a rule of the bucket drops it.
    #[must_use]
    pub const fn with_max_idle(mut self, time: Duration) -> Self {
        self.max_idle = Some(time);
        self
    }

    /// Whether all multipart uploads beneath the prefix are this store's, so that it may abort those that nothing
    /// speaks of: a crash can leave such. If not said: when there is a prefix.
    #[must_use]
    pub const fn with_sole_use(mut self, sole: bool) -> Self {
        self.sole_use = Some(sole);
        self
    }

    /// How old such a multipart upload must be; a day if not said.
    #[must_use]
    pub const fn with_orphan_age(mut self, age: Duration) -> Self {
        self.orphan_age = age;
        self
    }

    /// On any store: every part is an object of its own, and the blob is made by sending all bytes once more.
    ///
    /// Where the store has no multipart uploads at all (`object_store`'s `HttpStore`), a blob is made by one request from memory. What is
    /// larger than [`with_memory`](Self::with_memory) says cannot be one there: such an upload fails when it is complete, with a reason that
    /// names the bound. One of these at a time is in memory, besides what is being received.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for options that contradict each other.
    pub fn staged(self, store: Arc<dyn ObjectStore>) -> Result<ObjectBlobs> {
        ObjectBlobs::over(Backend::new(store, None, &self), self)
    }

    /// On a store with multipart uploads: parts are what clients send, as far as the backend takes them, and the blob is made
    /// of them where they lie.
    ///
    /// The store must refuse to complete with a part id that is not the last one given for its number, or keep every part it gave an
    /// id for. (`object_store`'s own `InMemory` does neither: use [`staged`](Self::staged).)
    ///
    /// Where entity tags are not the MD5 of the bytes (S3 with SSE-KMS or SSE-C), nothing tells that a part which an abandoned
    /// request put late has the same bytes as the one that was acknowledged: a numbered chunk is named as missing then and must be
    /// sent again, an upload of appends fails. Have the client of S3 keep checksums of parts there
    /// (`AWS_CHECKSUM_ALGORITHM=sha256` or `crc64nvme`), which tell it, or choose [`staged`](Self::staged).
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for options that contradict each other.
    pub fn native<T: ObjectStore + MultipartStore>(self, store: T) -> Result<ObjectBlobs> {
        let store = Arc::new(store);
        ObjectBlobs::over(Backend::new(store.clone(), Some(store), &self), self)
    }

    /// On S3, R2 and what else speaks S3.
    ///
    /// # Errors
    /// As [`native`](Self::native).
    #[cfg(feature = "aws")]
    pub fn s3(self, store: object_store::aws::AmazonS3) -> Result<ObjectBlobs> {
        // There is no other way to ask.
        let name = store.to_string();
        let bucket = name.strip_prefix("AmazonS3(").and_then(|name| name.strip_suffix(')'));
        let bucket = bucket.unwrap_or_default().to_owned();
        let store = Arc::new(store);
        let backend = Backend::new(store.clone(), Some(store.clone()), &self).copying(store, bucket);
        ObjectBlobs::over(backend, self)
    }

    /// On Google Cloud Storage.
    ///
    /// # Errors
    /// As [`native`](Self::native).
    #[cfg(feature = "gcp")]
    pub fn gcs(self, store: object_store::gcp::GoogleCloudStorage) -> Result<ObjectBlobs> {
        let store = Arc::new(store);
        let backend = Backend::new(store.clone(), Some(store.clone()), &self).listing(store);
        ObjectBlobs::over(backend, self)
    }

    /// On Azure Blob Storage, which drops what is unfinished after a week: let uploads expire before that.
    ///
    /// # Errors
    /// As [`native`](Self::native).
    #[cfg(feature = "azure")]
    pub fn azure(mut self, store: object_store::azure::MicrosoftAzure) -> Result<ObjectBlobs> {
        if self.parts == PartBounds::S3 {
            self.parts = PartBounds::AZURE;
        }
        self.aborts = false;
        self.max_idle.get_or_insert(Duration::from_secs(7 * 24 * 3600));
        self.native(store)
    }

    pub(super) fn check(&self) -> Result<()> {
        let PartBounds { min, max, count, .. } = self.parts;
        if min > max || count == 0 || !(min.max(1)..=max).contains(&self.part_size) {
            let message = format!(
                "Parts of {} bytes are none that the backend takes: {min} to {max} bytes",
                self.part_size
            );
            return Err(Error::invalid("part_size", message));
        }
        if self.slowest == 0 {
            return Err(Error::invalid("slowest", "Bytes must come at some rate"));
        }
        Ok(())
    }
}
