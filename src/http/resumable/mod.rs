//! Resumable Uploads for HTTP, the IETF's protocol: parse, call the engine, render.
//!
//! Drafts -01 to -13 of draft-ietf-httpbis-resumable-upload are spoken, as the client says by
//! `Upload-Draft-Interop-Version` (3 to 10), and the final form, which has no such field. What differs between them is one
//! table: `version`.

mod append;
mod create;
mod disposition;
#[cfg(any(test, feature = "conformance"))]
pub(super) mod fuzzing;
mod interim;
mod limits;
mod render;
mod representation;
#[cfg(test)]
mod tests;
mod version;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};

pub use self::interim::{Interim, InterimSender};

use self::{
    render::{Fault, Fields, Reply, Type},
    version::Rules,
};
use super::{
    body::{RequestBody, UploadBody},
    cross_site::refuse_cross_site,
    dialect::Exchange,
    door::refuse_nobody,
    files::Place,
    settings::Settings,
    structured::field_boolean,
};
use crate::{
    access::{Action, Caller},
    engine::{Upload, Uploads},
    error::{Error, ErrorKind},
    upload::{FileName, Layout, State, UploadId},
};

/// How the IETF's Resumable Uploads for HTTP are spoken: for [`UploadService::resumable`](super::UploadService::resumable).
///
/// # What is answered
/// * `POST`, `PUT` or `PATCH` to the collection with `Upload-Complete: ?1` sends a whole file, with `?0` the beginning of one, or
///   nothing of it yet. `HEAD` tells how much of an upload is there, `PATCH` goes on with it, `DELETE` gives it up; `OPTIONS` tells
///   the limits.
/// * A finished upload is answered with 200 and `{"upload_id", "file_name", "size", "video_path", "checksum"}`; errors are
///   `application/problem+json` (RFC 9457).
/// * A creating request without `Upload-Complete` is a whole file, as from a client that knows nothing of this protocol: the answer is
///   the same, but the upload cannot be resumed, and what is cut off is dropped. The body is the file itself; forms are
///   answered with 415. Where tus is spoken too, such a request is taken for one of tus.
/// * Of `Content-Disposition` the file name is taken, without folders; where there is none, or what there is cannot be a name,
///   [`file_name`](Self::file_name) is. `Content-Type` becomes the metadata `filetype`. Bodies are stored as they are sent,
///   whatever `Content-Encoding` says: it is kept with the upload.
/// * `Content-Digest` is verified before anything of a request counts, `Repr-Digest` of the creating request before
///   the file is published, and `Want-Repr-Digest` (md5, sha, sha-256, sha-512) is answered when it is (RFC 9530).
/// * An upload that tus or the chunk API created can be asked for and given up here too; one of tus can be gone on with.
///
/// 104 (Upload Resumption Supported) is sent where the server can: see [`InterimSender`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Resumable {
    max_append_size: Option<u64>,
    min_append_size: Option<u64>,
    file_name: Option<FileName>,
}

impl Resumable {
    /// As the newest text says, and all older drafts that clients speak; no limit to what one request may carry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The most bytes of one request, announced as `max-append-size`: what a proxy in front lets through, say. What is larger is
    /// answered with 413.
    #[must_use]
    pub const fn max_append_size(mut self, bytes: u64) -> Self {
        self.max_append_size = Some(bytes);
        self
    }

    /// The fewest bytes of a request that is not the last of its upload, announced as `min-append-size`. What is smaller is
    /// answered with 400.
    #[must_use]
    pub const fn min_append_size(mut self, bytes: u64) -> Self {
        self.min_append_size = Some(bytes);
        self
    }

    /// What a file is named whose client does not say: `upload` by default.
    #[must_use]
    pub fn file_name(mut self, name: FileName) -> Self {
        self.file_name = Some(name);
        self
    }
}

const PARTIAL_UPLOAD: &str = "application/partial-upload";
const OFFSET: &str = "upload-offset";
const LENGTH: &str = "upload-length";

/// Whether a request says that it speaks this protocol.
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    let fields = [version::FIELD, "upload-complete", "upload-incomplete"];
    fields.iter().any(|field| headers.contains_key(*field)) || media_type(headers).as_deref() == Some(PARTIAL_UPLOAD)
}

/// The media type without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}

