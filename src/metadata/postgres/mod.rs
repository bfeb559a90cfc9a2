//! [`PostgresMetadata`]: metadata in PostgreSQL, shared by many nodes.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;

use self::{
    database::{Database, Failure, Function},
    error::is_unique_violation,
    rows::{PartRow, Row, fits, hash_text, millis, signed, waking},
};
use super::{
    Committed, Created, Guard, Lookup, MetadataStore, Page, PartRange, PartsEdit, Quota, QuotaBound, Unfinished,
    Updated,
};
use crate::{
    error::{Error, Result},
    upload::{FileName, Owner, Part, Record, Snapshot, Tally, Target, UploadId, Version, Wake},
};

mod database;
mod error;
mod options;
mod rows;
mod schema;
mod trust;

pub use options::PostgresOptions;

/// Metadata in [PostgreSQL](https://www.postgresql.org): for several nodes that share their uploads.
///
/// Any number of nodes may use one database; two stores in one database have schemas or prefixes of their own
/// ([`PostgresOptions`]). What is in the tables can be read with `psql`: the view `tower_upload.overview` shows times as
/// times, comments (`\d+`) say what the columns are.
///
/// # What it costs
/// Each call is one statement that calls one function in the database, and so one transaction and **one round trip**,
/// however many parts it carries and however many the upload has. A connection that meets a statement for the first
/// time, or was idle for five seconds, asks once more before; the pool looks after each call, behind the caller's back,
/// whether the connection is at rest. An upload of two chunks takes 9 round trips: 2 for the first chunk, 3 for the
/// second, 4 for the assembly with its event.
///
/// A commit takes 0.3 ms in the server (PostgreSQL 15 without its sync, 2 cores) at 10, at 1,000 and at 10,000 parts;
/// the sync of the server's log and the way there and back come on top.
///
/// Calls that raise what an owner has unfinished, and are given a bound of a [`Quota`] for it, run one after the other
/// for each owner; without a bound they do not wait for one another.
///
/// # What it asks of the server
/// PostgreSQL 12 or newer (tested with 15), a database in UTF-8, transactions at READ COMMITTED (the default). A
/// `synchronous_commit` of `off` is switched to `on` for each write; `fsync` off gets a warning. To survive the loss of
/// the server without losing what was acknowledged, replicate synchronously. Sizes end at 2⁶³ − 1 bytes, the ids of
/// owners at about 2,000 bytes, and neither they nor receipts may have a NUL character.
///
/// # TLS
/// The feature `postgres` brings no TLS; `postgres-tls` brings rustls with the system's certificates. `sslmode=verify-full`
/// in the URL then checks the server, `sslrootcert=FILE` by an authority of one's own; the default, `prefer`, checks
/// nothing and goes without TLS where the server has none. A host that wants another TLS enables it in `sqlx` itself
/// (`sqlx = { version = "0.9", features = ["tls-…"] }`): it is the same crate.
///
/// # When the database fails
/// A connection that breaks, a failover, a server that is starting or read-only, a pool without a free connection: all is
/// [`Unavailable`](crate::ErrorKind::Unavailable), and the engine reads again what became of a write. Transactions that
/// the server rolled back because of one another, and reads, are tried again by the store, a few times. The
/// connection of a call that was dropped is closed; a transaction is never left open.
pub struct PostgresMetadata {
    database: Database,
    place: String,
}

impl PostgresMetadata {
    /// Connects to `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE` with the default options, and migrates. What the
    /// URL leaves out is taken from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE` and `~/.pgpass`.
    ///
    /// # Errors
    /// As [`PostgresOptions::connect`].
    pub async fn connect(url: &str) -> Result<Self> {
        PostgresOptions::default().connect(url).await
    }

    /// Uses a pool of the host's with the default options, and migrates.
    ///
    /// # Errors
    /// As [`PostgresOptions::connect`].
    pub async fn with_pool(pool: PgPool) -> Result<Self> {
        PostgresOptions::default().with_pool(pool).await
    }

    /// The pool that it uses.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    /// Waits for what is under way and closes the pool. Dropping the store closes it too, without waiting.
    pub async fn close(self) {
        self.database.pool().close().await;
    }
}

