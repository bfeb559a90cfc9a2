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
//! `GET uploads/{id}/events` (Server-Sent Events), `GET uploads/{id}/content` (the finished file) and `GET uploads/`; with or
//! without the trailing slash. Answers are `{"success": true, "data": {…}}` or
//! `{"success": false, "error": {"error": TEXT, …}}`, never stored by caches.
//!
//! Where [`tus`](UploadService::tus) is switched on, tus 1.0.0 at `files` (or [where the host puts
//! it](UploadService::files)): `POST files`, and `HEAD`, `PATCH`, `DELETE` and `GET files/{id}`. Errors are a
//! sentence in plain text. An upload is one upload, whichever protocol it is asked in.
//!
//! Where [`resumable`](UploadService::resumable) is switched on, Resumable Uploads for HTTP at the same place: `POST`, `PUT` or
//! `PATCH files` creates, `HEAD`, `PATCH` and `DELETE files/{id}` go on with it. Errors are problem details (RFC 9457).
//! Interim answers (104) go out where a server puts an [`Interim`] into the request's extensions; hyper 1.12 has no way to send them.
//!
//! # Files
//! `GET` of a finished file knows `Range` (up to 16 ranges, as `multipart/byteranges`; those that overlap or nearly touch are
//! sent as one, and more are answered with the whole), `If-Range`, `If-Match`, `If-None-Match`, `If-Unmodified-Since`,
//! `If-Modified-Since` and `Want-Repr-Digest`. `Last-Modified` is when the file was published, by the clock of the metadata
//! store; derived files have entity tags alone, and conditions by date are ignored there. What was uploaded is never a page of this origin: it is sent as an attachment in a sandbox, and its type is told only for sound, film and
//! pictures of pixels.
//!
//! [`Uploads::files`] is a service that does nothing but send them, with policies of the host's own: for caches, for embedding,
//! for addresses that are [signed](UrlSigner) and expire.
//!
//! # What tus does where the protocol leaves it open
//! * A `PATCH` or `HEAD` stops an older request of the same upload that still receives, which is answered with 423;
//!   what that one received counts. A body past the length is 413, and what is legal of it counts; announced too
//!   long, nothing is read.
//! * A body that comes too slowly is answered with 503, because clients of tus give up after 408. What came counts.
//! * A creation whose body is refused (checksum, length) is undone. One whose body breaks off is kept: it is answered
//!   with 201 and the true offset if somebody is still there.
//! * The request that brings the last byte puts the file together and then answers. If that fails for now it is done
//!   later by itself: the bytes are acknowledged all the same. A definite failure is 410.
//! * A checksum as a trailer must be announced by `Trailer: Upload-Checksum`. One that was not is answered with 400,
//!   for it came too late to be compared; the bytes count.
//! * Values in `Upload-Metadata` are text: UTF-8 without control characters. `filename`, else `name`, names the file,
//!   `filetype` its type.
//! * The reason phrase of status 460 is up to the server.
//!
//! # What to know
//! * `None` from the closure is [`Caller::anonymous`](crate::Caller::anonymous): the engine's authorizer says whether that is
//!   enough, else the answer is 401. It is asked before a body is read, so `Expect: 100-continue` works.
//! * Request bodies are never decompressed: a `Content-Encoding` is answered with 415. Keep decompression, body
//!   limits and request timeouts of other layers away from upload routes. A body that comes slower than
//!   [`minimum_rate`](UploadService::minimum_rate) is answered with 408.
//! * No CORS header is ever sent unless [`cors`](UploadService::cors) says for whom. What pages of other sites have a browser
//!   change, which goes out with its user's cookies and without asking if it looks like a form, is answered with 403: see
//!   [`allow_cross_site`](UploadService::allow_cross_site).
//! * HTTP/1 servers must hand on trailers for checksums at the end of a body; hyper does.
//! * A panic is not caught here. It ends the request alone: whatever the request held is freed.
//! * A tokio runtime with its timer is needed.

mod body;
mod chunk_api;
mod content_digest;
mod cors;
mod cross_site;
mod dialect;
mod door;
mod download;
mod files;
#[cfg(any(test, feature = "conformance"))]
pub(crate) mod fuzzing;
mod layer;
#[cfg(feature = "benchmark")]
pub(crate) mod micro;
mod number;
mod pace;
mod path;
mod problem;
mod resumable;
mod serve;
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
pub use serve::{CachePolicy, Caching, Embedding, FileService, UrlSigner};
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

    /// The finished files as a Tower service, to be read by those who may; `who` tells who sends a request.
    ///
    /// `GET` and `HEAD` of `/{id}`, below where it is nested, is the file; that of `/{id}/hls/master.m3u8` the HLS stream that was
    /// made of it. Errors are problem details (RFC 9457).
    ///
    /// ```no_run
    /// # fn f(uploads: tower_upload::Uploads) {
    /// use tower_upload::Caller;
    ///
    /// let who = |request: &http::request::Parts| request.extensions.get::<Caller>().cloned();
    /// let app: axum::Router = axum::Router::new().nest_service("/media", uploads.files(who));
    /// # drop(app); }
    /// ```
    pub fn files<W>(&self, who: W) -> FileService<W>
    where
        W: Fn(&Parts) -> Option<Caller> + Clone + Send + Sync + 'static,
    {
        FileService::new(self.clone(), who)
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
