//! Telling the hooks: what waits in a record's outbox, to each its own, in order, until it is heard or given up.

mod hold;
mod letters;
mod settle;
mod telling;

use std::{collections::BTreeSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use tracing::Instrument as _;

pub use self::telling::Telling;

use self::{hold::StoreTime, telling::lock};
use super::{CONTENTION, Uploads, conclude::backoff, contended, live::Spot, tasks::shutting_down};
use crate::{
    error::{Error, Result},
    hook::Hook,
    metadata::{Lookup, PartRange, PartsEdit},
    observe,
    upload::{DeadLetter, Event, Record, UploadId, Wake},
};

/// How long events wait for this process to tell them before another one does.
pub(super) const RETELL: Duration = Duration::from_secs(10);
/// How often it is written down how far a hook is.
const PACE: Duration = Duration::from_secs(2);
/// Of how many uploads this process tells hooks at once: each may hold a connection of a webhook.
const TOLD: usize = 256;
/// Of how many at once it tells hooks that work: they may take hours, and the others of these uploads are told meanwhile.
const WORKED_ON: usize = 32;

/// What bounds how much is told at once. Whoever finds no place is not waited for: what is owed lies in the outbox, and the driver
/// comes by again, or another node's does.
#[derive(Debug)]
pub(super) struct Turns {
    told: Arc<Semaphore>,
    worked_on: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            told: Arc::new(Semaphore::new(TOLD)),
            worked_on: Arc::new(Semaphore::new(WORKED_ON)),
        }
    }
}

impl Turns {
    fn of(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        Arc::clone(places).try_acquire_owned().ok()
    }
}

impl Uploads {
    /// Tells the hooks what waits in a record's outbox, now and in the background.
    pub(super) fn events_pending(&self, record: &Record) {
        if record.outbox.is_empty() {
            return;
        }
        let Some(turn) = Turns::of(&self.inner.turns.told) else {
            return;
        };
        let (uploads, id) = (self.clone(), record.id);
        let tell = async move {
            let _turn = turn;
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
        let mut hooks: Vec<_> = hooks
            .filter(|hook| owed.iter().any(|owed| *owed == hook.name()))
            .collect();
        let works = hooks.iter().any(|hook| hook.works());
        let working = works.then(|| Turns::of(&self.inner.turns.worked_on)).flatten();
        if works && working.is_none() {
            hooks.retain(|hook| !hook.works());
            if hooks.is_empty() {
                return Ok(());
            }
        }
        let tellings: Vec<_> = hooks
            .into_iter()
            .map(|hook| {
                let telling = Telling {
                    uploads: self.clone(),
                    id,
                    hook: hook.name().to_owned(),
                    attempt: Arc::default(),
                    progress: Arc::default(),
                    superseded: Arc::default(),
                };
                (hook, telling)
            })
            .collect();
        let left = |hook: &Arc<dyn Hook>| {
            let delivery = record.deliveries.get(hook.name());
            delivery.map_or(Duration::ZERO, |delivery| time.left(delivery))
        };
        let at_once = tellings.iter().filter(|(hook, _)| left(hook).is_zero()).count();
        let under_way = watch::Sender::new(at_once);
        let telling = join_all(
            tellings
                .iter()
                .map(|(hook, telling)| self.tell_beside(hook.as_ref(), telling, &time, left(hook), &under_way)),
        );
        tokio::select! {
            biased;
            _ = telling => {}
            () = self.keep_away(id, &tellings) => return Ok(()),
        }
        if tellings.iter().any(|(_, telling)| telling.is_superseded()) {
            // That process looks after the others too, and its lease is not cut short.
            return Ok(());
        }
        self.tell_later(id, &time).await
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

    /// Tells one hook once `wait` is over, and again after each failure, beside others that take longer than that. Whoever
    /// waits when nobody is told any more is told another time. `under_way` counts who is told, from the start if there is no wait.
    async fn tell_beside(
        &self,
        hook: &dyn Hook,
        telling: &Telling,
        time: &StoreTime,
        mut wait: Duration,
        under_way: &watch::Sender<usize>,
    ) {
        loop {
            if !wait.is_zero() {
                let mut others = under_way.subscribe();
                tokio::select! {
                    biased;
                    () = self.inner.tasks.closing() => return,
                    _ = others.wait_for(|count| *count == 0) => return,
                    () = tokio::time::sleep(wait) => {}
                }
                under_way.send_modify(|count| *count += 1);
            }
            let told = self.tell_one(hook, telling, time).await;
            under_way.send_modify(|count| *count -= 1);
            let Err(error) = told else { return };
            tracing::warn!(%error, "events are told again later");
            wait = error.retry_after().unwrap_or(RETELL).max(backoff(1));
        }
    }

    /// Tells one hook, until there is nothing more for it or it fails: the error says when it is told again.
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
            let delivery = record.deliveries.get(hook.name());
            *lock(&telling.attempt) = delivery.map_or(0, |delivery| delivery.attempts);
            let told = if let Some(error) = delivery.and_then(|delivery| self.interrupted(delivery)) {
                Err(error)
            } else {
                if hook.works() && !self.note_begun(hook, &event, record).await? {
                    continue;
                }
                self.call(hook, &event, telling).await?
            };
            if told.is_err() && telling.is_superseded() {
                tracing::info!(
                    hook = hook.name(),
                    "another process has taken over what a hook was told"
                );
                return Ok(());
            }
            let failed = told.as_ref().err().map(ToString::to_string);
            if let Some(wait) = self.settle_event(hook, &event, told, time).await? {
                let reason = failed.unwrap_or_default();
                return Err(Error::unavailable(format!("The hook {:?}: {reason}", hook.name())).with_retry_after(wait));
            }
        }
    }

    /// What a hook says to an event. An error of its own if it is dropped because the process shuts down.
    async fn call(&self, hook: &dyn Hook, event: &Event, telling: &Telling) -> Result<Result<()>> {
        let began = std::time::Instant::now();
        let span = tracing::info_span!("hook", name = hook.name(), event = %event.id, kind = %event.kind);
        let told = AssertUnwindSafe(hook.on_event(event, telling).instrument(span)).catch_unwind();
        let told = tokio::select! {
            biased;
            () = self.inner.tasks.closing(), if hook.works() => {
                // If it is not taken back, it counts as if the process had died.
                if let Err(error) = telling.take_back().await {
                    tracing::debug!(%error, "an attempt that the shutdown ended is counted");
                }
                return Err(shutting_down());
            }
            told = tokio::time::timeout(hook.time_limit(), told) => told,
        };
        let told = match told {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::internal("The hook panicked")),
            Err(_) => Err(Error::unavailable("The hook took longer than it may")),
        };
        observe::told(hook.name(), began, told.as_ref().copied());
        Ok(told)
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
            let wake = match waits.min() {
                Some(wait) if next.cleaner.is_none() => Wake::After(wait),
                _ => self.told_wake(&next),
            };
            if let Some(changed) = self.update(&next, PartsEdit::Keep, wake).await? {
                changed.dead_letters.iter().skip(letters).for_each(observe::dead_letter);
                return Ok(());
            }
        }
        Err(contended())
    }
}
