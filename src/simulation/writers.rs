//! Writers of one sequential upload that race, stall, break off and supersede each other, on one machine that may die and
//! on two nodes over shared stores. Every request sends a byte of its own, so that the blob tells who wrote what.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all, stream, stream::BoxStream};
use tokio::time::Instant;

use super::{
    Coverage, from_env, merge,
    world::{SeededRandom, VirtualClock, is_dead},
};
use crate::{
    Caller, ErrorKind, NewAppend, NewUpload, State, UploadId, Uploads, Verify,
    access::OwnerOnly,
    blob::{
        BlobStore, ByteRange, MemoryBlobs,
        disk::{
            DiskOptions,
            sim::{SimFs, SplitMix64},
            store::Disk,
        },
    },
    conformance::fault::{Fault, FaultyMetadata},
    engine::Spool,
    error::Result as UploadResult,
    metadata::MemoryMetadata,
    planted::{Bug, plant},
};

/// The longest that a store takes for one thing, and how often that may come before a newer request has its turn: the batch
/// that is under way, the settlement of what was received, and what the newer one reads itself.
const LATENCY: Duration = Duration::from_millis(40);
const TURN: Duration = Duration::from_millis(40 * 20);
/// How long a client that stalls keeps its connection.
const STALL: Duration = Duration::from_secs(3600);

/// A request as it was sent.
struct Sent {
    offset: u64,
    len: u64,
    acknowledged: bool,
}

/// One upload, and who sends it.
#[derive(Clone)]
struct Race {
    rng: Arc<Mutex<SplitMix64>>,
    coverage: Arc<Mutex<Coverage>>,
    sent: Arc<Mutex<Vec<Sent>>>,
    /// The highest offset that was told or acknowledged.
    told: Arc<Mutex<u64>>,
    /// How much was begun, and when the last of it, so that a client knows whether it was alone.
    begun: Arc<Mutex<(u64, Option<Instant>)>>,
    size: u64,
    /// Whether the end is not told beforehand.
    deferred: bool,
}

impl Race {
    fn below(&self, bound: u64) -> u64 {
        self.rng.lock().unwrap().below(bound)
    }

    fn count(&self, what: &str) {
        *self.coverage.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    fn told(&self) -> MutexGuard<'_, u64> {
        self.told.lock().unwrap()
    }

    /// Begins something; says how much has been begun, and whether all before has its turn by now.
    fn begin(&self) -> (u64, bool) {
        let mut begun = self.begun.lock().unwrap();
        let settled = begun.1.is_none_or(|last| last.elapsed() > TURN);
        *begun = (begun.0 + 1, Some(Instant::now()));
        (begun.0, settled)
    }

