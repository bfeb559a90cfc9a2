//! One HTTP request on a connection of its own, whose end it knows, whatever that was.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub(crate) const MOUNT: &str = "/api/streaming";

/// How long a client waits for anything before it gives a request up.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// `Upload-Offset`
    pub(crate) fn offset(&self) -> Option<u64> {
        self.header("upload-offset")?.parse().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// Whether a real client would try the same again: the server or the way to it is in trouble.
    pub(crate) const fn is_trouble(&self) -> bool {
        matches!(self.status, 408 | 423 | 429) || self.status >= 500
    }

    /// What a person needs to know of it.
    pub(crate) fn brief(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
        format!("{} {:?} {text}", self.status, self.headers)
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    /// METHOD PATH; a path without a leading slash is below the mount.
    pub(crate) line: String,
    pub(crate) token: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: &'a [u8],
    /// Bytes at a time and the pause after each.
    pub(crate) pace: Option<(usize, Duration)>,
    /// The client goes away after so many bytes of the body.
    pub(crate) leaves_at: Option<usize>,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct End {
    /// Bytes of the body that were given to the socket.
    pub(crate) sent: usize,
    /// None: the connection broke, or nobody answered.
    pub(crate) reply: Option<Reply>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(line: impl Into<String>, token: &'a str) -> Self {
        Self {
            line: line.into(),
            token,
            headers: Vec::new(),
            body: &[],
            pace: None,
            leaves_at: None,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) const fn body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    pub(crate) async fn send(&self, to: SocketAddr) -> End {
        let mut sent = 0;
        let reply = self.try_send(to, &mut sent).await;
        End { sent, reply }
    }

    async fn try_send(&self, to: SocketAddr, sent: &mut usize) -> Option<Reply> {
        let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(to));
        let mut stream = connecting.await.ok()?.ok()?;
        stream.set_nodelay(true).ok()?;
        stream.write_all(self.head().as_bytes()).await.ok()?;
        let end = self.leaves_at.unwrap_or(self.body.len()).min(self.body.len());
        while *sent < end {
            let (step, pause) = self.pace.unwrap_or((256 << 10, Duration::ZERO));
            let piece = &self.body[*sent..end.min(*sent + step.max(1))];
            match tokio::time::timeout(PATIENCE, stream.write(piece)).await {
                Ok(Ok(written @ 1..)) => *sent += written,
                // It may have answered before it closed.
                _ => break,
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        if self.leaves_at.is_some() {
            return None;
        }
        let is_head = self.line.starts_with("HEAD ");
        tokio::time::timeout(PATIENCE, answer(&mut stream, is_head))
            .await
            .ok()?
    }

    fn head(&self) -> String {
        let (method, path) = self.line.split_once(' ').unwrap();
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{MOUNT}/{path}"),
        };
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: nodes\r\nConnection: close\r\nAuthorization: Bearer {}\r\n",
            self.token
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || method != "GET" && method != "HEAD" {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head + "\r\n"
    }
}

async fn answer(stream: &mut TcpStream, is_head: bool) -> Option<Reply> {
    let mut bytes = Vec::new();
    loop {
        // Interim answers come before.
        while let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
            let rest = bytes.split_off(at + 4);
            let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
            if status >= 200 {
                return body(stream, status, &head, rest, is_head).await;
            }
            bytes = rest;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

async fn body(stream: &mut TcpStream, status: u16, head: &str, mut body: Vec<u8>, is_head: bool) -> Option<Reply> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = lines
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let find = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    if !is_head && status != 204 {
        match (find("content-length"), find("transfer-encoding")) {
            (Some(len), _) => {
                let have = body.len();
                body.resize(len.parse().ok()?, 0);
                stream.read_exact(&mut body[have..]).await.ok()?;
            }
            (None, Some(_)) => {
                stream.read_to_end(&mut body).await.ok()?;
                body = unchunked(&body)?;
            }
            (None, None) => drop(stream.read_to_end(&mut body).await.ok()?),
        }
    }
    Some(Reply { status, headers, body })
}

/// A whole body in chunked coding.
fn unchunked(mut coded: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let at = coded.windows(2).position(|two| two == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&coded[..at]).ok()?, 16).ok()?;
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(coded.get(at + 2..at + 2 + len)?);
        coded = coded.get(at + 4 + len..)?;
    }
}
