#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod format;
mod join;
mod planted;
mod power;
mod put;
mod real;
mod seams;

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use crate::{
    blob::{BlobBody, BlobStore, ByteRange, Completed, Slot},
    error::Result,
    upload::{Handle, Key, Part, Plan, UploadId},
};

fn id(seed: u8) -> UploadId {
    UploadId::from_bytes([seed; 16])
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// Bytes that tell where they are from.
fn pattern(seed: u64, len: usize) -> Bytes {
    (0..len as u64)
        .map(|at| (seed.wrapping_mul(151) ^ (at >> 8) ^ at.wrapping_mul(7)) as u8)
        .collect()
}

async fn begin(store: &impl BlobStore, seed: u8, size: Option<u64>) -> Result<Handle> {
    store.begin(id(seed), &key("unused"), &Plan::sequential(size)).await
}

/// Writes a part in two batches.
async fn put(store: &impl BlobStore, handle: &Handle, slot: Slot, bytes: &Bytes) -> Result<Part> {
    let mut writer = store.open(handle, slot).await?;
    let (a, b) = (bytes.slice(..bytes.len() / 2), bytes.slice(bytes.len() / 2..));
    writer.write(vec![a]).await?;
    writer
        .write(vec![b.slice(..b.len() / 3), b.slice(b.len() / 3..)])
        .await?;
    let receipt = writer.finish().await?;
    Ok(Part::new(slot.number, bytes.len() as u64, 0, receipt))
}

async fn collect(body: BlobBody) -> Result<Vec<u8>> {
    body.try_fold(Vec::new(), |mut all, bytes| async move {
        all.extend_from_slice(&bytes);
        Ok(all)
    })
    .await
}

async fn read_all(store: &impl BlobStore, key: &Key) -> Result<Vec<u8>> {
    collect(store.read(key, ByteRange::ALL).await?).await
}

fn done(answer: Completed) -> u64 {
    match answer {
        Completed::Done(blob) => blob.size,
        other => panic!("{other:?}"),
    }
}
