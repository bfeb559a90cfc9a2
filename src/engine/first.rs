//! The first chunk of an upload that does not exist yet: both in one step.

use std::collections::BTreeMap;

use super::{
    NewChunk, StoredChunk, Uploads, contended,
    create::{Wanted, wake},
    intake::Intake,
    live::{Creating, Spot},
    receive::{Source, over_quota, stored_chunk},
    request::check_len,
};
use crate::{
    access::{Action, Caller, Subject},
    error::{Error, Result},
    metadata::{Created, PartRange},
    observe,
    upload::{FileName, Part, Plan, Protocol, Record, Tally, Target, UploadId},
};

impl Uploads {
    /// Stores the first chunk of an upload that does not exist yet. Losers of a race discard what they wrote and
    /// store their chunk with the winner.
    pub(super) async fn put_first(
        &self,
        caller: &Caller,
        target: Option<&Target>,
        file_name: &FileName,
        chunk: NewChunk,
        source: Source<'_>,
    ) -> Result<StoredChunk> {
        self.authorize(caller, Action::Create, Subject::New { target, file_name })
            .await?;
        let plan = self.first_plan(&chunk)?;
        // All of it first: its length decides where it goes, and a loser of the race needs it twice.
        let mut source = Source::Held(self.held(source, &chunk).await?);
        let Source::Held(held) = &source else {
            return Err(Error::internal("A chunk was not held"));
        };
        let len = held.len();
        check_len(&plan, chunk.index, len, self.inner.config.max_chunk)?;
        for attempt in 0..super::CONTENTION {
            let wanted = Wanted {
                file_name: file_name.clone(),
                target: target.cloned(),
                named: true,
                protocol: Protocol::Chunk,
                metadata: BTreeMap::new(),
                checksum: None,
                key: None,
                plan: plan.clone(),
                notes: BTreeMap::new(),
                seals_itself: false,
                wanted_digest: None,
                concat: None,
            };
            let (record, creating) = self.draft(caller, &wanted, attempt > 0).await?;
            let guard = self.guard(&record, &chunk, len)?;
            let stored = guard.apply(&record, Tally::default()).unwrap_or(record);
            let handle = self.inner.blobs.begin(stored.id, &stored.key, &stored.plan).await?;
            let record = Record { handle, ..stored };
            let turn = self.inner.live.take_over(Spot::Chunk(record.id, chunk.index)).await?;
            // Nobody else knows this handle: the chunk may go in place before its record exists.
            let slot = self.slot(&record.plan, &chunk, &source);
            let taken = match self.inner.blobs.open(&record.handle, slot).await {
                Ok(writer) => {
                    self.take_in(writer, &record.plan, &chunk, &mut source, slot, &turn)
                        .await
                }
                Err(error) => Err(error),
            };
            let intake = match taken {
                Ok(intake) => intake,
                Err(error) => {
                    self.discard_unrecorded(&record.handle, creating).await;
                    return Err(error);
                }
            };
            let first = self.clone().settle_first(intake, record, chunk.index, creating);
            match self.inner.tasks.see_through(first).await? {
                First::Stored(stored) => return Ok(stored),
                First::Again => {}
                First::Joins(existing) => {
                    let snapshot = self.load(existing, PartRange::one(chunk.index)).await?;
                    self.authorize(caller, Action::Write, Subject::Upload(&snapshot.record))
                        .await?;
                    return self.put_existing(snapshot, &chunk, source).await;
                }
            }
        }
        Err(contended())
    }

    /// The shape of an upload as its first chunk tells it.
    fn first_plan(&self, chunk: &NewChunk) -> Result<Plan> {
        let total = chunk.total.unwrap_or(0);
        let max = self.inner.config.max_chunks.min(self.inner.limits.max_parts);
        if total == 0 {
            return Err(Error::invalid("totalChunks", "There must be one chunk at least"));
        }
        if total > max {
            return Err(Error::too_large(
                format!("There may be {max} chunks at most; send larger ones"),
                max.into(),
            ));
        }
        if let Some(size) = chunk.file_size {
            self.check_size(size)?;
        }
        let size = chunk.file_size.filter(|_| total == 1);
        let plan = Plan::indexed(total, None, size);
        chunk.check(&plan, self.inner.config.max_chunk)?;
        Ok(plan)
    }

    async fn settle_first(self, intake: Intake, record: Record, index: u32, creating: Creating) -> Result<First> {
        let (len, crc64) = (intake.len(), intake.crc64());
        let receipt = match intake.finish().await {
            Ok(receipt) => receipt,
            Err(error) => {
                self.discard_unrecorded(&record.handle, creating).await;
                return Err(error);
            }
        };
        let part = Part::new(index, len, crc64, receipt);
        let parts = std::slice::from_ref(&part);
        match self
            .inner
            .metadata
            .create(&record, parts, &self.inner.config.quota, wake(&record))
            .await?
        {
            Created::New(record) => {
                observe::created(&record);
                self.events_pending(&record);
                Ok(First::Stored(stored_chunk(
                    &record,
                    index,
                    Tally::default().with(parts, &[]),
                )))
            }
            refused => {
                self.discard_unrecorded(&record.handle, creating).await;
                match refused {
                    Created::NameTaken(existing) => Ok(First::Joins(existing.id)),
                    Created::OverQuota(bound) => Err(over_quota(bound)),
                    _ => Ok(First::Again),
                }
            }
        }
    }
}

/// How the attempt at a first chunk ended.
enum First {
    Stored(StoredChunk),
    Joins(UploadId),
    Again,
}
