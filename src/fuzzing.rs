//! What the fuzz targets and the replay of their corpus call: each parser, with what must hold of its answer. No
//! part of the API.
#![allow(missing_docs)]

use crate::upload::{self, FileName, Key, UploadId};

pub use crate::http::fuzzing::{content_digest, content_disposition, json, multipart, path, range, structured, tus};

pub type Target = (&'static str, fn(&[u8]));

/// The targets by name; each panics if its parser breaks a promise.
pub const TARGETS: [Target; 10] = [
    ("content_digest", content_digest),
    ("content_disposition", content_disposition),
    ("file_name", file_name),
    ("json", json),
    ("multipart", multipart),
    ("path", path),
    ("range", range),
    ("structured", structured),
    ("tus", tus),
    ("upload_id", upload_id),
];

/// A name is shown as it is, and makes one safe segment of a key, whatever it is.
pub fn file_name(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let segment = Key::segment(&text);
    assert!(!segment.contains('/') && Key::parse(&segment).is_ok(), "{segment:?}");
    if let Ok(name) = FileName::parse(&text) {
        assert_eq!(name.as_str(), text);
        assert!(name.as_str().len() <= FileName::MAX_LEN);
        assert!(!name.as_str().contains(['/', '\\', '\0', '\r', '\n']));
    }
    if let Ok(target) = upload::Target::parse(&text) {
        assert!(!target.as_str().is_empty() && !target.as_str().contains(['\0', '\r', '\n']));
    }
}

/// An id has one spelling.
pub fn upload_id(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(id) = text.parse::<UploadId>() {
        assert_eq!(id.to_string(), text);
        assert_eq!(UploadId::from_bytes(*id.as_bytes()), id);
    }
}
