//! How fast finished files are sent, beside tower-http's `ServeDir`, in one run: `cargo bench --bench serve` prints Markdown.
//!
//! Each server is a process of its own on hyper's HTTP/1.1 and tokio's default runtime; both send the same files of one
//! directory: ours as blobs of uploads, with the authorizer and the metadata store (redb) asked at each request, `ServeDir` as the
//! files that they are. Clients on the same machine read over loopback and drop what they read. Rounds are interleaved (each
//! server once, then all again, another one first); ratios are taken within a round. The page cache is warm. `ServeDir` reads
//! 64 KiB at a time unless told otherwise; the second one is told to read 256 KiB, as ours does.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod client;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use client::{Client, Numbers};
use server::{Kind, Server, Setting};
use support::{Spread, machine};

const MIB: u64 = 1 << 20;
const RANGE: u64 = MIB;

const HELP: &str = "\
cargo bench --bench serve -- [OPTIONS]

--rounds N       9 unless said otherwise
--at 1,4,16      how many clients at once
--files N        how many files; 4
--size MIB       of each; 256
--total MIB      that all clients read in a round; 2048
--whole|--ranges only whole files, or only random ranges of 1 MiB
--dir DIR        where the files are; beneath the build directory otherwise
";

struct Args {
    rounds: usize,
    at: Vec<usize>,
    files: usize,
    size: u64,
    total: u64,
    whole: bool,
    ranges: bool,
    dir: PathBuf,
}

impl Args {
    fn parse() -> Option<Self> {
        let mut args = Self {
            rounds: 9,
            at: vec![1, 4, 16],
            files: 4,
            size: 256,
            total: 2048,
            whole: true,
            ranges: true,
            dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        };
        let mut given = std::env::args().skip(1);
        while let Some(flag) = given.next() {
            let mut value = || given.next().unwrap_or_else(|| panic!("{flag} needs a value"));
            match flag.as_str() {
                "--rounds" => args.rounds = value().parse().unwrap(),
                "--at" => args.at = value().split(',').map(|n| n.parse().unwrap()).collect(),
                "--files" => args.files = value().parse().unwrap(),
                "--size" => args.size = value().parse().unwrap(),
                "--total" => args.total = value().parse().unwrap(),
                "--whole" => args.ranges = false,
                "--ranges" => args.whole = false,
                "--dir" => args.dir = value().into(),
                "--bench" => {} // cargo gives it
                _ => return None,
            }
        }
        Some(args)
    }
}

/// What clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Whole,
    Ranges,
}

fn main() {
    if server::serve_if_asked() {
        return;
    }
    let Some(args) = Args::parse() else {
        print!("{HELP}");
        return;
    };
    std::fs::create_dir_all(&args.dir).unwrap();
    println!("{}\n", machine::machine(&args.dir));
    let directory = tempfile::Builder::new().prefix("serve-").tempdir_in(&args.dir).unwrap();
    let setting = Setting::make(directory.path(), args.files, args.size * MIB);
    let servers = Kind::ALL.map(|kind| Server::start(kind, &setting));
    for (load, chosen, title) in [
        (Load::Whole, args.whole, "whole files"),
        (Load::Ranges, args.ranges, "random ranges of 1 MiB"),
    ] {
        for &at in args.at.iter().filter(|_| chosen) {
            println!("### {title}, {at} at once, {} MiB a round\n", args.total);
            compare(&args, &setting, &servers, load, at);
        }
    }
}

/// One server in one round.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// MiB a second.
    rate: f64,
    /// Seconds on a processor for each GiB.
    cpu: f64,
    /// Milliseconds, of the request whose answer took longer than 99 of 100.
    p99: f64,
}

fn compare(args: &Args, setting: &Setting, servers: &[Server; Kind::ALL.len()], load: Load, at: usize) {
    let mut rounds = Kind::ALL.map(|_| Vec::new());
    for server in servers {
        run(args, setting, server, load, at, u64::MAX); // warm, and not counted
    }
    for round in 0..args.rounds {
        for turn in 0..servers.len() {
            let which = (round + turn) % servers.len();
            rounds[which].push(run(args, setting, &servers[which], load, at, round as u64));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    println!(
        "| | MiB/s (quartiles) | × {floor} (quartiles) | CPU-s/GiB | p99 ms | peak MiB |",
        floor = servers[0].kind.name()
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (server, measured) in servers.iter().zip(&rounds) {
        let rate = Spread::of(measured.iter().map(|round| round.rate));
        let pairs = rounds[0].iter().zip(measured);
        let ratio = Spread::of(pairs.map(|(floor, ours)| ours.rate / floor.rate));
        let median = |of: fn(&Measured) -> f64| Spread::of(measured.iter().map(of)).median;
        println!(
            "| {} | {rate:.1} | {:.2} ({:.2} to {:.2}) | {:.2} | {:.1} | {} |",
            server.kind.name(),
            ratio.median,
            ratio.low,
            ratio.high,
            median(|round| round.cpu),
            median(|round| round.p99),
            server.peak() / MIB,
        );
    }
    println!();
}

/// `at` clients read until all together have what a round is, each on a connection that it keeps.
fn run(args: &Args, setting: &Setting, server: &Server, load: Load, at: usize, round: u64) -> Measured {
    let before = server.cpu();
    let began = Instant::now();
    let each = (args.total * MIB).div_ceil(at as u64);
    let read: Vec<(u64, Vec<Duration>)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..at)
            .map(|client| {
                scope.spawn(move || read(setting, server, load, each, round.wrapping_mul(64) + client as u64))
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let took = began.elapsed().as_secs_f64();
    let bytes: u64 = read.iter().map(|(bytes, _)| bytes).sum();
    let mut latencies: Vec<Duration> = read.into_iter().flat_map(|(_, latencies)| latencies).collect();
    latencies.sort_unstable();
    let last = latencies[(latencies.len() * 99).div_ceil(100) - 1];
    Measured {
        rate: bytes as f64 / MIB as f64 / took,
        cpu: (server.cpu() - before) * (1 << 30) as f64 / bytes as f64,
        p99: last.as_secs_f64() * 1e3,
    }
}

fn read(setting: &Setting, server: &Server, load: Load, each: u64, seed: u64) -> (u64, Vec<Duration>) {
    let mut client = Client::open(server.address);
    // The same for both servers in one round.
    let mut numbers = Numbers::new(seed);
    let (mut done, mut latencies) = (0, Vec::new());
    while done < each {
        let path = server.path(setting, numbers.below(setting.files.len() as u64) as usize);
        let range = match load {
            Load::Whole => None,
            Load::Ranges => {
                let start = numbers.below(setting.size - RANGE + 1);
                Some((start, start + RANGE))
            }
        };
        let began = Instant::now();
        let len = client.get(&path, range);
        assert_eq!(len, range.map_or(setting.size, |_| RANGE));
        latencies.push(began.elapsed());
        done += len;
    }
    (done, latencies)
}
