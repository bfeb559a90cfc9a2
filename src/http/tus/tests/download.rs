//! What was uploaded, downloaded.

use super::*;

const LENGTH: (&str, &str) = ("upload-length", "10");
/// `für.html`, `text/html`.
const PAGE: (&str, &str) = ("upload-metadata", "filename ZsO8ci5odG1s,filetype dGV4dC9odG1s");
/// `a.mp4`, `video/mp4`.
const FILM: (&str, &str) = ("upload-metadata", "filename YS5tcDQ=,filetype dmlkZW8vbXA0");

async fn finished(wire: &Wire, metadata: (&str, &str)) -> String {
    wire.created(&[LENGTH, metadata], "0123456789").await
}

/// Headers, status, body, `name: value` of the answer.
type Row<'a> = (&'a [(&'a str, &'a str)], u16, &'a str, &'a [&'a str]);

#[tokio::test]
#[rustfmt::skip]
async fn ranges_and_preconditions() {
    let wire = wire().await;
    let id = finished(&wire, FILM).await;
    let etag = wire.get(&id).await.header("etag").to_owned();
    assert_eq!(etag, format!("\"{:016x}-a\"", crate::Crc64::of(b"0123456789")));
    let weak = format!("W/{etag}");
    let list = format!("\"other\", {etag}");
    let rows: &[Row<'_>] = &[
        (&[], 200, "0123456789", &["content-length: 10", "accept-ranges: bytes"]),
        (&[("range", "bytes=2-4")], 206, "234", &["content-length: 3", "content-range: bytes 2-4/10"]),
        (&[("range", "bytes=8-")], 206, "89", &["content-range: bytes 8-9/10"]),
        (&[("range", "bytes=-1")], 206, "9", &["content-range: bytes 9-9/10"]),
        (&[("range", "bytes=0-999")], 206, "0123456789", &["content-range: bytes 0-9/10"]),
        (&[("range", "bytes=10-")], 416, "", &["content-range: bytes */10"]),
        (&[("range", "bytes=0-0,9-9")], 206, "0123456789", &["content-range: bytes 0-9/10"]), // near ones are one
        (&[("range", "lines=0-1")], 200, "0123456789", &[]),
        (&[("range", "bytes=2-4"), ("if-range", &etag)], 206, "234", &[]),
        (&[("range", "bytes=2-4"), ("if-range", &weak)], 200, "0123456789", &[]),
        (&[("range", "bytes=2-4"), ("if-range", "\"other\"")], 200, "0123456789", &[]),
        (&[("range", "bytes=2-4"), ("if-range", "Tue, 14 Nov 2023 22:13:20 GMT")], 200, "0123456789", &[]),
        (&[("if-none-match", &etag)], 304, "", &[]),
        (&[("if-none-match", &weak)], 304, "", &[]),
        (&[("if-none-match", &list), ("range", "bytes=2-4")], 304, "", &[]),
        (&[("if-none-match", "*")], 304, "", &[]),
        (&[("if-none-match", "\"other\"")], 200, "0123456789", &[]),
        (&[("if-match", &list)], 200, "0123456789", &[]),
        (&[("if-match", "*")], 200, "0123456789", &[]),
        (&[("if-match", &weak)], 412, "", &[]),
        (&[("if-match", "\"other\"")], 412, "", &[]),
        (&[("if-match", "\"other\""), ("if-none-match", &etag)], 412, "", &[]),
    ];
    for (headers, status, text, expected) in rows {
        for at in ["/files/{id}", "/uploads/{id}/content"] {
            let request = request(&format!("GET {}", at.replace("{id}", &id)), headers, whole(""));
            let reply = wire.call(request).await;
            assert_eq!((reply.status, reply.text.as_str()), (*status, *text), "{headers:?} {reply:?}");
            assert_eq!(reply.header("etag"), etag, "{headers:?} {reply:?}");
            assert_eq!(reply.header("cache-control"), "private, no-cache");
            for expected in *expected {
                let (name, value) = expected.split_once(": ").unwrap();
                assert_eq!(reply.header(name), value, "{headers:?} {reply:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_strangers_sent_is_no_page_of_ours() {
    let wire = wire().await;
    for (metadata, media, disposition) in [
        (FILM, "video/mp4", "attachment; filename=\"a.mp4\""),
        (
            PAGE,
            "application/octet-stream",
            "attachment; filename=\"f_r.html\"; filename*=UTF-8''f%C3%BCr.html",
        ),
    ] {
        let id = finished(&wire, metadata).await;
        let reply = wire.get(&id).await;
        assert_eq!(reply.header("content-type"), media);
        assert_eq!(reply.header("content-disposition"), disposition);
        assert_eq!(reply.header("content-security-policy"), "sandbox; default-src 'none'");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn there_is_content_once_it_is_finished() {
    let wire = wire().await;
    let id = wire.created(&[LENGTH], "012345678").await;
    for (content, json) in [
        (format!("/files/{id}"), false),
        (format!("/uploads/{id}/content"), true),
    ] {
        let reply = wire.call(request(&format!("GET {content}"), &[], whole(""))).await;
        assert_eq!((reply.status, reply.text.starts_with('{')), (409, json), "{reply:?}");
    }
    assert_eq!(wire.patch(&id, 9, "9").await.status, 204);
    assert_eq!(wire.get(&id).await.text, "0123456789");
    let ask = format!("HEAD /uploads/{id}/content");
    let same = wire.call(request(&ask, &[("if-none-match", "*")], whole(""))).await;
    assert_eq!(same.status, 304, "{same:?}");
    assert!(
        !same.headers.contains_key("content-length"),
        "it would be that of the content: {same:?}"
    );
    let head = wire.call(request(&ask, &[("range", "bytes=0-1")], whole(""))).await;
    assert_eq!(
        (head.status, head.text.as_str(), head.header("content-length")),
        (200, "", "10"),
        "{head:?}"
    );
    let post = wire.ask(&format!("POST /uploads/{id}/content"), &[], "").await;
    assert_eq!((post.status, post.header("allow")), (405, "GET, HEAD"));
    assert_eq!(
        wire.tus(&format!("DELETE /files/{id}"), &[], whole("")).await.status,
        204
    );
    for content in [
        format!("GET /files/{id}"),
        format!("GET /uploads/{id}/content"),
        format!("HEAD /uploads/{id}/content"),
    ] {
        let reply = wire.call(request(&content, &[], whole(""))).await;
        assert_eq!(reply.status, 404, "{content} {reply:?}");
    }
}

/// A download says how long it is, and one that is cut short is no download.
#[tokio::test]
async fn a_body_says_how_long_it_is_and_keeps_to_it() {
    use crate::http::UploadBody;
    use http_body_util::BodyExt as _;
    let pieces = || stream::iter(["012", "34"].map(|piece| Ok(Bytes::from(piece))));
    for (len, is_right) in [(5, true), (4, false), (6, false), (0, false)] {
        let body = UploadBody::sized(pieces(), len);
        assert_eq!(body.size_hint().exact(), Some(len));
        assert_eq!(body.collect().await.is_ok(), is_right, "{len}");
    }
    let mut body = UploadBody::sized(pieces(), 5);
    body.frame().await.unwrap().unwrap();
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(2), false));
    body.frame().await.unwrap().unwrap();
    assert!(body.is_end_stream());
}
