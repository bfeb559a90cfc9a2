//! What a creation says of its file: its name, its media type, how it is coded.

use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE},
};

use super::{PARTIAL_UPLOAD, disposition, media_type};
use crate::{
    engine::NewUpload,
    error::{Error, Result},
    upload::FileName,
};

/// A new upload of the file that these headers describe. They describe the whole of it, not this request: bytes are kept as they
/// are sent, coded or not.
///
/// The headers are kept as notes under their names, the media type also as `filetype` for whoever reads the metadata.
pub(super) fn described(headers: &HeaderMap, default_name: Option<&FileName>) -> Result<NewUpload> {
    let disposition = headers.get(CONTENT_DISPOSITION).map(HeaderValue::as_bytes);
    let name = disposition.and_then(disposition::file_name);
    let mut new = NewUpload::new(name.as_ref().or(default_name).map_or("upload", FileName::as_str));
    let kind = field(headers, &CONTENT_TYPE)?;
    if let Some(kind) = kind.filter(|_| media_type(headers).as_deref() != Some(PARTIAL_UPLOAD)) {
        if !is_media_type(kind) {
            return Err(malformed(&CONTENT_TYPE));
        }
        let kind = kind.replace('\t', " ");
        new = new.metadata("filetype", kind.as_str()).note("content-type", kind);
    }
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| malformed(&CONTENT_ENCODING))?;
        codings.extend(value.split(',').map(str::trim).filter(|coding| !coding.is_empty()));
    }
    if !codings.iter().all(|coding| is_token(coding)) {
        return Err(malformed(&CONTENT_ENCODING));
    }
    if !codings.is_empty() {
        new = new.note("content-encoding", codings.join(", "));
    }
    // What cannot be shown again as it is, is not kept: the name is what counts.
    if let Some(text) = headers.get(CONTENT_DISPOSITION).and_then(|value| value.to_str().ok()) {
        new = new.note("content-disposition", text.replace('\t', " "));
    }
    Ok(new)
}

fn field<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Result<Option<&'a str>> {
    let mut lines = headers.get_all(name).iter();
    let (line, more) = (lines.next(), lines.next().is_some());
    match line.map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) if !more => Ok(Some(text.trim())),
        _ => Err(malformed(name)),
    }
}

fn malformed(name: &http::HeaderName) -> Error {
    Error::invalid(
        name.to_string(),
        format!("The {name} cannot be read; it describes the file"),
    )
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

pub(super) fn is_token(text: &str) -> bool {
    let is_in = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_in)
}
