//! See [`crate::benchmark::micro`].

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::StreamBody;

use super::{
    body::RequestBody,
    chunk_api, content_digest as digests,
    pace::MinimumRate,
    path::{Path, Query},
    structured,
};
use crate::upload::Digest;

pub use super::tus::micro::tus_metadata;

/// Whether it is an item.
#[must_use]
pub fn structured_item(text: &[u8]) -> bool {
    structured::item(text).is_some()
}

/// The strongest digest that is understood.
#[must_use]
pub fn content_digest(text: &[u8]) -> Option<Digest> {
    digests::parse("Content-Digest", text).ok().flatten()
}

/// How many segments there are.
#[must_use]
pub fn path(text: &str) -> Option<usize> {
    Path::parse(text).map(|path| path.segments().len())
}

/// Whether `name` is given.
#[must_use]
pub fn query(text: &str, name: &str) -> bool {
    Query::parse(Some(text)).is_ok_and(|query| query.get(name).is_some())
}

/// How many bytes the chunk of a form has, whose boundary is X.
pub async fn form(frames: Vec<Bytes>) -> Option<usize> {
    let media = HeaderValue::from_static("multipart/form-data; boundary=X");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, media)]);
    let frames = frames.into_iter().map(|frame| Ok::<_, Infallible>(Frame::data(frame)));
    let body = StreamBody::new(stream::iter(frames));
    let body = RequestBody::new(body, &HeaderMap::new(), MinimumRate::DEFAULT);
    chunk_api::micro::chunk_of_form(&headers, body).await
}
