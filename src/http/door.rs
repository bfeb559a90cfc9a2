//! What every dialect checks before it looks at a request.

use http::{
    HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING},
    request::Parts,
};

use super::number::digits;
use crate::{
    access::Caller,
    engine::Uploads,
    error::{Error, ErrorKind},
};

/// Where one must sign in, asks for it before anything else is looked at.
pub(super) async fn refuse_nobody(uploads: &Uploads, caller: &Caller) -> Result<(), Error> {
    if !caller.is_anonymous() {
        return Ok(());
    }
    match uploads.admit(caller).await {
        Err(denied) if denied.kind() == ErrorKind::Unauthenticated => Err(denied),
        _ => Ok(()),
    }
}

/// Bodies are stored as they come: decoding them would open the door to bombs and break the checksums.
pub(super) fn refuse_coding(parts: &Parts) -> Result<(), Error> {
    let mut codings = parts.headers.get_all(CONTENT_ENCODING).iter();
    let plain = codings.all(|value| {
        let value = value.to_str().unwrap_or("?");
        value
            .split(',')
            .all(|coding| matches!(coding.trim().to_ascii_lowercase().as_str(), "" | "identity"))
    });
    if plain {
        return Ok(());
    }
    let message = "Content-Encoding is not understood here; send the body as it is";
    Err(Error::new(ErrorKind::UnsupportedMediaType, message))
}

/// A length that cannot be read, or two of them, is how requests are smuggled past proxies. Of the codings of a transfer servers
/// take off `chunked` alone: another one would be stored as if the client had sent it.
pub(super) fn refuse_length(parts: &Parts) -> Result<(), Error> {
    let mut transfers = parts.headers.get_all(TRANSFER_ENCODING).iter();
    if !transfers.all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        let message = "Of transfer codings chunked alone is understood here; send the body as it is";
        return Err(Error::new(ErrorKind::UnsupportedMediaType, message));
    }
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |value: &HeaderValue| value.to_str().ok().and_then(digits).is_some();
    if lengths.next().is_none_or(is_number) && lengths.next().is_none() {
        return Ok(());
    }
    Err(Error::invalid(
        "Content-Length",
        "Content-Length is one whole number of bytes",
    ))
}
