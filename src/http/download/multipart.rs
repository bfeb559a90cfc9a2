//! Several ranges as `multipart/byteranges` (RFC 9110 section 14.6).

use std::future::ready;

use bytes::Bytes;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, Stream},
};

use super::Source;
use crate::{
    blob::{BlobBody, ByteRange},
    error::Result,
};

/// The parts of an answer, whose length is known before the first byte is read.
pub(super) struct Parts {
    boundary: String,
    parts: Vec<Part>,
    tail: String,
}

struct Part {
    head: String,
    start: u64,
    end: u64,
}

impl Parts {
    /// `ranges` of a content of `size` bytes and the type `media`.
    ///
    /// The boundary is drawn at random: what strangers uploaded cannot have been made to contain it.
    ///
    /// # Errors
    /// Of the operating system, if it has no random numbers.
    pub(super) fn new(ranges: &[(u64, u64)], media: &str, size: u64) -> Result<Self, getrandom::Error> {
        let boundary = format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?);
        let mut line = "";
        let parts = ranges.iter().map(|&(start, end)| {
            let last = end - 1;
            let head = format!(
                "{line}--{boundary}\r\nContent-Type: {media}\r\nContent-Range: bytes {start}-{last}/{size}\r\n\r\n"
            );
            line = "\r\n";
            Part { head, start, end }
        });
        Ok(Self {
            parts: parts.collect(),
            tail: format!("\r\n--{boundary}--\r\n"),
            boundary,
        })
    }

    pub(super) fn media_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Bytes of the whole answer.
    pub(super) fn len(&self) -> u64 {
        let part = |part: &Part| part.head.len() as u64 + (part.end - part.start);
        self.parts.iter().map(part).sum::<u64>() + self.tail.len() as u64
    }

    /// The first range, which is opened before the answer begins.
    pub(super) fn first(&self) -> Option<ByteRange> {
        let part = self.parts.first()?;
        Some(ByteRange::new(part.start, Some(part.end)))
    }

    /// All of it, one part after the other; each but the `first` is opened when its turn comes, by somebody who still may.
    pub(super) fn stream(self, first: BlobBody, source: Source) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let mut first = Some(first);
        let parts = stream::iter(self.parts).flat_map(move |part| {
            let (opened, source) = (first.take(), source.clone());
            let bytes = async move {
                match opened {
                    Some(bytes) => Ok(bytes),
                    None => source.open(ByteRange::new(part.start, Some(part.end))).await,
                }
            };
            let head = stream::once(ready(Ok(Bytes::from(part.head))));
            head.chain(stream::once(bytes).try_flatten())
        });
        parts.chain(stream::once(ready(Ok(Bytes::from(self.tail)))))
    }
}
