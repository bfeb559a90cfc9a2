//! What every [`BlobStore`] must do.
//!
//! ```
//! # #[tokio::main] async fn main() {
//! use std::sync::Arc;
//! use tower_upload::{blob::MemoryBlobs, conformance::blob};
//!
//! blob::run(async || MemoryBlobs::new()).await;
//! // one test alone:
//! blob::an_older_attempt_changes_no_byte(Arc::new(MemoryBlobs::new())).await;
//! # }
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::bounded;
use crate::{
    Crc64,
    blob::{Before, BlobStore, ByteRange, Completed, Joined, PartWriter, Slot},
    error::{ErrorKind, Result},
    upload::{Blob, Handle, Key, Part, Plan, Receipt, UploadId},
};

mod claim;
mod complete;
mod discard;
mod durable;
mod join;
mod put;
mod read;
mod write;

pub use claim::*;
pub use complete::*;
pub use discard::*;
pub use durable::durability;
pub use join::*;
pub use put::*;
pub use read::*;
pub use write::*;

/// The store under test.
pub type Store = Arc<dyn BlobStore>;

macro_rules! suite {
    ($($test:ident),+ $(,)?) => {
        /// Runs every test, each on a fresh, empty store of `make`.
        ///
        /// # Panics
        /// If a clause of the contract is broken; the message says which.
        pub async fn run<S: BlobStore>(make: impl AsyncFn() -> S) {
            $(bounded(stringify!($test), $test(Arc::new(make().await))).await;)+
        }
    };
}

suite![
    limits_make_sense,
    parts_make_one_blob_in_any_order,
    parts_are_written_in_parallel,
    parts_aside_are_put_in_place,
    parts_of_any_length_follow_each_other,
    appends_follow_what_is_committed,
    nothing_makes_an_empty_blob,
    no_part_gets_longer_than_its_slot,
    a_dropped_writer_leaves_no_byte,
    dropped_futures_can_be_tried_again,
    an_older_attempt_changes_no_byte,
    an_older_attempt_stays_fenced,
    a_claim_alone_destroys_nothing,
    the_newest_of_many_claims_wins,
    uploads_do_not_touch_each_other,
    complete_is_idempotent,
    complete_names_lost_parts,
    nothing_changes_after_complete,
    a_taken_key_is_never_written_over,
    one_key_goes_to_one_upload,
    discard_removes_everything,
    discard_leaves_what_was_published,
    begun_lists_what_was_not_discarded,
    parts_are_read_before_they_are_published,
    ranges_are_read,
    delete_removes_one_blob,
    keys_nest,
    joined_parts_make_one_part,
    a_join_can_be_done_again,
    a_join_changes_nothing_it_is_made_of,
    a_join_names_lost_parts,
    a_join_claims_its_slot,
    a_join_never_touches_what_is_published,
    put_replaces_whole_objects,
    put_is_never_seen_by_half,
    clear_removes_what_lies_below,
];

fn upload_id(number: u32) -> UploadId {
    let mut bytes = *b"conformance-\0\0\0\0";
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    UploadId::from_bytes(bytes)
}

fn key(text: &str) -> Key {
    Key::parse(text).expect("the suite's own keys are sound")
}

fn answered<T>(answer: Result<T>) -> T {
    answer.unwrap_or_else(|error| panic!("A healthy store failed: {error:?}"))
}

/// `len` bytes that tell their place and who wrote them.
fn content(who: u64, len: u64) -> Bytes {
    let mut state = who.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::new();
    while (out.len() as u64) < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(usize::try_from(len).unwrap_or(usize::MAX));
    out.into()
}

/// An upload of `chunks` equal chunks and a shorter last one.
#[derive(Clone)]
struct Scene {
    store: Store,
    handle: Handle,
    key: Key,
    number: u32,
    chunk: u64,
    chunks: u32,
}

impl Scene {
    async fn new(store: &Store, number: u32, chunks: u32) -> Self {
        Self::under(store, number, chunks, &format!("videos/scene-{number}.mp4")).await
    }

    async fn under(store: &Store, number: u32, chunks: u32, path: &str) -> Self {
        Self::begun(store, number, chunks, path, false).await
    }

    /// One that is to be joined to others.
    async fn source(store: &Store, number: u32, chunks: u32) -> Self {
        Self::begun(store, number, chunks, &format!("videos/source-{number}.mp4"), true).await
    }

    async fn begun(store: &Store, number: u32, chunks: u32, path: &str, joined: bool) -> Self {
        let limits = store.limits();
        let chunk = limits.min_part.max(10_007).min(limits.max_part);
        let mut scene = Self {
            store: store.clone(),
            handle: Handle::new(""),
            key: key(path),
            number,
            chunk,
            chunks,
        };
        let mut plan = Plan::indexed(chunks, Some(chunk), Some(scene.size()));
        plan.joined = joined;
        scene.handle = answered(store.begin(upload_id(number), &scene.key, &plan).await);
        scene
    }

