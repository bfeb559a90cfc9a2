//! `RedbMetadata` as a file: killed, held, dropped, and written by an earlier release.

#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use tower_upload::{
    Clock, Digest, ErrorKind, FileName, Key, Owner, State, Target, UploadId,
    metadata::{
        Committed, Created, Guard, Lookup, MetadataStore, Page, PartRange, PartsEdit, Quota, RedbMetadata, RedbOptions,
        Updated,
    },
    upload::{Algorithm, Handle, HashState, Part, Plan, Receipt, Record, Timestamp, Wake},
};

const CHILD: &str = "TOWER_UPLOAD_TEST_REDB_CHILD";
const SEED: &str = "TOWER_UPLOAD_TEST_SEED";
const ROUNDS: u32 = 20;
const ID: UploadId = UploadId::from_bytes([7; 16]);

fn record(id: UploadId, name: &str) -> Record {
    let mut record = Record::new(
        id,
        Owner::new("ann"),
        FileName::parse(name).unwrap(),
        Key::parse(name).unwrap(),
        Plan::indexed(1_000_000, Some(10), None),
        Handle::new("h"),
    );
    record.named = true;
    record
}

fn part(number: u32) -> Part {
    Part::new(number, 10, u64::from(number), Receipt::new(format!("r{number}")))
}

/// The test binary once more, running one test as a process of its own. With one thread, which a machine with one processor
/// has, the test's name would stand before its first line.
fn child(test: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "2"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test by itself: commits parts for ever, saying which it tries and which were acknowledged.
#[tokio::test]
async fn child_that_commits() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let store = RedbMetadata::open(PathBuf::from(path)).await.unwrap();
    let _ = store
        .create(&record(ID, "a.mp4"), &[], &Quota::UNLIMITED, Wake::AtExpiry)
        .await
        .unwrap();
    let found = store.load(Lookup::Id(ID), PartRange::ALL).await.unwrap().unwrap();
    let mut next = found.parts.last().map_or(0, |part| part.number + 1);
    loop {
        join_all((next..next + 8).map(|number| {
            let store = &store;
            async move {
                say(&format!("try {number}"));
                let answer = store.commit(ID, &Guard::new(1), &[part(number)]).await;
                assert!(matches!(answer, Ok(Committed::Done(_))), "{answer:?}");
                say(&format!("done {number}"));
            }
        }))
        .await;
        next += 8;
    }
}

/// In one write, so that a kill does not cut it.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_acknowledged() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()));
    println!("{SEED}={seed}");
    let mut random = seed;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    let mut acknowledged = BTreeSet::new();
    let mut cut_short = 0;
    for round in 0..ROUNDS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (lines, pause) = (1 + (random >> 33) % 60, Duration::from_micros((random >> 20) % 4000));
        let mut child = child("child_that_commits", &path);
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut tried = BTreeSet::new();
        let mut done = BTreeSet::new();
        let mut hear = |line: String| match line.split_once(' ') {
            Some(("try", number)) => drop(tried.insert(number.parse::<u32>().unwrap())),
            Some(("done", number)) => drop(done.insert(number.parse::<u32>().unwrap())),
            _ => {}
        };
        for _ in 0..lines {
            hear(said.next().unwrap().unwrap());
        }
        std::thread::sleep(pause);
        child.kill().unwrap();
        said.map_while(Result::ok).for_each(&mut hear);
        let status = child.wait().unwrap();
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "{status}"
        );
        cut_short += u32::from(tried.len() > done.len());
        acknowledged.append(&mut done);

        let store = RedbMetadata::open(&path).await.unwrap();
        let found = store.load(Lookup::Id(ID), PartRange::ALL).await.unwrap();
        let found = found.map(|found| (found.tally, found.parts)).unwrap_or_default();
        let stored: BTreeSet<u32> = found.1.iter().map(|part| part.number).collect();
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(
            lost.is_empty(),
            "seed {seed}, round {round}: {lost:?} were acknowledged"
        );
        assert_eq!(found.0.parts as usize, stored.len(), "seed {seed}, round {round}");
        assert!(found.1.iter().all(|found| *found == part(found.number)));
    }
    println!(
        "{} acknowledged, {cut_short} of {ROUNDS} kills cut commits short",
        acknowledged.len()
    );
    assert!(cut_short >= ROUNDS / 2, "the kills came when nothing ran: {cut_short}");
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
}

/// Not a test by itself: holds the file until its standard input ends.
#[tokio::test]
async fn child_that_holds() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let _store = RedbMetadata::open(PathBuf::from(path)).await.unwrap();
    say("held");
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[tokio::test]
async fn who_waits_for_the_file_is_told_who_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    let mut child = child("child_that_holds", &path);
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    while said.next().unwrap().unwrap() != "held" {}

    let wait = Duration::from_millis(200);
    let began = Instant::now();
    let error = RedbOptions::default()
        .with_lock_wait(wait)
        .open(&path)
        .await
        .unwrap_err();
    assert!(began.elapsed() >= wait);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for part in [path.display().to_string(), format!("pid {}", child.id())] {
        assert!(error.message().contains(&part), "{error}");
    }

    let waiting = tokio::spawn(RedbMetadata::open(path.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    drop(child.stdin.take());
    let store = waiting.await.unwrap().unwrap();
    child.wait().unwrap();

    let error = RedbOptions::default()
        .with_lock_wait(Duration::ZERO)
        .open(&path)
        .await
        .unwrap_err();
    assert!(error.message().contains("this process"), "{error}");
    drop(store);
    assert_eq!(
        std::fs::read_dir(&directory).unwrap().count(),
        1,
        "the pid file is left"
    );
}

#[tokio::test]
async fn dropped_then_opened_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    let at_once = RedbOptions::default().with_lock_wait(Duration::ZERO);
    for round in 0..20 {
        let store = at_once.clone().open(&path).await.unwrap();
        let _ = store
            .create(&record(ID, "a.mp4"), &[], &Quota::UNLIMITED, Wake::AtExpiry)
            .await
            .unwrap();
        {
            // Asked and forgotten: its outcome is unknown, but it must not keep the file.
            let guard = Guard::new(1);
            let parts = [part(round)];
            tokio::select! {
                biased;
                answer = store.commit(ID, &guard, &parts) => panic!("{answer:?}"),
                () = std::future::ready(()) => {}
            }
        }
        let reading = store.load(Lookup::Id(ID), PartRange::ALL).await;
        assert!(reading.unwrap().is_some());
        if round % 2 == 0 {
            drop(store)
        } else {
            store.close().await
        }
    }
    let store = at_once.open(&path).await.unwrap();
    let found = store.load(Lookup::Id(ID), PartRange::ALL).await.unwrap().unwrap();
    assert_eq!(found.parts.len(), 20, "what was queued was done before the end");
}

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/redb-format-1.redb");

