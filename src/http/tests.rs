//! The wire: requests and their answers, against a real engine on stores in memory.
#![allow(clippy::unwrap_used)]

mod panics;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, Request, Response, request::Parts};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use serde_json::{Value, json};
use tower_layer::Layer as _;
use tower_service::Service;

use super::{LayerBody, UploadBody, UploadFuture, UploadLayer, UploadMiddleware, UploadService};
use crate::{
    Caller, Uploads,
    access::OwnerOnly,
    blob::{ByteRange, MemoryBlobs},
    metadata::MemoryMetadata,
};

pub(super) type Who = fn(&Parts) -> Option<Caller>;

/// The bearer's name is the user.
pub(super) fn bearer(parts: &Parts) -> Option<Caller> {
    let value = parts.headers.get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(Caller::new)
}

pub(super) async fn engine() -> Uploads {
    let stores = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new());
    stores
        .authorizer(OwnerOnly)
        .max_chunk_size(1 << 20)
        .build()
        .await
        .unwrap()
}

#[derive(Clone)]
pub(super) struct Wire {
    pub(super) uploads: Uploads,
    pub(super) service: UploadService<Who>,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Reply {
    pub(super) async fn of(response: Response<UploadBody>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
        }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(super) fn data(&self) -> Value {
        let mut json = self.json();
        assert_eq!(json["success"], true, "{}", self.text);
        json["data"].take()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Wire {
    async fn new() -> Self {
        let uploads = engine().await;
        let service = uploads.service(bearer as Who).mount("/api/streaming");
        Self { uploads, service }
    }

    async fn send<B>(&self, request: Request<B>) -> Reply
    where
        B: Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let reply = self.call(request).await;
        let headers = &reply.headers;
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control")));
        if !reply.text.is_empty() {
            assert_eq!(headers["content-type"], "application/json");
            assert_eq!(reply.json()["success"], reply.status < 300, "{}", reply.text);
        }
        reply
    }

    /// The same of any protocol.
    pub(super) async fn call<B>(&self, request: Request<B>) -> Reply
    where
        B: Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Reply::of(self.service.clone().call(request).await.unwrap()).await
    }

    /// `ask` is METHOD PATH; the user is ann, unless the headers name another one.
    pub(super) async fn ask(&self, ask: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.send(request(ask, headers, Full::new(body.into()))).await
    }

    async fn json(&self, ask: &str, body: Value) -> Reply {
        self.ask(ask, &[("content-type", "application/json")], body.to_string())
            .await
    }

    async fn form(&self, fields: &[(&str, &str)]) -> Reply {
        self.ask("POST /upload-chunk/", &[FORM], form(fields)).await
    }

    /// An upload of `a.mp4`, 10 bytes in chunks of 4, for video 1; the first chunk is stored.
    pub(super) async fn begun(&self) -> String {
        let body = json!({"fileName": "a.mp4", "fileSize": 10, "chunkSize": 4, "videoId": 1});
        let reply = self.json("POST /uploads/", body).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        let id = reply.data()["upload_id"].as_str().unwrap().to_owned();
        assert_eq!(
            self.ask(&format!("PUT /uploads/{id}/chunks/0"), &[], "0123")
                .await
                .status,
            200
        );
        id
    }
}

pub(super) fn request<B>(ask: &str, headers: &[(&str, &str)], body: B) -> Request<B> {
    let (method, path) = ask.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", "Bearer ann");
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=----X");
pub(super) const NOBODY: (&str, &str) = ("authorization", "");
pub(super) const STRANGER: (&str, &str) = ("authorization", "Bearer eve");

fn form(fields: &[(&str, &str)]) -> String {
    let mut form: String = fields
        .iter()
        .map(|(name, value)| {
            let file = if *name == "chunk" {
                "; filename=\"blob\"\r\nContent-Type: application/octet-stream"
            } else {
                ""
            };
            format!("------X\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
        })
        .collect();
    form.push_str("------X--\r\n");
    form
}

#[tokio::test]
async fn the_original_client_is_served_to_the_letter() {
    let wire = Wire::new().await;
    for index in 0..10 {
        let (number, bytes) = (index.to_string(), if index == 9 { "last" } else { "five." });
        let reply = wire
            .form(&[
                ("chunk", bytes),
                ("videoId", "123"),
                ("chunkIndex", &number),
                ("totalChunks", "10"),
                ("fileName", "my_video.mp4"),
            ])
            .await;
        let message = format!("Chunk {}/10 uploaded successfully", index + 1);
        let expected = format!(
            r#"{{"success":true,"data":{{"message":"{message}","chunk_index":{index},"total_chunks":10,"uploaded_chunks":{},"is_complete":{}}}}}"#,
            index + 1,
            index == 9
        );
        assert_eq!((reply.status, reply.text), (200, expected));
    }
    for (id, shown) in [(json!(123), "123"), (json!("123"), "\"123\"")] {
        let reply = wire
            .json(
                "POST /assemble-chunks/",
                json!({"videoId": id, "fileName": "my_video.mp4"}),
            )
            .await;
        let expected = format!(
            r#"{{"success":true,"data":{{"message":"Video assembled successfully.","video_id":{shown},"video_path":"videos/originals/123_my_video.mp4","chunks_assembled":10}}}}"#
        );
        assert_eq!((reply.status, reply.text), (200, expected));
    }
    let status = wire
        .ask("GET /uploads/?videoId=123&fileName=my_video.mp4", &[], "")
        .await
        .data();
    let id = status["upload_id"].as_str().unwrap().parse().unwrap();
    let (_, body) = wire
        .uploads
        .read(&Caller::new("ann"), id, ByteRange::ALL)
        .await
        .unwrap();
    let bytes: Vec<Bytes> = body.try_collect().await.unwrap();
    assert_eq!(
        bytes.concat(),
        ["five.".repeat(9), "last".to_owned()].concat().into_bytes()
    );
}

#[tokio::test]
async fn missing_fields_are_answered_to_the_letter() {
    let wire = Wire::new().await;
    let expected = r#"{"success":false,"error":{"error":"Missing required fields","required":["chunk","videoId","chunkIndex","totalChunks","fileName"]}}"#;
    let all = [
        ("chunk", "x"),
        ("videoId", "1"),
        ("chunkIndex", "0"),
        ("totalChunks", "1"),
        ("fileName", "a"),
    ];
    for missing in 0..all.len() {
        let mut fields = all.to_vec();
        fields.remove(missing);
        let reply = wire.form(&fields).await;
        assert_eq!((reply.status, reply.text.as_str()), (400, expected));
    }
    let reply = wire.ask("POST /upload-chunk", &[FORM], "------X--\r\n").await;
    assert_eq!((reply.status, reply.text.as_str()), (400, expected));
    let reply = wire.json("POST /assemble-chunks/", json!({"videoId": 123})).await;
    assert_eq!(
        reply.json(),
        json!({"success": false, "error": {"error": "Missing required fields", "required": ["videoId", "fileName"]}})
    );
    assert_eq!(wire.ask("GET /uploads/", &[], "").await.data()["uploads"], json!([]));
}

/// METHOD PATH, headers, body, status, what must be in the body, or in a header if it reads `name: value`.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a [&'a str]);

/// Each row on a service of its own, where [`Wire::begun`] is under way; `{id}` is its id.
async fn rows(rows: &[Row<'_>]) {
    for (ask, headers, body, status, needed) in rows {
        let wire = Wire::new().await;
        let id = wire.begun().await;
        let reply = wire
            .ask(&ask.replace("{id}", &id), headers, body.replace("{id}", &id))
            .await;
        let about = format!("{ask} {headers:?} {body}\n{reply:?}");
        assert_eq!(reply.status, *status, "{about}");
        for needed in *needed {
            let is_there = match needed.split_once(": ") {
                Some((name, value)) if !needed.contains('"') => reply.header(name) == value.replace("{id}", &id),
                _ => reply.text.contains(&needed.replace("{id}", &id)),
            };
            assert!(is_there, "{needed} is not in {about}");
        }
        if reply.status >= 400 {
            let now = wire.ask(&format!("GET /uploads/{id}/"), &[], "").await.data();
            assert_eq!(
                (now["state"].as_str(), now["received"].to_string()),
                (Some("open"), "[[0,0]]".to_owned()),
                "{about}"
            );
            assert_eq!(
                wire.ask("GET /uploads", &[], "").await.data()["uploads"]
                    .as_array()
                    .unwrap()
                    .len(),
                1,
                "{about}"
            );
        }
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
#[rustfmt::skip]
async fn paths_and_methods() {
    rows(&[
        ("GET /", &[], "", 404, &["\"error\":{\"error\":"]),
        ("GET /files", &[], "", 404, &[]),
        ("GET /uploads/{id}/chunks", &[], "", 404, &[]),
        ("GET /uploads//", &[], "", 404, &[]),
        ("GET /uploads/..%2F{id}", &[], "", 404, &[]),
        ("GET /uploads/{id}%00", &[], "", 404, &[]),
        ("GET /uploads/%252e%252e/", &[], "", 404, &["Upload not found"]),
        ("GET /uploads/AAAAAAAAAAAAAAAAAAAAAA/", &[], "", 404, &["Upload not found"]),
        ("GET /upload-chunk/", &[], "", 405, &["allow: POST"]),
        ("GET /assemble-chunks", &[], "", 405, &["allow: POST"]),
        ("PUT /uploads/", &[], "", 405, &["allow: GET, HEAD, POST"]),
        ("PATCH /uploads/{id}", &[], "", 405, &["allow: GET, HEAD, DELETE"]),
        ("POST /uploads/{id}/chunks/1", &[], "", 405, &["allow: PUT"]),
        ("GET /uploads/{id}/assemble", &[], "", 405, &["allow: POST"]),
        ("POST /uploads/{id}/events", &[], "", 405, &["allow: GET, HEAD"]),
        ("GET /uploads/{id}", &[], "", 200, &["\"upload_id\":\"{id}\""]),
        ("GET /uploads/{id}/", &[], "", 200, &["\"received\":[[0,0]],\"missing\":[[1,2]],\"offset\":4"]),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn forms() {
    let huge = form(&[("videoId", &"1".repeat(5000))]);
    let many = form(&[("x", "y"); 40]);
    let double = form(&[("videoId", "1"), ("videoId", "1")]);
    let twice = form(&[("chunk", "a"), ("chunk", "a")]);
    let text = |name: &'static str, value: &'static str| {
        let mut fields = vec![
            ("videoId", "9"),
            ("chunkIndex", "0"),
            ("totalChunks", "2"),
            ("fileName", "b.mp4"),
        ];
        fields.retain(|(other, _)| *other != name);
        fields.insert(0, (name, value));
        let before = form(&[&fields[..], &[("chunk", "abcd")]].concat());
        let after = form(&[&[("chunk", "abcd")], &fields[..]].concat());
        [before, after]
    };
    for (name, value, status, needed) in [
        ("chunkIndex", "-1", 400, "\"field\":\"chunkIndex\""),
        ("chunkIndex", "2", 400, "\"field\":\"chunkIndex\""),
        ("chunkIndex", "4294967296", 400, "\"field\":\"chunkIndex\""),
        ("totalChunks", "0", 400, "\"field\":\"totalChunks\""),
        ("totalChunks", "1e3", 400, "\"field\":\"totalChunks\""),
        ("fileSize", "99999999999999999999", 400, "\"field\":\"fileSize\""),
        ("fileName", "../../etc/passwd", 400, "\"field\":\"fileName\""),
        ("videoId", "a\u{7}b", 400, "\"field\":\"videoId\""),
        ("checksum", "nope:00", 400, "\"field\":\"checksum\""),
        ("checksum", "crc32c:00000000", 422, "\"expected\":\"crc32c:00000000\",\"actual\":\"crc32c:92c80a31\""),
        ("checksum", "crc32c:92c80a31", 200, "Chunk 1/2"),
        ("unknown", "anything", 200, "Chunk 1/2"),
    ] {
        for body in text(name, value) {
            rows(&[("POST /upload-chunk/", &[FORM], &body, status, &[needed])]).await;
        }
    }
    let whole = form(&[("uploadId", "{id}"), ("chunkIndex", "1"), ("chunk", "4567")]);
    let cut = whole.trim_end_matches("------X--\r\n");
    let changed = form(&[("chunk", "9999"), ("uploadId", "{id}"), ("chunkIndex", "0")]);
    let total = form(&[
        ("chunk", "4567"),
        ("uploadId", "{id}"),
        ("chunkIndex", "1"),
        ("totalChunks", "4"),
    ]);
    let length = form(&[("chunk", "456"), ("uploadId", "{id}"), ("chunkIndex", "1")]);
    let late = form(&[
        ("uploadId", "{id}"),
        ("chunkIndex", "1"),
        ("chunk", "4567"),
        ("other", "x"),
        ("fileName", "a.mp4"),
    ]);
    let late_checksum = form(&[
        ("uploadId", "{id}"),
        ("chunkIndex", "1"),
        ("chunk", "4567"),
        ("checksum", "crc32c:00000000"),
    ]);
    let no_id = form(&[("uploadId", "nope"), ("chunkIndex", "1"), ("chunk", "4567")]);
    let by_id = form(&[("uploadId", "{id}"), ("chunk", "4567")]);
    rows(&[
        ("POST /upload-chunk/", &[FORM], &whole, 200, &["Chunk 2/3", "\"uploaded_chunks\":2,\"is_complete\":false"]),
        ("POST /upload-chunk/", &[FORM], &late, 200, &["Chunk 2/3"]),
        ("POST /upload-chunk/", &[FORM], &late_checksum, 400, &["\"field\":\"checksum\""]),
        ("POST /upload-chunk/", &[FORM], cut, 400, &["\"field\":\"body\""]),
        ("POST /upload-chunk/", &[FORM], &changed, 409, &[]),
        ("POST /upload-chunk/", &[FORM], &total, 400, &["\"field\":\"totalChunks\""]),
        ("POST /upload-chunk/", &[FORM], &length, 400, &["\"field\":\"chunk\""]),
        ("POST /upload-chunk/", &[FORM], &no_id, 404, &["Upload not found"]),
        ("POST /upload-chunk/", &[FORM], &by_id, 400, &["\"required\":[\"chunk\",\"uploadId\",\"chunkIndex\"]"]),
        ("POST /upload-chunk/", &[FORM], &huge, 413, &["\"limit\":4096"]),
        ("POST /upload-chunk/", &[FORM], &many, 413, &["\"limit\":32"]),
        ("POST /upload-chunk/", &[FORM], &double, 400, &["\"field\":\"videoId\""]),
        ("POST /upload-chunk/", &[FORM], &twice, 400, &["\"field\":\"chunk\""]),
        ("POST /upload-chunk/", &[FORM], "nothing of a form", 400, &["\"field\":\"body\""]),
        ("POST /upload-chunk/", &[FORM], "", 400, &[]),
        ("POST /upload-chunk/", &[("content-type", "multipart/form-data")], "", 400, &["boundary"]),
        ("POST /upload-chunk/", &[JSON], "{}", 415, &[]),
        ("POST /upload-chunk/", &[FORM, ("content-encoding", "gzip")], &whole, 415, &[]),
        ("POST /upload-chunk/", &[FORM, ("content-encoding", "identity")], &whole, 200, &[]),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn chunks_by_id() {
    const CHUNK: &str = "PUT /uploads/{id}/chunks/1";
    // Of "4567".
    let sha256 = "sha-256=:2y5/G9WrmWiudhmbfMdHlcp0BNWgjXhWdxXOUy+dJmk=:";
    let md5 = "ZWLFwfM9tuBaCCqIzdq16g==";
    let weak_and_strong = format!("crc32c=:AAAAAA==:, {sha256}");
    rows(&[
        (CHUNK, &[], "4567", 200, &["\"message\":\"Chunk 2/3 uploaded successfully\",\"chunk_index\":1,\"total_chunks\":3,\"uploaded_chunks\":2"]),
        (CHUNK, &[("content-length", "4")], "4567", 200, &[]),
        (CHUNK, &[("content-length", "5")], "4567", 400, &[]),
        (CHUNK, &[("content-length", "3")], "4567", 400, &[]),
        (CHUNK, &[], "45678", 400, &[]),
        (CHUNK, &[], "", 400, &[]),
        ("PUT /uploads/{id}/chunks/2", &[], "89", 200, &["Chunk 3/3"]),
        ("PUT /uploads/{id}/chunks/0", &[], "0123", 200, &["\"uploaded_chunks\":1"]),
        ("PUT /uploads/{id}/chunks/0", &[], "3210", 409, &[]),
        ("PUT /uploads/{id}/chunks/3", &[], "x", 400, &["\"field\":\"chunkIndex\""]),
        ("PUT /uploads/{id}/chunks/+1", &[], "x", 400, &["\"field\":\"chunkIndex\""]),
        ("PUT /uploads/{id}/chunks/99999999999", &[], "x", 400, &["\"field\":\"chunkIndex\""]),
        (CHUNK, &[("content-digest", sha256)], "4567", 200, &[]),
        (CHUNK, &[("content-digest", &weak_and_strong)], "4567", 200, &[]),
        (CHUNK, &[("content-digest", sha256)], "4568", 422, &["\"actual\":\"sha256:"]),
        (CHUNK, &[("content-md5", md5)], "4567", 200, &[]),
        (CHUNK, &[("content-digest", "crc32c=:AAAAAA==:")], "4567", 422, &["\"expected\":\"crc32c:00000000\""]),
        (CHUNK, &[("content-digest", "crc32c=:AAAA:")], "4567", 400, &["\"field\":\"Content-Digest\""]),
        (CHUNK, &[("content-digest", "unixsum=:AAAA:")], "4567", 200, &[]),
        (CHUNK, &[("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")], "4567", 422, &["\"expected\":\"md5:0000"]),
        (CHUNK, &[("content-md5", "AAAA")], "4567", 400, &["\"field\":\"Content-MD5\""]),
        (CHUNK, &[("content-encoding", "br")], "4567", 415, &[]),
        (CHUNK, &[FORM], "4567", 415, &[]),
        (CHUNK, &[NOBODY], "4567", 401, &["www-authenticate: Bearer"]),
        (CHUNK, &[STRANGER], "4567", 404, &["Upload not found"]),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn json_bodies() {
    let huge = format!("{{\"fileName\":\"{}\"}}", "a".repeat(66_000));
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(20), "]".repeat(20));
    rows(&[
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":1}"#, 201, &["\"chunk_size\":", "\"total_chunks\":1"]),
        ("POST /uploads", &[JSON], r#"{"fileName":"b","fileSize":0}"#, 201, &["\"total_chunks\":1"]),
        ("POST /uploads/", &[], r#"{"fileName":"b","fileSize":1,"metadata":{"k":"v"},"checksum":"crc32c:00000000"}"#, 201, &[]),
        ("POST /uploads/", &[("content-type", "application/json; charset=utf-8")], r#"{"fileName":"b","fileSize":1}"#, 201, &[]),
        ("POST /uploads/", &[("content-type", "text/plain")], r#"{"fileName":"b","fileSize":1}"#, 415, &[]),
        ("POST /uploads/", &[JSON, ("content-encoding", "gzip")], "{}", 415, &[]),
        ("POST /uploads/", &[JSON], "{}", 400, &["\"required\":[\"fileName\",\"fileSize\"]"]),
        ("POST /uploads/", &[JSON], "", 400, &["\"required\""]),
        ("POST /uploads/", &[JSON], "{", 400, &["\"field\":\"body\""]),
        ("POST /uploads/", &[JSON], "[]", 400, &["\"field\":\"body\""]),
        ("POST /uploads/", &[JSON], &huge, 400, &["\"field\":\"body\""]),
        ("POST /uploads/", &[JSON], &deep, 400, &["\"field\":\"body\""]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":1,"fileSize":1}"#, 400, &["more than once"]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":1,"metadata":{"a":"","a":""}}"#, 400, &["more than once"]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":-1}"#, 400, &["\"field\":\"fileSize\""]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":1.5}"#, 400, &["\"field\":\"fileSize\""]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":"1"}"#, 400, &["\"field\":\"fileSize\""]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":18446744073709551615}"#, 413, &["\"limit\":"]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":1,"chunkSize":0}"#, 400, &["\"field\":\"chunkSize\""]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":1,"chunkSize":9999999}"#, 413, &["\"limit\":1048576"]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"a/b","fileSize":1}"#, 400, &["\"field\":\"fileName\""]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":1,"videoId":1.5}"#, 400, &["\"field\":\"videoId\""]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"b","fileSize":1,"checksum":"x"}"#, 400, &["\"field\":\"checksum\""]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"a.mp4","fileSize":10,"chunkSize":4,"videoId":"1"}"#, 200, &["\"upload_id\":\"{id}\""]),
        ("POST /uploads/", &[JSON], r#"{"fileName":"a.mp4","fileSize":11,"chunkSize":4,"videoId":1}"#, 409, &[]),
        ("POST /uploads/", &[JSON, NOBODY], r#"{"fileName":"b","fileSize":1}"#, 401, &["www-authenticate: Bearer"]),
        ("POST /assemble-chunks/", &[JSON], r#"{"videoId":1,"fileName":"a.mp4"}"#, 409, &["\"missing\":[[1,2]]"]),
        ("POST /assemble-chunks/", &[JSON], r#"{"videoId":2,"fileName":"a.mp4"}"#, 404, &["\"error\":\"No chunks found for this video\""]),
        ("POST /assemble-chunks/", &[JSON, STRANGER], r#"{"videoId":1,"fileName":"a.mp4"}"#, 404, &["No chunks found for this video"]),
        ("POST /assemble-chunks/", &[JSON, NOBODY], r#"{"videoId":1,"fileName":"a.mp4"}"#, 401, &[]),
        ("POST /assemble-chunks/", &[JSON], r#"{"videoId":true,"fileName":"a.mp4"}"#, 400, &["\"field\":\"videoId\""]),
        ("POST /uploads/{id}/assemble/", &[], "", 409, &["\"missing\":[[1,2]]"]),
        ("POST /uploads/{id}/assemble", &[JSON], r#"{"checksum":1}"#, 400, &["\"field\":\"checksum\""]),
        ("POST /uploads/{id}/assemble", &[STRANGER], "", 404, &["Upload not found"]),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn finding_uploads() {
    rows(&[
        ("GET /uploads/?videoId=1&fileName=a.mp4", &[], "", 200, &["\"upload_id\":\"{id}\""]),
        ("GET /uploads?fileName=a%2Emp4&videoId=%31", &[], "", 200, &["\"upload_id\":\"{id}\""]),
        ("GET /uploads/?videoId=2&fileName=a.mp4", &[], "", 404, &["Upload not found"]),
        ("GET /uploads/?videoId=1&fileName=a.mp4", &[STRANGER], "", 404, &["Upload not found"]),
        ("GET /uploads/?videoId=1&fileName=a.mp4", &[NOBODY], "", 401, &["www-authenticate: Bearer"]),
        ("GET /uploads/?videoId=1", &[], "", 400, &["\"required\":[\"videoId\",\"fileName\"]"]),
        ("GET /uploads/?videoId=1&videoId=1", &[], "", 400, &["\"field\":\"videoId\""]),
        ("GET /uploads/?videoId=1&fileName=..", &[], "", 400, &["\"field\":\"fileName\""]),
        ("GET /uploads/", &[], "", 200, &["\"uploads\":[{\"upload_id\":\"{id}\",\"state\":\"open\"", "\"skip\":0,\"limit\":50"]),
        ("GET /uploads/?skip=1&limit=1000", &[], "", 200, &["\"uploads\":[],\"skip\":1,\"limit\":200"]),
        ("GET /uploads/?limit=-1", &[], "", 400, &["\"field\":\"limit\""]),
        ("GET /uploads/", &[STRANGER], "", 200, &["\"uploads\":[]"]),
        ("GET /uploads/", &[NOBODY], "", 401, &[]),
    ])
    .await;
}

#[tokio::test]
async fn nobody_learns_of_uploads_of_others() {
    for ask in [
        "GET /uploads/{id}/",
        "HEAD /uploads/{id}/",
        "DELETE /uploads/{id}/",
        "PUT /uploads/{id}/chunks/1",
        "POST /uploads/{id}/assemble/",
        "GET /uploads/{id}/events",
    ] {
        let wire = Wire::new().await;
        let id = wire.begun().await;
        let (theirs, unknown) = (ask.replace("{id}", &id), ask.replace("{id}", "AAAAAAAAAAAAAAAAAAAAAA"));
        for (who, status) in [(STRANGER, 404), (NOBODY, 401)] {
            let there = wire.ask(&theirs, &[who], "").await;
            let nowhere = wire.ask(&unknown, &[who], "").await;
            assert_eq!(
                (there.status, &there.text, &there.headers),
                (status, &nowhere.text, &nowhere.headers),
                "{ask}"
            );
        }
        assert_eq!(
            wire.ask(&format!("PUT /uploads/{id}/chunks/1"), &[], "4567")
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn a_session_from_its_creation_to_its_end() {
    let wire = Wire::new().await;
    let body = json!({"fileName": "my talk.mp4", "fileSize": 10, "chunkSize": 4, "videoId": "v"});
    let created = wire.json("POST /uploads/", body.clone()).await;
    let session = created.data();
    let id = session["upload_id"].as_str().unwrap();
    let base = format!("/api/streaming/uploads/{id}");
    assert_eq!(
        (created.status, created.header("location")),
        (201, format!("{base}/").as_str())
    );
    assert_eq!(
        session["urls"],
        json!({
            "upload": format!("{base}/"),
            "chunks": format!("{base}/chunks/{{index}}"),
            "assemble": format!("{base}/assemble/"),
            "events": format!("{base}/events"),
        })
    );
    assert_eq!(
        (&session["chunk_size"], &session["total_chunks"]),
        (&json!(4), &json!(3))
    );
    let again = wire.json("POST /uploads/", body).await;
    assert_eq!((again.status, again.data()), (200, session.clone()));

    for (index, bytes) in [(2, "89"), (0, "0123")] {
        assert_eq!(
            wire.ask(&format!("PUT /uploads/{id}/chunks/{index}"), &[], bytes)
                .await
                .status,
            200
        );
    }
    let mut status = wire.ask(&format!("GET /uploads/{id}/"), &[], "").await.data();
    let expires_at = status["expires_at"].take();
    assert_eq!(
        (
            expires_at.as_str().unwrap().len(),
            &expires_at.as_str().unwrap()[10..11]
        ),
        (24, "T")
    );
    assert_eq!(
        status,
        json!({
            "upload_id": id, "state": "open", "protocol": "chunk", "file_name": "my talk.mp4", "file_size": 10, "chunk_size": 4,
            "total_chunks": 3, "uploaded_chunks": 2, "bytes": 6, "received": [[0, 0], [2, 2]], "missing": [[1, 1]], "offset": 4,
            "expires_at": null, "hooks": [],
        })
    );
    let head = wire.ask(&format!("HEAD /uploads/{id}/"), &[], "").await;
    assert_eq!(
        (head.status, head.text.as_str(), head.header("content-type")),
        (200, "", "application/json")
    );
    assert!(head.header("content-length").parse::<usize>().unwrap() > 100);

    assert_eq!(
        wire.ask(&format!("PUT /uploads/{id}/chunks/1"), &[], "4567")
            .await
            .data()["is_complete"],
        true
    );
    let wrong = wire
        .json(
            &format!("POST /uploads/{id}/assemble/"),
            json!({"checksum": "crc32c:00000000"}),
        )
        .await;
    assert_eq!(wrong.status, 422, "{}", wrong.text);
    let right = json!({"checksum": "crc32c:280c069e"});
    for _ in 0..2 {
        let assembled = wire.json(&format!("POST /uploads/{id}/assemble/"), right.clone()).await;
        assert_eq!(
            assembled.data(),
            json!({
                "message": "Video assembled successfully.", "video_id": "v", "video_path": "videos/originals/v_my_talk.mp4",
                "chunks_assembled": 3, "size": 10, "checksum": crate::Digest::crc64(crate::Crc64::of(b"0123456789")).to_string(),
            })
        );
    }
    let status = wire.ask(&format!("GET /uploads/{id}/"), &[], "").await.data();
    assert_eq!(status["state"], "assembled");
    assert_eq!(status["video_path"], "videos/originals/v_my_talk.mp4");
    assert_eq!(
        (&status["received"], &status["missing"], &status["offset"]),
        (&json!([[0, 2]]), &json!([]), &json!(10))
    );
    assert_eq!(
        wire.ask(&format!("PUT /uploads/{id}/chunks/1"), &[], "4567")
            .await
            .status,
        200
    );
    assert_eq!(
        wire.ask(&format!("PUT /uploads/{id}/chunks/1"), &[], "7654")
            .await
            .status,
        409
    );
}

#[tokio::test]
async fn what_was_deleted_is_gone() {
    let wire = Wire::new().await;
    let id = wire.begun().await;
    for _ in 0..2 {
        let deleted = wire.ask(&format!("DELETE /uploads/{id}/"), &[], "").await;
        assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    }
    let gone = wire.ask(&format!("PUT /uploads/{id}/chunks/1"), &[], "4567").await;
    assert_eq!((gone.status, &gone.json()["error"]["state"]), (410, &json!("aborted")));
    assert_eq!(
        wire.ask(&format!("POST /uploads/{id}/assemble/"), &[], "").await.status,
        410
    );
    assert_eq!(
        wire.ask(&format!("GET /uploads/{id}/"), &[], "").await.data()["state"],
        "aborted"
    );
    assert_eq!(
        wire.ask("GET /uploads/?videoId=1&fileName=a.mp4", &[], "").await.status,
        404
    );
}

#[tokio::test]
async fn urls_begin_with_the_public_url() {
    let wire = Wire::new().await;
    let mut service = wire.service.clone().public_url("https://media.example/");
    let body = json!({"fileName": "a", "fileSize": 1}).to_string();
    let response = service
        .call(request(
            "POST /uploads/",
            &[JSON, ("host", "evil")],
            Full::<Bytes>::from(body),
        ))
        .await
        .unwrap();
    let location = response.headers()["location"].to_str().unwrap();
    assert!(
        location.starts_with("https://media.example/api/streaming/uploads/"),
        "{location}"
    );
}

/// The events of an upload after `last`, each as it comes.
async fn events(wire: &Wire, id: &str, last: Option<u64>) -> impl Stream<Item = String> + Unpin {
    let response = ask_events(wire, id, last).await;
    assert_eq!(response.status(), 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    let frames = response.into_body().into_data_stream();
    frames.map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap())
}

async fn ask_events(wire: &Wire, id: &str, last: Option<u64>) -> Response<UploadBody> {
    let last = last.map(|last| last.to_string()).unwrap_or_default();
    let headers = [("last-event-id", last.as_str())];
    let request = request(&format!("GET /uploads/{id}/events"), &headers, Empty::<Bytes>::new());
    wire.service.clone().call(request).await.unwrap()
}

/// The id and the data of an event.
fn parse_event(text: &str) -> (u64, Value) {
    let lines: Vec<&str> = text.lines().collect();
    let [id, "event: status", data, ""] = lines[..] else {
        panic!("{text:?}")
    };
    let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    (id.strip_prefix("id: ").unwrap().parse().unwrap(), data)
}

#[tokio::test(start_paused = true)]
async fn events_tell_of_every_state() {
    let wire = Wire::new().await;
    let id = wire.begun().await;
    let mut stream = events(&wire, &id, None).await;
    let (first, data) = parse_event(&stream.next().await.unwrap());
    assert_eq!((&data["state"], &data["received"]), (&json!("open"), &json!([[0, 0]])));
    for (index, bytes) in [(1, "4567"), (2, "89")] {
        wire.ask(&format!("PUT /uploads/{id}/chunks/{index}"), &[], bytes).await;
    }
    let (second, data) = parse_event(&stream.next().await.unwrap());
    assert!(second > first);
    assert_eq!(data["missing"], json!([]));

    // Whoever comes back hears only what is new.
    let mut resumed = events(&wire, &id, Some(second)).await;
    assert!(resumed.next().now_or_never().is_none());
    assert_eq!(resumed.next().await.unwrap(), ": keep-alive\n\n");
    wire.ask(&format!("POST /uploads/{id}/assemble/"), &[], "").await;
    let mut last = (0, Value::Null);
    while let Some(text) = stream.next().await {
        if !text.starts_with(':') {
            last = parse_event(&text);
        }
    }
    assert_eq!(
        (&last.1["state"], &last.1["uploaded_chunks"]),
        (&json!("assembled"), &json!(3))
    );

    assert_eq!(ask_events(&wire, &id, Some(last.0)).await.status(), 204);
}

/// A body that tells whether somebody looked at it.
pub(super) fn watched(polled: &Arc<AtomicBool>) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let polled = polled.clone();
    StreamBody::new(stream::poll_fn(move |_| {
        polled.store(true, Ordering::Relaxed);
        Poll::Ready(None::<Result<Frame<Bytes>, Infallible>>)
    }))
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_not_read() {
    let wire = Wire::new().await;
    let id = wire.begun().await;
    for (ask, headers, status) in [
        ("POST /upload-chunk/", &[FORM, NOBODY][..], 401),
        ("POST /upload-chunk/", &[FORM, ("content-encoding", "gzip")], 415),
        ("POST /upload-chunk/", &[JSON], 415),
        ("POST /uploads/", &[JSON, NOBODY], 401),
        ("POST /uploads/", &[("content-type", "text/plain")], 415),
        ("POST /uploads/", &[JSON, ("content-length", "65537")], 400),
        ("PUT /uploads/{id}/chunks/1", &[NOBODY], 401),
        ("PUT /uploads/{id}/chunks/1", &[STRANGER], 404),
        ("PUT /uploads/{id}/chunks/1", &[("content-length", "5")], 400),
        ("PUT /uploads/{id}/chunks/9", &[], 400),
        ("PUT /uploads/AAAAAAAAAAAAAAAAAAAAAA/chunks/1", &[], 404),
        ("PUT /nowhere", &[], 404),
        ("DELETE /upload-chunk/", &[], 405),
    ] {
        let polled = Arc::new(AtomicBool::new(false));
        let reply = wire
            .send(request(&ask.replace("{id}", &id), headers, watched(&polled)))
            .await;
        assert_eq!(reply.status, status, "{ask} {headers:?} {}", reply.text);
        assert!(!polled.load(Ordering::Relaxed), "{ask} {headers:?}");
    }
}

/// The bytes, then nothing any more.
pub(super) fn stalled(bytes: &str) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let first = Bytes::copy_from_slice(bytes.as_bytes());
    StreamBody::new(stream::iter([Ok(Frame::data(first))]).chain(stream::pending()))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_given_up() {
    let wire = Wire::new().await;
    let id = wire.begun().await;
    let fields = [
        ("videoId", "7"),
        ("chunkIndex", "0"),
        ("totalChunks", "2"),
        ("fileName", "b"),
    ];
    let chunk_last = form(&[&fields[..], &[("chunk", "0123")]].concat());
    let chunk_first = form(&[&[("chunk", "0123")], &fields[..]].concat());
    let slow = [
        ("PUT /uploads/{id}/chunks/1", vec![], "45"),
        ("POST /upload-chunk/", vec![FORM], &chunk_last[..chunk_last.len() - 20]),
        ("POST /upload-chunk/", vec![FORM], &chunk_first[..100]),
        ("POST /uploads/", vec![JSON], "{"),
    ];
    for (ask, headers, bytes) in slow {
        let began = tokio::time::Instant::now();
        let reply = wire
            .send(request(&ask.replace("{id}", &id), &headers, stalled(bytes)))
            .await;
        assert_eq!(
            (reply.status, began.elapsed().as_secs()),
            (408, 30),
            "{ask} {}",
            reply.text
        );
    }
    assert_eq!(
        wire.ask(&format!("PUT /uploads/{id}/chunks/1"), &[], "4567")
            .await
            .status,
        200
    );
    assert_eq!(
        wire.ask("GET /uploads/", &[], "").await.data()["uploads"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_cut_body_stores_nothing() {
    let wire = Wire::new().await;
    let id = wire.begun().await;
    let cut = || {
        let frames = [
            Ok(Frame::data(Bytes::from("45"))),
            Err(std::io::Error::other("connection reset")),
        ];
        StreamBody::new(stream::iter(frames))
    };
    let reply = wire
        .send(request(&format!("PUT /uploads/{id}/chunks/1"), &[], cut()))
        .await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert!(!reply.text.contains("connection reset"), "{}", reply.text);
    let status = wire.ask(&format!("GET /uploads/{id}/"), &[], "").await.data();
    assert_eq!(status["missing"], json!([[1, 2]]));
}

#[tokio::test]
async fn a_request_dropped_at_any_point_leaves_the_upload_usable() {
    let wire = Wire::new().await;
    let id = wire.begun().await;
    let fields = [("chunk", "4567"), ("uploadId", id.as_str()), ("chunkIndex", "1")];
    for polls in 0..40 {
        let frames: Vec<_> = form(&fields)
            .into_bytes()
            .chunks(30)
            .map(Bytes::copy_from_slice)
            .collect();
        let frames = stream::iter(frames).then(|frame| async {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Frame::data(frame))
        });
        let mut future = wire
            .service
            .clone()
            .call(request("POST /upload-chunk/", &[FORM], StreamBody::new(frames)));
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..polls {
            if Pin::new(&mut future).poll(&mut context).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(wire.form(&fields).await.status, 200);
}

#[tokio::test]
async fn everybody_may_upload_where_that_is_allowed() {
    let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
        .allow_anonymous()
        .build()
        .await
        .unwrap();
    let service = uploads.service(bearer as Who);
    let wire = Wire { uploads, service };
    let fields = [
        ("chunk", "x"),
        ("videoId", "1"),
        ("chunkIndex", "0"),
        ("totalChunks", "1"),
        ("fileName", "a"),
    ];
    let reply = wire.ask("POST /upload-chunk/", &[FORM, NOBODY], form(&fields)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        wire.ask("GET /uploads/AAAAAAAAAAAAAAAAAAAAAA/", &[NOBODY], "")
            .await
            .status,
        404
    );
    // Whoever knows its id may do all with it, so that nobody is told the ids of others.
    let nobody = Caller::anonymous();
    let id = wire
        .uploads
        .create(&nobody, crate::NewUpload::new("b"))
        .await
        .unwrap()
        .id();
    assert_eq!(wire.ask("GET /uploads/", &[NOBODY], "").await.status, 401);
    let reply = wire.ask(&format!("GET /uploads/{id}/"), &[NOBODY], "").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

/// An application that gives back what it is sent, as it came.
#[derive(Clone)]
struct Echo;

impl<B: Send + 'static> Service<Request<B>> for Echo {
    type Response = Response<B>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<B>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_body())))
    }
}

#[tokio::test]
async fn the_layer_answers_its_prefix_and_passes_the_rest_on() {
    let uploads = engine().await;
    let mut app = uploads.layer("/files/", bearer as Who).layer(Echo);
    // The type of the request's body comes back as it went in: nothing boxed it on its way.
    let response: Response<LayerBody<Full<Bytes>>> = app
        .call(request("POST /filesystem", &[], Full::new(Bytes::from("untouched"))))
        .await
        .unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "untouched");

    let body = json!({"fileName": "a", "fileSize": 1}).to_string();
    let response = app
        .call(request("POST /files/uploads/", &[JSON], Full::<Bytes>::from(body)))
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap();
    assert!(location.starts_with("/files/uploads/"), "{location}");
    let response = app
        .call(request("GET /files", &[], Full::<Bytes>::default()))
        .await
        .unwrap();
    assert_eq!(response.status(), 404);
}

#[test]
fn services_fit_where_they_are_used() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    /// A body that is not `Sync`, as axum's is.
    type Unsync = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;
    fn serves<S: Service<Request<Unsync>, Response = Response<UploadBody>, Error = Infallible>>() {}
    shared::<UploadService<Who>>();
    shared::<UploadLayer<Who>>();
    shared::<UploadMiddleware<Echo, Who>>();
    sent::<UploadFuture>();
    sent::<UploadBody>();
    serves::<UploadService<Who>>();
    assert_eq!(size_of::<UploadFuture>(), 2 * size_of::<usize>());
    assert!(size_of::<UploadService<Who>>() <= 4 * size_of::<usize>());
}

#[tokio::test]
async fn a_body_of_any_buffer_is_taken() {
    let wire = Wire::new().await;
    let id = wire.begun().await;
    let chained = bytes::Buf::chain(&b"45"[..], &b"67"[..]);
    let body = StreamBody::new(stream::iter([Ok::<_, Infallible>(Frame::data(chained))]));
    let request = request(&format!("PUT /uploads/{id}/chunks/1"), &[], body);
    assert_eq!(wire.service.clone().call(request).await.unwrap().status(), 200);
}
