//! The client: HTTP/1.1 on a socket that is kept, which reads and drops.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    buffer: Vec<u8>,
    line: String,
}

impl Client {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::with_capacity(16 << 10, stream),
            buffer: vec![0; 256 << 10],
            line: String::new(),
        }
    }

    /// Reads a file, or bytes `start..end` of it, and answers how many bytes came.
    pub(crate) fn get(&mut self, path: &str, range: Option<(u64, u64)>) -> u64 {
        let range = range.map(|(start, end)| format!("range: bytes={start}-{}\r\n", end - 1));
        let (expected, range) = (if range.is_some() { "206" } else { "200" }, range.unwrap_or_default());
        let head = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n{range}\r\n");
        self.stream.get_mut().write_all(head.as_bytes()).unwrap();
        let (mut len, mut is_first) = (None, true);
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line).unwrap();
            let line = self.line.trim();
            if is_first {
                assert_eq!(line.split(' ').nth(1), Some(expected), "{line}");
                is_first = false;
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                len = Some(value.trim().parse::<u64>().unwrap());
            }
        }
        let len = len.expect("a length");
        let mut left = len;
        while left > 0 {
            let want = left.min(self.buffer.len() as u64) as usize;
            let read = self.stream.read(&mut self.buffer[..want]).unwrap();
            assert!(read > 0, "the answer was cut");
            left -= read as u64;
        }
        len
    }
}

/// Numbers that a seed tells.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