#[derive(Debug)]
struct Stopped(u64);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
}

fn at(millis: u64) -> RedbOptions {
    RedbOptions::default().with_clock(Arc::new(Stopped(millis)))
}

/// An open upload with everything a record can hold, and one that was aborted.
fn fixture_records() -> [Record; 2] {
    let mut full = record(ID, "talk.mp4");
    full.target = Some(Target::parse("42").unwrap());
    full.metadata.insert("filetype".into(), "video/mp4".into());
    full.plan = Plan::indexed(3, Some(10), Some(25));
    full.checksum = Some(Digest::new(Algorithm::Md5, [5; 16]).unwrap());
    full.expire_after = Some(Duration::from_secs(3600));
    let mut aborted = record(UploadId::from_bytes([8; 16]), "other.mp4");
    aborted.plan = Plan::sequential(None);
    [full, aborted]
}

/// Run with `--ignored` by the release that changes the format, under a new file name.
#[tokio::test]
#[ignore = "writes tests/fixtures/redb-format-1.redb"]
async fn write_the_fixture() {
    let _ = std::fs::remove_file(FIXTURE);
    let store = at(1_000_000).open(FIXTURE).await.unwrap();
    let [full, aborted] = fixture_records();
    let _ = store
        .create(&full, &[part(0)], &Quota::UNLIMITED, Wake::AtExpiry)
        .await
        .unwrap();
    let mut guard = Guard::new(1);
    guard.hash = Some(HashState::new(20, vec![1, 2, 3]));
    let _ = store.commit(ID, &guard, &[part(1)]).await.unwrap();
    let Created::New(mut aborted) = store
        .create(&aborted, &[], &Quota::UNLIMITED, Wake::AtExpiry)
        .await
        .unwrap()
    else {
        panic!("not created")
    };
    aborted.state = State::Aborted;
    aborted.key_held = false;
    let _ = store
        .update(&aborted, PartsEdit::Keep, Wake::After(Duration::from_secs(5)))
        .await
        .unwrap();
    store.close().await;
    assert!(std::fs::metadata(FIXTURE).unwrap().len() < 200 << 10);
}

#[tokio::test]
async fn a_file_of_format_1_is_read_and_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    std::fs::copy(FIXTURE, &path).unwrap();
    let store = at(1_100_000).open(&path).await.unwrap();
    let [full, _] = fixture_records();
    let name = Lookup::Name(&full.owner, full.target.as_ref(), &full.file_name);
    let found = store.load(name, PartRange::ALL).await.unwrap().unwrap();
    let mut expected = full.clone();
    expected.version = found.record.version;
    expected.hash = Some(HashState::new(20, vec![1, 2, 3]));
    expected.created_at = Timestamp::from_millis(1_000_000);
    expected.expires_at = Some(Timestamp::from_millis(4_600_000));
    expected.due_at = expected.expires_at;
    assert_eq!(found.record, expected);
    assert_eq!((found.record.version.get(), found.tally.revision), (2, 2));
    assert_eq!((found.tally.parts, found.tally.bytes), (2, 20));
    assert_eq!(found.parts, [part(0), part(1)]);

    let listed = store.list(Some(&full.owner), Page::new(0, 9)).await.unwrap();
    let states: Vec<State> = listed.iter().map(|found| found.record.state).collect();
    assert_eq!(
        states,
        [State::Aborted, State::Open],
        "newest first, though created in one millisecond"
    );
    let due = store.due(Duration::from_secs(9), 9).await.unwrap();
    assert_eq!(
        due.iter().map(|due| due.id).collect::<Vec<_>>(),
        [UploadId::from_bytes([8; 16])]
    );

    let taken = store
        .create(
            &record(UploadId::from_bytes([9; 16]), "other.mp4"),
            &[],
            &Quota::UNLIMITED,
            Wake::AtExpiry,
        )
        .await
        .unwrap();
    assert!(
        matches!(taken, Created::New(_)),
        "the aborted one holds neither name nor key: {taken:?}"
    );
    let one_more = store.commit(ID, &Guard::new(1), &[part(2)]).await.unwrap();
    assert!(
        matches!(one_more, Committed::Done(tally) if tally.parts == 3),
        "{one_more:?}"
    );
    let found = store.load(Lookup::Id(ID), PartRange::NONE).await.unwrap().unwrap();
    let done = store
        .update(&found.record, PartsEdit::Clear, Wake::Never)
        .await
        .unwrap();
    assert!(matches!(done, Updated::Done(_)));
}
