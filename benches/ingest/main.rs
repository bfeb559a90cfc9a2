//! How fast bytes are taken in, beside floors that do less, in one run: `cargo bench --bench ingest` prints Markdown.
//!
//! Every server is a process of its own that a client on the same machine floods over loopback. Rounds are interleaved (each
//! server once, then all again), each on a fresh directory; ratios are taken within a round. The floors are small hyper servers
//! without metadata, checksums, names, or a commit:
//!
//! * (a) reads bodies and drops them;
//! * (b) writes each frame with `tokio::fs`, and syncs nothing;
//! * (c) is (b) with one `sync_data` for each request;
//! * the disk: no server at all, writers with `O_DIRECT` and one `fdatasync` for each chunk.
//!
//! Ours is measured as it comes, with its writes on tokio's pool, and with `Writes::Inline`; `none` is without durability.
//!
//! `-- --help` lists what can be chosen; `--tus URL` measures any tus server with the same client.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod client;
mod floors;
mod load;
mod ours;
mod process;
mod report;
#[path = "../support/mod.rs"]
mod support;

use std::{path::PathBuf, time::Duration};

use load::{Flow, Load};
use process::{Kind, Server};
use report::{Measured, Table};
use support::machine;

const MIB: u64 = 1 << 20;

const HELP: &str = "\
cargo bench --bench ingest -- [OPTIONS]

--rounds N           7 unless said otherwise
--at 1,4,16,64       how many clients at once
--only NAME,NAME     of the servers; each is named in the tables
--large | --small    only large files (5 MiB at a time), or only small ones (64 KiB)
--total MIB          of one round of large files; 1024
--count N            of small files; 1000
--dir DIR            where files are written; beneath the build directory otherwise
--syscalls           one round more under strace, which is not timed, for a table of system calls
--tus URL            measures a tus server that runs already, by the URL at which it creates uploads
";

/// What was asked for.
struct Args {
    rounds: usize,
    at: Vec<usize>,
    only: Vec<String>,
    large: bool,
    small: bool,
    total: u64,
    count: usize,
    dir: PathBuf,
    syscalls: bool,
    tus: Option<String>,
}

impl Args {
    fn parse() -> Option<Self> {
        let mut args = Self {
            rounds: 7,
            at: vec![1, 4, 16, 64],
            only: Vec::new(),
            large: true,
            small: true,
            total: 1024,
            count: 1000,
            dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
            syscalls: false,
            tus: None,
        };
        let mut given = std::env::args().skip(1);
        while let Some(flag) = given.next() {
            let mut value = || given.next().unwrap_or_else(|| panic!("{flag} needs a value"));
            match flag.as_str() {
                "--rounds" => args.rounds = value().parse().unwrap(),
                "--at" => args.at = value().split(',').map(|n| n.parse().unwrap()).collect(),
                "--only" => args.only = value().split(',').map(str::to_owned).collect(),
                "--large" => args.small = false,
                "--small" => args.large = false,
                "--total" => args.total = value().parse().unwrap(),
                "--count" => args.count = value().parse().unwrap(),
                "--dir" => args.dir = value().into(),
                "--syscalls" => args.syscalls = true,
                "--tus" => args.tus = Some(value()),
                "--bench" => {} // cargo gives it
                _ => return None,
            }
        }
        Some(args)
    }
}

/// A server and the way it is spoken to.
#[derive(Clone, Copy, Debug)]
struct Contender {
    name: &'static str,
    kind: Kind,
    flow: Flow,
}

const fn contender(name: &'static str, kind: Kind, flow: Flow) -> Contender {
    Contender { name, kind, flow }
}

/// The default, writing on the pool; and inline.
const POOL: Kind = Kind::ours(true, false);
const INLINE: Kind = Kind::ours(true, true);

const LARGE: [Contender; 14] = [
    contender("floor-a", Kind::Discard, Flow::Put),
    contender("floor-b", Kind::Write, Flow::Put),
    contender("floor-c", Kind::Sync, Flow::Put),
    contender("disk", Kind::Disk, Flow::Disk),
    contender("raw", POOL, Flow::Chunks),
    contender("raw-inline", INLINE, Flow::Chunks),
    contender("form", POOL, Flow::Form),
    contender("form-inline", INLINE, Flow::Form),
    contender("tus", POOL, Flow::Tus),
    contender("tus-inline", INLINE, Flow::Tus),
    contender("ietf", POOL, Flow::Ietf),
    contender("raw-none", Kind::ours(false, false), Flow::Chunks),
    contender("raw-none-inline", Kind::ours(false, true), Flow::Chunks),
    contender("tus-none", Kind::ours(false, false), Flow::Tus),
];

const SMALL: [Contender; 5] = [
    contender("floor-b", Kind::Write, Flow::Put),
    contender("floor-c", Kind::Sync, Flow::Put),
    contender("form", POOL, Flow::Form),
    contender("tus", POOL, Flow::Tus),
    contender("tus-one", POOL, Flow::TusAtOnce),
];

