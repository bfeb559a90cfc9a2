//! Uploads to an object store against the store's own client on the same bytes: `cargo bench --features aws --bench object`
//! measures all of it and prints Markdown; `-- --help` lists what can be chosen.
//!
//! The sink is a server beside this one that speaks S3 and throws bytes away; RGW is Ceph's gateway on a store in memory
//! (installed if it is not there). Rounds are interleaved; figures are medians with quartiles, ratios are taken within rounds.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs
)]

mod engine;
mod floors;
mod server;
#[path = "../../tests/services/mod.rs"]
mod services;
mod sink;
#[path = "../support/mod.rs"]
mod support;

use std::{process::ExitCode, time::Duration};

use bytes::Bytes;
use engine::Order;
use server::Server;
use services::Service;
use sink::Sink;
use support::{Spread, served};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MIB: u64 = 1 << 20;
const PART: u64 = 5 * MIB;

const HELP: &str = "\
cargo bench --features aws --bench object -- [OPTIONS] [bytes] [assemble] [upload] [memory]

--rounds N      7
--mib N         of the file: 1024 (bytes, assemble), a quarter of it (upload)
--at-once N     parts on their way at the same time: 8
--store NAME    sink or rgw alone, for `upload`
";

struct Asked {
    what: Vec<String>,
    rounds: usize,
    mib: u64,
    at_once: usize,
    store: Option<String>,
}

impl Asked {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut asked = Self {
            what: Vec::new(),
            rounds: 7,
            mib: 1024,
            at_once: 8,
            store: None,
        };
        while let Some(flag) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{flag} needs a value"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{flag} is a whole number"));
            match flag.as_str() {
                "--rounds" => asked.rounds = number(value()?)?.max(1) as usize,
                "--mib" => asked.mib = number(value()?)?.max(16),
                "--at-once" => asked.at_once = number(value()?)?.max(1) as usize,
                "--store" => asked.store = Some(value()?),
                "--bench" => {} // cargo gives it
                "--help" => return Ok(None),
                word if ["bytes", "assemble", "upload", "memory"].contains(&word) => asked.what.push(flag),
                other => return Err(format!("unknown option {other}; --help lists them")),
            }
        }
        Ok(Some(asked))
    }

    fn wants(&self, what: &str) -> bool {
        self.what.is_empty() || self.what.iter().any(|asked| asked == what)
    }
}

fn main() -> ExitCode {
    if let Some(role) = served::role() {
        match role.split_once(' ').unwrap() {
            ("sink", role) => sink::play(role),
            (kind, url) => server::play(kind, url),
        }
        return ExitCode::SUCCESS;
    }
    let asked = match Asked::parse(std::env::args().skip(1)) {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if asked.wants("bytes") {
            bytes(&asked).await;
        }
        let rgw = match asked.wants("assemble") || asked.wants("upload") && asked.store.as_deref() != Some("sink") {
            true => Service::start_or_skip("rgw", &[]),
            false => None,
        };
        if let (true, Some(rgw)) = (asked.wants("assemble"), &rgw) {
            assemble(&asked, &url(rgw.get("AWS_ENDPOINT"))).await;
        }
        if asked.wants("upload") {
            if asked.store.as_deref() != Some("rgw") {
                let sink = Sink::start(false, false, Duration::ZERO);
                upload(&asked, "the sink", &url(&sink.url)).await;
            }
            if let Some(rgw) = &rgw {
                upload(&asked, "RGW", &url(rgw.get("AWS_ENDPOINT"))).await;
            }
        }
        if asked.wants("memory") {
            memory().await;
        }
    });
    ExitCode::SUCCESS
}

/// The store of a test server, as [`tower_upload::blob::object::ObjectBlobs::from_url`] takes it.
fn url(endpoint: &str) -> String {
    format!(
        "s3://uploads/bench?endpoint={endpoint}&allow_http=true&access_key_id=testing-key\
         &secret_access_key=testing-secret&region=us-east-1"
    )
}

/// One part's bytes; parts differ in nothing, as far as speed goes.
fn block() -> Bytes {
    let mut seed = 1_u64;
    let bytes = std::iter::repeat_with(|| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    });
    Iterator::take(bytes, PART as usize).collect::<Vec<u8>>().into()
}

/// The body of the answer to one request.
async fn ask(address: &str, line: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nhost: sink\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default()
}

/// What is sent to the store for each byte that is received.
async fn bytes(asked: &Asked) {
    let len = asked.mib * MIB;
    println!(
        "## Bytes sent to the store for each byte received: {} MiB in chunks of 5 MiB\n",
        asked.mib
    );
    println!("| | bytes a byte | requests |\n| --- | --- | --- |");
    for (name, order, is_announced) in [
        ("in order", Order::Forth, true),
        ("shuffled", Order::Shuffled, true),
        ("last first", Order::Back, true),
        ("in order, no size known before", Order::Forth, false),
        ("shuffled, no size known before", Order::Shuffled, false),
        ("last first, no size known before", Order::Back, false),
        ("one append of the whole", Order::Append, true),
        ("4 partial uploads, joined", Order::Joined(4), true),
        ("10 partial uploads, joined", Order::Joined(10), true),
    ] {
        let sink = Sink::start(true, true, Duration::ZERO);
        let engine = engine::Engine::open(&url(&sink.url), false).await;
        sink.take_counts().await;
        let id = engine.upload(len, order, is_announced, asked.at_once).await;
        engine.assemble(id).await;
        engine.close().await;
        let counts = sink.take_counts().await;
        let sent: u64 = counts.values().map(|(_, bytes)| bytes).sum();
        let requests: Vec<String> = counts
            .iter()
            .map(|(kind, (count, _))| format!("{kind} {count}"))
            .collect();
        println!("| {name} | {:.4} | {} |", sent as f64 / len as f64, requests.join(", "));
    }
    println!();
}

