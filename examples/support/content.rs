//! A finished video, or a range of it.

use futures_util::TryStreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tower_upload::{Caller, UploadId, Uploads, blob::ByteRange};

use super::{
    BoxError,
    envelope::{Body, Refusal, full},
};

pub async fn answer(
    uploads: &Uploads,
    owner: &Caller,
    id: UploadId,
    request: &Parts,
) -> Result<Response<Body>, Refusal> {
    let upload = uploads.status(owner, id).await?;
    let size = upload.size().unwrap_or_default();
    let etag = upload
        .checksum()
        .map(|checksum| format!("\"{checksum}\""))
        .unwrap_or_default();
    let (range, status) = match Range::of(&request.headers, size, &etag) {
        Range::Whole => (ByteRange::ALL, StatusCode::OK),
        Range::Part(start, end) => (ByteRange::new(start, Some(end)), StatusCode::PARTIAL_CONTENT),
        Range::Unsatisfiable => {
            let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, format!("The video has {size} bytes"));
            let mut response = refusal.into_response();
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    let body = if request.method == Method::HEAD {
        full("")
    } else {
        let (_, bytes) = uploads.read(owner, id, range).await?;
        StreamBody::new(bytes.map_ok(Frame::data).map_err(BoxError::from)).boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let end = range.end.unwrap_or(size);
    set(&mut response, header::CONTENT_LENGTH, &(end - range.start).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        set(
            &mut response,
            header::CONTENT_RANGE,
            &format!("bytes {}-{}/{size}", range.start, end - 1),
        );
    }
    match media_type(upload.file_name().as_str()) {
        Some(media) => set(&mut response, header::CONTENT_TYPE, media),
        None => {
            set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
            set(&mut response, header::CONTENT_DISPOSITION, "attachment");
        }
    }
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::ETAG, &etag);
    set(&mut response, header::CACHE_CONTROL, "private, no-cache");
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(
        &mut response,
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; sandbox",
    );
    set(
        &mut response,
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    Ok(response)
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What a browser may show as a video; everything else is only handed over.
fn media_type(file_name: &str) -> Option<&'static str> {
    let (_, extension) = file_name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "ogv" => "video/ogg",
        "mov" => "video/quicktime",
        "mkv" => "video/x-matroska",
        "avi" => "video/x-msvideo",
        "mpg" | "mpeg" => "video/mpeg",
        "3gp" => "video/3gpp",
        _ => return None,
    })
}

/// What a request asks for. Several ranges, or none that can be read, are answered with the whole: RFC 9110, section 14.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// `start..end`
    Part(u64, u64),
    Unsatisfiable,
}

impl Range {
    fn of(headers: &HeaderMap, size: u64, etag: &str) -> Self {
        let condition = headers.get(header::IF_RANGE);
        if condition.is_some_and(|condition| condition.as_bytes() != etag.as_bytes()) {
            return Self::Whole;
        }
        headers
            .get(header::RANGE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| Self::parse(value, size))
            .unwrap_or(Self::Whole)
    }

    fn parse(value: &str, size: u64) -> Option<Self> {
        let (unit, range) = value.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        let (start, end) = match (number(first), number(last)) {
            (Some(start), None) if last.is_empty() => (start, size),
            (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1).min(size)),
            (None, Some(suffix)) if first.is_empty() => (size - suffix.min(size), size),
            _ => return None,
        };
        Some(if start < end {
            Self::Part(start, end)
        } else {
            Self::Unsatisfiable
        })
    }
}
