//! Finished files over real HTTP: what is sent, to whom, and what is left when a client goes.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod hls;
mod hostile;
mod house;
mod signed;

use house::{ANN, EVE, House};
use tower_upload::{Caller, NewUpload, http::Cors};

/// Bytes of which no stretch of some length comes twice.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Headers, status, which bytes, `name: value` of the answer.
type Row<'a> = (&'a [(&'a str, &'a str)], u16, std::ops::Range<usize>, &'a [&'a str]);

#[tokio::test]
#[rustfmt::skip]
async fn conditions_and_ranges() {
    let house = House::new(|files| files).await;
    let film = bytes(10_000);
    let id = house.file("a.mp4", "video/mp4", &film).await;
    let etag = house.get(id, &[]).await.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with("-2710\""), "{etag}");
    let (weak, list) = (format!("W/{etag}"), format!("\"other\", {etag}"));
    let (past, future) = ("Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT");
    let (before, at, after) = ("Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:21 GMT");
    let (obsolete, wrong) = ("Tuesday, 14-Nov-23 22:13:20 GMT", "Monday, 14-Nov-23 22:13:20 GMT");
    let whole = 0..10_000;
    let rows: &[Row<'_>] = &[
        (&[], 200, whole.clone(), &["content-length: 10000", "accept-ranges: bytes", "content-type: video/mp4"]),
        (&[("range", "bytes=2-4")], 206, 2..5, &["content-length: 3", "content-range: bytes 2-4/10000"]),
        (&[("range", "bytes=9990-")], 206, 9990..10_000, &["content-range: bytes 9990-9999/10000"]),
        (&[("range", "bytes=-1")], 206, 9999..10_000, &["content-range: bytes 9999-9999/10000"]),
        (&[("range", "bytes=0-99999")], 206, whole.clone(), &["content-range: bytes 0-9999/10000"]),
        (&[("range", "bytes=10000-")], 416, 0..0, &["content-range: bytes */10000"]),
        (&[("range", "bytes=-0")], 416, 0..0, &["content-range: bytes */10000"]),
        (&[("range", "bytes=5-2")], 200, whole.clone(), &[]),
        (&[("range", "lines=0-1")], 200, whole.clone(), &[]),
        (&[("range", "bytes=0-0"), ("range", "bytes=5-5")], 200, whole.clone(), &[]),
        // What overlaps is one.
        (&[("range", "bytes=0-9,5-19")], 206, 0..20, &["content-range: bytes 0-19/10000"]),
        (&[("range", "bytes=0-,0-,0-,0-,0-,0-,0-,0-")], 206, whole.clone(), &["content-range: bytes 0-9999/10000"]),
        (&[("range", "bytes=2-4"), ("if-range", &etag)], 206, 2..5, &[]),
        (&[("range", "bytes=2-4"), ("if-range", &weak)], 200, whole.clone(), &[]),
        (&[("range", "bytes=2-4"), ("if-range", "\"other\"")], 200, whole.clone(), &[]),
        (&[("range", "bytes=2-4"), ("if-range", future)], 200, whole.clone(), &[]),
        (&[("range", "bytes=2-4"), ("if-range", at)], 206, 2..5, &[]),
        (&[("range", "bytes=2-4"), ("if-range", obsolete)], 206, 2..5, &[]),
        (&[("range", "bytes=2-4"), ("if-range", wrong)], 200, whole.clone(), &[]),
        (&[("range", "bytes=2-4"), ("if-range", before)], 200, whole.clone(), &[]),
        (&[("range", "bytes=2-4"), ("if-range", after)], 200, whole.clone(), &[]),
        (&[("if-none-match", &etag)], 304, 0..0, &[]),
        (&[("if-none-match", &weak)], 304, 0..0, &[]),
        (&[("if-none-match", &list), ("range", "bytes=2-4")], 304, 0..0, &[]),
        (&[("if-none-match", "*")], 304, 0..0, &[]),
        (&[("if-none-match", "\"other\"")], 200, whole.clone(), &[]),
        (&[("if-none-match", "\"other\""), ("if-modified-since", future)], 200, whole.clone(), &[]),
        (&[("if-match", &list)], 200, whole.clone(), &[]),
        (&[("if-match", "*"), ("range", "bytes=2-4")], 206, 2..5, &[]),
        (&[("if-match", &weak)], 412, 0..0, &[]),
        (&[("if-match", "\"other\"")], 412, 0..0, &[]),
        (&[("if-match", "\"other\""), ("range", "bytes=99999-")], 412, 0..0, &[]),
        (&[("if-match", "\"other\""), ("if-none-match", &etag)], 412, 0..0, &[]),
        (&[("if-match", &etag), ("if-none-match", &etag)], 304, 0..0, &[]),
        (&[("if-modified-since", future)], 304, 0..0, &[]),
        (&[("if-modified-since", at)], 304, 0..0, &[]),
        (&[("if-modified-since", before)], 200, whole.clone(), &[]),
        (&[("if-modified-since", wrong)], 200, whole.clone(), &[]),
        (&[("if-modified-since", at), ("range", "bytes=2-4")], 304, 0..0, &[]),
        (&[("if-none-match", &etag), ("if-modified-since", past)], 304, 0..0, &[]),
        (&[("if-unmodified-since", at)], 200, whole.clone(), &[]),
        (&[("if-unmodified-since", after), ("range", "bytes=2-4")], 206, 2..5, &[]),
        (&[("if-unmodified-since", before)], 412, 0..0, &[]),
        (&[("if-unmodified-since", wrong)], 200, whole.clone(), &[]),
        (&[("if-unmodified-since", past), ("if-modified-since", future)], 412, 0..0, &[]),
        (&[("if-match", &etag), ("if-unmodified-since", past)], 200, whole.clone(), &[]),
    ];
    for (headers, status, range, expected) in rows {
        let reply = house.get(id, headers).await;
        assert_eq!(reply.status, *status, "{headers:?}");
        assert!(reply.is_whole && reply.body == film[range.clone()], "{headers:?} {:?}", reply.headers);
        assert_eq!(reply.header("etag"), etag, "{headers:?}");
        assert_eq!(reply.header("cache-control"), "private, no-cache");
        assert_eq!(reply.header("content-security-policy"), "sandbox; default-src 'none'");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(reply.header("last-modified"), if *status == 304 { "" } else { at }, "{headers:?}");
        for expected in *expected {
            let (name, value) = expected.split_once(": ").unwrap();
            assert_eq!(reply.header(name), value, "{headers:?}");
        }
        let has_content = *status == 200 || *status == 206;
        assert_eq!(reply.header("content-disposition").is_empty(), !has_content, "{headers:?}");

        // HEAD is GET without the body, and knows no ranges.
        let head = house.ask(&format!("HEAD /media/{id}"), &[&[ANN], *headers].concat()).await;
        assert!(head.is_whole && head.body.is_empty(), "{headers:?}");
        let without: Vec<_> = headers.iter().copied().filter(|(name, _)| *name != "range").collect();
        let get = house.get(id, &without).await;
        let told = |headers: &[(String, String)]| {
            let mut told: Vec<_> = headers.iter().filter(|(name, _)| name != "date").cloned().collect();
            told.sort();
            told
        };
        assert_eq!((head.status, told(&head.headers)), (get.status, told(&get.headers)), "{headers:?}");
    }
}

