//! Uploads by id: sessions, raw chunks, status, events.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    client::{FORM, chunk_form, head},
    server::{ALICE, BOB, NOBODY, Server, file},
};

fn content_digest(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)))
}

pub(crate) async fn raw_chunks_in_parallel(which: &'static str) {
    let server = Server::start(which);
    let whole = file(1_000_003);
    let video = server.video("Parallel").await;
    let id = server.session(&whole, 100_000, Some(video), "p.webm").await;
    let put = |index: usize, bytes| {
        let (server, id) = (&server, &id);
        async move {
            let digest = content_digest(bytes);
            let ask = format!("PUT uploads/{id}/chunks/{index}");
            server
                .ask(&ask, ALICE, &[("Content-Digest", &digest)], bytes)
                .await
                .data()
        }
    };
    let (first, rest): (Vec<_>, Vec<_>) = whole.chunks(100_000).enumerate().partition(|(index, _)| index % 3 == 1);
    join_all(first.into_iter().map(|(index, bytes)| put(index, bytes))).await;
    let status = server.status(&id).await;
    assert_eq!(status["received"], json!([[1, 1], [4, 4], [7, 7], [10, 10]]));
    assert_eq!(status["missing"], json!([[0, 0], [2, 3], [5, 6], [8, 9]]));
    let early = server
        .ask(&format!("POST uploads/{id}/assemble/"), ALICE, &[], "")
        .await;
    assert_eq!(early.error().0, 409);
    assert_eq!(early.json()["error"]["missing"], status["missing"]);

    let told = join_all(rest.into_iter().map(|(index, bytes)| put(index, bytes))).await;
    let complete: Vec<&Value> = told.iter().filter(|data| data["is_complete"] == true).collect();
    assert!(!complete.is_empty());
    assert!(complete.iter().all(|data| data["uploaded_chunks"] == 11));
    let assembled = server
        .ask(&format!("POST uploads/{id}/assemble/"), ALICE, &[], "")
        .await
        .data();
    assert_eq!(assembled["size"], 1_000_003);
    assert!(assembled["checksum"].as_str().unwrap().starts_with("crc64nvme:"));
    assert_eq!(server.stored(assembled["video_path"].as_str().unwrap()), whole);
    let list = server.get("uploads/", ALICE).await.data();
    assert_eq!(
        (&list["uploads"][0]["upload_id"], &list["uploads"][0]["state"]),
        (&json!(id), &json!("assembled"))
    );
    let by_name = server
        .get(&format!("uploads/?videoId={video}&fileName=p.webm"), ALICE)
        .await
        .data();
    assert_eq!(by_name["upload_id"], json!(id));
}

pub(crate) async fn a_damaged_chunk_is_not_stored(which: &'static str) {
    let server = Server::start(which);
    let id = server.session(b"0123456789", 5, None, "d.mp4").await;
    let ask = format!("PUT uploads/{id}/chunks/0");
    let digest = content_digest(b"01234");
    let damaged = server.ask(&ask, ALICE, &[("Content-Digest", &digest)], "01x34").await;
    assert_eq!(damaged.error().0, 422);
    assert_eq!(server.status(&id).await["uploaded_chunks"], 0);
    assert_eq!(
        server
            .ask(&ask, ALICE, &[("Content-Digest", &digest)], "01234")
            .await
            .status,
        200
    );
    assert_eq!(server.put(&id, 0, b"other").await.error().0, 409);
    assert_eq!(server.put(&id, 0, b"01234").await.status, 200);
    assert_eq!(server.put(&id, 1, b"four").await.error().0, 400);
    assert_eq!(server.put(&id, 2, b"01234").await.error().0, 400);
}

