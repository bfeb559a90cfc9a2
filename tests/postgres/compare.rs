//! The same random calls on `PostgresMetadata` and `MemoryMetadata`, by one clock: every answer is equal, and so is what
//! is stored. The memory's code runs `Guard::apply`, `Guard::wake` and `Record::stamp`; the database's says it in SQL.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tower_upload::{
    Clock, State, Target,
    metadata::{Lookup, MemoryMetadata, Page, PartsEdit, Updated},
    upload::{Concat, HashState, Outgoing, Timestamp, Version},
};

use super::*;

#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

const IDS: u8 = 12;

/// Their order as text is that of their bytes.
fn of(n: u8) -> UploadId {
    id(n << 2)
}

fn wait(random: &mut Random) -> Duration {
    random.one_of(&[
        Duration::ZERO,
        Duration::from_micros(1_500),
        Duration::from_millis(15),
        Duration::from_millis(17),
        Duration::from_millis(160),
        Duration::new(3, 999_999),
        Duration::MAX,
    ])
}

fn wake(random: &mut Random) -> Wake {
    let wait = wait(random);
    random.one_of(&[Wake::Keep, Wake::Never, Wake::After(wait), Wake::AtExpiry])
}

fn quota(random: &mut Random) -> Quota {
    let mut quota = Quota::UNLIMITED;
    if random.below(3) == 0 {
        quota.uploads = random.maybe(|random| random.below(6));
        quota.bytes = random.maybe(|random| random.one_of(&[0, 40, 100, u64::MAX]));
    }
    quota
}

fn parts(random: &mut Random) -> Vec<Part> {
    let first = random.below(12) as u32;
    let many = random.one_of(&[0, 1, 1, 1, 1, 2, 3]);
    let mut parts: Vec<Part> = (first..first + many)
        .map(|number| {
            Part::new(
                number,
                random.below(30),
                random.next(),
                Receipt::new(format!("r{}", random.below(9))),
            )
        })
        .collect();
    if random.below(2) == 0 {
        parts.reverse();
    }
    parts
}

fn shape(random: &mut Random, record: &mut Record) {
    record.file_name = FileName::parse(random.one_of(&["a", "b", "A"])).unwrap();
    record.target = random.maybe(|random| Target::parse(random.one_of(&["t", "u"])).unwrap());
    record.owner = Owner::new(random.one_of(&["ann", "bob", ""]));
    record.named = random.below(3) > 0;
    record.key = Key::parse(&format!("k{}", random.below(10))).unwrap();
    record.key_held = random.below(3) > 0;
    record.expire_after = random.maybe(wait);
    record.plan.size = random.maybe(|random| random.below(60));
    record.plan.chunk_size = random.maybe(|random| random.below(2));
    record.epoch = random.one_of(&[1, u64::MAX]);
    record.renamed = random.maybe(|_| FileName::parse("renamed.mp4").unwrap());
    record.published_at = random.maybe(|random| Timestamp::from_millis(random.one_of(&[0, 7, u64::MAX])));
    record.attempts = random.below(3) as u32;
    record.hash = random.maybe(|random| HashState::new(random.below(9), vec![0, 255, random.below(9) as u8]));
    record.failure = random.maybe(|_| "because of \"\0\"".to_owned());
    record.derived = random.maybe(|_| Key::parse("videos/hls/7/x").unwrap());
    record.concat = (random.below(6) == 0).then(|| Concat::Final(vec![of(3), of(4)]));
    record.outbox.clear();
    if random.below(4) == 0 {
        let event = serde_json::json!({
            "id": { "upload": record.id, "number": record.events }, "kind": "created", "owner": record.owner,
            "target": null, "file_name": record.file_name, "key": record.key, "size": null,
        });
        record.outbox.push(serde_json::from_value::<Outgoing>(event).unwrap());
        record.events += 1;
    }
}

fn state(random: &mut Random) -> State {
    let ended = random.one_of(&[
        State::Assembled,
        State::Failed,
        State::Aborted,
        State::Expired,
        State::Deleted,
    ]);
    random.one_of(&[State::Open, State::Open, State::Open, State::Assembling, ended])
}