/// Assembly through the engine against the bare request that it must end with.
async fn assemble(asked: &Asked, url: &str) {
    let len = asked.mib * MIB;
    let parts = len.div_ceil(PART);
    println!("## Assembly of {} MiB, {parts} parts of 5 MiB, on RGW\n", asked.mib);
    let store = floors::store(url);
    let (mut bare, mut light, mut durable) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..asked.rounds {
        let (took, path) = floors::complete(&store, len, asked.at_once).await;
        bare.push(took.as_secs_f64() * 1e3);
        floors::delete(&store, path).await;
        for (is_durable, times) in [(false, &mut light), (true, &mut durable)] {
            let engine = engine::Engine::open(url, is_durable).await;
            let id = engine.upload(len, Order::Shuffled, true, asked.at_once).await;
            times.push(engine.assemble(id).await.as_secs_f64() * 1e3);
            engine.delete(id).await;
            engine.close().await;
        }
    }
    println!("| | ms (quartiles) | × the bare request |\n| --- | --- | --- |");
    for (name, times) in [
        ("bare CompleteMultipartUpload", &bare),
        ("the engine's assemble, metadata in memory", &light),
        ("the engine's assemble, metadata in redb, synced", &durable),
    ] {
        let ratio = Spread::of(times.iter().zip(&bare).map(|(ours, bare)| ours / bare));
        println!("| {name} | {:.1} | {ratio:.2} |", Spread::of(times.iter().copied()),);
    }
    println!();
}

/// Throughput against the store's own client.
async fn upload(asked: &Asked, name: &str, url: &str) {
    let len = asked.mib / 4 * MIB;
    println!(
        "## Upload of {} MiB to {name}, parts of 5 MiB, {} at once, {} rounds\n",
        len / MIB,
        asked.at_once,
        asked.rounds
    );
    let store = floors::store(url);
    let engine = engine::Engine::open(url, true).await;
    let naive = Server::start("naive", url);
    let ours = Server::start("ours", url);
    let names = [
        "object_store's put_multipart",
        "the engine",
        "HTTP: a server that holds each part and calls put_part",
        "HTTP: the service",
    ];
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    // One more, which warms all up.
    for round in 0..=asked.rounds {
        for (way, rates) in rates.iter_mut().enumerate() {
            let began = std::time::Instant::now();
            match way {
                0 => {
                    let path = floors::put_multipart(&store, len, asked.at_once).await;
                    note(round, began, len, rates);
                    floors::delete(&store, path).await;
                }
                1 => {
                    let id = engine.upload(len, Order::Forth, true, asked.at_once).await;
                    engine.assemble(id).await;
                    note(round, began, len, rates);
                    engine.delete(id).await;
                }
                _ => {
                    let server = if way == 2 { &naive } else { &ours };
                    let id = server.upload(len, asked.at_once).await;
                    note(round, began, len, rates);
                    server.delete(&id).await;
                }
            }
        }
    }
    println!("| | MiB/s (quartiles) | × {} |\n| --- | --- | --- |", names[0]);
    for (name, own) in names.iter().zip(&rates) {
        let ratio = Spread::of(own.iter().zip(&rates[0]).map(|(own, floor)| own / floor));
        println!("| {name} | {:.1} | {ratio:.3} |", Spread::of(own.iter().copied()),);
    }
    println!();
}

fn note(round: usize, began: std::time::Instant, len: u64, rates: &mut Vec<f64>) {
    if round > 0 {
        rates.push((len / MIB) as f64 / began.elapsed().as_secs_f64());
    }
}

/// Resident memory while many chunks are on their way to a store that is slow.
async fn memory() {
    const AT_ONCE: usize = 64;
    println!("## Resident memory: {AT_ONCE} chunks of 5 MiB at once\n");
    println!("| a part takes the store | idle MiB | peak MiB |\n| --- | --- | --- |");
    for delay in [0, 300, 2000] {
        let sink = Sink::start(false, false, Duration::from_millis(delay));
        let server = Server::start("ours", &url(&sink.url));
        drop(server.upload(PART, 1).await);
        let idle = server.memory("VmRSS:");
        drop(server.upload(4 * AT_ONCE as u64 * PART, AT_ONCE).await);
        println!(
            "| {delay} ms | {:.1} | {:.1} |",
            idle as f64 / MIB as f64,
            server.memory("VmHWM:") as f64 / MIB as f64
        );
    }
    println!(
        "\nThe budgets are {} MiB of bodies in the engine and {} MiB of parts in the store.\n",
        server::BUDGET / MIB,
        server::STORE_MEMORY / MIB
    );
}
