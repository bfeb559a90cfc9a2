//! Figures for Prometheus.
//!
//! At an address of their own rather than as a route of the application: who asks for them has no token, and what publishes the
//! application (a proxy, a load balancer) then does not publish how it fares.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{BoxError, say};

/// From a look-up in memory to an assembly that copies, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];
const UPKEEP: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 8;

/// Takes figures from here on, and answers `GET /metrics` at `address`: before the engine is built, which describes them.
pub async fn serve(address: SocketAddr) -> Result<(), BoxError> {
    let buckets = Matcher::Suffix("_duration_seconds".to_owned());
    let figures = PrometheusBuilder::new()
        .set_buckets_for_metric(buckets, &BUCKETS)?
        .install_recorder()?;
    let listener = TcpListener::bind(address).await?;
    say(&format!("metrics on http://{}/metrics\n", listener.local_addr()?))?;
    let upkeep = figures.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    tokio::spawn(accept(listener, figures));
    Ok(())
}

async fn accept(listener: TcpListener, figures: PrometheusHandle) {
    let slots = std::sync::Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for figures could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let figures = figures.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&figures, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection for figures broke");
            }
            drop(slot);
        });
    }
}

fn answer(figures: &PrometheusHandle, request: &Request<Incoming>) -> Response<Full<bytes::Bytes>> {
    let is_asked = request.method() == Method::GET && request.uri().path() == "/metrics";
    let (status, text) = if is_asked {
        (StatusCode::OK, figures.render())
    } else {
        (StatusCode::NOT_FOUND, "GET /metrics\n".to_owned())
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let media = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, media);
    response
}
