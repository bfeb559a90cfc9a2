//! Every request of every kind fails in every way, once; late ones, and several nodes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use super::{
    fake::{Fake, Fate, Op},
    whole::{PART, alice, body, bytes, content, engine, is_clean, metadata},
    *,
};
use crate::{
    NewAppend, NewChunk, NewUpload, State, Upload, UploadId, Uploads,
    planted::{Bug, plant},
};

const OPS: [Op; 9] = [
    Op::Put,
    Op::Get,
    Op::List,
    Op::Delete,
    Op::Begin,
    Op::Part,
    Op::Copy,
    Op::Complete,
    Op::Abort,
];
const FATES: [Fate; 5] = [
    Fate::FailBefore,
    Fate::FailAfter,
    Fate::Hang,
    Fate::HangAfter,
    Fate::Late(Duration::from_secs(300)),
];

/// Does `ask` until it is answered.
async fn until<T>(what: &str, ask: impl AsyncFn() -> crate::Result<T>) -> T {
    let mut last = None;
    for _ in 0..50 {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    panic!("{what}: it goes on failing: {last:?}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Chunks,
    LastFirst,
    SmallChunks,
    Appends,
    /// Their length is not told before the end.
    Untold,
    Joined,
}

/// A client that sends what is missing until the upload is assembled.
async fn send(uploads: &Uploads, how: How, whole: &[u8]) -> UploadId {
    let len = whole.len() as u64;
    let chunked = |size: u64| NewUpload::new("a.mp4").size(len).chunk_size(size);
    match how {
        How::Chunks | How::SmallChunks | How::LastFirst => {
            let size = if how == How::SmallChunks { 900 } else { PART };
            let count = len.div_ceil(size) as u32;
            let id = until("create", async || uploads.create(&alice(), chunked(size)).await)
                .await
                .id();
            let mut missing: Vec<(u32, u32)> = vec![(0, count - 1)];
            for _ in 0..20 {
                let mut numbers: Vec<u32> = missing.iter().flat_map(|(first, last)| *first..=*last).collect();
                numbers.sort_by_key(|number| number.wrapping_mul(0x9E37_79B9));
                for number in numbers {
                    let at = (u64::from(number) * size) as usize;
                    let chunk = &whole[at..whole.len().min(at + size as usize)];
                    until("chunk", async || {
                        uploads
                            .put_chunk(&alice(), id, NewChunk::new(number), body(chunk))
                            .await
                    })
                    .await;
                }
                for _ in 0..50 {
                    match uploads.assemble(&alice(), id, None).await {
                        Ok(upload) => return upload.id(),
                        Err(error) if error.kind() == ErrorKind::Incomplete => {
                            missing = error.missing().to_vec();
                            break;
                        }
                        Err(_) => tokio::time::sleep(Duration::from_secs(20)).await,
                    }
                }
            }
            panic!("it is never whole");
        }
        How::Appends => {
            let new = || NewUpload::new("a.mp4").size(len).seals_itself();
            let id = until("create", async || uploads.create(&alice(), new()).await)
                .await
                .id();
            append_all(uploads, id, whole).await;
            ended(uploads, id).await.id()
        }
        How::Untold => {
            let new = || NewUpload::new("a.mp4");
            let id = until("create", async || uploads.create(&alice(), new()).await)
                .await
                .id();
            append_all(uploads, id, whole).await;
            until("assemble", async || uploads.assemble(&alice(), id, None).await)
                .await
                .id()
        }
        How::Joined => {
            let mut ids = Vec::new();
            for piece in whole.chunks(whole.len() / 2 + 7) {
                let new = || NewUpload::new("a.mp4").size(piece.len() as u64).partial();
                let id = until("create", async || uploads.create(&alice(), new()).await)
                    .await
                    .id();
                append_all(uploads, id, piece).await;
                ids.push(id);
            }
            let new = || NewUpload::new("a.mp4");
            let id = until("join", async || uploads.concatenate(&alice(), new(), &ids, false).await)
                .await
                .id();
            ended(uploads, id).await.id()
        }
    }
}

/// As a client of tus: asks where it goes on after each failure.
async fn append_all(uploads: &Uploads, id: UploadId, whole: &[u8]) {
    for round in 0..200_usize {
        let upload = until("offset", async || uploads.take_over(&alice(), id).await).await;
        let at = upload.offset() as usize;
        if at == whole.len() || upload.state() != State::Open {
            return;
        }
        let end = whole.len().min(at + 1000 + round * 977 % 9000);
        drop(uploads.append(&alice(), id, at as u64, body(&whole[at..end])).await);
    }
    panic!("it gets no further");
}

async fn ended(uploads: &Uploads, id: UploadId) -> Upload {
    for _ in 0..2000 {
        let upload = until("status", async || uploads.status(&alice(), id).await).await;
        if upload.state().is_final() {
            assert_eq!(upload.state(), State::Assembled, "{upload:?}");
            return upload;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let answer = uploads.assemble(&alice(), id, None).await;
    panic!("it does not end: {:?} {answer:?}", uploads.status(&alice(), id).await);
}

/// One upload, whole, with nothing left over once the sweep came by.
async fn history(fake: &Fake, how: How, calm: &Fake) {
    let blobs = on(
        fake,
        options(SMALL).with_prefix("media").with_orphan_age(Duration::ZERO),
    );
    let uploads = engine(blobs.clone(), metadata())
        .orphan_grace(Duration::from_millis(1))
        .build()
        .await
        .unwrap();
    calm.young(true);
    let whole = bytes(11, 7 * PART as usize + 1000);
    let id = send(&uploads, how, &whole).await;
    let published = async || {
        let (_, body) = uploads.read(&alice(), id, ByteRange::ALL).await?;
        Ok::<_, Error>(body.try_collect::<Vec<_>>().await?.concat())
    };
    assert!(until("read", &published).await == whole, "other bytes");
    // Until whatever is late has come, and the driver's sweep after it.
    tokio::time::sleep(Duration::from_secs(600)).await;
    calm.young(false);
    std::thread::sleep(Duration::from_millis(3));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(until("read", &published).await == whole, "other bytes, later");
    is_clean(calm, 1).await;
    assert!(blobs.shared.memory.is_free(), "memory is held");
    uploads.shutdown(Duration::from_secs(1)).await;
}

fn run(history: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(history);
}

fn each_request_fails(how: How) {
    each_request_fails_on(how, || Fake::new(SMALL));
}

fn each_request_fails_on(how: How, fresh: impl Fn() -> Fake) {
    let calm = fresh();
    run(history(&calm, how, &calm));
    let asked = calm.asked();
    let mut runs = 0;
    for op in OPS {
        for nth in 0..asked.get(&op).copied().unwrap_or_default().min(14) {
            for fate in FATES {
                let calm = fresh();
                let failing = calm.clone().failing(move |asked, at| match (asked, at) {
                    // A single failure is made up for by a second try: three in a row are not.
                    (asked, at) if asked == op && (nth..nth + 3).contains(&at) => fate,
                    _ => Fate::Fine,
                });
                println!("{how:?}: {fate:?} for {op:?} {nth}");
                run(history(&failing, how, &calm));
                runs += 1;
            }
        }
    }
    assert!(runs > 100, "only {runs} runs: {asked:?}");
}

#[test]
fn each_request_for_chunks_fails_once() {
    each_request_fails(How::Chunks);
    each_request_fails(How::LastFirst);
}

#[test]
fn each_request_fails_once_where_the_tag_of_an_object_is_not_told() {
    each_request_fails_on(How::Chunks, || Fake::new(SMALL).silent());
}

/// Servers differ in what they say to one who asks for the object again.
#[test]
fn completion_fails_once_where_a_second_one_is_answered_otherwise() {
    for says in [
        "status code: 400: <Code>NoSuchUpload</Code>",
        "status code: 400: <Code>InvalidRequest</Code>",
        "status code: 400: <Code>InvalidPart</Code>",
        "status code: 403: <Code>AccessDenied</Code>",
        // Within a 200, and so not understood.
        "Error performing CompleteMultipartUpload: missing field `ETag`",
    ] {
        for fate in FATES {
            println!("{fate:?}, then {says}");
            for how in [How::Chunks, How::Appends, How::Untold] {
                let calm = Fake::new(SMALL).gone(says);
                let failing = calm.clone().failing(move |op, nth| match (op, nth) {
                    (Op::Complete, 0) => fate,
                    _ => Fate::Fine,
                });
                run(history(&failing, how, &calm));
            }
        }
    }
}

#[test]
fn each_request_for_small_chunks_fails_once() {
    each_request_fails(How::SmallChunks);
}

#[test]
fn each_request_for_appends_fails_once() {
    each_request_fails(How::Appends);
    each_request_fails(How::Untold);
}

/// The answer to a completion is lost. It takes effect after another attempt found nothing under the key, and before that one puts
/// what lies behind the last step, which is refused then: there is no such upload.
async fn an_object_is_made_late(calm: &Fake, nodes: usize) {
    let asked = AtomicBool::new(false);
    let late = calm.clone().failing(move |op, nth| match (op, nth) {
        (Op::Complete, 0) => {
            asked.store(true, Ordering::SeqCst);
            Fate::Late(Duration::from_secs(30))
        }
        (Op::Part, _) if asked.load(Ordering::SeqCst) => Fate::Slow(Duration::from_secs(50)),
        _ => Fate::Fine,
    });
    let (metadata, mut all) = (metadata(), Vec::new());
    for _ in 0..nodes {
        let blobs = on(&late, options(SMALL));
        all.push(engine(blobs, metadata.clone()).build().await.unwrap());
    }
    let whole = bytes(5, 3 * PART as usize + 1000);
    let id = all[0].create(&alice(), NewUpload::new("a.mp4")).await.unwrap().id();
    let appended = all[0].append(&alice(), id, 0, body(&whole)).await.unwrap();
    assert_eq!(appended.offset, whole.len() as u64);
    all[0].assemble(&alice(), id, None).await.unwrap_err();
    drop(all[nodes - 1].assemble(&alice(), id, None).await);
    for node in &all {
        ended(node, id).await;
        assert!(content(node, id).await == whole);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    is_clean(calm, 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_made_late_is_found_when_its_upload_is_gone() {
    for nodes in [1, 2] {
        for calm in [
            Fake::new(SMALL),
            Fake::new(SMALL).opaque(),
            Fake::new(SMALL).silent(),
            Fake::new(SMALL).gone("status code: 400: <Code>InvalidPart</Code>"),
        ] {
            an_object_is_made_late(&calm, nodes).await;
        }
    }
}

#[test]
fn each_request_for_joined_uploads_fails_once() {
    each_request_fails(How::Joined);
}

/// The older of two attempts, with other bytes, is done by the backend after the newer one was committed.
async fn a_late_part(calm: Fake, lists: bool) {
    let late = calm.clone().failing(|op, nth| match (op, nth) {
        (Op::Part, 0) => Fate::Late(Duration::from_secs(100)),
        (Op::Part, 1 | 2) => Fate::FailBefore,
        _ => Fate::Fine,
    });
    let blobs = if lists {
        on(&late, options(SMALL))
    } else {
        options(SMALL).native(late).unwrap()
    };
    let uploads = engine(blobs, metadata()).build().await.unwrap();
    let whole = bytes(5, 4 * PART as usize);
    let new = NewUpload::new("a.mp4").size(4 * PART).chunk_size(PART);
    let id = uploads.create(&alice(), new).await.unwrap().id();
    let put = async |number: u32, bytes: &[u8]| {
        let chunk = NewChunk::new(number);
        uploads.put_chunk(&alice(), id, chunk, body(bytes)).await.map(drop)
    };
    let right = |number: u32| &whole[number as usize * PART as usize..][..PART as usize];
    put(2, &bytes(6, PART as usize)).await.unwrap_err();
    for number in 0..4 {
        put(number, right(number)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(200)).await;
    let error = uploads.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete, "{error:?}");
    let expected = if lists { vec![(2, 2)] } else { vec![(0, 3)] };
    assert_eq!(error.missing(), expected, "the chunks that are lost are named");
    for (first, last) in error.missing() {
        for number in *first..=*last {
            put(number, right(number)).await.unwrap();
        }
    }
    uploads.assemble(&alice(), id, None).await.unwrap();
    assert!(content(&uploads, id).await == whole);
}

#[tokio::test(start_paused = true)]
async fn a_late_part_of_an_older_attempt_never_gets_into_the_blob() {
    let fake = || Fake::new(SMALL);
    for lists in [false, true] {
        for calm in [fake(), fake().opaque(), fake().sums(), fake().opaque().sums()] {
            a_late_part(calm, lists).await;
        }
    }
}

/// The same bytes are put again by the backend after their part was committed: by an older attempt, at another node.
async fn a_late_part_of_the_same_bytes(calm: &Fake) -> crate::Result<()> {
    let late = calm.clone().failing(|op, nth| match (op, nth) {
        (Op::Part, 0) => Fate::Late(Duration::from_secs(100)),
        (Op::Part, 1 | 2) => Fate::FailBefore,
        _ => Fate::Fine,
    });
    let metadata = metadata();
    let first = engine(on(&late, options(SMALL)), metadata.clone()).build().await?;
    let other = engine(on(calm, options(SMALL)), metadata).build().await?;
    let whole = bytes(5, 4 * PART as usize);
    let new = NewUpload::new("a.mp4").size(4 * PART).chunk_size(PART);
    let id = first.create(&alice(), new).await?.id();
    let chunk = |number: u32| body(&whole[number as usize * PART as usize..][..PART as usize]);
    let refused = first.put_chunk(&alice(), id, NewChunk::new(2), chunk(2)).await;
    refused.unwrap_err();
    for number in 0..4 {
        other
            .put_chunk(&alice(), id, NewChunk::new(number), chunk(number))
            .await?;
    }
    tokio::time::sleep(Duration::from_secs(200)).await;
    other.assemble(&alice(), id, None).await?;
    assert!(content(&other, id).await == whole);
    is_clean(calm, 1).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_late_part_of_the_same_bytes_is_taken_where_something_tells_that_it_is() {
    for fake in [
        Fake::new(SMALL),
        Fake::new(SMALL).sums(),
        Fake::new(SMALL).opaque().sums(),
    ] {
        a_late_part_of_the_same_bytes(&fake).await.unwrap();
    }
    let nothing_tells = Fake::new(SMALL).opaque();
    let error = a_late_part_of_the_same_bytes(&nothing_tells).await.unwrap_err();
    assert_eq!(error.missing(), [(2, 2)], "{error:?}");
}

/// A rule of the bucket ends the multipart upload: what is sent again goes on without it.
#[tokio::test(start_paused = true)]
async fn a_multipart_upload_that_is_gone_is_made_up_for() {
    let fake = Fake::new(SMALL);
    let uploads = engine(on(&fake, options(SMALL)), metadata()).build().await.unwrap();
    let whole = bytes(5, 4 * PART as usize);
    let new = NewUpload::new("a.mp4").size(4 * PART).chunk_size(PART);
    let id = uploads.create(&alice(), new).await.unwrap().id();
    let put = async |number: u32| {
        let bytes = &whole[number as usize * PART as usize..][..PART as usize];
        let chunk = NewChunk::new(number);
        uploads.put_chunk(&alice(), id, chunk, body(bytes)).await.unwrap();
    };
    put(0).await;
    put(1).await;
    fake.drop_uploads();
    put(2).await;
    put(3).await;
    let error = uploads.assemble(&alice(), id, None).await.unwrap_err();
    assert_eq!(error.missing(), [(0, 1)], "{error:?}");
    put(0).await;
    put(1).await;
    uploads.assemble(&alice(), id, None).await.unwrap();
    assert!(content(&uploads, id).await == whole);
    is_clean(&fake, 1).await;
}

/// Two processes take the same appends, of files whose length is told or not, cut each other off, and assemble at once.
#[tokio::test(start_paused = true)]
async fn two_nodes_share_a_bucket() {
    for seed in 0..60_u64 {
        let completing = AtomicBool::new(false);
        let fake = Fake::new(SMALL).failing(move |op, nth| match op {
            Op::Part | Op::Put if ((nth as u64 + seed) * 7).is_multiple_of(11) => {
                Fate::Late(Duration::from_secs(seed % 40))
            }
            Op::Complete if nth == 0 && seed % 4 > 1 => {
                completing.store(true, Ordering::SeqCst);
                Fate::Late(Duration::from_secs(seed % 40))
            }
            Op::Part if completing.load(Ordering::SeqCst) => Fate::Slow(Duration::from_secs(seed % 50)),
            _ => Fate::Fine,
        });
        let metadata = metadata();
        let mut nodes = Vec::new();
        for _ in 0..2 {
            nodes.push(
                engine(on(&fake, options(SMALL)), metadata.clone())
                    .build()
                    .await
                    .unwrap(),
            );
        }
        let whole = bytes(seed, 9 * PART as usize + 500);
        let is_told = seed.is_multiple_of(2);
        let new = match is_told {
            true => NewUpload::new("a.mp4").size(whole.len() as u64).seals_itself(),
            false => NewUpload::new("a.mp4"),
        };
        let id = until("create", async || nodes[0].create(&alice(), new.clone()).await)
            .await
            .id();
        for round in 0..200_u64 {
            let node = &nodes[(round.wrapping_mul(seed | 1) >> 2) as usize % 2];
            let other = &nodes[round as usize % 2];
            let Ok(upload) = node.take_over(&alice(), id).await else {
                continue;
            };
            if upload.state() != State::Open || upload.offset() == whole.len() as u64 {
                break;
            }
            let at = upload.offset();
            let stalls = stream::unfold(whole[at as usize..].to_vec(), move |mut rest| async move {
                if rest.is_empty() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(40)).await;
                let next = rest.split_off(rest.len().min(900));
                Some((Ok::<_, crate::Error>(Bytes::from(rest)), next))
            });
            let caller = alice();
            let slow = node.append_with(&caller, id, at, NewAppend::new(), stalls);
            let rival = async {
                tokio::time::sleep(Duration::from_millis(seed * round % 500)).await;
                let upload = other.take_over(&alice(), id).await?;
                let at = upload.offset();
                let end = whole.len().min(at as usize + 3000);
                other.append(&alice(), id, at, body(&whole[at as usize..end])).await
            };
            drop(tokio::join!(slow, rival));
        }
        if !is_told {
            let caller = alice();
            drop(tokio::join!(
                nodes[0].assemble(&caller, id, None),
                nodes[1].assemble(&caller, id, None)
            ));
        }
        for node in &nodes {
            let upload = ended(node, id).await;
            assert_eq!(upload.state(), State::Assembled);
            assert!(content(node, id).await == whole, "other bytes by seed {seed}");
        }
        for node in &nodes {
            node.shutdown(Duration::from_secs(1)).await;
        }
    }
}

/// Joins whose reads stall hold no more memory than is given, and all end.
async fn joins_wait_for_memory(bounds: PartBounds) {
    const LEN: u64 = 12_000;
    let stalls = Arc::new(AtomicBool::new(false));
    let stall = Arc::clone(&stalls);
    let fake = Fake::new(bounds).failing(move |op, _| match op {
        Op::Get if stall.load(Ordering::SeqCst) => Fate::Slow(Duration::from_secs(20)),
        _ => Fate::Fine,
    });
    // A quarter is for what is sent again: room for one of them.
    let options = options(bounds).with_part_size(bounds.min.max(PART));
    let blobs = on(&fake, options.with_memory(64 << 10));
    let begin = async |at: u8, plan: Plan| {
        let key = Key::parse(&format!("{at}")).unwrap();
        blobs.begin(UploadId::from_bytes([at; 16]), &key, &plan).await.unwrap()
    };
    let mut joins = Vec::new();
    for at in 0..8 {
        let (whole, slot) = (Bytes::from(bytes(at.into(), LEN as usize)), Slot::at(0, 0, LEN));
        let from = begin(at, Plan::sequential(Some(LEN)).to_be_joined()).await;
        let mut writer = blobs.open(&from, slot).await.unwrap();
        writer.write(vec![whole.clone()]).await.unwrap();
        let receipt = writer.finish().await.unwrap();
        let part = Part::new(0, LEN, crate::engine::Crc64::of(&whole), receipt);
        let into = begin(100 + at, Plan::sequential(Some(2 * LEN))).await;
        let blobs = blobs.clone();
        joins.push(async move { blobs.join(&into, slot, Before::default(), &from, &[part]).await });
    }
    let asked = || fake.asked().get(&Op::Get).copied().unwrap_or_default();
    let before = asked();
    stalls.store(true, Ordering::SeqCst);
    let joins: Vec<_> = joins.into_iter().map(tokio::spawn).collect();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(asked() - before, 1, "all are read at once");
    for join in joins {
        let joined = join.await.unwrap().unwrap();
        assert!(matches!(joined, Joined::Done(_)), "{joined:?}");
    }
    assert!(blobs.shared.memory.is_free(), "memory is held");
}

#[tokio::test(start_paused = true)]
async fn joins_at_once_read_no_more_than_there_is_memory_for() {
    // By a stream of any store; of objects too small to be copied.
    for bounds in [SMALL.equal(), PartBounds::new(20_000, 1 << 20, 10_000)] {
        joins_wait_for_memory(bounds).await;
    }
}

fn is_caught(history: impl Fn()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(history)).is_err()
}

#[test]
fn catches_a_tail_deleted_too_early() {
    let _planted = plant(Bug::TailDeletedTooEarly);
    assert!(is_caught(|| {
        let calm = Fake::new(SMALL);
        let failing = calm.clone().failing(|op, nth| match (op, nth) {
            (Op::Part, 1..4) => Fate::FailBefore,
            _ => Fate::Fine,
        });
        run(history(&failing, How::Appends, &calm));
    }));
}

#[test]
fn catches_that_an_object_under_the_key_is_trusted() {
    let _planted = plant(Bug::CompleteTrustsKey);
    assert!(is_caught(|| {
        run(async {
            let store = Arc::new(on(&Fake::new(SMALL), options(SMALL)));
            blob::a_taken_key_is_never_written_over(store).await;
        });
    }));
}

/// Of all the ways in which a request fails one is that it was not done.
#[test]
fn catches_that_a_lost_answer_is_taken_for_success() {
    let _planted = plant(Bug::LostAnswerIsSuccess);
    for fate in [Fate::FailBefore, Fate::Hang, Fate::Late(Duration::from_secs(3000))] {
        assert!(is_caught(move || {
            let calm = Fake::new(SMALL).silent();
            let failing = calm.clone().failing(move |op, nth| match (op, nth) {
                (Op::Complete, 0) => fate,
                _ => Fate::Fine,
            });
            run(history(&failing, How::Chunks, &calm));
        }));
    }
}
