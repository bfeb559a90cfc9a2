//! [`Disk`]: the store on any file system.

use std::{
    collections::{HashMap, HashSet},
    io::ErrorKind,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex as JobLock;

use super::{
    DiskOptions, Durability,
    claims::{Registry, lock},
    fs::{Fs, Open},
    place::{self, blob, handle, owner_of, parse_handle, partial},
    space::Space,
    writer::Writer,
};
use crate::{
    blob::{Before, BlobBody, BlobStore, ByteRange, Completed, Joined, Limits, PartWriter, Slot},
    error::Result,
    planted::{Bug, planted},
    upload::{Blob, Handle, Key, Part, Plan, Timestamp, UploadId},
};

/// The store on any file system.
#[derive(Clone, Debug)]
pub(crate) struct Disk<F: Fs> {
    shared: Arc<Shared<F>>,
}

impl<F: Fs> Disk<F> {
    /// A store on `fs`, whose directory is this store's alone.
    pub(crate) async fn on(fs: F, options: &DiskOptions) -> Result<Self> {
        let sync = options.durability == Durability::Ack;
        let shared = Shared {
            fs,
            sync,
            space: Space::new(options.overcommit),
            registry: Arc::default(),
            copied: AtomicU64::new(0),
            making_folders: Arc::default(),
            folders: Mutex::default(),
            deleting: Mutex::default(),
        };
        let store = Self {
            shared: Arc::new(shared),
        };
        let shared = Arc::clone(&store.shared);
        let job = async move {
            let root = shared.fs.open(".".into(), Open::Directory).await?;
            let mut made = Vec::new();
            for folder in ["partial", "blobs"] {
                // An empty one is made anew: its name may be what an earlier sync failed for, and a sync proves only changes
                // that were made since.
                match shared.fs.rmdir(folder.into()).await {
                    Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                        return Err(error.into());
                    }
                    _ => {}
                }
                match shared.fs.mkdir(folder.into()).await {
                    Ok(()) => made.push(folder),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if let Err(error) = shared.sync_directory(&root).await {
                // Made anew the next time, they are a change that a sync can fail for.
                for folder in made {
                    match shared.fs.rmdir(folder.into()).await {
                        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                            return Err(error.into());
                        }
                        _ => {}
                    }
                }
                return Err(error.into());
            }
            shared.forget_puts().await
        };
        store.shared.fs.run(job).await?;
        Ok(store)
    }

    pub(crate) fn copied_bytes(&self) -> u64 {
        self.shared.copied.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl<F: Fs> Disk<F> {
    /// Uploads that take memory for claims or seals.
    pub(crate) fn known_uploads(&self) -> usize {
        self.shared.registry.len()
    }

    /// Bytes that are declared and not written.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.shared.space.reserved()
    }
}

/// What the store and its jobs share.
#[derive(Debug)]
pub(super) struct Shared<F: Fs> {
    pub(super) fs: F,
    pub(super) sync: bool,
    pub(super) space: Arc<Space>,
    pub(super) registry: Arc<Registry>,
    pub(super) copied: AtomicU64,
    /// Held while directories for keys are made.
    pub(super) making_folders: Arc<JobLock<()>>,
    pub(super) folders: Mutex<Folders>,
    /// Deletions under way, by path.
    deleting: Mutex<HashMap<String, Arc<JobLock<()>>>>,
}

/// Directories for keys, of which this process knows something.
#[derive(Debug, Default)]
pub(super) struct Folders {
    pub(super) durable: HashSet<String>,
    /// A sync of the name failed, and another sync proves nothing.
    pub(super) doubtful: HashSet<String>,
}

impl<F: Fs> Shared<F> {
    /// Makes the names in a directory durable.
    pub(super) async fn sync_directory(&self, directory: &F::File) -> std::io::Result<()> {
        if !self.sync || planted(Bug::NoDirectoryFsync) {
            return Ok(());
        }
        self.fs.sync(directory).await
    }

    async fn begin(self: Arc<Self>, id: UploadId, size: u64) -> Result<Handle> {
        let free = if size > 0 && self.space.is_bounded() {
            let shared = Arc::clone(&self);
            self.fs.run(async move { Ok(shared.fs.free().await?) }).await?
        } else {
            u64::MAX
        };
        let reservation = self.space.reserve(id, size, free)?;
        let shared = Arc::clone(&self);
        let job = async move {
            let directory = shared.fs.open("partial".into(), Open::Directory).await?;
            shared.fs.open(partial(id), Open::New).await?;
            if let Err(error) = shared.sync_directory(&directory).await {
                // Nobody knows it; what this leaves behind the sweep finds.
                let _ = shared.fs.unlink(partial(id)).await;
                return Err(error.into());
            }
            reservation.keep();
            Ok(handle(id))
        };
        self.fs.run(job).await
    }

    async fn begun(self: Arc<Self>, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        let shared = Arc::clone(&self);
        let job = async move {
            let now = shared.fs.now();
            let mut last: HashMap<UploadId, Timestamp> = HashMap::new();
            for (name, modified) in shared.fs.list("partial".into(), String::new()).await? {
                if let Some(id) = owner_of(&name) {
                    let last = last.entry(id).or_default();
                    *last = modified.max(*last);
                }
            }
            let old = last.into_iter().filter(|(_, last)| now.since(*last) >= older_than);
            let mut found: Vec<_> = old.map(|(id, _)| (id, handle(id))).collect();
            found.sort_unstable_by_key(|(id, _)| *id);
            Ok(found)
        };
        self.fs.run(job).await
    }

    async fn delete(self: Arc<Self>, key: &Key) -> Result<()> {
        let path = blob(key);
        let turns = {
            let mut deleting = lock(&self.deleting);
            deleting.retain(|_, turns| Arc::strong_count(turns) > 1);
            Arc::clone(deleting.entry(path.clone()).or_default())
        };
        // A job goes on after its caller gave up. Who is told that the blob is gone relies on it that no older one deletes another
        // blob of that key later.
        let turn = turns.lock_owned().await;
        let shared = Arc::clone(&self);
        let job = async move {
            let _turn = turn;
            let absent = |error: &std::io::Error| {
                matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory | std::io::ErrorKind::IsADirectory
                )
            };
            let directory = match shared.fs.open(place::folder(&path), Open::Directory).await {
                Err(error) if absent(&error) => return Ok(()),
                result => result?,
            };
            match shared.fs.unlink(path.clone()).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // Whoever removed it may have died before the sync, or seen it fail, and a sync proves only changes
                    // that were made since: so it is removed once more.
                    drop(shared.fs.open(path.clone(), Open::New).await?);
                    shared.fs.unlink(path).await?;
                }
                Err(error) if !absent(&error) => return Err(error.into()),
                _ => {}
            }
            Ok(shared.sync_directory(&directory).await?)
        };
        self.fs.run(job).await
    }
}

