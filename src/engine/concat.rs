//! Concatenation: one upload made of others that were sent side by side.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Address, CONTENTION, NewUpload, Upload, Uploads, contended,
    create::{Stored, Wanted, check_metadata},
    ended, ended_or_sealed,
    request::Chunks,
};
use crate::{
    access::{Action, Caller, Subject},
    error::{Error, ErrorKind, Result},
    metadata::{Lookup, PartRange, PartsEdit},
    upload::{Concat, EventKind, FileName, Handle, Plan, Record, Snapshot, State, UploadId, Wake},
};

/// How many partial uploads a list may name.
const MAX_PARTIALS: usize = 1_000;
/// How many records are looked at or changed at the same time.
pub(super) const AT_ONCE: usize = 8;

impl Uploads {
    /// Creates an upload that is `partials`, in this order. A partial may be named more than once; 1 to 1,000 names.
    ///
    /// Each partial is authorised for `caller` by itself ([`Action::Assemble`]), and its expiry is extended first. Unless
    /// `unfinished` ones are allowed, all of them must have all their bytes. What is complete is joined and published before
    /// this answers, and by the driver if this is cut off or a store fails: then the answer is an upload that is not assembled
    /// yet. A partial that ends or is lost before that makes the upload fail, never short. The partials end with the
    /// publication; if this upload is aborted or fails they stay as they are.
    ///
    /// The upload does not expire by itself: unfinished partials do, and it fails with them. Against a quota of bytes it counts
    /// besides its partials, as the bytes are there twice for a while.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), also for a stranger's; [`Gone`](ErrorKind::Gone), also for one that was joined to
    /// another upload; [`Invalid`](ErrorKind::Invalid) for what is not a partial upload, or not finished;
    /// [`TooLarge`](ErrorKind::TooLarge) for the sum; [`Failed`](ErrorKind::Failed); those of [`create`](Self::create).
    pub async fn concatenate(
        &self,
        caller: &Caller,
        new: NewUpload,
        partials: &[UploadId],
        unfinished: bool,
    ) -> Result<Upload> {
        let _working = self.inner.tasks.begin()?;
        let file_name = FileName::parse(&new.file_name)?;
        let subject = Subject::New {
            target: new.target.as_ref(),
            file_name: &file_name,
        };
        self.authorize(caller, Action::Create, subject).await?;
        check_shape(&new, partials)?;
        if new.named {
            let by = Lookup::Name(caller.owner(), new.target.as_ref(), &file_name);
            if let Some(found) = self.inner.metadata.load(by, PartRange::ALL).await? {
                return self.same_concatenation(caller, found, partials).await;
            }
        }

        let found = self.find_partials(caller, partials).await?;
        let is_complete = found.iter().all(Partial::is_complete);
        if !unfinished && !is_complete {
            return Err(Error::invalid(
                "partials",
                "A partial upload is not finished; send the rest of it first",
            ));
        }
        let size = self.joint_size(&found, partials)?;
        self.extend(found).await?;

        let concat = Concat::Final(partials.to_vec());
        let wanted = Wanted::of(&new, file_name, Plan::sequential(size), Some(concat));
        // Should this process die the driver comes by; what is not complete it waits for.
        let wake = |_: &Record| {
            Wake::After(if is_complete {
                self.inner.config.lease
            } else {
                super::join::SOON
            })
        };
        let created = match self.store_new(caller, &wanted, wake).await? {
            Stored::New(created) => created,
            Stored::NameTaken(existing) => {
                let found = self.load(existing, PartRange::ALL).await?;
                return self.same_concatenation(caller, found, partials).await;
            }
        };
        if !is_complete {
            return Ok(Upload::created(created));
        }
        let (id, now) = (created.record.id, created.record.created_at);
        match self.join_and_publish(id, Some(now)).await {
            Err(error) if matches!(error.kind(), ErrorKind::Failed | ErrorKind::Gone) => Err(error),
            // It exists: whatever else went wrong is tried again by the driver, and must not make a client create another.
            _ => Ok(Upload::created(self.load(id, PartRange::ALL).await.unwrap_or(created))),
        }
    }

