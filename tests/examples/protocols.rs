//! The protocols besides the chunk API, and browsers of other origins.

use crate::{
    client::MOUNT,
    server::{ALICE, BOB, NOBODY, Server},
};

const TUS: (&str, &str) = ("Tus-Resumable", "1.0.0");
const INTEROP_6: (&str, &str) = ("Upload-Draft-Interop-Version", "6");

pub(crate) async fn tus_is_spoken(which: &'static str) {
    let token = format!("--token={ALICE}=alice");
    let server = Server::with(which, [&*token, "--public-url=https://media.example"]);
    let create = [TUS, ("Upload-Length", "5")];
    assert_eq!(server.ask("POST files/", NOBODY, &create, "").await.status, 401);
    let made = server.ask("POST files/", ALICE, &create, "").await;
    assert_eq!(made.status, 201, "{made:?}");
    let url = made.header("location").to_owned();
    let path = url.strip_prefix("https://media.example").unwrap();
    assert!(path.starts_with(&format!("{MOUNT}/files/")), "{url}");

    let append = [
        TUS,
        ("Upload-Offset", "0"),
        ("Content-Type", "application/offset+octet-stream"),
    ];
    let sent = server.ask(&format!("PATCH {path}"), ALICE, &append, "01234").await;
    assert_eq!((sent.status, sent.header("upload-offset")), (204, "5"), "{sent:?}");
    assert_eq!(server.get(path, ALICE).await.body, b"01234");
}

pub(crate) async fn the_protocol_of_the_ietf_is_spoken(which: &'static str) {
    let server = Server::start(which);
    let create = [INTEROP_6, ("Upload-Complete", "?0")];
    let made = server.ask("POST files/", ALICE, &create, "").await;
    assert_eq!(made.status, 201, "{made:?}");
    let url = made.header("location");
    let path = url.strip_prefix("http://localhost").unwrap().to_owned();
    assert!(path.starts_with(&format!("{MOUNT}/files/")), "{url}");

    let append = [
        INTEROP_6,
        ("Upload-Offset", "0"),
        ("Upload-Complete", "?1"),
        ("Content-Type", "application/partial-upload"),
    ];
    let stranger = server.ask(&format!("PATCH {path}"), BOB, &append, "01234").await;
    assert_eq!(stranger.status, 404);
    let sent = server.ask(&format!("PATCH {path}"), ALICE, &append, "01234").await;
    assert!((200..300).contains(&sent.status), "{sent:?}");
    assert_eq!(sent.header("upload-complete"), "?1");
}

pub(crate) async fn pages_of_named_origins_may_upload(which: &'static str) {
    let token = format!("--token={ALICE}=alice");
    let server = Server::with(
        which,
        [&*token, "--cors=https://app.example", "--cors=http://localhost:3000"],
    );
    for (origin, allowed) in [
        ("https://app.example", true),
        ("http://localhost:3000", true),
        ("https://evil.example", false),
        ("http://app.example", false),
    ] {
        let preflight = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "PATCH"),
            ("Access-Control-Request-Headers", "authorization,tus-resumable"),
        ];
        let allowed = if allowed { origin } else { "" };
        let answer = server.ask("OPTIONS files/", NOBODY, &preflight, "").await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{answer:?}");
        // A browser tells the page nothing of a refusal that does not allow its origin either.
        let answer = server.ask("GET uploads/", NOBODY, &[("Origin", origin)], "").await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (401, allowed),
            "{answer:?}"
        );
    }
}
