use std::{sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{PostgresMetadata, database::Database, error::translate, schema::Names, trust::Trust};
use crate::error::{Error, Result};

/// How a [`PostgresMetadata`] is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    schema: String,
    prefix: String,
    pooler: bool,
    migrate: bool,
    connections: u32,
    wait: Duration,
}

impl Default for PostgresOptions {
    /// The schema `tower_upload`, no prefix, no pooler, migrations, at most 10 connections, 5 seconds to wait for one.
    fn default() -> Self {
        Self {
            schema: "tower_upload".to_owned(),
            prefix: String::new(),
            pooler: false,
            migrate: true,
            connections: 10,
            wait: Duration::from_secs(5),
        }
    }
}

impl PostgresOptions {
    /// The schema that the tables and functions lie in: 1 to 63 lower-case letters, digits and `_`. It is created if the user may.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// What the names of tables and functions begin with: at most 50 lower-case letters, digits and `_`.
    #[must_use]
    pub fn with_table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Whether a pooler that gives each transaction another connection (pgbouncer in transaction mode, say) stands before the
    /// database. Then nothing is prepared; a call is a simple query, still one round trip.
    #[must_use]
    pub const fn with_transaction_pooler(mut self, on: bool) -> Self {
        self.pooler = on;
        self
    }

    /// Whether opening creates the tables or brings them up to date; otherwise it refuses what is not. A user that may not
    /// create tables goes without; see [`sql`](Self::sql).
    #[must_use]
    pub const fn with_migrations(mut self, on: bool) -> Self {
        self.migrate = on;
        self
    }

    /// How many connections at most; not for a pool of the host's.
    #[must_use]
    pub const fn with_max_connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// How long to wait for a connection before a call is [`Unavailable`](crate::ErrorKind::Unavailable); not for a pool of
    /// the host's.
    #[must_use]
    pub const fn with_connection_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The statements that make tables and functions from nothing, for `psql`: for those whose database is not changed by
    /// programs. The user of the store then needs USAGE of the schema, USAGE and UPDATE of the sequence, and SELECT, INSERT, UPDATE and
    /// DELETE on the tables.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a schema or prefix that is no plain name.
    pub fn sql(&self) -> Result<String> {
        Ok(self.names()?.sql())
    }

    /// Connects to `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE`, or by what `PGHOST`, `PGPASSWORD` and the like say
    /// where the URL does not.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a URL, schema or prefix that is none,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the server cannot be reached, refuses the user or is a standby,
    /// [`Internal`](crate::ErrorKind::Internal) if its schema is of a newer release, is not there, or it is otherwise unfit; messages say what
    /// to do, and never the password.
    pub async fn connect(self, url: &str) -> Result<PostgresMetadata> {
        let mut server: PgConnectOptions = match url.split_once("://") {
            Some(("postgres" | "postgresql", _)) => url.parse().map_err(translate)?,
            _ => return Err(translate(sqlx::Error::Configuration("not a URL of postgres".into()))),
        };
        if server.get_application_name().is_none() {
            server = server.application_name("tower-upload");
        }
        if self.pooler {
            // pgbouncer refuses to start a connection with a setting it does not know.
            server = server.extra_float_digits(None).statement_cache_capacity(0);
            // A slow statement would be logged with all that it carries.
            server = server.disable_statement_logging();
        }
        let trust = Arc::new(Trust::new());
        let asked = Arc::clone(&trust);
        let pool = PgPoolOptions::new()
            .max_connections(self.connections)
            .acquire_timeout(self.wait)
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let trusted = asked.covers(meta.idle_for);
                Box::pin(async move {
                    if !trusted {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(server);
        self.open(pool, trust).await
    }

    /// Uses a pool of the host's. Its `test_before_acquire`, on unless it was switched off, costs one round trip more for each call.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn with_pool(self, pool: PgPool) -> Result<PostgresMetadata> {
        self.open(pool, Arc::new(Trust::new())).await
    }

    async fn open(self, pool: PgPool, trust: Arc<Trust>) -> Result<PostgresMetadata> {
        let names = self.names()?;
        names.prepare(&pool, self.migrate).await?;
        Ok(PostgresMetadata {
            place: names.qualified("uploads"),
            database: Database::new(pool, &names, self.pooler, trust),
        })
    }

    fn names(&self) -> Result<Names, Error> {
        Names::new(&self.schema, &self.prefix)
    }
}
