//! The suite that every metadata store must pass.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use tower_upload::{
    Address, Caller, FileName, NewChunk, NewUpload, State, Target, Uploads,
    access::OwnerOnly,
    blob::{ByteRange, MemoryBlobs},
    conformance,
    metadata::{MetadataStore as _, Page},
};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes_the_suite() {
    let server = server!();
    conformance::metadata::run(async || open(&server, &server.fresh_name()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes_the_suite_without_prepared_statements() {
    let server = server!();
    conformance::metadata::run(async || {
        let options = options(&server.fresh_name()).with_transaction_pooler(true);
        options.connect(&server.url()).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_durable() {
    let server = server!();
    let schema = server.fresh_name();
    conformance::metadata::durability(async || open(&server, &schema).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_told_all_in_order_also_by_the_next_process() {
    let server = server!();
    let schema = server.fresh_name();
    told::all_is_told_in_order_also_by_the_next_process(async || open(&server, &schema).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_keep_stores_in_one_schema_apart() {
    let server = server!();
    let schema = server.fresh_name();
    let url = server.url();
    let one = options(&schema).with_table_prefix("one_").connect(&url).await.unwrap();
    let two = options(&schema).with_table_prefix("two_").connect(&url).await.unwrap();
    create(&one, 1).await;
    assert!(load(&two, id(1)).await.is_none());
    create(&two, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_engine_runs_on_it() {
    let server = server!();
    let schema = server.fresh_name();
    // Two nodes on one database and one place for bytes.
    let blobs = Arc::new(MemoryBlobs::new());
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let metadata = open(&server, &schema).await;
        let uploads = Uploads::with(Arc::clone(&blobs), metadata).authorizer(OwnerOnly);
        nodes.push(uploads.build().await.unwrap());
    }
    let ann = Caller::new("ann");
    let content: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let (target, name) = (Target::parse("video").unwrap(), FileName::parse("a.mp4").unwrap());
    let to = Address::Name(Some(&target), &name);
    // All at once, so that the first chunks race for the creation.
    let racing = (0..4_u32).map(|index| {
        let (node, ann, content) = (&nodes[index as usize % 2], &ann, &content);
        let bytes = Bytes::copy_from_slice(&content[index as usize * 1250..][..1250]);
        async move {
            let body = stream::iter([Ok::<_, std::io::Error>(bytes)]);
            node.put_chunk(ann, to, NewChunk::new(index).total(4), body)
                .await
                .unwrap()
        }
    });
    futures_util::future::join_all(racing).await;
    assert_eq!(nodes[0].list(&ann, Page::new(0, 9)).await.unwrap().len(), 1);
    let upload = nodes[1].assemble(&ann, to, None).await.unwrap();
    assert_eq!(upload.state(), State::Assembled);
    let (_, body) = nodes[0].read(&ann, upload.id(), ByteRange::ALL).await.unwrap();
    assert_eq!(body.try_collect::<Vec<_>>().await.unwrap().concat(), content);

    // Appends go on wherever the last one ended.
    let new = NewUpload::new("b.mp4").size(5_000);
    let upload = nodes[0].create(&ann, new).await.unwrap();
    for (at, bytes) in content.chunks(1_000).enumerate() {
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(bytes))]);
        let appended = nodes[at % 2].append(&ann, upload.id(), at as u64 * 1_000, body).await;
        assert_eq!(appended.unwrap().offset, (at as u64 + 1) * 1_000);
    }
    let upload = nodes[1].assemble(&ann, upload.id(), None).await.unwrap();
    assert_eq!(
        (upload.state(), upload.file_name().as_str()),
        (State::Assembled, "b.mp4")
    );
    let (_, body) = nodes[1].read(&ann, upload.id(), ByteRange::ALL).await.unwrap();
    assert_eq!(body.try_collect::<Vec<_>>().await.unwrap().concat(), content);
    for node in nodes {
        node.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_sizes_that_postgres_cannot_hold_are_refused_with_nothing_stored() {
    let server = server!();
    let store = open(&server, &server.fresh_name()).await;
    let mut nul = record(1);
    nul.owner = Owner::new("a\0b");
    let mut long = record(1);
    // Neither compressible nor short.
    let mut random = Random(7);
    long.owner = Owner::new(
        (0..6_000)
            .map(|_| char::from(b'a' + random.below(26) as u8))
            .collect::<String>(),
    );
    let mut huge = record(1);
    huge.plan.size = Some(1 << 63);
    for (record, kind) in [
        (nul, tower_upload::ErrorKind::Invalid),
        (long, tower_upload::ErrorKind::Invalid),
        (huge, tower_upload::ErrorKind::TooLarge),
    ] {
        let error = store
            .create(&record, &[], &Quota::UNLIMITED, Wake::AtExpiry)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
    }
    assert!(load(&store, id(1)).await.is_none());

    let mut odd = record(1);
    odd.metadata
        .insert("from the client".into(), "\0\u{1}\u{FFFF}\"\\u0000".into());
    odd.plan.size = Some(i64::MAX as u64);
    odd.expire_after = Some(Duration::MAX);
    let created = store
        .create(&odd, &[], &Quota::UNLIMITED, Wake::AtExpiry)
        .await
        .unwrap();
    let Created::New(created) = created else {
        panic!("{created:?}")
    };
    assert_eq!(created.metadata, odd.metadata);
    assert_eq!(created.expires_at.unwrap().as_millis(), u64::MAX, "never");
    assert_eq!(load(&store, id(1)).await.unwrap().record, created);
    create(&store, 2).await;
    let shown = format!(
        "SELECT string_agg(concat_ws(' ', file_name, created < now() + '1 s', expires, due), ', ' ORDER BY file_name) FROM {}",
        overview(&store)
    );
    assert_eq!(ask(store.pool(), shown).await, "f1.mp4 t infinity infinity, f2.mp4 t");
}

fn overview(store: &PostgresMetadata) -> String {
    let shown = format!("{store:?}");
    let schema = shown.split("\\\"").nth(1).unwrap();
    format!("\"{schema}\".overview")
}
