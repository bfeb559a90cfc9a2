//! What is sent: the same files in the same pieces, in each protocol's own requests.

use std::{
    fmt,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    MIB,
    client::{Client, Url},
};

const CHUNK: u64 = 5 * MIB;
const SMALL: u64 = 64 << 10;

/// How a file is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// To a floor: a PUT for each piece.
    Put,
    /// To no server.
    Disk,
    /// A session, a PUT for each chunk, the assembly.
    Chunks,
    /// A form for each chunk, the chunk before its fields, and the assembly.
    Form,
    /// A creation, and a PATCH for each piece.
    Tus,
    /// A creation that brings the bytes.
    TusAtOnce,
    /// A creation without bytes, and a PATCH for each piece, the last of which completes.
    Ietf,
}

/// The files of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) at: usize,
    pub(crate) files: usize,
    pub(crate) size: u64,
    chunk: u64,
}

/// How a round went.
pub(crate) struct Sent {
    pub(crate) took: Duration,
    /// Of each request that brought bytes.
    pub(crate) latencies: Vec<Duration>,
}

impl Load {
    /// At least 8 files, and one for each client.
    pub(crate) fn large(at: usize, total: u64) -> Self {
        let files = at.max(8);
        let chunks = (total / files as u64).div_ceil(CHUNK);
        Self {
            at,
            files,
            size: chunks * CHUNK,
            chunk: CHUNK,
        }
    }

    pub(crate) const fn small(at: usize, files: usize) -> Self {
        Self {
            at,
            files,
            size: SMALL,
            chunk: SMALL,
        }
    }

    pub(crate) const fn is_small(&self) -> bool {
        self.size == SMALL
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.files as u64 * self.size
    }

    /// Offset and length of each piece of a file.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (size, chunk) = (self.size, self.chunk);
        (0..size.div_ceil(chunk)).map(move |n| (n * chunk, chunk.min(size - n * chunk)))
    }

    pub(crate) fn warm(&self, flow: Flow, url: &Url) {
        let few = Self {
            files: self.at.min(4),
            size: self.chunk,
            ..*self
        };
        few.send(flow, url, "warm");
    }

    pub(crate) fn run(&self, flow: Flow, url: &Url) -> Sent {
        self.send(flow, url, "file")
    }

    fn send(&self, flow: Flow, url: &Url, prefix: &str) -> Sent {
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        let latencies = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..self.at)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = Client::open(url);
                        let mut latencies = Vec::new();
                        loop {
                            let number = next.fetch_add(1, Ordering::Relaxed);
                            if number >= self.files {
                                return latencies;
                            }
                            let mut file = File {
                                load: self,
                                name: format!("{prefix}-{number}.bin"),
                                number: number as u64,
                                client: &mut client,
                                latencies: &mut latencies,
                            };
                            file.send(flow, url);
                        }
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        Sent {
            took: began.elapsed(),
            latencies,
        }
    }

    /// Whether every file was published as it was sent.
    pub(crate) fn check(&self, directory: &Path) {
        let mut directories = vec![directory.join("blobs")];
        let mut found = 0;
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let Some((_, number)) = name.rsplit_once("file-") else {
                    continue;
                };
                let number = number.split('.').next().unwrap().parse().unwrap();
                let bytes = std::fs::read(&path).unwrap();
                assert_eq!(bytes.len() as u64, self.size, "{name}");
                for (offset, len) in self.chunks() {
                    let sent = content(number, offset, len);
                    assert!(
                        bytes[offset as usize..][..len as usize] == *sent,
                        "{name} is not what was sent"
                    );
                }
                found += 1;
            }
        }
        assert_eq!(found, self.files, "files are missing");
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.size {
            size if size >= MIB => format!("{} MiB", size / MIB),
            size => format!("{} KiB", size >> 10),
        };
        write!(f, "{} at once: {} files of {size}", self.at, self.files)
    }
}

/// The bytes of a piece: some of a buffer that does not compress.
fn content(file: u64, offset: u64, len: u64) -> &'static [u8] {
    const LEN: u64 = 16 * MIB;
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut state = 1_u64;
        let words = (0..LEN / 8).flat_map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state ^ (state >> 29)).to_le_bytes()
        });
        words.collect()
    });
    let at = (file * 8191 + offset / 7) % (LEN - len);
    &bytes[at as usize..(at + len) as usize]
}

struct File<'a> {
    load: &'a Load,
    name: String,
    number: u64,
    client: &'a mut Client,
    latencies: &'a mut Vec<Duration>,
}

