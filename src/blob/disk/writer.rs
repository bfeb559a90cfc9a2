//! [`Writer`]: one attempt at one part.

use std::{io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    claims::{Claim, superseded},
    fs::{Fs, Open},
    place::{Place, partial},
    store::Shared,
};
use crate::{
    blob::{PartWriter, Slot},
    error::{Error, Result},
    planted::{Bug, planted},
    upload::{Receipt, UploadId},
};

/// How much is written before the kernel is asked to begin writing back.
const WRITEBACK_STEP: u64 = 1 << 20;

/// Writes one attempt, in place or to a file of its own.
#[derive(Debug)]
pub(super) struct Writer<F: Fs> {
    shared: Arc<Shared<F>>,
    id: UploadId,
    claim: Arc<Claim>,
    number: u32,
    place: Place,
    max_len: u64,
    attempt: Option<Attempt<F>>,
    len: u64,
    hinted: u64,
    /// An error, or a future that was dropped in the middle, ends the attempt.
    over: bool,
    finished: bool,
}

/// The descriptions of this attempt alone, opened before its first change.
#[derive(Debug)]
struct Attempt<F: Fs> {
    file: F::File,
    /// Of a side file, the directory that got its name.
    directory: Option<F::File>,
}

impl<F: Fs> Writer<F> {
    pub(super) fn new(shared: Arc<Shared<F>>, id: UploadId, claim: Arc<Claim>, slot: Slot) -> Self {
        let place = match slot.offset {
            Some(offset) => Place::InPlace(offset, shared.fs.random()),
            None => Place::aside(slot.number, shared.fs.random()),
        };
        let max_len = if planted(Bug::ChunkSizePlusOneAccepted) {
            slot.max_len.saturating_add(1)
        } else {
            slot.max_len
        };
        Self {
            shared,
            id,
            claim,
            number: slot.number,
            place,
            max_len,
            attempt: None,
            len: 0,
            hinted: 0,
            over: false,
            finished: false,
        }
    }

    fn attempt_is_aside(&self) -> bool {
        matches!(self.place, Place::Aside(_))
    }

    fn begin_step(&mut self) -> Result<()> {
        if self.over {
            return Err(Error::internal("This attempt at the part is over; send the part again"));
        }
        self.over = true;
        Ok(())
    }

    /// Writes `len` bytes that lie in another file of the store, from `start` on.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if they do not; the rest as [`write`](PartWriter::write).
    pub(super) async fn copy(&mut self, path: String, start: u64, len: u64) -> Result<()> {
        self.write_batch(Batch::File(path, start), len).await
    }

    async fn write_batch(&mut self, batch: Batch, len: u64) -> Result<()> {
        self.step(Some((batch, len)), false).await?;
        self.over = false;
        Ok(())
    }

    /// Puts a batch in its place and, with the last one, makes the part durable, in one job.
    async fn step(&mut self, batch: Option<(Batch, u64)>, is_last: bool) -> Result<()> {
        self.begin_step()?;
        let len = batch.as_ref().map_or(0, |(_, len)| *len);
        if len > self.max_len - self.len {
            return Err(Error::too_large("The part is longer than its slot", self.max_len));
        }
        if is_last && let Place::InPlace(offset, _) = self.place {
            self.claim.narrow(offset..offset.saturating_add(self.len + len));
        }
        let permit = self.claim.permit().await?;
        let held_by_request = planted(Bug::ClaimFreedOnDrop);
        let (mut by_request, mut by_job) = (None, None);
        *(if held_by_request { &mut by_request } else { &mut by_job }) = Some(permit);

        let (shared, id, place) = (Arc::clone(&self.shared), self.id, self.place.clone());
        let (number, written, hinted) = (self.number, self.len, self.hinted);
        // A part without bytes changes nothing in place.
        let changes = batch.is_some() || self.attempt_is_aside();
        let attempt = self.attempt.take();
        let strays = if attempt.is_none() && batch.is_some() {
            shared.space.strays(id)
        } else {
            Vec::new()
        };
        let job = async move {
            let permit = by_job;
            let attempt = match attempt {
                Some(attempt) => attempt,
                None if !changes => return Ok((None, hinted)),
                None => {
                    for stray in strays {
                        // What stays goes with the upload.
                        let _ = shared.fs.unlink(stray).await;
                    }
                    let attempt = Attempt::open(&shared, id, &place).await?;
                    if let Place::InPlace(_, token) = place {
                        shared.space.attempted(id, number, token);
                    }
                    attempt
                }
            };
            let written = written + len;
            let mut hint = false;
            if let Some((batch, len)) = batch {
                let base = place.file_offset();
                let offset = base.saturating_add(written - len);
                batch.put(&shared.fs, &attempt.file, offset, len).await?;
                hint = shared.sync && !is_last && written - hinted >= WRITEBACK_STEP;
                if hint {
                    shared.fs.hint(&attempt.file, base + hinted, written - hinted).await;
                }
            }
            if is_last {
                attempt.sync(&shared).await?;
                shared.space.written(id, written);
            }
            drop(permit);
            Ok((Some(attempt), if hint { written } else { hinted }))
        };
        let result = if is_last {
            self.shared.fs.run(job).await
        } else {
            self.shared.fs.run_short(job).await
        };
        drop(by_request);
        (self.attempt, self.hinted) = result?;
        self.len += len;
        Ok(())
    }

