//! The bytes of a finished upload over HTTP, with ranges and preconditions (RFC 9110 sections 13 and 14): for every dialect.
//!
//! What strangers uploaded is never shown as a page of this origin: it is an attachment, in a sandbox, and its type is told
//! only where a browser plays it and runs nothing.

use futures_util::stream;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{self, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE},
    request::Parts,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{body::UploadBody, number::digits};
use crate::{
    access::{Action, Caller},
    blob::ByteRange,
    engine::{Upload, Uploads},
    error::{Error, ErrorKind, Result},
    upload::{State, UploadId},
};

/// Answers GET and HEAD for the content of an upload: the whole or one range of it. Several ranges at once are
/// answered with the whole, as RFC 9110 section 14.2 allows.
///
/// # Errors
/// [`Conflict`](ErrorKind::Conflict) while it is not finished, [`NotFound`](ErrorKind::NotFound) once it never will be, or was
/// deleted; those of the authorizer and the stores.
pub(super) async fn answer(
    uploads: &Uploads,
    caller: &Caller,
    parts: &Parts,
    id: UploadId,
) -> Result<Response<UploadBody>> {
    let upload = uploads.glance(caller, id, Action::Read).await?;
    let size = finished_size(&upload)?;
    let etag = etag(&upload, size);
    match precondition(&parts.headers, &etag) {
        Precondition::Failed => return Ok(nothing(StatusCode::PRECONDITION_FAILED, &etag)),
        Precondition::NotModified => return Ok(nothing(StatusCode::NOT_MODIFIED, &etag)),
        Precondition::Holds => {}
    }
    let asked = if parts.method == Method::GET {
        asked(&parts.headers, &etag, size)
    } else {
        Asked::Whole
    };
    let (status, start, end) = match asked {
        Asked::Whole => (StatusCode::OK, 0, size),
        Asked::Range(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
        Asked::Unsatisfiable => {
            let mut response = nothing(StatusCode::RANGE_NOT_SATISFIABLE, &etag);
            set(
                response.headers_mut(),
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return Ok(response);
        }
    };
    let body = if parts.method == Method::HEAD {
        UploadBody::sized(stream::empty(), end - start)
    } else {
        let range = ByteRange::new(start, Some(end));
        let (_, bytes) = uploads.read(caller, id, range).await.map_err(without_content)?;
        UploadBody::sized(bytes, end - start)
    };
    let mut response = nothing(status, &etag);
    *response.body_mut() = body;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {start}-{}/{size}", end - 1);
        set(headers, header::CONTENT_RANGE, &range);
    }
    set(headers, header::CONTENT_TYPE, &media_type(&upload));
    set(
        headers,
        header::CONTENT_DISPOSITION,
        &disposition(upload.file_name().as_str()),
    );
    Ok(response)
}

/// Size of the blob in bytes, once there is one.
fn finished_size(upload: &Upload) -> Result<u64> {
    match (upload.state(), upload.size()) {
        (State::Assembled, Some(size)) => Ok(size),
        (State::Open | State::Assembling, _) => Err(Error::new(
            ErrorKind::Conflict,
            "The upload is not finished; ask again when it is",
        )),
        (state, _) => Err(without_content(Error::gone(state))),
    }
}

/// What ended has no content, however it ended.
fn without_content(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Gone | ErrorKind::Failed | ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, "The upload has no content, or not any more")
        }
        _ => error,
    }
}

/// A strong validator: the bytes under an id never change.
fn etag(upload: &Upload, size: u64) -> String {
    let crc64 = upload.record().crc64.unwrap_or_default();
    format!("\"{crc64:016x}-{size:x}\"")
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// An answer without content, with what all answers about the content have.
fn nothing(status: StatusCode, etag: &str) -> Response<UploadBody> {
    let mut response = Response::new(UploadBody::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    set(headers, header::ETAG, etag);
    for (name, value) in [
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "private, no-cache"),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precondition {
    Holds,
    Failed,
    NotModified,
}

/// `If-Match`, then `If-None-Match`: RFC 9110 section 13.2.2. There is no modification date, so what goes by one is ignored.
fn precondition(headers: &HeaderMap, etag: &str) -> Precondition {
    if headers.contains_key(IF_MATCH) && !names(headers, &IF_MATCH, |tag| tag == etag) {
        return Precondition::Failed;
    }
    if names(headers, &IF_NONE_MATCH, |tag| tag.trim_start_matches("W/") == etag) {
        return Precondition::NotModified;
    }
    Precondition::Holds
}

/// Whether a list of entity tags has one that `is_it`, or is `*`. A list that cannot be read has none.
fn names(headers: &HeaderMap, name: &header::HeaderName, is_it: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| entity_tags(line).unwrap_or_default())
        .any(|tag| tag == "*" || is_it(tag))
}

/// The entity tags of a list, each as it is written; `None` if it is none.
pub(super) fn entity_tags(text: &str) -> Option<Vec<&str>> {
    let text = text.trim_matches([' ', '\t']);
    if text == "*" {
        return Some(vec![text]);
    }
    let mut tags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(tags);
        }
        let opaque = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let len = rest.len() - opaque.len() + opaque.find('"')? + 1;
        let (tag, after) = rest.split_at_checked(len)?;
        tags.push(tag);
        rest = after.trim_start_matches([' ', '\t']);
        if !(rest.is_empty() || rest.starts_with(',')) {
            return None;
        }
    }
}

