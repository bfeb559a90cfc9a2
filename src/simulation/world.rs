//! A machine that dies and is started again, with everything on it that can fail.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt as _;
use tokio::{sync::Notify, time::Instant};

use super::{
    Coverage,
    client::Client,
    concat::{self, Joints},
    model::{File, Model},
    worker::{NOTE, Worker},
};
use crate::{
    Caller, Clock, ErrorKind, State, Upload, Uploads,
    access::OwnerOnly,
    blob::{
        ByteRange,
        disk::{
            DiskOptions,
            sim::{Fault as FsFault, OpKind, SimFs, SplitMix64},
            store::Disk,
        },
    },
    conformance::fault::{Call, Fault, FaultyMetadata},
    engine::{Random, Spool},
    error::Result as UploadResult,
    metadata::{MemoryMetadata, Page},
    upload::{Outcome, Timestamp},
};

const EXPIRE: Duration = Duration::from_secs(600);
const BUDGET: u64 = 8 << 10;

/// Shared by everything in one history.
#[derive(Clone)]
pub(super) struct World {
    pub(super) model: Arc<Mutex<Model>>,
    rng: Arc<Mutex<SplitMix64>>,
    engine: Arc<(Mutex<Option<Uploads>>, Notify)>,
    metadata: Arc<MemoryMetadata>,
    /// Faults in a thousand, of the metadata store and of the file system.
    rates: (u64, u64),
    calm: Arc<AtomicBool>,
}

pub(super) struct History {
    world: World,
    fs: SimFs,
    files: Vec<File>,
    /// Instead of files, what is sent in pieces and joined.
    joints: Option<Joints>,
    seed: u64,
}

#[derive(Debug)]
pub(super) struct VirtualClock(pub(super) Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).after(self.0.elapsed())
    }
}

#[derive(Debug)]
pub(super) struct SeededRandom(Mutex<SplitMix64>);

