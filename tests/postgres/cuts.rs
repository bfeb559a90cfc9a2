//! The connection breaks before each single message of each call, on its way there and on its way back.

use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use tower_upload::{
    ErrorKind, State,
    metadata::{PartsEdit, Updated},
};

use super::{
    proxy::{Proxy, Way},
    *,
};

/// A call that changes something, and what must be so after it, once or twice.
#[derive(Clone, Copy, Debug)]
enum Call {
    Create,
    Commit,
    Update,
    Remove,
}

impl Call {
    async fn make(self, store: &PostgresMetadata, n: u8, before: &Record) -> tower_upload::Result<&'static str> {
        match self {
            Self::Create => {
                let first = [part(0), part(1)];
                match store
                    .create(&record(n), &first, &Quota::UNLIMITED, Wake::AtExpiry)
                    .await?
                {
                    Created::New(_) => Ok("done"),
                    Created::NameTaken(record) if record.id == id(n) => Ok("was done"),
                    other => panic!("{other:?}"),
                }
            }
            Self::Commit => match store.commit(id(n), &Guard::new(1), &[part(7), part(8)]).await? {
                Committed::Done(_) => Ok("done"),
                Committed::Present(present) if present == part(7) => Ok("was done"),
                other => panic!("{other:?}"),
            },
            Self::Update => {
                let mut next = before.clone();
                next.state = State::Aborted;
                match store.update(&next, PartsEdit::Clear, Wake::Never).await? {
                    Updated::Done(_) => Ok("done"),
                    Updated::Stale => Ok("was done"),
                    other @ Updated::KeyTaken => panic!("{other:?}"),
                    other => panic!("{other:?}"),
                }
            }
            Self::Remove => Ok(if store.remove(id(n), before.version).await? {
                "done"
            } else {
                "was done"
            }),
        }
    }

    /// Whether the call is seen to have been done, wholly.
    fn seen(self, now: Option<&Snapshot>) -> bool {
        let state = |snapshot: &Snapshot| (snapshot.tally.parts, snapshot.parts.len(), snapshot.tally.revision);
        match (self, now) {
            (Self::Create | Self::Remove, None) => matches!(self, Self::Remove),
            (Self::Create, Some(now)) => {
                assert_eq!(state(now), (2, 2, 1));
                true
            }
            (Self::Commit, Some(now)) => match state(now) {
                (2, 2, 1) => false,
                (4, 4, 2) => true,
                other => panic!("half of a commit: {other:?}"),
            },
            (Self::Update, Some(now)) => match (now.record.state, state(now)) {
                (State::Open, (2, 2, 1)) => false,
                (State::Aborted, (0, 0, 2)) => true,
                other => panic!("half of an update: {other:?}"),
            },
            (Self::Remove, Some(now)) => {
                assert_eq!(state(now), (2, 2, 1));
                false
            }
            (Self::Commit | Self::Update, None) => panic!("it is gone"),
        }
    }
}

async fn cut_everywhere(pooler: bool) {
    let server = server!();
    let proxy = Proxy::to(server.port()).await;
    let schema = server.fresh_name();
    let direct = open(&server, &schema).await;
    // A pool that looks at nothing before it lends a connection: what is cut is the call.
    let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    let pool = pool.connect(&postgres_server::url(proxy.port)).await.unwrap();
    let options = options(&schema).with_transaction_pooler(pooler);
    let store = options.with_pool(pool).await.unwrap();
    let mut n = 0;
    for call in [Call::Create, Call::Commit, Call::Update, Call::Remove] {
        let (mut cuts, mut there) = (0, 0);
        for way in [Way::ToServer, Way::ToClient] {
            for at in 0.. {
                n = n % 200 + 1;
                // Statements are prepared already, as they are in a server that has run for a while.
                for (warm, n) in [(true, 250), (false, n)] {
                    let found = load(&direct, id(n)).await;
                    if let Some(found) = found {
                        direct.remove(id(n), found.record.version).await.unwrap();
                    }
                    if !matches!(call, Call::Create) {
                        Call::Create.make(&direct, n, &record(n)).await.unwrap();
                    }
                    if warm {
                        let before = load(&direct, id(n))
                            .await
                            .map_or_else(|| record(n), |found| found.record);
                        call.make(&store, n, &before).await.unwrap();
                    }
                }
                at_rest(&store).await;
                let before = load(&direct, id(n))
                    .await
                    .map_or_else(|| record(n), |found| found.record);
                proxy.cut_at(way, at);
                let answer = call.make(&store, n, &before).await;
                if answer.is_ok() {
                    // It was over before; what was cut, if anything, is the pool's look after it.
                    at_rest_or_gone(&store).await;
                    let over = proxy.calm() || at > 0;
                    assert!(over && at > 0, "the first message of {call:?} was not cut");
                    break;
                }
                cuts += 1;
                let error = answer.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{call:?} {way:?} {at}: {error:?}");
                assert!(error.retry_after().is_some());
                proxy.calm();

                // What the engine does: it reads, and asks again. What the server got may still take effect.
                let done = call.seen(load(&store, id(n)).await.as_ref());
                there += usize::from(done);
                let again = call.make(&store, n, &before).await.unwrap();
                if done {
                    assert_eq!(again, "was done", "{call:?} {way:?} {at}: done twice");
                }
                let after = load(&direct, id(n)).await;
                assert!(call.seen(after.as_ref()), "{call:?} {way:?} {at}");
                assert_eq!(call.make(&store, n, &before).await.unwrap(), "was done");
                assert_eq!(
                    load(&direct, id(n)).await,
                    after,
                    "{call:?} {way:?} {at}: the second time changed something"
                );
            }
        }
        println!("{call:?}: cut at {cuts} messages, done nevertheless in {there}");
        let least = if pooler { 5 } else { 8 };
        assert!(
            cuts >= least && there > 1 && there < cuts,
            "{call:?}: {cuts} cuts, done in {there}"
        );
    }
}

async fn at_rest_or_gone(store: &PostgresMetadata) {
    let _ = tokio::time::timeout(Duration::from_secs(5), at_rest(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_leaves_all_or_nothing_and_the_second_time_says_which() {
    cut_everywhere(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_without_prepared_statements() {
    cut_everywhere(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_connection_is_cut_is_made_again() {
    let server = server!();
    let proxy = Proxy::to(server.port()).await;
    let options = options(&server.fresh_name()).with_max_connections(1);
    let store = options.connect(&postgres_server::url(proxy.port)).await.unwrap();
    create(&store, 1).await;
    for way in [Way::ToServer, Way::ToClient] {
        load(&store, id(1)).await.unwrap();
        at_rest(&store).await;
        proxy.cut_at(way, 1);
        assert!(load(&store, id(1)).await.is_some());
        assert!(!proxy.calm(), "nothing was cut");
    }
}