#[tokio::test]
async fn a_file_was_never_modified_later_than_it_is_sent() {
    let house = House::new(|files| files).await;
    house
        .store_hands
        .0
        .store(4_000_000_000_000, std::sync::atomic::Ordering::SeqCst);
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    let reply = house.get(id, &[]).await;
    let told = [reply.header("last-modified"), reply.header("date")];
    let [modified, date] = told.map(|told| httpdate::parse_http_date(told).unwrap());
    assert!(modified <= date, "{told:?}");
    assert!(date.duration_since(modified).unwrap().as_secs() < 60, "{told:?}");
    // Who has part of it, and this date alone, begins anew: it is no strong validator.
    let headers = [("range", "bytes=2-4"), ("if-range", told[0])];
    assert_eq!(house.get(id, &headers).await.status, 200);
}

#[tokio::test]
async fn several_ranges_are_parts_of_one_answer() {
    let house = House::new(|files| files).await;
    let film = bytes(2 << 20);
    let id = house.file("a.mp4", "video/mp4", &film).await;
    let reply = house.get(id, &[("range", "bytes=-5,0-1048575,1500000-1500009")]).await;
    assert!(reply.status == 206 && reply.is_whole, "{:?}", reply.headers);
    assert_eq!(reply.header("content-range"), "");
    let media = reply.header("content-type");
    let boundary = media.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut expected = Vec::new();
    for (line, range) in [
        ("", 2_097_147..2_097_152),
        ("\r\n", 0..1_048_576),
        ("\r\n", 1_500_000..1_500_010),
    ] {
        let (start, last) = (range.start, range.end - 1);
        let head = format!(
            "{line}--{boundary}\r\nContent-Type: video/mp4\r\nContent-Range: bytes {start}-{last}/2097152\r\n\r\n"
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&film[range]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(
        reply.body == expected,
        "{} bytes, expected {}",
        reply.body.len(),
        expected.len()
    );
    // The boundary cannot be known before.
    let again = house.get(id, &[("range", "bytes=-5,0-9")]).await;
    assert!(!again.header("content-type").contains(boundary));
    // More than sixteen are not worth it.
    let many: String = (0..17).map(|at| format!("{}-{},", at * 10_000, at * 10_000)).collect();
    assert_eq!(house.get(id, &[("range", &format!("bytes={many}"))]).await.status, 200);
}

#[tokio::test]
async fn what_a_file_is_told_to_be() {
    let house = House::new(|files| files).await;
    let inline = House::new(|files| files.inline(true)).await;
    for (name, media, expected, shown) in [
        ("a.mp4", "video/mp4", "video/mp4", "inline"),
        ("a.webm", "", "video/webm", "inline"),
        ("a.bin", "image/png", "image/png", "inline"),
        ("a.html", "text/html", "application/octet-stream", "attachment"),
        ("a.svg", "image/svg+xml", "application/octet-stream", "attachment"),
        (
            "a.m3u8",
            "application/vnd.apple.mpegurl",
            "application/octet-stream",
            "attachment",
        ),
        ("a", "", "application/octet-stream", "attachment"),
    ] {
        for (house, disposition) in [(&house, "attachment"), (&inline, shown)] {
            let id = house.file(name, media, b"<script>").await;
            let reply = house.get(id, &[]).await;
            assert_eq!(
                (reply.status, reply.header("content-type")),
                (200, expected),
                "{name} {media}"
            );
            let told = format!("{disposition}; filename=\"{name}\"");
            assert_eq!(reply.header("content-disposition"), told, "{media}");
        }
    }
}

#[tokio::test]
async fn digests_are_told_to_who_wants_them() {
    let house = House::new(|files| files).await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    let sha = "sha-256=:hNiYd/DUBB77a/kaFvAkjy/VcEhfaQBtsN77IsRWVI=:".len();
    for (want, kind) in [
        ("sha-256=1", "sha-256"),
        ("md5=10, sha-256=1", "sha-256"),
        ("crc64nvme=5, sha-256=1", "crc64nvme"),
        ("sha-512=1", ""),
        ("sha-256=0", ""),
        ("sha-256", ""),
        ("", ""),
    ] {
        let reply = house
            .get(id, &[("want-repr-digest", want), ("range", "bytes=0-1")])
            .await;
        let told = reply.header("repr-digest");
        assert!(
            told.starts_with(kind) && told.is_empty() == kind.is_empty(),
            "{want}: {told}"
        );
        if kind == "sha-256" {
            assert!(told.len() >= sha, "{told}");
            assert_eq!(house.digest(id).await.algorithm().name(), "sha256");
        }
    }
    assert_eq!(house.get(id, &[]).await.header("repr-digest"), "");
}

#[tokio::test]
async fn only_those_who_may_learn_that_a_file_exists() {
    let house = House::new(|files| files.cors(Cors::new().allow_origin("https://app.example"))).await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    let unknown = "AAAAAAAAAAAAAAAAAAAAAA";
    let theirs = house.ask(&format!("GET /media/{id}"), &[EVE]).await;
    let none = house.ask(&format!("GET /media/{unknown}"), &[EVE]).await;
    assert_eq!((theirs.status, none.status), (404, 404));
    assert_eq!(theirs.text(), none.text());
    assert_eq!(theirs.header("content-type"), "application/problem+json");
    assert_eq!(theirs.header("cache-control"), "no-store");
    for path in [id.to_string(), unknown.to_owned()] {
        let nobody = house.ask(&format!("GET /media/{path}"), &[]).await;
        assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, "Bearer"));
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        let reply = house.ask(&format!("{method} /media/{id}"), &[ANN]).await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, "GET, HEAD, OPTIONS"),
            "{method}"
        );
    }
    let options = house.ask(&format!("OPTIONS /media/{id}"), &[]).await;
    assert_eq!((options.status, options.header("allow")), (204, "GET, HEAD, OPTIONS"));
    let asks = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "GET"),
    ];
    let preflight = house.ask(&format!("OPTIONS /media/{id}"), &asks).await;
    assert_eq!(preflight.header("access-control-allow-origin"), "https://app.example");
    let reply = house.get(id, &[("origin", "https://evil.example")]).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, ""));

    let ann = Caller::new("ann");
    let open = house
        .uploads
        .create(&ann, NewUpload::new("b.mp4").size(10))
        .await
        .unwrap();
    assert_eq!(house.get(open.id(), &[]).await.status, 409);
    house.uploads.delete(&ann, id).await.unwrap();
    assert_eq!(house.get(id, &[]).await.status, 404);
}
