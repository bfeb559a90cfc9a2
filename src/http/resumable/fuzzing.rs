//! See [`crate::http::fuzzing`].

use crate::upload::FileName;

/// What is taken for a name is one.
pub fn content_disposition(bytes: &[u8]) {
    if let Some(name) = super::disposition::file_name(bytes) {
        assert_eq!(FileName::parse(name.as_str()).ok().as_ref(), Some(&name));
    }
}
