//! Long appends against a real process: killed in the middle, raced by other writers, and measured in memory.
//!
//! `CRASH_APPENDS` kills (3 unless said otherwise) in files of `CRASH_APPEND_MIB` (256), `APPEND_RACES` races (20); `APPEND_SEED`
//! repeats the choices of a run, though not its timing.
#![cfg(all(unix, feature = "http", feature = "disk", feature = "redb"))]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod server;
mod wire;

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use server::{Server, Settings};
use tempfile::TempDir;
use wire::Numbers;

const MIB: u64 = 1 << 20;
const CHECKPOINT: u64 = 16 * MIB;
/// What may lie in the buffers of both sockets and of the server, sent but not received.
const UNDER_WAY: u64 = 8 * MIB;

#[test]
fn server() {
    server::serve_if_asked();
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// Not among the system's temporary files, which may lie in memory.
fn temporary() -> TempDir {
    tempfile::Builder::new()
        .prefix("appends-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap()
}

/// An answer whose body is dropped.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    fn offset(&self) -> Option<u64> {
        self.header("upload-offset")?.parse().ok()
    }
}

/// A connection that speaks tus.
struct Tus(BufReader<TcpStream>);

impl Tus {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn head(&mut self, ask: &str, headers: &str) -> io::Result<()> {
        let head = format!("{ask} HTTP/1.1\r\nhost: test\r\nx-user: ann\r\ntus-resumable: 1.0.0\r\n{headers}\r\n");
        self.0.get_mut().write_all(head.as_bytes())
    }

    fn answer(&mut self, has_body: bool) -> io::Result<Answer> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            match line.trim().split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => break,
            }
        }
        let answer = Answer { status, headers };
        let len: usize = answer.header("content-length").map_or(0, |len| len.parse().unwrap());
        if has_body {
            self.0.read_exact(&mut vec![0; len])?;
        }
        Ok(answer)
    }

    /// Where the upload is.
    fn create(&mut self, size: u64) -> io::Result<String> {
        self.head(
            "POST /files/",
            &format!("upload-length: {size}\r\ncontent-length: 0\r\n"),
        )?;
        let answer = self.answer(true)?;
        assert_eq!(answer.status, 201, "{answer:?}");
        Ok(answer.header("location").unwrap().to_owned())
    }

    fn offset(&mut self, path: &str) -> io::Result<Answer> {
        self.head(&format!("HEAD {path}"), "")?;
        self.answer(false)
    }

    fn patch_head(&mut self, path: &str, offset: u64, len: u64) -> io::Result<()> {
        let headers = format!(
            "content-type: application/offset+octet-stream\r\nupload-offset: {offset}\r\ncontent-length: {len}\r\n"
        );
        self.head(&format!("PATCH {path}"), &headers)
    }

    /// Sends the film from `offset` to `end`; tells `sent` how far it is.
    fn patch(&mut self, path: &str, film: &Film, offset: u64, end: u64, sent: &AtomicU64) -> io::Result<Answer> {
        self.patch_head(path, offset, end - offset)?;
        let mut at = offset;
        while at < end {
            let piece = film.piece(at, (end - at).min(256 << 10));
            let written = self.0.get_mut().write(piece)? as u64;
            at += written;
            sent.store(at, Ordering::Relaxed);
        }
        self.answer(true)
    }
}

/// A file that is too large to be kept: its bytes follow from their place.
struct Film {
    pattern: Vec<u8>,
}

impl Film {
    /// A prime, so that nothing that is shifted by a round number looks right.
    const PERIOD: usize = 1_048_573;

    fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut pattern: Vec<u8> = Vec::with_capacity(Self::PERIOD + (1 << 20));
        while pattern.len() < Self::PERIOD {
            pattern.extend_from_slice(&numbers.next().to_le_bytes());
        }
        pattern.truncate(Self::PERIOD);
        pattern.extend_from_within(..);
        Self { pattern }
    }

    fn piece(&self, at: u64, len: u64) -> &[u8] {
        let at = (at % Self::PERIOD as u64) as usize;
        &self.pattern[at..][..(len as usize).min(1 << 20)]
    }

    /// Whether the file holds the film and nothing else.
    fn check(&self, path: &Path, size: u64) {
        let mut file = std::fs::File::open(path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), size);
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < size {
            let len = file.read(&mut buffer).unwrap();
            assert!(
                len > 0 && buffer[..len] == *self.piece(at, len as u64),
                "other bytes at {at}"
            );
            at += len as u64;
        }
    }
}

