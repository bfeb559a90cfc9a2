//! Telling the hooks: what waits in a record's outbox, to each its own, in order, until it is heard or given up.

mod hold;

use std::{
    collections::BTreeSet,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::join_all};
use tokio::time::Instant;
use tracing::Instrument as _;

use self::hold::StoreTime;
use super::{CONTENTION, Uploads, assemble::backoff, contended, live::Spot, tasks::shutting_down};
use crate::{
    blob::BlobStore,
    error::{Error, ErrorKind, Result},
    hook::Hook,
    metadata::{Lookup, Page, PartRange, PartsEdit},
    observe,
    upload::{DeadLetter, Event, EventId, EventKind, Outcome, Progress, Record, State, UploadId, Wake},
};

/// How long events wait for this process to tell them before another one does.
pub(super) const RETELL: Duration = Duration::from_secs(10);
/// How often it is written down how far a hook is.
const PACE: Duration = Duration::from_secs(2);
/// The most that a hook may note, in bytes.
const MAX_NOTES: usize = 16 << 10;
const PAGE: usize = 256;

/// One event being told to one hook. All clones are one.
#[derive(Clone)]
pub struct Telling {
    pub(super) uploads: Uploads,
    pub(super) id: UploadId,
    hook: String,
    attempt: Arc<Mutex<u32>>,
    progress: Arc<Mutex<Option<Progress>>>,
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling")
            .field("id", &self.id)
            .field("hook", &self.hook)
            .finish_non_exhaustive()
    }
}

