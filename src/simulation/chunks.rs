//! One chunk sent with different bytes through two nodes over shared stores: one of them is stored, and everybody else hears so.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use tokio::time::Instant;

use super::{
    Coverage, from_env, merge, on_virtual_time,
    world::{SeededRandom, VirtualClock},
};
use crate::{
    Address, Caller, ErrorKind, FileName, NewChunk, NewUpload, State, Target, UploadId, Uploads,
    access::OwnerOnly,
    blob::{ByteRange, MemoryBlobs, disk::sim::SplitMix64},
    conformance::fault::{Fault, Faults, FaultyBlobs, FaultyMetadata},
    engine::Spool,
    metadata::MemoryMetadata,
};

const CHUNKS: u32 = 3;
const CHUNK: u64 = 40;

/// Every call of a store takes a moment of its own, so that two nodes meet in all ways.
fn slow(seed: u64) -> Arc<dyn Faults> {
    let rng = std::sync::Mutex::new(SplitMix64::new(seed));
    Arc::new(move |_| {
        let mut rng = rng.lock().unwrap();
        match rng.below(3) {
            0 => Fault::None,
            _ => Fault::Delay(Duration::from_millis(rng.below(20))),
        }
    })
}

/// A request, and the byte that all of its chunk is made of.
#[derive(Clone, Copy, Debug)]
struct Sender {
    byte: u8,
    index: u32,
    node: usize,
    wait: Duration,
    pace: Duration,
    /// Whether it asks again as long as it is not told how it ended.
    persists: bool,
}

impl Sender {
    fn len(self) -> u64 {
        if self.index + 1 == CHUNKS { CHUNK / 2 } else { CHUNK }
    }

    async fn send(self, uploads: &Uploads, to: &To) -> Result<UploadId, ErrorKind> {
        tokio::time::sleep(self.wait).await;
        for _ in 0..50 {
            let frames: Vec<crate::Result<Bytes>> = vec![self.byte; self.len() as usize]
                .chunks(15)
                .map(|frame| Ok(Bytes::copy_from_slice(frame)))
                .collect();
            let pace = self.pace;
            let body = stream::iter(frames).then(move |frame| async move {
                tokio::time::sleep(pace).await;
                frame
            });
            let chunk = NewChunk::new(self.index).total(CHUNKS);
            match uploads.put_chunk(&alice(), to.address(), chunk, body.boxed()).await {
                Ok(stored) => return Ok(stored.upload_id),
                Err(error)
                    if self.persists && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Superseded) =>
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error.kind()),
            }
        }
        panic!("chunk {} of {} is never answered", self.index, self.byte);
    }
}

fn alice() -> Caller {
    Caller::new("alice")
}

/// An upload that was created before, or one that its chunks create.
enum To {
    Id(UploadId),
    Name(Target, FileName),
}

impl To {
    fn address(&self) -> Address<'_> {
        match self {
            Self::Id(id) => Address::Id(*id),
            Self::Name(target, name) => Address::Name(Some(target), name),
        }
    }
}

