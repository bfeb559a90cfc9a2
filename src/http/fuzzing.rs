//! The parsers of the wire for fuzz targets, each with what must hold of its answer.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::StreamBody;
use percent_encoding::percent_decode_str;

use super::{
    body::RequestBody,
    chunk_api::fuzzing as chunk_api,
    content_digest as digests,
    download::{self, Asked},
    pace::MinimumRate,
    path::{Path, Query},
    resumable::fuzzing as resumable,
    structured::{Value, dictionary, item},
    tus::fuzzing as tus_headers,
};
use crate::upload::{Digest, FileName};

pub use chunk_api::json;
pub use resumable::content_disposition;
pub use tus_headers::tus;

/// How long a form may be so that none of its limits depends on how it is cut.
const SHORT: usize = 4096;

/// A form is read the same however its bytes are cut. The first byte says how.
pub fn multipart(bytes: &[u8]) {
    let Some((cut, form)) = bytes.split_first() else {
        return;
    };
    let len = usize::from(*cut) + 1;
    let (whole, pieces) = (read(form, form.len()), read(form, len));
    if form.len() <= SHORT {
        assert_eq!(whole, pieces, "in pieces of {len}");
    }
}

/// `None` if the form is refused.
fn read(form: &[u8], len: usize) -> Option<chunk_api::ReadForm> {
    let media = HeaderValue::from_static("multipart/form-data; boundary=X");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, media)]);
    let frames = form.chunks(len.max(1)).map(Bytes::copy_from_slice);
    let frames: Vec<Result<_, Infallible>> = frames.map(|frame| Ok(Frame::data(frame))).collect();
    let body = RequestBody::new(
        StreamBody::new(stream::iter(frames)),
        &HeaderMap::new(),
        MinimumRate::DEFAULT,
    );
    run(chunk_api::read_form(&headers, body))
}

/// Polls until it is ready: what these futures wait for is always there.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the parser waits for what never comes");
}

/// Segments and parameters come out decoded once, and no segment has a separator in it.
pub fn path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(path) = Path::parse(&text) {
        for segment in path.segments() {
            assert!(!segment.is_empty() && !segment.contains(['/', '\\', '\0']));
        }
        chunk_api::route(&path.segments());
    }
    if let Ok(query) = Query::parse(Some(&text)) {
        assert!(query.get("").is_none_or(|value| value.len() <= text.len()));
    }
}

/// A dictionary yields a digest of its algorithm's length, or none.
pub fn content_digest(bytes: &[u8]) {
    if let Ok(Some(digest)) = digests::parse("Content-Digest", bytes) {
        assert_eq!(digest.as_bytes().len(), digest.algorithm().len());
        assert_eq!(digest.to_string().parse::<Digest>().ok(), Some(digest.clone()));
        let written = digests::written(&digest);
        assert_eq!(
            digests::parse("Content-Digest", written.as_bytes()).ok(),
            Some(Some(digest))
        );
    }
    let _ = String::from_utf8_lossy(bytes).parse::<Digest>();
}

/// An item is a member of a dictionary, and its value the same there; no key is there twice.
pub fn structured(bytes: &[u8]) {
    if let Some(value) = item(bytes) {
        if let Value::Integer(number) = value {
            assert!(number.unsigned_abs() <= super::structured::MAX_INTEGER);
        }
        let trimmed = bytes.trim_ascii_start();
        let members = dictionary(&[b"k=", trimmed].concat());
        assert_eq!(members, Some(vec![("k".to_owned(), value)]));
    }
    if let Some(members) = dictionary(bytes) {
        let keys: std::collections::BTreeSet<_> = members.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), members.len());
    }
}

/// A range lies within the content, and what an answer says of a file can stand in a header.
pub fn range(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for size in [0, 1, 10, u64::MAX] {
        let ranges = match download::range(&text, size) {
            Asked::Range(start, end) => vec![(start, end)],
            Asked::Several(ranges) => ranges,
            Asked::Whole | Asked::Unsatisfiable => Vec::new(),
        };
        let mut sorted = ranges.clone();
        sorted.sort_unstable();
        assert!(
            sorted.iter().all(|(start, end)| start < end && *end <= size),
            "{text} of {size}"
        );
        assert!(sorted.windows(2).all(|two| two[0].1 < two[1].0), "{text} of {size}");
    }
    for tag in download::entity_tags(&text).unwrap_or_default() {
        assert!(
            tag == "*" || tag.matches('"').count() == 2 && tag.ends_with('"'),
            "{tag}"
        );
    }
    if let Some(media) = download::safe_media_type(&text) {
        assert!(
            HeaderValue::from_str(&media).is_ok() && !media.ends_with("xml"),
            "{media}"
        );
        let kinds = [
            "video/",
            "audio/",
            "image/png",
            "image/jpeg",
            "image/gif",
            "image/webp",
            "image/avif",
        ];
        assert!(kinds.iter().any(|kind| media.starts_with(kind)), "{media}");
    }
    if let Ok(name) = FileName::parse(&text) {
        let written = download::disposition("attachment", name.as_str());
        assert!(
            written.is_ascii() && HeaderValue::from_str(&written).is_ok(),
            "{written}"
        );
        let plain = written.split('"').nth(1).unwrap_or_default();
        let named = written.split_once("UTF-8''").map_or(plain, |(_, encoded)| encoded);
        let named = percent_decode_str(named).decode_utf8_lossy();
        assert_eq!(named, name.as_str(), "{written}");
    }
}