/// What OPTIONS tells whoever `asks`.
pub(super) fn advertise(resumable: &Resumable, uploads: &Uploads, asks: &HeaderMap, headers: &mut HeaderMap) {
    let rules = Rules::of(asks);
    if let Some(limits) = limits::general(resumable, uploads, rules) {
        headers.insert("upload-limit", limits);
    }
    headers.insert("accept-patch", HeaderValue::from_static(PARTIAL_UPLOAD));
    echo(rules, headers);
}

/// Every answer says which draft it speaks, if the request did.
fn echo(rules: &Rules, headers: &mut HeaderMap) {
    if let Some(version) = rules.interop {
        headers.insert(version::FIELD, HeaderValue::from(version));
    }
}

pub(super) async fn answer(exchange: Exchange, place: Place) -> Response<UploadBody> {
    let Exchange {
        uploads,
        settings,
        caller,
        parts,
        body,
        ..
    } = exchange;
    let talk = Talk {
        rules: Rules::of(&parts.headers),
        resumable: settings.resumable.clone().unwrap_or_default(),
        uploads,
        settings,
        caller,
        parts,
    };
    let mut response = match talk.dispatch(place, body).await {
        Ok(reply) => reply.into_response(talk.rules),
        Err(fault) => talk.complement(fault, place).await.into_response(talk.rules),
    };
    echo(talk.rules, response.headers_mut());
    response
}

/// A request, its body aside.
struct Talk {
    rules: &'static Rules,
    resumable: Resumable,
    uploads: Uploads,
    settings: Arc<Settings>,
    caller: Caller,
    parts: Parts,
}

type Answer = Result<Reply, Fault>;

impl Talk {
    async fn dispatch(&self, place: Place, body: RequestBody) -> Answer {
        refuse_cross_site(&self.settings, &self.parts)?;
        let method = &self.parts.method;
        match place {
            Place::Nothing => Err(Error::new(ErrorKind::NotFound, "There is nothing at this path").into()),
            Place::Collection => match *method {
                Method::POST | Method::PUT | Method::PATCH => self.create(body).await,
                _ => Err(Fault::method("OPTIONS, POST, PUT, PATCH")),
            },
            Place::Upload(id) => {
                // Before anything else is looked at: who may not see it learns nothing.
                let mut upload = self.uploads.glance(&self.caller, id, Action::Inspect).await?;
                if upload.plan().layout == Layout::Indexed {
                    // Its offset is that of its parts.
                    upload = self.uploads.status(&self.caller, id).await?;
                }
                match *method {
                    Method::HEAD => self.offset(&upload).await,
                    Method::GET if self.rules.has_get => self.offset(&upload).await,
                    Method::PATCH => self.append(upload, body).await,
                    Method::DELETE => self.cancel(&upload).await,
                    _ if self.rules.has_get => Err(Fault::method("OPTIONS, HEAD, GET, PATCH, DELETE")),
                    _ => Err(Fault::method("OPTIONS, HEAD, PATCH, DELETE")),
                }
            }
        }
    }

    /// Offset retrieval. Whoever still sends is stopped first, so that the offset stays true.
    async fn offset(&self, upload: &Upload) -> Answer {
        self.refuse_fields(&[OFFSET, LENGTH, "upload-complete", "upload-incomplete"])?;
        alive(upload)?;
        let upload = self.uploads.take_over(&self.caller, upload.id()).await?;
        alive(&upload)?;
        let fields = Fields {
            offset: Some(offset(&upload)),
            complete: Some(upload.state() == State::Assembled),
            length: upload.size(),
            limits: self.limits(&upload),
            ..Fields::default()
        };
        Ok(Reply::new(StatusCode::NO_CONTENT, fields))
    }

    async fn cancel(&self, upload: &Upload) -> Answer {
        self.refuse_fields(&[OFFSET, "upload-complete", "upload-incomplete"])?;
        alive(upload)?;
        self.uploads.delete(&self.caller, upload.id()).await?;
        Ok(Reply::new(StatusCode::NO_CONTENT, Fields::default()))
    }

