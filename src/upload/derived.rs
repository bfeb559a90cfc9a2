use std::fmt;

use super::Key;
use crate::error::Error;

/// Names a file that a hook made of an upload's blob, below the upload's own folder: `master.m3u8`, `720p/00000.m4s`.
///
/// One to eight segments of ASCII letters, digits and `-_.`, each of at most 100 bytes, that begin with neither a dot nor a
/// dash; 255 bytes in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DerivedName(Box<str>);

impl DerivedName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 255;
    const MAX_SEGMENTS: usize = 8;
    const MAX_SEGMENT: usize = 100;

    /// Parses what a client sent.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if it is no such name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let safe = |segment: &str| {
            !segment.is_empty()
                && segment.len() <= Self::MAX_SEGMENT
                && !segment.starts_with(['.', '-'])
                && segment
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        let valid =
            text.len() <= Self::MAX_LEN && text.split('/').count() <= Self::MAX_SEGMENTS && text.split('/').all(safe);
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid(
                "name",
                "A file's name is segments of letters, digits, `-`, `_` and `.`, joined by `/`",
            ))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of this file in `folder`.
    pub(crate) fn within(&self, folder: &Key) -> Result<Key, Error> {
        Key::parse(&format!("{folder}/{}", self.0))
    }
}

impl fmt::Display for DerivedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_its_folder() {
        let long = "x".repeat(101);
        let many = ["d"; 9].join("/");
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/..",
            "a/../b",
            ".hidden",
            "-rf",
            "a b",
            "a\\b",
            "a%2fb",
            "a\0",
            "ä",
            "a?b",
            &long,
            &many,
            &["abcdefghijklmnopqrstuvwxyz0123456789"; 8].join("/"),
        ] {
            assert!(DerivedName::parse(bad).is_err(), "{bad:?}");
        }
        let folder = Key::parse("videos/hls/1").unwrap();
        for good in ["master.m3u8", "720p/00000.m4s", "a.-_/b..c", "d/d/d/d/d/d/d/d"] {
            let key = DerivedName::parse(good).unwrap().within(&folder).unwrap();
            assert_eq!(key.as_str(), format!("videos/hls/1/{good}"));
        }
    }
}
