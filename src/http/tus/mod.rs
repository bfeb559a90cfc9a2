//! tus 1.0.0 with all its extensions: parse, call the engine, render.

mod append;
mod concat;
mod create;
#[cfg(any(test, feature = "conformance"))]
pub(super) mod fuzzing;
mod headers;
#[cfg(feature = "benchmark")]
pub(super) mod micro;
mod render;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, request::Parts};

use self::render::Fault;
use super::{
    body::UploadBody,
    cross_site::refuse_cross_site,
    dialect::Exchange,
    door::{refuse_coding, refuse_length, refuse_nobody},
    download,
    files::Place,
};
use crate::{
    access::{Action, Caller},
    engine::{Upload, Uploads},
    error::{Error, ErrorKind, Result},
    upload::{Algorithm, Layout, State, UploadId},
};

/// The version that is spoken.
const VERSION: &str = "1.0.0";
const METHOD_OVERRIDE: &str = "x-http-method-override";
/// How long a HEAD waits for a file that is being put together.
const PATIENCE: Duration = Duration::from_secs(1);

type Answer = Result<Response<UploadBody>, Fault>;

/// How tus is spoken: for [`UploadService::tus`](super::UploadService::tus).
///
/// All extensions are there: creation (with upload, with deferred length), expiration (unless uploads
/// [never expire](crate::engine::Builder::never_expire)), checksum (also as a trailer), termination and concatenation. Whether a caller may
/// delete a finished upload is for the [`Authorizer`](crate::Authorizer) to say.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tus {
    method_override: bool,
    unfinished_concatenation: bool,
    target: Option<String>,
}

impl Tus {
    /// All extensions but `concatenation-unfinished`, no method override.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the method of a POST from `X-HTTP-Method-Override`: PATCH, DELETE or HEAD, for clients whose surroundings let
    /// only GET and POST through. Middleware of the host that looks at methods sees the POST.
    #[must_use]
    pub const fn method_override(mut self) -> Self {
        self.method_override = true;
        self
    }

    /// Lets an upload be made of partial ones that are not finished yet: the extension `concatenation-unfinished`.
    #[must_use]
    pub const fn unfinished_concatenation(mut self) -> Self {
        self.unfinished_concatenation = true;
        self
    }

    /// The key of `Upload-Metadata` that says what an upload is for in the host's world, as in `videoId`: its
    /// [target](crate::NewUpload::target), which the [`Authorizer`](crate::Authorizer) and hooks are told. Its value is still metadata too.
    #[must_use]
    pub fn target(mut self, key: impl Into<String>) -> Self {
        self.target = Some(key.into());
        self
    }

    /// Takes the method from `X-HTTP-Method-Override`, before anybody is asked whether it is allowed. The header stays where it
    /// asks for what cannot be; [`answer`] refuses that.
    pub(super) fn override_method(&self, parts: &mut Parts) {
        if !self.method_override || parts.method != Method::POST {
            return;
        }
        let mut wanted = parts.headers.get_all(METHOD_OVERRIDE).iter();
        let method = match (wanted.next().map(HeaderValue::as_bytes), wanted.next()) {
            (Some(b"PATCH"), None) => Method::PATCH,
            (Some(b"DELETE"), None) => Method::DELETE,
            (Some(b"HEAD"), None) => Method::HEAD,
            _ => return,
        };
        parts.method = method;
        parts.headers.remove(METHOD_OVERRIDE);
    }
}

/// Whether a request says that it speaks tus.
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    headers.contains_key("tus-resumable")
}

/// What OPTIONS tells.
pub(super) fn advertise(tus: &Tus, uploads: &Uploads, headers: &mut HeaderMap) {
    let mut extensions = vec!["creation", "creation-with-upload", "creation-defer-length"];
    if uploads.expire_after().is_some() {
        extensions.push("expiration");
    }
    extensions.extend(["checksum", "checksum-trailer", "termination", "concatenation"]);
    if tus.unfinished_concatenation {
        extensions.push("concatenation-unfinished");
    }
    render::versions(headers);
    render::set(headers, "tus-extension", &extensions.join(","));
    render::set(
        headers,
        "tus-checksum-algorithm",
        &headers::ALGORITHMS.map(Algorithm::name).join(","),
    );
    headers.insert("tus-max-size", HeaderValue::from(uploads.max_size()));
}

pub(super) async fn answer(exchange: Exchange, place: Place) -> Response<UploadBody> {
    let (uploads, caller, version) = (
        exchange.uploads.clone(),
        exchange.caller.clone(),
        exchange.parts.version,
    );
    let mut answer = dispatch(exchange, place).await;
    if let Err(Fault::Error(error)) = &answer
        && error.kind() == ErrorKind::NotFound
        && let Err(denied) = refuse_nobody(&uploads, &caller).await
    {
        // Whether an upload exists is not for somebody to learn who did not even sign in.
        answer = Err(denied.into());
    }
    let mut response = answer.unwrap_or_else(|fault| render::fault(&fault, version));
    render::set(response.headers_mut(), "tus-resumable", VERSION);
    response
}