    async fn finish_step(mut self: Box<Self>, batch: Option<(Batch, u64)>) -> Result<Receipt> {
        self.step(batch, true).await?;
        self.finished = true;
        Ok(self.place.receipt(self.len))
    }
}

/// What is written in one job.
enum Batch {
    Frames(Vec<Bytes>),
    /// The bytes of the file at this path from there on.
    File(String, u64),
}

impl Batch {
    async fn put<F: Fs>(self, fs: &F, file: &F::File, offset: u64, len: u64) -> Result<()> {
        match self {
            Self::Frames(frames) => Ok(fs.write(file, offset, frames).await?),
            Self::File(path, start) => {
                let copied = match fs.open(path, Open::Read).await {
                    Ok(from) => fs.copy(&from, start, file, offset, len).await,
                    Err(error) => Err(error),
                };
                copied.map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Error::not_found(),
                    _ => error.into(),
                })
            }
        }
    }
}

#[async_trait]
impl<F: Fs> PartWriter for Writer<F> {
    async fn write(&mut self, frames: Vec<Bytes>) -> Result<()> {
        let len = frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        self.write_batch(Batch::Frames(frames), len).await
    }

    async fn finish(self: Box<Self>) -> Result<Receipt> {
        self.finish_step(None).await
    }

    async fn finish_with(self: Box<Self>, frames: Vec<Bytes>) -> Result<Receipt> {
        let len = frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        self.finish_step(Some((Batch::Frames(frames), len))).await
    }
}

impl<F: Fs> Drop for Writer<F> {
    fn drop(&mut self) {
        let began = self.attempt.is_some() || self.over;
        // What is sealed is discarded soon.
        if began && !self.finished && self.attempt_is_aside() && !self.claim.is_sealed() {
            self.shared.space.stray(self.id, self.place.path(self.id));
        }
        self.claim.abandon();
    }
}

impl<F: Fs> Attempt<F> {
    async fn open(shared: &Shared<F>, id: UploadId, place: &Place) -> Result<Self> {
        let fs = &shared.fs;
        let file = match fs.open(partial(id), Open::Write).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::internal("The file of the upload is gone; begin a new upload"));
            }
            result => result?,
        };
        if fs.stat(&file).await?.links > 1 {
            // It is published, by an earlier process.
            return Err(superseded());
        }
        if let Place::InPlace(..) = place {
            return Ok(Self { file, directory: None });
        }
        let directory = Some(fs.open("partial".into(), Open::Directory).await?);
        shared.space.side_file(id);
        let file = fs.open(place.path(id), Open::New).await?;
        Ok(Self { file, directory })
    }

    /// An error is final: the kernel may hold the bytes for written from now on, although they are not.
    async fn sync(&self, shared: &Shared<F>) -> io::Result<()> {
        if !shared.sync {
            return Ok(());
        }
        let result = shared.fs.sync(&self.file).await;
        if result.is_err() && planted(Bug::FsyncRetriedAfterEio) {
            shared.fs.sync(&self.file).await?;
        } else {
            result?;
        }
        match &self.directory {
            Some(directory) => shared.sync_directory(directory).await,
            None => Ok(()),
        }
    }
}
