//! What is cut off, raced or stopped: what was received counts, and the newest request of a client has its way.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use futures_util::{FutureExt as _, future::join_all};
use tower_service::Service as _;

use super::{
    time::{Seconds, pass},
    *,
};
use crate::{
    access::OwnerOnly,
    blob::{BlobStore, MemoryBlobs},
    conformance::fault::{Call, Fault, FaultyBlobs, ScriptedFaults},
    http::{UploadFuture, tests::stalled},
    metadata::{MemoryMetadata, MetadataStore},
};

const WHOLE: &str = "0123456789";
const LENGTH: (&str, &str) = ("upload-length", "10");

async fn on(blobs: impl BlobStore, metadata: impl MetadataStore) -> Wire {
    let uploads = Uploads::with(blobs, metadata)
        .authorizer(OwnerOnly)
        .build()
        .await
        .unwrap();
    serve(uploads, Tus::new())
}

impl Wire {
    /// A request that is under way: polled until it waits for more of a body that does not come.
    fn under_way(&self, ask: &str, headers: &[(&str, &str)], sent: &str) -> UploadFuture {
        let headers = [headers, &[("tus-resumable", "1.0.0"), BYTES]].concat();
        self.service.clone().call(request(ask, &headers, stalled(sent)))
    }

    async fn stalled_patch(&self, id: &str, offset: u64, sent: &str) -> UploadFuture {
        let offset = offset.to_string();
        let mut patch = self.under_way(&format!("PATCH /files/{id}"), &[("upload-offset", &offset)], sent);
        settle(&mut patch).await;
        patch
    }
}

/// Lets a request go as far as it comes by itself.
async fn settle(request: &mut UploadFuture) {
    for _ in 0..50 {
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut *request).poll(&mut context).is_pending());
        tokio::task::yield_now().await;
    }
}

async fn status(request: UploadFuture) -> u16 {
    request.await.unwrap().status().as_u16()
}

/// Cut at each byte by a broken connection, then by a client that is gone; then gone on with.
async fn cut_at_every_byte(wire: &Wire) {
    for cut in 0..=WHOLE.len() {
        for is_gone in [false, true] {
            let id = wire.created(&[LENGTH], "").await;
            let (first, rest) = WHOLE.split_at(cut);
            if is_gone {
                let ask = format!("PATCH /files/{id}");
                let mut patch = pin!(wire.under_way(&ask, &[("upload-offset", "0")], first));
                // On a disk it takes a moment to come to where the body stalls.
                let _ = tokio::time::timeout(Duration::from_millis(50), &mut patch).await;
            } else {
                let headers = [BYTES, ("upload-offset", "0")];
                let reply = wire.tus(&format!("PATCH /files/{id}"), &headers, broken(first)).await;
                assert_eq!(
                    (reply.status, reply.header("upload-offset")),
                    (400, cut.to_string().as_str()),
                    "{reply:?}"
                );
            }
            let head = wire.head(&id).await;
            assert_eq!(head.header("upload-offset"), cut.to_string(), "{is_gone} {head:?}");
            let reply = wire.patch(&id, cut as u64, rest).await;
            assert_eq!(
                (reply.status, reply.header("upload-offset")),
                (204, "10"),
                "{cut} {is_gone} {reply:?}"
            );
            assert_eq!(wire.get(&id).await.text, WHOLE, "{cut} {is_gone}");
        }
    }
}

#[tokio::test]
async fn a_length_is_compared_with_what_is_still_being_sent() {
    let wire = wire().await;
    let id = wire.created(&[("upload-defer-length", "1")], "").await;
    let older = wire.stalled_patch(&id, 0, "012345").await;
    let headers = [BYTES, ("upload-offset", "0"), ("upload-length", "5")];
    let ask = format!("PATCH /files/{id}");
    let (newer, older) = tokio::join!(wire.tus(&ask, &headers, whole("")), status(older));
    assert_eq!((newer.status, older), (400, 423), "{newer:?}");
    let head = wire.head(&id).await;
    assert_eq!(head.header("upload-offset"), "6", "{head:?}");
    assert_eq!(head.header("upload-defer-length"), "1", "{head:?}");
}

