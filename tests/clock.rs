//! An embedded store whose clock was wrong while another process had the file: nothing is lost by it, and nothing waits for it.
#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use tower_upload::{
    Builder, Caller, Clock, NewChunk, NewUpload, Ready, State, Upload, UploadId, Uploads, access::OwnerOnly,
    blob::MemoryBlobs, metadata::RedbOptions, upload::Timestamp,
};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// What the time is, in seconds since 1970.
const TODAY: u64 = 20_000 * DAY;

/// Seconds since 1970, as the machine believes.
#[derive(Clone, Debug, Default)]
struct Hands(Arc<AtomicU64>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed) * 1000)
    }
}

/// A machine with a disk, on which one process runs after another.
struct Machine {
    directory: tempfile::TempDir,
    blobs: Arc<MemoryBlobs>,
    clock: Hands,
}

impl Machine {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            blobs: Arc::default(),
            clock: Hands::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("metadata.redb")
    }

    /// A process that begins at `now` in seconds.
    async fn begin(&self, now: u64) -> Uploads {
        self.begin_with(now, |builder| builder).await
    }

    async fn begin_with(&self, now: u64, with: impl FnOnce(Builder<Ready>) -> Builder<Ready>) -> Uploads {
        self.clock.0.store(now, Ordering::Relaxed);
        let options = RedbOptions::default().with_clock(Arc::new(self.clock.clone()));
        let metadata = options.open(self.path()).await.unwrap();
        let builder = Uploads::with(Arc::clone(&self.blobs), metadata)
            .authorizer(OwnerOnly)
            .expire_after(Duration::from_secs(DAY))
            .remember_assembled(Duration::from_secs(90 * DAY))
            .without_driver();
        with(builder).build().await.unwrap()
    }

    /// Time passes in the running process, with the driver at work.
    async fn pass(&self, uploads: &Uploads, seconds: u64) {
        let end = self.clock.0.load(Ordering::Relaxed) + seconds;
        while self.clock.0.load(Ordering::Relaxed) < end {
            uploads.drive().await.unwrap();
            let next = (self.clock.0.load(Ordering::Relaxed) + MINUTE).min(end);
            self.clock.0.store(next, Ordering::Relaxed);
        }
        uploads.drive().await.unwrap();
    }
}

async fn end(uploads: Uploads) {
    uploads.shutdown(Duration::from_secs(9)).await;
}

fn alice() -> Caller {
    Caller::new("alice")
}

async fn create(uploads: &Uploads) -> UploadId {
    let new = NewUpload::new("a").size(300).chunk_size(3);
    uploads.create(&alice(), new).await.unwrap().id()
}

async fn put(uploads: &Uploads, id: UploadId, index: u32) -> tower_upload::Result<()> {
    let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
    let put = uploads.put_chunk(&alice(), id, NewChunk::new(index), body).await;
    put.map(drop)
}

async fn look(uploads: &Uploads, id: UploadId) -> Upload {
    uploads.status(&alice(), id).await.unwrap()
}

#[tokio::test]
async fn a_clock_that_is_put_right_expires_nothing_that_is_gone_on_with() {
    let machine = Machine::new();
    let uploads = machine.begin(TODAY - 3 * DAY).await;
    let [kept, left] = [create(&uploads).await, create(&uploads).await];
    put(&uploads, kept, 0).await.unwrap();
    machine.pass(&uploads, 2 * HOUR).await;
    put(&uploads, kept, 1).await.unwrap();
    end(uploads).await;

    let uploads = machine.begin(TODAY).await;
    machine.pass(&uploads, 30 * MINUTE).await;
    assert_eq!(look(&uploads, kept).await.state(), State::Open);
    assert_eq!(look(&uploads, left).await.state(), State::Open);
    put(&uploads, kept, 2).await.unwrap();
    machine.pass(&uploads, 31 * MINUTE).await;
    assert_eq!(look(&uploads, left).await.state(), State::Expired);
    // From the first chunk on all is as ever.
    machine.pass(&uploads, 22 * HOUR).await;
    assert_eq!(look(&uploads, kept).await.state(), State::Open);
    machine.pass(&uploads, 2 * HOUR).await;
    assert_eq!(look(&uploads, kept).await.state(), State::Expired);
    end(uploads).await;
}

/// Also without a tick in between: whoever comes first finds it open.
#[tokio::test]
async fn the_first_chunk_after_it_was_put_right_is_taken() {
    let machine = Machine::new();
    let uploads = machine.begin(TODAY - 3 * DAY).await;
    let id = create(&uploads).await;
    end(uploads).await;
    let uploads = machine.begin(TODAY).await;
    put(&uploads, id, 0).await.unwrap();
    let expires = look(&uploads, id).await.expires_at().unwrap();
    assert_eq!(expires, Timestamp::from_millis((TODAY + DAY) * 1000));
    machine.pass(&uploads, DAY - HOUR).await;
    assert_eq!(look(&uploads, id).await.state(), State::Open);
    end(uploads).await;
}