impl fmt::Debug for PostgresMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresMetadata")
            .field("uploads", &self.place)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct CreateCall {
    upload: Row<String>,
    parts: Vec<PartRow>,
    wake: &'static str,
    wait: u64,
    quota_uploads: Option<u64>,
    quota_bytes: Option<u64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum LookupCall<'a> {
    Id {
        id: UploadId,
    },
    Name {
        owner: &'a Owner,
        target: Option<&'a Target>,
        file_name: &'a FileName,
    },
}

#[derive(Serialize)]
struct LoadCall<'a> {
    #[serde(flatten)]
    by: LookupCall<'a>,
    start: u32,
    end: u32,
}

#[derive(Serialize)]
struct CommitCall {
    id: UploadId,
    epoch: i64,
    end: Option<u64>,
    pin: Option<u64>,
    size: Option<u64>,
    hash_end: Option<u64>,
    hash_state: Option<String>,
    quota_bytes: Option<u64>,
    seal: Option<u64>,
    parts: Vec<PartRow>,
    added_parts: usize,
    added_bytes: u64,
}

#[derive(Serialize)]
struct UpdateCall<'a> {
    upload: Row<String>,
    wake: &'static str,
    wait: u64,
    clear: bool,
    remove: &'a [u32],
}

#[derive(Serialize)]
struct DueCall {
    lease: u64,
    limit: i64,
}

#[derive(Serialize)]
struct ListCall<'a> {
    owner: Option<&'a Owner>,
    skip: i64,
    limit: i64,
}

#[derive(Serialize)]
struct RemoveCall {
    id: UploadId,
    version: u64,
}

/// What the functions answer, told apart by `answer`.
#[derive(Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
enum Answer {
    New { upload: Row<Value> },
    Name { upload: Row<Value> },
    Upload { upload: Row<Value>, parts: Vec<PartRow> },
    Refused { upload: Row<Value> },
    Present { part: PartRow },
    Quota { bound: Bound },
    Done { parts: u32, bytes: u64, revision: u64 },
    Updated { upload: Row<Value> },
    Key,
    Stale,
    Unknown,
    None,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bound {
    Uploads,
    Bytes,
}

#[derive(Deserialize)]
struct Listed {
    uploads: Vec<Value>,
}

#[derive(Deserialize)]
struct Removed {
    removed: bool,
}

impl Bound {
    fn of(&self, quota: &Quota) -> QuotaBound {
        match self {
            Self::Uploads => QuotaBound::Uploads(quota.uploads.unwrap_or_default()),
            Self::Bytes => QuotaBound::Bytes(quota.bytes.unwrap_or_default()),
        }
    }
}

#[async_trait]
impl MetadataStore for PostgresMetadata {
    async fn create(&self, new: &Record, first: &[Part], quota: &Quota, wake: Wake) -> Result<Created> {
        let (parts, _) = PartRow::of(first)?;
        let mut record = new.clone();
        record.version = Version::default().next();
        let (wake, wait) = waking(wake);
        let call = CreateCall {
            upload: Row::of(&record, Tally::default().with(first, &[]))?,
            parts,
            wake,
            wait,
            quota_uploads: quota.uploads,
            quota_bytes: quota.bytes,
        };
        match self.database.call(Function::Create, &call).await? {
            Answer::New { upload } => Ok(Created::New(upload.read()?.0)),
            Answer::Name { upload } => Ok(Created::NameTaken(upload.read()?.0)),
            Answer::Key => Ok(Created::KeyTaken),
            Answer::Quota { bound } => Ok(Created::OverQuota(bound.of(quota))),
            _ => Err(unexpected()),
        }
    }

