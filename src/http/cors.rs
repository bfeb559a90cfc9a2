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
     Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Origin, Range, Repr-Digest, \
     Tus-Resumable, Upload-Checksum, Upload-Complete, Upload-Concat, Upload-Defer-Length, Upload-Draft-Interop-Version, Upload-Incomplete, \
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

    /// Allows pages of `origin`, as in `https://app.example.com`: scheme, host and port, nothing after it. What is no
    /// origin never matches, `null` neither: any sandboxed page has that.
    #[must_use]
    pub fn allow_origin(mut self, origin: &str) -> Self {
        self.origins.extend(self::origin(origin));
        self
    }

    /// Allows pages of every origin, without credentials: cookies and HTTP authentication of the browser are then never used,
    /// whatever [`allow_credentials`](Self::allow_credentials) says. What browsers send with them all the same, for a form, is
    /// refused; who is known by address or by a client's certificate alone is not protected from that.
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
        if !self.any || !self.origins.is_empty() {
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

    /// Whether a page of `origin` may change something. Where every origin may, one that was not named never has cookies, or a
    /// password that the browser knows, to send: a request with some was made by a form, or by a script that could not read
    /// the answer.
    pub(super) fn lets_in(&self, origin: &HeaderValue, headers: &HeaderMap) -> bool {
        self.origins.contains(origin) || (self.any && !headers.contains_key(header::COOKIE) && !is_of_browser(headers))
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

/// Whether there is a password or the like that browsers keep and send by themselves (RFC 7235), unlike a token.
fn is_of_browser(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|value| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        [&b"basic"[..], b"digest", b"negotiate", b"ntlm"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
    })
}

/// `text` as browsers send an origin; `None` if it is none.
pub(super) fn origin(text: &str) -> Option<HeaderValue> {
    let origin = text.trim_end_matches('/').to_ascii_lowercase();
    let (_, host) = origin.split_once("://")?;
    if host.is_empty() || host.contains('/') {
        return None;
    }
    HeaderValue::from_str(&origin).ok()
}

/// Where a request says that it comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin(Option<HeaderValue>);

impl Origin {
    pub(super) fn of(parts: &Parts) -> Self {
        Self(parts.headers.get(header::ORIGIN).cloned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Request;

    use super::*;

    fn parts(origin: Option<&str>, asks_for: Option<&str>) -> Parts {
        let mut request = Request::builder().method(Method::OPTIONS);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        if let Some(method) = asks_for {
            request = request.header("access-control-request-method", method);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn allowed(cors: &Cors, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        cors.allow(&Origin::of(&parts(origin, None)), &mut headers);
        headers
    }

    #[test]
    fn only_named_origins_are_allowed() {
        let app = "https://app.example";
        let named = Cors::new().allow_origin("https://App.example/");
        let trusted = named.clone().allow_credentials();
        let any = Cors::new().allow_any_origin();
        for (cors, origin, allows, credentials, varies) in [
            (&Cors::new(), Some(app), None, false, true),
            (&Cors::new().allow_credentials(), Some(app), None, false, true),
            (&Cors::new().allow_origin("null"), Some("null"), None, false, true),
            (&Cors::new().allow_origin("*"), Some(app), None, false, true),
            (&named, Some(app), Some(app), false, true),
            (&named, Some("https://app.example.evil"), None, false, true),
            (&named, Some("http://app.example"), None, false, true),
            (&named, Some("null"), None, false, true),
            (&named, None, None, false, true),
            (&trusted, Some(app), Some(app), true, true),
            (&trusted, Some("https://evil.example"), None, false, true),
            (&any, Some("https://evil.example"), Some("*"), false, false),
            (&any, None, None, false, false),
            (
                &any.clone().allow_credentials(),
                Some("https://evil.example"),
                Some("*"),
                false,
                false,
            ),
            (
                &trusted.clone().allow_any_origin(),
                Some("https://evil.example"),
                Some("*"),
                false,
                true,
            ),
            (&trusted.clone().allow_any_origin(), Some(app), Some(app), true, true),
        ] {
            let headers = allowed(cors, origin);
            let get = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap());
            assert_eq!(get(header::ACCESS_CONTROL_ALLOW_ORIGIN), allows, "{cors:?} {origin:?}");
            assert_eq!(
                get(header::ACCESS_CONTROL_ALLOW_CREDENTIALS),
                credentials.then_some("true"),
                "{cors:?} {origin:?}"
            );
            assert_eq!(get(header::VARY), varies.then_some("Origin"), "{cors:?} {origin:?}");
            assert_eq!(
                headers.contains_key(header::ACCESS_CONTROL_EXPOSE_HEADERS),
                allows.is_some()
            );
        }
    }

    #[test]
    fn preflights_are_answered_and_nothing_else() {
        let cors = Cors::new().allow_origin("https://app.example").allow_header("X-Trace");
        let answer = cors
            .preflight(&parts(Some("https://app.example"), Some("PATCH")))
            .unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let allowed = answer.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        for name in [
            "Upload-Offset",
            "Tus-Resumable",
            "Upload-Complete",
            "Authorization",
            "X-Trace",
        ] {
            assert!(allowed.split(", ").any(|other| other == name), "{name}");
        }
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], METHODS);

        let strangers = cors
            .preflight(&parts(Some("https://evil.example"), Some("PATCH")))
            .unwrap();
        assert!(strangers.headers().is_empty(), "{:?}", strangers.headers());
        assert!(cors.preflight(&parts(Some("https://app.example"), None)).is_none());
        assert!(cors.preflight(&parts(None, Some("PATCH"))).is_none());
    }
}