pub(crate) async fn an_aborted_upload_is_gone(which: &'static str) {
    let server = Server::start(which);
    let id = server.session(b"0123456789", 5, None, "a.mp4").await;
    server.put(&id, 0, b"01234").await;
    assert_eq!(
        server
            .ask(&format!("DELETE uploads/{id}/"), ALICE, &[], "")
            .await
            .status,
        204
    );
    assert_eq!(server.status(&id).await["state"], "aborted");
    assert_eq!(server.put(&id, 1, b"56789").await.error().0, 410);
    let partial = server.data.path().join("partial");
    for _ in 0..100 {
        if std::fs::read_dir(&partial).unwrap().next().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("its bytes are still there");
}

pub(crate) async fn events_tell_the_progress(which: &'static str) {
    let server = Server::start(which);
    let id = server.session(b"0123456789", 5, None, "e.mp4").await;
    let mut events = server.connect().await;
    events
        .write(head(&format!("GET uploads/{id}/events"), ALICE, &[]))
        .await;
    let begun = events.head().await.unwrap();
    assert_eq!((begun.status, begun.header("content-type")), (200, "text/event-stream"));
    let mut seen = String::new();
    seen += &String::from_utf8(events.chunk().await.unwrap()).unwrap();
    assert!(
        seen.contains("event: status") && seen.contains(r#""uploaded_chunks":0"#),
        "{seen}"
    );
    server.put(&id, 1, b"56789").await;
    while !seen.contains(r#""received":[[1,1]]"#) {
        seen += &String::from_utf8(events.chunk().await.unwrap()).unwrap();
    }
    server.put(&id, 0, b"01234").await;
    server
        .ask(&format!("POST uploads/{id}/assemble/"), ALICE, &[], "")
        .await
        .data();
    while let Some(event) = events.chunk().await {
        seen += &String::from_utf8(event).unwrap();
    }
    let last = seen.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains(r#""state":"assembled""#), "{last}");
    // Who comes back after the last one is told to stay away.
    let id_of_last = last.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let again = server
        .ask(
            &format!("GET uploads/{id}/events"),
            ALICE,
            &[("Last-Event-ID", id_of_last)],
            "",
        )
        .await;
    assert_eq!(again.status, 204);
}

pub(crate) async fn strangers_see_nothing(which: &'static str) {
    let server = Server::start(which);
    let video = server.video("Mine").await;
    let id = server.session(b"01234", 5, Some(video), "s.mp4").await;
    let nothing = server.get("uploads/AAAAAAAAAAAAAAAAAAAAAA/", BOB).await;
    assert_eq!(nothing.status, 404);
    for ask in [
        format!("GET uploads/{id}/"),
        format!("GET uploads/{id}/events"),
        format!("PUT uploads/{id}/chunks/0"),
        format!("POST uploads/{id}/assemble/"),
        format!("DELETE uploads/{id}/"),
        format!("GET uploads/?videoId={video}&fileName=s.mp4"),
        "GET uploads/".to_owned(),
        format!("GET videos/{video}/"),
        format!("POST videos/{video}/ticket"),
        format!("GET videos/{video}/content"),
        "GET videos/".to_owned(),
    ] {
        for nobody in [NOBODY, "wrong", "canary-alice-7b1", "canary-alice-7b1ff"] {
            let answer = server.ask(&ask, nobody, &[], "").await;
            assert_eq!(answer.error().0, 401, "{ask}");
        }
        let bob = server.ask(&ask, BOB, &[], "").await;
        if ask.starts_with("GET uploads/ ") || ask == "GET uploads/" {
            assert_eq!(bob.data()["uploads"], json!([]));
        } else if ask == "GET videos/" {
            assert_eq!(bob.data(), json!([]));
        } else {
            assert_eq!(bob.error().0, 404, "{ask}");
            if ask.contains(&id) {
                assert_eq!(bob.text(), nothing.text(), "{ask}");
            }
        }
    }
    for (token, expected) in [(NOBODY, 401), (BOB, 404)] {
        let form = chunk_form(b"01234", &video.to_string(), 0, 1, "s.mp4");
        assert_eq!(
            server.ask("POST upload-chunk/", token, &[FORM], form).await.error().0,
            expected
        );
        let body = json!({"fileName": "s.mp4", "fileSize": 5, "videoId": video});
        assert_eq!(server.json("POST uploads/", token, body).await.error().0, expected);
    }
    assert_eq!(
        server
            .json("POST create-video/", NOBODY, json!({"title": "x"}))
            .await
            .error()
            .0,
        401
    );
    assert_eq!(server.status(&id).await["uploaded_chunks"], 0);
}
