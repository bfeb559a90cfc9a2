//! HTTP/1.1 connections for servers whose framework accepts none itself.

use std::{convert::Infallible, future::Future, time::Duration};

use http::{Request, Response, Uri};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::net::TcpListener;

use super::support::{BoxError, Host};

/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// Answers every request by `answer` until the server shall stop.
pub(crate) async fn serve<F, Fut, B>(listener: TcpListener, host: &Host, answer: F) -> Result<(), BoxError>
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    host.announce(&listener)?;
    let connections = GracefulShutdown::new();
    let mut stopped = std::pin::pin!(host.stopped());
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, say: the connections that are there may give some back.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stopped => break,
        };
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(HEAD);
        // What a stalled connection may hold; hyper's own bound is six times this.
        http1.max_buf_size(64 << 10);
        let connection = connections.watch(http1.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    drop(listener);
    host.drain(connections.shutdown()).await;
    Ok(())
}

/// Makes the request's path that below `mount`, if `takes` takes it there; else the request stays as it is.
pub(crate) fn below<B>(mount: &str, takes: fn(&str) -> bool, request: &mut Request<B>) -> bool {
    let uri = request.uri();
    let rest = uri
        .path()
        .strip_prefix(mount)
        .filter(|rest| rest.starts_with('/') && takes(rest));
    let Some(rest) = rest else { return false };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(rest) = format!("{rest}{query}").parse::<Uri>() else {
        return false;
    };
    *request.uri_mut() = rest;
    true
}
