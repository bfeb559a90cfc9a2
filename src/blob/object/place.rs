//! What a handle and a receipt say, and where objects lie.

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::{
    engine::Crc64,
    error::{Error, Result},
    upload::{Handle, Key, Layout, Part, Plan, Receipt, UploadId},
};

/// The object that says that an upload was begun.
pub(super) const MARKER: &str = "begin";
/// The object that tells what the backend's clock says.
pub(super) const CLOCK: &str = "clock";

/// An unfinished upload: what its handle says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The directory of its staged objects: id and a nonce. Empty for a multipart upload that nothing else speaks of.
    pub(super) dir: String,
    /// The multipart upload, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) native: Option<Native>,
}

/// A multipart upload, and how it is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Native {
    pub(super) id: String,
    /// The path it becomes an object at.
    pub(super) path: String,
    pub(super) cut: Cut,
}

/// How the bytes become parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cut {
    /// As the client cuts them, in so many chunks.
    #[serde(rename = "c")]
    Chunks(u32),
    /// At multiples of `step` bytes; `size`: of the file, if it was known when it began.
    #[serde(rename = "s")]
    Steps { step: u64, size: Option<u64> },
}

impl Cut {
    /// How uploads of this shape are cut; nothing that has not a known number of chunks or none.
    pub(super) fn of(plan: &Plan, step: u64) -> Option<Self> {
        match (plan.layout, plan.chunks) {
            (Layout::Indexed, Some(chunks)) => Some(Self::Chunks(chunks)),
            (Layout::Sequential, _) => Some(Self::Steps { step, size: plan.size }),
            (Layout::Indexed, None) => None,
        }
    }
}

impl Place {
    pub(super) fn parse(handle: &Handle) -> Result<Self> {
        serde_json::from_str(handle.as_str())
            .map_err(|error| Error::internal("The handle is not one of an object store").with_source(error))
    }

    pub(super) fn handle(&self) -> Handle {
        Handle::new(serde_json::to_string(self).unwrap_or_default())
    }

    /// The upload that a directory is of.
    pub(super) fn upload(dir: &str) -> Option<UploadId> {
        dir.split_once('.')?.0.parse().ok()
    }

    /// An id to ask the metadata store by that no upload has: for a multipart upload that nothing speaks of.
    pub(super) fn nobody(multipart: &str) -> UploadId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(b"orphaned");
        bytes[8..].copy_from_slice(&Crc64::of(multipart.as_bytes()).to_be_bytes());
        UploadId::from_bytes(bytes)
    }
}

/// Where objects lie.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) root: Path,
    pub(super) staging: Path,
}

impl Paths {
    pub(super) fn new(prefix: &str, staging: Option<&str>) -> Result<Self> {
        let parse = |field: &'static str, text: &str| {
            Path::parse(text.trim_matches('/'))
                .map_err(|error| Error::invalid(field, "The prefix is no path of an object").with_source(error))
        };
        let root = parse("prefix", prefix)?;
        let staging = match staging {
            Some(staging) => parse("staging", staging)?,
            None => root.clone().join(".uploads"),
        };
        let inside = |outer: &Path, inner: &Path| outer.as_ref().is_empty() || inner.prefix_matches(outer);
        let hidden = staging
            .parts()
            .skip(root.parts().count())
            .any(|part| part.as_ref().starts_with('.'));
        if staging.as_ref().is_empty() || (inside(&root, &staging) && !hidden) {
            return Err(Error::invalid(
                "staging",
                "Unfinished uploads would lie among the blobs: let a segment of their prefix begin with a dot",
            ));
        }
        Ok(Self { root, staging })
    }

    pub(super) fn blob(&self, key: &Key) -> Result<Path> {
        let path = if self.root.as_ref().is_empty() {
            Path::parse(key.as_str())
        } else {
            Path::parse(format!("{}/{}", self.root, key.as_str()))
        };
        path.map_err(|error| Error::invalid("key", "The key is no path of an object").with_source(error))
    }

    pub(super) fn dir(&self, dir: &str) -> Path {
        self.staging.clone().join(dir)
    }

    pub(super) fn marker(&self, dir: &str) -> Path {
        self.dir(dir).join(MARKER)
    }

    pub(super) fn clock(&self) -> Path {
        self.staging.clone().join(CLOCK)
    }

    pub(super) fn piece(&self, dir: &str, piece: &Piece) -> Path {
        self.dir(dir).join(piece.name.as_str())
    }
}

