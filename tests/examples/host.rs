//! What the examples bring along: page, videos, flags, secrets.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::json;

use crate::{
    client::{Connection, head},
    server::{ALICE, BOB, NOBODY, Server, binary, file},
    ticket::{KEY, LIFETIME, Tickets},
};

pub(crate) async fn secrets_stay_out_of_the_output(which: &'static str) {
    let mut server = Server::start(which);
    let video = server.video("Secret").await;
    let id = server.session(b"01234", 5, Some(video), "s.mp4").await;
    server.put(&id, 0, b"01234").await;
    server
        .ask(&format!("POST uploads/{id}/assemble/"), ALICE, &[], "")
        .await
        .data();
    let url = server.ticket(video).await;
    assert_eq!(server.get(&url, NOBODY).await.body, b"01234");
    let (_, ticket) = url.split_once("ticket=").unwrap();
    let forged = format!("{url}0");
    assert_eq!(server.get(&forged, NOBODY).await.status, 403);
    assert_eq!(server.get("videos/", "canary-wrong").await.status, 401);
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(5)).await.success());
    let output = server.output();
    assert!(output.contains("shutting down"), "the log is not read: {output}");
    for secret in ["canary", &ticket[..20]] {
        assert!(!output.contains(secret), "{secret} in {output}");
    }
}

pub(crate) async fn the_demo_token_is_printed_once(which: &'static str) {
    let mut server = Server::with(which, ["--durability", "none"]);
    let listening = format!("listening on http://{}\n", server.address);
    let link = format!("http://{}/#token=", server.address);
    while !server.output().contains(&link) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let output = server.output();
    let token = output.split_once(&link).unwrap().1.lines().next().unwrap().to_owned();
    assert_eq!(token.len(), 32);
    assert_eq!(server.get("videos/", &token).await.data(), json!([]));
    assert_eq!(server.get("videos/", NOBODY).await.status, 401);
    server.signal("TERM");
    server.ended(Duration::from_secs(5)).await;
    let output = server.output();
    assert_eq!(
        (output.matches(&token).count(), output.matches(&listening).count()),
        (1, 1),
        "{output}"
    );
}

pub(crate) async fn the_page_and_its_files(which: &'static str) {
    let server = Server::start(which);
    for (path, status, kind, content) in [
        (
            "/",
            200,
            "text/html; charset=utf-8",
            r#"<meta name="mount" content="/api/streaming">"#,
        ),
        (
            "/",
            200,
            "text/html; charset=utf-8",
            r#"<meta name="auth" content="bearer">"#,
        ),
        ("/page.js", 200, "text/javascript; charset=utf-8", "import"),
        (
            "/uploader.js",
            200,
            "text/javascript; charset=utf-8",
            "export class ChunkUploader",
        ),
        (
            "/status.js",
            200,
            "text/javascript; charset=utf-8",
            "export async function* statuses",
        ),
        ("/page.css", 200, "text/css; charset=utf-8", ":root"),
        ("/page.css?v=1", 200, "text/css; charset=utf-8", ":root"),
        ("/favicon.ico", 204, "", ""),
        ("/nothing", 404, "text/plain; charset=utf-8", "Not found"),
        ("/api/streamingly", 404, "text/plain; charset=utf-8", "Not found"),
    ] {
        let page = server.get(path, NOBODY).await;
        assert_eq!(page.status, status, "{path}");
        assert!(
            kind.is_empty() || page.header("content-type") == kind,
            "{path}: {page:?}"
        );
        assert!(page.text().contains(content), "{path}");
        assert!(path != "/" || !page.text().contains("{{"));
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        let policy = page.header("content-security-policy");
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(directive), "{path}: {policy}");
        }
        let mut connection = server.connect().await;
        connection
            .write(head(&format!("HEAD {path}"), NOBODY, &[("Connection", "close")]))
            .await;
        let head = connection.head().await.unwrap();
        assert_eq!(
            (head.status, head.header("content-type")),
            (status, page.header("content-type")),
            "HEAD {path}"
        );
        assert!(connection.is_over().await);
    }
    assert_eq!(server.ask("POST /", NOBODY, &[], "").await.header("allow"), "GET, HEAD");
    assert_eq!(server.get("nothing", ALICE).await.error().0, 404);
}

/// A finished video of alice with this content.
async fn finished(server: &Server, content: &[u8], file_name: &str) -> u64 {
    let video = server.video(file_name).await;
    let id = server
        .session(content, content.len().max(1), Some(video), file_name)
        .await;
    server.put(&id, 0, content).await.data();
    server
        .ask(&format!("POST uploads/{id}/assemble/"), ALICE, &[], "")
        .await
        .data();
    video
}