#[tokio::test]
async fn a_cut_patch_keeps_what_came() {
    cut_at_every_byte(&wire().await).await;
}

#[tokio::test]
async fn racing_patches_store_each_byte_once() {
    racing(&wire().await).await;
}

#[cfg(all(feature = "disk", feature = "redb"))]
mod durable {
    use super::*;

    async fn house(path: &std::path::Path) -> Wire {
        let uploads = Uploads::open(path).authorizer(OwnerOnly).build().await.unwrap();
        serve(uploads, Tus::new())
    }

    #[tokio::test]
    async fn a_cut_patch_keeps_what_came() {
        let directory = tempfile::tempdir().unwrap();
        cut_at_every_byte(&house(directory.path()).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn racing_patches_store_each_byte_once() {
        let directory = tempfile::tempdir().unwrap();
        racing(&house(directory.path()).await).await;
    }

    /// A server that is started again knows what it answered, and goes on.
    #[tokio::test]
    async fn what_was_answered_outlives_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = ("upload-metadata", "filename YS5tcDQ=");
        let wire = house(directory.path()).await;
        let id = wire.created(&[LENGTH, metadata], "01").await;
        assert_eq!(wire.patch(&id, 2, "234").await.status, 204);
        let deferred = wire.created(&[("upload-defer-length", "1")], "0123").await;
        wire.uploads.shutdown(Duration::from_secs(5)).await;
        drop(wire);

        let wire = house(directory.path()).await;
        let head = wire.head(&id).await;
        assert_eq!(
            (head.header("upload-offset"), head.header("upload-length")),
            ("5", "10")
        );
        assert_eq!(head.header("upload-metadata"), metadata.1);
        assert_eq!(wire.head(&deferred).await.header("upload-defer-length"), "1");
        assert_eq!(wire.patch(&id, 5, "56789").await.header("upload-offset"), "10");
        assert_eq!(wire.get(&id).await.text, WHOLE);
        wire.uploads.shutdown(Duration::from_secs(5)).await;
        drop(wire);

        let wire = house(directory.path()).await;
        assert_eq!(wire.head(&id).await.header("upload-offset"), "10");
        assert_eq!(wire.get(&id).await.text, WHOLE);
    }
}

#[tokio::test]
async fn a_cut_creation_keeps_what_came() {
    for cut in 0..=WHOLE.len() {
        let wire = wire().await;
        let reply = wire.tus("POST /files", &[LENGTH, BYTES], broken(&WHOLE[..cut])).await;
        // The connection may be there although the body is not: then the client learns where to go on.
        assert_eq!(
            (reply.status, reply.header("upload-offset")),
            (201, cut.to_string().as_str()),
            "{reply:?}"
        );
        assert_eq!(wire.all().await[0].2, cut as u64);

        let mut post = wire.under_way("POST /files", &[LENGTH], &WHOLE[..cut]);
        let _ = tokio::time::timeout(Duration::from_millis(5), &mut post).await;
        drop(post);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let newest = wire.all().await[0];
        let id = newest.0.to_string();
        assert_eq!((newest.2, wire.head(&id).await.status), (cut as u64, 200));
        assert_eq!(wire.patch(&id, cut as u64, &WHOLE[cut..]).await.status, 204);
        assert_eq!(wire.get(&id).await.text, WHOLE);
    }
}

#[tokio::test]
async fn with_a_checksum_a_cut_patch_keeps_nothing() {
    let wire = wire().await;
    let id = wire.created(&[LENGTH], "01").await;
    let checksum = ("upload-checksum", "crc32 AAAAAA==");
    let headers = [BYTES, ("upload-offset", "2"), checksum];
    let reply = wire.tus(&format!("PATCH /files/{id}"), &headers, broken("234")).await;
    assert_eq!((reply.status, reply.header("upload-offset")), (400, "2"), "{reply:?}");
    let headers = [BYTES, ("upload-offset", "2"), ("trailer", "upload-checksum")];
    let reply = wire.tus(&format!("PATCH /files/{id}"), &headers, broken("234")).await;
    assert_eq!((reply.status, reply.header("upload-offset")), (400, "2"), "{reply:?}");
    assert_eq!(wire.head(&id).await.header("upload-offset"), "2");
}

/// A client that lost its connection asks with HEAD, and need not wait until the server notices.
#[tokio::test]
async fn head_stops_a_stalled_patch() {
    let wire = wire().await;
    let id = wire.created(&[LENGTH], "").await;
    let patch = wire.stalled_patch(&id, 0, "0123").await;
    let (head, patch) = tokio::join!(wire.head(&id), status(patch));
    assert_eq!((head.header("upload-offset"), patch), ("4", 423));
    assert_eq!(wire.patch(&id, 4, "456789").await.status, 204);
    assert_eq!(wire.get(&id).await.text, WHOLE);
}

/// Who may look and not write stops nobody.
#[tokio::test]
async fn head_of_an_onlooker_stops_nothing() {
    use crate::access::{Action, Authorizer, Denied, Subject};
    struct Onlookers;
    #[async_trait::async_trait]
    impl Authorizer for Onlookers {
        async fn authorize(&self, caller: &Caller, action: Action, _: Subject<'_>) -> Result<(), Denied> {
            match action {
                Action::Inspect => Ok(()),
                _ if caller.owner().as_str() == "ann" => Ok(()),
                _ => Err(Denied::Forbidden),
            }
        }
    }
    let stores = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new());
    let wire = serve(stores.authorizer(Onlookers).build().await.unwrap(), Tus::new());
    let id = wire.created(&[LENGTH], "01").await;
    let mut patch = wire.stalled_patch(&id, 2, "23").await;
    let eve = ("authorization", "Bearer eve");
    let head = wire.tus(&format!("HEAD /files/{id}"), &[eve], whole("")).await;
    assert_eq!((head.status, head.header("upload-offset")), (200, "2"));
    settle(&mut patch).await;
    let patched = wire
        .tus(
            &format!("PATCH /files/{id}"),
            &[eve, BYTES, ("upload-offset", "2")],
            whole("23"),
        )
        .await;
    assert_eq!(patched.status, 403);
    let deleted = wire.tus(&format!("DELETE /files/{id}"), &[eve], whole("")).await;
    assert_eq!(deleted.status, 403);
    settle(&mut patch).await;
}

