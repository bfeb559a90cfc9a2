//! Leaving a hook alone for as long as it asked, by [`Error::retry_after`]. Until when is written down with its delivery, so that
//! neither a restart, nor another node, nor a new event of the upload tells it earlier.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    engine::Uploads,
    error::{Error, Result},
    metadata::PartsEdit,
    upload::{Delivery, Record, State, Timestamp, Wake},
};

/// The longest that a hook is left alone for at a time.
const LONGEST: Duration = Duration::from_secs(3600);
/// What [`Error::unavailable`] says by itself, and the back-off waits in any case.
const LEAST: Duration = Duration::from_secs(1);

/// How long the hook that failed with `error` is to be left alone, if it asks for more than the back-off's least.
pub(super) fn asked(error: &Error) -> Option<Duration> {
    let wait = error.retry_after().filter(|wait| *wait > LEAST)?;
    Some(wait.min(LONGEST))
}

/// What the store's clock says during one telling, once it was asked.
#[derive(Debug, Default)]
pub(super) struct StoreTime(Mutex<Option<(Timestamp, Instant)>>);

impl StoreTime {
    pub(super) fn now(&self) -> Option<Timestamp> {
        let asked = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.map(|(said, at)| said.after(at.elapsed()))
    }

    /// How long this delivery waits yet. One whose wait is over, and any while the clock was not asked, does not.
    pub(super) fn left(&self, delivery: &Delivery) -> Duration {
        match (delivery.not_before, self.now()) {
            // More than was ever asked for: a clock was ahead when it was written.
            (Some(not_before), Some(now)) => Some(not_before.since(now))
                .filter(|left| *left <= 2 * LONGEST)
                .unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

impl Uploads {
    /// Asks the store's clock, which sets times when it writes a record; other processes keep away meanwhile. `None` if the record
    /// changed.
    pub(super) async fn ask_time(&self, record: &Record, time: &StoreTime) -> Result<Option<Record>> {
        let lease = self.inner.config.lease;
        let Some(asked) = self.update(record, PartsEdit::Keep, Wake::After(lease)).await? else {
            return Ok(None);
        };
        // An upload that expires within the lease is due then: its hooks are left alone for that much less.
        let due = asked.due_at.unwrap_or_default().as_millis();
        let now = Timestamp::from_millis(due.saturating_sub(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)));
        *time.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Instant::now()));
        Ok(Some(asked))
    }

    /// When the driver looks again at an upload with a hook that is left alone: it may have more to do there than to tell.
    pub(super) fn hold_wait(&self, record: &Record, left: Duration) -> Duration {
        let waits_for_more = match record.state {
            State::Open => record.joins().is_some(),
            State::Assembling => true,
            State::Assembled => false,
            _ => record.staged || record.key_held,
        };
        if waits_for_more {
            left.min(self.inner.config.lease)
        } else {
            left
        }
    }
}
