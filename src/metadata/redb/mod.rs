//! [`RedbMetadata`]: metadata in one embedded file.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use self::{
    commit::{Committer, Shared, read_error},
    file::Place,
    tables::{Fault, Tables, View},
};
use super::{Committed, Created, Guard, Lookup, MetadataStore, Page, PartRange, PartsEdit, Quota, Unfinished, Updated};
use crate::{
    engine::{Clock, SystemClock},
    error::{Error, Result},
    upload::{Owner, Part, Record, Snapshot, UploadId, Version, Wake},
};

mod clock;
mod commit;
mod encoding;
mod file;
mod near;
mod ops;
mod tables;
#[cfg(test)]
mod tests;

/// Metadata in one file, by [redb](https://docs.rs/redb): the default store.
///
/// One process per file: [`open`](Self::open) waits for the lock, then names the holder, which leaves its
/// number in `<path>.pid` beside the file. Needs a Tokio runtime of either flavour, whose blocking pool
/// does the reading; on Linux and a runtime of many threads an upload whose pages are in memory is read where it is
/// asked for. The file begins at 72 KiB and doubles when it is full; on Linux its blocks are
/// allocated as it grows.
///
/// # Writing
/// One thread of its own writes. It takes what is queued, up to
/// [`max_batch`](RedbOptions::with_max_batch) operations, applies them in one transaction, each
/// seeing the ones before it, makes that durable with one sync, and then answers each by itself.
///
/// # What it costs
/// By `cargo bench --bench metadata` (2 cores, ext4 on a virtual disk whose sync takes about 0.2 ms;
/// on other disks the sync is most of a commit). Latencies are medians of one writer, two uploads in turn.
///
/// | measured | default | quick repair | durability none |
/// | --- | --- | --- | --- |
/// | syncs per commit | 1 | 2 | 0 |
/// | part commits/s, 1 writer | 3,400 | 2,000 | 8,500 |
/// | part commits/s, 64 writers | 39,000 | 33,000 | 76,000 |
/// | commit of part 100 | 302 µs | 463 µs | 118 µs |
/// | commit of part 10,000 | 297 µs | 461 µs | 119 µs |
/// | opening 100,000 uploads (136 MiB) after kill -9 | 965 ms | 1 ms | |
/// | opening them after a close | 0.9 ms | | |
///
/// # When the disk fails
/// After a failed sync nobody knows what the disk has, so nothing is tried again: every later call
/// answers [`Unavailable`](crate::ErrorKind::Unavailable) until somebody opens the file anew, which reads
/// what the disk has. A full disk is no such failure: the call answers
/// [`NoSpace`](crate::ErrorKind::NoSpace), nothing was stored, and the store goes on when there is room again.
///
/// # When the clock is wrong
/// A clock that is put right while the process runs changes nothing for it. When the file is opened by a clock that is far from where the last
/// process left it, open uploads that would have expired in between have what they had left then, an hour at most; and where the clock
/// is behind now, no upload lives longer than its time from now on, and events and cleaning up do not wait for it. For that the
/// file is told what time it is once a minute, with the next write or by one of its own.
///
/// # Closing
/// Dropping the store finishes what is queued and closes the file; that takes about as long as a commit.
/// [`close`](Self::close) does the same without blocking the runtime.
pub struct RedbMetadata {
    committer: Committer,
    shared: Arc<Shared>,
}

/// How a [`RedbMetadata`] is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedbOptions {
    lock_wait: Duration,
    durability: Durability,
    quick_repair: bool,
    cache_bytes: usize,
    max_batch: usize,
    clock: Arc<dyn Clock>,
}

/// What an answered write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Loss of power: the file is synced before the answer.
    #[default]
    Immediate,
    /// The end of the process, kill -9 included, but NOT loss of power, which may even damage the file.
    /// The system writes when it likes; the file is synced when it is closed.
    None,
}