    fn len(&self, number: u32) -> u64 {
        if number + 1 == self.chunks {
            self.chunk / 2 + 1
        } else {
            self.chunk
        }
    }

    fn size(&self) -> u64 {
        (0..self.chunks).map(|number| self.len(number)).sum()
    }

    fn slot(&self, number: u32) -> Slot {
        Slot::at(number, u64::from(number) * self.chunk, self.chunk)
    }

    fn right(&self, number: u32) -> Bytes {
        content((u64::from(self.number) << 32) + u64::from(number) + 1, self.len(number))
    }

    fn wrong(&self, number: u32) -> Bytes {
        content(u64::MAX ^ u64::from(number), self.len(number))
    }

    fn whole(&self) -> Vec<u8> {
        (0..self.chunks).flat_map(|number| self.right(number)).collect()
    }

    async fn open(&self, number: u32) -> Box<dyn PartWriter> {
        answered(self.store.open(&self.handle, self.slot(number)).await)
    }

    /// Writes the right bytes of chunk `number`.
    async fn send(&self, number: u32) -> Part {
        write(&self.store, &self.handle, self.slot(number), &self.right(number)).await
    }

    async fn send_all(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for number in 0..self.chunks {
            parts.push(self.send(number).await);
        }
        parts
    }

    async fn complete(&self, parts: &[Part]) -> Completed {
        answered(self.store.complete(&self.handle, &self.key, parts).await)
    }

    /// Completes and looks at every byte.
    async fn publish(&self, parts: &[Part], clause: &str) -> Blob {
        match self.complete(parts).await {
            Completed::Done(blob) => {
                self.is_published(clause).await;
                assert_eq!(
                    blob.size,
                    self.size(),
                    "`complete` must answer the blob's size: {clause}"
                );
                blob
            }
            other => panic!("{clause}: completing must be done, got {other:?}"),
        }
    }

    async fn is_published(&self, clause: &str) {
        let head = answered(self.store.head(&self.key).await).map(|blob| blob.size);
        assert_eq!(head, Some(self.size()), "{clause}: `head` must tell the blob's size");
        let bytes = bytes_of(&self.store, &self.key).await;
        assert!(
            bytes == self.whole(),
            "{clause}: the blob must be exactly the parts' bytes, {}",
            differ(&bytes, &self.whole())
        );
    }

    async fn is_absent(&self, clause: &str) {
        assert_eq!(
            answered(self.store.head(&self.key).await),
            None,
            "{clause}: nothing may lie under the key"
        );
    }
}

/// In frames of odd lengths, several to a write.
fn frames(bytes: &Bytes) -> Vec<Vec<Bytes>> {
    let step = (bytes.len() / 7).max(1);
    let pieces: Vec<Bytes> = (0..bytes.len())
        .step_by(step)
        .map(|at| bytes.slice(at..bytes.len().min(at + step)))
        .collect();
    pieces.chunks(3).map(<[Bytes]>::to_vec).collect()
}

async fn write(store: &Store, handle: &Handle, slot: Slot, bytes: &Bytes) -> Part {
    fill(answered(store.open(handle, slot).await), slot, bytes).await
}

async fn append(store: &Store, handle: &Handle, slot: Slot, before: Before<'_>, bytes: &Bytes) -> Part {
    fill(answered(store.append(handle, slot, before).await), slot, bytes).await
}

async fn fill(mut writer: Box<dyn PartWriter>, slot: Slot, bytes: &Bytes) -> Part {
    for batch in frames(bytes) {
        answered(writer.write(batch).await);
    }
    part(slot.number, bytes, answered(writer.finish().await))
}

fn part(number: u32, bytes: &[u8], receipt: Receipt) -> Part {
    Part::new(number, bytes.len() as u64, Crc64::of(bytes), receipt)
}

async fn bytes_of(store: &Store, key: &Key) -> Vec<u8> {
    gather(answered(store.read(key, ByteRange::ALL).await)).await
}

async fn gather(mut body: crate::blob::BlobBody) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(frame) = body.next().await {
        out.extend_from_slice(&answered(frame));
    }
    out
}

fn differ(left: &[u8], right: &[u8]) -> String {
    let at = left.iter().zip(right).position(|(left, right)| left != right);
    let at = at.map_or_else(
        || "one is a prefix of the other".to_owned(),
        |at| format!("they differ at byte {at}"),
    );
    format!("got {} bytes, wanted {}: {at}", left.len(), right.len())
}

fn kind<T>(answer: Result<T>) -> Option<ErrorKind> {
    answer.err().map(|error| error.kind())
}
