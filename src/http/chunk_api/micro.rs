//! See [`crate::benchmark::micro`].

use futures_util::TryStreamExt as _;
use http::HeaderMap;

use super::form::{CHUNK, ChunkFields, Form};
use crate::http::body::RequestBody;

/// How many bytes the chunk has, which comes after all fields; `None` if the form is refused.
pub(in crate::http) async fn chunk_of_form(headers: &HeaderMap, body: RequestBody) -> Option<usize> {
    let mut form = Form::new(headers, body).ok()?;
    let mut fields = ChunkFields::default();
    while let Some(field) = form.next().await.ok()? {
        if field.name() == CHUNK {
            let frames = form.into_chunk(field, fields);
            let count = |bytes, frame: bytes::Bytes| async move { Ok(bytes + frame.len()) };
            return frames.try_fold(0, count).await.ok();
        }
        fields.take(field).await.ok()?;
    }
    None
}