fn main() {
    if process::serve_if_asked() {
        return;
    }
    let Some(args) = Args::parse() else {
        print!("{HELP}");
        return;
    };
    std::fs::create_dir_all(&args.dir).unwrap();
    println!("{}\n", machine::machine(&args.dir));
    if let Some(url) = &args.tus {
        stranger(&args, url);
        return;
    }
    warm_memory();
    if args.large {
        println!("## Large files\n");
        for &at in &args.at {
            let load = Load::large(at, args.total * MIB);
            compare(&args, &load, &LARGE, "floor-c");
        }
        if args.syscalls {
            syscalls(&args, &Load::large(4, args.total * MIB), &LARGE);
        }
    }
    if args.small {
        println!("## Small files\n");
        for &at in &args.at {
            let load = Load::small(at, args.count);
            compare(&args, &load, &SMALL, "floor-c");
        }
    }
}

fn chosen<'a>(args: &'a Args, contenders: &'a [Contender]) -> impl Iterator<Item = &'a Contender> {
    contenders
        .iter()
        .filter(|contender| args.only.is_empty() || args.only.iter().any(|name| name == contender.name))
}

/// Interleaved rounds of every contender, and their table.
fn compare(args: &Args, load: &Load, contenders: &[Contender], floor: &str) {
    println!("### {load}\n");
    let mut table = Table::new(floor);
    let mut old = Vec::new();
    for round in 0..args.rounds {
        // Each begins at another one, so that nobody always runs after the same.
        let mut turn: Vec<&Contender> = chosen(args, contenders).collect();
        let shift = round % turn.len();
        turn.rotate_left(shift);
        for contender in turn {
            let directory = tempfile::Builder::new()
                .prefix("ingest-")
                .tempdir_in(&args.dir)
                .unwrap();
            let measured = measure(contender, load, &directory, round == 0);
            table.add(contender.name, measured);
            if load.is_small() {
                old.push(directory); // ext4 is slow after many deletions
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    drop(old);
    println!("{table}");
}

fn measure(contender: &Contender, load: &Load, directory: &tempfile::TempDir, check: bool) -> Measured {
    if contender.flow == Flow::Disk {
        return floors::disk(load, directory.path());
    }
    let server = Server::start(contender.kind, directory.path(), false);
    let url = client::Url::new(server.address());
    // The first requests open connections, files and code that later ones find warm.
    load.warm(contender.flow, &url);
    let before = server.cpu();
    let sent = load.run(contender.flow, &url);
    let usage = server.cpu() - before;
    let peak = server.peak();
    drop(server);
    if check && matches!(contender.kind, Kind::Ours { .. }) {
        load.check(directory.path());
    }
    Measured::new(load, sent, Some((usage, peak)))
}

/// System calls of each, under strace, per GiB.
fn syscalls(args: &Args, load: &Load, contenders: &[Contender]) {
    println!("### System calls per GiB: {load}\n");
    println!("| | write | sync_file_range | fsync, fdatasync | recv, read | epoll_wait | futex |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for contender in chosen(args, contenders).filter(|contender| contender.flow != Flow::Disk) {
        let directory = tempfile::Builder::new()
            .prefix("ingest-")
            .tempdir_in(&args.dir)
            .unwrap();
        let server = Server::start(contender.kind, directory.path(), true);
        load.run(contender.flow, &client::Url::new(server.address()));
        let counts = server.syscalls();
        let per_gib = |names: &[&str]| {
            let calls: u64 = names.iter().filter_map(|name| counts.get(*name)).sum();
            (calls as f64 * (1 << 30) as f64 / load.bytes() as f64).round() as u64
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            contender.name,
            per_gib(&["write", "writev", "pwrite64", "pwritev", "pwritev2"]),
            per_gib(&["sync_file_range"]),
            per_gib(&["fsync", "fdatasync"]),
            per_gib(&["read", "readv", "recvfrom", "recvmsg"]),
            per_gib(&["epoll_wait", "epoll_pwait"]),
            per_gib(&["futex"]),
        );
    }
    println!();
}

/// Any tus server, by the URL at which it creates uploads.
fn stranger(args: &Args, url: &str) {
    let url = client::Url::parse(url);
    for &at in &args.at {
        let load = Load::large(at, args.total * MIB);
        println!("### {load}\n");
        let mut table = Table::new("tus");
        load.warm(Flow::Tus, &url);
        for _ in 0..args.rounds {
            let sent = load.run(Flow::Tus, &url);
            table.add("tus", Measured::new(&load, sent, None));
        }
        println!("{table}");
    }
}

/// Memory that this guest has not touched for long is slow to get: some GiB are, before the first round.
fn warm_memory() {
    let bytes = report::memory_available() / 4;
    let mut pages = vec![0_u8; bytes as usize];
    for at in (0..pages.len()).step_by(4096) {
        pages[at] = 1;
    }
    std::hint::black_box(&pages);
}
