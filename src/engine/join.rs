//! Joining: the bytes of partial uploads are put one behind the other into the upload that they make.
//!
//! It goes on from what is committed, so that a process that dies costs one step. How far that is in the list follows
//! from the sizes of the partial uploads, which change no more.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::{
    CONTENTION, Upload, Uploads,
    append::last_of,
    assemble::combined,
    concat::{AT_ONCE, Partial, distinct},
    conclude::backoff,
    contended, ended, ended_or_sealed,
    live::{Spot, Turn, superseded},
    tasks::shutting_down,
    verify::Verdict,
};
use crate::{
    blob::{Before, Joined, Slot},
    error::{Error, ErrorKind, Result},
    metadata::{Committed, Guard, Lookup, PartRange, PartsEdit},
    planted::{Bug, planted},
    upload::{EventKind, Handle, Part, Receipt, Record, State, Timestamp, UploadId, Wake},
};

/// When the driver first looks at an upload that waits for its partial ones.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// The longest it waits between two looks.
const LATEST: Duration = Duration::from_secs(60);

impl Uploads {
    /// Joins the partial uploads and publishes what they make, as a task of its own. `now`: what the metadata store's clock
    /// says, if it is known.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if one is not complete yet; [`Failed`](ErrorKind::Failed), [`Gone`](ErrorKind::Gone);
    /// what is transient, and then it is tried again by itself.
    pub(super) async fn join_and_publish(&self, id: UploadId, now: Option<Timestamp>) -> Result<Upload> {
        let turn = self.inner.live.queue_below(Spot::End(id)).await;
        match self.join_in_turn(id, now, turn).await? {
            Reached::Sealed => self.finish(id).await,
            Reached::Waiting => Err(Error::new(
                ErrorKind::Conflict,
                "A partial upload that this one is made of is not finished; send the rest of it first",
            )),
        }
    }

    /// The same by the driver, unless this process is at it already.
    pub(super) async fn drive_join(&self, id: UploadId, now: Timestamp) -> Result<()> {
        let Some(turn) = self.inner.live.try_below(Spot::End(id)) else {
            return Ok(());
        };
        let reached = match self.join_in_turn(id, Some(now), turn).await {
            Ok(Reached::Sealed) => self.finish(id).await.map(drop),
            Ok(Reached::Waiting) => self.wait_for_partials(id).await,
            Err(error) => Err(error),
        };
        reached.or_else(|error| match error.kind() {
            // Definite: the record says so now.
            ErrorKind::Gone | ErrorKind::Failed => Ok(()),
            _ => Err(error),
        })
    }

    /// The same for a client that asks how far it is, who does not wait for it.
    pub(super) fn nudge(&self, record: &Record) {
        // On stores that many processes share another one may be at it, whom a new epoch would stop.
        let is_free = self.inner.limits.in_place || record.attempts > 0;
        if record.state != State::Open || !is_free {
            return;
        }
        if let Some(turn) = self.inner.live.try_below(Spot::End(record.id)) {
            let (uploads, id) = (self.clone(), record.id);
            drop(self.inner.tasks.spawn(async move {
                // What fails is tried again by the driver.
                match uploads.join_in_turn(id, None, turn).await {
                    Ok(Reached::Sealed) => drop(uploads.finish(id).await),
                    Ok(Reached::Waiting) => drop(uploads.step_back(id).await),
                    Err(_) => {}
                }
            }));
        }
    }

    async fn join_in_turn(&self, id: UploadId, now: Option<Timestamp>, turn: Turn) -> Result<Reached> {
        let uploads = self.clone();
        let work = async move {
            let found = uploads.load(id, PartRange::NONE).await?;
            match found.record.state {
                State::Open => {}
                State::Assembling | State::Assembled => return Ok(Reached::Sealed),
                _ => return Err(ended(&found.record)),
            }
            let mut joining = Joining {
                clock: now.map(|now| (now, Instant::now())),
                list: found.record.joins().unwrap_or_default().to_vec(),
                end: found.tally.bytes,
                parts: found.tally.parts,
                last: None,
                uploads: uploads.clone(),
                record: found.record,
                turn,
            };
            match joining.run().await {
                Ok(reached) => Ok(reached),
                Err(Verdict::Refused(reason)) => Err(uploads.fail(id, reason).await),
                Err(Verdict::Lost(_)) => Err(uploads.fail(id, "bytes that were stored are lost".into()).await),
                Err(Verdict::Later(error)) => Err(uploads.join_later(id, error).await),
            }
        };
        self.inner.tasks.see_through(work).await
    }

