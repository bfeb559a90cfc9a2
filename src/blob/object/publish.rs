//! Staged objects made one: small ones at once, else cut anew into parts of one size.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::MultipartUpload;
use tokio::task::JoinSet;

use super::{
    Shared,
    complete::{Made, Order, Stop, collected},
    memory::Reserved,
    place::{Native, Piece, Put, total},
    proof::bare,
    trouble::Why,
};
use crate::{
    engine::{Crc64, checksum::Combiner},
    error::{Error, Result},
};

/// How many parts are on their way at the same time.
pub(super) const AT_ONCE: usize = 4;

/// A part of what is cut anew.
struct Cutting {
    frames: Vec<Bytes>,
    len: u64,
    crc64: u64,
    reserved: Reserved,
}

impl Shared {
    /// Puts an object at once, where there is none.
    pub(super) async fn publish_small(&self, order: &Order<'_>, frames: &[Bytes]) -> Result<Made> {
        let put = self.backend.create(&order.path, frames).await;
        self.counters.sent(frames.iter().map(|frame| frame.len() as u64).sum());
        match put {
            Ok(tag) => Ok(Made::Done(tag.map(|tag| bare(&tag)))),
            Err(trouble) if matches!(trouble.why, Why::Exists | Why::Unknown) => {
                match self.backend.head(&order.path).await? {
                    Some(_) => Ok(Made::Occupied),
                    None => Err(trouble.into()),
                }
            }
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Makes an object of staged ones in a store of any kind.
    pub(super) async fn publish_pieces(&self, order: &Order<'_>, pieces: &[Piece]) -> Result<Made> {
        let size = total(pieces);
        let step = self.options.parts.step(self.options.part_size, Some(size));
        if size <= step {
            return self.publish_at_once(order, pieces).await;
        }
        let mut upload = match self.backend.write(&order.path).await {
            Err(trouble) if trouble.why == Why::CannotDo => {
                let most = self.options.memory.max(step);
                if size <= most {
                    return self.publish_at_once(order, pieces).await;
                }
                tracing::warn!(
                    size,
                    most,
                    "the object store takes no object as large as an upload that is complete"
                );
                return Ok(Made::Refused(format!(
                    "this store takes no objects larger than {most} bytes, since it has no multipart uploads: raise \
                     `with_memory`, or choose another store"
                )));
            }
            answer => answer?,
        };
        let written = self.write_all(order, pieces, step, &mut *upload).await;
        let outcome = match written {
            Ok(None) => match self.backend.step(0, upload.complete()).await {
                Ok(put) => {
                    return Ok(Made::Done(
                        put.e_tag.filter(|tag| !tag.is_empty()).map(|tag| bare(&tag)),
                    ));
                }
                Err(trouble) => match self.backend.head(&order.path).await {
                    Ok(Some(_)) => return Ok(Made::Occupied),
                    _ => Err(trouble.into()),
                },
            },
            Ok(Some(made)) => Ok(made),
            Err(error) => Err(error),
        };
        if let Err(trouble) = self.backend.step(0, upload.abort()).await {
            tracing::debug!(
                ?trouble,
                "what was written of a blob is left to the object store's own rules"
            );
        }
        outcome
    }

    /// By one request, with all of it in memory.
    async fn publish_at_once(&self, order: &Order<'_>, pieces: &[Piece]) -> Result<Made> {
        let _reserved = self.memory.reserve(total(pieces)).await?;
        match self.read_pieces(order.place, pieces).await {
            Ok(frames) => self.publish_small(order, &frames).await,
            Err(not) => made(Stop::reading(not, |at| number_of(order, pieces, at))),
        }
    }

    /// Writes all parts; `Some` if that cannot be done.
    async fn write_all(
        &self,
        order: &Order<'_>,
        pieces: &[Piece],
        step: u64,
        upload: &mut dyn MultipartUpload,
    ) -> Result<Option<Made>> {
        let mut cuttings = stream::iter(cuts(total(pieces), step))
            .map(|range| self.cutting(order, pieces, range))
            .buffered(2);
        let mut puts = JoinSet::new();
        let mut sum = Combiner::new();
        while let Some(cutting) = cuttings.next().await {
            let cutting = match collected(cutting)? {
                Ok(cutting) => cutting,
                Err(made) => return Ok(Some(made)),
            };
            sum.push(cutting.crc64, cutting.len);
            while puts.len() >= AT_ONCE {
                joined(puts.join_next().await)?;
            }
            // The order of these calls is that of the parts.
            let put = upload.put_part(cutting.frames.iter().cloned().collect());
            let (backend, len, reserved) = (self.backend.clone(), cutting.len, cutting.reserved);
            self.counters.sent(len);
            puts.spawn(async move {
                let put = backend.step(len, put).await;
                drop(reserved);
                put.map_err(Error::from)
            });
        }
        while let Some(put) = puts.join_next().await {
            joined(Some(put))?;
        }
        self.check(order, pieces, sum.value()).await
    }

    /// Cuts staged objects anew into the parts of a multipart upload.
    pub(super) async fn recut(
        &self,
        order: &Order<'_>,
        native: &Native,
        pieces: &[Piece],
    ) -> Result<Result<Vec<Put>, Made>> {
        let size = total(pieces);
        let step = self.options.parts.step(self.options.part_size, Some(size));
        let puts = stream::iter((0..).zip(cuts(size, step))).map(async |(index, range)| {
            let cutting = self.cutting(order, pieces, range).await?;
            let put = self.put_again(native, index, &cutting.frames).await?;
            Ok((put, cutting.crc64, cutting.len))
        });
        let puts: Vec<(Put, u64, u64)> = match collected(puts.buffered(AT_ONCE).try_collect().await)? {
            Ok(puts) => puts,
            Err(made) => return Ok(Err(made)),
        };
        let mut sum = Combiner::new();
        for (_, crc64, len) in &puts {
            sum.push(*crc64, *len);
        }
        match self.check(order, pieces, sum.value()).await? {
            Some(made) => Ok(Err(made)),
            None => Ok(Ok(puts.into_iter().map(|(put, ..)| put).collect())),
        }
    }

    async fn cutting(&self, order: &Order<'_>, pieces: &[Piece], range: Range<u64>) -> Result<Cutting, Stop> {
        let len = range.end - range.start;
        let reserved = self.memory.reserve(len).await.map_err(Stop::Failed)?;
        let read = self.read_within(order.place, pieces, range.start, len).await;
        let frames = read.map_err(|not| Stop::reading(not, |at| number_of(order, pieces, at)))?;
        let mut crc64 = Crc64::new();
        frames.iter().for_each(|frame| crc64.update(frame));
        Ok(Cutting {
            frames,
            len,
            crc64: crc64.value(),
            reserved,
        })
    }

    /// Compares the checksum of all that was read with those the objects were written with; if it is another one, finds out which
    /// object it was.
    async fn check(&self, order: &Order<'_>, pieces: &[Piece], sum: u64) -> Result<Option<Made>> {
        let mut expected = Combiner::new();
        for piece in pieces {
            expected.push(piece.crc64, piece.len);
        }
        if expected.value() == sum {
            return Ok(None);
        }
        for (at, piece) in pieces.iter().enumerate() {
            let _reserved = self.memory.reserve(piece.len).await?;
            match self.read_pieces(order.place, std::slice::from_ref(piece)).await {
                Err(not @ super::pieces::NotRead::Failed(_)) => return Err(not.into()),
                Err(_) => return Ok(Some(Made::Lost(number_of(order, pieces, at)))),
                Ok(_) => {}
            }
        }
        Err(Error::unavailable(
            "Bytes were read that are not those stored; try again",
        ))
    }
}

/// Ranges of `step` bytes, the last one shorter.
fn cuts(size: u64, step: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(step)).map(move |at| at * step..size.min((at + 1) * step))
}

/// The part that a staged object is of.
fn number_of(order: &Order<'_>, pieces: &[Piece], at: usize) -> Vec<u32> {
    let name = pieces.get(at).map(|piece| &piece.name);
    let part = order.parts.iter().find(|part| {
        super::place::Stored::of(part).is_some_and(|stored| stored.pieces.iter().any(|piece| Some(&piece.name) == name))
    });
    part.map(|part| part.number).into_iter().collect()
}

fn made(stop: Stop) -> Result<Made> {
    match stop {
        Stop::Made(made) => Ok(made),
        Stop::Failed(error) => Err(error),
    }
}

fn joined<T>(put: Option<Result<Result<T>, tokio::task::JoinError>>) -> Result<()> {
    match put {
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(Error::internal("A part was not written").with_source(error)),
        Some(Ok(Ok(_))) | None => Ok(()),
    }
}
