//! What runs out: space, descriptors, threads, memory. The server says so, loses nothing, and goes on when there is some again.
#![cfg(all(target_os = "linux", feature = "http", feature = "disk", feature = "redb"))]
#![allow(clippy::unwrap_used, missing_docs)]

mod history;
mod server;
mod wire;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use history::{Film, View, files};
use server::{Server, Settings};
use tokio::sync::Barrier;
use tower_upload::{Uploads, access::OwnerOnly};
use wire::{Connection, Numbers, Reply};

const MIB: usize = 1 << 20;

#[test]
fn server() {
    server::serve_if_asked();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Passes with a word why, but not where everything must be there.
fn skip(why: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
    println!("skipped: {why}");
}

/// A small file system of its own.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        let mount = ["-t", "tmpfs", "-o", "size=8m", "tmpfs"];
        let done = Command::new("mount").args(mount).arg(at).output().ok()?;
        done.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

async fn send(connection: &mut Connection, film: &mut Film, index: u32) -> Reply {
    let request = film.piece(&film.content(), index);
    let reply = connection.ask_anew(&request).await.unwrap();
    film.sent.insert(index);
    if reply.is_success() {
        film.acknowledged.insert(index);
    }
    reply
}

/// Sends what is missing and assembles.
async fn finish(connection: &mut Connection, film: &mut Film, directory: &Path) {
    let reply = connection.ask_anew(&film.status()).await.unwrap();
    let View::Unfinished { missing, .. } = film.check_status(&reply).unwrap() else {
        panic!("{reply:?}");
    };
    for index in missing {
        let reply = send(connection, film, index).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let reply = connection.ask(&film.assembly()).await.unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    film.assembled(&reply);
    film.check_published(directory).unwrap();
}

/// Fills the file system up to `left` bytes.
fn fill(directory: &Path, left: usize) {
    let output = Command::new("df")
        .args(["-B1", "--output=avail"])
        .arg(directory)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let free: usize = text.lines().nth(1).unwrap().trim().parse().unwrap();
    assert!(free > left, "{free}");
    std::fs::write(directory.join("ballast"), vec![1; free - left]).unwrap();
}

async fn nothing_is_left(directory: &Path, published: usize) {
    let uploads = Uploads::open(directory)
        .authorizer(OwnerOnly)
        .orphan_grace(Duration::ZERO)
        .without_driver();
    let uploads = uploads.build().await.unwrap();
    uploads.sweep().await.unwrap();
    let audit = uploads.audit(true).await.unwrap();
    assert!(audit.findings.is_empty(), "{audit:?}");
    assert_eq!(files(&directory.join("partial")), [].into());
    assert_eq!(files(&directory.join("blobs")).len(), published);
}

#[test]
fn a_full_disk() {
    let at = temporary();
    let Some(_small) = Small::mount(at.path()) else {
        return skip("a small file system may not be mounted");
    };
    runtime().block_on(async {
        let directory = at.path().join("data");
        let server = Server::start(&directory, &Settings::default());
        let mut connection = Connection::open(server.address).await.unwrap();
        // At creation: what is declared is reserved, also for those who have not sent it yet.
        let [huge, large, other] =
            [100 * MIB, 5 * MIB, 5 * MIB + 1].map(|len| Film::new("bob", len, len, MIB, false, 1));
        for (film, expected) in [(&huge, 507), (&large, 201), (&other, 507)] {
            let reply = connection.ask(&film.creation()).await.unwrap();
            assert_eq!(reply.status, expected, "{reply:?}");
        }
        for mut given_up in [large, other] {
            let reply = connection.ask(&given_up.creation()).await.unwrap();
            assert!(reply.is_success(), "what was reserved is free again: {reply:?}");
            given_up.created(&reply);
            let reply = connection.ask(&given_up.deletion().unwrap()).await.unwrap();
            assert_eq!(reply.status, 204, "{reply:?}");
        }

        let mut first = Film::new("ann", 1, 2 * MIB, MIB, false, 1);
        let mut second = Film::new("ann", 2, 2 * MIB + 5, MIB, false, 2);
        for film in [&mut first, &mut second] {
            let reply = connection.ask(&film.creation()).await.unwrap();
            assert_eq!(reply.status, 201, "{reply:?}");
            film.created(&reply);
        }
        assert_eq!(send(&mut connection, &mut first, 0).await.status, 200);
        // Somebody else takes the space that was there.
        fill(&directory, MIB / 3);
        let mut refused = 0;
        for _ in 0..3 {
            let reply = send(&mut connection, &mut second, 1).await;
            assert_eq!(reply.status, 507, "{reply:?}");
            refused += 1;
        }
        let mut third = Film::new("ann", 3, MIB, MIB, true, 3);
        let reply = send(&mut connection, &mut third, 0).await;
        assert_eq!(reply.status, 507, "{reply:?}");
        // Nothing of it is stored, the others are as they were.
        for (film, missing) in [(&mut first, vec![1]), (&mut second, vec![0, 1, 2])] {
            let reply = connection.ask(&film.status()).await.unwrap();
            let view = film.check_status(&reply).unwrap();
            assert_eq!(view, View::Unfinished { missing, sealed: false }, "{reply:?}");
        }
        let reply = connection.ask(&third.status()).await.unwrap();
        assert_eq!(third.check_status(&reply).unwrap(), View::Unknown);

        // Not a byte is left: the metadata file cannot grow, nor can anything else.
        std::fs::remove_file(directory.join("ballast")).unwrap();
        fill(&directory, 0);
        let mut answers = std::collections::BTreeMap::new();
        for n in 10..60 {
            let film = Film::new("ann", n, MIB, MIB, false, 3);
            let reply = connection.ask(&film.creation()).await.unwrap();
            *answers.entry(reply.status).or_insert(0) += 1;
        }
        assert_eq!(answers.keys().collect::<Vec<_>>(), [&507], "{answers:?}");
        let reply = connection.ask(&first.status()).await.unwrap();
        first.check_status(&reply).unwrap();

        // And then there is space again.
        std::fs::remove_file(directory.join("ballast")).unwrap();
        let mut third = Film::new("ann", 3, MIB, MIB, true, 3);
        assert_eq!(send(&mut connection, &mut third, 0).await.status, 200);
        for film in [&mut first, &mut second, &mut third] {
            finish(&mut connection, film, &directory).await;
        }
        server.kill();
        nothing_is_left(&directory, 3).await;
        println!(
            "8 MiB: {refused} chunks refused in the middle with 507; 3 uploads finished when there was space again"
        );
    });
}

/// Uploads a film on a connection of its own for each request, until it is done. Answers how often the server was
/// not able to.
async fn persist(film: &mut Film, address: SocketAddr, seed: u64) -> usize {
    let mut numbers = Numbers::new(seed);
    let (content, began, mut refused) = (film.content(), Instant::now(), 0);
    while film.published.is_none() {
        assert!(began.elapsed() < Duration::from_secs(90), "{film:?}");
        let missing = (0..film.total()).find(|index| !film.acknowledged.contains(index));
        let request = match (&film.id, missing) {
            (None, _) => film.creation(),
            (_, Some(index)) => film
                .piece(&content, index)
                .pace(film.chunk / 4, Duration::from_millis(5)),
            _ => film.assembly(),
        };
        let Ok(reply) = wire::ask(address, &request).await else {
            refused += 1;
            tokio::time::sleep(Duration::from_millis(numbers.next() % 100)).await;
            continue;
        };
        match (reply.status, missing) {
            (503, _) => {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(numbers.next() % 200)).await;
            }
            (200 | 201, _) if film.id.is_none() => film.created(&reply),
            (200, Some(index)) => {
                film.acknowledged.insert(index);
            }
            (200, None) => film.assembled(&reply),
            _ => panic!("an answer that nobody expected: {reply:?}"),
        }
    }
    refused
}

/// 64 clients at once, each with a film of three chunks; answers how many requests were refused.
async fn sixty_four(settings: &Settings) -> usize {
    let directory = temporary();
    let server = Server::start(directory.path(), settings);
    let (address, mut running) = (server.address, Vec::new());
    for n in 0..64 {
        let mut film = Film::new("ann", n, 300_000, 131_072, false, n as u64);
        running.push(tokio::spawn(async move {
            let refused = persist(&mut film, address, n as u64).await;
            (film, refused)
        }));
    }
    let mut refused = 0;
    for client in running {
        let (film, times) = client.await.unwrap();
        film.check_published(directory.path()).unwrap();
        refused += times;
    }
    let answer = wire::ask(address, &wire::Request::get("ann", "/uploads/"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    server.kill();
    nothing_is_left(directory.path(), 64).await;
    refused
}

#[test]
fn out_of_descriptors() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        return skip("prlimit is not installed");
    }
    runtime().block_on(async {
        let settings = Settings {
            open_files: Some(64),
            ..Settings::default()
        };
        let refused = sixty_four(&settings).await;
        println!("64 descriptors, 64 clients: {refused} requests refused, all 64 uploads finished");
        assert!(refused > 0, "it never ran out of descriptors");
    });
}

#[test]
fn one_thread_that_blocks() {
    runtime().block_on(async {
        let settings = Settings {
            blocking: 1,
            ..Settings::default()
        };
        let began = Instant::now();
        let refused = sixty_four(&settings).await;
        println!(
            "one blocking thread, 64 clients: all 64 uploads finished in {:.1?}",
            began.elapsed()
        );
        assert_eq!(refused, 0);
    });
}

#[test]
fn stalled_clients_take_no_more_memory_than_they_may() {
    // What hyper reads ahead is not the library's to bound: where it is bound the peak is too, else it is printed only.
    let bounded = Settings {
        read_buffer: 64 << 10,
        ..Settings::default()
    };
    for (settings, is_bounded) in [(bounded, true), (Settings::default(), false)] {
        stalled(&settings, is_bounded);
    }
}

/// Clients that stop in the middle of a chunk that must be held, since the fields come after it.
fn stalled(settings: &Settings, is_bounded: bool) {
    const CLIENTS: usize = 64;
    const CHUNK: usize = 5 * MIB;
    const SLACK: u64 = 32 << 20;
    // While all is written at once the allocator's arenas and the stacks of the threads that write are in it, too.
    const BUSY: u64 = 64 << 20;
    let budget = settings.memory_budget;
    runtime().block_on(async {
        let directory = temporary();
        let server = Server::start(directory.path(), settings);
        let mut warm = Film::new("ann", 1000, CHUNK, CHUNK, true, 1000);
        let mut connection = Connection::open(server.address).await.unwrap();
        assert_eq!(send(&mut connection, &mut warm, 0).await.status, 200);
        let idle = server.memory("VmRSS");
        // All have stopped; all may go on.
        let (stopped, go_on) = (Arc::new(Barrier::new(CLIENTS + 1)), Arc::new(Barrier::new(CLIENTS + 1)));
        let mut running = Vec::new();
        for n in 0..CLIENTS {
            let (stopped, go_on, address) = (Arc::clone(&stopped), Arc::clone(&go_on), server.address);
            running.push(tokio::spawn(async move {
                let mut film = Film::new("ann", n, CHUNK, CHUNK, true, n as u64);
                let request = film.piece(&film.content(), 0);
                let mut connection = Connection::open(address).await.unwrap();
                let half = CHUNK / 2 + n * 1000;
                connection.send_part(&request, 0..half).await.unwrap();
                stopped.wait().await;
                go_on.wait().await;
                connection.send_part(&request, half..request.len()).await.unwrap();
                let reply = connection.answer().await.unwrap();
                assert_eq!(reply.status, 200, "{reply:?}");
                let reply = connection.ask(&film.assembly()).await.unwrap();
                assert_eq!(reply.status, 200, "{reply:?}");
                film.assembled(&reply);
                film
            }));
        }
        stopped.wait().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stalled = server.memory("VmRSS");
        go_on.wait().await;
        for client in running {
            client.await.unwrap().check_published(directory.path()).unwrap();
        }
        let peak = server.memory("VmHWM");
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        println!(
            "{CLIENTS} clients stalled in chunks of {} MiB, budget {} MiB, read buffer {} KiB: idle {:.1} MiB, stalled {:.1} MiB, \
             peak {:.1} MiB",
            CHUNK / MIB,
            budget >> 20,
            settings.read_buffer >> 10,
            mib(idle),
            mib(stalled),
            mib(peak)
        );
        let most = idle + budget + SLACK;
        assert!(stalled <= most, "at most {:.1} MiB", mib(most));
        let most = idle + budget + BUSY;
        assert!(peak <= most || !is_bounded, "at most {:.1} MiB", mib(most));
        // Something was held: the test would not see a server that reads nothing.
        assert!(stalled >= idle + (20 << 20));
    });
}

/// A thousand slow clients cost the budget, and what the server and its connections take beside it.
#[test]
fn a_thousand_slow_clients() {
    runtime().block_on(async {
        const CHUNK: usize = 64 << 10;
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let files: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
        let clients = 1000.min(files.saturating_sub(100) / 3);
        let directory = temporary();
        let server = Server::start(directory.path(), &Settings::default());
        let mut film = Film::new("ann", 1, CHUNK * clients, CHUNK, false, 1);
        let reply = wire::ask(server.address, &film.creation()).await.unwrap();
        film.created(&reply);
        let idle = server.memory("VmRSS");
        let (began, done) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let again = Arc::new(AtomicUsize::new(0));
        let content = film.content();
        let mut running = Vec::new();
        for index in 0..film.total() {
            let request = film.piece(&content, index).pace(CHUNK / 16, Duration::from_millis(150));
            let (address, done) = (server.address, Arc::clone(&done));
            let again = Arc::clone(&again);
            running.push(tokio::spawn(async move {
                // Not all in one moment: the queue of connections that the server has not accepted yet is short.
                tokio::time::sleep(Duration::from_millis(u64::from(index))).await;
                let reply = loop {
                    match wire::ask(address, &request).await {
                        Ok(reply) => break reply,
                        Err(_) => again.fetch_add(1, Ordering::Relaxed),
                    };
                    tokio::time::sleep(Duration::from_millis(100)).await;
                };
                assert_eq!(reply.status, 200, "{reply:?}");
                done.fetch_add(1, Ordering::Relaxed);
            }));
        }
        let mut most = 0;
        while done.load(Ordering::Relaxed) < clients && running.iter().any(|client| !client.is_finished()) {
            most = most.max(server.memory("VmRSS"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for client in running {
            client.await.unwrap();
        }
        let took = began.elapsed();
        let reply = wire::ask(server.address, &film.assembly()).await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        film.assembled(&reply);
        film.check_published(directory.path()).unwrap();
        let more = (most.saturating_sub(idle)) as f64 / MIB as f64;
        println!(
            "{clients} slow clients at once: {took:.1?}, {more:.1} MiB more than idle, {} threads, {} asked again",
            server.threads().len(),
            again.load(Ordering::Relaxed)
        );
        const BESIDE: u64 = 64 << 20;
        let bound = Settings::default().memory_budget + BESIDE;
        assert!(most <= idle + bound, "at most {} MiB more", bound >> 20);
    });
}
