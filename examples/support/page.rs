//! The page and its files.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

#[derive(Clone, Debug)]
pub struct Page {
    html: Bytes,
}

impl Page {
    pub fn new(mount: &str, anonymous: bool) -> Self {
        let auth = if anonymous { "anonymous" } else { "bearer" };
        let html = include_str!("web/index.html")
            .replace("{{MOUNT}}", mount)
            .replace("{{AUTH}}", auth);
        Self { html: html.into() }
    }

    pub fn answer(&self, method: &Method, path: &str) -> Response<Bytes> {
        let file = |text: &'static str| Bytes::from_static(text.as_bytes());
        let (status, kind, content) = match path {
            "/" => (StatusCode::OK, "text/html; charset=utf-8", self.html.clone()),
            "/page.js" => (
                StatusCode::OK,
                "text/javascript; charset=utf-8",
                file(include_str!("web/page.js")),
            ),
            "/uploader.js" => (
                StatusCode::OK,
                "text/javascript; charset=utf-8",
                file(include_str!("web/uploader.js")),
            ),
            "/status.js" => (
                StatusCode::OK,
                "text/javascript; charset=utf-8",
                file(include_str!("web/status.js")),
            ),
            "/page.css" => (
                StatusCode::OK,
                "text/css; charset=utf-8",
                file(include_str!("web/page.css")),
            ),
            "/favicon.ico" => (StatusCode::NO_CONTENT, "image/x-icon", Bytes::new()),
            _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", file("Not found\n")),
        };
        let allowed = method == Method::GET || method == Method::HEAD || status == StatusCode::NOT_FOUND;
        let (status, kind, content) = if allowed {
            (status, kind, content)
        } else {
            (
                StatusCode::METHOD_NOT_ALLOWED,
                "text/plain; charset=utf-8",
                file("Only GET and HEAD\n"),
            )
        };
        let len = content.len();
        let mut response = Response::new(if method == Method::HEAD { Bytes::new() } else { content });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, kind);
        set(header::CONTENT_SECURITY_POLICY, POLICY);
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::REFERRER_POLICY, "no-referrer");
        set(header::CACHE_CONTROL, "no-cache");
        if status == StatusCode::METHOD_NOT_ALLOWED {
            set(header::ALLOW, "GET, HEAD");
        }
        if method == Method::HEAD && status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        }
        response
    }
}
