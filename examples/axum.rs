//! Uploads in an axum application, beside its own routes: `cargo run --example axum -- --help`.

#[path = "support/mod.rs"]
mod support;

use std::{
    future::{IntoFuture as _, ready},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    middleware::{Next, from_fn, map_request},
    response::{IntoResponse as _, Response},
};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use http::StatusCode;
use http_body_util::Full;
use support::{BoxError, Host, auth::User, envelope::Refusal};
use tokio::net::TcpListener;
use tower_http::trace::TraceLayer;
use tower_upload::http::{Resumable, Tus};

fn main() -> ExitCode {
    support::run(serve)
}

fn app(host: &Host) -> Router {
    let Host {
        mount,
        public_url,
        is_local,
        cors,
        uploads,
        tokens,
        videos,
        media,
        page,
        ..
    } = host.clone();

    // The uploads take what no route of the application takes below the mount.
    let uploads = uploads
        .service(User::caller)
        .mount(&mount)
        .public_url(&public_url)
        .trust_forwarded(is_local)
        .tus(Tus::new())
        .resumable(Resumable::new())
        .cors(cors);
    let streaming = [
        "/create-video",
        "/create-video/",
        "/videos",
        "/videos/",
        "/videos/{*rest}",
    ]
    .into_iter()
    .fold(Router::new(), |router, path| router.route_service(path, videos.clone()))
    .nest_service("/media", media)
    .fallback_service(uploads);

    let limit = Arc::new(Limit::new());
    Router::new()
        .nest(&mount, streaming)
        .fallback(async move |request: Request| page.answer(request.method(), request.uri().path()).map(Full::from))
        .layer(from_fn(move |request, next| limited(limit.clone(), request, next)))
        .layer(map_request(move |request: Request| ready(tokens.identify(request))))
        // The query stays out of the log: it may hold a ticket.
        .layer(TraceLayer::new_for_http().make_span_with(
            |request: &Request| tracing::info_span!("request", method = %request.method(), path = loggable(request.uri().path())),
        ))
}

/// A path without the token of a signed address: who has that can read the file.
fn loggable(path: &str) -> String {
    match path.split_once("/media/s/") {
        Some((before, signed)) => format!("{before}/media/s/…/{}", signed.split_once('/').unwrap_or_default().1),
        None => path.to_owned(),
    }
}

async fn serve(listener: TcpListener, host: Host) -> Result<(), BoxError> {
    host.announce(&listener)?;
    let app = app(&host).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, app).with_graceful_shutdown(host.stopped());
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => Ok(ended??),
        () = host.stopped() => {
            host.drain(&mut server).await;
            Ok(())
        }
    }
}

/// So many requests a second and so many at once, of one user or, before sign-in, one address.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();
const BURST: NonZeroU32 = NonZeroU32::new(1000).unwrap();

struct Limit {
    rates: DefaultKeyedRateLimiter<Key>,
    forget: AtomicU32,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    User(Arc<str>),
    Address(IpAddr),
}

impl Limit {
    fn new() -> Self {
        let quota = Quota::per_second(PER_SECOND).allow_burst(BURST);
        Self {
            rates: RateLimiter::keyed(quota),
            forget: AtomicU32::new(0),
        }
    }

    /// Otherwise: how many seconds to wait.
    fn admit(&self, request: &Request) -> Result<(), u64> {
        let user = request.extensions().get().map(|user: &User| Key::User(user.id.clone()));
        let peer = || {
            request
                .extensions()
                .get()
                .map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| network(peer.ip()))
        };
        let Some(key) = user.or_else(|| peer().map(Key::Address)) else {
            return Ok(());
        };
        if self.forget.fetch_add(1, Ordering::Relaxed).is_multiple_of(4096) {
            self.rates.retain_recent(); // those that are idle
        }
        let wait = |until: governor::NotUntil<_>| until.wait_time_from(DefaultClock::default().now());
        self.rates.check_key(&key).map_err(|until| wait(until).as_secs() + 1)
    }
}

/// Who has one IPv6 address has a whole network of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

async fn limited(limit: Arc<Limit>, request: Request, next: Next) -> Response {
    match limit.admit(&request) {
        Ok(()) => next.run(request).await,
        Err(seconds) => {
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests; wait, then go on");
            refusal.retry_after(seconds).into_response().into_response()
        }
    }
}