    /// The upload that has the name already, if it is made of the same ones.
    async fn same_concatenation(&self, caller: &Caller, found: Snapshot, partials: &[UploadId]) -> Result<Upload> {
        self.authorize(caller, Action::Write, Subject::Upload(&found.record))
            .await?;
        if found.record.joins() == Some(partials) {
            return Ok(Upload::new(found));
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "There is an upload of this name already, made of other bytes ({})",
                found.record.id
            ),
        ))
    }

    /// Each of the uploads once, if all of them are partial ones that this caller may join.
    async fn find_partials(&self, caller: &Caller, partials: &[UploadId]) -> Result<Vec<Partial>> {
        let look = stream::iter(distinct(partials)).map(async |id| {
            let found = self
                .find(caller, Address::Id(id), Action::Assemble, PartRange::NONE)
                .await?;
            if !found.record.is_partial() {
                return Err(Error::invalid("partials", format!("Upload {id} is not a partial one")));
            }
            match found.record.state {
                State::Open => Ok(Partial::of(found)),
                _ => Err(ended(&found.record)),
            }
        });
        look.buffered(AT_ONCE).try_collect().await
    }

    /// The sum of the sizes, as far as they are known: `None` if one is not.
    fn joint_size(&self, found: &[Partial], partials: &[UploadId]) -> Result<Option<u64>> {
        let size_of = |id: &UploadId| {
            let found = found.iter().find(|found| found.id == *id)?;
            Some((found.size, found.bytes))
        };
        let (mut sum, mut is_known) = (0_u64, true);
        for (size, stored) in partials.iter().filter_map(size_of) {
            sum = sum.saturating_add(size.unwrap_or(stored));
            is_known &= size.is_some();
        }
        self.check_size(sum)?;
        let max = self.inner.limits.max_parts;
        if u64::from(max) < partials.len() as u64 {
            return Err(Error::too_large(
                format!("The store keeps {max} parts of an upload; join fewer partial ones"),
                max.into(),
            ));
        }
        Ok(is_known.then_some(sum))
    }

    /// Lets the expiry of each begin anew, so that none goes while it is joined.
    async fn extend(&self, found: Vec<Partial>) -> Result<()> {
        let expiring = found.into_iter().filter(|found| found.expires);
        let extend = stream::iter(expiring).map(async |Partial { id, .. }| {
            for _ in 0..CONTENTION {
                let record = self.load(id, PartRange::NONE).await?.record;
                if record.state != State::Open {
                    return Err(ended_or_sealed(&record));
                }
                if self.update(&record, PartsEdit::Keep, Wake::AtExpiry).await?.is_some() {
                    return Ok(());
                }
            }
            Err(contended())
        });
        extend.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Ends what an assembled upload was made of, and notes that it is done. Whatever fails is done again when the driver
    /// comes by.
    pub(super) async fn end_partials(&self, record: &Record) -> Result<()> {
        if !record.staged {
            return Ok(());
        }
        let ends = stream::iter(distinct(record.joins().unwrap_or_default())).map(async |id| self.consume(id).await);
        ends.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let next = Record {
            staged: false,
            ..record.clone()
        };
        let wake = self.end_wake(&next);
        self.update(&next, PartsEdit::Keep, wake).await?;
        Ok(())
    }

    async fn consume(&self, id: UploadId) -> Result<()> {
        for _ in 0..CONTENTION {
            let Some(found) = self.inner.metadata.load(Lookup::Id(id), PartRange::NONE).await? else {
                return Ok(());
            };
            let mut next = found.record;
            if next.state != State::Open || !next.is_partial() {
                return Ok(());
            }
            next.state = State::Deleted;
            next.key_held = false;
            self.push_event(&mut next, EventKind::Deleted);
            let wake = self.end_wake(&next);
            if let Some(ended) = self.update(&next, PartsEdit::Clear, wake).await? {
                self.after_end(&ended).await;
                return Ok(());
            }
        }
        Err(contended())
    }
}

/// What is kept of each partial upload while all of a list are looked at: a record has whatever its client said besides, and a list
/// may name [many](MAX_PARTIALS).
pub(super) struct Partial {
    pub(super) id: UploadId,
    /// In bytes, if it is known.
    pub(super) size: Option<u64>,
    /// How many of them are there.
    pub(super) bytes: u64,
    pub(super) handle: Handle,
    expires: bool,
}

impl Partial {
    pub(super) fn of(found: Snapshot) -> Self {
        let Snapshot { record, tally, .. } = found;
        Self {
            id: record.id,
            size: record.plan.size,
            bytes: tally.bytes,
            handle: record.handle,
            expires: record.expires_at.is_some(),
        }
    }

    /// Whether all its bytes are there.
    pub(super) fn is_complete(&self) -> bool {
        self.size == Some(self.bytes)
    }
}

/// Each id once, in the order of its first place.
pub(super) fn distinct(ids: &[UploadId]) -> Vec<UploadId> {
    let mut seen = HashSet::new();
    ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}

fn check_shape(new: &NewUpload, partials: &[UploadId]) -> Result<()> {
    if partials.is_empty() || partials.len() > MAX_PARTIALS {
        return Err(Error::invalid(
            "partials",
            format!("{} partial uploads are named; name 1 to {MAX_PARTIALS}", partials.len()),
        ));
    }
    if new.size.is_some() || new.chunks != Chunks::None {
        return Err(Error::invalid(
            "size",
            "The size of an upload that is made of partial ones follows from theirs",
        ));
    }
    if new.partial {
        return Err(Error::invalid(
            "partial",
            "An upload that is made of partial ones is not one itself",
        ));
    }
    check_metadata(&new.metadata, &new.notes)
}

#[cfg(test)]
mod tests;
