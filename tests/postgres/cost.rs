//! What calls cost: round trips, counted on the wire, and what the database touches for a commit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use tower_upload::{
    Address, Caller, FileName, NewChunk, State, Target, Uploads,
    access::OwnerOnly,
    blob::MemoryBlobs,
    metadata::{Page, PartsEdit},
};

use super::{proxy::Proxy, *};

/// Makes every call twice, so that the second time nothing is left to prepare; round trips of that one.
async fn round_trips(pooler: bool) -> Vec<(&'static str, usize)> {
    let Some(server) = postgres_server::shared() else {
        return Vec::new();
    };
    let proxy = Proxy::to(server.port()).await;
    let options = options(&server.fresh_name())
        .with_max_connections(1)
        .with_transaction_pooler(pooler);
    let store = options.connect(&postgres_server::url(proxy.port)).await.unwrap();
    let parts: Vec<Part> = (0..500).map(part).collect();
    let mut trips = Vec::new();
    for n in 0..2 {
        trips.clear();
        let mut count = async |name| {
            at_rest(&store).await;
            trips.push((name, proxy.take().round_trips()));
        };
        count("before").await;
        let mut quota = Quota::UNLIMITED;
        quota.bytes = Some(1 << 40);
        let created = store
            .create(&record(n), &parts[..2], &quota, Wake::AtExpiry)
            .await
            .unwrap();
        let Created::New(record) = created else {
            panic!("{created:?}")
        };
        count("create with 2 parts and a quota").await;
        let mut guard = Guard::new(1);
        guard.quota = quota;
        store.commit(id(n), &guard, &parts[2..3]).await.unwrap();
        count("commit of 1 part").await;
        store.commit(id(n), &guard, &parts[3..]).await.unwrap();
        count("commit of 497 parts").await;
        load(&store, id(n)).await.unwrap();
        count("load with 500 parts").await;
        store
            .update(&record, PartsEdit::Clear, Wake::After(Duration::ZERO))
            .await
            .unwrap();
        count("update").await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        let due = store.due(Duration::ZERO, 5).await.unwrap();
        count("due").await;
        store.list(None, Page::new(0, 10)).await.unwrap();
        count("list").await;
        assert!(store.remove(id(n), due[0].version).await.unwrap());
        count("remove").await;
    }
    trips.remove(0);
    trips
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_one_round_trip() {
    for pooler in [false, true] {
        let trips = round_trips(pooler).await;
        println!("pooler {pooler}: {trips:?}");
        assert!(trips.iter().all(|(_, trips)| *trips == 1), "{trips:?}");
    }
}

/// (Parts there, median and most pages that the database touches for one more commit), by a session that made its plans
/// when the tables were empty.
pub async fn pages_touched(store: &PostgresMetadata, schema: &str) -> Vec<(u32, u64, u64)> {
    run(
        store.pool(),
        format!("ALTER TABLE {schema}.parts SET (autovacuum_enabled = off)"),
    )
    .await;
    create(store, 0).await;
    for number in 0..10 {
        put(store, id(0), number).await.unwrap();
    }
    create(store, 1).await;
    let (mut touched, mut there) = (Vec::new(), 0_u32);
    for many in [10, 1_000, 10_000] {
        let parts: Vec<Part> = (there..many).map(part).collect();
        store.commit(id(1), &Guard::new(1), &parts).await.unwrap();
        let mut pages = Vec::new();
        for number in many..many + 20 {
            let part = serde_json::json!({ "number": number, "len": 10, "crc64": 0, "receipt": "r" });
            let call = serde_json::json!({
                "id": id(1), "epoch": 1, "parts": [part], "added_parts": 1, "added_bytes": 10,
            });
            let plan = ask(
                store.pool(),
                format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT {schema}.commit_v1('{call}')"),
            )
            .await;
            let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
            let plan = &plan[0]["Plan"];
            let count = |name: &str| plan[name].as_u64().unwrap();
            pages.push(count("Shared Hit Blocks") + count("Shared Read Blocks"));
        }
        there = many + 20;
        pages.sort_unstable();
        touched.push((many, pages[10], pages[19]));
    }
    assert_eq!(load(store, id(1)).await.unwrap().tally.parts, 10_020);
    touched
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_touches_as_much_at_10_parts_as_at_10_000() {
    let server = server!();
    let schema = server.fresh_name();
    let store = options(&schema)
        .with_max_connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    let touched = pages_touched(&store, &schema).await;
    println!("(parts there, median and most pages touched by one more commit): {touched:?}");
    assert!(touched[2].1 <= touched[0].1 + 10, "{touched:?}");
}

/// Latency for people: `cargo test --release … -- --ignored --nocapture commits_take`. The server does not sync here.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn commits_take() {
    let server = server!();
    let store = open(&server, &server.fresh_name()).await;
    create(&store, 1).await;
    let mut there = 0;
    for many in [10_u32, 1_000, 10_000] {
        let parts: Vec<Part> = (there..many).map(part).collect();
        store.commit(id(1), &Guard::new(1), &parts).await.unwrap();
        let mut took = Vec::new();
        for number in many..many + 200 {
            at_rest(&store).await;
            let began = Instant::now();
            put(&store, id(1), number).await.unwrap();
            took.push(began.elapsed());
        }
        there = many + 200;
        took.sort_unstable();
        println!("{many} parts: median {:?}, 90 % {:?}", took[100], took[180]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trips_of_a_small_upload() {
    let server = server!();
    let proxy = Proxy::to(server.port()).await;
    let options = options(&server.fresh_name()).with_max_connections(1);
    let store = options.connect(&postgres_server::url(proxy.port)).await.unwrap();
    let pool = store.pool().clone();
    let uploads = Uploads::with(MemoryBlobs::new(), store)
        .authorizer(OwnerOnly)
        .build()
        .await
        .unwrap();
    let ann = Caller::new("ann");
    let mut trips = Vec::new();
    // The first warms up; of the second and third the smaller is told, as the driver may look in between.
    for n in 0..3 {
        let (target, name) = (
            Target::parse("v").unwrap(),
            FileName::parse(&format!("{n}.mp4")).unwrap(),
        );
        let to = Address::Name(Some(&target), &name);
        let settle = async || {
            while pool.num_idle() < pool.size() as usize {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            proxy.take().round_trips()
        };
        settle().await;
        let body = || stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"small"))]);
        uploads
            .put_chunk(&ann, to, NewChunk::new(0).total(2), body())
            .await
            .unwrap();
        let first = settle().await;
        uploads
            .put_chunk(&ann, to, NewChunk::new(1).total(2), body())
            .await
            .unwrap();
        let second = settle().await;
        let upload = uploads.assemble(&ann, to, None).await.unwrap();
        let assembly = settle().await;
        assert_eq!(upload.state(), State::Assembled);
        trips.push([first, second, assembly]);
    }
    let least: Vec<usize> = (0..3).map(|at| trips[1][at].min(trips[2][at])).collect();
    println!("round trips of an upload of two chunks: first, second, assembly: {least:?}");
    assert!(least.iter().sum::<usize>() <= 14, "{trips:?}");
}
