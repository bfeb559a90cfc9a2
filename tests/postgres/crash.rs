//! The database is killed, and calls are dropped.

use std::time::Duration;

use tower_upload::ErrorKind;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_survives_the_database() {
    let Some(server) = postgres_server::start() else { return };
    let schema = server.fresh_name();
    let store = Arc::new(open(&server, &schema).await);
    for n in 0..4 {
        create(&store, n).await;
    }
    for round in 0..3_u32 {
        let writers: Vec<_> = (0..4_u8)
            .map(|n| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let mut acknowledged = Vec::new();
                    for k in 0.. {
                        let number = round * 10_000 + k;
                        match put(&store, id(n), number).await {
                            Ok(Committed::Done(_)) => acknowledged.push(number),
                            Ok(other) => panic!("{other:?}"),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                                assert!(error.retry_after().is_some());
                                return (acknowledged, number);
                            }
                        }
                    }
                    unreachable!("the server is killed")
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        let ended = futures_util::future::join_all(writers).await;
        server.restart();
        let mut sum = 0;
        for (n, ended) in (0..).zip(ended) {
            let (acknowledged, unknown) = ended.unwrap();
            sum += acknowledged.len();
            // The store is the same; its pool finds out by itself.
            let stored = load(&store, id(n)).await.unwrap();
            for number in &acknowledged {
                assert!(
                    stored.parts.iter().any(|part| part.number == *number),
                    "part {number} is lost"
                );
            }
            let there = stored.parts.iter().any(|part| part.number == unknown);
            let mut tries = 0;
            let answer = loop {
                match put(&store, id(n), unknown).await {
                    Ok(answer) => break answer,
                    // It met a connection that is not known to be dead.
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                        tries += 1;
                        assert!(tries < 3, "{error:?}");
                    }
                }
            };
            match answer {
                Committed::Done(_) => assert!(!there),
                Committed::Present(present) => assert!(there && present == part(unknown)),
                other => panic!("{other:?}"),
            }
        }
        println!("round {round}: {sum} acknowledged, none lost");
        assert!(sum > 20, "{sum}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dropped_calls_leave_no_transaction_and_no_connection_behind() {
    let server = server!();
    let schema = server.fresh_name();
    let options = options(&schema).with_max_connections(3);
    let url = format!("{}&application_name={schema}", server.url());
    let store = Arc::new(options.connect(&url).await.unwrap());
    create(&store, 1).await;
    // Somebody holds the row, so that calls wait in the database.
    let mut holder = open(&server, &schema).await.pool().begin().await.unwrap();
    let lock = format!("SELECT 1 FROM {schema}.uploads FOR UPDATE");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *holder).await.unwrap();
    for number in 0..20 {
        let put = put(&store, id(1), number);
        assert!(tokio::time::timeout(Duration::from_millis(30), put).await.is_err());
    }
    holder.rollback().await.unwrap();
    // What still runs there ends, each wholly or not at all.
    let watcher = open(&server, &server.fresh_name()).await;
    let busy =
        format!("SELECT count(*)::text FROM pg_stat_activity WHERE application_name = '{schema}' AND state <> 'idle'");
    let began = std::time::Instant::now();
    while ask(watcher.pool(), busy.as_str()).await != "0" {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stored = load(&store, id(1)).await.unwrap();
    assert_eq!(stored.tally.parts as usize, stored.parts.len());
    assert_eq!(stored.tally.revision, u64::from(stored.tally.parts) + 1);
    assert!(matches!(put(&store, id(1), 100).await.unwrap(), Committed::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_else_keeps_is_not_waited_for_for_ever() {
    let server = server!();
    let schema = server.fresh_name();
    let store = open(&server, &schema).await;
    create(&store, 1).await;
    let mut holder = store.pool().begin().await.unwrap();
    let lock = format!("SELECT 1 FROM {schema}.uploads FOR UPDATE");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *holder).await.unwrap();
    let error = put(&store, id(1), 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("busy"), "{error}");
    holder.rollback().await.unwrap();
    assert!(matches!(put(&store, id(1), 0).await.unwrap(), Committed::Done(_)));
}
