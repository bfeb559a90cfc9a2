//! Migrations, and databases that are not as they should be.

use sqlx::postgres::PgPoolOptions;
use tower_upload::{
    Digest, ErrorKind, State, Target,
    metadata::{PartsEdit, Updated},
    upload::{HashState, Tally},
};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_start_at_once_migrate_once() {
    let server = server!();
    for _ in 0..5 {
        let schema = server.fresh_name();
        let starting = (0..3).map(|_| {
            let (server, schema) = (Arc::clone(&server), schema.clone());
            tokio::spawn(async move { open(&server, &schema).await })
        });
        let nodes = futures_util::future::join_all(starting).await;
        let nodes: Vec<_> = nodes.into_iter().map(Result::unwrap).collect();
        create(&nodes[0], 1).await;
        assert!(load(&nodes[2], id(1)).await.is_some());
        let versions = format!("SELECT string_agg(version::text, ',') FROM {schema}.migrations");
        assert_eq!(ask(nodes[1].pool(), versions).await, "1");
        // Once more, and all is as it was.
        assert!(load(&open(&server, &schema).await, id(1)).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_somebody_else_are_left_alone() {
    let server = server!();
    let schema = server.fresh_name();
    let pool = PgPoolOptions::new().connect(&server.url()).await.unwrap();
    run(
        &pool,
        format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.parts (mine text)"),
    )
    .await;
    let error = options(&schema).connect(&server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("another schema or table prefix"), "{error:?}");
    let left = format!("SELECT count(*)::text FROM pg_tables WHERE schemaname = '{schema}'");
    assert_eq!(ask(&pool, left).await, "1");
    options(&schema)
        .with_table_prefix("up_")
        .connect(&server.url())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_a_newer_release_is_refused() {
    let server = server!();
    let schema = server.fresh_name();
    let store = open(&server, &schema).await;
    run(
        store.pool(),
        format!("INSERT INTO {schema}.migrations (version) VALUES (99)"),
    )
    .await;
    let error = options(&schema).connect(&server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("version 99"), "{error}");
    assert!(error.message().contains("run the release that migrated it"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_release_is_refused() {
    let server = server!();
    let schema = server.fresh_name();
    let store = open(&server, &schema).await;
    for n in 1..=2 {
        let created = store
            .create(
                &record(n),
                &[],
                &Quota::UNLIMITED,
                Wake::After(std::time::Duration::ZERO),
            )
            .await;
        created.unwrap();
    }
    run(
        store.pool(),
        format!("UPDATE {schema}.uploads SET format = 2 WHERE id = '{}'", id(1)),
    )
    .await;
    let error = store.load(Lookup::Id(id(1)), PartRange::ALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(
        error.message().contains("format 2, this release reads format 1"),
        "{error}"
    );
    // It does not keep others from their turn.
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let due = store.due(std::time::Duration::from_secs(9), 9).await.unwrap();
    assert_eq!(due.iter().map(|record| record.id).collect::<Vec<_>>(), [id(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_migrations_the_schema_must_be_there_and_sql_makes_it() {
    let server = server!();
    let schema = server.fresh_name();
    let options = options(&schema).with_table_prefix("t_").with_migrations(false);
    let error = options.clone().connect(&server.url()).await.unwrap_err();
    assert!(error.message().contains("version 0"), "{error}");
    let pool = PgPoolOptions::new().connect(&server.url()).await.unwrap();
    run(&pool, options.sql().unwrap()).await;

    // A user who may use the store and no more.
    run(
        &pool,
        format!(
            "CREATE ROLE user_{schema} LOGIN; GRANT USAGE ON SCHEMA {schema} TO user_{schema}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO user_{schema}; \
             GRANT USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} TO user_{schema}"
        ),
    )
    .await;
    let url = server.url().replace(postgres_server::USER, &format!("user_{schema}"));
    let store = options.connect(&url).await.unwrap();
    create(&store, 1).await;
    assert!(matches!(put(&store, id(1), 0).await.unwrap(), Committed::Done(_)));
    let error = super::options("not_mine").connect(&url).await.unwrap_err();
    assert!(error.message().contains("grant"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unfit_settings_are_refused_or_put_right() {
    let server = server!();
    let schema = server.fresh_name();
    open(&server, &schema).await;
    let with = |setting: &str| format!("{}&options=-c%20{setting}", server.url());

    let isolated = with("default_transaction_isolation=serializable");
    let store = options(&schema).connect(&isolated).await.unwrap();
    let error = store
        .create(&record(1), &[], &Quota::UNLIMITED, Wake::Keep)
        .await
        .unwrap_err();
    assert!(error.message().contains("READ COMMITTED"), "{error}");

    let read_only = with("default_transaction_read_only=on");
    let store = options(&schema).connect(&read_only).await.unwrap();
    let error = store
        .create(&record(1), &[], &Quota::UNLIMITED, Wake::Keep)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("read-only"), "{error}");

    // An acknowledged write is durable whatever the default.
    let store = options(&schema).connect(&with("synchronous_commit=off")).await.unwrap();
    let mut transaction = store.pool().begin().await.unwrap();
    let sync = async |transaction: &mut sqlx::PgConnection| {
        let row = sqlx::raw_sql("SHOW synchronous_commit")
            .fetch_one(transaction)
            .await
            .unwrap();
        row.get::<String, _>(0)
    };
    assert_eq!(sync(&mut transaction).await, "off");
    let call = format!(
        "SELECT {schema}.remove_v1('{{\"id\": \"{}\", \"version\": 1}}')::text",
        id(1)
    );
    sqlx::raw_sql(AssertSqlSafe(call))
        .execute(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(sync(&mut transaction).await, "on");
    transaction.rollback().await.unwrap();

    let pool = PgPoolOptions::new().connect(&server.url()).await.unwrap();
    run(&pool, "DROP DATABASE IF EXISTS latin").await;
    run(&pool, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0").await;
    let error = options(&schema)
        .connect(&server.url().replace("/postgres?", "/latin?"))
        .await
        .unwrap_err();
    assert!(error.message().contains("UTF8"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_to_do_and_no_password() {
    let server = server!();
    let secret = "h4rd-to-guess";
    let port = postgres_server::free_port();
    let nowhere = format!("postgres://ann:{secret}@127.0.0.1:{port}/db");
    let nobody = server
        .url()
        .replace(&format!("{}@", postgres_server::USER), &format!("nobody:{secret}@"));
    let no_tls = server
        .url()
        .replace("sslmode=disable", "sslmode=require")
        .replace('@', &format!(":{secret}@"));
    let quick = || PostgresOptions::default().with_connection_wait(std::time::Duration::from_millis(300));
    for (url, kind, said) in [
        (nowhere.as_str(), ErrorKind::Unavailable, "cannot be reached"),
        (nobody.as_str(), ErrorKind::Unavailable, "user or password"),
        (no_tls.as_str(), ErrorKind::Unavailable, "TLS"),
        ("mysql://ann:h4rd-to-guess@host/db", ErrorKind::Invalid, "postgres://"),
        (
            "postgres://ann:h4rd-to-guess@host:port/db",
            ErrorKind::Invalid,
            "postgres://",
        ),
    ] {
        let error = quick().connect(url).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.message().contains(said), "{error:?}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
        if kind == ErrorKind::Unavailable {
            assert!(error.retry_after().is_some());
        }
    }
    let store = open(&server, &server.fresh_name()).await;
    assert!(!format!("{store:?}").contains("127.0.0.1"), "{store:?}");
}

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/postgres-schema-1.sql");

/// As they were given to version 1 of the schema; the times are those of the day it was written.
fn fixture_records() -> [Record; 2] {
    let mut full = record(1);
    full.owner = Owner::new("ann\\ \u{1F600}");
    full.target = Some(Target::parse("video 7").unwrap());
    full.metadata.insert("naïve \"key\"".into(), "välue\n\0".into());
    full.notes.insert("note".into(), "kept".into());
    full.plan = Plan::indexed(3, None, Some(25));
    full.epoch = 4;
    full.checksum = Some(Digest::crc64(u64::MAX - 1));
    full.expire_after = Some(std::time::Duration::new(86_400, 5));
    let mut ended = record(2);
    ended.plan = Plan::sequential(None);
    ended.failure = Some("because".into());
    [full, ended]
}

/// `cargo test … -- --ignored write_the_fixture`, once for each version of the schema.
#[tokio::test]
#[ignore = "writes tests/fixtures/postgres-schema-1.sql"]
async fn write_the_fixture() {
    let server = server!();
    let options = PostgresOptions::default().with_schema("golden");
    let store = options.clone().connect(&server.url()).await.unwrap();
    let [full, ended] = fixture_records();
    store
        .create(&full, &[part(2)], &Quota::UNLIMITED, Wake::AtExpiry)
        .await
        .unwrap();
    let mut guard = Guard::new(4);
    guard.pin = Some(10);
    guard.hash = Some(HashState::new(10, vec![0, 255, 7]));
    store.commit(full.id, &guard, &[part(0)]).await.unwrap();
    let created = store
        .create(&ended, &[], &Quota::UNLIMITED, Wake::AtExpiry)
        .await
        .unwrap();
    let Created::New(mut ended) = created else {
        panic!("{created:?}")
    };
    ended.state = State::Failed;
    ended.key_held = false;
    store.update(&ended, PartsEdit::Keep, Wake::Never).await.unwrap();

    let mut dump = options.sql().unwrap();
    for table in ["uploads", "parts", "usage"] {
        let rows = format!(
            "SELECT coalesce(string_agg(format('INSERT INTO golden.{table} SELECT (%L::golden.{table}).*;', t), \
             E'\\n' ORDER BY t::text), '') FROM golden.{table} t"
        );
        dump.push_str(&ask(store.pool(), rows).await);
        dump.push('\n');
    }
    dump.push_str("SELECT setval('golden.sequence', 2);\n");
    std::fs::write(FIXTURE, dump).unwrap();
    run(store.pool(), "DROP SCHEMA golden CASCADE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_release_wrote_is_read() {
    let server = server!();
    let schema = server.fresh_name();
    let pool = PgPoolOptions::new().connect(&server.url()).await.unwrap();
    let dump = std::fs::read_to_string(FIXTURE).unwrap();
    run(&pool, dump.replace("golden", &schema)).await;
    let store = open(&server, &schema).await;

    let [mut full, mut ended] = fixture_records();
    let stored = load(&store, full.id).await.unwrap();
    full.version = stored.record.version;
    full.plan.chunk_size = Some(10);
    full.hash = Some(HashState::new(10, vec![0, 255, 7]));
    (full.created_at, full.expires_at, full.due_at) =
        (stored.record.created_at, stored.record.expires_at, stored.record.due_at);
    assert_eq!(stored.record, full);
    assert_eq!(full.version.get(), 2);
    assert_eq!(full.expires_at.unwrap().since(full.created_at).as_secs(), 86_400);
    assert_eq!(stored.parts, [part(0), part(2)]);
    let Tally {
        parts, bytes, revision, ..
    } = stored.tally;
    assert_eq!((parts, bytes, revision), (2, 20, 2));

    let stored = load(&store, ended.id).await.unwrap().record;
    ended.version = stored.version;
    ended.created_at = stored.created_at;
    (ended.state, ended.key_held) = (State::Failed, false);
    assert_eq!(stored, ended);

    // And goes on.
    let mut guard = Guard::new(4);
    guard.seal = Some(std::time::Duration::from_secs(9));
    let last = Part::new(1, 5, 5, Receipt::new("last"));
    assert!(matches!(
        store.commit(full.id, &guard, &[last]).await.unwrap(),
        Committed::Done(_)
    ));
    let next = load(&store, full.id).await.unwrap().record;
    assert!(matches!(
        store.update(&next, PartsEdit::Clear, Wake::Never).await.unwrap(),
        Updated::Done(_)
    ));
    let by_name = Lookup::Name(&full.owner, full.target.as_ref(), &full.file_name);
    assert_eq!(
        store.load(by_name, PartRange::ALL).await.unwrap().unwrap().tally.bytes,
        0
    );
    create(&store, 3).await;
}
