//! Answers, and errors as problem details (RFC 9457).

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::version::Rules;
use crate::{
    engine::Upload,
    error::{Error, ErrorKind},
    http::{body::UploadBody, content_digest, problem},
    upload::Digest,
};

/// The fields of an answer; those that are `None` are not there.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) location: Option<HeaderValue>,
    pub(super) offset: Option<u64>,
    pub(super) complete: Option<bool>,
    pub(super) length: Option<u64>,
    pub(super) limits: Option<HeaderValue>,
    pub(super) digest: Option<Digest>,
}

impl Fields {
    fn write(self, rules: &Rules, headers: &mut HeaderMap) {
        let complete = self.complete.map(|complete| {
            let value = if complete == rules.is_inverted { "?0" } else { "?1" };
            HeaderValue::from_static(value)
        });
        let digest = self.digest.as_ref().map(content_digest::written);
        for (name, value) in [
            ("location", self.location),
            ("upload-offset", self.offset.map(HeaderValue::from)),
            (rules.complete_field(), complete),
            ("upload-length", self.length.map(HeaderValue::from)),
            ("upload-limit", self.limits),
            (
                "repr-digest",
                digest.and_then(|digest| HeaderValue::try_from(digest).ok()),
            ),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
}

/// A success.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    pub(super) fields: Fields,
    json: Option<String>,
}

/// What became of an upload.
#[derive(Serialize)]
struct Finished<'a> {
    upload_id: String,
    file_name: &'a str,
    size: Option<u64>,
    video_path: &'a str,
    checksum: Option<String>,
}

impl Reply {
    pub(super) const fn new(status: StatusCode, fields: Fields) -> Self {
        Self {
            status,
            fields,
            json: None,
        }
    }

    /// The final answer.
    pub(super) fn finished(upload: &Upload) -> Self {
        let record = upload.record();
        let finished = Finished {
            upload_id: upload.id().to_string(),
            file_name: upload.file_name().as_str(),
            size: upload.size(),
            video_path: upload.key().as_str(),
            checksum: upload.checksum().map(|digest| digest.to_string()),
        };
        let verified = || record.checksum.clone().filter(|_| record.wanted_digest.is_some());
        let fields = Fields {
            offset: upload.size(),
            complete: Some(true),
            digest: upload.digest().or_else(verified),
            ..Fields::default()
        };
        Self {
            json: Some(to_json(&finished)),
            ..Self::new(StatusCode::OK, fields)
        }
    }

    pub(super) fn into_response(self, rules: &Rules) -> Response<UploadBody> {
        let mut response = match self.json {
            Some(json) => with_json(json, "application/json"),
            None => Response::new(UploadBody::empty()),
        };
        *response.status_mut() = self.status;
        self.fields.write(rules, response.headers_mut());
        response
    }
}

/// A problem type of the protocol's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    MismatchingOffset,
    InconsistentLength,
    Completed,
}

impl Type {
    /// Its URI, and its title.
    const fn of(self) -> (&'static str, &'static str) {
        match self {
            Self::MismatchingOffset => (
                "https://iana.org/assignments/http-problem-types#mismatching-upload-offset",
                "The offset is not where the upload continues",
            ),
            Self::InconsistentLength => (
                "https://iana.org/assignments/http-problem-types#inconsistent-upload-length",
                "The lengths contradict each other",
            ),
            Self::Completed => (
                "https://iana.org/assignments/http-problem-types#completed-upload",
                "The upload is complete already",
            ),
        }
    }
}

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    pub(super) kind: Option<Type>,
    pub(super) fields: Box<Fields>,
    /// The offset that the client gave.
    pub(super) provided: Option<u64>,
    /// The methods that are allowed.
    allow: Option<&'static str>,
}

impl From<Error> for Fault {
    /// An error that does not end the upload, as far as is known.
    fn from(error: Error) -> Self {
        let fields = Fields {
            offset: error.offset(),
            complete: Some(false),
            ..Fields::default()
        };
        Self {
            error,
            kind: None,
            fields: Box::new(fields),
            provided: None,
            allow: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Problem<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provided_offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual_digest: Option<String>,
}

impl Fault {
    /// An error that is the final answer: the upload is over.
    pub(super) fn last(error: Error) -> Self {
        let mut fault = Self::from(error);
        fault.fields.complete = Some(true);
        fault
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let error = Error::new(ErrorKind::Invalid, "The method is not allowed at this path");
        Self {
            allow: Some(allow),
            ..Self::from(error)
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.allow {
            Some(_) => StatusCode::METHOD_NOT_ALLOWED,
            None => problem::resumable(self.error.kind()),
        }
    }

    pub(super) fn into_response(self, rules: &Rules) -> Response<UploadBody> {
        problem::log(&self.error);
        let (status, error) = (self.status(), &self.error);
        let (kind, title) = self
            .kind
            .map(Type::of)
            .map_or((None, status.canonical_reason().unwrap_or("Error")), |(uri, title)| {
                (Some(uri), title)
            });
        let digest = |digest: Option<&Digest>| digest.map(ToString::to_string);
        let problem = Problem {
            kind,
            title,
            status: status.as_u16(),
            detail: error.message(),
            field: error.field(),
            limit: error.limit(),
            expected_offset: self.fields.offset.filter(|_| self.provided.is_some()),
            provided_offset: self.provided,
            expected_digest: digest(error.expected()),
            actual_digest: digest(error.actual()),
        };
        let mut response = with_json(to_json(&problem), "application/problem+json");
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let wait = problem::retry_after(error).or(match error.kind() {
            ErrorKind::NoSpace => Some(30),
            _ => status.is_server_error().then_some(1),
        });
        if let Some(seconds) = wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        self.fields.write(rules, headers);
        response
    }
}

fn with_json(json: String, media_type: &'static str) -> Response<UploadBody> {
    let mut response = Response::new(UploadBody::full(json));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() // never fails: string keys, no failing serializer
}
