//! The file beneath: who holds it, what its syncs say, and whether this release reads it.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ::redb::{
    BackendError, Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, TableError, backends::FileBackend,
};

use super::{
    Durability, RedbOptions,
    near::Near,
    tables::{FORMAT, FORMAT_KEY, META, Tables},
};
use crate::error::{Error, ErrorKind, Result};

/// How long a waiting open sleeps between two tries.
const LOCK_POLL: Duration = Duration::from_millis(25);

/// What a database lies on.
#[derive(Debug)]
pub(super) struct Medium {
    pub(super) backend: Box<dyn StorageBackend>,
    /// The same file once more, where there is one.
    pub(super) file: Option<File>,
}

/// Opens the medium anew, each time with a file description of its own.
type Opener = Arc<dyn Fn() -> io::Result<Medium> + Send + Sync>;

/// Where a database lies and how it is opened, as often as it must be.
pub(super) struct Place {
    path: PathBuf,
    opener: Opener,
    options: RedbOptions,
    near: Arc<Near>,
}

/// An open database and what became of its syncs.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) database: Database,
    sync_failed: Arc<AtomicBool>,
    pid_file: Option<PathBuf>,
}

impl Opened {
    /// Whether a sync failed: then nobody knows what is on the disk, and no later sync can tell.
    pub(super) fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }
}

