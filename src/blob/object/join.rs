//! Joining on the backend's side: what one upload has staged becomes parts of another by copies, and only what is too small for a
//! part is read and sent again.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use tokio::sync::Semaphore;

use super::{
    Shared,
    claims::{Claim, lock},
    complete::SECOND_LOOK,
    pieces::NotRead,
    place::{Cut, Native, Piece, Place, Put, Stored},
    proof::bare,
    steps::{StepWriter, refused},
    trouble::Why,
    writer::ended,
};
use crate::{
    blob::{Before, Joined, PartWriter as _, Slot},
    engine::Crc64,
    error::{Error, ErrorKind, Result},
    upload::{Handle, Part},
};

/// How many copies one join has on their way.
const AT_ONCE: usize = 8;
/// How much is read at once of what is sent again.
const STEP: u64 = 8 << 20;

/// What a part is copied from.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(feature = "aws", feature = "gcp")),
    allow(dead_code, reason = "no other backend copies")
)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    /// The object's entity tag: if it has another one, it is not the object that was written.
    pub(super) tag: &'a str,
    /// `None`: all of it.
    pub(super) range: Option<Range<u64>>,
}

/// Copies within the backend.
#[async_trait]
pub(super) trait Copier: fmt::Debug + Send + Sync {
    /// Makes a part of a multipart upload of what an object has; what the backend needs back for it.
    async fn copy_part(&self, native: &Native, index: u32, source: &Source<'_>) -> object_store::Result<String>;
}

/// One join.
struct Joining {
    shared: Arc<Shared>,
    writer: Box<StepWriter>,
    from: Arc<Place>,
    /// The smallest part to make, so that the file needs no more of them than there may be.
    least: u64,
    /// Where the file ends, if that is known.
    size: Option<u64>,
    end: u64,
    copying: Arc<Semaphore>,
    /// Parts of the other upload that copies found to be lost.
    lost: Arc<Mutex<Vec<u32>>>,
}

impl Shared {
    /// Puts the bytes of `parts` of another upload into the slot at the end of this one, by copies; `None` where that cannot be done.
    pub(super) async fn join_by_copies(
        self: &Arc<Self>,
        into: &Handle,
        slot: Slot,
        before: Before<'_>,
        from: &Handle,
        parts: &[Part],
    ) -> Result<Option<Joined>> {
        let (place, from) = (Place::parse(into)?, Place::parse(from)?);
        let bounds = self.options.parts;
        let native = place.native.clone().map(|native| (native.cut, native));
        let Some((Cut::Steps { step, size }, native)) = native else {
            return Ok(None);
        };
        let stored: Vec<Option<Stored>> = parts.iter().map(Stored::of).collect();
        let all_staged = from.native.is_none() && stored.iter().flatten().all(|stored| stored.puts.is_empty());
        if bounds.equal || !all_staged || !self.backend.can_copy() {
            return Ok(None);
        }
        let claim = self.registry.entry(&place.dir).claim(0).await?;
        let lost = parts.iter().zip(&stored).filter(|(_, stored)| stored.is_none());
        let lost: Vec<u32> = lost.map(|(part, _)| part.number).collect();
        if !lost.is_empty() {
            return Ok(Some(Joined::PartsLost(lost)));
        }
        let writer = StepWriter::new(Arc::clone(self), place, (native, step, size), claim, slot, before)?;
        let joining = Joining {
            shared: Arc::clone(self),
            end: writer.end_offset(),
            writer: Box::new(writer),
            from: Arc::new(from),
            least: match size {
                Some(size) => bounds.min.max(size.div_ceil(u64::from(bounds.count.max(1)))),
                None => step,
            },
            size,
            copying: Arc::new(Semaphore::new(AT_ONCE)),
            lost: Arc::default(),
        };
        joining.run(stored.into_iter().flatten().collect()).await.map(Some)
    }

    /// What to say of a join that failed with `error` because the backend knows nothing of the multipart upload: what was joined
    /// before is gone with it, so that no further attempt succeeds. Where it can be asked it must say so twice.
    pub(super) async fn never_joined(&self, place: &Place, error: Error) -> Error {
        tokio::time::sleep(SECOND_LOOK).await;
        if let (Some(lister), Some(native)) = (&self.backend.lister, &place.native)
            && !matches!(lister.parts(native).await, Ok(None))
        {
            return error;
        }
        Error::new(
            ErrorKind::Invalid,
            "the object store has dropped the unfinished upload that the partial ones were joined to: join them anew, and look \
             after how many days a rule of the bucket ends multipart uploads",
        )
        .with_source(error)
    }
}

impl Joining {
    async fn run(mut self, parts: Vec<Stored>) -> Result<Joined> {
        for part in parts {
            for piece in part.pieces {
                match self.take(part.number, piece).await {
                    Ok(()) => {}
                    Err(NotRead::Lost(_)) => return Ok(Joined::PartsLost(vec![part.number])),
                    Err(NotRead::Failed(error)) => return Err(error),
                }
            }
        }
        let Self {
            writer, least, lost, ..
        } = self;
        let joined = ended(tokio::spawn(writer.end_joined(least))).await;
        let lost = std::mem::take(&mut *lock(&lost));
        match joined {
            Err(_) if !lost.is_empty() => Ok(Joined::PartsLost(lost)),
            Ok(stored) => Ok(Joined::Done(stored.receipt())),
            Err(error) => Err(error),
        }
    }

