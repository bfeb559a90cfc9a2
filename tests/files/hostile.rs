//! Clients that go, clients that do not read, files that go, and paths that lead elsewhere.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::io::AsyncReadExt as _;
use tower_upload::Caller;

use crate::{
    bytes,
    house::{ANN, House},
};

const MIB: u64 = 1 << 20;

/// Until `is_so`, for ten seconds at most.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn no_path_leads_elsewhere() {
    let house = House::new(|files| files).await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    for path in [
        "/media/".to_owned(),
        "/media/..".to_owned(),
        "/media/../media".to_owned(),
        format!("/media/{id}/.."),
        format!("/media/{id}/../{id}"),
        format!("/media/{id}%2f..%2f{id}"),
        format!("/media/{id}/hls/../../{id}"),
        format!("/media/{id}/hls/%2e%2e/%2e%2e/x"),
        format!("/media/{id}/hls/..%2f..%2fx"),
        format!("/media/{id}/hls/%5c..%5cx"),
        format!("/media/{id}/hls/%00"),
        format!("/media/{id}/hls/{}", "a/".repeat(100)),
        format!("/media/{id}/lock"),
        "/media/lock".to_owned(),
        format!("/media/partial/{id}"),
        "/media/%2e%2e%2f%2e%2e%2fetc%2fpasswd".to_owned(),
    ] {
        let reply = house.ask(&format!("GET {path}"), &[ANN]).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
    }
    assert_eq!(house.get(id, &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_costs_little_and_who_goes_leaves_nothing() {
    let house = House::new(|files| files).await;
    let film = bytes(64 * MIB as usize);
    let id = house.file("a.mp4", "video/mp4", &film).await;
    for headers in [&[ANN][..], &[ANN, ("range", "bytes=0-33554431,41943040-")]] {
        house.seen.bytes.store(0, Ordering::SeqCst);
        let (reply, mut stream) = house.begin(&format!("GET /media/{id}"), headers).await;
        assert!([200, 206].contains(&reply.status));
        let mut some = vec![0; 100_000];
        stream.read_exact(&mut some).await.unwrap();
        assert_eq!(house.seen.open.load(Ordering::SeqCst), 1);
        // Nobody reads on: what is read of the store is what the sockets and the server's buffer take.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let read = house.seen.bytes.load(Ordering::SeqCst);
        assert!(read < 24 * MIB, "{} MiB were read for nobody", read / MIB);
        drop(stream);
        until("a body outlives its client", || {
            house.seen.open.load(Ordering::SeqCst) == 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_deleted_is_sent_to_its_end_or_visibly_not() {
    let house = House::new(|files| files).await;
    let film = bytes(32 * MIB as usize);
    let id = house.file("a.mp4", "video/mp4", &film).await;
    let (reply, mut stream) = house.begin(&format!("GET /media/{id}"), &[ANN]).await;
    let several = [ANN, ("range", "bytes=0-16777215,25165824-")];
    let (parts, mut other) = house.begin(&format!("GET /media/{id}"), &several).await;
    assert_eq!((reply.status, parts.status), (200, 206));
    house.uploads.delete(&Caller::new("ann"), id).await.unwrap();
    let mut got = Vec::new();
    // On disk an open file stays.
    stream.read_to_end(&mut got).await.unwrap();
    assert!(got == film, "{} bytes", got.len());
    // The second part begins after the deletion: it is not there any more, and the answer is cut.
    let mut cut = Vec::new();
    let _ = other.read_to_end(&mut cut).await;
    let announced: usize = parts.header("content-length").parse().unwrap();
    // What the server holds back when it cuts the connection is not sent.
    assert!(
        (8 * MIB as usize..announced).contains(&cut.len()),
        "{} bytes",
        cut.len()
    );
    assert_eq!(house.get(id, &[]).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_breaks_off_makes_no_short_file() {
    let house = House::new(|files| files).await;
    let film = bytes(8 * MIB as usize);
    let id = house.file("a.mp4", "video/mp4", &film).await;
    house.seen.break_after.store(4 * MIB, Ordering::SeqCst);
    let reply = house.get(id, &[]).await;
    assert!(reply.status == 200 && !reply.is_whole && reply.body.len() < film.len());
    assert_eq!(reply.header("content-length"), film.len().to_string());
    until("a body outlives its answer", || {
        house.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
}
