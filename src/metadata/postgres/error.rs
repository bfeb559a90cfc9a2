//! What a failure of the database means to the engine.

use sqlx::error::DatabaseError;

use crate::error::{Error, ErrorKind};

const POOLER: &str = "A pooler in transaction mode stands before the metadata database; \
                      open the store with PostgresOptions::with_transaction_pooler(true)";

/// A transaction that was rolled back because of others: it did nothing, and may do it the next time.
pub(super) fn rolled_back(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01"))
}

/// The connection is gone, or leads to a server that is no primary any more.
pub(super) fn connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => {
            code(error).is_some_and(|code| code.starts_with("08") || code.starts_with("57P") || code == "25006")
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// A name or key was taken by another transaction between the look and the write.
pub(super) fn is_unique_violation(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("23505")
}

/// The tables (or their schema) are not there.
pub(super) fn is_undefined(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("42P01" | "42883" | "3F000"))
}

/// Something with that name is there already.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(
        code(error).as_deref(),
        Some("23505" | "42P06" | "42P07" | "42710" | "42723")
    )
}

/// As [`Error`]: [`Unavailable`](ErrorKind::Unavailable) wherever asking again may help.
pub(super) fn translate(error: sqlx::Error) -> Error {
    const TLS: &str =
        "TLS with the metadata database failed; check certificates and sslmode (TLS needs the feature postgres-tls)";
    let said = match &error {
        sqlx::Error::Database(database) => of_database(&**database),
        // A certificate that is not trusted is told as this.
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => Error::unavailable(TLS),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Error::unavailable("The connection to the metadata database was lost; try again")
        }
        sqlx::Error::PoolTimedOut => Error::unavailable(
            "The metadata database cannot be reached, or all connections to it are in use; try again",
        ),
        sqlx::Error::PoolClosed => Error::unavailable("The connections to the metadata database are closed"),
        sqlx::Error::Tls(_) => Error::unavailable(TLS),
        sqlx::Error::Configuration(_) => Error::invalid(
            "metadata",
            "The database is written postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE",
        ),
        _ => Error::internal("The metadata database answered something else than was asked"),
    };
    said.with_source(error)
}

fn of_database(error: &dyn DatabaseError) -> Error {
    let code = error.code().unwrap_or_default();
    match &*code {
        "25006" => Error::unavailable("The metadata database is read-only (a standby, or a failover); try again"),
        "40001" | "40P01" | "55P03" | "57014" => Error::unavailable("The metadata database is busy; try again"),
        "53100" => Error::new(ErrorKind::NoSpace, "The disk of the metadata database is full"),
        "28P01" | "28000" => Error::unavailable(
            "The metadata database refuses this user or password; check the URL, PGUSER, PGPASSWORD and pg_hba.conf",
        ),
        "3D000" => Error::unavailable("The metadata database does not exist; create it, then try again"),
        "22021" | "22P05" => Error::invalid("text", "Postgres stores no text with a NUL character"),
        "22003" => Error::too_large("Sizes end at 8 EiB on this server", i64::MAX.cast_unsigned()),
        "54000" => Error::invalid(
            "owner",
            "The id of an owner is too long for an index of Postgres (2,000 bytes)",
        ),
        // What poolers say to a setting they do not know has the code of all that they say.
        "26000" | "42P05" => Error::internal(POOLER),
        _ if error.message().starts_with("unsupported startup parameter") => Error::internal(POOLER),
        "42501" => Error::internal(
            "The database user may not do this; grant it what the store needs, or open the store as the tables' owner",
        ),
        "42P01" | "42883" | "3F000" => Error::internal(
            "The tables of the metadata store are missing; open it once with migrations, or run PostgresOptions::sql()",
        ),
        "TU001" => Error::internal(
            "The metadata database must run transactions at READ COMMITTED; \
             reset default_transaction_isolation of this user or database",
        ),
        code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            Error::unavailable("The metadata database is not available; try again")
        }
        _ => Error::internal("The metadata database refused a statement; its log and the source of this error say why"),
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}
