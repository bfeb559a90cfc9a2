//! Putting the bytes of other uploads into one, within the file system.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use super::{
    fs::{Fs, Open},
    place::Place,
    store::Shared,
    writer::Writer,
};
use crate::{
    blob::{Joined, PartWriter as _, Slot, same_upload},
    error::{ErrorKind, Result},
    upload::{Part, UploadId},
};

/// How much is copied in one job, in bytes: a newer claim waits for no more than that. A multiple of any file system's blocks, so
/// that what can be shared is.
const STEP: u64 = 64 << 20;

/// Bytes of one file that follow each other.
struct Stretch {
    path: String,
    start: u64,
    len: u64,
    parts: Vec<u32>,
}

impl<F: Fs> Shared<F> {
    /// As an attempt at the slot by a [`Writer`], which claims it and syncs it; only that its bytes never come here.
    pub(super) async fn join(
        self: &Arc<Self>,
        id: UploadId,
        slot: Slot,
        from: UploadId,
        parts: &[Part],
    ) -> Result<Joined> {
        if id == from {
            return Err(same_upload());
        }
        let claim = self.registry.entry(id).claim(slot).await?;
        let mut writer = Writer::new(Arc::clone(self), id, claim, slot);
        let stretches = match self.stretches(from, parts).await? {
            Ok(stretches) => stretches,
            Err(lost) => return Ok(Joined::PartsLost(lost)),
        };
        for stretch in stretches {
            let mut done = 0;
            while done < stretch.len {
                let len = (stretch.len - done).min(STEP);
                match writer.copy(stretch.path.clone(), stretch.start + done, len).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Joined::PartsLost(stretch.parts)),
                    result => result?,
                }
                self.copied.fetch_add(len, Ordering::Relaxed);
                done += len;
            }
        }
        Box::new(writer).finish().await.map(Joined::Done)
    }

    /// Where the bytes of `parts` lie, or which of them do not.
    async fn stretches(self: &Arc<Self>, id: UploadId, parts: &[Part]) -> Result<Result<Vec<Stretch>, Vec<u32>>> {
        let (mut stretches, mut lost) = (Vec::<Stretch>::new(), Vec::new());
        for part in parts {
            let place = match Place::of(part) {
                Some(Place::InPlace(_, attempt))
                    if part.len > 0 && self.space.is_replaced(id, part.number, attempt) =>
                {
                    None
                }
                place => place,
            };
            let Some(place) = place else {
                lost.push(part.number);
                continue;
            };
            let (path, start) = (place.path(id), place.file_offset());
            match stretches.last_mut() {
                Some(last) if last.path == path && last.start + last.len == start => {
                    last.len = last.len.saturating_add(part.len);
                    last.parts.push(part.number);
                }
                _ => stretches.push(Stretch {
                    path,
                    start,
                    len: part.len,
                    parts: vec![part.number],
                }),
            }
        }
        let shared = Arc::clone(self);
        let look = async move {
            for stretch in &stretches {
                let len = match shared.fs.open(stretch.path.clone(), Open::Read).await {
                    Ok(file) => shared.fs.stat(&file).await?.len,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                    Err(error) => return Err(error.into()),
                };
                if stretch.len > 0 && len < stretch.start.saturating_add(stretch.len) {
                    lost.extend(&stretch.parts);
                }
            }
            lost.sort_unstable();
            Ok(if lost.is_empty() { Ok(stretches) } else { Err(lost) })
        };
        self.fs.run(look).await
    }
}
