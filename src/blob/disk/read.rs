//! Reading blobs, and parts before they are one.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::BoxFuture,
    stream::{StreamExt as _, once, try_unfold},
};

use super::{
    fs::{Fs, Open},
    place::Place,
    store::Shared,
};
use crate::{
    blob::{BlobBody, ByteRange},
    error::{Error, ErrorKind, Result},
    upload::{Blob, Key, Part, UploadId},
};

/// The most that is read at once, in bytes. Whoever reads a body holds two of them: one on its way out, and one that is read
/// meanwhile.
const STEP: u64 = 256 << 10;

/// Bytes of one file.
struct Stretch<F: Fs> {
    source: Source<F>,
    at: u64,
    end: u64,
}

/// A file that is opened when its turn comes.
enum Source<F: Fs> {
    Path(String),
    File(F::File),
}

/// A body under way.
struct Reading<F: Fs> {
    shared: Arc<Shared<F>>,
    /// What is not being read yet.
    rest: VecDeque<Stretch<F>>,
    /// What is being read.
    ahead: Option<Ahead<F>>,
}

type Ahead<F> = BoxFuture<'static, Result<(Stretch<F>, Bytes)>>;

impl<F: Fs> Shared<F> {
    pub(super) async fn head(self: Arc<Self>, key: &Key) -> Result<Option<Blob>> {
        Ok(self.look_up(key).await?.map(|(_, len)| Blob::new(len, None)))
    }

    pub(super) async fn read(self: Arc<Self>, key: &Key, range: ByteRange) -> Result<BlobBody> {
        let (shared, key) = (Arc::clone(&self), key.clone());
        // The first bytes come with the file: one way to the threads that may block, where a small range needs no other.
        let job = async move {
            let Some((Some(file), stat)) = shared.published(&key).await? else {
                return Err(Error::not_found());
            };
            let mut stretch = Stretch::within(file, stat.len, range)?;
            let first = stretch.next(&shared).await?;
            Ok((stretch, first))
        };
        let (stretch, first) = self.fs.run(job).await?;
        let rest = self.body([stretch].into());
        Ok(if first.is_empty() {
            rest
        } else {
            Box::pin(once(async { Ok(first) }).chain(rest))
        })
    }

    pub(super) fn read_parts(self: Arc<Self>, id: UploadId, parts: &[Part]) -> Result<BlobBody> {
        let stretches = parts.iter().map(|part| {
            let place = Place::of(part).ok_or_else(|| Error::internal("A receipt is not one of this store"))?;
            Ok(Stretch {
                source: Source::Path(place.path(id)),
                at: place.file_offset(),
                end: place.file_offset().saturating_add(part.len),
            })
        });
        let stretches = stretches.collect::<Result<_>>()?;
        Ok(self.body(stretches))
    }

    async fn look_up(self: &Arc<Self>, key: &Key) -> Result<Option<(F::File, u64)>> {
        let (shared, key) = (Arc::clone(self), key.clone());
        let job = async move {
            match shared.published(&key).await {
                Ok(Some((Some(file), stat))) => Ok(Some((file, stat.len))),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.fs.run(job).await
    }

    fn body(self: Arc<Self>, stretches: VecDeque<Stretch<F>>) -> BlobBody {
        let reading = Reading {
            shared: self,
            rest: stretches,
            ahead: None,
        };
        Box::pin(try_unfold(reading, |mut reading| async move {
            let bytes = reading.next().await?;
            Ok(bytes.map(|bytes| (bytes, reading)))
        }))
    }
}

impl<F: Fs> Reading<F> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(ahead) = self.ahead.take().or_else(|| self.begin()) else {
            return Ok(None);
        };
        let (stretch, bytes) = ahead.await?;
        self.rest.push_front(stretch);
        // The next bytes are read while these are sent.
        self.ahead = self.begin().map(started);
        Ok(Some(bytes))
    }

    fn begin(&mut self) -> Option<Ahead<F>> {
        while let Some(mut stretch) = self.rest.pop_front() {
            if stretch.at < stretch.end {
                let shared = Arc::clone(&self.shared);
                let job = async move {
                    let owned = Arc::clone(&shared);
                    let job = async move {
                        let bytes = stretch.next(&owned).await?;
                        Ok((stretch, bytes))
                    };
                    shared.fs.run(job).await
                };
                return Some(job.boxed());
            }
        }
        None
    }
}

/// A future that was polled once, so that what it waits for is under way.
fn started<T: Send + 'static>(mut future: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
    match (&mut future).now_or_never() {
        Some(output) => std::future::ready(output).boxed(),
        None => future,
    }
}

impl<F: Fs> Stretch<F> {
    /// The `range` of a file of `len` bytes.
    fn within(file: F::File, len: u64, range: ByteRange) -> Result<Self> {
        if range.start > len || range.end.is_some_and(|end| end < range.start) {
            return Err(Error::invalid(
                "range",
                format!("The range is not within the {len} bytes of the blob"),
            ));
        }
        Ok(Self {
            source: Source::File(file),
            at: range.start,
            end: range.end.unwrap_or(len).min(len),
        })
    }

    /// The next bytes, none only at the end. Within a job.
    async fn next(&mut self, shared: &Arc<Shared<F>>) -> Result<Bytes> {
        if self.at >= self.end {
            return Ok(Bytes::new());
        }
        if let Source::Path(path) = &self.source {
            let file = match shared.fs.open(path.clone(), Open::Read).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(lost()),
                file => file?,
            };
            self.source = Source::File(file);
        }
        let Source::File(file) = &self.source else {
            return Err(Error::internal("A file is not open"));
        };
        let len = usize::try_from((self.end - self.at).min(STEP)).unwrap_or(usize::MAX);
        let bytes = shared.fs.read(file, self.at, len).await?;
        if bytes.is_empty() {
            return Err(lost());
        }
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::NotFound, "A part is not there as recorded")
}
