//! Answers: headers, and a sentence about what went wrong.

use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};

use super::VERSION;
use crate::{
    engine::Upload,
    error::{Error, ErrorKind},
    http::{body::UploadBody, problem},
    upload::{Concat, State, Timestamp},
};

/// Notes under which headers of a creation are kept as they came, to be told again as they are.
pub(super) const METADATA: &str = "Upload-Metadata";
pub(super) const CONCAT: &str = "Upload-Concat";

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// It speaks no version that is understood here, or does not say which.
    Version,
    /// The path is there, but only for these methods.
    Method(&'static str),
    /// Everything else.
    Error(Error),
    /// The same, of an upload of which the client may learn where it is now.
    At(Error, Box<Upload>),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

pub(super) fn versions(headers: &mut HeaderMap) {
    for name in ["tus-resumable", "tus-version"] {
        headers.insert(name, HeaderValue::from_static(VERSION));
    }
}

/// How many bytes of an upload are there; `None` where the protocol says nothing of that: while it waits to be made of others.
pub(super) fn offset(upload: &Upload) -> Option<u64> {
    match (upload.state(), upload.concat()) {
        (State::Assembled, _) => upload.size(),
        (_, Some(Concat::Final(_))) => None,
        (State::Assembling, _) => upload.size(),
        _ => Some(upload.offset()),
    }
}

fn answer(status: StatusCode) -> Response<UploadBody> {
    let mut response = Response::new(UploadBody::empty());
    *response.status_mut() = status;
    common(response.headers_mut());
    response
}

fn common(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Where an upload is now, and until when it can be gone on with.
fn progress(headers: &mut HeaderMap, upload: &Upload) {
    if let Some(offset) = offset(upload) {
        headers.insert("upload-offset", HeaderValue::from(offset));
    }
    if let Some(moment) = upload.expires_at() {
        set(headers, "upload-expires", &http_date(moment));
    }
}

pub(super) fn head(upload: &Upload) -> Response<UploadBody> {
    let mut response = answer(StatusCode::OK);
    let headers = response.headers_mut();
    progress(headers, upload);
    match upload.size() {
        Some(size) => {
            headers.insert("upload-length", HeaderValue::from(size));
        }
        None if matches!(upload.concat(), Some(Concat::Final(_))) => {}
        None => set(headers, "upload-defer-length", "1"),
    }
    for name in [METADATA, CONCAT] {
        if let Some(note) = upload.notes().get(name)
            && let Ok(value) = HeaderValue::from_str(note)
        {
            headers.insert(name, value);
        }
    }
    response
}

/// 201; with its offset if the creation brought bytes.
pub(super) fn created(location: &str, upload: &Upload, brought_bytes: bool) -> Response<UploadBody> {
    let mut response = answer(StatusCode::CREATED);
    let headers = response.headers_mut();
    progress(headers, upload);
    if !brought_bytes {
        headers.remove("upload-offset");
    }
    set(headers, "location", location);
    response
}

pub(super) fn no_content() -> Response<UploadBody> {
    answer(StatusCode::NO_CONTENT)
}

/// 204 with the offset; `now` is the upload as it was read after that, if it could be.
pub(super) fn appended(offset: u64, now: Option<&Upload>) -> Response<UploadBody> {
    let mut response = no_content();
    let headers = response.headers_mut();
    if let Some(upload) = now {
        progress(headers, upload);
    }
    headers.insert("upload-offset", HeaderValue::from(offset));
    response
}

pub(super) fn fault(fault: &Fault, version: Version) -> Response<UploadBody> {
    match fault {
        Fault::Version => {
            let message = "Speak tus 1.0.0, and say so in Tus-Resumable";
            let mut response = sentence(StatusCode::PRECONDITION_FAILED, message);
            versions(response.headers_mut());
            response
        }
        Fault::Method(allowed) => {
            let message = "The method is not allowed at this path";
            let mut response = sentence(StatusCode::METHOD_NOT_ALLOWED, message);
            set(response.headers_mut(), "allow", allowed);
            response
        }
        Fault::Error(error) => of_error(error, version),
        Fault::At(error, upload) => {
            let mut response = of_error(error, version);
            progress(response.headers_mut(), upload);
            response
        }
    }
}

fn of_error(error: &Error, version: Version) -> Response<UploadBody> {
    problem::log(error);
    let status = problem::tus_status(error.kind());
    let mut response = sentence(status, error.message());
    let headers = response.headers_mut();
    let busy = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
    if let Some(seconds) = problem::retry_after(error).or(busy) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    match error.kind() {
        ErrorKind::Unauthenticated => set(headers, "www-authenticate", "Bearer"),
        ErrorKind::OffsetMismatch => {
            if let Some(offset) = error.offset() {
                headers.insert("upload-offset", HeaderValue::from(offset));
            }
        }
        // The rest of the body is not waited for.
        ErrorKind::TooSlow if version <= Version::HTTP_11 => set(headers, "connection", "close"),
        _ => {}
    }
    response
}

fn sentence(status: StatusCode, message: &str) -> Response<UploadBody> {
    let mut response = answer(status);
    set(response.headers_mut(), "content-type", "text/plain; charset=utf-8");
    *response.body_mut() = UploadBody::full(format!("{message}\n"));
    response
}

/// As in RFC 9110 section 5.6.7: `Tue, 15 Nov 1994 08:12:31 GMT`.
fn http_date(moment: Timestamp) -> String {
    let moment = i64::try_from(moment.as_millis()).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_millisecond(moment).unwrap_or(jiff::Timestamp::MAX);
    moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        for (millis, expected) in [
            (784_887_151_999, "Tue, 15 Nov 1994 08:12:31 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_767_323_045_678, "Fri, 02 Jan 2026 03:04:05 GMT"),
        ] {
            assert_eq!(http_date(Timestamp::from_millis(millis)), expected);
        }
        assert!(http_date(Timestamp::from_millis(u64::MAX)).ends_with(" GMT"));
    }
}
