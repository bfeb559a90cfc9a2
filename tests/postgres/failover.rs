//! The primary dies and a standby takes its place.

use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use tower_upload::ErrorKind;

use super::{proxy::Proxy, *};

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_no_primary_until_it_is_promoted() {
    let Some(primary) = postgres_server::start() else {
        return;
    };
    let standby = primary.standby();
    let pool = PgPoolOptions::new().connect(&primary.url()).await.unwrap();
    run(&pool, "ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    run(&pool, "SELECT pg_reload_conf()").await;
    while ask(
        &pool,
        "SELECT count(*)::text FROM pg_stat_replication WHERE sync_state = 'sync'",
    )
    .await
        != "1"
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(pool);

    // What a virtual address does.
    let proxy = Proxy::to(primary.port()).await;
    let url = postgres_server::url(proxy.port);
    let quick = options("nodes")
        .with_max_connections(1)
        .with_connection_wait(Duration::from_secs(1));
    let store = quick.clone().connect(&url).await.unwrap();
    create(&store, 1).await;
    for number in 0..20 {
        assert!(matches!(put(&store, id(1), number).await.unwrap(), Committed::Done(_)));
    }
    let error = quick.connect(&standby.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("standby"), "{error}");

    primary.kill();
    proxy.lead_to(standby.port());
    // The first one meets a dead connection; then it is the standby that answers, to reads too.
    let _ = put(&store, id(1), 20).await.unwrap_err();
    let put_there = put(&store, id(1), 20).await.unwrap_err();
    let read_there = store.load(Lookup::Id(id(1)), PartRange::ALL).await.unwrap_err();
    for error in [put_there, read_there] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains("read-only"), "{error:?}");
    }
    // The primary comes back: no connection to the standby is kept.
    primary.restart();
    proxy.lead_to(primary.port());
    assert!(matches!(put(&store, id(1), 20).await.unwrap(), Committed::Done(_)));

    // And goes for good.
    primary.kill();
    proxy.lead_to(standby.port());
    let pool = PgPoolOptions::new().connect(&standby.url()).await.unwrap();
    run(&pool, "ALTER SYSTEM SET synchronous_standby_names = ''").await;
    assert_eq!(ask(&pool, "SELECT pg_promote()::text").await, "true");
    let began = Instant::now();
    while let Err(error) = put(&store, id(1), 21).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{error:?}");
    }
    let there: Vec<u32> = load(&store, id(1))
        .await
        .unwrap()
        .parts
        .iter()
        .map(|part| part.number)
        .collect();
    assert_eq!(there, (0..=21).collect::<Vec<_>>());
}
