//! See [`crate::http::fuzzing`].

use futures_util::TryStreamExt as _;
use http::HeaderMap;

use super::{
    form::{CHUNK, ChunkFields, Form},
    json::Fields,
    route::Route,
};
use crate::http::body::RequestBody;

/// The fields of a form, and the bytes of its chunk.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) struct ReadForm {
    fields: ChunkFields,
    chunk: Option<Vec<u8>>,
}

/// `None` if the form is refused.
pub(in crate::http) async fn read_form(headers: &HeaderMap, body: RequestBody) -> Option<ReadForm> {
    let mut form = Form::new(headers, body).ok()?;
    let (mut fields, mut chunk) = (ChunkFields::default(), None);
    while let Some(field) = form.next().await.ok()? {
        if field.name() == CHUNK {
            let frames: Vec<_> = field.into_data().try_collect().await.ok()?;
            chunk = Some(frames.concat());
        } else {
            fields.take(field).await.ok()?;
        }
    }
    let _ = (fields.address().is_ok(), fields.chunk().is_ok());
    Some(ReadForm { fields, chunk })
}

pub(in crate::http) fn route(segments: &[&str]) {
    if let Ok(route) = Route::of(segments) {
        assert!(!route.methods().is_empty());
    }
}

/// What is taken is JSON as others read it, with no key twice.
pub fn json(bytes: &[u8]) {
    let Ok(fields) = Fields::parse(bytes) else {
        return;
    };
    if !bytes.iter().all(u8::is_ascii_whitespace) {
        assert_eq!(serde_json::from_slice(bytes).ok().as_ref(), Some(fields.members()));
    }
    let _ = (
        fields.text("fileName"),
        fields.number("fileSize"),
        fields.digest("checksum"),
        fields.metadata(),
    );
    if let Ok(Some(id)) = fields.video_id() {
        let written = id.sent.as_str().map_or_else(|| id.sent.to_string(), str::to_owned);
        assert_eq!(id.target.as_str(), written);
    }
}
