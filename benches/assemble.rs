//! What assembly costs on disk: `cargo bench --bench assemble` prints tables in Markdown; `-- --full` adds 8 GiB.
//!
//! Everything is as in production: each chunk is synced and committed before the next one, four chunks at a time.
//! `ASSEMBLE_DIR` says where; a directory beneath the build directory unless it does. It needs 2 GiB there (8 with `--full`), one file at a time.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_possible_truncation)]

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use tower_upload::{
    Address, Caller, FileName, NewChunk, NewUpload, Target, UploadId, Uploads, access::OwnerOnly, blob::DiskBlobs,
    metadata::RedbMetadata,
};

const MIB: u64 = 1 << 20;
const CHUNK: u64 = 8 * MIB;
/// What a connection hands over at a time.
const FRAME: u64 = 64 << 10;
const PARALLEL: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Order {
    Ascending,
    Shuffled,
    LastAhead,
    /// The same by name, when nobody has said how long a chunk is: it is kept aside until that is known.
    LastAheadByName,
    /// Four clients begin at once, by name, and nobody has said how long a chunk is.
    FourRacing,
}

impl Order {
    const ALL: [(Self, &str); 5] = [
        (Self::Ascending, "in order"),
        (Self::Shuffled, "shuffled"),
        (Self::LastAhead, "last chunk first"),
        (Self::LastAheadByName, "last chunk first, by name"),
        (Self::FourRacing, "four racing first chunks, by name"),
    ];
}

/// An engine on a directory of its own.
struct Bench {
    uploads: Uploads,
    blobs: Arc<DiskBlobs>,
    caller: Caller,
    directory: tempfile::TempDir,
}

/// What one upload came to.
struct Measured {
    parts: u32,
    copied: u64,
    filled: Duration,
    assembled: Duration,
}

fn main() {
    let full = std::env::args().any(|argument| argument == "--full") || std::env::var("ASSEMBLE_FULL").is_ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        println!("{}\n", machine());
        println!("Chunks of {} MiB; up to 512 MiB the median of 5 runs.\n", CHUNK / MIB);
        println!("| file | chunks | order | bytes copied | assemble | filling |");
        println!("| --- | --- | --- | --- | --- | --- |");
        let mut sizes = vec![64 * MIB, 512 * MIB, 2048 * MIB];
        if full {
            sizes.push(8192 * MIB);
        }
        for size in sizes {
            for (order, name) in Order::ALL {
                let repeats = if size > 512 * MIB { 1 } else { 5 };
                let mut runs = Vec::new();
                for _ in 0..repeats {
                    runs.push(Bench::new().await.upload(size, CHUNK, order).await);
                }
                runs.sort_unstable_by_key(|run| run.assembled);
                let measured = runs.swap_remove(repeats / 2);
                println!(
                    "| {} MiB | {} | {name} | {} | {:.2} ms | {:.0} MiB/s |",
                    size / MIB,
                    measured.parts,
                    measured.copied,
                    millis(measured.assembled),
                    (size / MIB) as f64 / measured.filled.as_secs_f64()
                );
            }
        }
        parts().await;
        commits().await;
    });
}

/// Assembly against the number of parts: small ones, since their bytes do not matter.
async fn parts() {
    const REPEATS: usize = 9;
    println!("\n| parts of 4 KiB | assemble, median of {REPEATS} | fastest |\n| --- | --- | --- |");
    let mut points = Vec::new();
    for parts in [1, 10, 100, 1_000, 4_000, 10_000] {
        let bench = Bench::new().await;
        let mut times = Vec::new();
        for _ in 0..REPEATS {
            times.push(bench.upload_on(parts * 4096, 4096, Order::Ascending).await.assembled);
        }
        times.sort_unstable();
        println!(
            "| {parts} | {:.2} ms | {:.2} ms |",
            millis(times[REPEATS / 2]),
            millis(times[0])
        );
        points.push((parts as f64, times[0].as_secs_f64() * 1e6));
    }
    let (constant, slope) = fit(&points);
    println!("\nfastest: {:.2} ms + {slope:.2} µs per part", constant / 1e3);
}

/// The latency of a whole chunk of 4 KiB, early and late: of two uploads in turn, so that both see the same disk.
async fn commits() {
    const TIMES: u32 = 400;
    println!("\n| chunk of 4 KiB, stored and committed | median of {TIMES} |\n| --- | --- |");
    let bench = Bench::new().await;
    let mut uploads = Vec::new();
    for (name, from) in [("from 100 on", 100), ("from 10,000 on", 10_000)] {
        let id = bench.create(20_000 * 4096, 4096).await;
        bench.fill(id, (0..from).collect(), 20_000 * 4096, 4096).await;
        uploads.push((name, id, from, Vec::new()));
    }
    for turn in 0..TIMES {
        for (_, id, from, times) in &mut uploads {
            let index = *from + turn;
            let began = Instant::now();
            let chunk = NewChunk::new(index);
            bench.put(Address::Id(*id), chunk, u64::from(index) * 4096, 4096).await;
            times.push(began.elapsed());
        }
    }
    let mut medians = Vec::new();
    for (name, _, _, mut times) in uploads {
        times.sort_unstable();
        let median = times[times.len() / 2].as_secs_f64();
        println!("| {name} | {:.0} µs |", median * 1e6);
        medians.push(median);
    }
    println!("\nthe second over the first: {:.2}", medians[1] / medians[0]);
}

