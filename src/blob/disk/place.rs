//! Where a part lies, and how a receipt says so.

use super::fs::split;
use crate::{
    error::{Error, Result},
    upload::{Handle, Key, Part, Receipt, UploadId},
};

/// The file that becomes the blob.
pub(super) fn partial(id: UploadId) -> String {
    format!("partial/{id}")
}

/// The file of a published blob.
pub(super) fn blob(key: &Key) -> String {
    format!("blobs/{key}")
}

/// The directory of a published blob.
pub(super) fn folder(path: &str) -> String {
    split(path).0.to_owned()
}

/// The upload that a file in `partial` belongs to.
pub(super) fn owner_of(name: &str) -> Option<UploadId> {
    let (id, side) = match name.split_once('.') {
        Some((id, side)) => (id, Some(side)),
        None => (name, None),
    };
    side.is_none_or(is_suffix).then(|| id.parse().ok())?
}

pub(super) fn handle(id: UploadId) -> Handle {
    Handle::new(id.to_string())
}

pub(super) fn parse_handle(handle: &Handle) -> Result<UploadId> {
    (handle.as_str().parse()).map_err(|_| Error::internal("The handle is not one of this store"))
}

/// Tells the attempts at a part from each other.
pub(super) type Attempt = u64;

/// Where the bytes of a part are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the file that becomes the blob, from this byte on, as this attempt wrote it.
    InPlace(u64, Attempt),
    /// In a file of its own with this suffix.
    Aside(String),
}

impl Place {
    /// A file of its own for this attempt at part `number`.
    pub(super) fn aside(number: u32, attempt: Attempt) -> Self {
        Self::Aside(format!("{number}.{attempt:016x}"))
    }

    /// What a receipt says, if it is one for a part of this length.
    pub(super) fn of(part: &Part) -> Option<Self> {
        match part.receipt.as_str().split_once(':')? {
            ("i", place) => {
                let mut words = place.split(':');
                let (offset, len, attempt) = (words.next()?, words.next()?, words.next()?);
                let same_len = len.parse() == Ok(part.len);
                let valid = same_len && attempt.len() == 16 && words.next().is_none();
                valid.then_some(Self::InPlace(
                    offset.parse().ok()?,
                    u64::from_str_radix(attempt, 16).ok()?,
                ))
            }
            ("s", suffix) if is_suffix(suffix) => Some(Self::Aside(suffix.to_owned())),
            _ => None,
        }
    }

    /// The receipt for `len` bytes here.
    pub(super) fn receipt(&self, len: u64) -> Receipt {
        Receipt::new(match self {
            Self::InPlace(offset, attempt) => format!("i:{offset}:{len}:{attempt:016x}"),
            Self::Aside(suffix) => format!("s:{suffix}"),
        })
    }

    pub(super) fn path(&self, id: UploadId) -> String {
        match self {
            Self::InPlace(..) => partial(id),
            Self::Aside(suffix) => format!("partial/{id}.{suffix}"),
        }
    }

    /// Where the part begins in its file.
    pub(super) fn file_offset(&self) -> u64 {
        match self {
            Self::InPlace(offset, _) => *offset,
            Self::Aside(_) => 0,
        }
    }
}

/// `<number>.<16 hex digits>`
fn is_suffix(text: &str) -> bool {
    text.split_once('.').is_some_and(|(number, attempt)| {
        number.parse::<u32>().is_ok_and(|parsed| parsed.to_string() == number)
            && attempt.len() == 16
            && attempt.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn receipts_are_read_back_and_never_form_a_path_by_themselves() {
        for place in [Place::InPlace(7, 0xfeed), Place::aside(3, 0xfeed)] {
            let part = Part::new(3, 1, 0, place.receipt(1));
            assert_eq!(Place::of(&part), Some(place));
        }
        for bad in [
            "",
            "i",
            "i:",
            "i:-1",
            "i:x",
            "s:",
            "s:../../x",
            "s:3.feed",
            "s:03.000000000000feed",
            "x:1",
        ] {
            assert_eq!(Place::of(&Part::new(0, 1, 0, Receipt::new(bad))), None, "{bad}");
        }
    }

    #[test]
    fn only_names_of_uploads_are_taken_for_uploads() {
        let id = UploadId::from_bytes([7; 16]);
        let side = Place::aside(0, 1).path(id);
        for name in [id.to_string(), side.trim_start_matches("partial/").to_owned()] {
            assert_eq!(owner_of(&name), Some(id), "{name}");
        }
        for name in [
            "",
            "lost+found",
            "x.1.0000000000000001",
            &format!("{id}.x"),
            &format!("{id}."),
        ] {
            assert_eq!(owner_of(name), None, "{name}");
        }
    }
}