#[tokio::test]
async fn a_newer_patch_stops_a_stalled_one() {
    let wire = wire().await;
    let id = wire.created(&[LENGTH], "").await;
    let patch = wire.stalled_patch(&id, 0, "0123").await;
    // It begins where the client believes to be; what the older one stored counts.
    let (newer, older) = tokio::join!(wire.patch(&id, 0, WHOLE), status(patch));
    assert_eq!(
        (newer.status, newer.header("upload-offset"), older),
        (409, "4", 423),
        "{newer:?}"
    );
    assert_eq!(wire.patch(&id, 4, "456789").await.status, 204);
    assert_eq!(wire.get(&id).await.text, WHOLE);
}

#[tokio::test]
async fn delete_stops_a_patch() {
    for checksum in [None, Some(("upload-checksum", "crc32 AAAAAA=="))] {
        let wire = wire().await;
        let id = wire.created(&[LENGTH], "").await;
        let mut headers = vec![("upload-offset", "0")];
        headers.extend(checksum);
        let mut patch = wire.under_way(&format!("PATCH /files/{id}"), &headers, "0123");
        settle(&mut patch).await;
        let ask = format!("DELETE /files/{id}");
        let (deleted, patch) = tokio::join!(wire.tus(&ask, &[], whole("")), status(patch));
        assert_eq!((deleted.status, patch), (204, 423));
        assert_eq!(wire.head(&id).await.status, 410);
        assert_eq!(wire.patch(&id, 4, "4").await.status, 410);
    }
}

