//! The engine: [`Uploads`] takes bytes in, makes blobs of them and cleans up, with no HTTP in it.

mod again;
mod append;
mod assemble;
mod audit;
mod bounded;
mod budget;
mod build;
mod builder;
pub(crate) mod checksum;
mod clock;
mod concat;
mod conclude;
mod config;
mod create;
mod derived;
mod driver;
mod end;
mod first;
mod intake;
mod join;
mod live;
mod random;
mod receive;
mod request;
mod tasks;
mod tell;
mod verify;
mod view;
mod watch;
mod writing;

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;

pub use append::NewAppend;
pub use audit::{Audit, Finding, Problem, Swept};
pub use budget::Held;
pub use builder::{Builder, Ready, Unauthorized, Verify};
pub use checksum::Crc64;
pub use clock::{Clock, SystemClock};
pub use request::{Address, Appended, NewChunk, NewUpload, StoredChunk};
pub use tell::Telling;
pub use view::Upload;

#[cfg(all(test, feature = "disk"))]
pub(crate) use self::{budget::Spool, random::Random};

use self::{config::Config, live::Live, tasks::Tasks};
use crate::{
    access::{Action, Authorizer, Caller, Subject},
    blob::{BlobBody, BlobStore, ByteRange, Limits},
    error::{Error, ErrorKind, Result},
    metadata::{Lookup, MetadataStore, Page, PartRange, PartsEdit, Updated},
    observe,
    upload::{Blob, Record, Snapshot, State, UploadId, Wake},
};

/// The engine. Cheap to clone; all clones are one.
///
/// Every method checks with the [`Authorizer`] first, and an upload that the caller may not see is answered like one
/// that does not exist. Every future may be dropped at any moment: what was not acknowledged may or may not have
/// happened, nothing else.
#[derive(Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