    async fn load(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>> {
        let by = match by {
            Lookup::Id(id) => LookupCall::Id { id },
            Lookup::Name(owner, target, file_name) => LookupCall::Name {
                owner,
                target,
                file_name,
            },
        };
        let call = LoadCall {
            by,
            start: parts.start,
            end: parts.end,
        };
        match self.database.call(Function::Load, &call).await? {
            Answer::Upload { upload, parts } => {
                let (record, tally) = upload.read()?;
                let parts = parts.into_iter().map(PartRow::read).collect();
                Ok(Some(Snapshot::new(record, tally, parts)))
            }
            Answer::None => Ok(None),
            _ => Err(unexpected()),
        }
    }

    async fn commit(&self, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed> {
        let (rows, added_bytes) = PartRow::of(parts)?;
        let call = CommitCall {
            id,
            epoch: signed(guard.epoch),
            end: guard.end.map(fits).transpose()?,
            pin: guard.pin.map(fits).transpose()?,
            size: guard.size.map(fits).transpose()?,
            hash_end: guard.hash.as_ref().map(|hash| fits(hash.end)).transpose()?,
            hash_state: guard.hash.as_ref().map(hash_text),
            quota_bytes: guard.quota.bytes,
            seal: guard.seal.map(millis),
            parts: rows,
            added_parts: parts.len(),
            added_bytes,
        };
        match self.database.call(Function::Commit, &call).await? {
            Answer::Done { parts, bytes, revision } => Ok(Committed::Done(Tally { parts, bytes, revision })),
            Answer::Present { part } => Ok(Committed::Present(part.read())),
            Answer::Refused { upload } => {
                let (record, tally) = upload.read()?;
                Ok(Committed::Refused(record, tally))
            }
            Answer::Quota { bound } => Ok(Committed::OverQuota(bound.of(&guard.quota))),
            Answer::Unknown => Ok(Committed::Unknown),
            _ => Err(unexpected()),
        }
    }

    async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Updated> {
        let (wake, wait) = waking(wake);
        let remove: &[u32] = match &edit {
            PartsEdit::Remove(numbers) => numbers,
            PartsEdit::Keep | PartsEdit::Clear => &[],
        };
        let call = UpdateCall {
            upload: Row::of(next, Tally::default())?,
            wake,
            wait,
            clear: edit == PartsEdit::Clear,
            remove,
        };
        match self.database.call(Function::Update, &call).await {
            Ok(Answer::Updated { upload }) => Ok(Updated::Done(upload.read()?.0)),
            Ok(Answer::Key) => Ok(Updated::KeyTaken),
            Ok(Answer::Stale) => Ok(Updated::Stale),
            Ok(_) => Err(unexpected()),
            Err(Failure::Database(error)) if is_unique_violation(&error) => Ok(Updated::KeyTaken),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn due(&self, lease: Duration, limit: usize) -> Result<Vec<Record>> {
        let call = DueCall {
            lease: millis(lease),
            limit: count(limit),
        };
        let taken: Listed = self.database.call(Function::Due, &call).await?;
        let read = taken.uploads.into_iter().filter_map(|upload| {
            // A damaged record must not keep the others from their turn.
            listed(upload)
                .inspect_err(|error| tracing::error!(%error, "a due upload cannot be read"))
                .ok()
        });
        Ok(read.map(|(record, _)| record).collect())
    }

    async fn list(&self, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>> {
        let call = ListCall {
            owner,
            skip: count(page.skip),
            limit: count(page.limit),
        };
        let found: Listed = self.database.call(Function::List, &call).await?;
        let snapshot = |upload| listed(upload).map(|(record, tally)| Snapshot::new(record, tally, Vec::new()));
        found.uploads.into_iter().map(snapshot).collect()
    }

    async fn remove(&self, id: UploadId, expected: Version) -> Result<bool> {
        let call = RemoveCall {
            id,
            version: fits(expected.get())?,
        };
        let answer: Removed = self.database.call(Function::Remove, &call).await?;
        Ok(answer.removed)
    }

    async fn unfinished(&self) -> Result<Option<Unfinished>> {
        let (uploads, bytes) = self.database.usage().await?;
        let positive = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Some(Unfinished::new(positive(uploads), positive(bytes))))
    }
}

fn listed(upload: Value) -> Result<(Record, Tally)> {
    let row: Row<Value> = serde_json::from_value(upload).map_err(|error| Error::from(Failure::decoding(error)))?;
    row.read()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unexpected() -> Error {
    Error::internal("The metadata database answered something else than was asked")
}
