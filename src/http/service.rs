use std::{
    convert::Infallible,
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use tower_service::Service;
use tracing::Instrument as _;

use super::{
    body::{RequestBody, UploadBody},
    cors::{Cors, Origin},
    dialect::{Dialect, Exchange},
    files::Place,
    pace::MinimumRate,
    resumable::Resumable,
    settings::{Settings, absolute},
    tus::Tus,
};
use crate::{access::Caller, engine::Uploads, observe};

/// Answers the upload protocols: made by [`Uploads::service`].
///
/// It takes paths below its [mount](Self::mount), never fails, and is cheap to clone.
#[derive(Clone)]
#[must_use = "services do nothing unless they are served"]
pub struct UploadService<W> {
    uploads: Uploads,
    settings: Arc<Settings>,
    who: W,
}

impl<W> UploadService<W> {
    pub(super) fn new(uploads: Uploads, who: W) -> Self {
        Self {
            uploads,
            settings: Arc::default(),
            who,
        }
    }

    /// Where the service is reached, as in `/api/streaming`: what the URLs in its answers begin with. The
    /// root by default.
    pub fn mount(self, path: &str) -> Self {
        let mount = absolute(path);
        self.set(|settings| settings.mount = mount)
    }

    /// Speaks tus too, at [`files`](Self::files).
    pub fn tus(self, tus: Tus) -> Self {
        self.set(|settings| settings.tus = Some(tus))
    }

    /// Speaks the IETF's Resumable Uploads for HTTP too, at [`files`](Self::files).
    pub fn resumable(self, resumable: Resumable) -> Self {
        self.set(|settings| settings.resumable = Some(resumable))
    }

    /// Where below the mount tus and the IETF's protocol create uploads, which then lie beneath it: `/files` by default.
    /// It may be the mount itself, `/`.
    pub fn files(self, path: &str) -> Self {
        let files = absolute(path);
        self.set(|settings| settings.files = files)
    }

    /// Lets pages of other origins upload from a browser. Without it no CORS header is ever sent, and what such pages have a browser
    /// send is [refused](Self::allow_cross_site).
    pub fn cors(self, cors: Cors) -> Self {
        self.set(|settings| settings.cors = Some(cors))
    }

    /// Whether pages of other sites may have a browser create, change and delete uploads. Off by default, since it sends its
    /// user's cookies with what a foreign form or script asks for: such requests are answered with 403, and change nothing. To have
    /// it on does no harm where callers are not known by cookies, HTTP authentication, certificates or addresses, all of which
    /// a browser shows by itself.
    ///
    /// A page is of another site if `Sec-Fetch-Site` says so (`cross-site`, and `same-site` for that of a sibling host), or
    /// where a browser does not send that (before 2023, or over plain HTTP) if `Origin` names another host than
    /// `Host`, [`public_url`](Self::public_url) and, where they are [believed](Self::trust_forwarded), `Forwarded` and
    /// `X-Forwarded-Host`: behind a proxy that sets another `Host` give one of the two. Origins that [`Cors`] names are allowed; if it allows every
    /// origin, requests without cookies are. Clients that are no browsers, and GET, HEAD and OPTIONS, are not concerned.
    pub fn allow_cross_site(self, allow: bool) -> Self {
        self.set(|settings| settings.cross_site.allow = allow)
    }

    /// Lets pages of `origin`, as in `https://app.example.com`, have a browser create, change and delete uploads, and sends no
    /// header of CORS: where middleware of the host does that. [`Cors`] allows the origins that it names anyway.
    pub fn trusted_origin(self, origin: &str) -> Self {
        self.set(|settings| settings.cross_site.trust(origin))
    }

    /// What goes before the mount in URLs, as in `https://media.example.com`. Without it, URLs are absolute paths, which
    /// browsers and most clients resolve; some clients of tus do not, and need this or
    /// [`trust_forwarded`](Self::trust_forwarded).
    pub fn public_url(self, url: &str) -> Self {
        let url = url.trim_end_matches('/');
        let url = (!url.is_empty()).then(|| url.to_owned());
        self.set(|settings| settings.public_url = url)
    }

    /// Whether `Forwarded`, `X-Forwarded-Proto`, `X-Forwarded-Host` and `Host` are believed, to make absolute URLs
    /// where no [`public_url`](Self::public_url) is set. Only for servers that clients cannot reach but through a proxy that sets them.
    /// Off by default.
    pub fn trust_forwarded(self, trust: bool) -> Self {
        self.set(|settings| settings.trust_forwarded = trust)
    }

    /// How fast a body must come at least, measured over windows of `grace` spent waiting for the
    /// client: 1 KiB a second over 30 seconds by default. 0 bytes switch it off.
    pub fn minimum_rate(self, bytes_per_second: u64, grace: Duration) -> Self {
        let rate = MinimumRate {
            bytes_per_second,
            window: grace,
        };
        self.set(|settings| settings.minimum_rate = rate)
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<W> UploadService<W>
where
    W: Fn(&Parts) -> Option<Caller>,
{
    /// Answers a request for `path`, which is that below the mount.
    pub(super) fn answer<B>(&self, request: Request<B>, path: String) -> UploadFuture
    where
        B: Body + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (mut parts, body) = request.into_parts();
        let sent_as_head = parts.method == Method::HEAD;
        if let Some(tus) = &self.settings.tus
            && Place::of(&self.settings, &path).is_some()
        {
            tus.override_method(&mut parts);
        }
        let is_head = parts.method == Method::HEAD;
        let exchange = Exchange {
            uploads: self.uploads.clone(),
            settings: self.settings.clone(),
            caller: (self.who)(&parts).unwrap_or_else(Caller::anonymous),
            body: RequestBody::new(body, &parts.headers, self.settings.minimum_rate),
            path,
            parts,
        };
        let span = observe::Request::span(&exchange.parts.method, exchange.caller.owner());
        let answer = async move {
            let mut request = observe::Request::new();
            let (settings, origin) = (exchange.settings.clone(), Origin::of(&exchange.parts));
            let preflight = settings.cors.as_ref().and_then(|cors| cors.preflight(&exchange.parts));
            let mut response = match preflight {
                Some(response) => response,
                None => {
                    let Exchange {
                        uploads,
                        caller,
                        parts,
                        path,
                        ..
                    } = &exchange;
                    let dialect = Dialect::of(uploads, caller, &settings, parts, path).await;
                    request.speaks(dialect.name());
                    dialect.answer(exchange).await
                }
            };
            if let Some(cors) = &settings.cors {
                cors.allow(&origin, response.headers_mut());
            }
            request.answered(response.status().as_u16());
            if is_head {
                without_body(response, sent_as_head)
            } else {
                response
            }
        };
        UploadFuture::new(answer.instrument(span))
    }
}

impl<W> fmt::Debug for UploadService<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadService")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<W, B> Service<Request<B>> for UploadService<W>
where
    W: Fn(&Parts) -> Option<Caller> + Clone + Send + Sync + 'static,
    B: Body + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<UploadBody>;
    type Error = Infallible;
    type Future = UploadFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> UploadFuture {
        let path = request.uri().path().to_owned();
        self.answer(request, path)
    }
}

/// The answer to a request, in the making. Dropping it gives up the request; what is durable stays.
#[must_use = "futures do nothing unless polled"]
pub struct UploadFuture(Pin<Box<dyn Future<Output = Response<UploadBody>> + Send>>);

impl UploadFuture {
    pub(super) fn new(answer: impl Future<Output = Response<UploadBody>> + Send + 'static) -> Self {
        Self(Box::pin(answer))
    }
}

impl Future for UploadFuture {
    type Output = Result<Response<UploadBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for UploadFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadFuture").finish_non_exhaustive()
    }
}

/// The answer to HEAD: that to GET, with its length but not its body. Whoever sent another method waits for as many bytes as the
/// length says, which are none.
pub(super) fn without_body(response: Response<UploadBody>, sent_as_head: bool) -> Response<UploadBody> {
    let (mut parts, body) = response.into_parts();
    let len = if sent_as_head {
        body.size_hint().exact()
    } else {
        Some(0)
    };
    let has_length = ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&parts.status);
    if let Some(len) = len.filter(|_| has_length) {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    Response::from_parts(parts, UploadBody::empty())
}