/// A staged object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    #[serde(rename = "o")]
    pub(super) name: String,
    #[serde(rename = "l")]
    pub(super) len: u64,
    #[serde(rename = "c")]
    pub(super) crc64: u64,
    /// The object's entity tag, where the backend copies by it.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<String>,
}

pub(super) fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.len).sum()
}

/// A part of a multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Put {
    #[serde(rename = "i")]
    pub(super) index: u32,
    /// What the backend needs back.
    #[serde(rename = "t")]
    pub(super) id: String,
}

/// What a receipt says: where the bytes of a part are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    /// The slot and the length, so that the receipt of one part is never taken for another's.
    #[serde(rename = "n")]
    pub(super) number: u32,
    #[serde(rename = "l")]
    pub(super) len: u64,
    /// The parts of the multipart upload that this part is, or that ended within it.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) puts: Vec<Put>,
    /// The staged objects that this part is; of an upload cut at steps, all behind the last step.
    #[serde(rename = "s", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pieces: Vec<Piece>,
    /// The part that `pieces` are the beginning of, if it does not follow from the offset: parts before it are of other lengths.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<u32>,
    /// Staged objects that are needed no more once this is committed.
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) spent: Vec<String>,
}

impl Stored {
    pub(super) fn receipt(&self) -> Receipt {
        let text = serde_json::to_string(self).unwrap_or_default();
        Receipt::new(format!("{text}{:016x}", Crc64::of(text.as_bytes())))
    }