/// What an upload had left is all it has, however often the process begins anew.
#[tokio::test]
async fn beginning_again_and_again_keeps_nothing_for_ever() {
    for running in [MINUTE, 7 * MINUTE, 30 * MINUTE] {
        let machine = Machine::new();
        let uploads = machine.begin(TODAY).await;
        let id = create(&uploads).await;
        end(uploads).await;
        let mut times = 0;
        loop {
            times += 1;
            let uploads = machine.begin(TODAY + times * 2 * DAY).await;
            machine.pass(&uploads, running).await;
            let state = look(&uploads, id).await.state();
            end(uploads).await;
            if state == State::Expired {
                break;
            }
            assert!(times * running <= HOUR, "{times} times {running} s");
        }
        assert!(times * running >= HOUR, "{times} times {running} s");
    }
}

/// Who runs out while the process is there has had its time.
#[tokio::test]
async fn what_ran_out_before_the_end_of_a_process_has_run_out() {
    let machine = Machine::new();
    let uploads = machine.begin(TODAY).await;
    let id = create(&uploads).await;
    machine.clock.0.store(TODAY + DAY + 5 * MINUTE, Ordering::Relaxed);
    create(&uploads).await;
    end(uploads).await;
    let uploads = machine.begin(TODAY + DAY + 10 * MINUTE).await;
    uploads.drive().await.unwrap();
    assert_eq!(look(&uploads, id).await.state(), State::Expired);
    end(uploads).await;
}

#[tokio::test]
async fn a_clock_that_was_ahead_holds_nothing_up() {
    let hears = Arc::new(AtomicBool::new(false));
    let told = Arc::new(AtomicU64::new(0));
    let hook = |builder: Builder<Ready>| {
        let (hears, told) = (Arc::clone(&hears), Arc::clone(&told));
        builder.on_event(move |_| {
            let hears = hears.load(Ordering::Relaxed);
            if hears {
                told.fetch_add(1, Ordering::Relaxed);
            }
            async move {
                if hears {
                    Ok(())
                } else {
                    Err(tower_upload::Error::unavailable("not now"))
                }
            }
        })
    };
    let machine = Machine::new();
    let uploads = machine.begin_with(TODAY + 30 * DAY, hook).await;
    let open = create(&uploads).await;
    machine.pass(&uploads, 5 * MINUTE).await;
    end(uploads).await;

    let uploads = machine.begin_with(TODAY, hook).await;
    hears.store(true, Ordering::Relaxed);
    uploads.drive().await.unwrap();
    let wait = async {
        while told.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("told at once");
    machine.pass(&uploads, DAY - HOUR).await;
    assert_eq!(look(&uploads, open).await.state(), State::Open);
    machine.pass(&uploads, 2 * HOUR).await;
    assert_eq!(look(&uploads, open).await.state(), State::Expired);
    end(uploads).await;
}

#[tokio::test]
async fn a_clock_that_was_ahead_keeps_nothing_for_longer() {
    let machine = Machine::new();
    let uploads = machine.begin(TODAY + 30 * DAY).await;
    let id = create(&uploads).await;
    end(uploads).await;
    let uploads = machine.begin(TODAY).await;
    machine.pass(&uploads, DAY - HOUR).await;
    assert_eq!(look(&uploads, id).await.state(), State::Open);
    machine.pass(&uploads, 2 * HOUR).await;
    assert_eq!(look(&uploads, id).await.state(), State::Expired);
    end(uploads).await;
}

/// What is remembered for a while is not forgotten early, whichever way the clock was wrong.
#[tokio::test]
async fn what_is_remembered_is_not_forgotten_early() {
    for wrong in [0, TODAY + 30 * DAY] {
        let machine = Machine::new();
        let uploads = machine.begin(TODAY).await;
        let new = NewUpload::new("b").size(3);
        let id = uploads.create(&alice(), new).await.unwrap().id();
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
        uploads.append(&alice(), id, 0, body).await.unwrap();
        uploads.assemble(&alice(), id, None).await.unwrap();
        end(uploads).await;
        for now in [wrong, TODAY + DAY] {
            let uploads = machine.begin(now).await;
            machine.pass(&uploads, HOUR).await;
            assert_eq!(look(&uploads, id).await.state(), State::Assembled);
            end(uploads).await;
        }
        let uploads = machine.begin(TODAY + 91 * DAY).await;
        machine.pass(&uploads, HOUR).await;
        uploads.status(&alice(), id).await.unwrap_err();
        end(uploads).await;
    }
}

/// A machine without a battery begins in 1970 and asks for the time later.
#[tokio::test]
async fn a_clock_that_begins_at_nothing_loses_nothing() {
    let machine = Machine::new();
    let uploads = machine.begin(TODAY).await;
    let id = create(&uploads).await;
    end(uploads).await;
    let uploads = machine.begin(0).await;
    machine.pass(&uploads, 2 * HOUR).await;
    put(&uploads, id, 0).await.unwrap();
    end(uploads).await;
    let uploads = machine.begin(TODAY + 3 * HOUR).await;
    machine.pass(&uploads, 30 * MINUTE).await;
    put(&uploads, id, 1).await.unwrap();
    assert_eq!(look(&uploads, id).await.state(), State::Open);
    end(uploads).await;
}
