//! Bugs in the functions of the schema, planted in a store that is thrown away: the tests see each one.

use std::future::Future;

use tower_upload::conformance::metadata as suite;

use super::*;

/// A function, what is in it, and what is there instead.
#[derive(Clone, Copy, Debug)]
pub struct Bug(&'static str, &'static str, &'static str);

impl Bug {
    pub async fn plant(self, store: &PostgresMetadata, schema: &str) {
        let Self(function, from, to) = self;
        let text = ask(
            store.pool(),
            format!(
                "SELECT pg_get_functiondef(oid) FROM pg_proc \
                 WHERE proname = '{function}' AND pronamespace = '{schema}'::regnamespace"
            ),
        )
        .await;
        assert!(text.contains(from), "{from} is not in {text}");
        run(store.pool(), text.replace(from, to)).await;
    }
}

async fn seen<F: Future<Output = ()> + Send + 'static>(bug: Bug, test: impl Fn(suite::Store) -> F) {
    let server = server!();
    // A race may be missed once.
    for _ in 0..5 {
        let schema = server.fresh_name();
        let store = open(&server, &schema).await;
        bug.plant(&store, &schema).await;
        if tokio::spawn(test(Arc::new(store))).await.is_err() {
            return;
        }
    }
    panic!("{bug:?} is not seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_that_does_not_lock_the_upload_is_seen() {
    seen(
        Bug("commit_v1", " FOR UPDATE;", ";"),
        suite::no_commit_after_leaving_open,
    )
    .await;
    seen(
        Bug("commit_v1", " FOR UPDATE;", ";"),
        suite::a_part_is_inserted_once_under_a_race,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_update_that_does_not_lock_the_upload_is_seen() {
    seen(
        Bug("update_v1", " FOR UPDATE;", ";"),
        suite::an_update_needs_the_present_version,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn quotas_that_are_not_asked_for_one_by_one_are_seen() {
    let bug = Bug("over_v1", "pg_advisory_xact_lock(", "concat(");
    seen(bug, suite::quota_is_exact_on_create).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn due_records_that_are_not_locked_are_seen() {
    let bug = Bug("due_v1", " FOR UPDATE SKIP LOCKED", "");
    seen(bug, suite::due_gives_a_record_to_one_alone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_looked_up_by_reading_all_are_seen() {
    let server = server!();
    let schema = server.fresh_name();
    let store = options(&schema)
        .with_max_connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    Bug("commit_v1", "t.number = (", "t.number + 0 = (")
        .plant(&store, &schema)
        .await;
    let touched = super::cost::pages_touched(&store, &schema).await;
    assert!(touched[2].1 > touched[0].1 + 10, "{touched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_that_disagrees_with_the_record_is_seen() {
    let server = server!();
    for bug in [
        Bug("stamp_v1", "NOT u.waits OR ", ""),
        Bug("stamp_v1", "u.expires_at := NULL;", ""),
        Bug(
            "stamp_v1",
            "least(u.due_at, u.expires_at)",
            "coalesce(u.due_at, u.expires_at)",
        ),
        Bug("commit_v1", "expire_after / 16", "expire_after / 8"),
        Bug("commit_v1", "u.attempts := 0;", ""),
        Bug("commit_v1", "u.version := old.version + 1;", ""),
        Bug("commit_v1", "OR old.size <> whole", ""),
        Bug("commit_v1", "ORDER BY given.place", "ORDER BY given.place DESC"),
        Bug("update_v1", "gone_bytes := old.bytes;", ""),
        Bug("update_v1", "t.named AND", ""),
        Bug("charge_v1", "t.bytes + excluded.bytes", "t.bytes"),
        Bug("reserved_v1", "'open', 'assembling'", "'open'"),
    ] {
        let server = Arc::clone(&server);
        let mut caught = false;
        for seed in 0..8 {
            let server = Arc::clone(&server);
            let compared = tokio::spawn(async move { super::compare::compare(&server, seed, 400, Some(bug)).await });
            if compared.await.is_err() {
                caught = true;
                break;
            }
        }
        assert!(caught, "{bug:?} is not seen");
    }
}
