//! The sequence that numbers uploads, behind the table: where the rows came by logical replication, or out of a dump of some tables.

use std::time::Duration;

use tower_upload::metadata::Page;

use super::*;

/// Creates the uploads `numbers` all at once, which must not take long; none of them goes on in the server.
async fn create_all(store: &PostgresMetadata, schema: &str, numbers: std::ops::Range<u8>) {
    let creating = futures_util::future::join_all(numbers.map(|n| create(store, n)));
    let created = tokio::time::timeout(Duration::from_secs(20), creating).await;
    let active = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{schema}%create_v1%' AND pid <> pg_backend_pid()"
    );
    assert_eq!(ask(store.pool(), active).await, "0", "calls that do not end");
    created.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_behind_the_table_catches_up() {
    let server = server!();
    let schema = server.fresh_name();
    let store = open(&server, &schema).await;
    let behind = format!("SELECT setval('{schema}.sequence', 1, false)");

    // By one: it is passed over; by a few, with many who create; by more than can be counted up.
    create_all(&store, &schema, 1..2).await;
    run(store.pool(), behind.clone()).await;
    create_all(&store, &schema, 2..4).await;
    run(store.pool(), behind.clone()).await;
    create_all(&store, &schema, 4..24).await;
    let far = 1_i64 << 50;
    run(
        store.pool(),
        format!("UPDATE {schema}.uploads SET sequence = {far} WHERE id = '{}'", id(23)),
    )
    .await;
    run(store.pool(), behind).await;
    create_all(&store, &schema, 24..44).await;

    let all = store.list(None, Page::new(0, 99)).await.unwrap();
    assert_eq!(all.len(), 43);
    let sequences = format!("SELECT count(*) FROM {schema}.uploads WHERE sequence > {far}");
    assert_ne!(ask(store.pool(), sequences).await, "0");
    // Whoever comes later is newer again.
    create_all(&store, &schema, 44..45).await;
    let newest = store.list(None, Page::new(0, 1)).await.unwrap();
    assert_eq!(newest[0].record.id, id(44));
}

/// An upload that is refused for its name or its quota heals the sequence no less, and is refused.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_stay_refusals() {
    let server = server!();
    let schema = server.fresh_name();
    let store = open(&server, &schema).await;
    create_all(&store, &schema, 1..4).await;
    let mut quota = Quota::UNLIMITED;
    quota.uploads = Some(3);
    for (n, taken) in [(3, true), (4, false)] {
        run(store.pool(), format!("SELECT setval('{schema}.sequence', 1, false)")).await;
        let given = record(n);
        let creating = store.create(&given, &[], &quota, Wake::AtExpiry);
        let created = tokio::time::timeout(Duration::from_secs(20), creating)
            .await
            .unwrap()
            .unwrap();
        match created {
            Created::NameTaken(_) => assert!(taken),
            Created::OverQuota(_) => assert!(!taken),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.list(None, Page::new(0, 9)).await.unwrap().len(), 3);
}
