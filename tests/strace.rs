//! Every system call that changes something, one after the other: the process is killed before it, or it fails.
//!
//! Needs `strace`, and leave to attach to a process; says so and passes without, unless the environment has `CI=true`.
//! One thread serves, one blocks and one commits, so that a call is the same in each run: the n-th of its name on
//! its thread. `STRACE_SECONDS` (150 unless said otherwise) bounds each sweep over all calls; what does not fit is left out at random.
#![cfg(all(target_os = "linux", feature = "http", feature = "disk", feature = "redb"))]
#![allow(clippy::unwrap_used, missing_docs)]

mod history;
mod server;
mod wire;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use history::{Film, View, files};
use server::{Server, Settings};
use tower_upload::{Uploads, access::OwnerOnly};
use wire::{Connection, Numbers, Reply, Request};

/// Calls that change files. `write` is not among them: once it runs, the server writes with it to the event counters of
/// its runtime alone, which [`count`] makes sure of.
const CHANGING: &str = "openat,openat2,pwrite64,pwritev,pwritev2,fdatasync,fsync,ftruncate,fallocate,linkat,\
                        unlinkat,mkdirat,renameat,renameat2,copy_file_range,sync_file_range";
/// Calls that send an answer.
const ANSWERING: &str = "writev,sendto,sendmsg";
/// Calls that a full disk fails.
const FILLING: [&str; 8] = [
    "openat",
    "openat2",
    "pwrite64",
    "pwritev",
    "fallocate",
    "linkat",
    "mkdirat",
    "copy_file_range",
];
const BARRIERS: &str = "fsync,fdatasync,msync,syncfs,sync,sync_file_range";
const SIGKILL: i32 = 9;
const SETTINGS: Settings = Settings {
    receive_buffer: None,
    workers: 0,
    blocking: 1,
    memory_budget: 64 << 20,
    max_chunk: 128 << 20,
    read_buffer: server::DEFAULT_READ_BUFFER,
    open_files: None,
};

#[test]
fn server() {
    server::serve_if_asked();
}

/// A thread of the server by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Serves,
    Blocks,
    Commits,
}

impl Role {
    const ALL: [Self; 3] = [Self::Serves, Self::Blocks, Self::Commits];

    /// The thread; a new one has its name a moment later.
    fn thread(self, server: &Server) -> u32 {
        let name = match self {
            Self::Serves => "server",
            Self::Blocks => "upload-io",
            Self::Commits => "upload-metadata",
        };
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let mut threads = server.threads();
            threads.retain(|thread| thread.1 == name);
            match threads[..] {
                [(thread, _)] => return thread,
                _ if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                _ => panic!("no thread {name} alone: {:?}", server.threads()),
            }
        }
    }
}

/// strace, attached to threads.
struct Tracer(Child);

