//! What is secret is told to nobody: neither to the log nor in an answer.

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use http_body_util::BodyExt as _;
use serde_json::json;
use tower_upload::{
    Caller, Uploads,
    access::OwnerOnly,
    blob::MemoryBlobs,
    conformance::fault::{Call, Fault, FaultyBlobs, FaultyMetadata},
    metadata::MemoryMetadata,
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use super::{BoxError, Bytes, FORM, Frame, Full, House, JSON, StreamBody, form, request, stream};

/// Keeps every event and every field of every span, of all levels.
#[derive(Clone, Default)]
struct Log {
    text: Arc<Mutex<String>>,
    spans: Arc<AtomicU64>,
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut cause = Some(value);
        while let Some(error) = cause {
            let _ = write!(self.0, " {field}={error} {error:?}");
            cause = error.source();
        }
    }
}

impl Log {
    fn line(&self, metadata: &Metadata<'_>, record: impl FnOnce(&mut Line<'_>)) {
        let mut text = self.text.lock().unwrap();
        let _ = write!(text, "{} {} {}", metadata.level(), metadata.target(), metadata.name());
        record(&mut Line(&mut text));
        text.push('\n');
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.line(span.metadata(), |line| span.record(line));
        Id::from_u64(self.spans.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Line(&mut self.text.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.line(event.metadata(), |line| event.record(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

const TOKEN: &str = "canarytokenXq7";
const SECRETS: [&str; 4] = [TOKEN, "canaryfileXq7", "canarycookieXq7", "canarymetaXq7"];

#[tokio::test(start_paused = true)]
async fn secrets_are_neither_logged_nor_answered() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let authorization = format!("Bearer {TOKEN}");
    let secret = [
        ("authorization", authorization.as_str()),
        ("cookie", "session=canarycookieXq7"),
        ("x-api-key", "canarycookieXq7"),
    ];
    let mut answers = 0;

    // Each store call fails once, and no request at all is right.
    for failing in [
        None,
        Some(Call::Create),
        Some(Call::Load),
        Some(Call::Commit),
        Some(Call::Update),
        Some(Call::Begin),
        Some(Call::Open),
        Some(Call::Write),
        Some(Call::Finish),
        Some(Call::ReadParts),
        Some(Call::Complete),
        Some(Call::Discard),
        Some(Call::Head),
    ] {
        let faults = move |call: Call| {
            if Some(call) == failing {
                Fault::FailAfter
            } else {
                Fault::None
            }
        };
        let blobs = FaultyBlobs::new(MemoryBlobs::new(), Arc::new(faults));
        let metadata = FaultyMetadata::new(MemoryMetadata::new(), Arc::new(faults));
        let uploads = Uploads::with(blobs, metadata)
            .authorizer(OwnerOnly)
            .build()
            .await
            .unwrap();
        let service = uploads.service(|parts: &http::request::Parts| {
            let token = parts.headers.get("authorization")?.to_str().ok()?;
            (token == format!("Bearer {TOKEN}")).then(|| Caller::new("ann"))
        });
        tracing::trace!(?uploads, ?service, "the engine and the service as they show themselves");

        let session = json!({
            "fileName": "c.mp4", "fileSize": 13, "videoId": "c", "checksum": "crc32c:00000000",
            "metadata": {"note": "canarymetaXq7"},
        });
        let fields = [
            ("videoId", "d"),
            ("fileName", "d.mp4"),
            ("chunkIndex", "0"),
            ("totalChunks", "2"),
        ];
        let chunk = [("chunk", "canaryfileXq7")];
        let wrong = [("checksum", "sha256:00")];
        let bodies = [
            ("POST /uploads/", JSON, session.to_string()),
            ("POST /uploads/", JSON, session.to_string().replace("c.mp4", "c/mp4")),
            ("POST /uploads/", JSON, session.to_string().replace("\"note\"", "note")),
            ("POST /uploads/", JSON, session.to_string().replace("Xq7\"", "Xq7\\n\"")),
            ("POST /upload-chunk/", FORM, form(&[&fields[..], &chunk].concat())),
            ("POST /upload-chunk/", FORM, form(&[&chunk[..], &fields].concat())),
            (
                "POST /upload-chunk/",
                FORM,
                form(&[&chunk[..], &fields, &wrong].concat()),
            ),
            (
                "POST /upload-chunk/",
                FORM,
                form(&[&fields[..], &[("chunk", "other canaryfileXq7")]].concat()),
            ),
            ("POST /upload-chunk/", FORM, form(&chunk)),
            (
                "POST /upload-chunk/",
                FORM,
                form(&chunk).replace("------X--", "canaryfileXq7"),
            ),
            (
                "POST /upload-chunk/",
                FORM,
                form(&chunk).replace("Content-Disposition", "canaryfileXq7 \u{1}"),
            ),
            ("POST /upload-chunk/", FORM, "canaryfileXq7".to_owned()),
            ("POST /upload-chunk/", JSON, "canaryfileXq7".to_owned()),
            ("POST /assemble-chunks/", JSON, "canaryfileXq7".to_owned()),
            ("GET /uploads/", JSON, String::new()),
        ];
        let mut id = super::UNKNOWN.to_owned();
        for (ask, media, body) in bodies {
            let headers: Vec<_> = secret.into_iter().chain([media]).collect();
            let frames = [
                Ok(Frame::data(Bytes::from(body.clone()))),
                Err::<_, BoxError>("connection reset".into()),
            ];
            let whole = request(ask, &headers, Full::new(Bytes::from(body.clone())));
            let cut = request(ask, &headers, StreamBody::new(stream::iter(frames)));
            for answer in [answer(&service, whole).await, answer(&service, cut).await] {
                check(&answer, ask);
                answers += 1;
                let json: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
                if let Some(new) = json["data"]["upload_id"].as_str() {
                    id = new.to_owned();
                }
            }
        }
        for (ask, body) in [
            ("PUT /uploads/{id}/chunks/0", "not canaryfileXq7"),
            ("PUT /uploads/{id}/chunks/0", "canaryfileXq7"),
            ("PUT /uploads/{id}/chunks/0", "yqnaryfileXq7"),
            ("GET /uploads/{id}/", ""),
            ("POST /uploads/{id}/assemble/", "{\"checksum\": \"canaryfileXq7\"}"),
            ("POST /uploads/{id}/assemble/", ""),
            ("GET /uploads/{id}/", ""),
            ("DELETE /uploads/{id}/", ""),
            ("PUT /uploads/{id}/chunks/0", "canaryfileXq7"),
        ] {
            let ask = ask.replace("{id}", &id);
            check(
                &answer(&service, request(&ask, &secret, Full::new(Bytes::from(body)))).await,
                &ask,
            );
            answers += 1;
        }
        drop(service);
        uploads.shutdown(std::time::Duration::from_secs(1)).await;
    }
    let text = log.text.lock().unwrap().clone();
    println!("{answers} answers, {} lines of log", text.lines().count());
    for level in ["DEBUG", "WARN", "TRACE"] {
        assert!(
            text.lines().any(|line| line.starts_with(level)),
            "nothing was logged at {level}"
        );
    }
    for secret in SECRETS {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} was logged");
    }
}

fn check(answer: &str, ask: &str) {
    for secret in SECRETS {
        assert!(!answer.contains(secret), "{ask} told {secret}: {answer}");
    }
}

async fn answer<S, B>(service: &S, request: http::Request<B>) -> String
where
    S: tower_service::Service<http::Request<B>, Response = http::Response<tower_upload::http::UploadBody>> + Clone,
    S::Error: fmt::Debug,
{
    let response = service.clone().call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let mut text = format!("{:?}", parts.headers);
    text.push_str(&body);
    if text.contains("upload_id") { body } else { text }
}

/// The log that finds nothing can find something.
#[tokio::test(start_paused = true)]
async fn the_log_hears() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let house = House::new(OwnerOnly).await;
    let reply = house.ask("GET /uploads/?limit=x", &[super::ANN], "").await;
    assert_eq!(reply.status, 400);
    assert!(log.text.lock().unwrap().contains("limit must be a whole number"));
}
