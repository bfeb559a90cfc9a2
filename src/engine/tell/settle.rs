//! Writing down what came of telling a hook.

use std::time::Duration;

use super::hold::{self, StoreTime};
use crate::{
    engine::{CONTENTION, Uploads, conclude::backoff, contended},
    error::{Error, ErrorKind, Result},
    hook::Hook,
    metadata::{Lookup, PartRange, PartsEdit},
    observe,
    upload::{DeadLetter, Delivery, Event, EventKind, Outcome, Record, State, Wake},
};

/// A process that ends is seldom the hook's fault: who allows fewer attempts means those that failed.
const LEAST_INTERRUPTED: u32 = 5;

impl Uploads {
    /// Notes that a hook is at work, and counts it before it is: what ends the process with it would be told again for ever. `false` if
    /// the record changed meanwhile.
    pub(super) async fn note_begun(&self, hook: &dyn Hook, event: &Event, mut next: Record) -> Result<bool> {
        let delivery = next.deliveries.entry(hook.name().to_owned()).or_default();
        delivery.interrupted = delivery.interrupted.saturating_add(1);
        if !event.kind.is_of_hook() {
            delivery.outcome = Some(Outcome::Running);
        }
        Ok(self.update(&next, PartsEdit::Keep, Wake::Keep).await?.is_some())
    }

    /// Why a hook is not told once more, if it was too often and none of these came to an end.
    pub(super) fn interrupted(&self, delivery: &Delivery) -> Option<Error> {
        let most = self.inner.config.hook_attempts.max(LEAST_INTERRUPTED);
        let times = delivery.interrupted;
        let message = || format!("The process ended {times} times while the hook was at work");
        (times >= most).then(|| Error::new(ErrorKind::Failed, message()))
    }

    /// Writes down what came of telling a hook an event; how long to wait before it is told that again, if it is.
    pub(super) async fn settle_event(
        &self,
        hook: &dyn Hook,
        event: &Event,
        told: Result<()>,
        time: &StoreTime,
    ) -> Result<Option<Duration>> {
        let name = hook.name();
        let hold = told.as_ref().err().and_then(hold::asked);
        for _ in 0..CONTENTION {
            let found = self
                .inner
                .metadata
                .load(Lookup::Id(event.upload_id()), PartRange::NONE)
                .await?;
            let Some(snapshot) = found else { return Ok(None) };
            let mut next = snapshot.record;
            if hold.is_some() && time.now().is_none() {
                self.ask_time(&next, time).await?;
                continue;
            }
            let owes = |outgoing: &&mut crate::upload::Outgoing| {
                outgoing.event.id == event.id && outgoing.owed.iter().any(|owed| owed == name)
            };
            let Some(outgoing) = next.outbox.iter_mut().find(owes) else {
                return Ok(None);
            };
            let mut delivery = next.deliveries.remove(name).unwrap_or_default();
            delivery.not_before = None;
            let interrupted = std::mem::take(&mut delivery.interrupted);
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
                        let wait = backoff(delivery.attempts);
                        let hold = hold.map(|hold| hold.max(wait));
                        delivery.not_before = time.now().zip(hold).map(|(now, hold)| now.after(hold));
                        next.deliveries.insert(name.to_owned(), delivery);
                        if self.update(&next, PartsEdit::Keep, Wake::Keep).await?.is_some() {
                            return Ok(Some(hold.unwrap_or(wait)));
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
                        // Of those that came to no end, this was one or is counted by itself.
                        attempts: delivery.attempts.saturating_add(interrupted.saturating_sub(1)),
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
                return Ok(None);
            }
        }
        Err(contended())
    }

    /// When the driver looks at a record next of which something was told.
    pub(in crate::engine) fn told_wake(&self, record: &Record) -> Wake {
        match (record.outbox.is_empty(), record.state) {
            (true, State::Open) => Wake::AtExpiry,
            (true, State::Assembling) | (false, _) => Wake::Keep,
            (true, _) if record.cleaner.is_some() => Wake::Keep,
            // It waited for this with its derived files.
            (true, state) if !state.is_live() && record.staged && record.derived.is_some() => {
                Wake::After(Duration::ZERO)
            }
            (true, _) => self.end_wake(record),
        }
    }
}