impl Tracer {
    /// Attaches. `None` if that is not allowed.
    fn attach(threads: &[u32], log: &Path, options: &[&str]) -> Option<Self> {
        let mut command = Command::new("strace");
        command.arg("-o").arg(log).args(options);
        for thread in threads {
            command.arg("-p").arg(thread.to_string());
        }
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for _ in threads {
            let is_attached =
                |line: &std::io::Result<String>| line.as_ref().is_ok_and(|line| line.contains("attached"));
            if !lines.next().as_ref().is_some_and(is_attached) {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self(child))
    }

    /// Waits until the traced process has ended.
    fn end(mut self) {
        self.0.wait().unwrap();
    }
}

/// Whether strace can do what is needed; a failure where it must.
fn can_trace() -> bool {
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    let log = temporary();
    let tracer = Tracer::attach(&[sleeper.id()], &log.path().join("log"), &[]);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let works = tracer.map(Tracer::end).is_some();
    if !works {
        let is_there = Command::new("strace").arg("-V").output().is_ok();
        let why = if is_there {
            "strace may not attach to a process"
        } else {
            "strace is not installed"
        };
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
        println!("skipped: {why}");
    }
    works
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A server that has come to rest.
async fn start(directory: &Path) -> Server {
    let server = Server::start(directory, &SETTINGS);
    let reply = wire::ask(server.address, &Request::get("ann", "/uploads/"))
        .await
        .unwrap();
    assert_eq!(reply.status, 200);
    tokio::time::sleep(Duration::from_millis(10)).await;
    server
}

/// How a call is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Error(&'static str),
}

/// The `n`-th call of a name on a thread, and what becomes of it.
#[derive(Clone, Debug)]
struct Point {
    fault: Fault,
    role: Role,
    call: String,
    n: usize,
}

/// What came of a point.
#[derive(Debug, Default)]
struct Outcome {
    reached: bool,
    /// Requests that were answered with an error.
    refused: usize,
    /// It was finished without a restart.
    finished_before: bool,
    acknowledged: usize,
}

/// Four chunks, the last one shorter.
fn film() -> Film {
    Film::new("ann", 1, 3 * 40_960 + 1234, 40_960, false, 42)
}

/// Goes on until the film is published, the server is gone, or a request fails five times.
async fn upload(film: &mut Film, server: &Server, outcome: &mut Outcome) -> Result<(), String> {
    let content = film.content();
    let mut failures = 0;
    let mut connection = None;
    while film.published.is_none() {
        let next = match film.id {
            None => film.creation(),
            Some(_) => match (0..film.total()).find(|index| !film.acknowledged.contains(index)) {
                Some(index) => {
                    film.sent.insert(index);
                    film.piece(&content, index)
                }
                None => film.assembly(),
            },
        };
        let mut asked = match connection.take() {
            Some(connection) => connection,
            None => match Connection::open(server.address).await {
                Ok(connection) => connection,
                Err(_) => return Ok(()),
            },
        };
        match tokio::time::timeout(Duration::from_secs(20), asked.ask(&next)).await {
            Ok(Ok(reply)) if reply.is_success() => {
                note(film, &reply);
                connection = Some(asked);
            }
            Ok(Ok(reply)) if reply.status >= 500 => {
                outcome.refused += 1;
                failures += 1;
                connection = Some(asked);
            }
            Ok(Ok(reply)) => return Err(format!("an answer that nobody expected: {reply:?}")),
            Ok(Err(_)) => failures += 1,
            Err(_) => return Err(format!("no answer for 20 s: {film:?}")),
        }
        if failures == 5 {
            return Ok(());
        }
    }
    Ok(())
}

fn note(film: &mut Film, reply: &Reply) {
    let data = reply.data();
    if let Some(index) = data["chunk_index"].as_u64() {
        film.acknowledged.insert(u32::try_from(index).unwrap());
    } else if data["upload_id"].is_string() {
        film.created(reply);
    } else {
        film.assembled(reply);
    }
}

/// Injects the fault, restarts the server, finishes the upload and looks at what is there.
async fn inject(point: &Point) -> Result<Outcome, String> {
    let (directory, log) = (temporary(), temporary());
    let log = log.path().join("log");
    let mut film = film();
    let mut outcome = Outcome::default();

    let mut server = start(directory.path()).await;
    let what = match point.fault {
        Fault::Kill => "signal=SIGKILL".to_owned(),
        Fault::Error(error) => format!("error={error}"),
    };
    let trace = format!("trace={}", point.call);
    let inject = format!("inject={}:{what}:when={}", point.call, point.n);
    let thread = point.role.thread(&server);
    let tracer = Tracer::attach(&[thread], &log, &["-e", &trace, "-e", &inject]).ok_or("strace does not attach")?;
    upload(&mut film, &server, &mut outcome).await?;
    outcome.acknowledged = film.acknowledged.len();
    outcome.finished_before = film.published.is_some();
    if point.fault == Fault::Kill {
        // Its answer may have been read before the last call, which then follows.
        for _ in 0..20 {
            if let Some(signal) = server.died_of() {
                outcome.reached = signal == Some(SIGKILL);
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    if !outcome.reached {
        server.kill();
    } else {
        drop(server);
    }
    tracer.end();
    let log = std::fs::read_to_string(&log).unwrap();
    match point.fault {
        Fault::Error(_) => outcome.reached = log.contains("(INJECTED)"),
        Fault::Kill if outcome.reached => {
            let calls = log.lines().filter(|line| line.starts_with(&point.call)).count();
            if calls != point.n || !log.contains("killed by SIGKILL") {
                return Err(format!("it was killed elsewhere: {log}"));
            }
        }
        Fault::Kill => {}
    }

    let server = start(directory.path()).await;
    let mut connection = Connection::open(server.address).await.unwrap();
    let reply = connection
        .ask(&film.status())
        .await
        .map_err(|cut| cut.error.to_string())?;
    match film.check_status(&reply)? {
        View::Ended => return Err(format!("it ended: {reply:?}")),
        View::Published => {}
        View::Unknown => film.acknowledged.clear(),
        // What is received but was not acknowledged is not sent again: its bytes are compared below.
        View::Unfinished { missing, .. } => {
            film.acknowledged = (0..film.total()).filter(|index| !missing.contains(index)).collect();
        }
    }
    let mut rest = Outcome::default();
    upload(&mut film, &server, &mut rest).await?;
    if film.published.is_none() || rest.refused > 0 {
        return Err(format!("it is not finished after the restart: {rest:?}, {film:?}"));
    }
    film.check_published(directory.path())?;
    server.kill();

    let uploads = Uploads::open(directory.path())
        .authorizer(OwnerOnly)
        .orphan_grace(Duration::ZERO)
        .without_driver();
    let uploads = uploads.build().await.map_err(|error| error.to_string())?;
    uploads.sweep().await.map_err(|error| error.to_string())?;
    let audit = uploads.audit(true).await.map_err(|error| error.to_string())?;
    let (left, blobs) = (
        files(&directory.path().join("partial")),
        files(&directory.path().join("blobs")),
    );
    if !left.is_empty() || blobs.iter().ne(film.published.iter()) || !audit.findings.is_empty() {
        return Err(format!("left over: {left:?}; blobs: {blobs:?}; {audit:?}"));
    }
    film.check_published(directory.path())?;
    Ok(outcome)
}

/// How often each call is made by each thread.
async fn count() -> BTreeMap<(Role, String), usize> {
    let (directory, log) = (temporary(), temporary());
    let server = start(directory.path()).await;
    let mut counts = BTreeMap::new();
    let mut tracers = Vec::new();
    for role in Role::ALL {
        let log = log.path().join(format!("{role:?}"));
        let trace = format!("trace={CHANGING},{ANSWERING},write");
        let tracer = Tracer::attach(&[role.thread(&server)], &log, &["-y", "-e", &trace]).unwrap();
        tracers.push((role, log, tracer));
    }
    let mut film = film();
    upload(&mut film, &server, &mut Outcome::default()).await.unwrap();
    film.check_published(directory.path()).unwrap();
    // What follows the last answer.
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.kill();
    for (role, log, tracer) in tracers {
        tracer.end();
        for line in std::fs::read_to_string(log).unwrap().lines() {
            let Some((call, on)) = line.split_once('(') else {
                continue;
            };
            if call == "write" {
                assert!(on.contains("<anon_inode:[eventfd]>"), "{line}");
                continue;
            }
            if call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                *counts.entry((role, call.to_owned())).or_insert(0) += 1;
            }
        }
    }
    counts
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Every point, or as many at random as the time allows, by two workers.
fn sweep(name: &str, mut points: Vec<Point>) {
    let seconds = std::env::var("STRACE_SECONDS").map_or(150, |seconds| seconds.parse().unwrap());
    let seed = Numbers::seed("STRACE_SEED");
    let mut numbers = Numbers::new(seed);
    for at in (1..points.len()).rev() {
        points.swap(at, numbers.below(at + 1));
    }
    let (all, began) = (points.len(), Instant::now());
    let queue = Mutex::new(points);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = runtime();
                while began.elapsed() < Duration::from_secs(seconds) {
                    let Some(point) = queue.lock().unwrap().pop() else {
                        break;
                    };
                    let result = runtime.block_on(inject(&point));
                    results.lock().unwrap().push((point, result));
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let (mut reached, mut refused, mut finished, mut acknowledged) = (0, 0, 0, 0);
    let (mut wrong, mut missed) = (Vec::new(), Vec::new());
    for (point, result) in &results {
        match result {
            Ok(outcome) => {
                reached += usize::from(outcome.reached);
                refused += usize::from(outcome.refused > 0);
                finished += usize::from(outcome.finished_before);
                acknowledged += outcome.acknowledged;
                if !outcome.reached {
                    missed.push(point);
                }
            }
            Err(what) => wrong.push(format!("{point:?}: {what}")),
        }
    }
    println!(
        "{name}: {} of {all} points in {:.0?}; {reached} injected, {refused} answered with an error, {finished} \
         finished without a restart; {acknowledged} chunks acknowledged before; {} wrong (STRACE_SEED={seed})",
        results.len(),
        began.elapsed(),
        wrong.len()
    );
    if !missed.is_empty() {
        println!("  not reached: {missed:?}");
    }
    assert!(wrong.is_empty(), "STRACE_SEED={seed}: {wrong:#?}");
    // Not all: an earlier run of the same call may have been spared, as when two requests shared a commit.
    assert!(reached * 10 >= results.len() * 9, "{missed:#?}");
    assert!(
        acknowledged > results.len(),
        "nothing was acknowledged before most points"
    );
}

fn points(counts: &BTreeMap<(Role, String), usize>, fault: Fault, of: impl Fn(&str) -> bool) -> Vec<Point> {
    let counts = counts.iter().filter(|((_, call), _)| of(call));
    counts
        .flat_map(|((role, call), count)| {
            (1..=*count).map(|n| Point {
                fault,
                role: *role,
                call: call.clone(),
                n,
            })
        })
        .collect()
}

#[test]
fn each_call_is_killed_before_or_fails() {
    if !can_trace() {
        return;
    }
    let counts = runtime().block_on(count());
    println!("| thread | call | times |\n| --- | --- | --- |");
    for ((role, call), count) in &counts {
        println!("| {role:?} | {call} | {count} |");
    }
    let total = |of: &str| -> usize {
        let counts = counts.iter().filter(|((_, call), _)| call == of);
        counts.map(|(_, count)| count).sum()
    };
    // Else the list of calls misses what the server really uses.
    assert!(
        total("pwritev") >= 4 && total("linkat") == 1 && total("fdatasync") >= 6,
        "{counts:?}"
    );
    sweep("killed", points(&counts, Fault::Kill, |_| true));
    let is_file = |call: &str| !ANSWERING.split(',').any(|answer| answer == call);
    sweep("EIO", points(&counts, Fault::Error("EIO"), is_file));
    sweep(
        "ENOSPC",
        points(&counts, Fault::Error("ENOSPC"), |call| FILLING.contains(&call)),
    );
}

/// The control: a call that is never made is never injected, and that is seen.
#[test]
fn a_call_that_is_not_made_proves_nothing() {
    if !can_trace() {
        return;
    }
    for fault in [Fault::Kill, Fault::Error("EIO")] {
        let point = Point {
            fault,
            role: Role::Blocks,
            call: "linkat".to_owned(),
            n: 9,
        };
        let outcome = runtime().block_on(inject(&point)).unwrap();
        assert!(!outcome.reached && outcome.finished_before, "{outcome:?}");
    }
}

/// A barrier: when, which call, on which file.
type Barrier = (f64, String, String);

/// The barriers of an upload of one chunk to a server that has taken one before, by the request that made them.
async fn barriers(as_forms: bool) -> Vec<(&'static str, String, String)> {
    let (directory, log) = (temporary(), temporary());
    let log = log.path().join("log");
    let server = start(directory.path()).await;
    let mut warm = Film::new("ann", 1, 50_000, 50_000, as_forms, 1);
    let mut film = Film::new("ann", 2, 3_000_000, 3_000_000, as_forms, 2);
    steps(&mut warm, &server).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let trace = format!("trace={BARRIERS}");
    let tracer = Tracer::attach(&[server.pid()], &log, &["-f", "-y", "-ttt", "-e", &trace]);
    let tracer = tracer.unwrap();
    // The messages of the other threads are not waited for.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ends = steps(&mut film, &server).await;
    film.check_published(directory.path()).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill();
    tracer.end();
    let log = std::fs::read_to_string(&log).unwrap();
    let made = log.lines().filter_map(barrier);
    made.map(|(at, call, file)| {
        let request = ends
            .iter()
            .find(|(_, end)| at < *end)
            .map_or("afterwards", |(name, _)| name);
        let file = file.replace(directory.path().to_str().unwrap(), "");
        let file = film.id.as_ref().map_or(file.clone(), |id| file.replace(id, "<id>"));
        (request, call, file)
    })
    .collect()
}

/// Uploads a film of one chunk; answers when each request was answered.
async fn steps(film: &mut Film, server: &Server) -> Vec<(&'static str, f64)> {
    let mut connection = Connection::open(server.address).await.unwrap();
    let mut ends = Vec::new();
    let content = film.content();
    let mut requests: Vec<&str> = vec!["create", "chunk", "assemble"];
    if film.as_forms {
        requests.remove(0);
    }
    for name in requests {
        let request = match name {
            "create" => film.creation(),
            "chunk" => film.piece(&content, 0),
            _ => film.assembly(),
        };
        let reply = connection.ask(&request).await.unwrap();
        assert!(reply.is_success(), "{reply:?}");
        note(film, &reply);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        ends.push((name, now.as_secs_f64()));
    }
    ends
}

/// `PID TIME call(FD<PATH>…`
fn barrier(line: &str) -> Option<Barrier> {
    let mut words = line.split_whitespace();
    let at = words.nth(1)?.parse().ok()?;
    let (call, arguments) = words.next()?.split_once('(')?;
    let file = arguments.split_once('<')?.1.split('>').next()?;
    Some((at, call.to_owned(), file.to_owned()))
}

#[test]
fn an_upload_of_one_chunk_takes_few_barriers() {
    if !can_trace() {
        return;
    }
    for (name, as_forms, most) in [
        ("create, chunk, assemble", false, 7),
        ("upload-chunk, assemble-chunks", true, 6),
    ] {
        let made = runtime().block_on(barriers(as_forms));
        println!("\n{name}:\n| # | request | call | file |\n| --- | --- | --- | --- |");
        let mut real = 0;
        for (request, call, file) in &made {
            let is_barrier = call != "sync_file_range";
            real += usize::from(is_barrier);
            let number = if is_barrier { real.to_string() } else { "-".to_owned() };
            println!("| {number} | {request} | {call} | {file} |");
        }
        println!("{real} barriers");
        let of_metadata = made
            .iter()
            .filter(|(_, _, file)| file.ends_with("metadata.redb"))
            .count();
        assert!(of_metadata >= 2, "the trace misses what is certainly made: {made:?}");
        assert!((4..=most).contains(&real), "{real} barriers");
    }
}