    /// `None` for what is not a receipt as it was given.
    pub(super) fn parse(receipt: &Receipt) -> Option<Self> {
        let text = receipt.as_str();
        let (text, sum) = text.split_at_checked(text.len().checked_sub(16)?)?;
        if format!("{:016x}", Crc64::of(text.as_bytes())) != sum {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// What the receipt of this very part says.
    pub(super) fn of(part: &Part) -> Option<Self> {
        Self::parse(&part.receipt).filter(|stored| (stored.number, stored.len) == (part.number, part.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_taken_as_it_was_given_and_no_other() {
        let stored = Stored {
            number: 3,
            len: 10,
            puts: vec![Put {
                index: 3,
                id: "\"abc\"".into(),
            }],
            pieces: vec![Piece {
                name: "x".into(),
                len: 4,
                crc64: u64::MAX,
                tag: Some("\"t\"".into()),
            }],
            next: Some(4),
            spent: vec!["y".into()],
        };
        let receipt = stored.receipt();
        assert_eq!(Stored::parse(&receipt), Some(stored));
        for text in [
            format!("{}0", receipt.as_str()),
            receipt.as_str().replacen('3', "4", 1),
            "0".into(),
            String::new(),
            "ä".repeat(9),
        ] {
            assert_eq!(Stored::parse(&Receipt::new(text.clone())), None, "{text}");
        }
        let part = Part::new(3, 11, 0, receipt);
        assert_eq!(Stored::of(&part), None, "another length");
    }

    /// What this release writes, letter for letter: if this fails, uploads that began under an earlier release are lost.
    #[test]
    fn values_are_written_as_ever() {
        const DIR: &str = "BwcHBwcHBwcHBwcHBwcHBw.00000000000000ff0";
        let native = |cut| {
            let (id, path) = ("2~abc".into(), "media/a.mp4".into());
            Some(Native { id, path, cut })
        };
        let of = |dir: &str, native| Place {
            dir: dir.into(),
            native,
        };
        let (told, untold) = (
            Cut::Steps {
                step: 8_388_608,
                size: Some(9),
            },
            Cut::Steps {
                step: 8_388_608,
                size: None,
            },
        );
        for (place, text) in [
            (of(DIR, None), r#"{"dir":"BwcHBwcHBwcHBwcHBwcHBw.00000000000000ff0"}"#),
            (
                of(DIR, native(Cut::Chunks(40))),
                r#"{"dir":"BwcHBwcHBwcHBwcHBwcHBw.00000000000000ff0","native":{"id":"2~abc","path":"media/a.mp4","cut":{"c":40}}}"#,
            ),
            (
                of(DIR, native(told)),
                r#"{"dir":"BwcHBwcHBwcHBwcHBwcHBw.00000000000000ff0","native":{"id":"2~abc","path":"media/a.mp4","cut":{"s":{"step":8388608,"size":9}}}}"#,
            ),
            (
                of("", native(untold)),
                r#"{"dir":"","native":{"id":"2~abc","path":"media/a.mp4","cut":{"s":{"step":8388608,"size":null}}}}"#,
            ),
        ] {
            assert_eq!(place.handle().as_str(), text);
            assert_eq!(Place::parse(&Handle::new(text)).unwrap(), place);
        }
        assert_eq!(Place::upload(DIR), Some(UploadId::from_bytes([7; 16])));

        let put = Put {
            index: 3,
            id: "\"abc\"".into(),
        };
        let piece = |tag: Option<&str>| Piece {
            name: "00000000000000ff1".into(),
            len: 4,
            crc64: u64::MAX,
            tag: tag.map(str::to_owned),
        };
        let least = Stored {
            number: 3,
            len: 4,
            ..Stored::default()
        };
        let full = Stored {
            puts: vec![put],
            pieces: vec![piece(None), piece(Some("\"t\""))],
            next: Some(4),
            spent: vec!["00000000000000ff0".into()],
            ..least
        };
        for (stored, text) in [
            (least, r#"{"n":3,"l":4}2e5169bd1d32349b"#),
            (
                full,
                r#"{"n":3,"l":4,"p":[{"i":3,"t":"\"abc\""}],"s":[{"o":"00000000000000ff1","l":4,"c":18446744073709551615},{"o":"00000000000000ff1","l":4,"c":18446744073709551615,"t":"\"t\""}],"i":4,"d":["00000000000000ff0"]}f0da45f5c4d8aa77"#,
            ),
        ] {
            assert_eq!(stored.receipt().as_str(), text);
            assert_eq!(Stored::parse(&Receipt::new(text)), Some(stored));
        }

        let paths = Paths::new("media", None).unwrap();
        let key = Key::parse("videos/a.mp4").unwrap();
        assert_eq!(paths.blob(&key).unwrap().as_ref(), "media/videos/a.mp4");
        assert_eq!(paths.clock().as_ref(), "media/.uploads/clock");
        assert_eq!(paths.marker(DIR).as_ref(), format!("media/.uploads/{DIR}/begin"));
        assert_eq!(
            paths.piece(DIR, &piece(None)).as_ref(),
            format!("media/.uploads/{DIR}/00000000000000ff1")
        );
    }

    #[test]
    fn staged_objects_never_lie_among_blobs() {
        for (root, staging) in [("", Some("x")), ("a", Some("a/b")), ("a", Some("a")), ("", Some(""))] {
            assert!(Paths::new(root, staging).is_err(), "{root} {staging:?}");
        }
        for (root, staging) in [("", None), ("a/b/", None), ("a", Some("b")), ("a", Some("a/.b/c"))] {
            assert!(Paths::new(root, staging).is_ok(), "{root} {staging:?}");
        }
        assert!(Paths::new("../x", None).is_err());
    }
}
