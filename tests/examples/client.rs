//! A raw HTTP/1.1 client: what it sends is exactly what it was given.

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

pub(crate) const MOUNT: &str = "/api/streaming";

pub(crate) struct Connection(BufReader<TcpStream>);

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn data(&self) -> Value {
        let mut json = self.json();
        assert_eq!(json["success"], true, "{}", self.text());
        json["data"].take()
    }

    /// The text of an error.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["success"], false, "{}", self.text());
        (self.status, json["error"]["error"].as_str().unwrap().to_owned())
    }
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    /// A server that has closed already is no error: the answer is read next.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Nothing more is sent.
    pub(crate) async fn finish(&mut self) {
        let _ = self.0.shutdown().await;
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Status and headers; `None` if the connection is over.
    pub(crate) async fn head(&mut self) -> Option<Reply> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        while let Some((name, value)) = self.line().await?.split_once(": ") {
            headers.push((name.to_owned(), value.to_owned()));
        }
        Some(Reply {
            status,
            headers,
            body: Vec::new(),
        })
    }

    /// An answer to anything but HEAD.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        let mut reply = self.head().await?;
        if reply.header("transfer-encoding") == "chunked" {
            while let Some(chunk) = self.chunk().await {
                reply.body.extend(chunk);
            }
        } else {
            let len = reply.header("content-length").parse().unwrap_or(0);
            reply.body = vec![0; len];
            self.0.read_exact(&mut reply.body).await.unwrap();
        }
        Some(reply)
    }

    /// The next chunk of a body in chunked coding; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let len = usize::from_str_radix(&self.line().await?, 16).unwrap();
        let mut chunk = vec![0; len + 2];
        self.0.read_exact(&mut chunk).await.unwrap();
        chunk.truncate(len);
        (len > 0).then_some(chunk)
    }

    /// Whether the server has closed, and has said nothing more before.
    pub(crate) async fn is_over(&mut self) -> bool {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(std::time::Duration::from_secs(5), self.0.read_to_end(&mut rest)).await;
        closed.is_ok() && rest.is_empty()
    }
}

/// The head of a request; `ask` is METHOD PATH, paths without a leading slash being below the mount.
pub(crate) fn head(ask: &str, token: &str, headers: &[(&str, &str)]) -> String {
    let (method, path) = ask.split_once(' ').unwrap();
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{MOUNT}/{path}")
    };
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    if !token.is_empty() {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

const BOUNDARY: &str = "----WebKitFormBoundaryX";
pub(crate) const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=----WebKitFormBoundaryX");
pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A form as a browser sends it; files are `name@file name`.
pub(crate) fn form(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, value) in fields {
        let disposition = match name.split_once('@') {
            Some((name, file)) => {
                format!("name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: application/octet-stream")
            }
            None => format!("name=\"{name}\""),
        };
        form.extend_from_slice(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").as_bytes(),
        );
        form.extend_from_slice(value);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    form
}

/// A chunk as the documented client sends it: the bytes before the fields.
pub(crate) fn chunk_form(bytes: &[u8], video: &str, index: usize, total: usize, file_name: &str) -> Vec<u8> {
    form(&[
        ("chunk@blob", bytes),
        ("videoId", video.as_bytes()),
        ("chunkIndex", index.to_string().as_bytes()),
        ("totalChunks", total.to_string().as_bytes()),
        ("fileName", file_name.as_bytes()),
    ])
}