    /// Puts one staged object behind what is there.
    async fn take(&mut self, number: u32, piece: Piece) -> Result<(), NotRead> {
        let bounds = self.shared.options.parts;
        self.end += piece.len;
        // What waits to become a part becomes one with the first bytes of this object.
        let filled = self.writer.filled();
        let head = match filled {
            0 => 0,
            _ => self.least.saturating_sub(filled),
        };
        let rest = piece.len.saturating_sub(head);
        let is_last = self.size == Some(self.end);
        // A backend that copies parts of objects does so of those that could be parts themselves.
        let can_be_cut = head == 0 || piece.len > bounds.min;
        let fits = (rest >= self.least || is_last && rest > 0) && piece.len <= bounds.max;
        if piece.tag.is_none() || !fits || !can_be_cut || !self.shared.backend.can_copy() {
            return self.stream(&piece).await;
        }
        if filled > 0 {
            let _reserved = self.shared.memory.reserve(head).await.map_err(NotRead::Failed)?;
            let bytes = self
                .shared
                .read_within(&self.from, std::slice::from_ref(&piece), 0, head);
            let bytes = bytes.await?;
            self.writer.write(bytes).await.map_err(NotRead::Failed)?;
            self.writer.cut_here().map_err(NotRead::Failed)?;
        }
        self.copy(number, piece, head).map_err(NotRead::Failed)
    }

    /// Reads an object and writes its bytes as those of any client.
    async fn stream(&mut self, piece: &Piece) -> Result<(), NotRead> {
        let (mut at, mut crc64) = (0, Crc64::new());
        while at < piece.len {
            let len = STEP.min(piece.len - at);
            // Given back before the next: nothing that is done with it waits for more.
            let _reserved = self.shared.memory.reserve(len).await.map_err(NotRead::Failed)?;
            let frames = self
                .shared
                .read_within(&self.from, std::slice::from_ref(piece), at, len);
            let frames: Vec<Bytes> = frames.await?;
            frames.iter().for_each(|frame| crc64.update(frame));
            self.writer.write(frames).await.map_err(NotRead::Failed)?;
            at += len;
        }
        if crc64.value() == piece.crc64 {
            Ok(())
        } else {
            Err(NotRead::Lost(0))
        }
    }

    /// Makes a part of an object from `start` on, by a task of its own.
    fn copy(&mut self, number: u32, piece: Piece, start: u64) -> Result<()> {
        let len = piece.len - start;
        let (shared, from, copying) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.from),
            Arc::clone(&self.copying),
        );
        let (lost, claim) = (Arc::clone(&self.lost), self.writer.claim());
        self.writer.put_elsewhere(len, move |native, index| async move {
            let _turn = copying.acquire_owned().await;
            let range = (start > 0).then_some(start..piece.len);
            let path = shared.paths.piece(&from.dir, &piece);
            if let Some(put) = shared.copied(&claim, (&native, index), &path, &piece, range).await? {
                return Ok(put);
            }
            let _reserved = shared.memory.reserve(piece.len).await?;
            let frames = match shared.read_pieces(&from, std::slice::from_ref(&piece)).await {
                Err(NotRead::Lost(_)) => {
                    lock(&lost).push(number);
                    return Err(NotRead::Lost(0).into());
                }
                frames => frames?,
            };
            let put = shared.backend.put_part(&native, index, &behind(frames, start)).await;
            let put = put.map_err(|trouble| refused(&claim, trouble))?;
            shared.counters.sent(len);
            Ok(put)
        })
    }
}

impl Shared {
    /// A part that is a copy; `None` if it was not copied for a reason that may be the object's.
    async fn copied(
        &self,
        claim: &Claim,
        (native, index): (&Native, u32),
        path: &Path,
        piece: &Piece,
        range: Option<Range<u64>>,
    ) -> Result<Option<Put>> {
        let Some(tag) = piece.tag.as_deref() else {
            return Ok(None);
        };
        let is_whole = range.is_none();
        let source = Source { path, tag, range };
        match self.backend.copy_part(native, index, &source, piece.len).await {
            // The tag of a part is made as that of an object is, where they tell of the bytes: then it is proof.
            Ok(put) if is_whole && bare(&put.id) != bare(tag) => {
                tracing::info!("the object store gives copies other entity tags: parts are sent again, not copied");
                self.backend.copies_no_more();
                Ok(None)
            }
            Ok(put) => Ok(Some(put)),
            Err(trouble) if trouble.why == Why::CannotDo => {
                self.backend.copies_no_more();
                Ok(None)
            }
            Err(trouble) if matches!(trouble.why, Why::NotThere | Why::Unknown) => Err(refused(claim, trouble)),
            Err(trouble) => {
                tracing::debug!(?trouble, "a part is not copied but sent again");
                Ok(None)
            }
        }
    }
}

/// What lies behind the first `start` bytes.
fn behind(frames: Vec<Bytes>, start: u64) -> Vec<Bytes> {
    let mut skip = usize::try_from(start).unwrap_or(usize::MAX);
    let mut out = Vec::new();
    for mut frame in frames {
        let cut = skip.min(frame.len());
        skip -= cut;
        if cut < frame.len() {
            out.push(frame.split_off(cut));
        }
    }
    out
}
