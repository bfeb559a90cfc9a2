//! Uploads under a route of a plain hyper server: `cargo run --example hyper -- --help`.

#[path = "support/connections.rs"]
mod connections;
#[path = "support/mod.rs"]
mod support;

use std::process::ExitCode;

use http::{Request, Response, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use support::{
    BoxError, Host,
    api::Videos,
    auth::User,
    envelope::{Body, full},
};
use tokio::net::TcpListener;
use tower_service::Service as _;
use tower_upload::{
    Caller,
    http::{Resumable, Tus, UploadService},
};

fn main() -> ExitCode {
    support::run(serve)
}

type Uploads = UploadService<fn(&Parts) -> Option<Caller>>;

async fn serve(listener: TcpListener, host: Host) -> Result<(), BoxError> {
    let uploads: Uploads = host
        .uploads
        .service(User::caller as _)
        .mount(&host.mount)
        .public_url(&host.public_url)
        .trust_forwarded(host.is_local)
        .tus(Tus::new())
        .resumable(Resumable::new())
        .cors(host.cors.clone());
    let app = host.clone();
    connections::serve(listener, &host, move |request| {
        answer(app.clone(), uploads.clone(), request)
    })
    .await
}

async fn answer(host: Host, mut uploads: Uploads, request: Request<Incoming>) -> Response<Body> {
    let mut request = host.tokens.identify(request);
    if connections::below(&host.mount, Videos::owns, &mut request) {
        host.videos.answer(request).await
    } else if connections::below(&format!("{}/media", host.mount), |_| true, &mut request) {
        let Ok(response) = host.media.clone().call(request).await;
        response.map(|body| body.map_err(BoxError::from).boxed_unsync())
    } else if connections::below(&host.mount, |_| true, &mut request) {
        // The uploads take what no route of the application takes below the mount.
        let Ok(response) = uploads.call(request).await;
        response.map(|body| body.map_err(BoxError::from).boxed_unsync())
    } else {
        host.page.answer(request.method(), request.uri().path()).map(full)
    }
}
