//! Finished content over HTTP, with ranges and preconditions (RFC 9110 sections 13 and 14): for every dialect, and for the
//! service of files.
//!
//! What strangers uploaded is never shown as a page of this origin: it is in a sandbox, an attachment unless the host says
//! otherwise, and its type is told only where a browser plays it and runs nothing.
//!
//! The blob of an upload was last modified when it was published. Nothing says that of derived files, of which stores tell no
//! more than their size: there conditions by date are ignored, or in `If-Range` do not hold.

mod media;
mod modified;
mod multipart;
mod precondition;
mod range;
mod source;

use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

pub(super) use self::media::{disposition, media_type_by_name, safe_media_type};
pub(super) use self::range::Asked;
use self::{media::media_type, modified::Modified, precondition::Precondition, range::asked, source::Source};
#[cfg(any(test, feature = "conformance"))]
pub(super) use self::{precondition::entity_tags, range::range};
use super::{body::UploadBody, content_digest};
use crate::{
    access::{Action, Caller},
    blob::ByteRange,
    engine::{Clock as _, Crc64, SystemClock, Upload, Uploads},
    error::{Error, ErrorKind, Result},
    upload::{Blob, DerivedName, Digest, State, UploadId},
};

/// Answers GET and HEAD for the content of an upload, as an attachment.
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
    Content::of(uploads, caller, &upload)?.answer(parts).await
}

/// Something finished that can be sent, and what is said of it.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) size: u64,
    /// A strong validator, in its quotes; none of what may be replaced unnoticed.
    pub(super) etag: Option<String>,
    pub(super) modified: Option<Modified>,
    pub(super) media_type: String,
    pub(super) disposition: String,
    pub(super) cache_control: HeaderValue,
    /// Digests of the whole that are known.
    pub(super) digests: Vec<Digest>,
    pub(super) source: Source,
}

impl Content {
    /// The blob of an upload that the caller was allowed to read.
    pub(super) fn of(uploads: &Uploads, caller: &Caller, upload: &Upload) -> Result<Self> {
        let size = finished_size(upload)?;
        let promised = upload.record().checksum.clone();
        let digests = [upload.digest(), promised, upload.checksum()];
        let now = SystemClock::new().now();
        Ok(Self {
            size,
            etag: Some(etag(upload, size)),
            modified: upload.published_at().and_then(|at| Modified::at(at, now)),
            media_type: media_type(upload),
            disposition: disposition("attachment", upload.file_name().as_str()),
            cache_control: HeaderValue::from_static("private, no-cache"),
            digests: digests.into_iter().flatten().collect(),
            source: Source::blob(uploads, caller, upload),
        })
    }

    /// A file that a hook made of an upload's blob. No stranger has written it: its name says what it is.
    pub(super) async fn derived(uploads: &Uploads, caller: &Caller, id: UploadId, name: &DerivedName) -> Result<Self> {
        let found = uploads.find_derived(caller, id, name).await;
        let (key, Blob { size, .. }) = found.map_err(without_content)?;
        let file_name = name.as_str().rsplit('/').next().unwrap_or_default();
        let may_change = may_change(name.as_str());
        let (etag, size, source) = if may_change && size <= MAX_WHOLE {
            let bytes = source::whole(uploads, &key).await.map_err(without_content)?;
            let crc64 = Crc64::of(&bytes);
            (
                Some(format!("\"{crc64:016x}\"")),
                bytes.len() as u64,
                Source::Memory(bytes),
            )
        } else {
            // Another file of the same name may have the same size.
            let etag = (!may_change).then(|| format!("\"{size:x}\""));
            (etag, size, Source::derived(uploads, caller, id, name, key))
        };
        Ok(Self {
            size,
            etag,
            modified: None,
            media_type: media_type_by_name(file_name)
                .unwrap_or("application/octet-stream")
                .to_owned(),
            disposition: disposition("inline", file_name),
            cache_control: HeaderValue::from_static("private, no-cache"),
            digests: Vec::new(),
            source,
        })
    }