impl Drop for Opened {
    /// Runs while the lock is still held, so a holder never removes its successor's name.
    fn drop(&mut self) {
        if let Some(path) = &self.pid_file {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Place {
    pub(super) fn file(path: PathBuf, options: RedbOptions) -> Self {
        let at = path.clone();
        let opener = move || {
            let file = open_file(&at)?;
            let backend = FileBackend::new(file.try_clone()?).map_err(io::Error::other)?;
            Ok(Medium {
                backend: Box::new(backend),
                file: Some(file),
            })
        };
        Self::new(path, options, Arc::new(opener))
    }

    pub(super) fn new(path: PathBuf, options: RedbOptions, opener: Opener) -> Self {
        Self {
            path,
            opener,
            options,
            near: Arc::new(Near::new()),
        }
    }

    pub(super) fn near(&self) -> &Near {
        &self.near
    }

    pub(super) const fn options(&self) -> &RedbOptions {
        &self.options
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the database, and repairs it where a crash left work.
    pub(super) fn open(&self) -> Result<Opened> {
        let deadline = Instant::now() + self.options.lock_wait;
        let mut opened = loop {
            match self.try_open() {
                Ok(opened) => break opened,
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => thread::sleep(LOCK_POLL),
                Err(error) => return Err(self.explain(error)),
            }
        };
        opened.pid_file = self.leave_pid();
        self.prepare(&opened.database)?;
        Ok(opened)
    }

    fn try_open(&self) -> Result<Opened, DatabaseError> {
        let Medium { backend, file } = (self.opener)()?;
        let sync_failed = Arc::new(AtomicBool::new(false));
        let watched = Watched {
            inner: backend,
            file,
            near: Arc::clone(&self.near),
            settled: AtomicBool::new(false),
            durability: self.options.durability,
            sync_failed: Arc::clone(&sync_failed),
        };
        let path = self.path.clone();
        let database = Builder::new()
            .set_cache_size(self.options.cache_bytes)
            .set_repair_callback(move |session| {
                tracing::info!(path = %path.display(), progress = session.progress(), "repairing after a crash");
            })
            .create_with_backend(watched)?;
        Ok(Opened {
            database,
            sync_failed,
            pid_file: None,
        })
    }

    /// Checks the format, or writes it into a new file, along with the tables.
    fn prepare(&self, database: &Database) -> Result<()> {
        let txn = database.begin_read().map_err(|error| self.explain(error))?;
        match txn.open_table(META) {
            Ok(meta) => match meta.get(FORMAT_KEY).map_err(|error| self.explain(error))? {
                Some(format) if format.value() == FORMAT => Ok(()),
                Some(format) => Err(Error::internal(format!(
                    "The metadata file {} has format {}, this release reads format {FORMAT}; run the release that \
                     wrote it",
                    self.path.display(),
                    format.value()
                ))),
                None => Err(self.foreign()),
            },
            Err(TableError::TableDoesNotExist(_)) => {
                if txn.list_tables().map_err(|error| self.explain(error))?.next().is_some() {
                    return Err(self.foreign());
                }
                self.found(database)
            }
            Err(TableError::Storage(error)) => Err(self.explain(error)),
            Err(_) => Err(self.foreign()),
        }
    }

    fn found(&self, database: &Database) -> Result<()> {
        let txn = database.begin_write().map_err(|error| self.explain(error))?;
        txn.open_table(META)
            .and_then(|mut meta| Ok(meta.insert(FORMAT_KEY, FORMAT).map(drop)?))
            .map_err(|error| self.explain(error))?;
        Tables::open(&txn).map_err(|error| self.explain(error))?;
        txn.commit().map_err(|error| self.explain(error))
    }

    fn pid_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".pid");
        name.into()
    }

    /// Says who holds the file, for those who wait for it. Nothing hangs on it.
    fn leave_pid(&self) -> Option<PathBuf> {
        let path = self.pid_path();
        std::fs::write(&path, format!("{}\n", std::process::id())).ok()?;
        Some(path)
    }

    fn holder(&self) -> String {
        let pid = std::fs::read_to_string(self.pid_path()).unwrap_or_default();
        match pid.trim().parse::<u32>() {
            Ok(pid) if pid == std::process::id() => format!("this process (pid {pid})"),
            Ok(pid) => format!("the process with pid {pid}"),
            Err(_) => "another process".to_owned(),
        }
    }

    fn foreign(&self) -> Error {
        Error::internal(format!(
            "{} is a redb database, but not one of uploads; give the metadata a file of its own",
            self.path.display()
        ))
    }

    fn explain(&self, error: impl Into<::redb::Error>) -> Error {
        let path = self.path.display();
        match error.into() {
            ::redb::Error::DatabaseAlreadyOpen => Error::unavailable(format!(
                "The metadata file {path} is held by {}, and still was after {:?}; a file serves one process at a \
                 time: stop that one, or give this one its own file",
                self.holder(),
                self.options.lock_wait
            )),
            ::redb::Error::UpgradeRequired(version) => Error::internal(format!(
                "The metadata file {path} is in redb's file format {version}, which this release does not read; run \
                 the release that wrote it"
            )),
            ::redb::Error::Corrupted(what) => {
                Error::internal(format!("The metadata file {path} is damaged; restore it from a backup"))
                    .with_source(what)
            }
            ::redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Error::internal(format!(
                "{path} is no metadata file; give the metadata a file of its own"
            ))
            .with_source(error),
            ::redb::Error::Io(error) if is_full(&error) => Error::new(
                ErrorKind::NoSpace,
                format!("There is no room for the metadata file {path}"),
            )
            .with_source(error),
            error => {
                Error::unavailable(format!("The metadata file {path} cannot be opened: {error}")).with_source(error)
            }
        }
    }
}

/// Whether an I/O error says that there is no room, rather than that the disk is broken.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Opens or creates the file, readable by its owner alone, and makes its directory entry durable.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(file)
}

/// The backend, watched: it remembers a failed sync, and leaves syncs out where nobody wants them.
#[derive(Debug)]
struct Watched {
    inner: Box<dyn StorageBackend>,
    file: Option<File>,
    near: Arc<Near>,
    settled: AtomicBool,
    durability: Durability,
    sync_failed: Arc<AtomicBool>,
}

impl Watched {
    fn sync(&self) -> io::Result<()> {
        self.inner
            .sync_data()
            .inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    /// Once the file is ours: what is read from here on is what the disk has. An earlier process may
    /// not have synced what it wrote before it was killed; and after a failed sync the page cache may
    /// hold pages that never reached the disk and would never be written again.
    fn settle(&self) -> io::Result<()> {
        if !self.settled.swap(true, Ordering::AcqRel) {
            self.sync()?;
            #[cfg(target_os = "linux")]
            if let Some(file) = &self.file {
                rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
impl Watched {
    /// Has the blocks allocated when the file grows, which is seldom, so that a full disk is told
    /// then and not by the write of a page that a repair would have to write too.
    fn reserve(&self, len: u64) -> io::Result<()> {
        use rustix::{
            fs::{FallocateFlags, fallocate},
            io::Errno,
        };
        let now = self.inner.len()?;
        let Some(file) = self.file.as_ref().filter(|_| len > now) else {
            return Ok(());
        };
        // It is synced, with whoever begins to read kept waiting.
        self.near.keep_away();
        match fallocate(file, FallocateFlags::empty(), now, len - now) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => {
                let _ = self.inner.set_len(now);
                Err(error.into())
            }
        }
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self
            .file
            .as_ref()
            .is_some_and(|file| self.near.reads(file, offset, out))
        {
            return Ok(());
        }
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        self.reserve(len)?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.durability {
            Durability::Immediate => self.sync(),
            Durability::None => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        let synced = match self.durability {
            Durability::None => self.sync(),
            Durability::Immediate => Ok(()),
        };
        self.inner.close().and(synced)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        let locked = self.inner.try_lock_range(start, end);
        if !matches!(locked, Ok(false)) {
            self.settle()?;
        }
        locked
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

/// The cause of a failure, when it is an I/O error.
pub(super) fn io_cause(error: &::redb::Error) -> Option<&io::Error> {
    match error {
        ::redb::Error::Io(error) => Some(error),
        _ => None,
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
