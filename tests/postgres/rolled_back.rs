//! Transactions that the server rolls back because of others: they are done again, and once in all.

use std::time::Duration;

use tower_upload::ErrorKind;

use super::*;

/// Makes the next `times` insertions of a part fail with `code`, and counts all that were tried: a sequence is not rolled back.
async fn refuse(pool: &PgPool, schema: &str, times: u32, code: &str) {
    run(
        pool,
        format!(
            "DROP SEQUENCE IF EXISTS {schema}.tried;
             CREATE SEQUENCE {schema}.tried;
             CREATE OR REPLACE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               IF nextval('{schema}.tried') <= {times} THEN
                 RAISE EXCEPTION 'rolled back because of others' USING ERRCODE = '{code}';
               END IF;
               RETURN NEW;
             END $$;
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON {schema}.parts
             FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse()"
        ),
    )
    .await;
}

async fn tried(pool: &PgPool, schema: &str) -> String {
    ask(pool, format!("SELECT last_value FROM {schema}.tried")).await
}

#[tokio::test]
async fn a_call_is_made_again_a_few_times() {
    let server = server!();
    let schema = server.fresh_name();
    let store = open(&server, &schema).await;
    let id = create(&store, 1).await.id;
    for (number, code) in [(1, "40001"), (2, "40P01")] {
        refuse(store.pool(), &schema, 3, code).await;
        let committed = put(&store, id, number).await.unwrap();
        assert!(
            matches!(committed, Committed::Done(tally) if tally.parts == number),
            "{committed:?}"
        );
        assert_eq!(tried(store.pool(), &schema).await, "4", "{code}");

        refuse(store.pool(), &schema, u32::MAX, code).await;
        let error = put(&store, id, 9).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(tried(store.pool(), &schema).await, "4", "{code}");
    }
    // What fails for another reason fails again: it is asked once.
    refuse(store.pool(), &schema, u32::MAX, "23514").await;
    let error = put(&store, id, 9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
    assert_eq!(tried(store.pool(), &schema).await, "1");
    let found = load(&store, id).await.unwrap();
    assert_eq!((found.tally.parts, found.parts.len()), (2, 2));
}

/// The server ends a deadlock by rolling the store's transaction back.
#[tokio::test]
async fn a_deadlock_is_nobodys_trouble() {
    let server = server!();
    let schema = server.fresh_name();
    let store = Arc::new(open(&server, &schema).await);
    let id = create(&store, 1).await.id;
    let mut other = sqlx::PgPool::connect(&server.url())
        .await
        .unwrap()
        .acquire()
        .await
        .unwrap();
    let locks = format!("BEGIN; SET LOCAL deadlock_timeout = '60s'; LOCK TABLE {schema}.usage IN EXCLUSIVE MODE");
    sqlx::raw_sql(AssertSqlSafe(locks)).execute(&mut *other).await.unwrap();
    let committing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { put(&store, id, 0).await }
    });
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}%commit_v1%' AND pid <> pg_backend_pid()"
    );
    while ask(store.pool(), waits.clone()).await != "1" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It has the upload and waits for the usage; here it is the other way round.
    let crossed = format!("SELECT 1 FROM {schema}.uploads WHERE id = '{id}' FOR UPDATE");
    let crossed = sqlx::raw_sql(AssertSqlSafe(crossed)).execute(&mut *other);
    tokio::time::timeout(Duration::from_secs(30), crossed)
        .await
        .unwrap()
        .unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut *other).await.unwrap();
    let committed = committing.await.unwrap().unwrap();
    assert!(
        matches!(committed, Committed::Done(tally) if tally.parts == 1),
        "{committed:?}"
    );
    assert_eq!(load(&store, id).await.unwrap().parts.len(), 1);
}
