use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::LayerBody,
    cors::Cors,
    resumable::Resumable,
    service::{UploadFuture, UploadService},
    settings::absolute,
    tus::Tus,
};
use crate::access::Caller;

/// Puts the upload protocols in front of an application: made by [`Uploads::layer`](crate::Uploads::layer).
#[derive(Clone)]
pub struct UploadLayer<W> {
    service: UploadService<W>,
    prefix: Arc<str>,
}

impl<W> UploadLayer<W> {
    pub(super) fn new(service: UploadService<W>, prefix: &str) -> Self {
        let prefix = absolute(prefix);
        Self {
            service: service.mount(&prefix),
            prefix: prefix.into(),
        }
    }

    /// See [`UploadService::public_url`].
    #[must_use]
    pub fn public_url(self, url: &str) -> Self {
        self.with(|service| service.public_url(url))
    }

    /// See [`UploadService::trust_forwarded`].
    #[must_use]
    pub fn trust_forwarded(self, trust: bool) -> Self {
        self.with(|service| service.trust_forwarded(trust))
    }

    /// See [`UploadService::minimum_rate`].
    #[must_use]
    pub fn minimum_rate(self, bytes_per_second: u64, grace: Duration) -> Self {
        self.with(|service| service.minimum_rate(bytes_per_second, grace))
    }

    /// See [`UploadService::tus`].
    #[must_use]
    pub fn tus(self, tus: Tus) -> Self {
        self.with(|service| service.tus(tus))
    }

    /// See [`UploadService::resumable`].
    #[must_use]
    pub fn resumable(self, resumable: Resumable) -> Self {
        self.with(|service| service.resumable(resumable))
    }

    /// See [`UploadService::files`].
    #[must_use]
    pub fn files(self, path: &str) -> Self {
        self.with(|service| service.files(path))
    }

    /// See [`UploadService::cors`].
    #[must_use]
    pub fn cors(self, cors: Cors) -> Self {
        self.with(|service| service.cors(cors))
    }

    /// See [`UploadService::allow_cross_site`].
    #[must_use]
    pub fn allow_cross_site(self, allow: bool) -> Self {
        self.with(|service| service.allow_cross_site(allow))
    }

    /// See [`UploadService::trusted_origin`].
    #[must_use]
    pub fn trusted_origin(self, origin: &str) -> Self {
        self.with(|service| service.trusted_origin(origin))
    }

    fn with(self, change: impl FnOnce(UploadService<W>) -> UploadService<W>) -> Self {
        Self {
            service: change(self.service),
            prefix: self.prefix,
        }
    }
}

impl<W> fmt::Debug for UploadLayer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadLayer")
            .field("prefix", &self.prefix)
            .field("service", &self.service)
            .finish()
    }
}

impl<S, W: Clone> Layer<S> for UploadLayer<W> {
    type Service = UploadMiddleware<S, W>;

    fn layer(&self, inner: S) -> Self::Service {
        UploadMiddleware {
            inner,
            uploads: self.clone(),
        }
    }
}

/// An application with the upload protocols in front of it: made by [`UploadLayer`].
#[derive(Clone, Debug)]
pub struct UploadMiddleware<S, W> {
    inner: S,
    uploads: UploadLayer<W>,
}

impl<S, W, B, R> Service<Request<B>> for UploadMiddleware<S, W>
where
    S: Service<Request<B>, Response = Response<R>>,
    W: Fn(&Parts) -> Option<Caller> + Clone + Send + Sync + 'static,
    B: Body + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
    R: Body<Data = Bytes>,
    R::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<LayerBody<R>>;
    type Error = S::Error;
    type Future = MiddlewareFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let side = match below(&self.uploads.prefix, request.uri().path()).map(str::to_owned) {
            Some(path) => Side::Own {
                future: self.uploads.service.answer(request, path),
            },
            None => Side::Inner {
                future: self.inner.call(request),
            },
        };
        MiddlewareFuture { side }
    }
}

/// What of `path` lies beneath `prefix`, if it does: `/files` has `/files` and `/files/a` beneath it, not `/filesystem`.
fn below<'a>(prefix: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

pin_project! {
    /// The answer of an [`UploadMiddleware`], in the making.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct MiddlewareFuture<F> { #[pin] side: Side<F> }
}

pin_project! {
    #[derive(Debug)]
    #[project = SideProjection]
    enum Side<F> {
        Own { #[pin] future: UploadFuture },
        Inner { #[pin] future: F },
    }
}

impl<F, R, E> Future for MiddlewareFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<LayerBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().side.project() {
            SideProjection::Own { future } => match ready!(future.poll(cx)) {
                Ok(response) => Ok(response.map(LayerBody::own)),
                Err(never) => match never {},
            },
            SideProjection::Inner { future } => ready!(future.poll(cx)).map(|response| response.map(LayerBody::inner)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_segment() {
        for (prefix, path, rest) in [
            ("/files", "/files", Some("")),
            ("/files", "/files/", Some("/")),
            ("/files", "/files/uploads/x", Some("/uploads/x")),
            ("/files", "/filesystem", None),
            ("/files", "/file", None),
            ("/files", "/", None),
            ("", "/uploads", Some("/uploads")),
        ] {
            assert_eq!(below(prefix, path), rest, "{prefix} {path}");
        }
    }
}
