//! What the figures say of a piece of work, read as Prometheus reads them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body_util::Full;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tower_service::Service as _;
use tower_upload::{
    Caller, Clock, Error, ErrorKind, NewUpload, Uploads,
    access::OwnerOnly,
    blob::MemoryBlobs,
    http::{Resumable, Tus},
    metadata::MemoryMetadata,
    upload::Timestamp,
};

#[derive(Debug)]
struct Paused(tokio::time::Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000).after(self.0.elapsed())
    }
}

/// Name and labels, as Prometheus writes them, and the value.
struct Figures(BTreeMap<String, f64>);

impl Figures {
    fn of(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self(
            lines
                .map(|line| {
                    let (name, value) = line.rsplit_once(' ').unwrap();
                    (name.to_owned(), value.parse().unwrap())
                })
                .collect(),
        )
    }

    #[track_caller]
    fn is(&self, name: &str, expected: f64) {
        let name = format!("tower_upload_{name}");
        let found = self.0.get(&name).copied();
        assert_eq!(found, Some(expected), "{name} in {:#?}", self.0);
    }
}

/// Runs `work` on this thread, with figures of its own.
fn with_figures(work: impl AsyncFnOnce(&PrometheusHandle)) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(work(&handle)));
    handle.render()
}

async fn uploads() -> Uploads {
    let clock = Arc::new(Paused(tokio::time::Instant::now()));
    Uploads::with(MemoryBlobs::new(), MemoryMetadata::with_clock(clock))
        .authorizer(OwnerOnly)
        .expire_after(Duration::from_secs(100))
        .hook_attempts(2)
        .on_event(|event| async move {
            match event.file_name.as_str() {
                "deaf" => Err(Error::unavailable("no such luck")),
                _ => Ok(()),
            }
        })
        .build()
        .await
        .unwrap()
}

fn alice() -> Caller {
    Caller::new("alice")
}

fn body(text: &'static str) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    stream::iter([Ok(Bytes::from_static(text.as_bytes()))])
}

#[test]
fn a_piece_of_work_is_counted() {
    let text = with_figures(async |figures| {
        let uploads = uploads().await;
        let done = uploads
            .create(&alice(), NewUpload::new("a").size(6))
            .await
            .unwrap()
            .id();
        uploads.append(&alice(), done, 0, body("abc")).await.unwrap();
        let open = uploads
            .create(&alice(), NewUpload::new("b").size(9))
            .await
            .unwrap()
            .id();
        let late = uploads.append(&alice(), done, 0, body("abc")).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::OffsetMismatch);
        // Gauges are looked up every ten seconds.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let now = Figures::of(&figures.render());
        now.is("open_uploads", 2.0);
        now.is("open_uploads_reserved_bytes", 15.0);
        now.is("budget_used_bytes{place=\"memory\"}", 0.0);

        uploads.append(&alice(), done, 3, body("def")).await.unwrap();
        uploads.assemble(&alice(), done, None).await.unwrap();
        uploads.abort(&alice(), open).await.unwrap();
        let deaf = uploads.create(&alice(), NewUpload::new("deaf").size(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(200)).await;
        drop(deaf); // It has expired.
        uploads.delete(&alice(), done).await.unwrap();
        tokio::time::sleep(Duration::from_secs(11)).await;
    });
    let figures = Figures::of(&text);
    figures.is("uploads_created_total{protocol=\"engine\"}", 3.0);
    for state in ["assembled", "aborted", "expired", "deleted"] {
        figures.is(&format!("uploads_ended_total{{state=\"{state}\"}}"), 1.0);
    }
    figures.is("received_bytes_total", 6.0);
    figures.is("committed_bytes_total", 6.0);
    figures.is("committed_parts_total", 2.0);
    figures.is("open_uploads", 0.0);
    figures.is("open_uploads_reserved_bytes", 0.0);
    figures.is("assembly_duration_seconds_count{outcome=\"assembled\"}", 1.0);
    // a: created, assembled, deleted; b: created, aborted. Of the third two events, told twice each in vain.
    figures.is("hook_duration_seconds_count{hook=\"on_event\",outcome=\"heard\"}", 5.0);
    figures.is("hook_duration_seconds_count{hook=\"on_event\",outcome=\"error\"}", 4.0);
    figures.is("dead_letters_total{hook=\"on_event\"}", 2.0);
    figures.is(
        "store_call_duration_seconds_count{store=\"blob\",operation=\"complete\"}",
        1.0,
    );
    figures.is(
        "store_call_duration_seconds_count{store=\"metadata\",operation=\"commit\"}",
        2.0,
    );
}

