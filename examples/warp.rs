//! Uploads in front of a warp application, as a layer: `cargo run --example warp -- --help`.

#[path = "support/connections.rs"]
mod connections;
#[path = "support/mod.rs"]
mod support;

use std::{convert::Infallible, process::ExitCode};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use support::{BoxError, Host, Page, api::Videos, auth::User, envelope::Body};
use tokio::net::TcpListener;
use tower_layer::Layer as _;
use tower_service::Service;
use tower_upload::http::{Resumable, Tus};
use warp::{Filter, Reply, path::FullPath};

fn main() -> ExitCode {
    support::run(serve)
}

/// The application as it was before there were uploads.
fn pages(page: Page) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
    warp::method()
        .and(warp::path::full())
        .map(move |method, path: FullPath| page.answer(&method, path.as_str()))
}

async fn serve(listener: TcpListener, host: Host) -> Result<(), BoxError> {
    // The layer answers what lies below the mount, and passes everything else on.
    let layer = host
        .uploads
        .layer(&host.mount, User::caller)
        .public_url(&host.public_url)
        .trust_forwarded(host.is_local)
        .tus(Tus::new())
        .resumable(Resumable::new())
        .cors(host.cors.clone());
    let app = layer.layer(warp::service(pages(host.page.clone())));
    let around = host.clone();
    connections::serve(listener, &host, move |request| {
        answer(around.clone(), app.clone(), request)
    })
    .await
}

/// What goes before the layer: who asks is found out, and the catalogue keeps its routes below the same mount.
async fn answer<S, B>(host: Host, mut app: S, request: Request<Incoming>) -> Response<Body>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let mut request = host.tokens.identify(request);
    if connections::below(&host.mount, Videos::owns, &mut request) {
        return host.videos.answer(request).await;
    }
    if connections::below(&format!("{}/media", host.mount), |_| true, &mut request) {
        let Ok(response) = host.media.clone().call(request).await;
        return response.map(|body| body.map_err(BoxError::from).boxed_unsync());
    }
    let Ok(response) = app.call(request).await;
    response.map(BodyExt::boxed_unsync)
}
