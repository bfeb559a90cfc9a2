//! What the three example servers share: flags, stores, sign-in, a small catalogue of videos and the page.
//! None of it is about a web framework; how the uploads are put into one is in `axum.rs`, `hyper.rs` and `warp.rs`.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "each of the binaries uses what it needs of this module"
)]

pub mod api;
mod args;
pub mod auth;
mod authorizer;
mod catalogue;
mod content;
mod create_video;
pub mod envelope;
mod keys;
#[cfg(feature = "metrics")]
mod metrics;
mod page;
mod stores;
mod ticket;

use std::{fmt::Display, future::Future, io::Write as _, net::SocketAddr, process::ExitCode, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tower_upload::{
    Builder, Caller, Event, EventKind, Ready, Uploads,
    http::{Cors, FileService, UrlSigner},
};

use self::{
    api::Videos,
    auth::{Tokens, User},
    authorizer::VideoAuthorizer,
    catalogue::Catalogue,
    keys::Keys,
    ticket::Tickets,
};
pub use self::{args::Args, page::Page};

/// How long requests may take to come to their end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);

/// All that is put together for a server, whatever framework it uses.
#[derive(Clone)]
pub struct Host {
    pub mount: String,
    pub public_url: String,
    /// Whether only this machine reaches it: then its own name for it may be believed.
    pub is_local: bool,
    pub cors: Cors,
    pub uploads: Uploads,
    pub tokens: Tokens,
    pub videos: Videos,
    /// Finished files, below `{mount}/media`.
    pub media: Media,
    pub page: Page,
    greeting: String,
    stopping: watch::Receiver<bool>,
}

pub type Media = FileService<fn(&http::request::Parts) -> Option<Caller>>;
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Runs a server: `serve` is given what it needs and ends after [`Host::stopped`].
pub fn run<F: Future<Output = Result<(), BoxError>>>(serve: impl FnOnce(TcpListener, Host) -> F) -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => return say(args::HELP).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(error) => return fail(error),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let served = runtime.block_on(async {
        if let Some(address) = args.metrics {
            #[cfg(feature = "metrics")]
            metrics::serve(address).await?;
            #[cfg(not(feature = "metrics"))]
            return Err(format!("--metrics {address} needs the feature metrics: cargo run --features metrics").into());
        }
        let host = Host::open(&args).await?;
        let listener = TcpListener::bind(args.listen).await?;
        serve(listener, host).await
    });
    // What still reads a slow disk is not waited for: it was not acknowledged.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map_or_else(fail, |()| ExitCode::SUCCESS)
}

impl Host {
    async fn open(args: &Args) -> Result<Self, BoxError> {
        let (tokens, demo) = Tokens::new(&args.tokens, args.anonymous)?;
        let (blobs, metadata) = stores::open(args).await?;
        let catalogue = Catalogue::open(&args.data).await?;
        let mut builder = Uploads::with(blobs, metadata).authorizer(VideoAuthorizer::new(catalogue.clone()));
        if let Some(bytes) = args.max_size {
            builder = builder.max_size(bytes);
        }
        if let Some(time) = args.expire_after {
            builder = builder.expire_after(time);
        }
        if let Some(time) = args.lease {
            builder = builder.lease(time);
        }
        if let Some(bytes) = args.memory_budget {
            builder = builder.memory_budget(bytes);
        }
        let learned = catalogue.clone();
        builder = builder.on_event(move |event| learn(learned.clone(), event));
        if args.hls {
            builder = stream(builder, args)?;
        }
        let uploads = builder.build().await?;
        let greeting = match (demo, args.anonymous) {
            (Some(token), _) => format!("/#token={token}"),
            (None, true) => "/".to_owned(),
            (None, false) => "/ (sign in with a token given by --token)".to_owned(),
        };
        let data = args.data.clone();
        let keys = tokio::task::spawn_blocking(move || Keys::open(&data)).await??;
        let signer = UrlSigner::new(keys.addresses)?;
        let tickets = Tickets::new(keys.tickets);
        Ok(Self {
            media: uploads.files(User::caller as _).signed(signer.clone()),
            videos: Videos::new(
                catalogue,
                uploads.clone(),
                &args.mount,
                tickets,
                args.hls.then_some(signer),
            ),
            page: Page::new(&args.mount, args.anonymous),
            mount: args.mount.clone(),
            public_url: args.public_url.clone(),
            is_local: args.listen.ip().is_loopback(),
            cors: args
                .cors
                .iter()
                .fold(Cors::new(), |cors, origin| cors.allow_origin(origin)),
            uploads,
            tokens,
            greeting,
            stopping: on_signal()?,
        })
    }

    /// Says that the server takes requests.
    pub fn announce(&self, listener: &TcpListener) -> std::io::Result<()> {
        let address: SocketAddr = listener.local_addr()?;
        say(&format!(
            "listening on http://{address}\nhttp://{address}{}\n",
            self.greeting
        ))
    }

    /// Ends at SIGTERM or SIGINT.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stopping.clone();
        async move { drop(stopping.wait_for(|stop| *stop).await) }
    }

    /// After [`stopped`](Self::stopped): refuses new uploads, and ends when those under way are durable or `drained` has taken too
    /// long. What is cut can be resumed.
    pub async fn drain(&self, drained: impl Future) {
        let both = async { tokio::join!(self.uploads.shutdown(DRAIN), drained) };
        if tokio::time::timeout(DRAIN, both).await.is_err() {
            tracing::warn!("requests were cut; they can be resumed");
        }
    }
}

/// Turns true at SIGTERM or SIGINT.
fn on_signal() -> std::io::Result<watch::Receiver<bool>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("shutting down");
        stop.send_replace(true);
    });
    Ok(stopping)
}

/// Each video that is assembled becomes an HLS stream.
#[cfg(feature = "ffmpeg")]
fn stream(builder: Builder<Ready>, args: &Args) -> Result<Builder<Ready>, BoxError> {
    use tower_upload::hook::ffmpeg::{FfmpegHls, TranscodeOptions};
    Ok(builder.hook(FfmpegHls::new(TranscodeOptions::new(args.data.join("transcode")))))
}

#[cfg(not(feature = "ffmpeg"))]
fn stream(_: Builder<Ready>, _: &Args) -> Result<Builder<Ready>, BoxError> {
    Err("--hls: this build makes no streams; build it with --features ffmpeg".into())
}

/// The engine tells this at least once of every upload, also after a crash.
async fn learn(catalogue: Catalogue, event: Event) -> tower_upload::Result<()> {
    tracing::info!(event = %event.id, kind = %event.kind(), "told");
    let Some(target) = &event.target else { return Ok(()) };
    match event.kind() {
        EventKind::Assembled => {
            catalogue
                .assembled(target.as_str(), event.upload_id(), event.key.as_str())
                .await
        }
        EventKind::Deleted => catalogue.deleted(target.as_str(), event.upload_id()).await,
        _ => Ok(()),
    }
    .map_err(|error| tower_upload::Error::unavailable("The catalogue could not be written").with_source(error))
}

fn say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn fail(error: impl Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::FAILURE
}
