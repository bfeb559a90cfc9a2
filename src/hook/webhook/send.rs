//! One `POST` on a connection of its own, to an address that was checked.

use std::{
    convert::Infallible,
    fmt,
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Request, Uri, header, response::Parts};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::address::is_public;
use crate::error::{Error, Result};

/// The most that is read of an answer: its head.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 100;
/// How long one address may take to connect while others wait, and how many are tried.
const CONNECT: Duration = Duration::from_secs(5);
const MAX_ADDRESSES: usize = 4;

/// Whom events are told to.
#[derive(Clone)]
pub(super) struct Receiver {
    host: Arc<str>,
    port: u16,
    /// As it goes into the request.
    authority: HeaderValue,
    path: Uri,
    allow_private: bool,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Without the path and query, which may be secret.
impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    /// The receiver at `url`, which has an authority.
    pub(super) fn new(url: &Uri, is_https: bool, allow_private: bool, roots: &[Vec<u8>]) -> Result<Self> {
        let wrong = || Error::invalid("url", "A webhook's URL names a host, and a port below 65536 if any");
        let named = url.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let is_port_said = authority.strip_prefix(named).is_some_and(|port| port.len() > 1);
        if is_port_said && url.port_u16().is_none() {
            return Err(wrong());
        }
        let host = named
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(named);
        if let Ok(address) = host.parse::<IpAddr>()
            && !allow_private
            && !is_public(address)
        {
            return Err(Error::invalid("url", private(host)));
        }
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let tls = if is_https {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
            Some((TlsConnector::from(Arc::new(tls(roots)?)), name))
        } else {
            None
        };
        Ok(Self {
            host: host.into(),
            port: url.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority).map_err(|_| wrong())?,
            path: path.parse().map_err(|_| wrong())?,
            allow_private,
            tls,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The head of the answer, of which nothing else is read.
    pub(super) async fn post(&self, id: &str, timestamp: u64, signature: &str, body: Vec<u8>) -> Result<Parts> {
        let request = Request::post(self.path.clone())
            .header(header::HOST, self.authority.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("tower-upload/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(Full::<bytes::Bytes>::from(body))
            .map_err(|error| Error::internal("A webhook's request could not be made").with_source(error))?;
        let stream = self.connect().await?;
        let Some((connector, name)) = &self.tls else {
            return self.exchange(stream, request).await;
        };
        match connector.connect(name.clone(), stream).await {
            Ok(stream) => self.exchange(stream, request).await,
            Err(error) => Err(self.failed("could not be trusted", error)),
        }
    }

    /// A connection to the first address of the host that is allowed and answers.
    async fn connect(&self) -> Result<TcpStream> {
        let found: Vec<SocketAddr> = match lookup_host((&*self.host, self.port)).await {
            Ok(found) => found.collect(),
            Err(error) => return Err(self.failed("was not found", error)),
        };
        let is_allowed = |address: &&SocketAddr| self.allow_private || is_public(address.ip());
        let mut allowed = found.iter().filter(is_allowed).take(MAX_ADDRESSES).peekable();
        if allowed.peek().is_none() {
            return Err(Error::unavailable(private(&self.host)));
        }
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        while let Some(address) = allowed.next() {
            let connect = TcpStream::connect(address);
            let connected = match allowed.peek() {
                Some(_) => tokio::time::timeout(CONNECT, connect)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
                None => connect.await,
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(self.failed("could not be connected to", failed))
    }

    async fn exchange<S>(&self, stream: S, request: Request<Full<bytes::Bytes>>) -> Result<Parts>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broke = |error: hyper::Error| self.failed("did not answer as HTTP servers do", error);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broke)?;
        // The answer comes out of the sender, also that the connection broke.
        let carried = async {
            let _ = connection.await;
            pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            answer = sender.send_request(request) => Ok(answer.map_err(broke)?.into_parts().0),
            never = carried => match never {},
        }
    }

    fn failed(&self, what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::unavailable(format!("{} {what}: {error}", self.host)).with_source(error)
    }
}

fn private(host: &str) -> String {
    format!(
        "{host} is at a private address, and none other: webhooks go to public ones unless private ones are allowed"
    )
}

/// The system's authorities and those in `roots`, and no provider but the one named here.
fn tls(roots: &[Vec<u8>]) -> Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    for pem in roots {
        let no_pem = || Error::invalid("root_certificates", "This is no PEM file with certificates");
        let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| no_pem())?;
        if found.is_empty() || store.add_parsable_certificates(found).0 == 0 {
            return Err(no_pem());
        }
    }
    let system = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(system.certs);
    if store.is_empty() {
        let message =
            "The system has no certificate authorities to know a webhook's receiver by; install ca-certificates";
        return Err(Error::unavailable(message));
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(store).with_no_client_auth())
        .map_err(|error| Error::internal("TLS could not be set up").with_source(error))
}
