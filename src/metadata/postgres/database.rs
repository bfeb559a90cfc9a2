//! One call, one statement, one round trip.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Row as _, pool::PoolConnection};

use super::{
    error::{connection_lost, rolled_back},
    schema::Names,
    trust::Trust,
};
use crate::error::{Error, Result};

/// How often a call is made at most, where making it again is safe.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// A function of the schema: takes one JSON document and gives one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Function {
    Create,
    Load,
    Commit,
    Update,
    Due,
    List,
    Remove,
}

impl Function {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Create, "create_v1"),
        (Self::Load, "load_v1"),
        (Self::Commit, "commit_v1"),
        (Self::Update, "update_v1"),
        (Self::Due, "due_v1"),
        (Self::List, "list_v1"),
        (Self::Remove, "remove_v1"),
    ];

    const fn is_read(self) -> bool {
        matches!(self, Self::Load | Self::List)
    }
}

pub(super) struct Database {
    pool: PgPool,
    /// Whether nothing may be prepared: then a call is a simple query.
    pooler: bool,
    functions: [Arc<str>; 7],
    /// What sums the usage of all owners up: a read that nothing is decided by, and so no function of the schema.
    usage: Arc<str>,
    trust: Arc<Trust>,
}

impl Database {
    pub(super) fn new(pool: PgPool, names: &Names, pooler: bool, trust: Arc<Trust>) -> Self {
        let functions = Function::ALL.map(|(_, name)| {
            let name = names.qualified(name);
            if pooler {
                name.into()
            } else {
                format!("SELECT {name}($1::jsonb)::text").into()
            }
        });
        Self {
            pool,
            pooler,
            functions,
            usage: format!(
                "SELECT coalesce(sum(uploads), 0)::bigint, least(coalesce(sum(bytes), 0), 9223372036854775807)::bigint FROM {}",
                names.qualified("usage")
            )
            .into(),
            trust,
        }
    }

    pub(super) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Calls `function`. What a transaction did that was rolled back because of others is done again, and so is a read
    /// whose connection broke; a write whose connection broke may have been done, and is not.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        function: Function,
        argument: &impl Serialize,
    ) -> Result<T, Failure> {
        let argument = serde_json::to_string(argument).map_err(Failure::encoding)?;
        let mut attempt = 1;
        let answer = loop {
            match self.once(function, &argument).await {
                Ok(answer) => break answer,
                Err(error) => {
                    let again = rolled_back(&error) || function.is_read() && connection_lost(&error);
                    if !again || attempt == ATTEMPTS {
                        return Err(Failure::Database(error));
                    }
                    tracing::debug!(?function, attempt, %error, "calling the metadata database again");
                }
            }
            tokio::time::sleep(PAUSE * attempt).await;
            attempt += 1;
        };
        serde_json::from_str(&answer).map_err(Failure::decoding)
    }

    /// Unfinished uploads of all owners and the bytes they reserve.
    pub(super) async fn usage(&self) -> Result<(i64, i64), Failure> {
        let read = async {
            let mut lent = Lent::from(&self.pool).await?;
            let statement = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&self.usage)));
            let row = statement.fetch_one(lent.connection()?).await?;
            lent.give_back();
            Ok((row.try_get(0)?, row.try_get(1)?))
        };
        read.await.map_err(Failure::Database)
    }

    async fn once(&self, function: Function, argument: &str) -> Result<String, sqlx::Error> {
        let statement = Arc::clone(&self.functions[function as usize]);
        let mut lent = Lent::from(&self.pool).await?;
        let answered = if self.pooler {
            let statement = AssertSqlSafe(simple(&statement, argument));
            sqlx::raw_sql(statement).fetch_one(lent.connection()?).await
        } else {
            let statement = sqlx::query(AssertSqlSafe(statement)).bind(argument);
            statement.fetch_one(lent.connection()?).await
        };
        if answered.as_ref().is_err_and(connection_lost) {
            self.trust.lose();
        } else {
            lent.give_back();
        }
        answered?.try_get(0)
    }
}

/// A statement without parameters. The argument goes as hexadecimal digits, so that no character of it means anything.
fn simple(function: &str, argument: &str) -> String {
    use std::fmt::Write as _;
    let mut sql = format!("SELECT {function}(convert_from(decode('");
    for byte in argument.bytes() {
        let _ = write!(sql, "{byte:02x}");
    }
    sql.push_str("', 'hex'), 'UTF8')::jsonb)::text");
    sql
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    Database(sqlx::Error),
    Json(Error),
}

impl Failure {
    fn encoding(error: serde_json::Error) -> Self {
        Self::Json(Error::internal("A metadata record cannot be written").with_source(error))
    }

    pub(super) fn decoding(error: serde_json::Error) -> Self {
        let message = "The metadata database holds what this release does not read; run the release that wrote it";
        Self::Json(Error::internal(message).with_source(error))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Database(error) => super::error::translate(error),
            Failure::Json(error) => error,
        }
    }
}

/// A connection that goes back to the pool only when it is known to be at rest: one whose call was dropped or broke is
/// closed, so that nobody waits for what it still has to answer.
pub(super) struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    pub(super) async fn from(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    pub(super) fn connection(&mut self) -> Result<&mut sqlx::PgConnection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(mut connection) = self.0.take() {
            connection.close_on_drop();
        }
    }
}
