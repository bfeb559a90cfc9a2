//! What the log says of requests, and of uploads that fail.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tower_service::Service as _;
use tower_upload::{
    Caller, Error, Hook, Uploads, access::OwnerOnly, blob::BlobBody, blob::MemoryBlobs, http::Tus,
    metadata::MemoryMetadata, upload::Record,
};
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged on this thread by `work`, from this level on.
fn logged(level: tracing::Level, work: impl AsyncFnOnce()) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    tracing::subscriber::with_default(subscriber, || runtime.block_on(work()));
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// A scanner that finds something in every file.
struct Refuses;

#[async_trait]
impl Hook for Refuses {
    fn name(&self) -> &str {
        "scanner"
    }

    async fn before_publish(&self, _: &Record, _: Option<BlobBody>) -> tower_upload::Result<()> {
        Err(Error::invalid("file", "it has a virus"))
    }
}

fn the<'a>(lines: &'a [String], parts: &[&str]) -> &'a str {
    let found = lines.iter().find(|line| parts.iter().all(|part| line.contains(part)));
    found.unwrap_or_else(|| panic!("{parts:?} in:\n{}", lines.join("\n")))
}

#[test]
fn a_request_is_a_span_and_a_failure_has_its_reason() {
    let mut id = String::new();
    let lines = logged(tracing::Level::INFO, async || {
        let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
            .authorizer(OwnerOnly)
            .hook(Refuses)
            .build()
            .await
            .unwrap();
        let mut service = uploads.service(|_: &_| Some(Caller::new("alice"))).tus(Tus::new());
        let mut ask = async |method: &str, path: &str, media: &str, body: &'static str| {
            let request = Request::builder()
                .method(method)
                .uri(format!("{path}?ticket=canary-query"))
                .header("authorization", "Bearer canary-token")
                .header("content-type", media)
                .body(Full::<Bytes>::from(body))
                .unwrap();
            let answer = service.call(request).await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.into_body().collect().await.unwrap().to_bytes())
        };
        let begin = r#"{"fileName": "canary-name", "fileSize": 12}"#;
        let (status, answer) = ask("POST", "/uploads/", "application/json", begin).await;
        assert_eq!(status, 201);
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        id = answer["data"]["upload_id"].as_str().unwrap().to_owned();
        let chunk = format!("/uploads/{id}/chunks/0");
        assert!(ask("PUT", &chunk, "application/octet-stream", "canary-bytes").await.0 < 300);
        let assemble = format!("/uploads/{id}/assemble/");
        assert_eq!(ask("POST", &assemble, "application/json", "{}").await.0, 409);
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let created = the(&lines, &["close", "method=POST", "status=201"]);
    for field in [
        "upload_request{",
        "owner=\"alice\"",
        "dialect=\"chunk\"",
        &format!("upload={id}"),
    ] {
        assert!(created.contains(field), "{field} in {created}");
    }
    the(
        &lines,
        &["close", "method=PUT", "dialect=\"chunk\"", &format!("upload={id}")],
    );
    // Why it failed, and in which request.
    let failed = the(
        &lines,
        &[
            "WARN",
            "an upload failed for good",
            "it has a virus",
            &format!("id={id}"),
        ],
    );
    for part in ["upload_request{", "assemble{", "owner=\"alice\""] {
        assert!(failed.contains(part), "{part} in {failed}");
    }
    the(&lines, &["close", "tell{", "hook{", "name=\"scanner\"", "kind=failed"]);
    assert!(
        !lines.iter().any(|line| line.contains("canary")),
        "{}",
        lines.join("\n")
    );
}