pub(crate) async fn tickets_and_ranges(which: &'static str) {
    let server = Server::start(which);
    let whole = file(100_000);
    let video = finished(&server, &whole, "r.mp4").await;
    let url = server.ticket(video).await;
    let (path, ticket) = url.split_once("?ticket=").unwrap();
    assert_eq!(path, format!("/api/streaming/videos/{video}/content"));
    let (expiry, signature) = ticket.split_once('.').unwrap();
    let later = expiry.parse::<u64>().unwrap() + 1;
    let last = if signature.ends_with('0') { '1' } else { '0' };
    let flipped = format!("{}{last}", &signature[..signature.len() - 1]);
    let other = finished(&server, b"other", "o.mp4").await;
    for (url, status) in [
        (path.to_owned(), 401),
        (format!("{path}?ticket="), 403),
        (format!("{path}?ticket={expiry}.{flipped}"), 403),
        (format!("{path}?ticket={later}.{signature}"), 403),
        (format!("{path}?ticket=1.{signature}"), 403),
        (format!("{path}?ticket={ticket}0"), 403),
        (format!("/api/streaming/videos/{other}/content?ticket={ticket}"), 403),
        (format!("/api/streaming/videos/999/content?ticket={ticket}"), 403),
    ] {
        assert_eq!(server.get(&url, NOBODY).await.error().0, status, "{url}");
    }
    assert_eq!(server.get(path, ALICE).await.body, whole);
    assert_eq!(server.get(path, BOB).await.error().0, 404);

    let full = server.get(&url, NOBODY).await;
    assert_eq!(
        (full.status, full.header("content-type"), full.header("accept-ranges")),
        (200, "video/mp4", "bytes")
    );
    assert_eq!(full.body, whole);
    assert_eq!(full.header("x-content-type-options"), "nosniff");
    assert!(full.header("content-security-policy").contains("sandbox"));
    for (range, part) in [
        ("bytes=0-0", Some(0..1)),
        ("bytes=10-19", Some(10..20)),
        ("bytes=99990-", Some(99_990..100_000)),
        ("bytes=99990-200000", Some(99_990..100_000)),
        ("bytes=-7", Some(99_993..100_000)),
        ("bytes=-200000", Some(0..100_000)),
        ("bytes=5-3", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=x", None),
    ] {
        let reply = server.ask(&format!("GET {url}"), NOBODY, &[("Range", range)], "").await;
        let Some(part) = part else {
            assert_eq!((reply.status, reply.body.len()), (200, whole.len()), "{range}");
            continue;
        };
        let told = format!("bytes {}-{}/100000", part.start, part.end - 1);
        assert_eq!(
            (reply.status, reply.header("content-range")),
            (206, told.as_str()),
            "{range}"
        );
        assert!(reply.body == whole[part], "{range}");
    }
    for range in ["bytes=100000-", "bytes=-0"] {
        let reply = server.ask(&format!("GET {url}"), NOBODY, &[("Range", range)], "").await;
        assert_eq!(
            (reply.status, reply.header("content-range")),
            (416, "bytes */100000"),
            "{range}"
        );
    }
    for (condition, status) in [(full.header("etag"), 206), ("\"other\"", 200)] {
        let headers = [("Range", "bytes=0-0"), ("If-Range", condition)];
        assert_eq!(
            server.ask(&format!("GET {url}"), NOBODY, &headers, "").await.status,
            status
        );
    }
    let mut connection = server.connect().await;
    connection
        .write(head(&format!("HEAD {url}"), NOBODY, &[("Connection", "close")]))
        .await;
    let only_head = connection.head().await.unwrap();
    assert_eq!((only_head.status, only_head.header("content-length")), (200, "100000"));
    assert!(connection.is_over().await);
}

pub(crate) async fn only_videos_are_shown_as_videos(which: &'static str) {
    let server = Server::start(which);
    for (name, kind, disposition) in [
        ("a.webm", "video/webm", ""),
        ("A.MOV", "video/quicktime", ""),
        ("a.html", "application/octet-stream", "attachment"),
        ("a.svg", "application/octet-stream", "attachment"),
        ("a", "application/octet-stream", "attachment"),
    ] {
        let video = finished(&server, b"<script>alert(1)</script>", name).await;
        let shown = server.get(&server.ticket(video).await, NOBODY).await;
        assert_eq!(
            (shown.header("content-type"), shown.header("content-disposition")),
            (kind, disposition),
            "{name}"
        );
    }
    let empty = finished(&server, b"", "empty.mp4").await;
    let shown = server.get(&server.ticket(empty).await, NOBODY).await;
    assert_eq!((shown.status, shown.header("content-length")), (200, "0"));
    let none = server.video("Not sent").await;
    assert_eq!(server.get(&server.ticket(none).await, NOBODY).await.error().0, 404);
}

pub(crate) async fn another_mount_and_no_tokens(which: &'static str) {
    let args = [
        "--mount=/v1/media/",
        "--anonymous",
        "--blobs=memory:",
        "--metadata=memory:",
        "--max-size=1000",
    ];
    let server = Server::with(which, args);
    let page = server.get("/", NOBODY).await;
    assert!(
        page.text().contains(r#"name="mount" content="/v1/media""#) && page.text().contains(r#"content="anonymous""#)
    );
    let made = server
        .json("POST /v1/media/create-video", NOBODY, json!({"title": "x"}))
        .await;
    assert_eq!(made.header("location"), "/v1/media/videos/1/");
    let body = json!({"fileName": "x.mp4", "fileSize": 5, "videoId": 1});
    let session = server.json("POST /v1/media/uploads", NOBODY, body).await;
    // A server that only this machine reaches believes the name that it is asked by.
    let url = session.header("location");
    let location = url.strip_prefix("http://localhost").unwrap().to_owned();
    assert!(location.starts_with("/v1/media/uploads/"), "{url}");
    assert_eq!(
        server
            .ask(&format!("PUT {location}chunks/0"), NOBODY, &[], "01234")
            .await
            .status,
        200
    );
    assert_eq!(
        server
            .ask(&format!("POST {location}assemble/"), NOBODY, &[], "")
            .await
            .status,
        200
    );
    assert_eq!(server.get("/v1/media/videos/1/content", NOBODY).await.body, b"01234");
    let large = json!({"fileName": "x.mp4", "fileSize": 1001});
    assert_eq!(
        server.json("POST /v1/media/uploads", NOBODY, large).await.error().0,
        413
    );
    assert_eq!(server.get("/api/streaming/videos/", NOBODY).await.status, 404);
}

pub(crate) async fn bad_flags_are_told(which: &'static str) {
    let data = tempfile::tempdir().unwrap();
    for (args, told) in [
        (vec!["--nonsense"], "--nonsense is no flag"),
        (vec!["--listen", "here"], "--listen is an address"),
        (vec!["--listen"], "--listen needs a value"),
        (vec!["--mount", "/"], "--mount is a path"),
        (vec!["--mount", "/a/{b}"], "--mount is a path"),
        (vec!["--cors", "example.com"], "--cors is an origin"),
        (vec!["--cors", "https://example.com/app"], "--cors is an origin"),
        (vec!["--public-url", "https://"], "--public-url is an origin"),
        (vec!["--token", "secret-word"], "--token is TOKEN=USER"),
        (vec!["--anonymous", "--token", "a=b"], "exclude each other"),
        (vec!["--durability", "some"], "ack or none"),
        (vec!["--max-size", "-1"], "whole number"),
        (vec!["--metadata", "mysql://me:secret-word@host"], "unknown scheme"),
    ] {
        let ended = Command::new(binary(which))
            .arg("--data")
            .arg(data.path())
            .args(&args)
            .output()
            .unwrap();
        let error = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success() && error.contains(told), "{args:?}: {error}");
        assert!(!error.contains("secret-word"), "{error}");
    }
    let help = Command::new(binary(which)).arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("--memory-budget"));

    let server = Server::start(which);
    let mut second = Command::new(binary(which));
    let second = second
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(server.data.path())
        .output()
        .unwrap();
    assert!(!second.status.success());
}

