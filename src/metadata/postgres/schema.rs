//! The tables and functions in the database: their names, and how they come there.

use sqlx::{AssertSqlSafe, PgPool, Row as _};

use super::{
    database::Lent,
    error::{is_duplicate, is_undefined, translate},
};
use crate::error::{Error, Result};

/// What makes each version of the schema out of the one before.
const MIGRATIONS: [&str; 1] = [concat!(
    include_str!("schema/1_tables.sql"),
    include_str!("schema/1_functions.sql")
)];

/// The version this release works with.
const VERSION: i64 = 1;

/// The oldest server, as `server_version_num`.
const OLDEST_SERVER: i64 = 12_00_00;

/// The longest name in [`MIGRATIONS`], which goes after the prefix.
const LONGEST_NAME: usize = "uploads_owner".len();

/// Where in the database the store lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    schema: String,
    prefix: String,
}

impl Names {
    pub(super) fn new(schema: &str, prefix: &str) -> Result<Self> {
        // A length that Postgres cuts silently would let two stores share a table.
        let plain = |name: &str, max: usize| {
            name.len() <= max
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        if schema.is_empty() || schema.starts_with("pg_") || !plain(schema, 63) {
            return Err(Error::invalid(
                "schema",
                "A schema is 1 to 63 lower-case letters, digits and _, and begins neither with a digit nor with pg_",
            ));
        }
        if !plain(prefix, 63 - LONGEST_NAME) {
            return Err(Error::invalid(
                "table_prefix",
                "A table prefix is at most 50 lower-case letters, digits and _, and does not begin with a digit",
            ));
        }
        Ok(Self {
            schema: schema.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    /// `"schema"."prefixname"`.
    pub(super) fn qualified(&self, name: &str) -> String {
        format!(r#""{}"."{}{name}""#, self.schema, self.prefix)
    }

    /// Fills in names: `{name}` is qualified, `{.name}` is not.
    fn fill(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len() * 2);
        let mut rest = template;
        while let Some((before, (name, after))) = rest
            .split_once('{')
            .and_then(|(before, after)| Some((before, after.split_once('}')?)))
        {
            out.push_str(before);
            match name.strip_prefix('.') {
                Some(name) => out.push_str(&format!(r#""{}{name}""#, self.prefix)),
                None => out.push_str(&self.qualified(name)),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// What takes the schema from `version` to the next one; safe to send at once from many nodes.
    fn migration(&self, version: usize, with_schema: bool) -> String {
        let mut sql = format!(
            "SELECT pg_advisory_xact_lock(hashtextextended('tower-upload {} {}', 0));\n",
            self.schema, self.prefix
        );
        if with_schema {
            sql.push_str(&format!("CREATE SCHEMA \"{}\";\n", self.schema));
        }
        if version == 0 {
            sql.push_str(&self.fill(
                "CREATE TABLE {migrations} (\n  version bigint PRIMARY KEY,\n  \
                 applied_at timestamptz NOT NULL DEFAULT now()\n);\n",
            ));
        }
        sql.push_str(&self.fill(MIGRATIONS[version]));
        sql.push_str(&self.fill(&format!(
            "INSERT INTO {{migrations}} (version) VALUES ({});\n",
            version + 1
        )));
        sql
    }

    /// All that makes the schema from nothing, as one transaction.
    pub(super) fn sql(&self) -> String {
        let all: String = (0..MIGRATIONS.len())
            .map(|version| self.migration(version, version == 0))
            .collect();
        format!("BEGIN;\n{all}COMMIT;\n")
    }

    /// Sees to it that the schema is the one this release works with.
    pub(super) async fn prepare(&self, pool: &PgPool, migrate: bool) -> Result<()> {
        let (server, has_schema) = self.look(pool).await?;
        server.check()?;
        let mut with_schema = !has_schema;
        let mut version = self.version(pool).await?;
        while version < VERSION {
            if !migrate {
                return Err(Error::internal(format!(
                    "The schema of the metadata database has version {version}, this release works with {VERSION}; \
                     migrate it: open the store once with migrations, or run PostgresOptions::sql()"
                )));
            }
            let from = usize::try_from(version).unwrap_or_default();
            let applied = run(pool, self.migration(from, with_schema)).await;
            let before = version;
            version = self.version(pool).await?;
            let made_schema = std::mem::replace(&mut with_schema, false);
            match applied {
                Ok(()) => tracing::info!(version, schema = self.schema, "the metadata database was migrated"),
                // Another node did it in the meantime, or somebody made the schema alone.
                Err(error) if is_duplicate(&error) && (version > before || made_schema) => {}
                Err(error) if is_duplicate(&error) => {
                    let message = "There are tables or functions with the names of the store's that it did not make; \
                                   choose another schema or table prefix";
                    return Err(Error::internal(message).with_source(error));
                }
                Err(error) => return Err(translate(error)),
            }
        }
        if version > VERSION {
            return Err(Error::internal(format!(
                "The schema of the metadata database has version {version}, this release works with {VERSION}; \
                 run the release that migrated it, or a newer one"
            )));
        }
        Ok(())
    }

    async fn version(&self, pool: &PgPool) -> Result<i64> {
        let sql = self.fill("SELECT coalesce(max(version), 0)::text FROM {migrations}");
        match number(pool, sql).await {
            Ok(version) => Ok(version),
            Err(error) if is_undefined(&error) => Ok(0),
            Err(error) => Err(translate(error)),
        }
    }

    async fn look(&self, pool: &PgPool) -> Result<(Server, bool)> {
        let sql = format!(
            "SELECT current_setting('server_version_num'), current_setting('server_encoding'), \
             current_setting('fsync'), pg_is_in_recovery()::text, (to_regnamespace('\"{}\"') IS NOT NULL)::text",
            self.schema
        );
        let asked = async {
            let mut lent = Lent::from(pool).await?;
            let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(lent.connection()?).await?;
            lent.give_back();
            let server = Server {
                version: row.try_get::<String, _>(0)?.parse().unwrap_or_default(),
                encoding: row.try_get(1)?,
                syncs: row.try_get::<String, _>(2)? == "on",
                standby: row.try_get::<String, _>(3)? == "true",
            };
            Ok::<_, sqlx::Error>((server, row.try_get::<String, _>(4)? == "true"))
        };
        asked.await.map_err(translate)
    }
}

/// What must be right of a server.
struct Server {
    version: i64,
    encoding: String,
    syncs: bool,
    standby: bool,
}

impl Server {
    fn check(&self) -> Result<()> {
        if self.standby {
            return Err(Error::unavailable(
                "The metadata database is a standby; connect to the primary",
            ));
        }
        if self.version < OLDEST_SERVER {
            return Err(Error::internal("The metadata database must be PostgreSQL 12 or newer"));
        }
        if self.encoding != "UTF8" {
            return Err(Error::internal(format!(
                "The metadata database has the encoding {}; create it with ENCODING 'UTF8'",
                self.encoding
            )));
        }
        if !self.syncs {
            tracing::warn!("fsync is off in the metadata database: a crash of its machine loses acknowledged chunks");
        }
        Ok(())
    }
}

/// Many statements as one message, and so as one transaction: no dropped future leaves half of it, or it open.
async fn run(pool: &PgPool, sql: String) -> Result<(), sqlx::Error> {
    let mut lent = Lent::from(pool).await?;
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(lent.connection()?).await;
    lent.give_back();
    done.map(drop)
}

async fn number(pool: &PgPool, sql: String) -> Result<i64, sqlx::Error> {
    let mut lent = Lent::from(pool).await?;
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(lent.connection()?).await;
    lent.give_back();
    let text: String = row?.try_get(0)?;
    Ok(text.parse().unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        for bad in ["", "a-b", "A", "a\"", "a b", "1a", "pg_x", "é", &"a".repeat(64)] {
            assert!(Names::new(bad, "").is_err(), "{bad}");
        }
        for bad in ["a\"", "x.", "1", "A", &"a".repeat(51)] {
            assert!(Names::new("s", bad).is_err(), "{bad}");
        }
        assert!(Names::new("tower_upload", &"p".repeat(50)).is_ok());
    }

    #[test]
    fn every_name_is_filled_in_and_fits() {
        let names = Names::new("s", "p_").unwrap();
        let sql = names.sql();
        assert!(!sql.contains('{'), "{sql}");
        assert!(sql.contains(r#"CREATE TABLE "s"."p_uploads" ("#));
        assert!(sql.contains(r#"CREATE UNIQUE INDEX "p_uploads_name" ON "s"."p_uploads""#));
        for name in MIGRATIONS.iter().flat_map(|sql| sql.split('{').skip(1)) {
            let name = name.split('}').next().unwrap().trim_start_matches('.');
            assert!(name.len() <= LONGEST_NAME, "{name}");
        }
        assert_eq!(i64::try_from(MIGRATIONS.len()).unwrap(), VERSION);
    }
}
