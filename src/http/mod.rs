//! The HTTP skin: a [`tower_service::Service`] and a [`tower_layer::Layer`] over [`Uploads`].
//!
//! [`Uploads::service`] answers every request it is given: nest it under a route. [`Uploads::layer`] wraps
//! an application, answers what lies beneath its prefix and passes everything else on as it came. Both ask a closure who the
//! caller is; the crate reads no credential itself.
//!
//! ```no_run
//! # use tower_upload::{Caller, Uploads};
//! #[derive(Clone)]
//! struct User { id: String } // put into the request's extensions by the host's own middleware
//!
//! # fn f(uploads: Uploads) {
//! let who = |request: &http::request::Parts| request.extensions.get::<User>().map(|user| Caller::new(&user.id));
//! let service = uploads.service(who).mount("/api/streaming"); // Router::nest_service("/api/streaming", service)
//! let layer = uploads.layer("/files", who);                   // ServiceBuilder::new().layer(layer)
//! # }
//! ```
//!
//! # What it answers
//! The chunk API: `POST upload-chunk/` (multipart), `POST assemble-chunks/`, and by id `POST uploads/`,
//! `PUT uploads/{id}/chunks/{index}`, `GET` and `DELETE uploads/{id}/`, `POST uploads/{id}/assemble/`,
//! `GET uploads/{id}/events` (Server-Sent Events) and `GET uploads/`; with or without the trailing slash. Answers are
//! `{"success": true, "data": {…}}` or `{"success": false, "error": {"error": TEXT, …}}`, never stored by caches.
//!
//! # What to know
//! * `None` from the closure is [`Caller::anonymous`](crate::Caller::anonymous): the engine's authorizer says whether that is
//!   enough, else the answer is 401. It is asked before a body is read, so `Expect: 100-continue` works.
//! * Request bodies are never decompressed: a `Content-Encoding` is answered with 415. Keep decompression, body
//!   limits and request timeouts of other layers away from upload routes. A body that comes slower than
//!   [`minimum_rate`](UploadService::minimum_rate) is answered with 408.
//! * No CORS header is ever sent; add the host's own policy around the service.
//! * A panic is not caught here. It ends the request alone: whatever the request held is freed.
//! * A tokio runtime with its timer is needed.

mod body;
mod chunk_api;
mod content_digest;
mod cors;
mod dialect;
mod door;
mod download;
mod files;
#[cfg(any(test, feature = "conformance"))]
pub(crate) mod fuzzing;
mod layer;
mod number;
mod path;
mod problem;
mod resumable;
mod service;
mod settings;
mod structured;
#[cfg(test)]
mod tests;
mod tus;

pub use body::{LayerBody, UploadBody};
pub use cors::Cors;
pub use layer::{MiddlewareFuture, UploadLayer, UploadMiddleware};
pub use resumable::{Interim, InterimSender, Resumable};
pub use service::{UploadFuture, UploadService};
pub use tus::Tus;

use http::request::Parts;

use crate::{access::Caller, engine::Uploads};

impl Uploads {
    /// The uploads as a Tower service; `who` tells who sends a request.
    ///
    /// The service takes paths below its mount, as axum's `nest_service` hands them on;
    /// [`mount`](UploadService::mount) tells it where that is, for the URLs it answers with.
    pub fn service<W>(&self, who: W) -> UploadService<W>
    where
        W: Fn(&Parts) -> Option<Caller> + Clone + Send + Sync + 'static,
    {
        UploadService::new(self.clone(), who)
    }

    /// The uploads as a Tower layer, which answers paths that are `prefix` or lie beneath it and passes
    /// everything else on, body untouched.
    pub fn layer<W>(&self, prefix: &str, who: W) -> UploadLayer<W>
    where
        W: Fn(&Parts) -> Option<Caller> + Clone + Send + Sync + 'static,
    {
        UploadLayer::new(self.service(who), prefix)
    }
}