async fn conflict(seed: u64) -> Coverage {
    let mut rng = SplitMix64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (blobs, clock) = (Arc::new(MemoryBlobs::new()), VirtualClock(Instant::now()));
    let metadata = Arc::new(MemoryMetadata::with_clock(Arc::new(clock)));
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let blobs = FaultyBlobs::new(Arc::clone(&blobs), slow(rng.next()));
        let metadata = FaultyMetadata::new(Arc::clone(&metadata), slow(rng.next()));
        let node = Uploads::with(blobs, metadata)
            .authorizer(OwnerOnly)
            .configure(|config| config.spool = Spool::Memory)
            .random(SeededRandom::new(rng.next()))
            .build();
        nodes.push(node.await.unwrap());
    }
    let to = if rng.below(2) == 0 {
        let new = NewUpload::new("a").size(CHUNK * 5 / 2).chunk_size(CHUNK);
        To::Id(nodes[0].create(&alice(), new).await.unwrap().id())
    } else {
        To::Name(Target::parse("v").unwrap(), FileName::parse("a").unwrap())
    };

    // Some for the same chunk, and at least one for each; most on both nodes at once.
    let contested = rng.below(u64::from(CHUNKS)) as u32;
    let rivals = 2 + rng.below(4) as u32;
    let chunks = (0..CHUNKS).chain((1..rivals).map(|_| contested));
    let senders: Vec<Sender> = (1..)
        .zip(chunks)
        .map(|(byte, index)| Sender {
            byte,
            index,
            node: if index == contested {
                usize::from(byte) % 2
            } else {
                rng.below(2) as usize
            },
            wait: Duration::from_millis(rng.below(2) * rng.below(60)),
            pace: Duration::from_millis(rng.below(2) * rng.below(10)),
            persists: index != contested || rng.below(2) == 0,
        })
        .collect();
    let answers = join_all(senders.iter().map(|sender| sender.send(&nodes[sender.node], &to))).await;

    let mut coverage = Coverage::new();
    let mut winners = vec![Vec::new(); CHUNKS as usize];
    for (sender, answer) in senders.iter().zip(&answers) {
        match answer {
            Ok(_) => winners[sender.index as usize].push(sender.byte),
            Err(kind) => {
                *coverage.entry(format!("{kind:?}")).or_default() += 1;
                let is_told = *kind == ErrorKind::Conflict;
                assert!(is_told || !sender.persists, "chunk {}: {kind:?}", sender.index);
                let may = matches!(
                    kind,
                    ErrorKind::Conflict | ErrorKind::Superseded | ErrorKind::Unavailable
                );
                assert!(may, "chunk {}: {kind:?}", sender.index);
            }
        }
    }
    // Those that were stopped or left in doubt ask for nothing more: somebody has to have it.
    if winners[contested as usize].is_empty() {
        *coverage.entry("sent once more".into()).or_default() += 1;
        let last = Sender {
            byte: 100,
            index: contested,
            persists: true,
            ..senders[0]
        };
        if last.send(&nodes[0], &to).await.is_ok() {
            winners[contested as usize].push(last.byte);
        }
    }
    for (index, winners) in winners.iter().enumerate() {
        assert!(winners.len() <= 1, "chunk {index} was acknowledged to {winners:?}");
    }

    // Whichever node is asked, whoever asks: the same bytes.
    let node = &nodes[rng.below(2) as usize];
    let mut assembled = node.assemble(&alice(), to.address(), None).await;
    if let Err(error) = &assembled {
        // These stores keep one attempt at a slot: one on another node that was refused may have come over the bytes of the
        // one that was committed. That is found, and the chunk asked for again.
        assert_eq!(error.missing(), [(contested, contested)], "{error:?}");
        *coverage.entry("replaced by one that was refused".into()).or_default() += 1;
        let again = Sender {
            byte: 101,
            index: contested,
            persists: true,
            ..senders[0]
        };
        again.send(node, &to).await.unwrap();
        winners[contested as usize] = vec![again.byte];
        assembled = node.assemble(&alice(), to.address(), None).await;
    }
    let upload = assembled.unwrap();
    assert_eq!(upload.state(), State::Assembled);
    for node in &nodes {
        let (_, body) = node.read(&alice(), upload.id(), ByteRange::ALL).await.unwrap();
        let bytes = body.try_collect::<Vec<_>>().await.unwrap().concat();
        assert_eq!(bytes.len() as u64, CHUNK * 5 / 2);
        for (chunk, winners) in bytes.chunks(CHUNK as usize).zip(&winners) {
            assert!(
                chunk.iter().all(|byte| *byte == chunk[0]),
                "two senders are mixed: {chunk:?}"
            );
            match winners.first() {
                Some(winner) => assert_eq!(chunk[0], *winner, "acknowledged bytes are not there"),
                None => *coverage.entry("stored without an answer".into()).or_default() += 1,
            }
        }
        node.shutdown(Duration::from_secs(10)).await;
    }
    assert!(
        answers.iter().flatten().all(|id| *id == upload.id()),
        "an acknowledgement of another upload"
    );
    coverage
}

fn run(seed: u64) -> Result<Coverage, String> {
    on_virtual_time(async move { Ok(conflict(seed).await) })
}

#[test]
fn other_bytes_for_a_chunk_are_a_conflict_on_whichever_node() {
    if let Some(seed) = from_env("SIMULATION_SEED") {
        run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        return;
    }
    let count = from_env("SIMULATION_CONFLICTS").unwrap_or(500);
    let mut coverage = Coverage::new();
    for seed in 1..=count {
        match run(seed) {
            Ok(seen) => merge(&mut coverage, seen),
            Err(broken) => panic!("SIMULATION_SEED={seed}: {broken}"),
        }
    }
    println!("{count} chunks sent with different bytes: {coverage:?}");
    for must in ["Conflict", "Superseded"] {
        assert!(coverage.contains_key(must), "nothing of {must:?} was seen");
    }
}