    /// Answers GET and HEAD: with the whole, one range, or several as `multipart/byteranges`.
    pub(super) async fn answer(self, parts: &Parts) -> Result<Response<UploadBody>> {
        match Precondition::of(&parts.headers, self.etag.as_deref(), self.modified) {
            Precondition::Failed => return Ok(self.nothing(StatusCode::PRECONDITION_FAILED)),
            Precondition::NotModified => return Ok(self.nothing(StatusCode::NOT_MODIFIED)),
            Precondition::Holds => {}
        }
        if parts.method == Method::HEAD {
            // `Range` means nothing here (RFC 9110 section 14.2).
            let body = UploadBody::sized(stream::empty(), self.size);
            return Ok(self.content(parts, StatusCode::OK, body, self.size));
        }
        match asked(&parts.headers, self.etag.as_deref(), self.modified, self.size) {
            Asked::Whole => {
                let bytes = self.source.open_now(ByteRange::new(0, Some(self.size))).await?;
                let body = UploadBody::sized(bytes, self.size);
                Ok(self.content(parts, StatusCode::OK, body, self.size))
            }
            Asked::Range(start, end) => {
                let bytes = self.source.open_now(ByteRange::new(start, Some(end))).await?;
                let body = UploadBody::sized(bytes, end - start);
                let mut response = self.content(parts, StatusCode::PARTIAL_CONTENT, body, end - start);
                let range = format!("bytes {start}-{}/{}", end - 1, self.size);
                set(response.headers_mut(), header::CONTENT_RANGE, &range);
                Ok(response)
            }
            Asked::Several(ranges) => self.several(parts, &ranges).await,
            Asked::Unsatisfiable => {
                let mut response = self.nothing(StatusCode::RANGE_NOT_SATISFIABLE);
                let size = format!("bytes */{}", self.size);
                set(response.headers_mut(), header::CONTENT_RANGE, &size);
                Ok(response)
            }
        }
    }

    async fn several(&self, parts: &Parts, ranges: &[(u64, u64)]) -> Result<Response<UploadBody>> {
        let no_numbers = |error| Error::unavailable("There are no random numbers; try again").with_source(error);
        let several = multipart::Parts::new(ranges, &self.media_type, self.size).map_err(no_numbers)?;
        let first = self.source.open_now(several.first().unwrap_or_default()).await?;
        let (len, media_type) = (several.len(), several.media_type());
        let body = UploadBody::sized(several.stream(first, self.source.clone()), len);
        let mut response = self.content(parts, StatusCode::PARTIAL_CONTENT, body, len);
        set(response.headers_mut(), header::CONTENT_TYPE, &media_type);
        Ok(response)
    }

    fn content(&self, parts: &Parts, status: StatusCode, body: UploadBody, len: u64) -> Response<UploadBody> {
        let mut response = self.nothing(status);
        *response.body_mut() = body;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        set(headers, header::CONTENT_TYPE, &self.media_type);
        set(headers, header::CONTENT_DISPOSITION, &self.disposition);
        if let Some(digest) = content_digest::preferred(&parts.headers, &self.digests) {
            let name = HeaderName::from_static("repr-digest");
            set(headers, name, &content_digest::written(digest));
        }
        response
    }

    /// An answer without content, with what all answers about the content have.
    fn nothing(&self, status: StatusCode) -> Response<UploadBody> {
        let mut response = Response::new(UploadBody::empty());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Some(etag) = &self.etag {
            set(headers, header::ETAG, etag);
        }
        // A cache needs one validator to find what it has (RFC 9110 section 15.4.5).
        if status != StatusCode::NOT_MODIFIED
            && let Some(modified) = self.modified.and_then(Modified::header)
        {
            headers.insert(header::LAST_MODIFIED, modified);
        }
        headers.insert(header::CACHE_CONTROL, self.cache_control.clone());
        for (name, value) in [
            (header::ACCEPT_RANGES, "bytes"),
            (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Files of a stream that may be put anew are read whole, up to this many bytes: what is told of them must be of one and the
/// same. They are playlists and a poster; larger ones have no validator, and are sent anew each time.
const MAX_WHOLE: u64 = 4 << 20;

/// Whether another file may take the place of one of this name: playlists, and what lies in no folder of its own. What does,
/// belongs to one attempt and is never written again.
pub(super) fn may_change(name: &str) -> bool {
    !name.contains('/') || name.ends_with(".m3u8")
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

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
