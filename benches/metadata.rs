//! What `RedbMetadata` costs: `cargo bench --bench metadata` prints a table, in under a minute.
//!
//! Counting syncs needs `strace`; without it that row is left out.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tower_upload::{
    FileName, Key, Owner, UploadId,
    metadata::{Committed, Created, Durability, Guard, MetadataStore, Quota, RedbMetadata, RedbOptions},
    upload::{Handle, Part, Plan, Receipt, Record, Wake},
};

const ROLE: &str = "TOWER_UPLOAD_BENCH_ROLE";
const RECORDS: u64 = 100_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let role = std::env::var(ROLE).unwrap_or_default();
    match role.split_whitespace().collect::<Vec<_>>()[..] {
        ["commits", path, quick_repair, count] => {
            runtime.block_on(commits(Path::new(path), quick_repair == "true", count.parse().unwrap()));
        }
        ["held", path, quick_repair] => runtime.block_on(held(Path::new(path), quick_repair == "true")),
        _ => runtime.block_on(report()),
    }
}

/// This program once more, in a role.
fn role(command: &mut Command, role: &str) {
    command.env(ROLE, role);
}

async fn report() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| directory.path().join(name);
    println!("| measured | default | quick repair | durability none |");
    println!("| --- | --- | --- | --- |");

    let counted: Vec<String> = [false, true]
        .map(|quick| syncs_per_commit(&path("syncs"), quick).map_or("no strace".into(), |syncs| format!("{syncs:.2}")))
        .into();
    println!("| syncs per commit | {} | {} | 0 |", counted[0], counted[1]);

    let modes = [
        RedbOptions::default(),
        RedbOptions::default().with_quick_repair(true),
        RedbOptions::default().with_durability(Durability::None),
    ];
    for writers in [1, 64] {
        let mut row = format!("| part commits/s, {writers} writers |");
        for (mode, options) in modes.iter().enumerate() {
            let rate = rate(&path(&format!("rate-{writers}-{mode}")), options.clone(), writers).await;
            row += &format!(" {rate:.0} |");
        }
        println!("{row}");
    }

    let mut rows = [String::new(), String::new(), String::new()];
    for (mode, options) in modes.iter().enumerate() {
        let (early, late) = latencies(&path(&format!("latency-{mode}")), options.clone()).await;
        rows[0] += &format!(" {early:.0?} |");
        rows[1] += &format!(" {late:.0?} |");
        rows[2] += &format!(" {:.2} |", late.as_secs_f64() / early.as_secs_f64());
    }
    println!("| commit of part 100, median |{}", rows[0]);
    println!("| commit of part 10,000, median |{}", rows[1]);
    println!("| the second over the first |{}", rows[2]);

    let many = path("many");
    fill(&many).await;
    let mut row = format!("| opening {RECORDS} uploads after kill -9 |");
    for quick_repair in [false, true] {
        row += &format!(" {:.0?} |", reopen(&many, quick_repair).await);
    }
    let began = Instant::now();
    let store = RedbMetadata::open(&many).await.unwrap();
    let clean = began.elapsed();
    println!("{row} |\n| opening them after a close | {clean:.0?} | | |");
    println!(
        "| file of {RECORDS} uploads | {} MiB | | |",
        std::fs::metadata(&many).unwrap().len() >> 20
    );
    drop(store);
}

fn record(n: u64) -> Record {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    id[8..].copy_from_slice(&n.to_be_bytes());
    let name = format!("video-{n}.mp4");
    let mut record = Record::new(
        UploadId::from_bytes(id),
        Owner::new(format!("user-{}", n % 1000)),
        FileName::parse(&name).unwrap(),
        Key::parse(&format!("videos/{name}")).unwrap(),
        Plan::indexed(1_000_000, Some(1 << 20), None),
        Handle::new(&name),
    );
    record.named = true;
    record.expire_after = Some(Duration::from_secs(86_400));
    record
}

async fn create(store: &RedbMetadata, n: u64) -> UploadId {
    let new = store.create(&record(n), &[], &Quota::UNLIMITED, Wake::AtExpiry).await;
    match new.unwrap() {
        Created::New(record) => record.id,
        other => panic!("{other:?}"),
    }
}

