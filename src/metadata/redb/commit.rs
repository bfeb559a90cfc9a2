//! The one thread that writes: it takes what is queued, applies it in order in one transaction,
//! makes that durable, and only then answers.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    clock::{TOLD_EVERY, reckon},
    file::{Opened, Place, io_cause, is_full},
    tables::{CLOCK_KEY, Fault, META, Tables, View},
};
use crate::{
    error::{Error, ErrorKind, Result},
    upload::Timestamp,
};
use ::redb::{ReadableDatabase, WriteTransaction};

/// How many operations may wait for the thread; more wait in their callers.
const QUEUE: usize = 1024;

/// The database behind its door, shared by the thread that writes and those that read.
#[derive(Debug)]
pub(super) struct Shared {
    place: Place,
    door: RwLock<Door>,
    /// What the file was told of the clock by this process.
    told: Mutex<Option<Timestamp>>,
}

#[derive(Debug)]
enum Door {
    Open(Opened),
    /// The disk was full, the last transaction is not in the file; it can be opened again in place.
    Full,
    /// It failed in a way that leaves open what is on the disk. Somebody must open it anew.
    Broken,
    Closed,
}

/// Why a whole transaction has no effect, or nobody knows whether it has.
#[derive(Clone, Debug)]
enum Failure {
    Full(String),
    Broken(String),
}

impl Failure {
    fn error(&self) -> Error {
        match self {
            Self::Full(cause) => {
                let message = "The metadata store has no room left; try again when space was freed";
                Error::new(ErrorKind::NoSpace, message).with_source(cause.clone())
            }
            Self::Broken(cause) => must_reopen().with_source(cause.clone()),
        }
    }
}

fn must_reopen() -> Error {
    Error::unavailable("The metadata store had an I/O error and must be reopened")
}

fn closed() -> Error {
    Error::unavailable("The metadata store is closed; open it again")
}