async fn dispatch(exchange: Exchange, place: Place) -> Answer {
    let parts = &exchange.parts;
    let method = parts.method.clone();
    refuse_cross_site(&exchange.settings, parts)?;
    let tus = exchange.settings.tus.as_ref();
    if tus.is_some_and(|tus| tus.method_override) && parts.headers.contains_key(METHOD_OVERRIDE) {
        let message = "X-HTTP-Method-Override makes PATCH, DELETE or HEAD of a POST, and nothing else";
        return Err(Error::invalid("X-HTTP-Method-Override", message).into());
    }
    if [Method::POST, Method::HEAD, Method::PATCH, Method::DELETE].contains(&method) {
        let mut versions = parts.headers.get_all("tus-resumable").iter();
        if (versions.next().map(HeaderValue::as_bytes), versions.next()) != (Some(VERSION.as_bytes()), None) {
            return Err(Fault::Version);
        }
    }
    if method == Method::POST || method == Method::PATCH {
        refuse_coding(parts)?;
        refuse_length(parts)?;
    }
    match (place, method) {
        (Place::Nothing, _) => Err(Error::not_found().into()),
        (Place::Collection, Method::POST) => create::answer(exchange).await,
        (Place::Collection, _) => Err(Fault::Method("POST, OPTIONS")),
        (Place::Upload(id), Method::PATCH) => append::answer(exchange, id).await,
        (Place::Upload(id), method) => on_upload(method, exchange, id).await,
    }
}

async fn on_upload(method: Method, exchange: Exchange, id: UploadId) -> Answer {
    let Exchange {
        uploads, caller, parts, ..
    } = exchange;
    match method {
        Method::HEAD => head(&uploads, &caller, id).await,
        Method::DELETE => delete(&uploads, &caller, id).await,
        Method::GET => Ok(download::answer(&uploads, &caller, &parts, id).await?),
        _ => Err(Fault::Method("GET, HEAD, PATCH, DELETE, OPTIONS")),
    }
}

/// A client asks before it resumes, and so stops the request of its own that it lost. Who may only look stops nobody.
async fn head(uploads: &Uploads, caller: &Caller, id: UploadId) -> Answer {
    let mut upload = match uploads.take_over(caller, id).await {
        Err(error) if error.kind() == ErrorKind::Forbidden => {
            let upload = uploads.status(caller, id).await?;
            refuse_ended(&upload)?;
            return Ok(render::head(&upload));
        }
        upload => upload?,
    };
    refuse_ended(&upload)?;
    // Bytes of another protocol, which says itself when it is done: here whoever has sent them all has.
    let is_whole = upload.state() == State::Open
        && upload.plan().layout == Layout::Sequential
        && upload.concat().is_none()
        && upload.size() == Some(upload.offset());
    if is_whole || upload.state() == State::Assembling && upload.record().attempts == 0 {
        // Whoever brought the last byte may have been cut off before the file was put together. It goes on when this
        // has waited long enough; where it failed before, the driver says when it is tried again.
        if let Ok(finished) = tokio::time::timeout(PATIENCE, finish(uploads, caller, id)).await {
            finished?;
        }
        upload = uploads.glance(caller, id, Action::Write).await?;
        refuse_ended(&upload)?;
    }
    Ok(render::head(&upload))
}

async fn delete(uploads: &Uploads, caller: &Caller, id: UploadId) -> Answer {
    if let Ok(upload) = uploads.glance(caller, id, Action::Inspect).await {
        refuse_ended(&upload)?;
    }
    uploads.delete(caller, id).await?;
    Ok(render::no_content())
}

/// What has ended without a blob is gone, for whatever reason; so is what was deleted while its blob is being made.
fn refuse_ended(upload: &Upload) -> Result<()> {
    match upload.state() {
        State::Assembling if upload.record().intent.is_some() => Err(Error::gone(State::Deleted)),
        State::Open | State::Assembling | State::Assembled => Ok(()),
        State::Failed => {
            let reason = upload.failure().unwrap_or("it could not be put together");
            Err(Error::new(
                ErrorKind::Failed,
                format!("The upload failed: {reason}. Begin a new one"),
            ))
        }
        state => Err(Error::gone(state)),
    }
}

/// Makes the blob of an upload that has all its bytes. They are acknowledged and sealed: if that fails for now, or is not
/// for this caller to do, the driver does it, and only what is definite is an error.
async fn finish(uploads: &Uploads, caller: &Caller, id: UploadId) -> Result<()> {
    match uploads.assemble(caller, id, None).await {
        Err(error) if matches!(error.kind(), ErrorKind::Failed | ErrorKind::Gone | ErrorKind::NotFound) => Err(error),
        Err(error) => {
            tracing::debug!(%id, %error, "an upload that has all its bytes is assembled later");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}
