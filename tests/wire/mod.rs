//! A client on a raw socket, which knows what it sent when the other side is gone.
#![allow(dead_code, clippy::unwrap_used, reason = "each suite uses some of it")]

use std::{io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) json: Value,
}

impl Reply {
    pub(crate) fn data(&self) -> &Value {
        &self.json["data"]
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Bytes that were given to the socket.
    pub(crate) sent: usize,
    /// All of them.
    pub(crate) of: usize,
    pub(crate) error: io::Error,
}

/// A request as it goes over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    head: usize,
    /// Bytes at a time and the pause after each.
    pace: Option<(usize, Duration)>,
}

impl Request {
    /// `ask` is METHOD PATH.
    pub(crate) fn new(user: &str, ask: &str, media: &str, body: &[u8]) -> Self {
        let len = body.len();
        let head = format!(
            "{ask} HTTP/1.1\r\nhost: test\r\nx-user: {user}\r\ncontent-type: {media}\r\ncontent-length: {len}\r\n\r\n"
        );
        let mut bytes = head.into_bytes();
        let head = bytes.len();
        bytes.extend_from_slice(body);
        Self {
            bytes,
            head,
            pace: None,
        }
    }

    pub(crate) fn raw(user: &str, ask: &str, body: &[u8]) -> Self {
        Self::new(user, ask, "application/octet-stream", body)
    }

    pub(crate) fn json(user: &str, ask: &str, body: &Value) -> Self {
        Self::new(user, ask, "application/json", body.to_string().as_bytes())
    }

    /// A chunk as the original's page sends it: before the fields that say whose it is.
    pub(crate) fn form(user: &str, video: &str, file_name: &str, index: u32, total: u32, chunk: &[u8]) -> Self {
        const BOUNDARY: &str = "----tower-upload-test-7MA4YWxk";
        let mut body = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"chunk\"; filename=\"blob\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(chunk);
        let fields = [
            ("videoId", video),
            ("chunkIndex", &index.to_string()),
            ("totalChunks", &total.to_string()),
            ("fileName", file_name),
        ];
        for (name, value) in fields {
            let field = format!("\r\n--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}");
            body.extend_from_slice(field.as_bytes());
        }
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let media = format!("multipart/form-data; boundary={BOUNDARY}");
        Self::new(user, "POST /upload-chunk/", &media, &body)
    }

    pub(crate) fn get(user: &str, path: &str) -> Self {
        Self::raw(user, &format!("GET {path}"), b"")
    }

    pub(crate) fn pace(mut self, bytes: usize, pause: Duration) -> Self {
        self.pace = Some((bytes.max(1), pause));
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn head_len(&self) -> usize {
        self.head
    }
}

/// A connection that is kept open.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<TcpStream>, SocketAddr);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream), address))
    }

    /// As [`ask`](Self::ask), once more on a new connection if this one was closed: a server that refuses a body need not
    /// read it to its end.
    pub(crate) async fn ask_anew(&mut self, request: &Request) -> Result<Reply, Cut> {
        if let Ok(reply) = self.ask(request).await {
            return Ok(reply);
        }
        if let Ok(connection) = Self::open(self.1).await {
            *self = connection;
        }
        self.ask(request).await
    }

    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Reply, Cut> {
        self.ask_with(request, || ()).await
    }

    /// `began` is called when the first byte was given to the socket.
    pub(crate) async fn ask_with(&mut self, request: &Request, began: impl FnOnce()) -> Result<Reply, Cut> {
        let mut sent = 0;
        let result = async {
            self.send(request, 0..request.len(), &mut sent, began).await?;
            self.answer().await
        };
        let result = result.await;
        result.map_err(|error| Cut {
            sent,
            of: request.len(),
            error,
        })
    }

    /// Sends a piece of a request.
    pub(crate) async fn send_part(&mut self, request: &Request, range: std::ops::Range<usize>) -> io::Result<()> {
        self.send(request, range, &mut 0, || ()).await
    }

    async fn send(
        &mut self,
        request: &Request,
        range: std::ops::Range<usize>,
        sent: &mut usize,
        began: impl FnOnce(),
    ) -> io::Result<()> {
        let (step, pause) = request.pace.unwrap_or((usize::MAX, Duration::ZERO));
        let (mut at, mut began) = (range.start, Some(began));
        while at < range.end {
            let end = at.saturating_add(step).min(range.end);
            let written = self.0.get_mut().write(&request.bytes[at..end]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            at += written;
            *sent += written;
            if let Some(began) = began.take() {
                began();
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }

    pub(crate) async fn answer(&mut self) -> io::Result<Reply> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(bad)?;
        let mut len = 0;
        loop {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim().split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                len = value.trim().parse().map_err(|_| bad())?;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).await?;
        let json = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).map_err(|_| bad())?
        };
        Ok(Reply { status, json })
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: &Request) -> io::Result<Reply> {
    let mut connection = Connection::open(address).await?;
    connection.ask(request).await.map_err(|cut| cut.error)
}

/// Numbers that a seed tells.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Of the environment variable `name`, or of the clock.
    pub(crate) fn seed(name: &str) -> u64 {
        let given = std::env::var(name).ok().and_then(|text| text.parse().ok());
        given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::from(now.unwrap().subsec_nanos())
        })
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn between(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Bytes that look like a film: nothing repeats.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