#[test]
fn requests_are_counted_by_dialect_and_outcome() {
    let text = with_figures(async |_| {
        let uploads = uploads().await;
        let who = |parts: &http::request::Parts| parts.headers.contains_key("x-user").then(alice);
        let service = uploads.service(who).tus(Tus::new()).resumable(Resumable::new());
        let ask = async |method: &str, path: &str, header: (&str, &str), user: bool| {
            let mut request = Request::builder().method(method).uri(path).header(header.0, header.1);
            if user {
                request = request.header("x-user", "alice");
            }
            let request = request.body(Full::<Bytes>::default()).unwrap();
            service.clone().call(request).await.unwrap().status()
        };
        let none = ("accept", "*/*");
        assert_eq!(ask("GET", "/uploads/", none, true).await, StatusCode::OK);
        assert_eq!(ask("GET", "/uploads/", none, false).await, StatusCode::UNAUTHORIZED);
        assert_eq!(ask("GET", "/nothing", none, true).await, StatusCode::NOT_FOUND);
        assert_eq!(
            ask("POST", "/files", ("tus-resumable", "1.0.0"), true).await.as_u16() / 100,
            4
        );
        assert_eq!(ask("OPTIONS", "/files", none, true).await, StatusCode::OK);
        let unknown = "/files/AAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(
            ask("HEAD", unknown, ("upload-draft-interop-version", "6"), true).await,
            StatusCode::NOT_FOUND
        );
        // One that is given up before it is answered.
        let endless = stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
        let request = Request::post("/files")
            .header("x-user", "alice")
            .header("tus-resumable", "1.0.0")
            .header("upload-length", "5")
            .header("content-type", "application/offset+octet-stream")
            .body(http_body_util::StreamBody::new(endless))
            .unwrap();
        let given_up = tokio::time::timeout(Duration::from_secs(5), service.clone().call(request));
        assert!(given_up.await.is_err());
    });
    let figures = Figures::of(&text);
    for (dialect, outcome, count) in [
        ("chunk", "success", 1.0),
        ("chunk", "refused", 2.0),
        ("tus", "refused", 1.0),
        ("tus", "dropped", 1.0),
        ("resumable", "refused", 1.0),
        ("options", "success", 1.0),
    ] {
        let name = format!("request_duration_seconds_count{{dialect=\"{dialect}\",outcome=\"{outcome}\"}}");
        figures.is(&name, count);
    }
    figures.is("uploads_created_total{protocol=\"tus\"}", 1.0);
}

/// Labels have few values, and none that a client or the host's users chose; every figure is described.
#[test]
fn no_label_is_of_somebodys_making() {
    let text = with_figures(async |_| {
        let uploads = uploads().await;
        let service = uploads
            .service(|_: &http::request::Parts| Some(Caller::new("canary-owner")))
            .tus(Tus::new());
        for (method, path) in [
            ("POST", "/uploads/"),
            ("GET", "/canary-path"),
            ("CANARY", "/files"),
            ("GET", "/files/canary"),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(format!("{path}?canary=query"))
                .header("content-type", "application/json")
                .body(Full::<Bytes>::from(
                    r#"{"fileName": "canary-name", "fileSize": 3, "videoId": "canary-target"}"#,
                ))
                .unwrap();
            let _ = service.clone().call(request).await.unwrap();
        }
    });
    assert!(text.contains("uploads_created_total{protocol=\"chunk\"} 1"), "{text}");
    assert!(!text.to_lowercase().contains("canary"), "{text}");
    let lines = |prefix: &str| -> BTreeSet<String> {
        let found = text.lines().filter_map(|line| line.strip_prefix(prefix));
        found.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(lines("# TYPE "), lines("# HELP "));
    assert!(lines("# TYPE ").iter().all(|name| name.starts_with("tower_upload_")));
}