/// The one file that was published.
fn published(directory: &Path) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut directories = vec![directory.join("blobs")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => found.push(path),
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_kill_in_a_large_append_costs_a_checkpoint_at_most() {
    let size = number("CRASH_APPEND_MIB", 256) * MIB;
    let rounds = number("CRASH_APPENDS", 3);
    let seed = Numbers::seed("APPEND_SEED");
    println!("APPEND_SEED={seed}");
    let mut numbers = Numbers::new(seed);
    let film = Arc::new(Film::new(seed));
    // So that little of what a client has sent lies between it and the server.
    let settings = Settings {
        receive_buffer: Some(1 << 20),
        ..Settings::default()
    };
    let mut again = Vec::new();
    for round in 0..rounds {
        let directory = temporary();
        let server = Server::start(directory.path(), &settings);
        let path = Tus::open(server.address).unwrap().create(size).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let (address, writer) = (server.address, (Arc::clone(&film), path.clone(), Arc::clone(&sent)));
        let writing = std::thread::spawn(move || {
            let (film, path, sent) = writer;
            Tus::open(address)?.patch(&path, &film, 0, size, &sent)
        });
        // Somewhere in the file, as far as it was sent.
        let when = numbers.between(1..=(size * 9 / 10) as usize) as u64;
        while sent.load(Ordering::Relaxed) < when && !writing.is_finished() {
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(server.kill(), Some(9));
        assert!(
            writing.join().unwrap().is_err(),
            "round {round}: it was not killed in the middle"
        );
        let sent = sent.load(Ordering::Relaxed);

        let server = Server::start(directory.path(), &settings);
        let mut tus = Tus::open(server.address).unwrap();
        let answer = tus.offset(&path).unwrap();
        let offset = answer.offset().unwrap_or_else(|| panic!("{answer:?}"));
        assert!(
            offset <= sent,
            "round {round}: {offset} bytes are told of, {sent} were sent"
        );
        assert!(
            sent - offset <= CHECKPOINT + UNDER_WAY,
            "round {round}: {offset} of {sent} bytes are left"
        );
        assert_eq!(offset % CHECKPOINT, 0, "round {round}: {offset} is no checkpoint");
        again.push(sent - offset);
        let answer = tus.patch(&path, &film, offset, size, &AtomicU64::new(0)).unwrap();
        assert_eq!((answer.status, answer.offset()), (204, Some(size)), "{answer:?}");
        film.check(&published(directory.path()), size);
    }
    again.sort_unstable();
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    println!(
        "{rounds} kills in a PATCH of {} MiB: sent again, with what was in the sockets, {:.1} MiB in the middle, {:.1} MiB at \
         most; every file byte-exact",
        size / MIB,
        mib(again[again.len() / 2]),
        mib(*again.last().unwrap())
    );
}

#[test]
fn racing_writers_never_mix_and_never_wait_for_a_client() {
    const SIZE: u64 = 3 * MIB;
    /// A newer request waits for what is under way on the disk, never for the network.
    const TURN: Duration = Duration::from_secs(5);
    let races = number("APPEND_RACES", 20);
    let seed = Numbers::seed("APPEND_SEED");
    println!("APPEND_SEED={seed}");
    let directory = temporary();
    let server = Server::start(directory.path(), &Settings::default());
    let address = server.address;
    let (longest, stopped) = (Arc::new(Mutex::new(Duration::ZERO)), Arc::new(AtomicU64::new(0)));
    for race in 0..races {
        let path = Tus::open(address).unwrap().create(SIZE).unwrap();
        /// Where a request began, and whether all of it was acknowledged.
        type Sent = Arc<Mutex<Vec<(u64, u64, bool)>>>;
        let sent: Sent = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (path, sent, over) = (path.clone(), Arc::clone(&sent), Arc::clone(&over));
                let (longest, stopped) = (Arc::clone(&longest), Arc::clone(&stopped));
                let mut numbers = Numbers::new(seed.wrapping_add(race * 7 + writer));
                std::thread::spawn(move || {
                    for _ in 0..4 {
                        std::thread::sleep(Duration::from_millis(numbers.between(0..=8) as u64));
                        let (mut tus, asked) = (Tus::open(address).unwrap(), Instant::now());
                        let answer = tus.offset(&path).unwrap();
                        let waited = asked.elapsed();
                        assert!(waited < TURN, "race {race}: a HEAD took {waited:?}");
                        let mut most = longest.lock().unwrap();
                        *most = waited.max(*most);
                        drop(most);
                        assert_eq!(answer.status, 200, "{answer:?}");
                        let offset = answer.offset().unwrap();
                        let len = numbers.between(0..=(SIZE - offset) as usize) as u64;
                        let request = {
                            let mut sent = sent.lock().unwrap();
                            sent.push((offset, len, false));
                            sent.len()
                        };
                        let bytes = vec![u8::try_from(request).unwrap(); len as usize];
                        let stalls_at = match numbers.one_in(3) {
                            true => numbers.between(0..=len as usize),
                            false => len as usize,
                        };
                        let stream = tus.0.get_mut();
                        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
                        tus.patch_head(&path, offset, len).unwrap();
                        if tus.0.get_mut().write_all(&bytes[..stalls_at]).is_err() {
                            stopped.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        // Who stalls keeps the connection open for as long as the race takes, unless it is stopped.
                        tus.0
                            .get_mut()
                            .set_read_timeout(Some(Duration::from_millis(200)))
                            .unwrap();
                        let answer = loop {
                            match tus.answer(true) {
                                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                                    if over.load(Ordering::Relaxed) || stalls_at == len as usize {
                                        break None;
                                    }
                                    if numbers.one_in(2) {
                                        break None; // goes away
                                    }
                                }
                                answer => break answer.ok(),
                            }
                        };
                        match answer {
                            Some(answer) if answer.status == 204 => {
                                assert_eq!(stalls_at as u64, len, "a body that did not end was acknowledged");
                                assert_eq!(answer.offset(), Some(offset + len));
                                sent.lock().unwrap()[request - 1].2 = true;
                            }
                            Some(_) => drop(stopped.fetch_add(1, Ordering::Relaxed)),
                            None => {}
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);

        let mut tus = Tus::open(address).unwrap();
        let offset = tus.offset(&path).unwrap().offset().unwrap();
        if offset < SIZE {
            let request = {
                let mut sent = sent.lock().unwrap();
                sent.push((offset, SIZE - offset, true));
                sent.len()
            };
            tus.patch_head(&path, offset, SIZE - offset).unwrap();
            let rest = vec![u8::try_from(request).unwrap(); (SIZE - offset) as usize];
            tus.0.get_mut().write_all(&rest).unwrap();
            assert_eq!(tus.answer(true).unwrap().status, 204);
        }
        let file = published(directory.path());
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(bytes.len() as u64, SIZE, "race {race}");
        let sent = sent.lock().unwrap();
        let (mut at, mut seen) = (0, Vec::new());
        for run in bytes.chunk_by(|a, b| a == b) {
            let request = usize::from(run[0]).checked_sub(1).expect("a byte that nobody sent");
            let (from, len, acknowledged) = sent[request];
            assert_eq!(from, at, "race {race}: two writers are mixed at {at}");
            assert!(
                run.len() as u64 <= len && (!acknowledged || run.len() as u64 == len),
                "race {race}"
            );
            assert!(!seen.contains(&request), "race {race}: a piece is there twice");
            seen.push(request);
            at += run.len() as u64;
        }
        for (request, (_, len, acknowledged)) in sent.iter().enumerate() {
            let there = seen.contains(&request) || *len == 0;
            assert!(!acknowledged || there, "race {race}: acknowledged bytes are lost");
        }
        tus.head(&format!("DELETE {path}"), "").unwrap();
        assert_eq!(tus.answer(true).unwrap().status, 204);
        assert!(!file.exists());
    }
    let stopped = stopped.load(Ordering::Relaxed);
    assert!(stopped > races / 10, "only {stopped} writers were stopped by others");
    println!(
        "{races} races of 3 writers: {stopped} were stopped by others, no HEAD waited longer than {:.0?}",
        longest.lock().unwrap()
    );
}

#[test]
fn large_appends_at_once_take_no_more_memory_than_they_may() {
    const SIZE: u64 = 256 * MIB;
    const SLACK: u64 = 32 * MIB;
    let settings = Settings {
        memory_budget: 32 * MIB,
        ..Settings::default()
    };
    let directory = temporary();
    let server = Server::start(directory.path(), &settings);
    let film = Arc::new(Film::new(1));
    let mut tus = Tus::open(server.address).unwrap();
    let warm = tus.create(MIB).unwrap();
    let answer = tus.patch(&warm, &film, 0, MIB, &AtomicU64::new(0)).unwrap();
    assert_eq!(answer.status, 204, "{answer:?}");
    let idle = server.memory("VmRSS");
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (film, address) = (Arc::clone(&film), server.address);
            std::thread::spawn(move || {
                let mut tus = Tus::open(address).unwrap();
                let path = tus.create(SIZE).unwrap();
                let answer = tus.patch(&path, &film, 0, SIZE, &AtomicU64::new(0)).unwrap();
                assert_eq!((answer.status, answer.offset()), (204, Some(SIZE)));
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let peak = server.memory("VmHWM");
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    println!(
        "4 PATCHes of {} MiB at once, budget {} MiB: idle {:.1} MiB, peak {:.1} MiB",
        SIZE / MIB,
        settings.memory_budget / MIB,
        mib(idle),
        mib(peak)
    );
    assert!(peak <= idle + settings.memory_budget + SLACK);
}