    async fn writer(&self, uploads: &Uploads, id: UploadId) {
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(self.below(4) * self.below(2_000))).await;
            let patience = match self.below(4) {
                0 => Duration::from_millis(self.below(500)),
                _ => STALL,
            };
            if tokio::time::timeout(patience, self.step(uploads, id)).await.is_err() {
                self.count("given up by the client");
            }
        }
    }

    /// Asks for the offset and goes on from there.
    async fn step(&self, uploads: &Uploads, id: UploadId) {
        let caller = Caller::new("alice");
        let (before, (mine, settled), asked) = (*self.told(), self.begin(), Instant::now());
        let offset = match uploads.take_over(&caller, id).await {
            Ok(upload) if upload.state() == State::Open => upload.offset(),
            Ok(_) => return,
            Err(error) => panic!("no offset is told: {error}"),
        };
        let waited = asked.elapsed();
        assert!(waited <= TURN, "a newer request waited for {waited:?}");
        assert!(offset >= before, "the offset went from {before} to {offset}");
        {
            let mut told = self.told();
            *told = offset.max(*told);
        }

        let rest = self.size - offset;
        let len = if self.below(3) == 0 { rest } else { self.below(rest + 1) };
        let completes = self.deferred && len == rest;
        let request = {
            let mut sent = self.sent.lock().unwrap();
            sent.push(Sent {
                offset,
                len,
                acknowledged: false,
            });
            sent.len() - 1
        };
        let (body, whole) = self.body(request, len);
        let mut append = NewAppend::new();
        if completes {
            append = append.completes();
        }
        let alone = settled && self.begin().0 == mine + 1;
        match uploads.append_with(&caller, id, offset, append, body).await {
            Ok(appended) => {
                assert!(whole, "a body that broke off was acknowledged");
                assert_eq!(appended.offset, offset + len, "an acknowledgement of another length");
                self.count("acknowledged");
                self.sent.lock().unwrap()[request].acknowledged = true;
                let mut told = self.told();
                *told = appended.offset.max(*told);
            }
            Err(error) => {
                self.count(&format!(
                    "append: {:?}{}",
                    error.kind(),
                    if alone { ", alone" } else { "" }
                ));
                assert!(
                    !(alone && error.kind() == ErrorKind::OffsetMismatch),
                    "the offset {offset} was told and then refused, though nobody came in between"
                );
            }
        }
    }

    /// The body of a request; whether it comes to its end.
    fn body(&self, request: usize, len: u64) -> (BoxStream<'static, UploadResult<Bytes>>, bool) {
        let byte = u8::try_from(request + 1).unwrap();
        let frame = 1 + self.below(90) as usize;
        let trouble = self.below(100);
        let whole = trouble < 45;
        let comes = if whole { len } else { self.below(len + 1) };
        let frames: Vec<_> = vec![byte; comes as usize]
            .chunks(frame)
            .map(|frame| Ok(Bytes::copy_from_slice(frame)))
            .collect();
        let pace = Duration::from_millis(self.below(2) * self.below(300));
        let frames = stream::iter(frames).then(move |frame| async move {
            tokio::time::sleep(pace).await;
            frame
        });
        let body = match trouble {
            0..45 => frames.boxed(),
            45..75 => {
                self.count("stalls");
                frames.chain(stream::pending()).boxed()
            }
            _ => {
                self.count("breaks off");
                let error = crate::Error::new(ErrorKind::Interrupted, "the network is gone");
                frames.chain(stream::iter([Err(error)])).boxed()
            }
        };
        (body, whole)
    }

    /// Sends what is missing, as an honest client does.
    async fn finish(&self, uploads: &Uploads, id: UploadId) {
        let caller = Caller::new("alice");
        for _ in 0..100 {
            let upload = uploads.take_over(&caller, id).await.expect("nobody else is there");
            if upload.state() != State::Open {
                return;
            }
            let (offset, rest) = (upload.offset(), self.size - upload.offset());
            let request = {
                let mut sent = self.sent.lock().unwrap();
                sent.push(Sent {
                    offset,
                    len: rest,
                    acknowledged: true,
                });
                sent.len()
            };
            let frames: Vec<UploadResult<Bytes>> =
                vec![Ok(Bytes::from(vec![u8::try_from(request).unwrap(); rest as usize]))];
            let append = if self.deferred {
                NewAppend::new().completes()
            } else {
                NewAppend::new()
            };
            let appended = uploads
                .append_with(&caller, id, offset, append, stream::iter(frames))
                .await
                .expect("nobody else is there");
            assert!(appended.is_complete);
        }
    }

    /// Every stretch of the blob is the beginning of one request's body, where that request began.
    fn check(&self, bytes: &[u8]) {
        let sent = self.sent.lock().unwrap();
        assert_eq!(bytes.len() as u64, self.size, "another size");
        let mut at = 0;
        let mut seen = vec![false; sent.len()];
        for run in bytes.chunk_by(|a, b| a == b) {
            let request = usize::from(run[0]).checked_sub(1).expect("a byte nobody sent");
            let Sent {
                offset,
                len,
                acknowledged,
            } = sent[request];
            assert_eq!(offset, at, "request {request} began elsewhere: two writers are mixed");
            assert!(
                run.len() as u64 <= len && !seen[request],
                "request {request} is there twice"
            );
            assert!(
                !acknowledged || run.len() as u64 == len,
                "{} of {len} acknowledged bytes are there",
                run.len()
            );
            seen[request] = true;
            at += run.len() as u64;
        }
        for (request, sent) in sent.iter().enumerate() {
            assert!(
                !sent.acknowledged || sent.len == 0 || seen[request],
                "the acknowledged bytes of request {request} are lost"
            );
        }
    }
}

/// The machine of a race: one disk that may die, or stores that two nodes share.
enum Machine {
    Disk(SimFs),
    Shared(Arc<MemoryBlobs>),
}

