//! The wire of tus 1.0.0: what each clause of the protocol says, as a row; what happens at once or is cut off, as a test.
#![allow(clippy::unwrap_used)]

mod clauses;
mod concatenation;
mod cut;
mod download;
mod neighbours;
mod socket;
mod time;

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use http_body_util::{Either, Full, StreamBody};

use super::Tus;
use crate::{
    Caller, Uploads,
    http::tests::{Reply, Who, Wire, bearer, engine, request},
    metadata::Page,
    upload::{State, UploadId},
};

pub(super) const BYTES: (&str, &str) = ("content-type", "application/offset+octet-stream");
/// Says nothing of a version.
pub(super) const NO_VERSION: (&str, &str) = ("tus-resumable", "");
pub(super) const UNKNOWN: &str = "AAAAAAAAAAAAAAAAAAAAAA";

pub(super) fn ann() -> Caller {
    Caller::new("ann")
}

pub(super) fn serve(uploads: Uploads, tus: Tus) -> Wire {
    let service = uploads.service(bearer as Who).mount("/api").tus(tus);
    Wire { uploads, service }
}

pub(super) async fn wire() -> Wire {
    serve(engine().await, Tus::new())
}

impl Wire {
    /// Asks as a client of version 1.0.0, unless the headers name another; every answer must have what all have.
    pub(super) async fn tus<B>(&self, ask: &str, headers: &[(&str, &str)], body: B) -> Reply
    where
        B: Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut headers = headers.to_vec();
        if !headers.iter().any(|(name, _)| *name == "tus-resumable") {
            headers.push(("tus-resumable", "1.0.0"));
        }
        let reply = self.call(request(ask, &headers, body)).await;
        let about = format!("{ask} {headers:?}\n{reply:?}");
        assert_eq!(reply.header("tus-resumable"), "1.0.0", "{about}");
        if !ask.starts_with("OPTIONS") {
            assert_eq!(reply.header("x-content-type-options"), "nosniff", "{about}");
            let content = matches!(reply.status, 200 | 206 | 304 | 412 | 416) && reply.headers.contains_key("etag");
            let cached = if content { "private, no-cache" } else { "no-store" };
            assert_eq!(reply.header("cache-control"), cached, "{about}");
        }
        if reply.status >= 400 && !reply.headers.contains_key("etag") && !reply.text.is_empty() {
            assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8", "{about}");
            assert!(reply.text.len() > 10, "{about}");
        }
        reply
    }

    /// The id of an upload that these headers create; a body goes with it if there is one.
    pub(super) async fn created(&self, headers: &[(&str, &str)], body: &str) -> String {
        let mut headers = headers.to_vec();
        if !body.is_empty() {
            headers.push(BYTES);
        }
        let reply = self.tus("POST /files", &headers, whole(body)).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let id = reply.header("location").strip_prefix("/api/files/").unwrap();
        id.to_owned()
    }

    pub(super) async fn patch(&self, id: &str, offset: u64, body: &str) -> Reply {
        let offset = offset.to_string();
        let headers = [BYTES, ("upload-offset", offset.as_str())];
        self.tus(&format!("PATCH /files/{id}"), &headers, whole(body)).await
    }

    pub(super) async fn head(&self, id: &str) -> Reply {
        self.tus(&format!("HEAD /files/{id}"), &[], whole("")).await
    }

    pub(super) async fn get(&self, id: &str) -> Reply {
        self.tus(&format!("GET /files/{id}"), &[NO_VERSION], whole("")).await
    }

    /// What all uploads of ann are, newest first.
    pub(super) async fn all(&self) -> Vec<(UploadId, State, u64, Option<u64>)> {
        let uploads = self.uploads.list(&ann(), Page::new(0, 100)).await.unwrap();
        let what = |upload: &crate::Upload| (upload.id(), upload.state(), upload.tally().bytes, upload.size());
        uploads.iter().map(what).collect()
    }
}

pub(super) fn whole(body: &str) -> Full<Bytes> {
    Full::new(Bytes::copy_from_slice(body.as_bytes()))
}

type Frames = Vec<Result<Frame<Bytes>, std::io::Error>>;
pub(super) type Streamed = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::io::Error>>>>;

fn frames(body: &str) -> Frames {
    let pieces = body.as_bytes().chunks(3).map(Bytes::copy_from_slice);
    pieces.map(|piece| Ok(Frame::data(piece))).collect()
}

/// A body of which nobody said how long it is.
pub(super) fn streamed(body: &str) -> Streamed {
    StreamBody::new(stream::iter(frames(body)))
}

/// The same, with trailers.
pub(super) fn trailed(body: &str, trailers: &[(&str, &str)]) -> Streamed {
    let mut frames = frames(body);
    let trailers: HeaderMap = trailers
        .iter()
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect();
    frames.push(Ok(Frame::trailers(trailers)));
    StreamBody::new(stream::iter(frames))
}

/// The same, and then the connection is lost.
pub(super) fn broken(body: &str) -> Streamed {
    let mut frames = frames(body);
    frames.push(Err(std::io::Error::other("connection reset")));
    StreamBody::new(stream::iter(frames))
}

/// A body as a row writes it: with a `~` before it, nobody says how long it is.
pub(super) fn body(
    text: &str,
) -> impl Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static {
    use http_body_util::BodyExt as _;
    let body = match text.strip_prefix('~') {
        Some(text) => Either::Left(streamed(text)),
        None => Either::Right(whole(text).map_err(|never: Infallible| -> std::io::Error { match never {} })),
    };
    body.map_err(Into::into)
}