impl Default for RedbOptions {
    /// Five seconds for the lock, [`Durability::Immediate`], no quick repair, 16 MiB of cache, batches of
    /// 256, the machine's clock.
    fn default() -> Self {
        Self {
            lock_wait: Duration::from_secs(5),
            durability: Durability::Immediate,
            quick_repair: false,
            cache_bytes: 16 << 20,
            max_batch: 256,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

impl RedbOptions {
    /// How long to wait for another process to let go of the file.
    #[must_use]
    pub const fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// What an answered write survives.
    #[must_use]
    pub const fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether each commit also writes what makes opening after a crash quick, for one more sync.
    #[must_use]
    pub const fn with_quick_repair(mut self, on: bool) -> Self {
        self.quick_repair = on;
        self
    }

    /// How much of the file to keep in memory, in bytes.
    #[must_use]
    pub const fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// How many operations may share one sync, at least 1.
    #[must_use]
    pub const fn with_max_batch(mut self, operations: usize) -> Self {
        self.max_batch = operations;
        self
    }

    /// The clock that sets the times of records.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens or creates the file at `path`; its directory must exist.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if another process holds the file (the message names
    /// file and holder) or it cannot be read, [`NoSpace`](crate::ErrorKind::NoSpace),
    /// [`Internal`](crate::ErrorKind::Internal) if it is damaged, something else, or of a newer format.
    pub async fn open(self, path: impl Into<PathBuf>) -> Result<RedbMetadata> {
        let path = path.into();
        blocking(move || RedbMetadata::start(Place::file(path, self))).await
    }
}

impl RedbMetadata {
    /// Opens or creates the file at `path` with the default options. See [`RedbOptions::open`].
    ///
    /// # Errors
    /// As [`RedbOptions::open`].
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        RedbOptions::default().open(path).await
    }

    /// Finishes what is queued and closes the file, so that another process can open it.
    pub async fn close(self) {
        let Self { mut committer, .. } = self;
        let _ = blocking(move || {
            committer.stop();
            Ok(())
        })
        .await;
    }

    fn start(place: Place) -> Result<Self> {
        let opened = place.open()?;
        let shared = Arc::new(Shared::new(place, opened));
        let committer = Committer::spawn(Arc::clone(&shared))?;
        Ok(Self { committer, shared })
    }

    async fn read<T, F>(&self, read: F) -> Result<T>
    where
        F: FnOnce(&View) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        if self.shared.is_full() {
            self.committer.write(|_, _| Ok(())).await?;
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || read(&shared.view()?).map_err(read_error)).await
    }

    /// What a short read on this thread finds, if it may be done here and is short.
    #[allow(clippy::option_option, reason = "whether it was read, and whether there is one")]
    fn load_near(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Option<Snapshot>>> {
        let loaded = self.shared.place().near().run(|| match self.shared.view_at_once()? {
            Some(view) => ops::load_few(&view, by, parts, near::FEW).map_err(read_error),
            None => Ok(None),
        });
        loaded.unwrap_or(Ok(None))
    }
}

impl fmt::Debug for RedbMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbMetadata")
            .field("path", &self.shared.place().path())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl MetadataStore for RedbMetadata {
    async fn create(&self, new: &Record, first: &[Part], quota: &Quota, wake: Wake) -> Result<Created> {
        let (new, first, quota) = (new.clone(), first.to_vec(), *quota);
        let create = move |tables: &mut Tables<'_>, now| ops::create(tables, now, new, &first, quota, wake);
        self.committer.write(create).await
    }

    async fn load(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>> {
        if let Some(loaded) = self.load_near(by, parts)? {
            return Ok(loaded);
        }
        match by {
            Lookup::Id(id) => self.read(move |view| ops::load(view, Lookup::Id(id), parts)).await,
            Lookup::Name(owner, target, file_name) => {
                let (owner, target, file_name) = (owner.clone(), target.cloned(), file_name.clone());
                let load = move |view: &View| ops::load(view, Lookup::Name(&owner, target.as_ref(), &file_name), parts);
                self.read(load).await
            }
        }
    }

    async fn commit(&self, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed> {
        let (guard, parts) = (guard.clone(), parts.to_vec());
        let commit = move |tables: &mut Tables<'_>, now| ops::commit(tables, now, id, &guard, &parts);
        self.committer.write(commit).await
    }

    async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Updated> {
        let next = next.clone();
        let update = move |tables: &mut Tables<'_>, now| ops::update(tables, now, next, &edit, wake);
        self.committer.write(update).await
    }

    async fn due(&self, lease: Duration, limit: usize) -> Result<Vec<Record>> {
        let due = move |tables: &mut Tables<'_>, now| ops::due(tables, now, lease, limit);
        self.committer.write(due).await
    }

    async fn list(&self, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>> {
        let owner = owner.cloned();
        self.read(move |view| ops::list(view, owner.as_ref(), page)).await
    }

    async fn remove(&self, id: UploadId, expected: Version) -> Result<bool> {
        let remove = move |tables: &mut Tables<'_>, _| ops::remove(tables, id, expected);
        self.committer.write(remove).await
    }

    async fn unfinished(&self) -> Result<Option<Unfinished>> {
        self.read(ops::unfinished).await
    }
}

/// Runs what blocks on the runtime's pool for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::unavailable("The runtime is shutting down, or reading panicked").with_source(error)),
    }
}
