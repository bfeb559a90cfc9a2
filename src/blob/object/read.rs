//! Reading a blob: in steps, each a request of its own, so that no request lasts as long as the blob is large or its reader slow.
//!
//! All steps are of the object that the first one found, or the reading fails: by `If-Match` and by what each answer says of itself.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, path::Path};

use super::{Shared, backend::Backend, trouble::Why};
use crate::{
    blob::{BlobBody, ByteRange},
    error::{Error, ErrorKind, Result},
};

/// How many answers in a row may break off without a byte.
const TRIES: u32 = 3;

/// A blob under way.
struct Reading {
    backend: Backend,
    path: Path,
    /// As the first answer told of it.
    found: ObjectMeta,
    at: u64,
    end: u64,
    /// What is left of the step under way, and where that ends.
    step: Option<(BoxStream<'static, object_store::Result<Bytes>>, u64)>,
    /// Answers in a row that broke off without a byte; whether the one under way brought any.
    broken: u32,
    brought: bool,
    /// How much is asked for at once.
    step_size: u64,
    /// For the next bytes to come.
    timeout: Duration,
}

impl Shared {
    /// The bytes of an object within `range`, as [`BlobStore::read`](crate::blob::BlobStore::read) says.
    pub(super) async fn read(&self, path: Path, range: ByteRange) -> Result<BlobBody> {
        let wanted = range.start..range.end.unwrap_or(u64::MAX);
        let refused = if wanted.is_empty() {
            None
        } else {
            match self.backend.get(&path, step_of(&wanted, self.options.read_step)).await {
                Ok(first) => return Reading::new(self, path, wanted, first).map(Reading::stream),
                Err(trouble) if trouble.why == Why::NotThere => return Err(no_blob()),
                // It may only start at the end, or past it.
                Err(trouble) => Some(trouble),
            }
        };
        let size = self.backend.head(&path).await?.ok_or_else(no_blob)?.size;
        match refused {
            _ if range.start > size => Err(Error::invalid("range", format!("The blob ends at byte {size}"))),
            Some(trouble) if range.start < size => Err(trouble.into()),
            _ => Ok(Box::pin(stream::empty())),
        }
    }
}

impl Reading {
    fn new(shared: &Shared, path: Path, wanted: Range<u64>, first: GetResult) -> Result<Self> {
        let (end, until) = (wanted.end.min(first.meta.size), first.range.end);
        if first.range.start != wanted.start || until <= wanted.start || until > end {
            return Err(Error::unavailable(
                "Other bytes were read than were asked for; try again",
            ));
        }
        Ok(Self {
            backend: shared.backend.clone(),
            path,
            found: first.meta.clone(),
            at: wanted.start,
            end,
            step: Some((first.into_stream(), until)),
            broken: 0,
            brought: false,
            step_size: shared.options.read_step,
            timeout: shared.options.request_timeout,
        })
    }

    fn stream(self) -> BlobBody {
        Box::pin(stream::unfold(Some(self), async |reading| {
            let mut reading = reading?;
            match reading.next().await {
                Ok(bytes) => bytes.map(|bytes| (Ok(bytes), Some(reading))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    /// The next bytes, as they come, within a bounded time.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some((body, until)) = &mut self.step else {
                if self.at >= self.end {
                    return Ok(None);
                }
                self.ask().await?;
                continue;
            };
            let next = tokio::time::timeout(self.timeout, body.next()).await;
            match next {
                Ok(Some(Ok(bytes))) if bytes.is_empty() => continue,
                Ok(Some(Ok(bytes))) if bytes.len() as u64 <= *until - self.at => {
                    self.at += bytes.len() as u64;
                    self.brought = true;
                    return Ok(Some(bytes));
                }
                Ok(Some(Ok(_))) => return Err(failed()),
                _ if self.at == *until => self.broken = 0,
                // The answer broke off, or its client had no more time for it. The rest is asked for anew.
                broken => {
                    self.broken = if self.brought { 0 } else { self.broken + 1 };
                    tracing::debug!(
                        at = self.at,
                        tries = self.broken,
                        "an answer with bytes of a blob broke off"
                    );
                    if self.broken >= TRIES {
                        return Err(match broken {
                            Ok(Some(Err(error))) => failed().with_source(error),
                            _ => failed(),
                        });
                    }
                }
            }
            self.step = None;
        }
    }

    /// Asks for the next step.
    async fn ask(&mut self) -> Result<()> {
        let asked = step_of(&(self.at..self.end), self.step_size);
        let tag = self.found.e_tag.clone();
        // A weak tag never matches (RFC 9110 section 13.1.1); the answer tells it, too.
        let options = asked.with_if_match(tag.filter(|tag| !tag.starts_with("W/")));
        match self.backend.get(&self.path, options).await {
            Ok(found) if self.is_of_same(&found.meta) && found.range.start == self.at => {
                let until = found.range.end;
                if until <= self.at || until > self.end {
                    return Err(failed());
                }
                self.step = Some((found.into_stream(), until));
                self.brought = false;
                Ok(())
            }
            Ok(_) => Err(replaced()),
            Err(trouble) if matches!(trouble.why, Why::NotThere | Why::Exists) => Err(replaced()),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Whether this is of the object that the first step is of.
    fn is_of_same(&self, now: &ObjectMeta) -> bool {
        let is_same = match (&self.found.e_tag, &now.e_tag) {
            (Some(first), Some(tag)) => first == tag,
            (first, tag) => first == tag && self.found.last_modified == now.last_modified,
        };
        is_same && self.found.size == now.size
    }
}

/// The first bytes of `wanted`, as many as one request asks for.
fn step_of(wanted: &Range<u64>, most: u64) -> GetOptions {
    let end = wanted.start.saturating_add(most).min(wanted.end);
    GetOptions::default().with_range(Some(GetRange::Bounded(wanted.start..end)))
}

fn failed() -> Error {
    Error::unavailable("The blob could not be read to its end; try again")
}

fn replaced() -> Error {
    Error::unavailable("The blob was deleted or replaced while it was read; ask for it again")
}

fn no_blob() -> Error {
    Error::new(ErrorKind::NotFound, "There is no such blob")
}