/// What of the content is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Whole,
    /// Bytes `start..end`, at least one.
    Range(u64, u64),
    Unsatisfiable,
}

/// `Range`, unless `If-Range` speaks of other content.
fn asked(headers: &HeaderMap, etag: &str, size: u64) -> Asked {
    let holds = |value: &HeaderValue| value.as_bytes() == etag.as_bytes();
    if !headers.get(IF_RANGE).is_none_or(holds) {
        return Asked::Whole;
    }
    let mut ranges = headers.get_all(RANGE).iter();
    match (ranges.next().and_then(|value| value.to_str().ok()), ranges.next()) {
        (Some(text), None) => range(text, size),
        _ => Asked::Whole,
    }
}

/// One range of bytes (RFC 9110 section 14.1.2) of a content of `size` bytes. What cannot be read, is in another unit or
/// names several ranges asks for the whole.
pub(super) fn range(text: &str, size: u64) -> Asked {
    let Some((unit, ranges)) = text.split_once('=') else {
        return Asked::Whole;
    };
    let Some((first, last)) = ranges.trim_matches([' ', '\t']).split_once('-') else {
        return Asked::Whole;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Asked::Whole;
    }
    // A position beyond what a number can hold is beyond the end, too.
    let position = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits(text).unwrap_or(u64::MAX))
    };
    let (start, end) = match (position(first), position(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => (first, size),
        (None, Some(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return Asked::Whole,
    };
    if start < end {
        Asked::Range(start, end)
    } else {
        Asked::Unsatisfiable
    }
}

/// The type that the client named, if browsers play or show it and run nothing in it.
fn media_type(upload: &Upload) -> String {
    let named = ["filetype", "type"].iter().find_map(|key| upload.metadata().get(*key));
    named
        .and_then(|named| safe_media_type(named))
        .unwrap_or_else(|| "application/octet-stream".to_owned())
}

/// `text/html`, `image/svg+xml` and their like run scripts; sound, film and pictures of pixels do not.
pub(super) fn safe_media_type(named: &str) -> Option<String> {
    let named = named.split(';').next()?.trim().to_ascii_lowercase();
    let (kind, subtype) = named.split_once('/')?;
    let is_token = !subtype.is_empty()
        && subtype.len() <= 64
        && subtype
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.+_".contains(&byte));
    let safe = match kind {
        "video" | "audio" => is_token && !subtype.ends_with("xml"),
        "image" => matches!(subtype, "png" | "jpeg" | "gif" | "webp" | "avif"),
        _ => false,
    };
    safe.then_some(named)
}

/// What RFC 8187 section 3.2.1 lets stand in a name as it is.
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// `Content-Disposition` (RFC 6266): the name for those who read ASCII alone, and the name itself where it has more.
pub(super) fn disposition(file_name: &str) -> String {
    let is_plain = |c: char| (c == ' ' || c.is_ascii_graphic()) && !"\"\\%".contains(c);
    let ascii = file_name.replace(|c: char| !is_plain(c), "_");
    if ascii == file_name {
        return format!("attachment; filename=\"{ascii}\"");
    }
    let whole = utf8_percent_encode(file_name, ATTRIBUTE);
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{whole}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_range_is_cut_out() {
        for (text, size, expected) in [
            ("bytes=0-0", 10, Asked::Range(0, 1)),
            ("bytes=0-9", 10, Asked::Range(0, 10)),
            ("bytes=2-", 10, Asked::Range(2, 10)),
            ("bytes=2-99", 10, Asked::Range(2, 10)),
            ("bytes=-3", 10, Asked::Range(7, 10)),
            ("bytes=-99", 10, Asked::Range(0, 10)),
            ("Bytes= 1-2", 10, Asked::Range(1, 3)),
            ("bytes=0-18446744073709551615", 10, Asked::Range(0, 10)),
            ("bytes=0-99999999999999999999", 10, Asked::Range(0, 10)),
            ("bytes=10-", 10, Asked::Unsatisfiable),
            ("bytes=10-11", 10, Asked::Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Asked::Unsatisfiable),
            ("bytes=-0", 10, Asked::Unsatisfiable),
            ("bytes=0-", 0, Asked::Unsatisfiable),
            ("bytes=-1", 0, Asked::Unsatisfiable),
            ("bytes=0-0,2-3", 10, Asked::Whole),
            ("bytes=5-2", 10, Asked::Whole),
            ("bytes=-", 10, Asked::Whole),
            ("bytes=", 10, Asked::Whole),
            ("bytes", 10, Asked::Whole),
            ("bytes=a-b", 10, Asked::Whole),
            ("bytes=+1-2", 10, Asked::Whole),
            ("bytes=1-x", 10, Asked::Whole),
            ("bytes=1--2", 10, Asked::Whole),
            ("seconds=1-2", 10, Asked::Whole),
            ("", 10, Asked::Whole),
        ] {
            assert_eq!(range(text, size), expected, "{text} of {size}");
        }
    }

    #[test]
    fn entity_tags_are_read_one_by_one() {
        for (text, expected) in [
            ("\"a\"", Some(vec!["\"a\""])),
            ("\"a\", W/\"b\"", Some(vec!["\"a\"", "W/\"b\""])),
            (" ,\"a\" ,, \"b,c\",", Some(vec!["\"a\"", "\"b,c\""])),
            ("*", Some(vec!["*"])),
            ("", Some(vec![])),
            ("a", None),
            ("\"a", None),
            ("\"a\" \"b\"", None),
            ("w/\"a\"", None),
            ("*, \"a\"", None),
        ] {
            assert_eq!(entity_tags(text), expected, "{text}");
        }
    }

    #[test]
    fn preconditions_are_weighed_in_their_order() {
        use Precondition::{Failed, Holds, NotModified};
        for (headers, expected) in [
            (&[][..], Holds),
            (&[("if-match", "\"x\"")], Holds),
            (&[("if-match", "*")], Holds),
            (&[("if-match", "\"a\", \"x\"")], Holds),
            (&[("if-match", "\"a\"")], Failed),
            (&[("if-match", "W/\"x\"")], Failed),
            (&[("if-match", "x")], Failed),
            (&[("if-none-match", "\"a\"")], Holds),
            (&[("if-none-match", "\"x\"")], NotModified),
            (&[("if-none-match", "W/\"x\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "x")], Holds),
            (&[("if-match", "\"a\""), ("if-none-match", "\"x\"")], Failed),
            (&[("if-match", "\"x\""), ("if-none-match", "\"x\"")], NotModified),
        ] {
            let map = headers.iter().map(|(name, value)| {
                let name: header::HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_static(value))
            });
            assert_eq!(precondition(&map.collect(), "\"x\""), expected, "{headers:?}");
        }
    }

    #[test]
    fn only_what_runs_nothing_keeps_its_type() {
        for (named, expected) in [
            ("video/mp4", Some("video/mp4")),
            ("Video/MP4; codecs=\"avc1\"", Some("video/mp4")),
            ("audio/x-m4a", Some("audio/x-m4a")),
            ("image/png", Some("image/png")),
            ("image/svg+xml", None),
            ("video/x+xml", None),
            ("text/html", None),
            ("application/pdf", None),
            ("video/", None),
            ("video", None),
            ("video/mp4\r\nx: y", None),
            ("video/a b", None),
            ("", None),
        ] {
            assert_eq!(safe_media_type(named).as_deref(), expected, "{named:?}");
        }
    }

    #[test]
    fn names_are_quoted_and_encoded() {
        for (name, expected) in [
            ("my talk.mp4", "attachment; filename=\"my talk.mp4\""),
            (
                "a\"b\\c.mp4",
                "attachment; filename=\"a_b_c.mp4\"; filename*=UTF-8''a%22b%5Cc.mp4",
            ),
            (
                "100%.mp4",
                "attachment; filename=\"100_.mp4\"; filename*=UTF-8''100%25.mp4",
            ),
            (
                "für €.mp4",
                "attachment; filename=\"f_r _.mp4\"; filename*=UTF-8''f%C3%BCr%20%E2%82%AC.mp4",
            ),
        ] {
            assert_eq!(disposition(name), expected);
        }
    }
}
