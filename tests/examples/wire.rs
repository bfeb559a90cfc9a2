//! What happens on the connection itself.

use std::time::Duration;

use serde_json::json;

use crate::{
    client::{FORM, JSON, chunk_form, head},
    server::{ALICE, NOBODY, Server},
};

const HUGE: &str = "10737418240";

pub(crate) async fn a_refusal_comes_before_the_body(which: &'static str) {
    let server = Server::start(which);
    let id = server.session(b"0123456789", 5, None, "x.mp4").await;
    let chunk = format!("PUT uploads/{id}/chunks/0");
    for (ask, token, headers, status) in [
        (chunk.as_str(), NOBODY, vec![("Content-Length", "5")], 401),
        (&chunk, ALICE, vec![("Content-Length", HUGE)], 400),
        ("POST upload-chunk/", NOBODY, vec![("Content-Length", HUGE), FORM], 401),
        ("POST uploads/", NOBODY, vec![("Content-Length", "50"), JSON], 401),
        ("POST create-video/", NOBODY, vec![("Content-Length", "50"), JSON], 401),
        (
            "PUT uploads/AAAAAAAAAAAAAAAAAAAAAA/chunks/0",
            ALICE,
            vec![("Content-Length", "5")],
            404,
        ),
        (
            &chunk,
            ALICE,
            vec![("Content-Length", "5"), ("Content-Encoding", "gzip")],
            415,
        ),
    ] {
        let mut connection = server.connect().await;
        let headers: Vec<_> = headers.into_iter().chain([("Expect", "100-continue")]).collect();
        connection.write(head(ask, token, &headers)).await;
        assert_eq!(connection.reply().await.unwrap().error().0, status, "{ask}");
    }
    let large = server
        .json(
            "POST uploads/",
            ALICE,
            json!({"fileName": "l.mp4", "fileSize": 1_u64 << 41}),
        )
        .await;
    assert_eq!(large.error().0, 413);

    let mut connection = server.connect().await;
    connection
        .write(head(
            &chunk,
            ALICE,
            &[("Content-Length", "5"), ("Expect", "100-continue")],
        ))
        .await;
    assert_eq!(connection.head().await.unwrap().status, 100);
    connection.write("01234").await;
    assert_eq!(connection.reply().await.unwrap().status, 200);
}