/// Something queued for the thread.
pub(super) trait Work: Send {
    /// Applies it. `Err` if the file failed, which ends the whole transaction.
    fn apply(&mut self, tables: &mut Tables<'_>, now: Timestamp) -> Result<(), ::redb::Error>;
    /// Answers it, once the transaction is durable or has failed.
    fn answer(self: Box<Self>, failure: Option<Error>);
}

struct Job<F, T> {
    apply: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Work for Job<F, T>
where
    F: FnOnce(&mut Tables<'_>, Timestamp) -> Result<T, Fault> + Send,
    T: Send,
{
    fn apply(&mut self, tables: &mut Tables<'_>, now: Timestamp) -> Result<(), ::redb::Error> {
        if let Some(apply) = self.apply.take() {
            self.outcome = Some(match apply(tables, now) {
                Ok(value) => Ok(value),
                Err(Fault::Item(error)) => Err(error),
                Err(Fault::Store(error)) => return Err(error),
            });
        }
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        let outcome = match failure {
            Some(error) => Err(error),
            None => self.outcome.unwrap_or_else(|| Err(must_reopen())),
        };
        // Whoever asked may be gone; the operation stands.
        let _ = self.reply.send(outcome);
    }
}

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Committer {
    queue: Option<mpsc::Sender<Box<dyn Work>>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn spawn(shared: Arc<Shared>) -> Result<Self> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("upload-metadata".to_owned())
            .spawn(move || run(receiver, &shared))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Has the thread run `apply`; returns when its effects are durable.
    pub(super) async fn write<T, F>(&self, apply: F) -> Result<T>
    where
        F: FnOnce(&mut Tables<'_>, Timestamp) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            apply: Some(apply),
            outcome: None,
            reply,
        };
        queue.send(Box::new(job)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| must_reopen())?
    }

    /// Lets the thread finish what is queued and close the file; returns when both are done.
    pub(super) fn stop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(mut queue: mpsc::Receiver<Box<dyn Work>>, shared: &Shared) {
    /// Closes the file also when the thread panics.
    struct Closing<'a>(&'a Shared);
    impl Drop for Closing<'_> {
        fn drop(&mut self) {
            self.0.set(Door::Closed);
        }
    }
    let _closing = Closing(shared);
    let limit = shared.place.options().max_batch.max(1);
    let mut batch = Vec::with_capacity(limit);
    while queue.blocking_recv_many(&mut batch, limit) > 0 {
        let failure = shared.write(&mut batch).err();
        for work in batch.drain(..) {
            work.answer(failure.as_ref().map(Failure::error));
        }
    }
}

impl Shared {
    pub(super) fn new(place: Place, opened: Opened) -> Self {
        Self {
            place,
            door: RwLock::new(Door::Open(opened)),
            told: Mutex::new(None),
        }
    }

    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// A view of what is durable.
    pub(super) fn view(&self) -> Result<View> {
        Self::through(&self.door.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, if it is to be had without waiting and the disk was not full.
    pub(super) fn view_at_once(&self) -> Result<Option<View>> {
        match self.door.try_read() {
            Ok(door) if !matches!(*door, Door::Full) => Self::through(&door).map(Some),
            _ => Ok(None),
        }
    }

    fn through(door: &Door) -> Result<View> {
        match door {
            Door::Open(opened) => opened
                .database
                .begin_read()
                .map(View::new)
                .map_err(|error| must_reopen().with_source(error)),
            Door::Full | Door::Broken => Err(must_reopen()),
            Door::Closed => Err(closed()),
        }
    }

    /// Whether the disk was full when the file was last written and opened.
    pub(super) fn is_full(&self) -> bool {
        matches!(*self.door.read().unwrap_or_else(PoisonError::into_inner), Door::Full)
    }

    fn write(&self, batch: &mut [Box<dyn Work>]) -> Result<(), Failure> {
        if self.is_full() {
            self.reopen()?;
        }
        let Err(error) = self.transact(batch) else {
            return Ok(());
        };
        tracing::error!(path = %self.place.path().display(), %error, "the metadata file failed");
        let cause = error.to_string();
        if io_cause(&error).is_some_and(is_full) && !self.sync_failed() {
            // A page that could not be written fails its checksum, so opening finds the state before.
            self.set(Door::Full);
            let _ = self.reopen();
            return Err(Failure::Full(cause));
        }
        self.set(Door::Broken);
        Err(Failure::Broken(cause))
    }

    fn transact(&self, batch: &mut [Box<dyn Work>]) -> Result<(), ::redb::Error> {
        let mut txn = match &*self.door.read().unwrap_or_else(PoisonError::into_inner) {
            Door::Open(opened) => opened.database.begin_write()?,
            _ => return Err(::redb::Error::DatabaseClosed),
        };
        txn.set_quick_repair(self.place.options().quick_repair);
        let mut tables = Tables::open(&txn)?;
        let clock = &self.place.options().clock;
        let telling = self.tell_time(&txn, &mut tables, clock.now())?;
        for work in batch {
            work.apply(&mut tables, clock.now())?;
        }
        let changed = tables.changed() || telling.is_some();
        drop(tables);
        if changed {
            txn.commit()?;
        } else {
            txn.abort()?;
        }
        if telling.is_some() {
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = telling;
        }
        Ok(())
    }

    /// Tells the file what time it is, now and then; at first, before all else, brings the times in it in line with that. Answers what it
    /// was told, which counts once the transaction does.
    fn tell_time(
        &self,
        txn: &WriteTransaction,
        tables: &mut Tables<'_>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, ::redb::Error> {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| now < told.after(TOLD_EVERY)) {
            return Ok(None);
        }
        let mut meta = txn.open_table(META)?;
        let before = meta.insert(CLOCK_KEY, now.as_millis())?.map(|last| last.value());
        if let (None, Some(last)) = (told, before) {
            match reckon(tables, Timestamp::from_millis(last), now) {
                Ok(()) => {}
                Err(Fault::Item(error)) => {
                    tracing::error!(%error, "the times in the metadata file are left as they are")
                }
                Err(Fault::Store(error)) => return Err(error),
            }
        }
        Ok(Some(now))
    }

    fn sync_failed(&self) -> bool {
        match &*self.door.read().unwrap_or_else(PoisonError::into_inner) {
            Door::Open(opened) => opened.sync_failed(),
            _ => true,
        }
    }

    fn reopen(&self) -> Result<(), Failure> {
        match self.place.open() {
            Ok(opened) => {
                self.set(Door::Open(opened));
                Ok(())
            }
            Err(error) => Err(Failure::Full(error.to_string())),
        }
    }

    /// The old database is closed before the new door stands, so that its lock is free.
    fn set(&self, door: Door) {
        let mut current = self.door.write().unwrap_or_else(PoisonError::into_inner);
        *current = door;
    }
}

/// The error a reader answers with.
pub(super) fn read_error(fault: Fault) -> Error {
    match fault {
        Fault::Item(error) => error,
        Fault::Store(::redb::Error::Corrupted(what)) => {
            Error::internal("The metadata file is damaged; restore it from a backup").with_source(what)
        }
        Fault::Store(error) => Error::unavailable("The metadata file cannot be read; try again").with_source(error),
    }
}