struct Both {
    memory: MemoryMetadata,
    postgres: PostgresMetadata,
    clock: Arc<Hand>,
    schema: String,
}

impl Both {
    async fn new(server: &Server) -> Self {
        let schema = server.fresh_name();
        let postgres = open(server, &schema).await;
        run(
            postgres.pool(),
            format!(
                "CREATE TABLE {schema}.hand AS SELECT 0::bigint AS now; \
                 CREATE OR REPLACE FUNCTION {schema}.now_v1() RETURNS bigint LANGUAGE sql VOLATILE AS \
                 'SELECT now FROM {schema}.hand'"
            ),
        )
        .await;
        let clock = Arc::new(Hand::default());
        Self {
            memory: MemoryMetadata::with_clock(Arc::<Hand>::clone(&clock)),
            postgres,
            clock,
            schema,
        }
    }

    async fn pass(&self, millis: u64) {
        let now = self.clock.0.fetch_add(millis, Ordering::SeqCst) + millis;
        run(
            self.postgres.pool(),
            format!("UPDATE {}.hand SET now = {now}", self.schema),
        )
        .await;
    }

    /// One random call on both; what it was, and whether it changed something.
    async fn step(&self, random: &mut Random) -> (String, bool) {
        let who = of(random.below(u64::from(IDS)) as u8);
        let there = self.memory.load(Lookup::Id(who), PartRange::NONE).await.unwrap();
        match random.below(20) {
            0..=4 => {
                let mut new = record(0);
                new.id = who;
                shape(random, &mut new);
                new.state = state(random);
                let (first, quota, wake) = (parts(random), quota(random), wake(random));
                let call = format!("create {new:?} {first:?} {quota:?} {wake:?}");
                let expected = self.memory.create(&new, &first, &quota, wake).await.unwrap();
                let answer = self.postgres.create(&new, &first, &quota, wake).await.unwrap();
                assert_eq!(answer, expected, "{call}");
                (call, matches!(expected, Created::New(_)))
            }
            5..=11 => {
                let stored = there.as_ref().map(|snapshot| (&snapshot.record, snapshot.tally));
                let mut guard = Guard::new(stored.map_or(0, |(record, _)| record.epoch));
                if random.below(8) == 0 {
                    guard.epoch = random.one_of(&[1, u64::MAX]);
                }
                guard.end = random.maybe(|random| {
                    let right = stored.map_or(0, |(_, tally)| tally.bytes);
                    random.one_of(&[right, right, 0])
                });
                guard.pin = random.maybe(|random| random.below(2));
                guard.size = (random.below(3) == 0).then(|| random.below(60));
                guard.hash = random.maybe(|random| HashState::new(random.below(2), vec![random.below(2) as u8]));
                guard.quota = quota(random);
                guard.seal = (random.below(10) == 0).then(|| wait(random));
                let parts = parts(random);
                let call = format!("commit {who} {guard:?} {parts:?} to {there:?}");
                let expected = self.memory.commit(who, &guard, &parts).await.unwrap();
                let answer = self.postgres.commit(who, &guard, &parts).await.unwrap();
                assert_eq!(answer, expected, "{call}");
                (call, matches!(expected, Committed::Done(_)))
            }
            12..=15 => {
                let mut next = there.map_or_else(|| record(0), |snapshot| snapshot.record);
                next.id = who;
                if random.below(4) > 0 {
                    shape(random, &mut next);
                }
                next.state = state(random);
                if random.below(8) == 0 {
                    next.version = Version::default().next();
                }
                let edit = match random.below(4) {
                    0 => PartsEdit::Clear,
                    1 => PartsEdit::Remove((0..random.below(5)).map(|_| random.below(14) as u32).collect()),
                    _ => PartsEdit::Keep,
                };
                let wake = wake(random);
                let call = format!("update {next:?} {edit:?} {wake:?}");
                let expected = self.memory.update(&next, edit.clone(), wake).await.unwrap();
                let answer = self.postgres.update(&next, edit, wake).await.unwrap();
                assert_eq!(answer, expected, "{call}");
                (call, matches!(expected, Updated::Done(_)))
            }
            16..=17 => {
                let (lease, limit) = (wait(random), random.below(4) as usize);
                let call = format!("due {lease:?} {limit}");
                let expected = self.memory.due(lease, limit).await.unwrap();
                let answer = self.postgres.due(lease, limit).await.unwrap();
                assert_eq!(answer, expected, "{call}");
                (call, !expected.is_empty())
            }
            _ => {
                let version = there.map(|snapshot| snapshot.record.version).unwrap_or_default();
                let call = format!("remove {who} {version:?}");
                let expected = self.memory.remove(who, version).await.unwrap();
                let answer = self.postgres.remove(who, version).await.unwrap();
                assert_eq!(answer, expected, "{call}");
                (call, expected)
            }
        }
    }