/// Many requests for the same bytes: some are refused, none is stored twice, and the file is what it is.
async fn racing(wire: &Wire) {
    let id = wire.created(&[("upload-length", "40")], "").await;
    let text = WHOLE.repeat(4);
    let mut offset = 0;
    while offset < 40 {
        let end = text.len().min(offset + 10);
        let patches = (0..8).map(|_| {
            let headers = [
                BYTES,
                ("upload-offset", &offset.to_string()),
                ("tus-resumable", "1.0.0"),
            ];
            let sent = request(&format!("PATCH /files/{id}"), &headers, streamed(&text[offset..end]));
            let wire = wire.clone();
            tokio::spawn(async move { wire.call(sent).await })
        });
        for reply in join_all(patches).await {
            let reply = reply.unwrap();
            assert!([204, 409, 423].contains(&reply.status), "{reply:?}");
            let now = reply.header("upload-offset");
            assert!(
                reply.status == 423 || now.parse::<usize>().unwrap() >= offset,
                "{reply:?}"
            );
        }
        offset = wire.head(&id).await.header("upload-offset").parse().unwrap();
        assert!(offset <= end);
    }
    assert_eq!(wire.get(&id).await.text, text);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_given_up_and_counts() {
    for (version, closes) in [(http::Version::HTTP_11, true), (http::Version::HTTP_2, false)] {
        let wire = wire().await;
        let id = wire.created(&[LENGTH], "").await;
        let headers = [BYTES, ("upload-offset", "0"), ("tus-resumable", "1.0.0")];
        let mut patch = request(&format!("PATCH /files/{id}"), &headers, stalled("0123"));
        *patch.version_mut() = version;
        let reply = wire.call(patch).await;
        // Clients go on after this status, and give up after 408.
        assert_eq!((reply.status, reply.header("upload-offset")), (503, "4"), "{reply:?}");
        assert_eq!(reply.header("retry-after"), "1");
        assert_eq!(reply.header("connection"), if closes { "close" } else { "" });
    }
}

/// Bytes that are stored are acknowledged, whatever becomes of the assembly for now.
#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_assemble_now_does_it_later() {
    let faults = Arc::new(ScriptedFaults::new().on(Call::Complete, 0, Fault::FailBefore));
    let clock = Arc::new(Seconds::default());
    let metadata = MemoryMetadata::with_clock(clock.clone());
    let wire = on(FaultyBlobs::new(MemoryBlobs::new(), faults.clone()), metadata).await;
    let id = wire.created(&[LENGTH], "01234").await;
    let reply = wire.patch(&id, 5, "56789").await;
    assert_eq!((reply.status, reply.header("upload-offset")), (204, "10"), "{reply:?}");
    assert_eq!(wire.all().await[0].1, State::Assembling);
    let head = wire.head(&id).await;
    assert_eq!(
        (head.header("upload-offset"), head.header("upload-length")),
        ("10", "10")
    );
    assert_eq!(wire.get(&id).await.status, 409);
    assert_eq!(wire.patch(&id, 10, "x").await.status, 413);
    assert_eq!(wire.patch(&id, 0, "0").await.header("upload-offset"), "10");
    pass(&clock, 100).await;
    assert_eq!(wire.get(&id).await.text, WHOLE);
    assert_eq!(faults.calls().iter().filter(|call| **call == Call::Complete).count(), 2);
}

/// The last byte came with a request that was refused or cut: the file is put together all the same, at the latest when somebody
/// asks for it.
#[tokio::test]
async fn head_puts_together_what_has_all_its_bytes() {
    let wire = wire().await;
    let id = wire.created(&[LENGTH], "0123").await;
    let headers = [BYTES, ("upload-offset", "4")];
    let reply = wire
        .tus(&format!("PATCH /files/{id}"), &headers, streamed("456789x"))
        .await;
    assert_eq!(reply.status, 413);
    assert_eq!(wire.head(&id).await.header("upload-offset"), "10");
    assert_eq!(wire.all().await[0].1, State::Assembled);
    assert_eq!(wire.get(&id).await.text, WHOLE);
}

