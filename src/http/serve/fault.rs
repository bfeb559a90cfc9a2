//! Errors as problem details (RFC 9457).

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::{
    error::{Error, ErrorKind},
    http::{body::UploadBody, problem},
};

/// Why a file is not sent.
#[derive(Debug)]
pub(super) struct Fault {
    error: Error,
    /// The methods that are allowed.
    allow: Option<&'static str>,
}

#[derive(Serialize)]
struct Problem<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { error, allow: None }
    }
}

impl Fault {
    pub(super) fn method(allow: &'static str) -> Self {
        Self {
            error: Error::new(ErrorKind::Invalid, format!("Files know only {allow}")),
            allow: Some(allow),
        }
    }

    pub(super) fn into_response(self) -> Response<UploadBody> {
        problem::log(&self.error);
        let status = match self.allow {
            Some(_) => StatusCode::METHOD_NOT_ALLOWED,
            None => problem::status(self.error.kind()),
        };
        let problem = Problem {
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: self.error.message(),
        };
        let json = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(UploadBody::full(json));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "application/problem+json"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(seconds) = problem::retry_after(&self.error) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