async fn put(store: &RedbMetadata, id: UploadId, number: u32) {
    let part = Part::new(number, 1 << 20, u64::from(number) << 40, Receipt::new("a receipt"));
    let done = store.commit(id, &Guard::new(1), &[part]).await.unwrap();
    assert!(matches!(done, Committed::Done(_)), "{done:?}");
}

/// Opens, creates an upload, commits `count` parts one after the other.
async fn commits(path: &Path, quick_repair: bool, count: u32) {
    let store = RedbOptions::default()
        .with_quick_repair(quick_repair)
        .open(path)
        .await
        .unwrap();
    let id = create(&store, 1).await;
    for number in 0..count {
        put(&store, id, number).await;
    }
}

/// What 100 commits more cost, so that opening and closing are not counted.
fn syncs_per_commit(path: &Path, quick_repair: bool) -> Option<f64> {
    let count = |commits: u32| {
        let _ = std::fs::remove_file(path);
        let log = path.with_extension("log");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=fdatasync,fsync,sync_file_range", "-o"]);
        strace.arg(&log).arg(std::env::current_exe().unwrap());
        role(
            &mut strace,
            &format!("commits {} {quick_repair} {commits}", path.display()),
        );
        strace.status().ok().filter(|status| status.success())?;
        let log = std::fs::read_to_string(log).ok()?;
        Some(log.lines().filter(|line| line.contains("sync(")).count())
    };
    let (few, many) = (count(50)?, count(150)?);
    Some((many as f64 - few as f64) / 100.0)
}

/// Commits per second by `writers` that each wait for their answer before the next.
async fn rate(path: &Path, options: RedbOptions, writers: u64) -> f64 {
    const TIME: Duration = Duration::from_millis(1500);
    let store = Arc::new(options.open(path).await.unwrap());
    let began = Instant::now();
    let tasks = (0..writers).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let id = create(&store, n).await;
            let mut number = 0;
            while began.elapsed() < TIME {
                put(&store, id, number).await;
                number += 1;
            }
            number
        })
    });
    let done: u32 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    f64::from(done) / began.elapsed().as_secs_f64()
}

/// Medians for an upload with 100 parts and one with 10,000, one commit to each in turn.
async fn latencies(path: &Path, options: RedbOptions) -> (Duration, Duration) {
    const SAMPLES: u32 = 200;
    let store = options.open(path).await.unwrap();
    let (early, late) = (create(&store, 1).await, create(&store, 2).await);
    join_all((0..100).map(|number| put(&store, early, number))).await;
    for start in (0..10_000).step_by(1000) {
        join_all((start..start + 1000).map(|number| put(&store, late, number))).await;
    }
    let (mut early_took, mut late_took) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let began = Instant::now();
        put(&store, early, 100 + sample).await;
        early_took.push(began.elapsed());
        let began = Instant::now();
        put(&store, late, 10_000 + sample).await;
        late_took.push(began.elapsed());
    }
    early_took.sort_unstable();
    late_took.sort_unstable();
    (early_took[early_took.len() / 2], late_took[late_took.len() / 2])
}

async fn fill(path: &Path) {
    let fast = RedbOptions::default()
        .with_durability(Durability::None)
        .with_cache_bytes(256 << 20)
        .with_max_batch(1000);
    let store = fast.open(path).await.unwrap();
    for start in (0..RECORDS).step_by(1000) {
        join_all((start..start + 1000).map(|n| create(&store, n))).await;
    }
    store.close().await;
}

/// Commits once, says so, and commits on until it is killed.
async fn held(path: &Path, quick_repair: bool) {
    let store = RedbOptions::default()
        .with_quick_repair(quick_repair)
        .open(path)
        .await
        .unwrap();
    let id = create(&store, RECORDS + 1 + u64::from(quick_repair)).await;
    for number in 0.. {
        put(&store, id, number).await;
        if number == 20 {
            std::io::stdout().write_all(b"ready\n").unwrap();
        }
    }
}

/// How long opening takes after a process that wrote was killed.
async fn reopen(path: &PathBuf, quick_repair: bool) -> Duration {
    let mut command = Command::new(std::env::current_exe().unwrap());
    role(&mut command, &format!("held {} {quick_repair}", path.display()));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    let store = RedbOptions::default()
        .with_quick_repair(quick_repair)
        .open(path)
        .await
        .unwrap();
    let took = began.elapsed();
    drop(store);
    took
}
