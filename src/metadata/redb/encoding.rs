//! How keys and values are written.
//!
//! Every value leads with a format byte of its own (records: [`Record::encode`](crate::upload::Record::encode)),
//! so that a later release can change one without rewriting the file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    upload::{FileName, Owner, Part, Receipt, Tally, Target},
};

/// Owner and target led by their lengths (4 bytes, big endian), the target also by whether there is one.
pub(super) fn name_key(owner: &Owner, target: Option<&Target>, file_name: &FileName) -> Arc<[u8]> {
    let mut key = Vec::new();
    let mut push = |text: &str| {
        // A text of 4 GiB would wrap; redb refuses values of 3 GiB.
        #[expect(clippy::cast_possible_truncation)]
        key.extend((text.len() as u32).to_be_bytes());
        key.extend(text.as_bytes());
    };
    push(owner.as_str());
    match target {
        Some(target) => {
            push("t");
            push(target.as_str());
        }
        None => push(""),
    }
    key.extend(file_name.as_str().as_bytes());
    key.into()
}

const TALLY_FORMAT: u8 = 1;

/// The format byte, then parts (4 bytes), bytes and revision (8 each) and sequence (4), little endian.
pub(super) fn encode_tally(tally: Tally, sequence: u32) -> [u8; 25] {
    let mut out = [TALLY_FORMAT; 25];
    out[1..5].copy_from_slice(&tally.parts.to_le_bytes());
    out[5..13].copy_from_slice(&tally.bytes.to_le_bytes());
    out[13..21].copy_from_slice(&tally.revision.to_le_bytes());
    out[21..].copy_from_slice(&sequence.to_le_bytes());
    out
}

pub(super) fn decode_tally(bytes: &[u8]) -> Result<(Tally, u32)> {
    let damaged = || Error::internal("A metadata tally is damaged or of a newer release");
    let Some((&TALLY_FORMAT, rest)) = bytes.split_first() else {
        return Err(damaged());
    };
    let (parts, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    let (bytes, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    let (revision, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    let sequence = rest.try_into().map_err(|_| damaged())?;
    let tally = Tally {
        parts: u32::from_le_bytes(*parts),
        bytes: u64::from_le_bytes(*bytes),
        revision: u64::from_le_bytes(*revision),
    };
    Ok((tally, u32::from_le_bytes(sequence)))
}

const PART_FORMAT: u8 = 1;

/// A part in format 1, after the format byte; the number is in the key.
#[derive(Serialize, Deserialize)]
struct PartV1<'a> {
    len: u64,
    crc64: u64,
    receipt: &'a str,
}

pub(super) fn encode_part(part: &Part) -> Result<Vec<u8>> {
    let part = PartV1 {
        len: part.len,
        crc64: part.crc64,
        receipt: part.receipt.as_str(),
    };
    postcard::to_extend(&part, vec![PART_FORMAT])
        .map_err(|error| Error::internal("A part cannot be written").with_source(error))
}

pub(super) fn decode_part(number: u32, bytes: &[u8]) -> Result<Part> {
    match bytes {
        [PART_FORMAT, rest @ ..] => match postcard::from_bytes::<PartV1<'_>>(rest) {
            Ok(part) => Ok(Part::new(number, part.len, part.crc64, Receipt::new(part.receipt))),
            Err(error) => Err(Error::internal("A metadata part is damaged").with_source(error)),
        },
        _ => Err(Error::internal(
            "A metadata part has a format this release does not read; run the release that wrote it",
        )),
    }
}
