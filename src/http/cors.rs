//! Cross-origin requests of browsers (the Fetch standard's CORS protocol), for the origins that the host names.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use super::body::UploadBody;

/// Which pages of other origins may upload: for [`UploadService::cors`](super::UploadService::cors).
///
/// The methods and headers of all protocols are allowed and exposed; which origins may use them is for the host to say,
/// and none may by default. What it does not name gets no header at all, and an origin is never reflected that was not named.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Cors {
    origins: Vec<HeaderValue>,
    any: bool,
    credentials: bool,
    headers: Vec<String>,
}

const METHODS: &str = "POST, HEAD, PATCH, OPTIONS, GET, PUT, DELETE";

/// What requests of the protocols have beyond what the Fetch standard always allows.
const REQUEST_HEADERS: &str = "Authorization, Content-Digest, Content-Disposition, Content-Encoding, Content-MD5, \
     Content-Type, If-Match, If-None-Match, If-Range, Origin, Range, Repr-Digest, Tus-Resumable, Upload-Checksum, \
     Upload-Complete, Upload-Concat, Upload-Defer-Length, Upload-Draft-Interop-Version, Upload-Incomplete, \
     Upload-Length, Upload-Metadata, Upload-Offset, Want-Repr-Digest, X-HTTP-Method-Override, X-Request-ID, X-Requested-With";

/// What answers of the protocols have beyond what pages may always read.
const RESPONSE_HEADERS: &str = "Accept-Ranges, Content-Disposition, Content-Range, ETag, Location, Repr-Digest, Retry-After, \
     Tus-Checksum-Algorithm, Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Complete, Upload-Concat, \
     Upload-Defer-Length, Upload-Draft-Interop-Version, Upload-Expires, Upload-Incomplete, Upload-Length, Upload-Limit, \
     Upload-Metadata, Upload-Offset";

/// How long a browser may remember a preflight, in seconds: as long as Chromium does at most.
const MAX_AGE: &str = "7200";

impl Cors {
    /// No origin yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows pages of `origin`, as in `https://app.example.com`: scheme, host and port, nothing after it. What cannot be an
    /// origin never matches.
    #[must_use]
    pub fn allow_origin(mut self, origin: &str) -> Self {
        if let Ok(origin) = HeaderValue::from_str(&origin.trim_end_matches('/').to_ascii_lowercase()) {
            self.origins.push(origin);
        }
        self
    }

    /// Allows pages of every origin, without credentials: cookies and HTTP authentication of the browser are then never used,
    /// whatever [`allow_credentials`](Self::allow_credentials) says.
    #[must_use]
    pub const fn allow_any_origin(mut self) -> Self {
        self.any = true;
        self
    }

    /// Lets the named origins send cookies and HTTP authentication of the browser. Only for origins that are trusted as this one.
    #[must_use]
    pub const fn allow_credentials(mut self) -> Self {
        self.credentials = true;
        self
    }

    /// Allows a request header of the host's own, besides those of the protocols.
    #[must_use]
    pub fn allow_header(mut self, name: &str) -> Self {
        if name.parse::<header::HeaderName>().is_ok() {
            self.headers.push(name.to_owned());
        }
        self
    }

    /// The answer to a preflight; `None` if this is none.
    pub(super) fn preflight(&self, parts: &Parts) -> Option<Response<UploadBody>> {
        let is_preflight = parts.method == Method::OPTIONS
            && parts.headers.contains_key(header::ORIGIN)
            && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return None;
        }
        let mut response = Response::new(UploadBody::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        if self.allowed(&Origin::of(parts)).is_some() {
            let own: String = self.headers.iter().map(|name| format!(", {name}")).collect();
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            if let Ok(allowed) = HeaderValue::try_from(format!("{REQUEST_HEADERS}{own}")) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            }
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        }
        Some(response)
    }

    /// Marks an answer as one that a page of `origin` may read, if it may.
    pub(super) fn allow(&self, origin: &Origin, headers: &mut HeaderMap) {
        if !self.any || self.credentials {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(allowed) = self.allowed(origin) else { return };
        if self.credentials && allowed != "*" {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(RESPONSE_HEADERS),
        );
    }

    /// What `Access-Control-Allow-Origin` says to `origin`.
    fn allowed(&self, origin: &Origin) -> Option<HeaderValue> {
        let origin = origin.0.as_ref()?;
        if self.origins.contains(origin) {
            return Some(origin.clone());
        }
        self.any.then(|| HeaderValue::from_static("*"))
    }
}

/// Where a request says that it comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin(Option<HeaderValue>);

impl Origin {
    pub(super) fn of(parts: &Parts) -> Self {
        Self(parts.headers.get(header::ORIGIN).cloned())
    }
}
