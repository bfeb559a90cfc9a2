//! Reading blobs, and parts before they are one.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use futures_util::stream::try_unfold;

use super::{
    fs::{Fs, Open},
    place::Place,
    store::Shared,
};
use crate::{
    blob::{BlobBody, ByteRange},
    error::{Error, Result},
    upload::{Blob, Key, Part, UploadId},
};

/// The most that is read at once, in bytes.
const STEP: u64 = 512 << 10;

/// Bytes of one file.
struct Stretch<F: Fs> {
    source: Source<F>,
    at: u64,
    end: u64,
}

/// A file that is opened when its turn comes.
enum Source<F: Fs> {
    Path(String),
    File(Arc<F::File>),
}

impl<F: Fs> Shared<F> {
    pub(super) async fn head(self: Arc<Self>, key: &Key) -> Result<Option<Blob>> {
        Ok(self.look_up(key).await?.map(|(_, len)| Blob::new(len, None)))
    }

    pub(super) async fn read(self: Arc<Self>, key: &Key, range: ByteRange) -> Result<BlobBody> {
        let Some((file, len)) = self.look_up(key).await? else {
            return Err(Error::not_found());
        };
        let end = range.end.unwrap_or(len).min(len);
        if range.start > len || range.end.is_some_and(|end| end < range.start) {
            return Err(Error::invalid(
                "range",
                format!("The range is not within the {len} bytes of the blob"),
            ));
        }
        let stretch = Stretch {
            source: Source::File(Arc::new(file)),
            at: range.start,
            end,
        };
        Ok(self.body([stretch].into()))
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
        Box::pin(try_unfold(stretches, move |mut stretches| {
            let shared = Arc::clone(&self);
            async move {
                while let Some(mut stretch) = stretches.pop_front() {
                    if stretch.at < stretch.end {
                        let bytes = stretch.next(&shared).await?;
                        stretches.push_front(stretch);
                        return Ok(Some((bytes, stretches)));
                    }
                }
                Ok(None)
            }
        }))
    }
}

impl<F: Fs> Stretch<F> {
    async fn next(&mut self, shared: &Arc<Shared<F>>) -> Result<Bytes> {
        let source = match &self.source {
            Source::Path(path) => Source::<F>::Path(path.clone()),
            Source::File(file) => Source::File(Arc::clone(file)),
        };
        let len = usize::try_from((self.end - self.at).min(STEP)).unwrap_or(usize::MAX);
        let (owned, at) = (Arc::clone(shared), self.at);
        let job = async move {
            let file = match source {
                Source::File(file) => file,
                Source::Path(path) => Arc::new(owned.fs.open(path, Open::Read).await?),
            };
            let bytes = owned.fs.read(&file, at, len).await?;
            if bytes.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Ok((file, bytes))
        };
        let (file, bytes) = shared.fs.run(job).await?;
        self.source = Source::File(file);
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}