struct Inner {
    blobs: Arc<dyn BlobStore>,
    metadata: Arc<dyn MetadataStore>,
    authorizer: Arc<dyn Authorizer>,
    limits: Limits,
    config: Config,
    random: Arc<dyn random::Random>,
    /// The epoch under which this process writes in place. Drawn anew whenever a commit's outcome is unknown.
    incarnation: AtomicU64,
    budget: budget::Budget,
    live: Arc<Live>,
    turns: tell::Turns,
    tasks: Tasks,
    driver: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// How often the driver took more than it works on at once.
    rounds: AtomicUsize,
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads")
            .field("blobs", &self.inner.blobs)
            .field("metadata", &self.inner.metadata)
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl Uploads {
    /// Whether `caller` may upload at all: asked before a body is read of which it is not yet known where it belongs.
    ///
    /// # Errors
    /// What the authorizer answers to [`Action::Create`] on [`Subject::Own`].
    pub async fn admit(&self, caller: &Caller) -> Result<()> {
        self.authorize(caller, Action::Create, Subject::Own).await
    }

    /// The upload with its parts: what a client needs to go on after it lost everything but the file.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound). An upload that ended is no error while it is remembered.
    pub async fn status(&self, caller: &Caller, of: impl Into<Address<'_>> + Send) -> Result<Upload> {
        self.find(caller, of.into(), Action::Inspect, PartRange::ALL)
            .await
            .map(Upload::new)
    }

    /// The upload without its parts, for a caller who may do `action` on it.
    #[cfg(feature = "http")]
    pub(crate) async fn glance(&self, caller: &Caller, id: UploadId, action: Action) -> Result<Upload> {
        self.find(caller, id.into(), action, PartRange::NONE)
            .await
            .map(Upload::new)
    }

    /// The largest file, in bytes.
    #[cfg(feature = "http")]
    pub(crate) fn max_size(&self) -> u64 {
        self.inner.config.max_size
    }

    /// The caller's uploads, newest first, without their parts.
    ///
    /// # Errors
    /// Those of the authorizer and the metadata store.
    pub async fn list(&self, caller: &Caller, page: Page) -> Result<Vec<Upload>> {
        self.authorize(caller, Action::Inspect, Subject::Own).await?;
        let snapshots = self.inner.metadata.list(Some(caller.owner()), page).await?;
        Ok(snapshots.into_iter().map(Upload::new).collect())
    }

    /// The bytes of an assembled upload.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if it is not assembled yet, [`Gone`](ErrorKind::Gone) or
    /// [`Failed`](ErrorKind::Failed) if it never will be, [`Invalid`](ErrorKind::Invalid) for a range past the end.
    pub async fn read(&self, caller: &Caller, id: UploadId, range: ByteRange) -> Result<(Blob, BlobBody)> {
        let snapshot = self
            .find(caller, Address::Id(id), Action::Read, PartRange::NONE)
            .await?;
        match snapshot.record {
            Record {
                state: State::Assembled,
                blob: Some(blob),
                key,
                ..
            } => {
                let body = self.inner.blobs.read(&key, range).await?;
                Ok((blob, body))
            }
            Record {
                state: State::Open | State::Assembling,
                ..
            } => Err(Error::new(
                ErrorKind::Conflict,
                "The upload is not finished; read it when it is assembled",
            )),
            record => Err(ended(&record)),
        }
    }

    /// The bytes under the key of an upload that the caller was found to be allowed to read a moment ago.
    #[cfg(feature = "http")]
    pub(crate) async fn read_key(&self, key: &crate::upload::Key, range: ByteRange) -> Result<BlobBody> {
        self.inner.blobs.read(key, range).await
    }

    /// Lets running requests come to their end until `deadline`, refuses new ones, then stops the driver. What is cut can
    /// be resumed, by this process or the next.
    pub async fn shutdown(&self, deadline: Duration) {
        self.inner.tasks.close(deadline).await;
        let closing = join_all(self.inner.config.hooks.iter().map(|hook| hook.close()));
        let _ = tokio::time::timeout(deadline, closing).await;
        let driver = self
            .inner
            .driver
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(driver) = driver {
            let _ = tokio::time::timeout(deadline, driver).await;
        }
    }

    /// How long an upload lives without activity.
    #[cfg(feature = "http")]
    pub(crate) fn expire_after(&self) -> Option<Duration> {
        self.inner.config.expire_after
    }

    #[cfg(test)]
    pub(crate) fn budget_free(&self) -> usize {
        self.inner.budget.free()
    }

    async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<()> {
        let verdict = self.inner.authorizer.authorize(caller, action, subject).await;
        verdict.map_err(|denied| denied.into_error(subject))
    }

    /// Loads an upload that `caller` may do `action` on.
    async fn find(&self, caller: &Caller, at: Address<'_>, action: Action, parts: PartRange) -> Result<Snapshot> {
        let by = match at {
            Address::Id(id) => Lookup::Id(id),
            Address::Name(target, file_name) => Lookup::Name(caller.owner(), target, file_name),
        };
        let snapshot = self
            .inner
            .metadata
            .load(by, parts)
            .await?
            .ok_or_else(Error::not_found)?;
        observe::concerns(snapshot.record.id);
        self.authorize(caller, action, Subject::Upload(&snapshot.record))
            .await?;
        Ok(snapshot)
    }

    async fn load(&self, id: UploadId, parts: PartRange) -> Result<Snapshot> {
        self.inner
            .metadata
            .load(Lookup::Id(id), parts)
            .await?
            .ok_or_else(Error::not_found)
    }

    /// Replaces a record; `None` if it has changed meanwhile.
    async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Option<Record>> {
        match self.inner.metadata.update(next, edit, wake).await? {
            Updated::Done(record) => {
                self.inner.live.changed(record.id);
                Ok(Some(record))
            }
            Updated::Stale => Ok(None),
            Updated::KeyTaken => Err(Error::new(ErrorKind::Conflict, "Another upload has this name or key")),
        }
    }

    fn incarnation(&self) -> u64 {
        self.inner.incarnation.load(Ordering::SeqCst)
    }

    /// After a commit whose outcome is unknown: nothing is written in place again under the old epoch, so that the
    /// commit, should it still come, speaks of bytes that nobody changed, or is refused.
    fn doubt(&self) {
        if let Ok(fresh) = self.inner.random.u64() {
            self.inner.incarnation.store(fresh, Ordering::SeqCst);
        }
    }

    /// Makes sure that in-place bytes of this upload are written under an epoch that this process set.
    async fn fence(&self, record: Record) -> Result<Record> {
        let epoch = self.incarnation();
        if !self.inner.limits.in_place || record.epoch == epoch {
            return Ok(record);
        }
        let mut record = record;
        for _ in 0..CONTENTION {
            let next = Record { epoch, ..record };
            if let Some(fenced) = self.update(&next, PartsEdit::Keep, Wake::Keep).await? {
                return Ok(fenced);
            }
            record = self.load(next.id, PartRange::NONE).await?.record;
            if record.epoch == epoch {
                return Ok(record);
            }
            if record.state != State::Open {
                return Err(ended_or_sealed(&record));
            }
        }
        Err(contended())
    }
}

/// How often a conditional write is tried anew before the caller is asked to.
const CONTENTION: usize = 16;

fn contended() -> Error {
    Error::unavailable("Many requests change this upload at once; try again")
}

/// The error for an upload that has ended without a blob.
fn ended(record: &Record) -> Error {
    match record.state {
        State::Failed => {
            let reason = record.failure.as_deref().unwrap_or("it could not be assembled");
            Error::new(
                ErrorKind::Failed,
                format!("The upload failed: {reason}. Begin a new one"),
            )
        }
        state => Error::gone(state),
    }
}

/// The error for an upload that takes no more bytes.
fn ended_or_sealed(record: &Record) -> Error {
    match record.state {
        State::Open => contended(),
        State::Assembling | State::Assembled => Error::new(
            ErrorKind::Conflict,
            format!("The upload is {}; it takes no more bytes", record.state),
        ),
        _ => ended(record),
    }
}