/// A store that hangs keeps no HEAD waiting for long.
#[tokio::test(start_paused = true)]
async fn head_does_not_wait_for_ever() {
    let hang = |call| {
        if call == Call::Complete {
            Fault::Hang
        } else {
            Fault::None
        }
    };
    let blobs = FaultyBlobs::new(MemoryBlobs::new(), Arc::new(hang));
    let wire = on(blobs, MemoryMetadata::new()).await;
    let id = wire.created(&[LENGTH], "0123").await;
    let mut patch = wire.under_way(&format!("PATCH /files/{id}"), &[("upload-offset", "4")], "456789");
    settle(&mut patch).await;
    drop(patch);
    let began = tokio::time::Instant::now();
    let head = wire.head(&id).await;
    assert_eq!((head.status, head.header("upload-offset")), (200, "10"), "{head:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

/// What was deleted is gone for its client, also while the store cannot do anything about it.
#[tokio::test]
async fn what_is_deleted_while_it_is_assembled_is_gone() {
    let fail = |call| {
        if call == Call::Complete {
            Fault::FailBefore
        } else {
            Fault::None
        }
    };
    let wire = on(
        FaultyBlobs::new(MemoryBlobs::new(), Arc::new(fail)),
        MemoryMetadata::new(),
    )
    .await;
    let id = wire.created(&[LENGTH], WHOLE).await;
    assert_eq!(wire.all().await[0].1, State::Assembling);
    let ask = format!("DELETE /files/{id}");
    assert_eq!(wire.tus(&ask, &[], whole("")).await.status, 204);
    assert_eq!(wire.all().await[0].1, State::Assembling);
    assert_eq!(wire.tus(&ask, &[], whole("")).await.status, 410);
    assert_eq!(wire.head(&id).await.status, 410);
    assert_eq!(wire.patch(&id, 10, "").await.status, 410);
}

/// A store that fails in the middle: the answer is the truth, and the client goes on from there.
#[tokio::test]
async fn a_store_that_fails_is_503_with_the_true_offset() {
    let finish = |k| Arc::new(ScriptedFaults::new().on(Call::Finish, k, Fault::FailBefore));
    let wire = on(FaultyBlobs::new(MemoryBlobs::new(), finish(1)), MemoryMetadata::new()).await;
    let id = wire.created(&[LENGTH], "0123").await;
    let reply = wire.patch(&id, 4, "456789").await;
    assert_eq!((reply.status, reply.header("upload-offset")), (503, "4"), "{reply:?}");
    assert!(!reply.header("retry-after").is_empty());
    assert_eq!(wire.patch(&id, 4, "456789").await.status, 204);
    assert_eq!(wire.get(&id).await.text, WHOLE);

    let wire = on(FaultyBlobs::new(MemoryBlobs::new(), finish(0)), MemoryMetadata::new()).await;
    let reply = wire.tus("POST /files", &[LENGTH, BYTES], whole(WHOLE)).await;
    assert_eq!((reply.status, reply.header("upload-offset")), (201, "0"), "{reply:?}");
}

/// Dropped wherever it may be, a request leaves an upload that can be gone on with.
#[tokio::test]
async fn a_request_dropped_at_any_point_leaves_the_upload_usable() {
    for polls in 0..30 {
        let wire = wire().await;
        let id = wire.created(&[("upload-defer-length", "1")], "").await;
        let headers = [BYTES, ("upload-offset", "0"), LENGTH, ("tus-resumable", "1.0.0")];
        let sent = streamed(WHOLE);
        let mut patch = wire
            .service
            .clone()
            .call(request(&format!("PATCH /files/{id}"), &headers, sent));
        for _ in 0..polls {
            if (&mut patch).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(patch);
        let offset: usize = wire.head(&id).await.header("upload-offset").parse().unwrap();
        let headers = [BYTES, ("upload-offset", &offset.to_string()), LENGTH];
        let reply = wire
            .tus(&format!("PATCH /files/{id}"), &headers, whole(&WHOLE[offset..]))
            .await;
        assert_eq!(
            (reply.status, reply.header("upload-offset")),
            (204, "10"),
            "{polls} {reply:?}"
        );
        assert_eq!(wire.get(&id).await.text, WHOLE);
    }
}