pub(crate) async fn a_body_shorter_than_announced_is_not_stored(which: &'static str) {
    let server = Server::start(which);
    let video = server.video("Short").await;
    let id = server.session(b"0123456789", 5, None, "x.mp4").await;
    let mut form = chunk_form(b"01234", &video.to_string(), 0, 2, "y.mp4");
    let len = form.len().to_string();
    form.truncate(form.len() - 10);
    for (ask, headers, body) in [
        (
            format!("PUT uploads/{id}/chunks/0"),
            vec![("Content-Length", "5")],
            b"0123".to_vec(),
        ),
        (
            "POST upload-chunk/".to_owned(),
            vec![FORM, ("Content-Length", &len)],
            form,
        ),
    ] {
        let mut connection = server.connect().await;
        connection.write(head(&ask, ALICE, &headers)).await;
        connection.write(body).await;
        connection.finish().await;
        if let Some(reply) = connection.reply().await {
            assert_eq!(reply.error().0, 400, "{ask}");
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.status(&id).await["uploaded_chunks"], 0);
    let none = server
        .json(
            "POST assemble-chunks/",
            ALICE,
            json!({"videoId": video, "fileName": "y.mp4"}),
        )
        .await;
    assert_eq!(none.error(), (404, "No chunks found for this video".to_owned()));
}

pub(crate) async fn a_body_longer_than_announced_is_cut_there(which: &'static str) {
    let server = Server::start(which);
    let id = server.session(b"0123456789", 5, None, "x.mp4").await;
    let mut connection = server.connect().await;
    connection
        .write(head(
            &format!("PUT uploads/{id}/chunks/0"),
            ALICE,
            &[("Content-Length", "5")],
        ))
        .await;
    connection.write("01234 and this is no request\r\n\r\n").await;
    assert_eq!(connection.reply().await.unwrap().status, 200);
    if let Some(second) = connection.head().await {
        assert_eq!(second.status, 400);
    }
    assert!(connection.is_over().await);
    assert_eq!(server.put(&id, 1, b"56789").await.status, 200);
    let assembled = server
        .ask(&format!("POST uploads/{id}/assemble/"), ALICE, &[], "")
        .await
        .data();
    assert_eq!(server.stored(assembled["video_path"].as_str().unwrap()), b"0123456789");
}

pub(crate) async fn a_body_without_length_stops_at_the_limit(which: &'static str) {
    let server = Server::start(which);
    let id = server.session(&[7; 100_000], 50_000, None, "x.mp4").await;
    let mut connection = server.connect().await;
    let ask = format!("PUT uploads/{id}/chunks/0");
    connection
        .write(head(&ask, ALICE, &[("Transfer-Encoding", "chunked")]))
        .await;
    let frame = [b"2710\r\n".as_slice(), &[7; 10_000], b"\r\n"].concat();
    for _ in 0..6 {
        connection.write(&frame).await; // and it goes on for ever
    }
    let refused = connection.reply().await.unwrap();
    assert!([400, 413].contains(&refused.error().0), "{}", refused.text());
    assert_eq!(server.status(&id).await["uploaded_chunks"], 0);

    let mut connection = server.connect().await;
    connection
        .write(head(&ask, ALICE, &[("Transfer-Encoding", "chunked")]))
        .await;
    for _ in 0..5 {
        connection.write(&frame).await;
    }
    connection.write("0\r\n\r\n").await;
    assert_eq!(connection.reply().await.unwrap().status, 200);
}

pub(crate) async fn a_form_without_its_final_boundary_is_not_stored(which: &'static str) {
    let server = Server::start(which);
    let video = server.video("Cut").await;
    let mut form = chunk_form(b"01234", &video.to_string(), 0, 1, "x.mp4");
    form.truncate(form.len() - 4);
    assert_eq!(
        server.ask("POST upload-chunk/", ALICE, &[FORM], form).await.error().0,
        400
    );
    let none = server
        .json(
            "POST assemble-chunks/",
            ALICE,
            json!({"videoId": video, "fileName": "x.mp4"}),
        )
        .await;
    assert_eq!(none.error(), (404, "No chunks found for this video".to_owned()));
}

pub(crate) async fn an_early_error_closes_the_connection(which: &'static str) {
    let server = Server::start(which);
    let secret = server.video("Secret").await;
    // What follows might be the body, or a request that somebody smuggles in.
    let follow_up = head(&format!("DELETE videos/{secret}/"), ALICE, &[]) + &head("GET videos/", ALICE, &[]);
    for (ask, kind) in [
        ("POST upload-chunk/", FORM),
        (
            "PUT uploads/AAAAAAAAAAAAAAAAAAAAAA/chunks/0",
            ("Content-Type", "application/octet-stream"),
        ),
        ("POST create-video/", FORM),
    ] {
        let mut connection = server.connect().await;
        connection
            .write(head(ask, NOBODY, &[("Content-Length", "100000000"), kind]))
            .await;
        connection.write(&follow_up).await;
        assert_eq!(connection.reply().await.unwrap().error().0, 401, "{ask}");
        connection.write(&follow_up).await;
        assert!(connection.is_over().await, "{ask}");
    }
    // Two lengths are no length.
    let mut connection = server.connect().await;
    let two = [("Content-Length", "5"), ("Content-Length", "50")];
    connection.write(head("POST uploads/", ALICE, &two)).await;
    assert_eq!(connection.head().await.unwrap().status, 400);
    // Several requests at once are answered in their order.
    let mut connection = server.connect().await;
    let (one, other) = (head("GET videos/", ALICE, &[]), head("GET videos/", NOBODY, &[]));
    connection.write(format!("{one}{other}{one}")).await;
    for status in [200, 401, 200] {
        assert_eq!(connection.reply().await.unwrap().status, status);
    }
}
