//! What this process knows of unfinished uploads: what they declared and did not write yet, and which parts
//! were written more than once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::{claims::lock, place::Attempt};
use crate::{
    error::{Error, ErrorKind, Result},
    upload::UploadId,
};

/// What this process knows of the uploads it began.
#[derive(Debug)]
pub(super) struct Space {
    overcommit: f64,
    uploads: Mutex<Reserved>,
}

#[derive(Debug, Default)]
struct Reserved {
    total: u64,
    uploads: HashMap<UploadId, Begun>,
    strays: HashMap<UploadId, Vec<String>>,
    attempts: HashMap<UploadId, Attempts>,
}

/// Costs a bit for each part, and more for those only that were tried again.
#[derive(Debug, Default)]
struct Attempts {
    /// 64 numbers each.
    tried: HashMap<u32, u64>,
    latest: HashMap<u32, Attempt>,
}

#[derive(Debug)]
struct Begun {
    left: u64,
    has_side_files: bool,
}

impl Space {
    pub(super) fn new(overcommit: f64) -> Arc<Self> {
        Arc::new(Self {
            overcommit,
            uploads: Mutex::default(),
        })
    }

    /// Whether anything is reserved at all.
    pub(super) fn is_bounded(&self) -> bool {
        self.overcommit.is_finite()
    }

    /// Sets `size` bytes aside, of which `free` are there, until the reservation is dropped unkept.
    ///
    /// # Errors
    /// [`NoSpace`](ErrorKind::NoSpace).
    pub(super) fn reserve(self: &Arc<Self>, id: UploadId, size: u64, free: u64) -> Result<Reservation> {
        let mut reserved = lock(&self.uploads);
        let total = reserved.total.saturating_add(size);
        #[allow(clippy::cast_precision_loss, reason = "a factor on bytes is no exact matter")]
        if self.is_bounded() && total as f64 > free as f64 * self.overcommit {
            return Err(Error::new(
                ErrorKind::NoSpace,
                "The store has no room for an upload of this size; try again when space was freed",
            ));
        }
        reserved.total = total;
        let begun = Begun {
            left: size,
            has_side_files: false,
        };
        reserved.uploads.insert(id, begun);
        Ok(Reservation {
            space: Arc::clone(self),
            id,
            kept: false,
        })
    }

    /// Says that `len` of the declared bytes are on disk.
    pub(super) fn written(&self, id: UploadId, len: u64) {
        let mut reserved = lock(&self.uploads);
        if let Some(begun) = reserved.uploads.get_mut(&id) {
            let less = len.min(begun.left);
            begun.left -= less;
            reserved.total -= less;
        }
    }

    /// Says that the upload has, or may have, a side file.
    pub(super) fn side_file(&self, id: UploadId) {
        if let Some(begun) = lock(&self.uploads).uploads.get_mut(&id) {
            begun.has_side_files = true;
        }
    }

    /// Whether the upload may have side files. Of those of an earlier process nothing is known.
    pub(super) fn may_have_side_files(&self, id: UploadId) -> bool {
        lock(&self.uploads)
            .uploads
            .get(&id)
            .is_none_or(|begun| begun.has_side_files)
    }

    /// Says that nobody will ask for this side file of an abandoned attempt.
    pub(super) fn stray(&self, id: UploadId, path: String) {
        lock(&self.uploads).strays.entry(id).or_default().push(path);
    }

    /// The side files that nobody will ask for, to be removed.
    pub(super) fn strays(&self, id: UploadId) -> Vec<String> {
        lock(&self.uploads).strays.remove(&id).unwrap_or_default()
    }

    /// Says that `attempt` begins to write part `number` in place, over whatever earlier ones wrote.
    pub(super) fn attempted(&self, id: UploadId, number: u32, attempt: Attempt) {
        let mut reserved = lock(&self.uploads);
        let attempts = reserved.attempts.entry(id).or_default();
        let (word, bit) = (attempts.tried.entry(number / 64).or_default(), 1 << (number % 64));
        if *word & bit == 0 {
            *word |= bit;
        } else {
            attempts.latest.insert(number, attempt);
        }
    }

    /// Whether a later attempt wrote where `attempt` had written part `number`.
    pub(super) fn is_replaced(&self, id: UploadId, number: u32, attempt: Attempt) -> bool {
        let reserved = lock(&self.uploads);
        let latest = reserved
            .attempts
            .get(&id)
            .and_then(|attempts| attempts.latest.get(&number));
        latest.is_some_and(|latest| *latest != attempt)
    }

    /// Forgets an upload.
    pub(super) fn release(&self, id: UploadId) {
        let mut reserved = lock(&self.uploads);
        reserved.strays.remove(&id);
        reserved.attempts.remove(&id);
        if let Some(begun) = reserved.uploads.remove(&id) {
            reserved.total -= begun.left;
        }
    }

    #[cfg(test)]
    pub(super) fn reserved(&self) -> u64 {
        lock(&self.uploads).total
    }
}

/// Bytes set aside for an upload that is about to begin.
#[derive(Debug)]
pub(super) struct Reservation {
    space: Arc<Space>,
    id: UploadId,
    kept: bool,
}

impl Reservation {
    /// The upload began: the reservation is its own.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.space.release(self.id);
        }
    }
}