impl Bench {
    async fn new() -> Self {
        let above =
            std::env::var("ASSEMBLE_DIR").map_or_else(|_| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        let directory = tempfile::tempdir_in(above).unwrap();
        let blobs = Arc::new(DiskBlobs::open(directory.path()).await.unwrap());
        let metadata = RedbMetadata::open(directory.path().join("metadata.redb"))
            .await
            .unwrap();
        let uploads = Uploads::with(Arc::clone(&blobs), metadata).authorizer(OwnerOnly);
        Self {
            uploads: uploads.build().await.unwrap(),
            blobs,
            caller: Caller::new("ann"),
            directory,
        }
    }

    /// One upload and the end of the directory.
    async fn upload(self, size: u64, chunk: u64, order: Order) -> Measured {
        let measured = self.upload_on(size, chunk, order).await;
        self.uploads.shutdown(Duration::from_secs(60)).await;
        measured
    }

    /// One upload, which is deleted afterwards.
    async fn upload_on(&self, size: u64, chunk: u64, order: Order) -> Measured {
        let chunks = u32::try_from(size.div_ceil(chunk)).unwrap();
        let mut order_of: Vec<u32> = (0..chunks).collect();
        let copied = self.blobs.copied_bytes();
        let began = Instant::now();
        let id = match order {
            Order::FourRacing => {
                let first = order_of.drain(..PARALLEL).collect();
                self.race(first, size, chunk).await
            }
            Order::LastAheadByName => {
                let last = order_of.pop().into_iter().collect();
                self.race(last, size, chunk).await
            }
            _ => self.create(size, chunk).await,
        };
        match order {
            Order::Shuffled => shuffle(&mut order_of),
            Order::LastAhead => order_of.rotate_right(1),
            Order::Ascending | Order::LastAheadByName | Order::FourRacing => {}
        }
        self.fill(id, order_of, size, chunk).await;
        let filled = began.elapsed();
        let began = Instant::now();
        let upload = self.uploads.assemble(&self.caller, id, None).await.unwrap();
        let assembled = began.elapsed();
        assert_eq!(upload.size(), Some(size));
        let path = self.directory.path().join("blobs").join(upload.key().as_str());
        check(&path, size);
        self.uploads.delete(&self.caller, id).await.unwrap();
        Measured {
            parts: chunks,
            copied: self.blobs.copied_bytes() - copied,
            filled,
            assembled,
        }
    }

    async fn create(&self, size: u64, chunk: u64) -> UploadId {
        let new = NewUpload::new("film.mp4").size(size).chunk_size(chunk);
        self.uploads.create(&self.caller, new).await.unwrap().id()
    }

    /// Sends these chunks at once, by name and to an upload that does not exist yet, as clients of the original API do.
    async fn race(&self, first: Vec<u32>, size: u64, chunk: u64) -> UploadId {
        let (target, name) = (Target::parse("7").unwrap(), FileName::parse("film.mp4").unwrap());
        let total = u32::try_from(size.div_ceil(chunk)).unwrap();
        let racing = first.iter().map(|index| {
            let at = u64::from(*index) * chunk;
            let to = Address::Name(Some(&target), &name);
            self.put(to, NewChunk::new(*index).total(total), at, chunk.min(size - at))
        });
        join_all(racing).await;
        let found = self
            .uploads
            .status(&self.caller, Address::Name(Some(&target), &name))
            .await;
        found.unwrap().id()
    }

    async fn fill(&self, id: UploadId, order: Vec<u32>, size: u64, chunk: u64) {
        stream::iter(order)
            .for_each_concurrent(PARALLEL, |index| {
                let at = u64::from(index) * chunk;
                self.put(Address::Id(id), NewChunk::new(index), at, chunk.min(size - at))
            })
            .await;
    }

    async fn put(&self, to: Address<'_>, chunk: NewChunk, at: u64, len: u64) {
        let frames = (at / 4096..(at + len).div_ceil(4096)).step_by((FRAME / 4096) as usize);
        let frames = frames.map(move |block| {
            let begin = block * 4096;
            Ok::<_, Infallible>(Bytes::from(bytes(begin, FRAME.min(at + len - begin))))
        });
        let stored = self
            .uploads
            .put_chunk(&self.caller, to, chunk, stream::iter(frames))
            .await;
        stored.unwrap();
    }
}

/// The bytes of the film from `at` on: each block of 4 KiB is its own number, again and again.
fn bytes(at: u64, len: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len as usize);
    let mut block = at / 4096;
    while (bytes.len() as u64) < len {
        let number = block.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
        bytes.extend_from_slice(&number.repeat(512));
        block += 1;
    }
    bytes.truncate(len as usize);
    bytes
}

/// Reads a sample of the blob back.
fn check(path: &Path, size: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    for sample in 0..64 {
        let at = (size / 64 * sample) / 4096 * 4096;
        let mut read = vec![0; 4096.min(size - at) as usize];
        file.read_exact_at(&mut read, at).unwrap();
        assert!(read == bytes(at, read.len() as u64), "other bytes at {at}");
    }
}

fn shuffle(order: &mut [u32]) {
    let mut state = 42_u64;
    for at in (1..order.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, (state >> 33) as usize % (at + 1));
    }
}

/// Least squares: constant and slope.
fn fit(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = above / below;
    (y - slope * x, slope)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Date, processor, kernel.
fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = models.next().map_or("", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}; {cores} cores, {model}; {}; {}",
        said("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default(),
        said("uname", &["-sr"]).unwrap_or_default(),
        said("df", &["--output=fstype", env!("CARGO_TARGET_TMPDIR")])
            .unwrap_or_default()
            .lines()
            .last()
            .unwrap_or_default(),
    )
}