    /// Ends an upload that can never be joined.
    async fn fail(&self, id: UploadId, reason: String) -> Error {
        for _ in 0..CONTENTION {
            let mut next = match self.load(id, PartRange::NONE).await {
                Ok(found) if found.record.state == State::Open => found.record,
                Ok(found) => return ended_or_sealed(&found.record),
                Err(error) => return error,
            };
            next.state = State::Failed;
            next.failure = Some(reason.clone());
            next.key_held = false;
            self.push_event(&mut next, EventKind::Failed);
            let wake = self.end_wake(&next);
            match self.update(&next, PartsEdit::Clear, wake).await {
                Ok(Some(failed)) => {
                    self.after_end(&failed).await;
                    return ended(&failed);
                }
                Ok(None) => {}
                Err(error) => return error,
            }
        }
        contended()
    }

    /// Notes that a store failed; the driver tries again, later each time.
    async fn join_later(&self, id: UploadId, error: Error) -> Error {
        if matches!(error.kind(), ErrorKind::Superseded | ErrorKind::Gone) {
            return error;
        }
        tracing::warn!(%id, %error, "partial uploads could not be joined, which is tried again");
        // If it is not noted either, the driver comes by once the lease is over.
        let _ = self.wait_for_partials(id).await;
        error
    }

    /// After some of it was joined: nobody is at it any more, until there is more to join.
    async fn step_back(&self, id: UploadId) -> Result<()> {
        let record = self.load(id, PartRange::NONE).await?.record;
        if record.attempts == 0 {
            self.wait_for_partials(id).await?;
        }
        Ok(())
    }

    async fn wait_for_partials(&self, id: UploadId) -> Result<()> {
        let mut next = self.load(id, PartRange::NONE).await?.record;
        if next.state != State::Open {
            return Ok(());
        }
        next.attempts = next.attempts.saturating_add(1);
        // Often enough that what is complete does not expire meanwhile.
        let often = self.inner.config.expire_after.map_or(LATEST, |after| after / 4);
        let wait = backoff(next.attempts).min(LATEST).min(often);
        self.update(&next, PartsEdit::Keep, Wake::After(wait)).await?;
        Ok(())
    }
}

/// How far a joining got.
enum Reached {
    /// All is joined, and the upload is sealed.
    Sealed,
    /// A partial upload is not complete yet.
    Waiting,
}

/// One run at joining.
struct Joining {
    uploads: Uploads,
    record: Record,
    list: Vec<UploadId>,
    /// What the metadata store's clock said when.
    clock: Option<(Timestamp, Instant)>,
    /// End of what is committed, and how many parts that is.
    end: u64,
    parts: u32,
    /// The receipt of the last one, if the store has a use for it.
    last: Option<Receipt>,
    turn: Turn,
}

/// What is known of the partial uploads.
struct Survey {
    made: Instant,
    partials: HashMap<UploadId, Partial>,
    /// The size of all of them, once all are complete.
    total: Option<u64>,
}

impl Survey {
    /// How many bytes can be joined by now.
    fn reaches(&self, list: &[UploadId]) -> u64 {
        let complete = |id| self.partials.get(id).filter(|partial| partial.is_complete());
        let sizes = list.iter().map_while(complete).map(|partial| partial.bytes);
        sizes.fold(0, u64::saturating_add)
    }
}

