//! Interim answers: `104 (Upload Resumption Supported)`, as far as the server can send them.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::version::{FIELD, Rules};

/// Sends interim (1xx) responses to the request it was made for, before the final one.
///
/// The HTTP servers of hyper (1.12) offer a service no way to do this, and so neither do axum and warp: without a sender uploads
/// work all the same, but a client that sends its whole file in the creating request learns the upload's URL only from the answer
/// and cannot resume before. Who serves HTTP/2 with the `h2` crate, or has a connection of his own, puts an [`Interim`] into
/// the extensions of each request.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use http::{Request, Response};
/// use tower_upload::http::{Interim, InterimSender};
///
/// /// `h2`'s `SendResponse::send_informational`, say.
/// struct Respond(Mutex<Vec<Response<()>>>);
///
/// impl InterimSender for Respond {
///     fn send(&self, response: Response<()>) {
///         self.0.lock().unwrap().push(response);
///     }
/// }
///
/// # fn f(mut request: Request<()>, respond: Respond) {
/// request.extensions_mut().insert(Interim::new(Arc::new(respond)));
/// # }
/// ```
pub trait InterimSender: Send + Sync {
    /// Sends `response`, whose status is 1xx. It must neither block nor wait for the client; what cannot be sent may be dropped, and what
    /// comes after the final response must be.
    fn send(&self, response: Response<()>);
}

/// The [`InterimSender`] of a request, for its extensions.
#[derive(Clone)]
pub struct Interim(Arc<dyn InterimSender>);

impl Interim {
    /// Sends through `sender`.
    #[must_use]
    pub fn new(sender: Arc<dyn InterimSender>) -> Self {
        Self(sender)
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").finish_non_exhaustive()
    }
}

/// Tells the client of an upload while it sends. Only where it says which draft it speaks: until there is an RFC, 104 is for
/// those alone.
#[derive(Clone, Debug)]
pub(super) struct Announcer {
    interim: Interim,
    version: u64,
    has_progress: bool,
}

impl Announcer {
    pub(super) fn of(parts: &http::request::Parts, rules: &Rules) -> Option<Self> {
        Some(Self {
            interim: parts.extensions.get::<Interim>()?.clone(),
            version: rules.interop?,
            has_progress: rules.has_progress,
        })
    }

    /// There is an upload, and it can be resumed there.
    pub(super) fn created(&self, location: &HeaderValue, limits: Option<&HeaderValue>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location.clone());
        if let Some(limits) = limits {
            headers.insert("upload-limit", limits.clone());
        }
        self.send(headers);
    }

    /// So many bytes are durable.
    pub(super) fn progress(&self, offset: u64) {
        if self.has_progress {
            self.send(HeaderMap::from_iter([(
                header::HeaderName::from_static("upload-offset"),
                HeaderValue::from(offset),
            )]));
        }
    }

    fn send(&self, mut headers: HeaderMap) {
        headers.insert(FIELD, HeaderValue::from(self.version));
        let mut response = Response::new(());
        if let Ok(status) = StatusCode::from_u16(104) {
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            self.interim.0.send(response);
        }
    }
}
