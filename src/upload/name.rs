use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::error::Error;

macro_rules! text {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Who created an upload: the host's id of a user. Never part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(Arc<str>);

text!(Owner);

impl Owner {
    /// The owner with the host's id `id`.
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(id.as_ref().into())
    }
}

/// What an upload is for in the host's world: a `videoId`, say. 1 to 128 bytes without control
/// characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target(Arc<str>);

text!(Target);

impl Target {
    /// The longest target, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Parses what a client sent.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if it is empty, too long or has a control character.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() || text.len() > Self::MAX_LEN || text.chars().any(unsafe_to_show) {
            return Err(Error::invalid(
                "videoId",
                "The id must be 1 to 128 bytes without control characters",
            ));
        }
        Ok(Self(text.into()))
    }
}

/// The name a client gave its file: shown, never used as a path. 1 to 255 bytes; no path
/// separator, no control or direction-changing character, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(Arc<str>);

text!(FileName);

impl FileName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Parses what a client sent.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a name that cannot be shown safely.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let reason = if text.trim().is_empty() {
            "The file name is empty"
        } else if text.len() > Self::MAX_LEN {
            "The file name is longer than 255 bytes"
        } else if text.chars().any(unsafe_to_show) {
            "The file name has a control character"
        } else if text.contains(['/', '\\']) {
            "The file name has a path separator; send the name alone"
        } else if matches!(text.trim(), "." | "..") {
            "The file name is no name"
        } else {
            return Ok(Self(text.into()));
        };
        Err(Error::invalid("fileName", reason))
    }
}

/// Where a finished blob lies in the blob store: segments joined by `/`.
///
/// Each segment is 1 to 255 bytes of letters, digits and `-_.`, and begins with neither a dot
/// nor a dash, so a key is a safe relative path on every file system and a plain object name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

text!(Key);

impl Key {
    /// The longest key, in bytes: what S3 allows.
    pub const MAX_LEN: usize = 1024;

    /// Parses a key that must already be safe.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a segment is not.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let safe = |segment: &str| {
            !segment.is_empty()
                && segment.len() <= 255
                && !segment.starts_with(['.', '-'])
                && segment.chars().all(safe_in_key)
        };
        if text.len() <= Self::MAX_LEN && text.split('/').all(safe) {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid(
                "key",
                "A key is segments of letters, digits, `-`, `_` and `.`, joined by `/`",
            ))
        }
    }

    /// Makes ONE safe segment of any text, at most 200 bytes long; the extension is kept.
    #[must_use]
    pub fn segment(text: &str) -> String {
        const MAX: usize = 200;
        let mut out: String = text.chars().map(|c| if safe_in_key(c) { c } else { '_' }).collect();
        if out.starts_with(['.', '-']) || is_reserved(&out) || out.is_empty() {
            out.insert(0, '_');
        }
        if out.ends_with('.') {
            out.push('_');
        }
        if out.len() > MAX {
            let extension = out
                .rfind('.')
                .filter(|at| out.len() - at <= 16)
                .map_or("", |at| &out[at..])
                .to_owned();
            let mut end = MAX - extension.len();
            while !out.is_char_boundary(end) {
                end -= 1;
            }
            out.truncate(end);
            out.push_str(&extension);
        }
        out
    }

    /// This key with `-suffix` before the extension of its last segment.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let (folder, name) = self
            .0
            .rsplit_once('/')
            .map_or(("", &*self.0), |(folder, name)| (folder, name));
        let (stem, extension) = match name.rfind('.') {
            Some(at) if at > 0 => name.split_at(at),
            _ => (name, ""),
        };
        let suffix: String = suffix.chars().filter(char::is_ascii_alphanumeric).collect();
        let slash = if folder.is_empty() { "" } else { "/" };
        Self(format!("{folder}{slash}{stem}-{suffix}{extension}").into())
    }
}

fn safe_in_key(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Control characters, and those that turn the direction of text around or hide it.
fn unsafe_to_show(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}')
        || matches!(c, '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{FFFE}' | '\u{FFFF}' | '\u{E0000}'..='\u{E007F}')
}

/// Device names that some systems reserve, with any extension.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().to_ascii_uppercase();
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4
            && (stem.starts_with("COM") || stem.starts_with("LPT"))
            && stem.ends_with(|c: char| c.is_ascii_digit()))
}

macro_rules! through_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::parse(text)
            }
        }
    };
}

through_text!(Target);
through_text!(FileName);
through_text!(Key);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_shown_safely_are_refused() {
        for bad in [
            "",
            " ",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "a\0b",
            "a\r\nb",
            "a\u{202E}gpj.exe",
            "a\u{061C}b",
            "a\u{E0041}b",
            &"x".repeat(256),
        ] {
            assert!(FileName::parse(bad).is_err(), "{bad:?}");
        }
        for good in [
            "my_video.mp4",
            "CON",
            "C:video.mp4",
            "…",
            "日本語.mp4",
            &"x".repeat(255),
        ] {
            assert!(FileName::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn any_text_makes_one_safe_segment() {
        for (text, segment) in [
            ("123_my video.mp4", "123_my_video.mp4"),
            ("..", "_.._"),
            (".hidden", "_.hidden"),
            ("CON.txt", "_CON.txt"),
            ("C:\\x", "C__x"),
            ("", "_"),
            ("-rf", "_-rf"),
        ] {
            assert_eq!(Key::segment(text), segment);
            assert!(Key::parse(&Key::segment(text)).is_ok(), "{text:?}");
        }
        let long = Key::segment(&format!("{}.mp4", "ü".repeat(300)));
        assert!(long.len() <= 200 && long.ends_with(".mp4"), "{long}");
    }

    #[test]
    fn a_suffix_goes_before_the_extension() {
        let key = Key::parse("videos/originals/1_a.mp4").unwrap();
        assert_eq!(key.with_suffix("x7/../").as_str(), "videos/originals/1_a-x7.mp4");
        assert_eq!(Key::parse("plain").unwrap().with_suffix("1").as_str(), "plain-1");
    }

    #[test]
    fn keys_never_leave_their_root() {
        for bad in ["", "/a", "a/", "a//b", "a/../b", "./a", "a/.b", "a b", "a\0"] {
            assert!(Key::parse(bad).is_err(), "{bad:?}");
        }
    }
}