impl Joining {
    async fn run(&mut self) -> Result<Reached, Verdict> {
        let mut survey = self.survey().await?;
        if survey.total != Some(self.end) && survey.reaches(&self.list) <= self.end {
            return Ok(Reached::Waiting);
        }
        self.own().await?;
        if survey.total == Some(self.end) {
            self.commit(Vec::new(), Some(self.end)).await?;
            return Ok(Reached::Sealed);
        }
        let mut start = 0;
        for id in self.list.clone() {
            let Some(partial) = survey.partials.get(&id).filter(|partial| partial.is_complete()) else {
                if planted(Bug::LostPartialSkipped) && !survey.partials.contains_key(&id) {
                    continue;
                }
                return Ok(Reached::Waiting);
            };
            let (handle, until) = (partial.handle.clone(), start + partial.bytes);
            if self.end < until {
                let found = self.uploads.load(id, PartRange::ALL).await?;
                if found.record.state != State::Open {
                    return Err(was(id, &found.record.state));
                }
                let mut parts = found.parts;
                parts.retain(|part| part.len > 0);
                let mut rest = after(&parts, self.end - start)
                    .ok_or_else(|| Verdict::Refused(format!("the partial upload {id} has other parts than before")))?;
                while !rest.is_empty() {
                    if survey.made.elapsed() >= self.uploads.inner.config.lease / 2 {
                        survey = self.survey().await?;
                        self.renew().await?;
                    }
                    let (group, others) = self.group(rest);
                    rest = others;
                    let part = self.join(id, &handle, group).await?;
                    let total = survey.total.filter(|total| *total == self.end + part.len);
                    self.commit(vec![part], total).await?;
                    if total.is_some() {
                        return Ok(Reached::Sealed);
                    }
                }
            }
            start = until;
        }
        // More is committed than they have, or parts are missing of what they had.
        Err(Verdict::Refused("the partial uploads have changed".into()))
    }

    /// Looks at all partial uploads, and lets those that are complete not expire.
    async fn survey(&self) -> Result<Survey, Verdict> {
        let made = Instant::now();
        let now = self.clock.map(|(then, at)| then.after(at.elapsed()));
        let look = stream::iter(distinct(&self.list)).map(async |id| {
            let by = Lookup::Id(id);
            let found = match self.uploads.inner.metadata.load(by, PartRange::NONE).await? {
                Some(found) if found.record.state == State::Open => found,
                _ if planted(Bug::LostPartialSkipped) => return Ok(None),
                Some(found) => return Err(was(id, &found.record.state)),
                None => return Err(was(id, &"forgotten")),
            };
            let slides = now.is_some_and(|now| found.record.slides(now));
            if slides && found.record.plan.size == Some(found.tally.bytes) {
                // Somebody else's change is looked at the next time.
                self.uploads
                    .update(&found.record, PartsEdit::Keep, Wake::AtExpiry)
                    .await?;
            }
            Ok::<_, Verdict>(Some((id, Partial::of(found))))
        });
        let found: Vec<_> = look.buffered(AT_ONCE).try_collect().await?;
        let partials: HashMap<UploadId, Partial> = found.into_iter().flatten().collect();
        let (mut sum, mut all_complete) = (0_u64, true);
        for partial in self.list.iter().filter_map(|id| partials.get(id)) {
            sum = sum.saturating_add(partial.size.unwrap_or(partial.bytes));
            all_complete &= partial.is_complete();
        }
        self.uploads
            .check_size(sum)
            .map_err(|error| Verdict::Refused(error.to_string()))?;
        Ok(Survey {
            made,
            partials,
            total: all_complete.then_some(sum),
        })
    }

    /// Makes this run the only one whose commits succeed, and goes on from what is committed then.
    async fn own(&mut self) -> Result<()> {
        self.record = self.uploads.own_end(self.record.clone()).await?;
        self.renew().await?;
        let tally = self.uploads.load(self.record.id, PartRange::NONE).await?.tally;
        (self.end, self.parts) = (tally.bytes, tally.parts);
        if !self.uploads.inner.limits.in_place {
            let found = self.uploads.load(self.record.id, last_of(self.parts)).await?;
            self.last = found.parts.into_iter().next_back().map(|part| part.receipt);
        }
        Ok(())
    }