#[async_trait]
impl<F: Fs> BlobStore for Disk<F> {
    fn limits(&self) -> Limits {
        Limits {
            in_place: true,
            ..Limits::UNBOUNDED
        }
    }

    async fn begin(&self, id: UploadId, _: &Key, plan: &Plan) -> Result<Handle> {
        Arc::clone(&self.shared).begin(id, plan.size.unwrap_or(0)).await
    }

    async fn open(&self, handle: &Handle, slot: Slot) -> Result<Box<dyn PartWriter>> {
        let id = parse_handle(handle)?;
        let claim = self.shared.registry.entry(id).claim(slot).await?;
        Ok(Box::new(Writer::new(Arc::clone(&self.shared), id, claim, slot)))
    }

    async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> {
        let id = parse_handle(handle)?;
        Arc::clone(&self.shared).read_parts(id, parts).map(Some)
    }

    async fn join(&self, into: &Handle, slot: Slot, _: Before<'_>, from: &Handle, parts: &[Part]) -> Result<Joined> {
        let (id, from) = (parse_handle(into)?, parse_handle(from)?);
        self.shared.join(id, slot, from, parts).await
    }

    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        let id = parse_handle(handle)?;
        Arc::clone(&self.shared).complete(id, key, parts).await
    }

    async fn discard(&self, handle: &Handle) -> Result<()> {
        let id = parse_handle(handle)?;
        Arc::clone(&self.shared).discard(id).await
    }

    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        Arc::clone(&self.shared).begun(older_than).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Blob>> {
        Arc::clone(&self.shared).head(key).await
    }

    async fn read(&self, key: &Key, range: ByteRange) -> Result<BlobBody> {
        Arc::clone(&self.shared).read(key, range).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        Arc::clone(&self.shared).delete(key).await
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        Arc::clone(&self.shared).put(key, bytes).await
    }

    async fn clear(&self, folder: &Key) -> Result<()> {
        Arc::clone(&self.shared).clear(folder).await
    }

    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        self.shared.fs.local_path(&blob(key))
    }
}