impl File<'_> {
    fn send(&mut self, flow: Flow, url: &Url) {
        match flow {
            Flow::Disk => {}
            Flow::Put => {
                for (offset, len) in self.load.chunks() {
                    let ask = format!("PUT /{}/{offset}", self.name);
                    self.timed(&ask, "", &[content(self.number, offset, len)]);
                }
            }
            Flow::Chunks => self.chunks(),
            Flow::Form => self.form(),
            Flow::Tus => self.tus(url),
            Flow::TusAtOnce => {
                let headers = format!(
                    "tus-resumable: 1.0.0\r\nupload-length: {}\r\nupload-metadata: {}\r\ncontent-type: application/offset+octet-stream\r\n",
                    self.load.size,
                    self.metadata()
                );
                let bytes = content(self.number, 0, self.load.size);
                self.timed(&format!("POST {}", url.files), &headers, &[bytes]);
            }
            Flow::Ietf => self.ietf(url),
        }
    }

    fn timed(&mut self, ask: &str, headers: &str, body: &[&[u8]]) {
        let began = Instant::now();
        self.client.ask(ask, headers, body);
        self.latencies.push(began.elapsed());
    }

    fn json(&mut self, ask: &str, body: &str) -> Option<String> {
        self.client
            .ask(ask, "content-type: application/json\r\n", &[body.as_bytes()])
            .location
    }

    fn chunks(&mut self) {
        let session = format!(
            r#"{{"fileName":"{}","fileSize":{},"chunkSize":{}}}"#,
            self.name, self.load.size, self.load.chunk
        );
        let upload = self.json("POST /uploads/", &session).unwrap();
        for (index, (offset, len)) in self.load.chunks().enumerate() {
            let ask = format!("PUT {upload}chunks/{index}");
            let media = "content-type: application/octet-stream\r\n";
            self.timed(&ask, media, &[content(self.number, offset, len)]);
        }
        self.json(&format!("POST {upload}assemble/"), "{}");
    }

    fn form(&mut self) {
        const BOUNDARY: &str = "----bench-7MA4YWxkTrZu0gW";
        let total = self.load.chunks().count();
        let media = format!("content-type: multipart/form-data; boundary={BOUNDARY}\r\n");
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"chunk\"; filename=\"blob\"\r\ncontent-type: application/octet-stream\r\n\r\n"
        );
        for (index, (offset, len)) in self.load.chunks().enumerate() {
            let fields = [
                ("videoId", "1".to_owned()),
                ("chunkIndex", index.to_string()),
                ("totalChunks", total.to_string()),
                ("fileName", self.name.clone()),
            ];
            let mut tail = String::new();
            for (name, value) in fields {
                tail += &format!("\r\n--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}");
            }
            tail += &format!("\r\n--{BOUNDARY}--\r\n");
            let pieces = [head.as_bytes(), content(self.number, offset, len), tail.as_bytes()];
            self.timed("POST /upload-chunk/", &media, &pieces);
        }
        let assembly = format!(r#"{{"videoId":1,"fileName":"{}"}}"#, self.name);
        self.json("POST /assemble-chunks/", &assembly);
    }

    /// `filename` in Base64.
    fn metadata(&self) -> String {
        use base64::Engine as _;
        let name = base64::engine::general_purpose::STANDARD.encode(&self.name);
        format!("filename {name}")
    }

    fn tus(&mut self, url: &Url) {
        let headers = format!(
            "tus-resumable: 1.0.0\r\nupload-length: {}\r\nupload-metadata: {}\r\n",
            self.load.size,
            self.metadata()
        );
        let answer = self.client.ask(&format!("POST {}", url.files), &headers, &[]);
        let path = path_of(&answer.location.unwrap());
        for (offset, len) in self.load.chunks() {
            let headers = format!(
                "tus-resumable: 1.0.0\r\nupload-offset: {offset}\r\ncontent-type: application/offset+octet-stream\r\n"
            );
            self.timed(&format!("PATCH {path}"), &headers, &[content(self.number, offset, len)]);
        }
    }

    fn ietf(&mut self, url: &Url) {
        const VERSION: &str = "upload-draft-interop-version: 6\r\n";
        let headers = format!(
            "{VERSION}upload-complete: ?0\r\nupload-length: {}\r\ncontent-disposition: attachment; filename=\"{}\"\r\n",
            self.load.size, self.name
        );
        let answer = self.client.ask(&format!("POST {}", url.files), &headers, &[]);
        let path = path_of(&answer.location.unwrap());
        for (offset, len) in self.load.chunks() {
            let last = u8::from(offset + len == self.load.size);
            let headers = format!(
                "{VERSION}upload-complete: ?{last}\r\nupload-offset: {offset}\r\ncontent-type: application/partial-upload\r\n"
            );
            self.timed(&format!("PATCH {path}"), &headers, &[content(self.number, offset, len)]);
        }
    }
}

/// The path of a URL that may be absolute.
fn path_of(url: &str) -> String {
    match url.split_once("://") {
        Some((_, rest)) => rest[rest.find('/').unwrap_or(rest.len())..].to_owned(),
        None => url.to_owned(),
    }
}
