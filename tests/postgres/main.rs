//! `PostgresMetadata` on a real PostgreSQL: the conformance suite, random comparison with the store in memory, races
//! between nodes, crashes, cut connections, poolers, and what a call costs.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    clippy::exhaustive_structs,
    clippy::exhaustive_enums
)]

#[path = "../postgres_server/mod.rs"]
mod postgres_server;
#[path = "../told/mod.rs"]
mod told;

mod compare;
mod cost;
mod crash;
mod cuts;
mod failover;
mod nodes;
mod planted;
mod pooler;
mod proxy;
mod rolled_back;
mod schema;
mod sequence;
mod suite;
#[cfg(feature = "postgres-tls")]
mod tls;

use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgPool, Row as _};
use tower_upload::{
    FileName, Key, Owner, UploadId,
    metadata::{Committed, Created, Guard, Lookup, MetadataStore, PartRange, PostgresMetadata, PostgresOptions, Quota},
    upload::{Handle, Part, Plan, Receipt, Record, Snapshot, Wake},
};

use postgres_server::Server;

/// A server, or the test ends here.
macro_rules! server {
    () => {
        match crate::postgres_server::shared() {
            Some(server) => server,
            None => return,
        }
    };
}
pub(crate) use server;

async fn open(server: &Server, schema: &str) -> PostgresMetadata {
    options(schema).connect(&server.url()).await.unwrap()
}

fn options(schema: &str) -> PostgresOptions {
    PostgresOptions::default().with_schema(schema)
}

fn id(n: u8) -> UploadId {
    UploadId::from_bytes([n; 16])
}

fn record(n: u8) -> Record {
    let name = format!("f{n}.mp4");
    let mut record = Record::new(
        id(n),
        Owner::new("ann"),
        FileName::parse(&name).unwrap(),
        Key::parse(&name).unwrap(),
        Plan::indexed(100_000, Some(10), None),
        Handle::new("h"),
    );
    record.named = true;
    record
}

fn part(number: u32) -> Part {
    Part::new(
        number,
        10,
        u64::MAX - u64::from(number),
        Receipt::new(format!("r{number}")),
    )
}

async fn create(store: &PostgresMetadata, n: u8) -> Record {
    let created = store.create(&record(n), &[], &Quota::UNLIMITED, Wake::AtExpiry).await;
    match created.unwrap() {
        Created::New(record) => record,
        other => panic!("{other:?}"),
    }
}

async fn put(store: &PostgresMetadata, id: UploadId, number: u32) -> tower_upload::Result<Committed> {
    store.commit(id, &Guard::new(1), &[part(number)]).await
}

async fn load(store: &PostgresMetadata, id: UploadId) -> Option<Snapshot> {
    store.load(Lookup::Id(id), PartRange::ALL).await.unwrap()
}

/// What a statement gives, as text.
async fn ask(pool: &PgPool, sql: impl Into<String>) -> String {
    let row = sqlx::raw_sql(AssertSqlSafe(sql.into())).fetch_one(pool).await.unwrap();
    row.try_get_unchecked::<Option<String>, _>(0)
        .unwrap()
        .unwrap_or_default()
}

async fn run(pool: &PgPool, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(pool).await.unwrap();
}

/// Waits until the pool has looked after its connections.
async fn at_rest(store: &PostgresMetadata) {
    while store.pool().num_idle() < store.pool().size() as usize {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| make(self))
    }
}

/// Runs a server for people: `cargo test … -- --ignored --nocapture serve`.
#[test]
#[ignore = "runs until Enter is pressed"]
fn serve() {
    let server: Arc<Server> = server!();
    println!("{}", server.url());
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
