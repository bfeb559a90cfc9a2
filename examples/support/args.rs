//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub const HELP: &str = "\
Takes large videos in pieces, and resumes.

--listen ADDR        127.0.0.1:8080; port 0 takes a free one
--data DIR           ./upload-data: blobs, metadata.redb and the catalogue of videos lie in it; and signing.key, made once: addresses
                     that were given out outlive a restart, and other servers know them if they have a copy of it
--mount PATH         /api/streaming
--public-url ORIGIN  what the URLs of uploads begin with, as in https://media.example.com; none: they begin with the mount
--cors ORIGIN        pages of this origin may upload, repeatable
--token TOKEN=USER   a bearer token and whose it is, repeatable; none given: one is made and printed
--anonymous          no tokens at all
--metadata URL       redb:PATH | memory: | postgres://USER@HOST/DATABASE (feature postgres; the password may come by PGPASSWORD)
--blobs URL          file:DIR | memory: | s3://BUCKET/PREFIX | az://... | gs://...
--durability LEVEL   ack: what was acknowledged survives a power loss (default) | none: it may not
--expire-after SECS  how long an unfinished upload lives without activity
--lease SECS         after so long another server goes on with what one had begun to finish and died
--max-size BYTES     the largest file
--memory-budget BYTES  of bodies in memory at once
--hls                videos become HLS streams, by an ffmpeg that is installed (feature ffmpeg); it works in DIR/transcode of --data
--metrics ADDR       figures for Prometheus at http://ADDR/metrics, for whoever reaches that address (feature metrics)
";

/// The command line, parsed.
#[derive(Debug)]
pub struct Args {
    pub listen: SocketAddr,
    pub data: PathBuf,
    /// With a leading slash and without one at the end.
    pub mount: String,
    /// Empty if it is not known.
    pub public_url: String,
    /// The origins whose pages may upload.
    pub cors: Vec<String>,
    /// (token, user)
    pub tokens: Vec<(String, String)>,
    pub anonymous: bool,
    pub metadata: Option<String>,
    pub blobs: Option<String>,
    pub durable: bool,
    pub expire_after: Option<Duration>,
    pub lease: Option<Duration>,
    pub max_size: Option<u64>,
    pub memory_budget: Option<u64>,
    pub hls: bool,
    pub metrics: Option<SocketAddr>,
}

impl Args {
    /// `None` if only help is wanted.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let mut parsed = Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data: PathBuf::from("upload-data"),
            mount: "/api/streaming".to_owned(),
            public_url: String::new(),
            cors: Vec::new(),
            tokens: Vec::new(),
            anonymous: false,
            metadata: None,
            blobs: None,
            durable: true,
            expire_after: None,
            lease: None,
            max_size: None,
            memory_budget: None,
            hls: false,
            metrics: None,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (flag, mut inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let mut value = || {
                inline
                    .take()
                    .or_else(|| args.next())
                    .ok_or(format!("{flag} needs a value"))
            };
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--listen" => {
                    parsed.listen = value()?
                        .parse()
                        .map_err(|_| "--listen is an address as in 127.0.0.1:8080")?
                }
                "--data" => parsed.data = value()?.into(),
                "--mount" => parsed.mount = mount(&value()?)?,
                "--public-url" => parsed.public_url = origin("--public-url", &value()?)?,
                "--cors" => parsed.cors.push(origin("--cors", &value()?)?),
                "--token" => parsed.tokens.push(token(&value()?)?),
                "--anonymous" => parsed.anonymous = true,
                "--hls" => parsed.hls = true,
                "--metadata" => parsed.metadata = Some(value()?),
                "--blobs" => parsed.blobs = Some(value()?),
                "--durability" => parsed.durable = durable(&value()?)?,
                "--expire-after" => {
                    parsed.expire_after = Some(Duration::from_secs(number("--expire-after", &value()?)?))
                }
                "--lease" => parsed.lease = Some(Duration::from_secs(number("--lease", &value()?)?)),
                "--max-size" => parsed.max_size = Some(number("--max-size", &value()?)?),
                "--memory-budget" => parsed.memory_budget = Some(number("--memory-budget", &value()?)?),
                "--metrics" => {
                    let address = value()?.parse();
                    parsed.metrics = Some(address.map_err(|_| "--metrics is an address as in 127.0.0.1:9090")?);
                }
                _ => return Err(format!("{flag} is no flag; --help lists them")),
            }
            if inline.is_some() {
                return Err(format!("{flag} takes no value"));
            }
        }
        if parsed.anonymous && !parsed.tokens.is_empty() {
            return Err("--anonymous and --token exclude each other".to_owned());
        }
        Ok(Some(parsed))
    }
}

fn mount(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let path = text.trim_matches('/');
    let safe = path
        .split('/')
        .all(|segment| !segment.is_empty() && segment.chars().all(plain) && !segment.starts_with('.'));
    let error = || "--mount is a path as in /api/streaming, not the root".to_owned();
    safe.then(|| format!("/{path}")).ok_or_else(error)
}

/// Scheme, host and port.
fn origin(flag: &str, text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_authority = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']));
    let error = || format!("{flag} is an origin as in https://example.com:8443, with nothing after it");
    is_authority.then(|| text.to_owned()).ok_or_else(error)
}

/// The message does not repeat the token.
fn token(text: &str) -> Result<(String, String), String> {
    let (token, user) = text.rsplit_once('=').unwrap_or_default();
    let sendable = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_empty() || user.is_empty() || !sendable {
        return Err("--token is TOKEN=USER, the token in visible ASCII".to_owned());
    }
    Ok((token.to_owned(), user.to_owned()))
}

fn durable(text: &str) -> Result<bool, String> {
    match text {
        "ack" => Ok(true),
        "none" => Ok(false),
        _ => Err("--durability is ack or none".to_owned()),
    }
}

fn number(flag: &str, text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("{flag} is a whole number above 0"))
}
