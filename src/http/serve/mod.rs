//! The service of files: finished uploads, read by those who may, from whatever store they lie in.

mod fault;
mod policy;
mod route;
mod signer;

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use tower_service::Service;
use tracing::Instrument as _;

use self::{
    fault::Fault,
    route::{Route, What},
    signer::{Scope, Signed},
};
pub use self::{
    policy::{CachePolicy, Caching, Embedding},
    signer::UrlSigner,
};
use super::{
    body::UploadBody,
    cors::{Cors, Origin},
    door::refuse_nobody,
    download::{Content, disposition, may_change, media_type_by_name, safe_media_type},
    service::{UploadFuture, without_body},
};
use crate::{
    access::{Action, Caller},
    engine::Uploads,
    error::{Error, ErrorKind},
    observe,
};

/// Sends finished files: made by [`Uploads::files`].
///
/// It takes paths below where it is nested, never fails, and is cheap to clone.
#[derive(Clone)]
#[must_use = "services do nothing unless they are served"]
pub struct FileService<W> {
    uploads: Uploads,
    settings: Arc<Settings>,
    who: W,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    signer: Option<UrlSigner>,
    caching: CachePolicy,
    inline: bool,
    embedding: Embedding,
    cors: Option<Cors>,
}

impl<W> FileService<W> {
    pub(super) fn new(uploads: Uploads, who: W) -> Self {
        Self {
            uploads,
            settings: Arc::default(),
            who,
        }
    }

    /// Also serves addresses that were [signed](UrlSigner) by this signer, or another with its key.
    pub fn signed(self, signer: UrlSigner) -> Self {
        self.set(|settings| settings.signer = Some(signer))
    }

    /// How long answers may be used again.
    pub fn caching(self, policy: CachePolicy) -> Self {
        self.set(|settings| settings.caching = policy)
    }

    /// Whether browsers shall show finished files in their own window, if they are sound, film or pictures of pixels. Off by
    /// default: what strangers uploaded is an attachment, whatever it is. Elements of a page (`<video src>`) play it either way.
    pub fn inline(self, inline: bool) -> Self {
        self.set(|settings| settings.inline = inline)
    }

    /// Which pages may embed files; those of the same origin if not said.
    pub fn embedding(self, embedding: Embedding) -> Self {
        self.set(|settings| settings.embedding = embedding)
    }

    /// Lets scripts of other origins read files. Without it no CORS header is ever sent.
    pub fn cors(self, cors: Cors) -> Self {
        self.set(|settings| settings.cors = Some(cors))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<W> fmt::Debug for FileService<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileService")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<W, B> Service<Request<B>> for FileService<W>
where
    W: Fn(&Parts) -> Option<Caller> + Clone + Send + Sync + 'static,
{
    type Response = Response<UploadBody>;
    type Error = Infallible;
    type Future = UploadFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// The body is dropped: nothing here needs one.
    fn call(&mut self, request: Request<B>) -> UploadFuture {
        let (parts, _) = request.into_parts();
        let caller = (self.who)(&parts).unwrap_or_else(Caller::anonymous);
        let (uploads, settings) = (self.uploads.clone(), Arc::clone(&self.settings));
        let span = observe::Request::span(&parts.method, caller.owner());
        let answer = async move {
            let mut request = observe::Request::new();
            let origin = Origin::of(&parts);
            let preflight = settings.cors.as_ref().and_then(|cors| cors.preflight(&parts));
            let is_head = parts.method == Method::HEAD;
            let mut response = match preflight {
                Some(response) => response,
                None => {
                    request.speaks("files");
                    answer(&uploads, &settings, caller, &parts).await
                }
            };
            let headers = response.headers_mut();
            if let Some(cors) = &settings.cors {
                cors.allow(&origin, headers);
            }
            let policy = HeaderName::from_static("cross-origin-resource-policy");
            headers.insert(policy, settings.embedding.header());
            request.answered(response.status().as_u16());
            if is_head {
                without_body(response, true)
            } else {
                response
            }
        };
        UploadFuture::new(answer.instrument(span))
    }
}

const METHODS: &str = "GET, HEAD, OPTIONS";

async fn answer(uploads: &Uploads, settings: &Settings, caller: Caller, parts: &Parts) -> Response<UploadBody> {
    let Some(route) = Route::parse(parts.uri.path()) else {
        return Fault::from(Error::new(ErrorKind::NotFound, "There is no such file")).into_response();
    };
    if parts.method == Method::OPTIONS {
        let mut response = Response::new(UploadBody::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(METHODS));
        return response;
    }
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Fault::method(METHODS).into_response();
    }
    let mut answer = send(uploads, settings, &caller, parts, &route).await;
    if let Err(error) = &answer
        && error.kind() == ErrorKind::NotFound
        && route.token.is_none()
        && let Err(denied) = refuse_nobody(uploads, &caller).await
    {
        // Whether a file exists is not for somebody to learn who did not even sign in.
        answer = Err(denied);
    }
    answer.unwrap_or_else(|error| Fault::from(error).into_response())
}

async fn send(
    uploads: &Uploads,
    settings: &Settings,
    caller: &Caller,
    parts: &Parts,
    route: &Route,
) -> Result<Response<UploadBody>, Error> {
    let signed = signed(settings, route)?;
    let caller = signed.as_ref().map_or(caller, |signed| &signed.caller);
    let left = signed.as_ref().map(|signed| signed.left);
    match &route.what {
        What::File => {
            let upload = uploads.glance(caller, route.id, Action::Read).await?;
            let mut content = Content::of(uploads, caller, &upload)?;
            let file_name = upload.file_name().as_str();
            if content.media_type == OCTETS
                && let Some(media_type) = media_type_by_name(file_name).and_then(safe_media_type)
            {
                content.media_type = media_type;
            }
            if settings.inline && content.media_type != OCTETS {
                content.disposition = disposition("inline", file_name);
            }
            content.cache_control = settings.caching.of_file(left);
            content.answer(parts).await
        }
        What::Hls(name) => {
            let mut content = Content::derived(uploads, caller, route.id, name).await?;
            content.cache_control = settings.caching.of_derived(name.as_str(), left);
            content.answer(parts).await
        }
    }
}

/// What the signature says, if the address has one.
fn signed(settings: &Settings, route: &Route) -> Result<Option<Signed>, Error> {
    match (&route.token, &settings.signer) {
        (None, _) => Ok(None),
        (Some(_), None) => Err(Error::not_found()),
        (Some(token), Some(signer)) => {
            let scope = match route.what {
                What::File => Scope::File,
                What::Hls(_) => Scope::Hls,
            };
            signer.verify(token, scope, route.id).map(Some)
        }
    }
}

const OCTETS: &str = "application/octet-stream";

impl CachePolicy {
    /// Of part of an HLS stream, in the same way.
    fn of_derived(&self, name: &str, left: Option<Duration>) -> HeaderValue {
        if may_change(name) {
            Caching::Revalidated.header(None)
        } else if left.is_some() {
            self.signed.header(left)
        } else {
            self.segments.header(left)
        }
    }

    /// Of a file that can be read for `left` yet, if the address says so.
    fn of_file(&self, left: Option<Duration>) -> HeaderValue {
        let caching = if left.is_some() { self.signed } else { self.files };
        caching.header(left)
    }
}
