//! What is left after kill -9 and after SIGTERM.

use std::{io::Write as _, os::unix::fs::PermissionsExt as _, time::Duration};

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    client::head,
    server::{ALICE, BOB, Server, file},
};

/// As a real one: what is acknowledged is synced.
fn durable(which: &'static str) -> Server {
    let tokens = [format!("--token={ALICE}=alice"), format!("--token={BOB}=bob")];
    Server::with(which, tokens.iter().map(String::as_str))
}

pub(crate) async fn killed_in_the_middle(which: &'static str) {
    let mut server = durable(which);
    let whole = file(1_000_000);
    let video = server.video("Killed").await;
    let id = server.session(&whole, 100_000, Some(video), "k.mp4").await;
    let chunk = |index: usize| &whole[index * 100_000..(index + 1) * 100_000];
    for index in [0, 1, 2, 7] {
        assert_eq!(server.put(&id, index, chunk(index)).await.status, 200);
    }
    let mut half = server.connect().await;
    half.write(head(
        &format!("PUT uploads/{id}/chunks/3"),
        ALICE,
        &[("Content-Length", "100000")],
    ))
    .await;
    half.write(&chunk(3)[..60_000]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.kill();
    server.restart();

    let status = server.status(&id).await;
    assert_eq!(
        (&status["state"], &status["received"]),
        (&json!("open"), &json!([[0, 2], [7, 7]]))
    );
    for index in [3, 4, 5, 6, 8, 9] {
        assert_eq!(server.put(&id, index, chunk(index)).await.status, 200);
    }
    server.kill();
    server.restart();
    let assembled = server
        .ask(&format!("POST uploads/{id}/assemble/"), ALICE, &[], "")
        .await
        .data();
    server.kill();
    server.restart();

    let path = assembled["video_path"].as_str().unwrap();
    assert_eq!(server.stored(path), whole);
    assert_eq!(
        server.get(&format!("videos/{video}/"), ALICE).await.data()["video_path"],
        path
    );
    let url = server.ticket(video).await;
    assert_eq!(server.get(&url, "").await.body, whole);
    // An address lives as long as the key, which nobody else may read.
    let key = server.data.path().join("signing.key");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.kill();
    server.restart();
    assert_eq!(server.get(&url, "").await.body, whole);
    server.kill();
    std::fs::remove_file(key).unwrap();
    server.restart();
    assert_eq!(server.get(&url, "").await.status, 403);
    assert_eq!(server.video("Next").await, video + 1);
}

/// All at once, for it takes as long as the servers wait for what stands still.
#[tokio::test]
async fn stopped_with_uploads_in_flight() {
    join_all(["axum", "hyper", "warp"].map(stopped)).await;
}

async fn stopped(which: &'static str) {
    let mut server = durable(which);
    let whole = file(300_000);
    let id = server.session(&whole, 100_000, None, "t.mp4").await;
    let mut connections = Vec::new();
    for (index, chunk) in whole.chunks(100_000).enumerate().take(2) {
        let mut connection = server.connect().await;
        connection
            .write(head(
                &format!("PUT uploads/{id}/chunks/{index}"),
                ALICE,
                &[("Content-Length", "100000")],
            ))
            .await;
        connection.write(&chunk[..50_000]).await;
        connections.push(connection);
    }
    let mut events = server.connect().await;
    events
        .write(head(&format!("GET uploads/{id}/events"), ALICE, &[]))
        .await;
    events.head().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.signal("TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;

    // What is under way comes to its end, what stands still is cut, nothing new is taken.
    connections[0].write(&whole[50_000..100_000]).await;
    assert_eq!(connections[0].reply().await.unwrap().status, 200);
    assert!(tokio::net::TcpStream::connect(&server.address).await.is_err());
    let status = server.ended(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}");
    assert!(connections[1].head().await.is_none());
    while events.chunk().await.is_some() {}

    server.restart();
    assert_eq!(server.status(&id).await["received"], json!([[0, 0]]));
    for index in [1, 2] {
        server
            .put(&id, index, &whole[index * 100_000..(index + 1) * 100_000])
            .await
            .data();
    }
    let assembled = server
        .ask(&format!("POST uploads/{id}/assemble/"), ALICE, &[], "")
        .await
        .data();
    assert_eq!(server.stored(assembled["video_path"].as_str().unwrap()), whole);

    // With nothing under way it does not wait.
    server.signal("INT");
    assert!(server.ended(Duration::from_secs(5)).await.success());
}

pub(crate) async fn a_cut_line_of_the_catalogue_is_forgotten(which: &'static str) {
    let mut server = durable(which);
    server.video("Whole").await;
    server.kill();
    let path = server.data.path().join("catalogue.jsonl");
    let mut log = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    log.write_all(br#"{"id":2,"title":"Cut"#).unwrap();
    server.restart();
    assert_eq!(server.video("Next").await, 2);
    server.kill();
    server.restart();
    let titles: Vec<_> = server
        .get("videos/", ALICE)
        .await
        .data()
        .as_array()
        .unwrap()
        .iter()
        .map(|video| video["title"].clone())
        .collect();
    assert_eq!(titles, ["Whole", "Next"]);
}