impl SeededRandom {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(SplitMix64::new(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> UploadResult<()> {
        let mut rng = self.0.lock().unwrap();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&rng.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl World {
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.rng.lock().unwrap().below(bound)
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    fn set_engine(&self, engine: Option<Uploads>) {
        *self.engine.0.lock().unwrap() = engine;
        self.engine.1.notify_waiters();
    }

    /// The engine as clients reach it; waits while the machine is down.
    pub(super) async fn engine(&self) -> Uploads {
        loop {
            let changed = self.engine.1.notified();
            let running = self.engine.0.lock().unwrap().clone();
            match running {
                Some(uploads) => return uploads,
                None => changed.await,
            }
        }
    }

    /// Ends when the process dies that runs now.
    pub(super) async fn died(&self) {
        loop {
            let changed = self.engine.1.notified();
            if self.engine.0.lock().unwrap().is_none() {
                return;
            }
            changed.await;
        }
    }
}

impl History {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let fs = SimFs::new(rng.next());
        let rate = |rng: &mut SplitMix64| [0, 5, 20, 60][rng.below(4) as usize];
        let rates = (rate(&mut rng), rate(&mut rng));
        fs.set_latency(Duration::from_millis([0, 3, 40][rng.below(3) as usize]));
        let files = (0..2 + rng.below(2))
            .map(|number| {
                let chunk = [1, 5, 64, 600][rng.below(4) as usize];
                let chunk = if rng.below(3) == 0 { 0 } else { chunk };
                let size = match chunk {
                    0 => rng.below(700) as usize,
                    _ => (rng.below(5) as usize * chunk) + rng.below(chunk as u64 + 1) as usize,
                };
                let deferred = chunk == 0 && rng.below(2) == 0;
                File {
                    number,
                    name: format!("file-{number}.bin"),
                    size,
                    chunk,
                    deferred,
                }
            })
            .collect();
        let model = Model::new(EXPIRE);
        let world = World {
            model: Arc::new(Mutex::new(model)),
            rng: Arc::new(Mutex::new(rng)),
            engine: Arc::default(),
            metadata: Arc::new(MemoryMetadata::with_clock(Arc::new(VirtualClock(Instant::now())))),
            rates,
            calm: Arc::default(),
        };
        Self {
            world,
            fs,
            files,
            joints: None,
            seed,
        }
    }

    /// A history of concatenations alone.
    pub(super) fn of_joints(seed: u64) -> Self {
        let mut history = Self::new(seed.wrapping_add(1 << 40));
        history.files.clear();
        history.joints = Some(Joints::draw(&history.world));
        history
    }

    pub(super) async fn run(mut self) -> Result<Coverage, String> {
        let began = Instant::now();
        let crashes = self.world.below(3);
        self.start().await;
        let clients: Vec<_> = (0..2)
            .map(|number| match &self.joints {
                None => tokio::spawn(Client::new(number, self.world.clone(), self.files.clone()).run()),
                Some(joints) => tokio::spawn(concat::Client::new(number, self.world.clone(), joints.clone()).run()),
            })
            .collect();
        let clients = futures_util::future::try_join_all(clients);
        tokio::pin!(clients);
        let mut ended = false;
        for _ in 0..crashes {
            self.plan_crash();
            let fs = self.fs.clone();
            let by_time = Duration::from_millis(self.world.below(60_000));
            tokio::select! {
                biased;
                result = &mut clients => {
                    rethrow(result);
                    ended = true;
                    break;
                }
                () = fs.died() => {}
                () = tokio::time::sleep(by_time) => {}
            }
            self.crash().await;
        }
        if !ended {
            loop {
                let fs = self.fs.clone();
                tokio::select! {
                    biased;
                    result = &mut clients => break rethrow(result),
                    () = fs.died() => self.crash().await,
                }
            }
        }
        self.settle().await;
        let mut model = self.world.model();
        assert!(model.has_seen_fault(), "a history without a fault");
        model.count("histories");
        let seconds = began.elapsed().as_secs();
        *model.coverage.entry("virtual seconds".into()).or_default() += seconds;
        Ok(std::mem::take(&mut model.coverage))
    }

    /// Half of the crashes come just before some effect on the disk.
    fn plan_crash(&self) {
        if self.world.chance(50) {
            self.fs.stop_before(self.fs.effects() + 1 + self.world.below(60));
        }
    }

    async fn crash(&mut self) {
        self.world.set_engine(None);
        if self.world.chance(50) {
            self.world.model().count("crash: power loss");
            self.fs = self.fs.power_loss();
        } else {
            self.world.model().count("crash: kill");
            self.fs = self.fs.crash();
        }
        tokio::time::sleep(Duration::from_millis(self.world.below(5_000))).await;
        self.start().await;
    }

    /// Starts a process; it may die again while it starts.
    async fn start(&mut self) {
        self.faults();
        loop {
            let fs = self.fs.clone();
            let built = tokio::select! {
                biased;
                () = fs.died() => None,
                built = self.build() => Some(built),
            };
            match built {
                Some(Ok(uploads)) => {
                    self.world.set_engine(Some(uploads));
                    return;
                }
                Some(Err(error)) => assert_ne!(error.kind(), ErrorKind::Invalid, "{error}"),
                None => {
                    self.world.model().count("crash: in recovery");
                    self.fs = self.fs.crash();
                    self.faults();
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn faults(&self) {
        let (world, rate) = (self.world.clone(), self.world.rates.1);
        self.fs.set_hook(move |op| {
            if world.calm.load(Ordering::Relaxed) || world.below(1000) >= rate {
                return None;
            }
            let (what, fault) = match (op.kind, world.below(4)) {
                (_, 0) => ("pause", FsFault::Pause(Duration::from_millis(world.below(30_000)))),
                (OpKind::Open | OpKind::Create, 1) => ("EMFILE", FsFault::Error(24)),
                (OpKind::Write | OpKind::Create | OpKind::SetLen | OpKind::Link, 1 | 2) => {
                    ("ENOSPC", FsFault::Error(28))
                }
                (kind, 3) if kind.is_effect() && kind != OpKind::Create => ("EIO after", FsFault::ErrorAfter(5)),
                _ => ("EIO", FsFault::Error(5)),
            };
            world.model().note(&format!("{what} at {:?} of {}", op.kind, op.path));
            world.model().count(format!("fault: disk, {what}"));
            Some(fault)
        });
    }

    async fn build(&self) -> UploadResult<Uploads> {
        let disk = Disk::on(self.fs.clone(), &DiskOptions::default()).await?;
        let (world, rate, fs) = (self.world.clone(), self.world.rates.0, self.fs.clone());
        let life = self.fs.clone();
        let plan = move |call: Call| {
            // A dead process asks for nothing more.
            if is_dead(&fs) {
                return Fault::Hang;
            }
            if world.calm.load(Ordering::Relaxed) {
                return Fault::None;
            }
            if world.below(1000) >= rate {
                return Fault::Delay(Duration::from_millis(world.below(20)));
            }
            let wait = Duration::from_millis(world.below(60_000));
            let (what, fault) = match world.below(6) {
                0 => ("fail before", Fault::FailBefore),
                1 => ("fail after", Fault::FailAfter),
                2 => ("hang", Fault::Hang),
                3 => ("hang after", Fault::HangAfter),
                4 => ("late", Fault::LateApply(wait)),
                _ => ("slow", Fault::Delay(wait)),
            };
            world.model().count(format!("fault: metadata, {what}, {call:?}"));
            fault
        };
        let metadata = FaultyMetadata::new(Arc::clone(&self.world.metadata), Arc::new(plan));
        let seed = self.world.rng.lock().unwrap().next();
        let listener = self.world.clone();
        let mut uploads = Uploads::with(disk, metadata).authorizer(OwnerOnly);
        if self.has_worker() {
            uploads = uploads.hook(Worker::new(self.world.clone(), life.clone(), seed ^ self.seed));
        }
        uploads
            .expire_after(EXPIRE)
            .remember_ended(Duration::from_secs(30 * 86_400))
            .memory_budget(BUDGET)
            .checkpoint(100)
            .orphan_grace(Duration::from_secs(200))
            .on_event(move |event| {
                let (world, dead) = (listener.clone(), is_dead(&life));
                async move {
                    if dead {
                        std::future::pending::<()>().await;
                    }
                    let heard = world.calm.load(Ordering::Relaxed) || !world.chance(30);
                    world.model().event(&event, heard);
                    if heard {
                        Ok(())
                    } else {
                        Err(crate::Error::unavailable("not heard"))
                    }
                }
            })
            .configure(|config| {
                config.spool = Spool::Memory;
                config.batch = 50;
                config.join_step = 150;
                config.tick = Duration::from_secs(5);
                config.lease = Duration::from_secs(30);
                config.sweep_every = Duration::from_secs(300);
            })
            .random(SeededRandom::new(seed))
            .build()
            .await
    }

    const fn has_worker(&self) -> bool {
        self.seed % 2 == 1
    }

    /// Faults have stopped: everything must come to its end by itself, and nothing be left over.
    async fn settle(&mut self) {
        self.world.calm.store(true, Ordering::Relaxed);
        self.fs.clear_hook();
        self.fs.stop_before(u64::MAX);
        self.fs.set_latency(Duration::ZERO);
        // What hangs or comes late is over by then.
        tokio::time::sleep(Duration::from_secs(90)).await;
        // After a sync that failed the store may ask for a restart.
        // And no history goes by without a fault.
        let spared = !self.world.model().has_seen_fault();
        if is_dead(&self.fs) || self.world.rates.1 > 0 || spared || self.world.chance(60) {
            self.crash().await;
        }
        self.fs.clear_hook();
        self.look().await;
        for number in 0..self.files.len() {
            if self.world.chance(60) {
                let file = self.files[number].clone();
                Client::new(9, self.world.clone(), vec![file]).finish().await;
            }
        }
        // I7: with no client's help from here.
        if let Some(joints) = &self.joints {
            joints.check(&self.world, false).await;
            if self.world.chance(50) {
                joints.finish(&self.world).await;
            }
            tokio::time::sleep(Duration::from_secs(200)).await;
            joints.check(&self.world, true).await;
            // A partial upload is kept for another one that is waited for.
            tokio::time::sleep(2 * EXPIRE).await;
        }
        tokio::time::sleep(EXPIRE + Duration::from_secs(300)).await;
        let uploads = self.world.engine().await;
        uploads.sweep().await.expect("a sweep without faults");
        let all = self.look().await;
        let mut assembled = 0;
        for upload in &all {
            assert!(
                upload.state().is_final(),
                "I7: an upload is {} long after the last fault: {:?}",
                upload.state(),
                upload.record()
            );
            assembled += usize::from(upload.state() == State::Assembled);
            assert!(
                upload.record().outbox.is_empty(),
                "events are not told: {:?}",
                upload.record().outbox
            );
            assert!(
                upload.record().dead_letters.is_empty(),
                "a hook was given up: {:?}",
                upload.record()
            );
            if upload.state() == State::Assembled && self.has_worker() {
                let delivery = upload
                    .record()
                    .deliveries
                    .get("worker")
                    .expect("what the worker came to");
                let (outcome, note) = (delivery.outcome, delivery.notes.get(NOTE.0).map(String::as_str));
                assert_eq!(
                    (outcome, note),
                    (Some(Outcome::Finished), Some(NOTE.1)),
                    "the worker is not done"
                );
            }
            self.world.model().check_events(upload, self.has_worker());
        }
        if let Some(joints) = &self.joints {
            joints.check(&self.world, true).await;
        }
        let left: Vec<_> = self.fs.paths();
        let blobs = left.iter().filter(|path| path.starts_with("blobs/")).count();
        assert_eq!(left.len(), blobs, "I6: something is left over: {left:?}");
        assert_eq!(
            blobs,
            assembled,
            "I6: {blobs} blobs for {assembled} assembled uploads: {left:?}, {:?}",
            all.iter()
                .map(|u| (
                    u.id(),
                    u.state(),
                    u.record().intent,
                    u.key().clone(),
                    u.record().key_held
                ))
                .collect::<Vec<_>>()
        );
        assert_eq!(
            uploads.budget_free() as u64,
            BUDGET / 1024,
            "I6: budget is not given back"
        );
        uploads.shutdown(Duration::from_secs(10)).await;
        drop(uploads);
        self.world.set_engine(None);
        tokio::task::yield_now().await;
        assert_eq!(self.fs.open_files(), 0, "I6: files are still open");
        let _ = self.seed;
    }

    /// Looks at every upload there is, and reads what is assembled.
    async fn look(&self) -> Vec<Upload> {
        let uploads = self.world.engine().await;
        let caller = Caller::new("alice");
        let mut all = Vec::new();
        for listed in uploads
            .list(&caller, Page::new(0, 1000))
            .await
            .expect("a list without faults")
        {
            let upload = uploads
                .status(&caller, listed.id())
                .await
                .expect("a status without faults");
            self.world.model().observe(&upload);
            if upload.state() == State::Assembled {
                let (blob, body) = uploads
                    .read(&caller, upload.id(), ByteRange::ALL)
                    .await
                    .expect("I3: no blob");
                let bytes = body.try_collect::<Vec<_>>().await.expect("I3: unreadable").concat();
                assert_eq!(blob.size, bytes.len() as u64, "I3: a blob of another size");
                self.world.model().check_bytes(upload.id(), &bytes);
            }
            all.push(upload);
        }
        all
    }
}

/// Whether the process that this file system belongs to has died.
pub(super) fn is_dead(fs: &SimFs) -> bool {
    use futures_util::FutureExt as _;
    fs.died().now_or_never().is_some()
}

fn rethrow(result: Result<Vec<()>, tokio::task::JoinError>) {
    if let Err(error) = result {
        std::panic::resume_unwind(error.into_panic());
    }
}
