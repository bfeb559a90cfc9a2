//! The client: HTTP/1.1 on a socket that is kept, as cheap as can be.

use std::{
    io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
};

/// Where a server is.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    address: SocketAddr,
    /// At which uploads are created, by tus and the IETF's protocol.
    pub(crate) files: String,
}

impl Url {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            files: "/files/".into(),
        }
    }

    pub(crate) fn parse(url: &str) -> Self {
        let rest = url
            .strip_prefix("http://")
            .expect("a URL as in http://127.0.0.1:8080/files/");
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = host.to_socket_addrs().unwrap().next().unwrap();
        Self {
            address,
            files: format!("/{path}"),
        }
    }
}

/// A connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
}

impl Client {
    pub(crate) fn open(url: &Url) -> Self {
        let stream = TcpStream::connect(url.address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
            line: String::new(),
            body: Vec::new(),
        }
    }

    /// Sends a request whose body is these pieces, one after the other.
    pub(crate) fn ask(&mut self, ask: &str, headers: &str, body: &[&[u8]]) -> Answer {
        let len: usize = body.iter().map(|piece| piece.len()).sum();
        let head = format!("{ask} HTTP/1.1\r\nhost: bench\r\n{headers}content-length: {len}\r\n\r\n");
        let mut slices: Vec<IoSlice<'_>> = std::iter::once(head.as_bytes())
            .chain(body.iter().copied())
            .map(IoSlice::new)
            .collect();
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let written = self.stream.get_mut().write_vectored(left).unwrap();
            IoSlice::advance_slices(&mut left, written);
        }
        self.answer()
    }

    fn answer(&mut self) -> Answer {
        let mut answer = Answer {
            status: 0,
            location: None,
        };
        let mut len = 0;
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line).unwrap();
            let line = self.line.trim();
            if answer.status == 0 {
                answer.status = line.split(' ').nth(1).unwrap().parse().unwrap();
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => len = value.trim().parse().unwrap(),
                "location" => answer.location = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        self.body.resize(len, 0);
        self.stream.read_exact(&mut self.body).unwrap();
        assert!(
            (200..300).contains(&answer.status),
            "{} {}",
            answer.status,
            String::from_utf8_lossy(&self.body)
        );
        answer
    }
}
