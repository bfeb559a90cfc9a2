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

use http::{HeaderMap, HeaderValue, Method, Request, Response, header, request::Parts, uri::Authority};
use http_body::Body;
use tower_service::Service;

use super::{
    body::{MinimumRate, RequestBody, UploadBody},
    dialect::{Dialect, Exchange},
};
use crate::{access::Caller, engine::Uploads};

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

/// What the host said about how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    mount: String,
    public_url: Option<String>,
    trust_forwarded: bool,
    minimum_rate: MinimumRate,
}

impl<W> UploadService<W> {
    pub(super) fn new(uploads: Uploads, who: W) -> Self {
        let settings = Settings {
            mount: String::new(),
            public_url: None,
            trust_forwarded: false,
            minimum_rate: MinimumRate::DEFAULT,
        };
        Self {
            uploads,
            settings: Arc::new(settings),
            who,
        }
    }

    /// Where the service is reached, as in `/api/streaming`: what the URLs in its answers begin with. The
    /// root by default.
    pub fn mount(self, path: &str) -> Self {
        let path = path.trim_matches('/');
        let mount = if path.is_empty() {
            String::new()
        } else {
            format!("/{path}")
        };
        self.set(|settings| settings.mount = mount)
    }

    /// What goes before the mount in URLs, as in `https://media.example.com`. Without it, URLs are absolute paths.
    pub fn public_url(self, url: &str) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        self.set(|settings| settings.public_url = Some(url))
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
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let exchange = Exchange {
            uploads: self.uploads.clone(),
            settings: self.settings.clone(),
            caller: (self.who)(&parts).unwrap_or_else(Caller::anonymous),
            body: RequestBody::new(body, &parts.headers, self.settings.minimum_rate),
            path,
            parts,
        };
        UploadFuture(Box::pin(async move {
            let response = Dialect::of(&exchange).answer(exchange).await;
            if is_head { without_body(response) } else { response }
        }))
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

/// The answer to HEAD: that to GET, with its length but not its body.
fn without_body(response: Response<UploadBody>) -> Response<UploadBody> {
    let (mut parts, body) = response.into_parts();
    if let Some(len) = body
        .size_hint()
        .exact()
        .filter(|_| parts.status != http::StatusCode::NO_CONTENT)
    {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    Response::from_parts(parts, UploadBody::empty())
}

impl Settings {
    /// The URL of `path` (below the mount, with a leading slash), as absolute as the settings allow.
    pub(super) fn url(&self, parts: &Parts, path: &str) -> String {
        let origin = match &self.public_url {
            Some(url) => Some(url.clone()),
            None if self.trust_forwarded => forwarded_origin(parts),
            None => None,
        };
        format!("{}{}{path}", origin.unwrap_or_default(), self.mount)
    }
}

/// Scheme and host as a proxy or the client names them; `None` if what they say is no host.
fn forwarded_origin(parts: &Parts) -> Option<String> {
    let headers = &parts.headers;
    let uri = &parts.uri;
    let host = forwarded(headers, "host")
        .or_else(|| first(headers, "x-forwarded-host"))
        .or_else(|| Some(uri.authority()?.as_str().to_owned()))
        .or_else(|| first(headers, "host"))?;
    let scheme = forwarded(headers, "proto")
        .or_else(|| first(headers, "x-forwarded-proto"))
        .or_else(|| uri.scheme_str().map(str::to_owned))
        .unwrap_or_else(|| "http".to_owned())
        .to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let is_host = host.len() <= 255 && host.bytes().all(plain) && host.parse::<Authority>().is_ok();
    (is_host && matches!(scheme.as_str(), "http" | "https")).then(|| format!("{scheme}://{host}"))
}

/// The first value of a list header.
fn first(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    let value = value.split(',').next()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// A parameter of the first element of `Forwarded` (RFC 7239).
fn forwarded(headers: &HeaderMap, parameter: &str) -> Option<String> {
    let element = first(headers, "forwarded")?;
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case(parameter).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn url(settings: &Settings, headers: &[(&'static str, &'static str)]) -> String {
        let mut request = Request::builder().uri("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        settings.url(&request.body(()).unwrap().into_parts().0, "/uploads/")
    }

    #[test]
    fn urls_are_as_absolute_as_the_host_allows() {
        let mut settings = Settings {
            mount: "/api".to_owned(),
            public_url: None,
            trust_forwarded: false,
            minimum_rate: MinimumRate::DEFAULT,
        };
        let evil = [
            ("host", "evil.example"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(url(&settings, &evil), "/api/uploads/");

        settings.trust_forwarded = true;
        for (headers, expected) in [
            (&[][..], "/api/uploads/"),
            (&[("host", "a.example:8080")], "http://a.example:8080/api/uploads/"),
            (
                &[
                    ("host", "in"),
                    ("x-forwarded-host", "a.example, b"),
                    ("x-forwarded-proto", "https,http"),
                ],
                "https://a.example/api/uploads/",
            ),
            (
                &[("forwarded", "for=1.2.3.4;proto=HTTPS;host=\"a.example\", for=5")],
                "https://a.example/api/uploads/",
            ),
            (&[("host", "[::1]:80")], "http://[::1]:80/api/uploads/"),
            (&[("host", "a/../b")], "/api/uploads/"),
            (&[("host", "user@a")], "/api/uploads/"),
            (&[("host", "a:b:c")], "/api/uploads/"),
            (&[("host", "[::1")], "/api/uploads/"),
            (&[("host", "")], "/api/uploads/"),
            (&[("host", "a"), ("x-forwarded-proto", "javascript")], "/api/uploads/"),
        ] {
            assert_eq!(url(&settings, headers), expected, "{headers:?}");
        }

        settings.public_url = Some("https://media.example".to_owned());
        assert_eq!(url(&settings, &evil), "https://media.example/api/uploads/");
    }
}
