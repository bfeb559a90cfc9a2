//! What the host decides about answers with files.

use std::time::Duration;

use http::HeaderValue;

/// How long an answer may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caching {
    /// Nobody keeps it: `no-store`.
    Never,
    /// The browser keeps it and asks each time whether it may use it still, which is answered with 304: `private, no-cache`.
    Revalidated,
    /// The browser uses it for this long and does not ask: `private, max-age=…, immutable`.
    Private(Duration),
    /// So do proxies, which then give it to everybody who has the address: `public, max-age=…, immutable`. Only for what
    /// everybody may read, or behind a signature.
    Public(Duration),
}

impl Caching {
    /// What `Cache-Control` says, of something that may be read for `left` yet.
    pub(super) fn header(self, left: Option<Duration>) -> HeaderValue {
        let (who, time) = match self {
            Self::Never => return HeaderValue::from_static("no-store"),
            Self::Revalidated => return HeaderValue::from_static("private, no-cache"),
            Self::Private(time) => ("private", time),
            Self::Public(time) => ("public", time),
        };
        let seconds = left.map_or(time, |left| left.min(time)).as_secs();
        HeaderValue::from_str(&format!("{who}, max-age={seconds}, immutable"))
            .unwrap_or(HeaderValue::from_static("no-store"))
    }
}

/// How long answers may be used again, by what they are.
///
/// Without a word the finished file is [revalidated](Caching::Revalidated) at each use, because whether somebody may read it can
/// change. What is read at a signed address is kept by the browser until that expires; segments of an HLS stream for a day:
/// neither ever changes. Playlists are always asked for again: an HLS stream can be watched while it is still being
/// made, and they tell how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    pub(super) files: Caching,
    pub(super) segments: Caching,
    pub(super) signed: Caching,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for CachePolicy {
    fn default() -> Self {
        Self {
            files: Caching::Revalidated,
            segments: Caching::Private(DAY),
            signed: Caching::Private(DAY * 365),
        }
    }
}

impl CachePolicy {
    /// The one without a word.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For finished files.
    #[must_use]
    pub const fn files(mut self, caching: Caching) -> Self {
        self.files = caching;
        self
    }

    /// For segments and pictures of an HLS stream.
    #[must_use]
    pub const fn segments(mut self, caching: Caching) -> Self {
        self.segments = caching;
        self
    }

    /// For files and segments at a signed address, never longer than that is valid.
    #[must_use]
    pub const fn signed(mut self, caching: Caching) -> Self {
        self.signed = caching;
        self
    }
}

/// Which pages may embed files without CORS, as `<video src>` does (`Cross-Origin-Resource-Policy`, in the Fetch standard).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Embedding {
    /// Those of the same scheme, host and port.
    #[default]
    SameOrigin,
    /// Those of the same site: `app.example.com` what is at `media.example.com`.
    SameSite,
    /// All of them, also with the cookies of whoever looks at them.
    Anywhere,
}

impl Embedding {
    pub(super) const fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::SameOrigin => "same-origin",
            Self::SameSite => "same-site",
            Self::Anywhere => "cross-origin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_longer_than_it_may_be_read() {
        let hour = Duration::from_secs(3600);
        for (caching, left, expected) in [
            (Caching::Never, None, "no-store"),
            (Caching::Revalidated, Some(hour), "private, no-cache"),
            (Caching::Private(hour), None, "private, max-age=3600, immutable"),
            (
                Caching::Private(hour),
                Some(hour / 2),
                "private, max-age=1800, immutable",
            ),
            (Caching::Public(hour), Some(hour * 2), "public, max-age=3600, immutable"),
        ] {
            assert_eq!(caching.header(left), expected);
        }
    }
}
