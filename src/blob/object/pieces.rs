//! Staged objects: written once under names of their own, read back to be cut anew.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Shared,
    memory::Memory,
    place::{Piece, Place, total},
    trouble::{Trouble, Why},
};
use crate::{blob::BlobBody, engine::Crc64, error::Error};

/// Why staged bytes cannot be had.
#[derive(Debug)]
pub(super) enum NotRead {
    /// This one, by its place in the list, is definitely not there as it was written.
    Lost(usize),
    /// It could not be found out.
    Failed(Error),
}

impl From<NotRead> for Error {
    fn from(not: NotRead) -> Self {
        match not {
            NotRead::Lost(_) => Self::internal("Bytes that were stored are lost; begin the upload anew"),
            NotRead::Failed(error) => error,
        }
    }
}

impl Shared {
    /// Stores these bytes under a name that nobody else uses.
    pub(super) async fn stage(&self, place: &Place, frames: &[Bytes]) -> Result<Piece, Trouble> {
        let mut crc64 = Crc64::new();
        frames.iter().for_each(|frame| crc64.update(frame));
        let mut piece = Piece {
            name: self.name(),
            len: frames.iter().map(|frame| frame.len() as u64).sum(),
            crc64: crc64.value(),
            tag: None,
        };
        let path = self.paths.piece(&place.dir, &piece);
        let tag = self.backend.put(&path, frames).await?;
        piece.tag = tag.filter(|_| self.backend.can_copy());
        self.counters.sent(piece.len);
        Ok(piece)
    }

    /// The bytes of these, one behind the other, each as it was written.
    pub(super) async fn read_pieces(&self, place: &Place, pieces: &[Piece]) -> Result<Vec<Bytes>, NotRead> {
        let pieces: Vec<(usize, Piece)> = pieces.iter().cloned().enumerate().collect();
        let read = stream::iter(pieces).map(async |(at, piece)| {
            let path = self.paths.piece(&place.dir, &piece);
            let frames = match self.backend.bytes(&path, 0, piece.len).await {
                Err(trouble) if trouble.why == Why::NotThere => return Err(NotRead::Lost(at)),
                answer => answer.map_err(|trouble| NotRead::Failed(trouble.into()))?,
            };
            let mut crc64 = Crc64::new();
            frames.iter().for_each(|frame| crc64.update(frame));
            if crc64.value() == piece.crc64 {
                Ok(frames)
            } else {
                Err(NotRead::Lost(at))
            }
        });
        let frames: Vec<Vec<Bytes>> = read.buffered(4).try_collect().await?;
        Ok(frames.concat())
    }

    /// The bytes `start..start + len` of `pieces`, which lie one behind the other.
    pub(super) async fn read_within(
        &self,
        place: &Place,
        pieces: &[Piece],
        start: u64,
        len: u64,
    ) -> Result<Vec<Bytes>, NotRead> {
        let (mut at, end) = (0, start + len);
        let mut out = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let (from, to) = (start.max(at), end.min(at + piece.len));
            if from < to {
                let path = self.paths.piece(&place.dir, piece);
                match self.backend.bytes(&path, from - at, to - from).await {
                    Ok(frames) => out.extend(frames),
                    Err(trouble) if trouble.why == Why::NotThere => return Err(NotRead::Lost(number)),
                    Err(trouble) => return Err(NotRead::Failed(trouble.into())),
                }
            }
            at += piece.len;
            if at >= end {
                break;
            }
        }
        Ok(out)
    }

    /// A stream of the same as [`read_pieces`](Self::read_pieces), unverified: whoever asks knows the parts' checksums. With `memory`
    /// each step is reserved there until it was passed on: for readers who wait for none of it meanwhile, as a host's hook may.
    pub(super) fn stream_pieces(&self, place: &Place, pieces: Vec<Piece>, memory: Option<Memory>) -> BlobBody {
        /// How much is asked for at once.
        const STEP: u64 = 1 << 20;
        let (backend, paths, dir) = (self.backend.clone(), self.paths.clone(), place.dir.clone());
        let steps: Vec<(usize, u64, u64)> = pieces
            .iter()
            .enumerate()
            .flat_map(|(at, piece)| {
                let starts = (0..piece.len).step_by(usize::try_from(8 * STEP).unwrap_or(usize::MAX));
                starts.map(move |start| (at, start, (piece.len - start).min(8 * STEP)))
            })
            .collect();
        debug_assert_eq!(steps.iter().map(|step| step.2).sum::<u64>(), total(&pieces));
        let body = stream::iter(steps).then(move |(at, start, len)| {
            let path = paths.piece(&dir, &pieces[at]);
            let (backend, memory) = (backend.clone(), memory.clone());
            async move {
                let reserved = match memory {
                    Some(memory) => Some(memory.reserve(len).await?),
                    None => None,
                };
                let frames = backend.bytes(&path, start, len).await.map_err(Error::from)?;
                Ok::<_, Error>(stream::iter(frames).map(move |frame| {
                    let _paid = &reserved;
                    Ok(frame)
                }))
            }
        });
        Box::pin(body.try_flatten())
    }
}
