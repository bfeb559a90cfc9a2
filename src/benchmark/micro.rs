//! Parsers and arithmetic that are not public, for `benches/micro.rs`. No part of the API.
#![allow(missing_docs)]

use crate::{
    engine::{
        Upload,
        checksum::{Combiner, Hasher},
    },
    upload::{Algorithm, Digest, Snapshot},
};

pub use crate::http::micro::{content_digest, form, path, query, structured_item, tus_metadata};

/// The digest of `bytes`.
#[must_use]
pub fn digest(algorithm: Algorithm, bytes: &[u8]) -> Option<Digest> {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish().ok()
}

/// CRC-64/NVME of parts (CRC, length) behind each other.
#[must_use]
pub fn combine(parts: &[(u64, u64)]) -> u64 {
    let mut combiner = Combiner::new();
    for (crc64, len) in parts {
        combiner.push(*crc64, *len);
    }
    combiner.value()
}

#[must_use]
pub const fn upload(snapshot: Snapshot) -> Upload {
    Upload::new(snapshot)
}
