//! `{"success": true, "data": …}` and `{"success": false, "error": {"error": TEXT, …}}`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use serde::Serialize;
use tower_upload::ErrorKind;

use super::BoxError;

pub type Body = UnsyncBoxBody<Bytes, BoxError>;

#[derive(Serialize)]
struct Success<T> {
    success: bool,
    data: T,
}

#[derive(Serialize)]
struct Failure {
    success: bool,
    error: Detail,
}

/// Why a request was not done.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    detail: Box<Detail>,
}

#[derive(Debug, Default, Serialize)]
struct Detail {
    error: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    required: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl Refusal {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        let detail = Detail {
            error: error.into(),
            ..Detail::default()
        };
        Self {
            status,
            detail: Box::new(detail),
        }
    }

    pub fn field(field: &'static str, error: impl Into<String>) -> Self {
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, error);
        refusal.detail.field = Some(field);
        refusal
    }

    pub fn missing(required: &'static [&'static str]) -> Self {
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, "Missing required fields");
        refusal.detail.required = required;
        refusal
    }

    pub fn sign_in() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Sign in first")
    }

    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.detail.retry_after = Some(seconds);
        self
    }

    pub fn into_response(self) -> Response<Body> {
        let retry_after = self.detail.retry_after;
        let mut response = json(
            self.status,
            &Failure {
                success: false,
                error: *self.detail,
            },
        );
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<tower_upload::Error> for Refusal {
    fn from(error: tower_upload::Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorKind::NotFound | ErrorKind::Gone => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.message())
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        tracing::error!(%error, "the catalogue could not be written");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The catalogue cannot be written; try again",
        )
        .retry_after(1)
    }
}

pub fn success(status: StatusCode, data: impl Serialize) -> Response<Body> {
    json(status, &Success { success: true, data })
}

fn json(status: StatusCode, content: &impl Serialize) -> Response<Body> {
    let (status, text) = match serde_json::to_vec(content) {
        Ok(text) => (status, text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    };
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