    async fn same(&self, random: &mut Random, after: &str) {
        for who in (0..IDS).map(of) {
            let expected = self.memory.load(Lookup::Id(who), PartRange::ALL).await.unwrap();
            let stored = self.postgres.load(Lookup::Id(who), PartRange::ALL).await.unwrap();
            assert_eq!(stored, expected, "after {after}");
            let Some(record) = expected.map(|snapshot| snapshot.record) else {
                continue;
            };
            let mut range = PartRange::ALL;
            (range.start, range.end) = (random.below(6) as u32, random.below(14) as u32);
            let by = Lookup::Name(&record.owner, record.target.as_ref(), &record.file_name);
            let expected = self.memory.load(by, range).await.unwrap();
            assert_eq!(self.postgres.load(by, range).await.unwrap(), expected, "after {after}");
        }
        for owner in ["ann", "bob", "", "nobody"].map(Owner::new) {
            let page = Page::new(random.below(3) as usize, random.below(9) as usize);
            let expected = self.memory.list(Some(&owner), page).await.unwrap();
            assert_eq!(
                self.postgres.list(Some(&owner), page).await.unwrap(),
                expected,
                "after {after}"
            );
        }
        let everybody = Page::new(0, usize::MAX);
        let expected = self.memory.list(None, everybody).await.unwrap().len();
        assert_eq!(self.postgres.list(None, everybody).await.unwrap().len(), expected);
        // The usage sums are those of the rows, and nothing is left of owners without uploads.
        let wrong = format!(
            "SELECT count(*)::text FROM (SELECT owner, sum(uploads) AS uploads, sum(bytes) AS bytes \
             FROM {s}.usage GROUP BY owner) kept FULL JOIN (SELECT u.owner, sum({s}.unfinished_v1(u)) AS uploads, \
             sum({s}.reserved_v1(u)) AS bytes FROM {s}.uploads u WHERE state IN ('open', 'assembling') GROUP BY u.owner) counted \
             USING (owner) WHERE (kept.uploads, kept.bytes) IS DISTINCT FROM (counted.uploads, counted.bytes)",
            s = self.schema
        );
        assert_eq!(ask(self.postgres.pool(), wrong).await, "0", "after {after}");
    }
}

/// Makes `calls` random calls on both; how many changed something.
pub async fn compare(server: &Server, seed: u64, calls: u32, bug: Option<super::planted::Bug>) -> usize {
    let mut random = Random(seed);
    let both = Both::new(server).await;
    if let Some(bug) = bug {
        bug.plant(&both.postgres, &both.schema).await;
    }
    let mut changes = 0;
    for _ in 0..calls {
        let (call, changed) = both.step(&mut random).await;
        changes += usize::from(changed);
        if changed || random.below(10) == 0 {
            both.same(&mut random, &call).await;
        }
        if random.below(2) == 0 {
            both.pass(random.one_of(&[1, 2, 10, 200])).await;
        }
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn random_calls_are_answered_as_by_the_store_in_memory() {
    let server = server!();
    let seed = match std::env::var("TOWER_UPLOAD_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64,
    };
    println!("TOWER_UPLOAD_TEST_SEED={seed}");
    let mut changes = 0;
    for round in 0..4 {
        changes += compare(&server, seed.wrapping_add(round), 500, None).await;
    }
    println!("2000 calls, {changes} changes");
    assert!(changes > 500, "{changes} of 2000 calls changed something, seed {seed}");
}
