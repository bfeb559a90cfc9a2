//! Resumable Uploads for HTTP, the IETF's protocol: parse, call the engine, render.

use http::{HeaderMap, Response, StatusCode};

use super::{body::UploadBody, dialect::Exchange, files::Place};
use crate::engine::Uploads;

/// How the IETF's protocol is spoken: for [`UploadService::resumable`](super::UploadService::resumable).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Resumable {}

impl Resumable {
    /// As the newest text says, and all older drafts that clients speak.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Whether a request says that it speaks this protocol.
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    let fields = ["upload-draft-interop-version", "upload-complete", "upload-incomplete"];
    fields.iter().any(|field| headers.contains_key(*field))
        || headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|media| media.as_bytes().starts_with(b"application/partial-upload"))
}

/// What OPTIONS tells.
pub(super) fn advertise(_resumable: &Resumable, _uploads: &Uploads, _headers: &mut HeaderMap) {}

pub(super) async fn answer(_exchange: Exchange, _place: Place) -> Response<UploadBody> {
    let mut response = Response::new(UploadBody::empty());
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    response
}