async fn race(seed: u64) -> Coverage {
    let mut rng = SplitMix64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let one = rng.below(2) == 0;
    let machine = if one {
        let fs = SimFs::new(rng.next());
        fs.set_latency(LATENCY);
        Machine::Disk(fs)
    } else {
        Machine::Shared(Arc::new(MemoryBlobs::new()))
    };
    let race = Race {
        size: rng.below(900),
        deferred: rng.below(2) == 0,
        rng: Arc::new(Mutex::new(rng)),
        coverage: Arc::default(),
        sent: Arc::default(),
        told: Arc::default(),
        begun: Arc::default(),
    };
    let metadata = Arc::new(MemoryMetadata::with_clock(Arc::new(VirtualClock(Instant::now()))));
    let mut machine = machine;
    let mut nodes = start(&race, &machine, &metadata).await;
    let caller = Caller::new("alice");
    let new = NewUpload::new("race.bin");
    let new = if race.deferred {
        new
    } else {
        new.size(race.size).seals_itself()
    };
    let id = nodes[0].create(&caller, new).await.unwrap().id();

    let lives = 1 + u64::from(one && race.below(3) == 0);
    for life in 0..lives {
        let writers = 2 + race.below(3);
        let dies = life + 1 < lives;
        let run = join_all((0..writers).map(|_| {
            let uploads = nodes[race.below(nodes.len() as u64) as usize].clone();
            let race = race.clone();
            async move { race.writer(&uploads, id).await }
        }));
        tokio::select! {
            biased;
            _ = run => {}
            () = tokio::time::sleep(Duration::from_millis(race.below(20_000))), if dies => {}
        }
        if let (true, Machine::Disk(fs)) = (dies, &machine) {
            race.count("crash");
            let fs = if race.below(2) == 0 {
                fs.crash()
            } else {
                fs.power_loss()
            };
            machine = Machine::Disk(fs);
            nodes = start(&race, &machine, &metadata).await;
        }
    }

    race.finish(&nodes[0], id).await;
    // It was sealed with its last byte: nobody has to ask for more.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let upload = nodes[0].status(&caller, id).await.unwrap();
    assert_eq!(
        upload.state(),
        State::Assembled,
        "nobody finished it: {:?}",
        upload.record()
    );
    let (_, body) = nodes[0].read(&caller, id, ByteRange::ALL).await.unwrap();
    race.check(&body.try_collect::<Vec<_>>().await.unwrap().concat());
    for node in &nodes {
        node.shutdown(Duration::from_secs(10)).await;
    }
    race.count(if one { "one machine" } else { "two nodes" });
    std::mem::take(&mut *race.coverage.lock().unwrap())
}

async fn start(race: &Race, machine: &Machine, metadata: &Arc<MemoryMetadata>) -> Vec<Uploads> {
    match machine {
        Machine::Disk(fs) => {
            let disk = Disk::on(fs.clone(), &DiskOptions::default()).await.unwrap();
            let fs = fs.clone();
            vec![node(race, Arc::new(disk), metadata, move || is_dead(&fs)).await]
        }
        Machine::Shared(blobs) => {
            let (first, second): (Arc<dyn BlobStore>, Arc<dyn BlobStore>) = (blobs.clone(), blobs.clone());
            vec![
                node(race, first, metadata, || false).await,
                node(race, second, metadata, || false).await,
            ]
        }
    }
}

async fn node(
    race: &Race,
    blobs: Arc<dyn BlobStore>,
    metadata: &Arc<MemoryMetadata>,
    dead: impl Fn() -> bool + Send + Sync + 'static,
) -> Uploads {
    let world = race.clone();
    let seed = race.rng.lock().unwrap().next();
    let metadata = FaultyMetadata::new(
        Arc::clone(metadata),
        Arc::new(move |_| {
            // A dead process asks for nothing more.
            if dead() {
                return Fault::Hang;
            }
            Fault::Delay(Duration::from_millis(world.below(30)))
        }),
    );
    let verify = if race.below(2) == 0 {
        Verify::Read
    } else {
        Verify::Receipts
    };
    Uploads::with(blobs, metadata)
        .authorizer(OwnerOnly)
        .memory_budget(8 << 10)
        .checkpoint(100)
        .verify(verify)
        .configure(|config| {
            config.spool = Spool::Memory;
            config.batch = 50;
            config.tick = Duration::from_secs(5);
            config.lease = Duration::from_secs(30);
        })
        .random(SeededRandom::new(seed))
        .build()
        .await
        .unwrap()
}

/// Runs the race of `seed`; what it has seen, or which promise was broken.
fn run(seed: u64) -> Result<Coverage, String> {
    super::on_virtual_time(async move { Ok(race(seed).await) })
}

#[test]
fn racing_writers_keep_every_promise() {
    if let Some(seed) = from_env("SIMULATION_SEED") {
        run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        return;
    }
    let count = from_env("SIMULATION_RACES").unwrap_or(1_000);
    let mut coverage = Coverage::new();
    for seed in 1..=count {
        match run(seed) {
            Ok(seen) => merge(&mut coverage, seen),
            Err(broken) => panic!("SIMULATION_SEED={seed}: {broken}"),
        }
    }
    println!("{count} races of writers");
    for (what, times) in &coverage {
        println!("  {what}: {times}");
    }
    for must in [
        "acknowledged",
        "append: Superseded",
        "stalls",
        "breaks off",
        "crash",
        "one machine",
        "two nodes",
    ] {
        assert!(coverage.contains_key(must), "nothing of {must:?} was seen");
    }
}

fn caught(bug: Bug) {
    let _planted = plant(bug);
    for seed in 1..=1_000 {
        if let Err(broken) = run(seed) {
            println!("{bug:?} is caught by seed {seed}: {broken}");
            return;
        }
    }
    panic!("{bug:?} is not caught");
}

#[test]
fn catches_offset_told_before_the_writer_is_stopped() {
    caught(Bug::OffsetToldBeforeStopped);
}

#[test]
fn catches_an_upload_that_is_not_sealed_by_its_last_byte() {
    caught(Bug::LastByteDoesNotSeal);
}