impl Telling {
    /// How often this event was told to this hook before, without being heard.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        *lock(&self.attempt)
    }

    /// Says how far the hook is; shown in the upload's status if the hook [works](Hook::works).
    pub fn progress(&self, progress: Progress) {
        *lock(&self.progress) = Some(progress);
    }

    /// Keeps `value` with the upload, durably on return: where something lies that the hook made, say. An empty one is removed.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) past 16 KiB in all; [`NotFound`](ErrorKind::NotFound) if the upload was forgotten; those of
    /// the metadata store.
    pub async fn note(&self, key: &str, value: &str) -> Result<()> {
        for _ in 0..CONTENTION {
            let mut next = self.record().await?.ok_or_else(Error::not_found)?;
            let notes = &mut next.deliveries.entry(self.hook.clone()).or_default().notes;
            if notes.get(key).map_or("", String::as_str) == value {
                return Ok(());
            }
            if value.is_empty() {
                notes.remove(key);
            } else {
                notes.insert(key.to_owned(), value.to_owned());
            }
            let len = |notes: &std::collections::BTreeMap<String, String>| {
                notes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
            };
            if len(notes) > MAX_NOTES {
                let message = format!("A hook may note {MAX_NOTES} bytes at most");
                return Err(Error::too_large(message, MAX_NOTES as u64));
            }
            if self.uploads.update(&next, PartsEdit::Keep, Wake::Keep).await?.is_some() {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// The upload as it is recorded now; `None` if it was forgotten.
    ///
    /// # Errors
    /// Those of the metadata store.
    pub async fn record(&self) -> Result<Option<Record>> {
        let found = self
            .uploads
            .inner
            .metadata
            .load(Lookup::Id(self.id), PartRange::NONE)
            .await?;
        Ok(found.map(|snapshot| snapshot.record))
    }

    /// Where bytes lie: to read the blob under the event's key, or to put others beside it.
    #[must_use]
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.uploads.inner.blobs
    }

    fn to_write_down(&self) -> Option<(&str, Progress)> {
        let progress = *lock(&self.progress);
        progress.map(|progress| (self.hook.as_str(), progress))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uploads {
    /// Tells the hooks what waits in a record's outbox, now and in the background.
    pub(super) fn events_pending(&self, record: &Record) {
        if record.outbox.is_empty() {
            return;
        }
        let (uploads, id) = (self.clone(), record.id);
        let tell = async move {
            if let Err(error) = uploads.tell(id).await {
                tracing::warn!(%error, "events are told again later");
            }
        };
        // A hook may work for hours: no part of the request that it goes back to.
        let span = tracing::info_span!(parent: None, "tell", %id);
        drop(self.inner.tasks.spawn(tell.instrument(span)));
    }

    /// Tells each hook the events of one upload that it was not told yet.
    async fn tell(&self, id: UploadId) -> Result<()> {
        let _turn = self.inner.live.queue(Spot::Outbox(id)).await;
        let time = StoreTime::default();
        let Some(record) = self.to_tell(id, &time).await? else {
            return Ok(());
        };
        let owed: BTreeSet<&String> = record.outbox.iter().flat_map(|outgoing| &outgoing.owed).collect();
        let hooks = self.inner.config.hooks.iter();
        let tellings: Vec<_> = hooks
            .filter(|hook| owed.iter().any(|owed| *owed == hook.name()) && !time.holds(&record, hook.name()))
            .map(|hook| {
                let telling = Telling {
                    uploads: self.clone(),
                    id,
                    hook: hook.name().to_owned(),
                    attempt: Arc::default(),
                    progress: Arc::default(),
                };
                (hook, telling)
            })
            .collect();
        let telling = join_all(
            tellings
                .iter()
                .map(|(hook, telling)| self.tell_one(hook.as_ref(), telling, &time)),
        );
        let told = tokio::select! {
            biased;
            told = telling => told,
            () = self.keep_away(id, &tellings) => return Ok(()),
        };
        let result = told.into_iter().collect::<Result<()>>();
        self.tell_later(id, &time).await?;
        result
    }

    /// The record, if anything waits in its outbox; of an older release's events it is noted whose they are. Where
    /// a hook is left alone, asks what time it is.
    async fn to_tell(&self, id: UploadId, time: &StoreTime) -> Result<Option<Record>> {
        for _ in 0..CONTENTION {
            let found = self.inner.metadata.load(Lookup::Id(id), PartRange::NONE).await?;
            let Some(record) = found
                .map(|snapshot| snapshot.record)
                .filter(|record| !record.outbox.is_empty())
            else {
                return Ok(None);
            };
            if record.outbox.iter().all(|outgoing| !outgoing.owed.is_empty()) {
                if record.deliveries.values().all(|delivery| delivery.not_before.is_none()) {
                    return Ok(Some(record));
                }
                if let Some(record) = self.ask_time(&record, time).await? {
                    return Ok(Some(record));
                }
                continue;
            }
            let mut next = record;
            for outgoing in next.outbox.iter_mut().filter(|outgoing| outgoing.owed.is_empty()) {
                outgoing.owed = self.inner.config.hooks_for(outgoing.event.kind, None);
            }
            next.outbox.retain(|outgoing| !outgoing.owed.is_empty());
            let wake = self.told_wake(&next);
            self.update(&next, PartsEdit::Keep, wake).await?;
        }
        Err(contended())
    }

    /// Tells one hook, until there is nothing more for it or it fails.
    async fn tell_one(&self, hook: &dyn Hook, telling: &Telling, time: &StoreTime) -> Result<()> {
        loop {
            let Some(record) = telling.record().await? else {
                return Ok(());
            };
            let mut outbox = record.outbox.iter();
            let Some(outgoing) = outbox.find(|outgoing| outgoing.owed.iter().any(|owed| owed == hook.name())) else {
                return Ok(());
            };
            let event = outgoing.event.clone();
            *lock(&telling.attempt) = record
                .deliveries
                .get(hook.name())
                .map_or(0, |delivery| delivery.attempts);
            if hook.works() && !self.note_running(hook, &event, record).await? {
                continue;
            }
            let began = std::time::Instant::now();
            let span = tracing::info_span!("hook", name = hook.name(), event = %event.id, kind = %event.kind);
            let told = AssertUnwindSafe(hook.on_event(&event, telling).instrument(span)).catch_unwind();
            let told = tokio::select! {
                biased;
                () = self.inner.tasks.closing(), if hook.works() => return Err(shutting_down()),
                told = tokio::time::timeout(hook.time_limit(), told) => told,
            };
            let told = match told {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(Error::internal("The hook panicked")),
                Err(_) => Err(Error::unavailable("The hook took longer than it may")),
            };
            observe::told(hook.name(), began, told.as_ref().copied());
            let failed = told.as_ref().err().map(ToString::to_string);
            if !self.settle_event(hook, &event, told, time).await? {
                let reason = failed.unwrap_or_default();
                return Err(Error::unavailable(format!("The hook {:?}: {reason}", hook.name())));
            }
        }
    }

    /// Notes that a hook is at work; `false` if the record changed meanwhile.
    async fn note_running(&self, hook: &dyn Hook, event: &Event, mut next: Record) -> Result<bool> {
        if event.kind.is_of_hook() {
            return Ok(true);
        }
        let delivery = next.deliveries.entry(hook.name().to_owned()).or_default();
        if delivery.outcome == Some(Outcome::Running) {
            return Ok(true);
        }
        delivery.outcome = Some(Outcome::Running);
        Ok(self.update(&next, PartsEdit::Keep, Wake::Keep).await?.is_some())
    }

    /// Writes down what came of telling a hook an event; whether it is to be told the next one.
    async fn settle_event(&self, hook: &dyn Hook, event: &Event, told: Result<()>, time: &StoreTime) -> Result<bool> {
        let name = hook.name();
        let hold = told.as_ref().err().and_then(hold::asked);
        for _ in 0..CONTENTION {
            let found = self
                .inner
                .metadata
                .load(Lookup::Id(event.upload_id()), PartRange::NONE)
                .await?;
            let Some(snapshot) = found else { return Ok(true) };
            let mut next = snapshot.record;
            if hold.is_some() && time.now().is_none() {
                self.ask_time(&next, time).await?;
                continue;
            }
            let owes = |outgoing: &&mut crate::upload::Outgoing| {
                outgoing.event.id == event.id && outgoing.owed.iter().any(|owed| owed == name)
            };
            let Some(outgoing) = next.outbox.iter_mut().find(owes) else {
                return Ok(true);
            };
            let mut delivery = next.deliveries.remove(name).unwrap_or_default();
            delivery.not_before = None;
            let given_up = match &told {
                Ok(()) => None,
                Err(error) => {
                    delivery.attempts = delivery.attempts.saturating_add(1);
                    delivery.error = Some(error.to_string());
                    let is_final = matches!(
                        error.kind(),
                        ErrorKind::Invalid | ErrorKind::Forbidden | ErrorKind::Failed
                    );
                    if !is_final && delivery.attempts < self.inner.config.hook_attempts {
                        let hold = hold.map(|hold| hold.max(backoff(delivery.attempts)));
                        delivery.not_before = time.now().zip(hold).map(|(now, hold)| now.after(hold));
                        next.deliveries.insert(name.to_owned(), delivery);
                        if self.update(&next, PartsEdit::Keep, Wake::Keep).await?.is_some() {
                            return Ok(false);
                        }
                        continue;
                    }
                    Some(error.to_string())
                }
            };
            outgoing.owed.retain(|owed| owed != name);
            let (kind, outcome) = match given_up {
                None => (EventKind::HookFinished, Outcome::Finished),
                Some(error) => {
                    next.dead_letters.push(DeadLetter {
                        hook: name.to_owned(),
                        event: event.clone(),
                        attempts: delivery.attempts,
                        error,
                    });
                    (EventKind::HookFailed, Outcome::Failed)
                }
            };
            delivery.attempts = 0;
            delivery.progress = None;
            if outcome == Outcome::Finished {
                delivery.error = None;
            }
            let is_news = !event.kind.is_of_hook() && (hook.works() || outcome == Outcome::Failed);
            if hook.works() && !event.kind.is_of_hook() {
                delivery.outcome = Some(outcome);
            }
            if delivery != crate::upload::Delivery::default() && (hook.works() || !delivery.notes.is_empty()) {
                next.deliveries.insert(name.to_owned(), delivery);
            }
            let owed = self.inner.config.hooks_for(kind, Some(name));
            if is_news && !owed.is_empty() {
                next.push_event_of(kind, Some(name), owed);
            }
            next.outbox.retain(|outgoing| !outgoing.owed.is_empty());
            let wake = self.told_wake(&next);
            if let Some(changed) = self.update(&next, PartsEdit::Keep, wake).await? {
                let letter = changed.dead_letters.last().filter(|_| outcome == Outcome::Failed);
                letter.into_iter().for_each(observe::dead_letter);
                if is_news {
                    // Those who are told of it may have heard all else, and be done.
                    self.events_pending(&changed);
                }
                return Ok(true);
            }
        }
        Err(contended())
    }

    /// When the driver looks at a record next of which something was told.
    fn told_wake(&self, record: &Record) -> Wake {
        match (record.outbox.is_empty(), record.state) {
            (true, State::Open) => Wake::AtExpiry,
            (true, State::Assembling) | (false, _) => Wake::Keep,
            // It waited for this with its derived files.
            (true, state) if !state.is_live() && record.staged && record.derived.is_some() => {
                Wake::After(Duration::ZERO)
            }
            (true, _) => self.end_wake(record),
        }
    }

    /// Keeps other processes away while hooks are told, and writes down how far they are.
    async fn keep_away(&self, id: UploadId, tellings: &[(&Arc<dyn Hook>, Telling)]) {
        let works = tellings.iter().any(|(hook, _)| hook.works());
        let lease = self.inner.config.lease;
        let (mut wait, mut since) = (RETELL / 2, Instant::now());
        let mut written = Vec::new();
        loop {
            tokio::time::sleep(if works { PACE.min(wait) } else { wait }).await;
            let progress: Vec<_> = tellings
                .iter()
                .filter_map(|(_, telling)| telling.to_write_down())
                .collect();
            if progress == written && since.elapsed() < wait {
                continue;
            }
            // What does not succeed is done again the next time; at worst another process tells it too.
            let Ok(Some(snapshot)) = self.inner.metadata.load(Lookup::Id(id), PartRange::NONE).await else {
                continue;
            };
            let mut next = snapshot.record;
            // All is told: what was written down of when to look at it next stays.
            if next.outbox.is_empty() {
                continue;
            }
            for (hook, progress) in &progress {
                if let Some(delivery) = next.deliveries.get_mut(*hook) {
                    delivery.progress = Some(*progress);
                }
            }
            if let Ok(Some(_)) = self.update(&next, PartsEdit::Keep, Wake::After(lease)).await {
                (written, wait, since) = (progress, lease / 3, Instant::now());
            }
        }
    }

    /// What is left in the outbox is told later; what is owed to hooks that there are no more is given up some day.
    async fn tell_later(&self, id: UploadId, time: &StoreTime) -> Result<()> {
        for _ in 0..CONTENTION {
            let found = self.inner.metadata.load(Lookup::Id(id), PartRange::NONE).await?;
            let Some(mut next) = found
                .map(|snapshot| snapshot.record)
                .filter(|record| !record.outbox.is_empty())
            else {
                return Ok(());
            };
            let names: BTreeSet<String> = next.outbox.iter().flat_map(|outgoing| outgoing.owed.clone()).collect();
            let letters = next.dead_letters.len();
            let is_here = |name: &str| self.inner.config.hooks.iter().any(|hook| hook.name() == name);
            for name in names.iter().filter(|name| !is_here(name)) {
                let delivery = next.deliveries.entry(name.clone()).or_default();
                delivery.attempts = delivery.attempts.saturating_add(1);
                delivery.error = Some("No hook of this name runs here".to_owned());
                if delivery.attempts < self.inner.config.hook_attempts {
                    continue;
                }
                let attempts = delivery.attempts;
                next.deliveries.remove(name);
                for outgoing in next.outbox.iter_mut().filter(|outgoing| outgoing.owed.contains(name)) {
                    outgoing.owed.retain(|owed| owed != name);
                    next.dead_letters.push(DeadLetter {
                        hook: name.clone(),
                        event: outgoing.event.clone(),
                        attempts,
                        error: "No hook of this name runs here".to_owned(),
                    });
                }
            }
            next.outbox.retain(|outgoing| !outgoing.owed.is_empty());
            let owed: BTreeSet<&String> = next.outbox.iter().flat_map(|outgoing| &outgoing.owed).collect();
            let waits = owed.iter().map(|name| match next.deliveries.get(*name) {
                Some(delivery) if delivery.attempts > 0 => {
                    backoff(delivery.attempts).max(self.hold_wait(&next, time.left(delivery)))
                }
                _ => RETELL,
            });
            let wake = waits.min().map_or_else(|| self.told_wake(&next), Wake::After);
            if let Some(changed) = self.update(&next, PartsEdit::Keep, wake).await? {
                changed.dead_letters.iter().skip(letters).for_each(observe::dead_letter);
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Every event that was told to a hook in vain, of all uploads that are remembered: for a person to look at, and to
    /// [tell again](Self::retry_dead_letter) or [forget](Self::forget_dead_letter). Reads all records.
    ///
    /// # Errors
    /// Those of the metadata store.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        let _working = self.inner.tasks.begin()?;
        let mut letters = Vec::new();
        let mut skip = 0;
        loop {
            let page = self.inner.metadata.list(None, Page::new(skip, PAGE)).await?;
            skip += page.len();
            let is_last = page.len() < PAGE;
            letters.extend(page.into_iter().flat_map(|snapshot| snapshot.record.dead_letters));
            if is_last {
                return Ok(letters);
            }
        }
    }

    /// Has a dead letter told again, from the start. `false` if there is none.
    ///
    /// # Errors
    /// Those of the metadata store.
    pub async fn retry_dead_letter(&self, event: EventId, hook: &str) -> Result<bool> {
        self.edit_dead_letter(event, hook, true).await
    }

    /// Forgets a dead letter. `false` if there is none.
    ///
    /// # Errors
    /// Those of the metadata store.
    pub async fn forget_dead_letter(&self, event: EventId, hook: &str) -> Result<bool> {
        self.edit_dead_letter(event, hook, false).await
    }

    async fn edit_dead_letter(&self, event: EventId, hook: &str, again: bool) -> Result<bool> {
        let _working = self.inner.tasks.begin()?;
        for _ in 0..CONTENTION {
            let found = self
                .inner
                .metadata
                .load(Lookup::Id(event.upload_id()), PartRange::NONE)
                .await?;
            let Some(mut next) = found.map(|snapshot| snapshot.record) else {
                return Ok(false);
            };
            let Some(at) = next.dead_letters.iter().position(|letter| letter.is(event, hook)) else {
                return Ok(false);
            };
            let letter = next.dead_letters.remove(at);
            if again {
                next.owe(letter.event, letter.hook);
            }
            let wake = match next.state {
                State::Open | State::Assembling if again => Wake::After(Duration::ZERO),
                State::Open | State::Assembling => Wake::Keep,
                _ => self.end_wake(&next),
            };
            if let Some(changed) = self.update(&next, PartsEdit::Keep, wake).await? {
                self.events_pending(&changed);
                return Ok(true);
            }
        }
        Err(contended())
    }
}
