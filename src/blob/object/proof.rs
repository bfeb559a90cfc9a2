//! Whether an object is made of certain parts: by its entity tag, or by its bytes.

use bytes::Bytes;
use futures_util::StreamExt as _;
use md5::{Digest as _, Md5};
use object_store::{ObjectMeta, path::Path};

use super::{
    Shared,
    complete::Order,
    orphans::Listed,
    place::{Put, Stored},
};
use crate::{
    blob::{ByteRange, Completed},
    engine::Crc64,
    error::Result,
    planted::{Bug, planted},
    upload::{Blob, Part},
};

impl Shared {
    /// Whether what was found under the key is exactly these parts.
    pub(super) async fn examine(
        &self,
        order: &Order<'_>,
        found: &ObjectMeta,
        puts: Option<&[Put]>,
    ) -> Result<Completed> {
        let done = Completed::Done(blob(found));
        if planted(Bug::CompleteTrustsKey) {
            return Ok(done);
        }
        if found.size != order.size() {
            return Ok(Completed::KeyTaken);
        }
        let tag = found.e_tag.as_deref().map(bare);
        let puts = match puts {
            Some(puts) => puts.to_vec(),
            None => order
                .parts
                .iter()
                .filter_map(Stored::of)
                .flat_map(|stored| stored.puts)
                .collect(),
        };
        if tag.is_some() && tag == composite(&puts) {
            return Ok(done);
        }
        Ok(if self.has_bytes(&order.path, order.parts).await? {
            done
        } else {
            Completed::KeyTaken
        })
    }

    /// Whether the object's bytes have the parts' checksums. Reads all of it, which is needed only after an answer was lost.
    async fn has_bytes(&self, path: &Path, parts: &[Part]) -> Result<bool> {
        if parts.iter().all(|part| part.len == 0) {
            return Ok(true);
        }
        let mut body = self.read(path.clone(), ByteRange::ALL).await?;
        let mut rest = Bytes::new();
        for part in parts {
            let (mut left, mut crc64) = (part.len, Crc64::new());
            while left > 0 {
                if rest.is_empty() {
                    match body.next().await {
                        Some(bytes) => rest = bytes?,
                        None => return Ok(false),
                    }
                    continue;
                }
                let piece = rest.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(rest.len()));
                left -= piece.len() as u64;
                crc64.update(&piece);
            }
            if crc64.value() != part.crc64 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(super) fn blob(found: &ObjectMeta) -> Blob {
    Blob::new(found.size, found.e_tag.as_deref().map(bare))
}

/// An entity tag without its quotes, which servers put in some answers and not in others.
pub(super) fn bare(tag: &str) -> String {
    tag.trim_matches('"').to_owned()
}

/// How `object_store` writes the id of a part where it was told to send checksums: its tag, then its checksum.
const TAG: (&str, &str) = ("<e_tag>", "</e_tag>");

/// The entity tag in the id of a part, without its quotes.
pub(super) fn tag_of(id: &str) -> String {
    let tag = id.split_once(TAG.0).and_then(|(_, rest)| rest.split_once(TAG.1));
    bare(tag.map_or(id, |(tag, _)| tag))
}

/// The checksum in the id of a part.
fn sum_of(id: &str) -> Option<&str> {
    let (_, behind) = id.split_once(TAG.1)?;
    let (sum, _) = behind.split_once('>')?.1.split_once('<')?;
    Some(sum).filter(|sum| !sum.is_empty())
}

/// What the backend must be asked for to get the bytes of `put`, if they are among the parts that are `there`: the same or, if the
/// part was put once more with the same checksum, by another entity tag. Tags that are not made of the bytes differ then.
pub(super) fn found(put: &Put, there: &[Listed]) -> Option<Put> {
    let listed = there.iter().find(|listed| listed.index == put.index)?;
    if listed.tag == tag_of(&put.id) {
        return Some(put.clone());
    }
    let sum = sum_of(&put.id)?;
    if listed.sum.as_deref() != Some(sum) {
        return None;
    }
    let (before, rest) = put.id.split_once(TAG.0)?;
    let (_, behind) = rest.split_once(TAG.1)?;
    let id = format!("{before}{}\"{}\"{}{behind}", TAG.0, listed.tag, TAG.1);
    Some(Put { index: put.index, id })
}

/// The entity tag of an object that was made of these parts, where theirs are the MD5 of their bytes: the MD5 of all of them, and
/// how many there are.
pub(super) fn composite(puts: &[Put]) -> Option<String> {
    if puts.is_empty() {
        return None;
    }
    let mut all = Md5::new();
    for put in puts {
        let tag = tag_of(&put.id);
        if tag.len() != 32 {
            return None;
        }
        for at in (0..32).step_by(2) {
            let byte = tag.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok())?;
            all.update([byte]);
        }
    }
    let hex: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{hex}-{}", puts.len()))
}
