use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Takes the files of a stream as they are finished.
///
/// For each rendition come its segments, then its playlist, then [`finished`](Self::finished), then the master playlist, which lists what is
/// finished and nothing else. Calls come one after the other.
#[async_trait]
pub trait HlsSink: Send + Sync + 'static {
    /// Stores a file durably, in place of one of the same name: a run that was interrupted begins a rendition again, and the master playlist
    /// grows. Readers must see the old or the new one, never a part.
    ///
    /// # Errors
    /// Any ends the run with [`Sink`](super::TranscodeErrorKind::Sink).
    async fn put(&self, file: OutputFile<'_>) -> Result<()>;

    /// Remembers that every file of a rendition was stored.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    async fn finished(&self, rendition: &Rendition) -> Result<()>;

    /// What was [`finished`](Self::finished) for this source before: it is not made again, unless the options have changed.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    async fn renditions(&self) -> Result<Vec<Rendition>> {
        Ok(Vec::new())
    }
}

/// A file that is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputFile<'a> {
    /// `master.m3u8`, `poster.jpg`, `720p/index.m3u8`, `720p/init.mp4`, `720p/00000.m4s`: lower-case ASCII, at most one `/`.
    pub name: &'a str,
    /// Its media type.
    pub content_type: &'static str,
    /// Where it lies; it may be moved away, and is gone after the call.
    pub path: &'a Path,
    /// Its size in bytes.
    pub size: u64,
}

/// The master playlist's name.
pub const MASTER_PLAYLIST: &str = "master.m3u8";
/// The poster's name.
pub const POSTER: &str = "poster.jpg";

/// The media type of a file of a stream, by its name.
#[must_use]
pub fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "m3u8")) => "application/vnd.apple.mpegurl",
        Some((_, "mp4")) => "video/mp4",
        Some((_, "m4s")) => "video/iso.segment",
        Some((_, "ts")) => "video/mp2t",
        Some((_, "jpg")) => "image/jpeg",
        _ => "application/octet-stream",
    }
}

/// A finished rendition, with what the master playlist says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rendition {
    /// `720p` or `audio`: the directory of its files; the playlist in it is `index.m3u8`.
    pub name: String,
    /// Width and height in pixels, if it has a picture.
    pub resolution: Option<(u32, u32)>,
    /// Frames per second, if it has a picture.
    pub frame_rate: Option<f64>,
    /// RFC 6381.
    pub codecs: String,
    /// Bits per second of the largest segment.
    pub bandwidth: u64,
    /// Bits per second of all segments together.
    pub average_bandwidth: u64,
    /// In seconds.
    pub duration: f64,
    /// How many segments it has.
    pub segments: u32,
    /// In bytes, all segments together.
    pub bytes: u64,
    /// The picture is that of the source.
    pub copied: bool,
    /// Changes with everything that decides what is made.
    pub recipe: String,
}
