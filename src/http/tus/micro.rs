//! See [`crate::benchmark::micro`].

use super::headers;

/// How many pairs `Upload-Metadata` has.
#[must_use]
pub fn tus_metadata(text: &str) -> Option<usize> {
    headers::metadata(text).ok().map(|pairs| pairs.len())
}