#[tokio::test]
async fn too_many_requests_are_told_to_wait() {
    let server = Server::start("axum");
    let mut connection = Connection::open(&server.address).await;
    let mut refused = None;
    for _ in 0..40 {
        connection.write(head("GET videos/", ALICE, &[]).repeat(100)).await;
        for _ in 0..100 {
            let reply = connection.reply().await.unwrap();
            if reply.status == 429 {
                refused.get_or_insert(reply);
            }
        }
    }
    let refused = refused.expect("no 429 in 4000 requests");
    assert_eq!(refused.json()["error"]["retry_after"], 1);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("content-type"), "application/json");
    assert_eq!(server.get("videos/", BOB).await.status, 200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.get("videos/", ALICE).await.status, 200);
}

#[test]
fn a_ticket_ends_after_ten_minutes() {
    let tickets = Tickets::new([1; KEY]);
    let now = SystemTime::now();
    let ticket = tickets.issue(7, "alice", now);
    assert!(tickets.is_valid(&ticket, 7, "alice", now));
    assert!(tickets.is_valid(&ticket, 7, "alice", now + LIFETIME - Duration::from_secs(1)));
    assert!(!tickets.is_valid(&ticket, 7, "alice", now + LIFETIME));
    assert!(!tickets.is_valid(&ticket, 7, "bob", now));
    assert!(!Tickets::new([2; KEY]).is_valid(&ticket, 7, "alice", now));
}