    /// The final answer of an upload that is sealed.
    async fn conclude(&self, id: UploadId) -> Answer {
        match self.uploads.assemble(&self.caller, id, None).await {
            Ok(upload) if upload.state() == State::Assembled => Ok(Reply::finished(&upload)),
            Ok(_) => Err(Error::unavailable("The file is still being put together; ask again").into()),
            Err(error) if error.kind() == ErrorKind::Failed => Err(Fault::last(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the request says that its body is the end of the file. What cannot be read is refused: taken for nothing said, as
    /// fields of other meaning are, a part of a file might be published as the whole.
    fn complete(&self) -> Result<Option<bool>, Fault> {
        let name = self.rules.complete_field();
        if !self.parts.headers.contains_key(name) {
            let other = self.rules.other_complete_field();
            if self.parts.headers.contains_key(other) {
                let message = format!("{other} is not of the draft that this request speaks, where it is {name}");
                return Err(Error::invalid(other, message).into());
            }
            return Ok(None);
        }
        match field_boolean(&self.parts.headers, name) {
            Some(value) => Ok(Some(value != self.rules.is_inverted)),
            None => Err(Error::invalid(name, format!("{name} is ?1 or ?0, and given once")).into()),
        }
    }

    fn refuse_fields(&self, fields: &[&'static str]) -> Result<(), Fault> {
        let found = fields.iter().find(|field| self.parts.headers.contains_key(**field));
        found.map_or(Ok(()), |field| {
            Err(Error::invalid(*field, format!("{field} says nothing in this request; leave it out")).into())
        })
    }

    /// Refuses a body that is larger than one request may carry, or smaller.
    fn refuse_size(&self, announced: Option<u64>, complete: bool) -> Result<(), Fault> {
        let Some(len) = announced else { return Ok(()) };
        match (self.resumable.max_append_size, self.resumable.min_append_size) {
            (Some(max), _) if len > max => {
                let message = format!("A request may have {max} bytes at most; send the rest in others");
                Err(Error::too_large(message, max).into())
            }
            (_, Some(min)) if !complete && len < min => {
                let message = format!("A request that is not the last must have {min} bytes at least");
                let mut fault = Fault::from(Error::invalid("body", message));
                fault.fields.limits = limits::general(&self.resumable, &self.uploads, self.rules);
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    fn limits(&self, upload: &Upload) -> Option<HeaderValue> {
        limits::of(&self.resumable, &self.uploads, self.rules, upload)
    }

    /// Adds what an answer of its status must tell: a 409 where the upload continues, a 413 the limits.
    async fn complement(&self, mut fault: Fault, place: Place) -> Fault {
        if fault.error.kind() == ErrorKind::NotFound
            && let Err(denied) = refuse_nobody(&self.uploads, &self.caller).await
        {
            // Whether an upload exists is not for somebody to learn who did not even sign in.
            fault = denied.into();
        }
        if fault.status() == StatusCode::PAYLOAD_TOO_LARGE && fault.fields.limits.is_none() {
            fault.fields.limits = limits::general(&self.resumable, &self.uploads, self.rules);
        }
        if let Place::Upload(id) = place
            && self.parts.method == Method::PATCH
            && matches!(fault.status(), StatusCode::CONFLICT | StatusCode::PAYLOAD_TOO_LARGE)
            && fault.fields.offset.is_none()
            && let Ok(upload) = self.uploads.status(&self.caller, id).await
        {
            fault.fields.offset = Some(offset(&upload));
        }
        fault
    }
}

/// Where an upload continues.
fn offset(upload: &Upload) -> u64 {
    match upload.state() {
        State::Open => upload.offset(),
        _ => upload.size().unwrap_or_else(|| upload.offset()),
    }
}

/// Refuses what has ended without a file: as unknown, or with the reason if it was refused at its end.
fn alive(upload: &Upload) -> Result<(), Fault> {
    match upload.state() {
        // Deleted while its file is being made.
        State::Assembling if upload.record().intent.is_some() => Err(Error::gone(State::Deleted).into()),
        State::Open | State::Assembling | State::Assembled => Ok(()),
        State::Failed => {
            let reason = upload.failure().unwrap_or("it could not be put together");
            let message = format!("The upload failed: {reason}. Begin a new one");
            Err(Fault::last(Error::new(ErrorKind::Failed, message)))
        }
        state => Err(Error::gone(state).into()),
    }
}

/// 409, with the offset at which the upload continues.
fn mismatch(expected: u64, provided: u64) -> Fault {
    let mut fault = Fault::from(Error::offset_mismatch(expected));
    fault.kind = Some(Type::MismatchingOffset);
    fault.provided = Some(provided);
    fault.fields.offset = Some(expected);
    fault
}

fn inconsistent(message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    let mut fault = Fault::from(Error::invalid(LENGTH, message));
    fault.kind = Some(Type::InconsistentLength);
    fault
}
