//! Tests of what lies beneath the store: a disk that loses power, fails its syncs, or is full.

#![allow(clippy::unwrap_used)]

use std::{
    io,
    sync::{Arc, Mutex},
};

use ::redb::{ReadableDatabase, StorageBackend, TableDefinition};
use futures_util::future::join_all;

use super::{
    Durability, RedbMetadata, RedbOptions,
    encoding::{decode_part, decode_tally, encode_part, encode_tally, name_key},
    file::{Medium, Place},
};
use crate::{
    ErrorKind, conformance,
    metadata::{Committed, Created, Guard, Lookup, MetadataStore, Page, PartRange, PartsEdit, Quota, Updated},
    upload::{
        FileName, Handle, Key, Owner, Part, Plan, Receipt, Record, State, Tally, Target, Timestamp, UploadId, Wake,
    },
};

const SECTOR: usize = 512;

/// A disk with a write cache: what was not synced may be lost, sector by sector, when power is.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    operations: u64,
    syncs: u64,
    /// After this many operations everything fails.
    dies_after: Option<u64>,
    fails_sync: bool,
    /// The file cannot grow.
    full: bool,
}

#[derive(Debug)]
enum Change {
    Len(u64),
    Write(u64, Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Len(len) => bytes.resize(usize::try_from(*len).unwrap(), 0),
            Self::Write(at, data) => {
                let at = usize::try_from(*at).unwrap();
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl Disk {
    fn with<T>(&self, f: impl FnOnce(&mut Platter) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// What is there after power was lost: all that was synced, and any of the rest.
    fn after_power_loss(&self, random: &mut Random) -> Self {
        self.with(|platter| {
            let mut bytes = platter.durable.clone();
            for change in &platter.pending {
                match change {
                    Change::Write(at, data) => {
                        for (sector, data) in data.chunks(SECTOR).enumerate() {
                            if random.below(2) == 0 {
                                let at = at + u64::try_from(sector * SECTOR).unwrap();
                                Change::Write(at, data.to_vec()).apply(&mut bytes);
                            }
                        }
                    }
                    Change::Len(_) if random.below(2) == 0 => change.apply(&mut bytes),
                    Change::Len(_) => {}
                }
            }
            Self::of(bytes)
        })
    }

    fn of(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.with(|platter| {
            platter.cached.clone_from(&bytes);
            platter.durable = bytes;
        });
        disk
    }

    async fn open(&self, options: RedbOptions) -> crate::Result<RedbMetadata> {
        let disk = self.clone();
        let opener = move || {
            Ok(Medium {
                backend: Box::new(disk.clone()),
                file: None,
            })
        };
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path().join("disk"), options, Arc::new(opener));
        super::blocking(move || RedbMetadata::start(place)).await
    }
}

impl Platter {
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.dies_after {
            Some(last) if self.operations > last => Err(io::Error::other("the disk is gone")),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|platter| platter.cached.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|platter| {
            let at = usize::try_from(offset).unwrap();
            let bytes = platter.cached.get(at..at + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|platter| {
            platter.operate()?;
            if platter.full && len > platter.cached.len() as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            platter.change(Change::Len(len));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|platter| {
            platter.operate()?;
            if platter.fails_sync {
                // As Linux does: the error is told once, and what was not written is forgotten.
                platter.pending.clear();
                platter.fails_sync = false;
                return Err(io::Error::from_raw_os_error(5));
            }
            platter.syncs += 1;
            for change in std::mem::take(&mut platter.pending) {
                change.apply(&mut platter.durable);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|platter| {
            platter.operate()?;
            platter.change(Change::Write(offset, data.to_vec()));
            Ok(())
        })
    }
}

fn record(n: u8) -> Record {
    let name = format!("f{n}.mp4");
    let mut record = Record::new(
        UploadId::from_bytes([n; 16]),
        Owner::new("ann"),
        FileName::parse(&name).unwrap(),
        Key::parse(&name).unwrap(),
        Plan::indexed(10_000, Some(1 << 20), None),
        Handle::new("h"),
    );
    record.named = true;
    record
}

fn part(number: u32) -> Part {
    Part::new(number, 1 << 20, u64::from(number) * 7, Receipt::new("r"))
}

async fn created(store: &RedbMetadata, n: u8) -> Record {
    match store
        .create(&record(n), &[], &Quota::UNLIMITED, Wake::AtExpiry)
        .await
        .unwrap()
    {
        Created::New(record) => record,
        other => panic!("{other:?}"),
    }
}

async fn put(store: &RedbMetadata, record: &Record, number: u32) -> crate::Result<Committed> {
    store
        .commit(record.id, &Guard::new(record.epoch), &[part(number)])
        .await
}

/// Works until the disk dies; what was acknowledged, as (upload, part).
async fn work(store: &RedbMetadata, seed: u64) -> (Vec<Record>, Vec<(UploadId, u32)>) {
    let mut random = Random(seed);
    let (mut records, mut acknowledged) = (Vec::new(), Vec::new());
    for n in 0..3 {
        match store.create(&record(n), &[], &Quota::UNLIMITED, Wake::AtExpiry).await {
            Ok(Created::New(record)) => records.push(record),
            Ok(other) => panic!("{other:?}"),
            Err(_) => return (records, acknowledged),
        }
    }
    for round in 0..4 {
        let jobs = (0..1 + random.below(6)).map(|n| {
            let number = u32::try_from(round * 10 + n).unwrap();
            let record = &records[usize::try_from(n % 3).unwrap()];
            async move {
                put(store, record, number)
                    .await
                    .map(|answer| (record.id, number, answer))
            }
        });
        for outcome in join_all(jobs).await {
            match outcome {
                Ok((id, number, Committed::Done(_))) => acknowledged.push((id, number)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
        }
    }
    (records, acknowledged)
}

/// What of the acknowledged is not there.
async fn lost(store: &RedbMetadata, records: &[Record], acknowledged: &[(UploadId, u32)]) -> usize {
    let mut lost = 0;
    for record in records {
        let by_id = store.load(Lookup::Id(record.id), PartRange::ALL).await.unwrap();
        let Some(found) = by_id else {
            lost += 1;
            continue;
        };
        let bytes: u64 = found.parts.iter().map(|part| part.len).sum();
        assert_eq!(
            (found.tally.parts as usize, found.tally.bytes),
            (found.parts.len(), bytes)
        );
        assert!(found.tally.revision > found.tally.parts.into());
        let by_name = Lookup::Name(&record.owner, None, &record.file_name);
        let by_name = store.load(by_name, PartRange::ALL).await.unwrap();
        assert_eq!(by_name.as_ref(), Some(&found));
        let missing = |number: u32| !found.parts.iter().any(|part| part.number == number);
        lost += acknowledged
            .iter()
            .filter(|(id, number)| *id == record.id && missing(*number))
            .count();
    }
    lost
}

/// Cuts the power after each single operation of the disk in turn. (cuts, acknowledged, lost)
async fn power_cuts(options: RedbOptions) -> (u64, usize, usize) {
    let (mut cuts, mut all_acknowledged, mut all_lost) = (0, 0, 0);
    loop {
        let disk = Disk::default();
        disk.with(|platter| platter.dies_after = Some(cuts));
        let seed = cuts;
        let (records, acknowledged) = match disk.open(options.clone()).await {
            Ok(store) => work(&store, seed).await,
            Err(_) => (Vec::new(), Vec::new()),
        };
        let died = disk.with(|platter| platter.operations > cuts);
        let after = disk.after_power_loss(&mut Random(seed));
        match after.open(options.clone()).await {
            Ok(store) => all_lost += lost(&store, &records, &acknowledged).await,
            // A file whose creation was cut may be none yet; nobody was told that it is.
            Err(error) if records.is_empty() => assert_ne!(error.kind(), ErrorKind::NoSpace, "seed {seed}"),
            Err(_) => all_lost += 1 + acknowledged.len(),
        }
        all_acknowledged += acknowledged.len();
        cuts += 1;
        if !died {
            return (cuts, all_acknowledged, all_lost);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn power_loss_at_any_moment_loses_nothing_acknowledged() {
    for quick_repair in [false, true] {
        let options = RedbOptions::default().with_quick_repair(quick_repair);
        let (cuts, acknowledged, lost) = power_cuts(options).await;
        println!("quick_repair {quick_repair}: {cuts} cuts, {acknowledged} acknowledged, {lost} lost");
        assert!(
            cuts > 40 && acknowledged > 100,
            "{cuts} cuts, {acknowledged} acknowledged"
        );
        assert_eq!(lost, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_power_loss_suite_sees_that_syncs_are_off() {
    let (_, acknowledged, lost) = power_cuts(RedbOptions::default().with_durability(Durability::None)).await;
    assert!(lost > 0, "none of {acknowledged} was lost without a sync");
}

#[tokio::test]
async fn a_failed_sync_ends_the_store_until_it_is_opened_anew() {
    let disk = Disk::default();
    let store = disk.open(RedbOptions::default()).await.unwrap();
    let record = created(&store, 1).await;
    put(&store, &record, 0).await.unwrap();

    disk.with(|platter| platter.fails_sync = true);
    let error = put(&store, &record, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let (syncs, operations) = disk.with(|platter| (platter.syncs, platter.operations));
    for _ in 0..2 {
        let error = put(&store, &record, 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("reopened"), "{error}");
        let error = store.load(Lookup::Id(record.id), PartRange::ALL).await.unwrap_err();
        assert!(error.message().contains("reopened"), "{error}");
        assert_eq!(
            store
                .list(Some(&record.owner), Page::new(0, 9))
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::Unavailable
        );
    }
    drop(store);
    let after = disk.with(|platter| (platter.syncs, platter.operations));
    assert_eq!(after, (syncs, operations), "something was tried again");

    let disk = disk.after_power_loss(&mut Random(1));
    let store = disk.open(RedbOptions::default()).await.unwrap();
    let found = store
        .load(Lookup::Id(record.id), PartRange::ALL)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.parts, [part(0)]);
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let disk = Disk::default();
    let store = disk.open(RedbOptions::default()).await.unwrap();
    let record = created(&store, 1).await;
    let mut stored = Vec::new();
    for round in 0..3 {
        put(&store, &record, round * 100).await.unwrap();
        stored.push(round * 100);
        disk.with(|platter| platter.full = true);
        // What fits into blocks the file has already is stored; then it is full.
        let big = Part::new(round * 100 + 1, 1, 1, Receipt::new("r".repeat(3 << 20)));
        let error = store
            .commit(record.id, &Guard::new(1), std::slice::from_ref(&big))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        let found = store
            .load(Lookup::Id(record.id), PartRange::ALL)
            .await
            .unwrap()
            .unwrap();
        let numbers: Vec<u32> = found.parts.iter().map(|part| part.number).collect();
        assert_eq!(numbers, stored, "readable, and nothing of the refused");
        disk.with(|platter| platter.full = false);
        assert!(matches!(
            store.commit(record.id, &Guard::new(1), &[big]).await.unwrap(),
            Committed::Done(_)
        ));
        stored.push(round * 100 + 1);
    }
}

#[tokio::test]
async fn operations_that_wait_together_share_a_sync() {
    let disk = Disk::default();
    let store = disk.open(RedbOptions::default()).await.unwrap();
    let record = created(&store, 1).await;
    let before = disk.with(|platter| platter.syncs);
    put(&store, &record, 1000).await.unwrap();
    assert_eq!(disk.with(|platter| platter.syncs) - before, 1, "one sync a commit");

    let before = disk.with(|platter| platter.syncs);
    let answers = join_all((0..500).map(|number| put(&store, &record, number))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Committed::Done(_)))));
    let syncs = disk.with(|platter| platter.syncs) - before;
    assert!(syncs <= 50, "{syncs} syncs");
    let found = store
        .load(Lookup::Id(record.id), PartRange::ALL)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.parts.len(), found.tally.parts), (501, 501));
}

#[tokio::test]
async fn each_operation_of_a_batch_sees_those_before_it_and_answers_for_itself() {
    let disk = Disk::default();
    let store = disk.open(RedbOptions::default()).await.unwrap();
    let record = created(&store, 1).await;
    let other = Part::new(0, 5, 5, Receipt::new("other"));
    let guard = Guard::new(1);
    let mut seal = record.clone();
    seal.state = State::Assembling;
    let (first, second, sealed, late, stale) = tokio::join!(
        put(&store, &record, 0),
        store.commit(record.id, &guard, std::slice::from_ref(&other)),
        store.update(&seal, PartsEdit::Keep, Wake::Keep),
        put(&store, &record, 1),
        store.update(&record, PartsEdit::Clear, Wake::Keep),
    );
    assert!(matches!(first, Ok(Committed::Done(_))), "{first:?}");
    assert_eq!(second.unwrap(), Committed::Present(part(0)));
    assert!(matches!(sealed, Ok(Updated::Done(_))), "{sealed:?}");
    assert!(matches!(late, Ok(Committed::Refused(..))), "{late:?}");
    assert_eq!(stale.unwrap(), Updated::Stale);
    let found = store
        .load(Lookup::Id(record.id), PartRange::ALL)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.parts, [part(0)]);
}

#[tokio::test]
async fn refusals_cost_no_sync() {
    let disk = Disk::default();
    let store = disk.open(RedbOptions::default()).await.unwrap();
    let record = created(&store, 1).await;
    put(&store, &record, 0).await.unwrap();
    let before = disk.with(|platter| platter.operations);
    assert!(matches!(put(&store, &record, 0).await, Ok(Committed::Present(_))));
    assert_eq!(store.due(std::time::Duration::ZERO, 9).await.unwrap(), []);
    assert_eq!(disk.with(|platter| platter.operations), before);
}

#[tokio::test]
async fn a_damaged_record_hurts_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    let mut ids = Vec::new();
    let store = RedbMetadata::open(&path).await.unwrap();
    for n in 0..3 {
        let created = store
            .create(
                &record(n),
                &[],
                &Quota::UNLIMITED,
                Wake::After(std::time::Duration::ZERO),
            )
            .await;
        let Created::New(record) = created.unwrap() else {
            panic!()
        };
        ids.push(record.id);
    }
    store.close().await;
    let database = ::redb::Database::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(TableDefinition::<&[u8; 16], &[u8]>::new("uploads"))
        .unwrap()
        .insert(ids[0].as_bytes(), &b"\x01{"[..])
        .unwrap();
    txn.commit().unwrap();
    drop(database);

    let store = RedbMetadata::open(&path).await.unwrap();
    let (guard, parts) = (Guard::new(1), [part(0)]);
    let (damaged, well) = tokio::join!(
        store.commit(ids[0], &guard, &parts),
        store.commit(ids[1], &guard, &parts)
    );
    assert_eq!(damaged.unwrap_err().kind(), ErrorKind::Internal);
    assert!(matches!(well, Ok(Committed::Done(_))));
    let due = store.due(std::time::Duration::from_secs(60), 2).await.unwrap();
    assert_eq!(due.iter().map(|record| record.id).collect::<Vec<_>>(), ids[1..]);
}

#[tokio::test]
async fn files_of_others_and_of_later_releases_are_refused() {
    const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    let directory = tempfile::tempdir().unwrap();
    let foreign = directory.path().join("foreign.redb");
    let later = directory.path().join("later.redb");
    let text = directory.path().join("text");
    std::fs::write(&text, "a letter to my aunt ".repeat(1000)).unwrap();
    for (path, table, value) in [(&foreign, "theirs", 1), (&later, "format", 2)] {
        let database = ::redb::Database::create(path).unwrap();
        let txn = database.begin_write().unwrap();
        if path == &later {
            txn.open_table(META).unwrap().insert(table, value).unwrap();
        } else {
            txn.open_table(TableDefinition::<&str, u64>::new(table)).unwrap();
        }
        txn.commit().unwrap();
    }
    for (path, sentence) in [
        (&foreign, "not one of uploads"),
        (&later, "has format 2, this release reads format 1"),
        (&text, "is no metadata file"),
        (&directory.path().join("none/metadata.redb"), "cannot be opened"),
    ] {
        let before = std::fs::read(path).ok();
        let error = RedbMetadata::open(path).await.unwrap_err();
        assert!(error.message().contains(sentence), "{error:?}");
        assert!(error.message().contains(&path.display().to_string()), "{error:?}");
        if path == &text {
            assert_eq!(std::fs::read(path).ok(), before);
        }
    }
    let database = ::redb::Database::open(&later).unwrap();
    let txn = database.begin_read().unwrap();
    assert_eq!(txn.open_table(META).unwrap().get("format").unwrap().unwrap().value(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let directory = tempfile::tempdir().unwrap();
    let files = std::sync::atomic::AtomicU32::new(0);
    let open = async || {
        let n = files.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = directory.path().join(n.to_string());
        RedbMetadata::open(path).await.unwrap()
    };
    conformance::metadata::run(&open).await;
    conformance::metadata::run(async || Arc::new(open().await) as Arc<dyn MetadataStore>).await;
    conformance::metadata::run(async || Box::new(open().await) as Box<dyn MetadataStore>).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_when_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    for options in [RedbOptions::default(), RedbOptions::default().with_quick_repair(true)] {
        let path = directory.path().join(format!("{}", options.quick_repair));
        conformance::metadata::durability(async || options.clone().open(&path).await.unwrap()).await;
    }
}

/// What this release writes, byte for byte: if this fails, files of earlier releases are not read.
#[test]
fn values_are_written_as_ever() {
    let tally = Tally {
        parts: 3,
        bytes: 0x0102_0304_0506,
        revision: 9,
    };
    let bytes = [
        1, 3, 0, 0, 0, 6, 5, 4, 3, 2, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0,
    ];
    assert_eq!(encode_tally(tally, 7), bytes);
    assert_eq!(decode_tally(&bytes).unwrap(), (tally, 7));
    for bad in [
        &bytes[..24],
        &[&[2], &bytes[1..]].concat(),
        &[&bytes[..], &[0]].concat(),
        &[],
    ] {
        assert!(decode_tally(bad).is_err(), "{bad:?}");
    }

    let part = Part::new(7, 300, u64::MAX, Receipt::new("tag"));
    let bytes = [
        1, 0xac, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 3, b't', b'a', b'g',
    ];
    assert_eq!(encode_part(&part).unwrap(), bytes);
    assert_eq!(decode_part(7, &bytes).unwrap(), part);
    for bad in [&bytes[..16], &[&[2], &bytes[1..]].concat(), &[]] {
        assert!(decode_part(7, bad).is_err(), "{bad:?}");
    }

    let name = |target: Option<&str>, name: &str| {
        let target = target.map(|target| Target::parse(target).unwrap());
        name_key(&Owner::new("ann"), target.as_ref(), &FileName::parse(name).unwrap())
    };
    assert_eq!(*name(Some("v"), "f"), *b"\0\0\0\x03ann\0\0\0\x01t\0\0\0\x01vf");
    assert_eq!(*name(None, "f"), *b"\0\0\0\x03ann\0\0\0\0f");
}

#[tokio::test]
async fn quotas_hold_for_sums_past_64_bits() {
    let disk = Disk::default();
    let store = disk.open(RedbOptions::default()).await.unwrap();
    let mut records = Vec::new();
    for n in 0..3 {
        let mut new = record(n);
        new.plan = Plan::sequential(Some(u64::MAX));
        let Created::New(created) = store
            .create(&new, &[], &Quota::UNLIMITED, Wake::AtExpiry)
            .await
            .unwrap()
        else {
            panic!()
        };
        records.push(created);
    }
    for record in &records[1..] {
        assert!(store.remove(record.id, record.version).await.unwrap());
    }
    let quota = Quota {
        uploads: None,
        bytes: Some(u64::MAX - 1),
    };
    let answer = store.create(&record(9), &[part(0)], &quota, Wake::AtExpiry).await;
    assert!(matches!(answer, Ok(Created::OverQuota(_))), "{answer:?}");
    assert!(store.remove(records[0].id, records[0].version).await.unwrap());
    let answer = store.create(&record(9), &[part(0)], &quota, Wake::AtExpiry).await;
    assert!(matches!(answer, Ok(Created::New(_))), "{answer:?}");
}

#[tokio::test]
async fn the_newest_comes_first_also_within_a_millisecond() {
    #[derive(Debug)]
    struct Stopped;
    impl crate::Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1)
        }
    }
    let disk = Disk::default();
    let store = disk
        .open(RedbOptions::default().with_clock(Arc::new(Stopped)))
        .await
        .unwrap();
    for n in [5, 2, 9] {
        created(&store, n).await;
    }
    let listed = store.list(Some(&Owner::new("ann")), Page::new(0, 9)).await.unwrap();
    let first_bytes: Vec<u8> = listed.iter().map(|found| found.record.id.as_bytes()[0]).collect();
    assert_eq!(first_bytes, [9, 2, 5]);
}