    /// Keeps other processes away for another lease, where there may be any.
    async fn renew(&mut self) -> Result<()> {
        let inner = &self.uploads.inner;
        if inner.limits.in_place {
            return Ok(());
        }
        for _ in 0..CONTENTION {
            let now = self.uploads.load(self.record.id, PartRange::NONE).await?.record;
            if now.state != State::Open {
                return Err(ended_or_sealed(&now));
            }
            if now.epoch != self.record.epoch {
                return Err(superseded());
            }
            // None: somebody is at it.
            let next = Record { attempts: 0, ..now };
            let lease = Wake::After(inner.config.lease);
            if let Some(renewed) = self.uploads.update(&next, PartsEdit::Keep, lease).await? {
                self.record = renewed;
                return Ok(());
            }
        }
        Err(contended())
    }

    /// The parts that are joined in one step, and those behind them.
    fn group<'a>(&self, parts: &'a [Part]) -> (&'a [Part], &'a [Part]) {
        let inner = &self.uploads.inner;
        let most = inner.config.join_step.min(inner.limits.max_part);
        let mut len = 0_u64;
        let fits = parts.iter().take_while(|part| {
            len = len.saturating_add(part.len);
            len <= most
        });
        parts.split_at(fits.count().max(1))
    }

    /// Puts the bytes of `parts` at the end.
    async fn join(&self, id: UploadId, from: &Handle, parts: &[Part]) -> Result<Part, Verdict> {
        let inner = &self.uploads.inner;
        let max = inner.limits.max_parts;
        if self.parts >= max {
            return Err(Verdict::Refused(format!("it would have more than {max} parts")));
        }
        let len = parts.iter().map(|part| part.len).sum();
        let slot = Slot::at(self.parts, self.end, len);
        let joined = tokio::select! {
            biased;
            () = self.turn.superseded() => return Err(superseded().into()),
            () = inner.tasks.closing() => return Err(shutting_down().into()),
            joined = inner.blobs.join(&self.record.handle, slot, Before::committed(self.last.as_ref()), from, parts) => joined,
        };
        let joined = joined.map_err(|error| match error.kind() {
            // It will have as many bytes the next time.
            ErrorKind::TooLarge => Verdict::Refused(error.to_string()),
            _ => error.into(),
        })?;
        match joined {
            Joined::Done(receipt) => Ok(Part::new(self.parts, len, combined(parts), receipt)),
            Joined::PartsLost(lost) => Err(Verdict::Refused(format!(
                "parts {lost:?} of the partial upload {id} are lost"
            ))),
        }
    }

    /// Commits what was joined; with `total` it is all, and the upload is sealed.
    async fn commit(&mut self, parts: Vec<Part>, total: Option<u64>) -> Result<(), Verdict> {
        let inner = &self.uploads.inner;
        let mut guard = Guard::new(self.record.epoch);
        guard.end = Some(self.end);
        guard.quota = inner.config.quota;
        guard.size = total;
        guard.seal = total.map(|_| inner.config.lease);
        match inner.metadata.commit(self.record.id, &guard, &parts).await {
            Ok(Committed::Done(tally)) => {
                (self.end, self.parts) = (tally.bytes, tally.parts);
                if let Some(last) = parts.into_iter().next_back() {
                    self.last = Some(last.receipt);
                }
                inner.live.changed(self.record.id);
                Ok(())
            }
            Ok(Committed::Refused(now, _)) if now.state != State::Open => Err(ended_or_sealed(&now).into()),
            Ok(Committed::Refused(..) | Committed::Present(_)) => Err(superseded().into()),
            Ok(Committed::OverQuota(_)) => Err(Verdict::Refused("the quota of its owner is used up".into())),
            Ok(Committed::Unknown) => Err(Error::not_found().into()),
            Err(error) => {
                self.uploads.doubt();
                Err(error.into())
            }
        }
    }
}

fn was(id: UploadId, state: &dyn std::fmt::Display) -> Verdict {
    Verdict::Refused(format!("the partial upload {id} was {state}"))
}

/// The parts behind the first `bytes` bytes, if a part begins there.
fn after(parts: &[Part], bytes: u64) -> Option<&[Part]> {
    let mut end = 0;
    let mut ends = std::iter::once(0).chain(parts.iter().map(|part| {
        end += part.len;
        end
    }));
    ends.position(|end| end == bytes).map(|at| &parts[at..])
}
