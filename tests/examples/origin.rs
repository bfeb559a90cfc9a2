//! The documented contract, to the letter.

use std::{io::Write as _, process::Command};

use serde_json::json;

use crate::{
    client::{FORM, JSON, chunk_form, form},
    server::{ALICE, Server, file},
};

pub(crate) async fn the_documented_flow_holds_to_the_letter(which: &'static str) {
    let server = Server::start(which);
    let body =
        json!({"title": "My Video", "description": "Video description", "category": 1, "processing_status": "pending"});
    let made = server.json("POST create-video/", ALICE, body).await;
    assert_eq!(
        (made.status, made.header("location")),
        (201, "/api/streaming/videos/1/")
    );
    assert!(
        made.text()
            .starts_with(r#"{"success":true,"data":{"id":1,"title":"My Video","#),
        "{}",
        made.text()
    );
    let data = made.data();
    assert_eq!(
        (&data["description"], &data["category"]),
        (&json!("Video description"), &json!(1))
    );
    assert_eq!(data["processing_status"], "pending");

    let picture = b"\x89PNG\r\n\x1a\n and more";
    let fields = form(&[
        ("title", b"With a picture"),
        ("category", b"2"),
        ("thumbnail@me.png", picture),
    ]);
    let made = server.ask("POST create-video/", ALICE, &[FORM], fields).await.data();
    assert_eq!((&made["id"], &made["category"]), (&json!(2), &json!(2)));
    let thumbnail = made["thumbnail"].as_str().unwrap();
    assert_eq!(std::fs::read(server.data.path().join(thumbnail)).unwrap(), picture);

    let whole = file(2_500_000);
    let chunks: Vec<&[u8]> = whole.chunks(1_000_000).collect();
    for (index, bytes) in chunks.iter().enumerate() {
        let sent = server
            .ask(
                "POST upload-chunk/",
                ALICE,
                &[FORM],
                chunk_form(bytes, "1", index, 3, "my_video.mp4"),
            )
            .await;
        let expected = format!(
            r#"{{"success":true,"data":{{"message":"Chunk {}/3 uploaded successfully","chunk_index":{index},"total_chunks":3,"uploaded_chunks":{},"is_complete":{}}}}}"#,
            index + 1,
            index + 1,
            index == 2
        );
        assert_eq!((sent.status, sent.text()), (200, expected.as_str()));
    }
    for _ in 0..2 {
        let body = json!({"videoId": 1, "fileName": "my_video.mp4"});
        let assembled = server.json("POST assemble-chunks/", ALICE, body).await;
        assert_eq!(
            assembled.text(),
            r#"{"success":true,"data":{"message":"Video assembled successfully.","video_id":1,"video_path":"videos/originals/1_my_video.mp4","chunks_assembled":3}}"#
        );
    }
    assert_eq!(server.stored("videos/originals/1_my_video.mp4"), whole);
    assert_eq!(
        server.get("videos/", ALICE).await.data(),
        json!([
            {"id": 1, "title": "My Video", "video_path": "videos/originals/1_my_video.mp4", "processing_status": "uploaded"},
            {"id": 2, "title": "With a picture", "video_path": null, "processing_status": "pending"},
        ])
    );
    assert_eq!(
        server.get("videos/1", ALICE).await.data()["video_path"],
        "videos/originals/1_my_video.mp4"
    );
}

pub(crate) async fn errors_are_told_in_the_documented_words(which: &'static str) {
    let server = Server::start(which);
    let missing = server
        .ask(
            "POST upload-chunk/",
            ALICE,
            &[FORM],
            form(&[("chunk@blob", b"x"), ("videoId", b"1")]),
        )
        .await;
    let expected = r#"{"success":false,"error":{"error":"Missing required fields","required":["chunk","videoId","chunkIndex","totalChunks","fileName"]}}"#;
    assert_eq!((missing.status, missing.text()), (400, expected));

    let unknown = server
        .ask(
            "POST upload-chunk/",
            ALICE,
            &[FORM],
            chunk_form(b"x", "123", 0, 1, "a.mp4"),
        )
        .await;
    let expected = r#"{"success":false,"error":{"error":"Video with id 123 not found"}}"#;
    assert_eq!((unknown.status, unknown.text()), (404, expected));

    let video = server.video("empty").await;
    let none = server
        .json(
            "POST assemble-chunks/",
            ALICE,
            json!({"videoId": video, "fileName": "a.mp4"}),
        )
        .await;
    let expected = r#"{"success":false,"error":{"error":"No chunks found for this video"}}"#;
    assert_eq!((none.status, none.text()), (404, expected));

    // The host's own route speaks as the library does.
    for (body, status, told) in [
        (
            json!({}),
            400,
            r#""error":"Missing required fields","required":["title"]"#,
        ),
        (json!({"title": " "}), 400, r#""required":["title"]"#),
        (json!({"title": 7}), 400, r#""field":"title""#),
        (json!({"title": "x".repeat(201)}), 400, r#""field":"title""#),
        (json!({"title": "x", "category": "first"}), 400, r#""field":"category""#),
        (
            json!({"title": "x", "thumbnail": "a.png"}),
            400,
            r#""field":"thumbnail""#,
        ),
        (
            json!({"title": "x", "description": "x".repeat(70_000)}),
            413,
            "65536 bytes",
        ),
    ] {
        let refused = server.json("POST create-video/", ALICE, body).await;
        assert_eq!(refused.error().0, status, "{}", refused.text());
        assert!(refused.text().contains(told), "{} has no {told}", refused.text());
    }
    let script = form(&[("title", b"x"), ("thumbnail@a.png", b"<svg onload=alert(1)>")]);
    assert!(
        server
            .ask("POST create-video/", ALICE, &[FORM], script)
            .await
            .text()
            .contains(r#""field":"thumbnail""#)
    );
    assert_eq!(
        server.ask("POST create-video/", ALICE, &[JSON], "{").await.error().0,
        400
    );
    assert_eq!(
        server.ask("POST create-video/", ALICE, &[], "title=x").await.error().0,
        415
    );
    assert_eq!(server.get("create-video/", ALICE).await.header("allow"), "POST");
    assert_eq!(server.get("videos/", ALICE).await.data().as_array().unwrap().len(), 1);
}

pub(crate) async fn the_documented_client_runs_unchanged(which: &'static str) {
    if Command::new("node").arg("--version").output().is_err() {
        // Not by println!, which the harness swallows.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: there is no node to run the documented client"
        );
        return;
    }
    let server = Server::start(which);
    let video = server.video("By script").await;
    let whole = file(11 << 20);
    let path = server.data.path().join("my video (final).mp4");
    std::fs::write(&path, &whole).unwrap();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/origin-client.mjs");
    let mut node = tokio::process::Command::new("node");
    node.arg(script)
        .arg(format!("http://{}", server.address))
        .args([ALICE, &video.to_string()])
        .arg(&path);
    let done = node.output().await.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{out}{err}");
    for line in [
        "Uploaded chunk 1/3",
        "Uploaded chunk 3/3",
        "progress 100",
        "Video assembled successfully.",
    ] {
        assert!(out.contains(line), "no {line} in {out}{err}");
    }
    let details = server.get(&format!("videos/{video}/"), ALICE).await.data();
    assert_eq!(server.stored(details["video_path"].as_str().unwrap()), whole);
}
