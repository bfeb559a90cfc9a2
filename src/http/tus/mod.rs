//! tus 1.0.0 with all its extensions: parse, call the engine, render.

use http::{HeaderMap, Response, StatusCode, request::Parts};

use super::{body::UploadBody, dialect::Exchange, files::Place};
use crate::engine::Uploads;

/// How tus is spoken: for [`UploadService::tus`](super::UploadService::tus).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tus {}

impl Tus {
    /// All extensions but `concatenation-unfinished`, no method override.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the method from `X-HTTP-Method-Override`, before anybody is asked whether it is allowed.
    pub(super) fn override_method(&self, _parts: &mut Parts) {}
}

/// Whether a request says that it speaks tus.
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    headers.contains_key("tus-resumable")
}

/// What OPTIONS tells.
pub(super) fn advertise(_tus: &Tus, _uploads: &Uploads, _headers: &mut HeaderMap) {}

pub(super) async fn answer(_exchange: Exchange, _place: Place) -> Response<UploadBody> {
    let mut response = Response::new(UploadBody::empty());
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    response
}
