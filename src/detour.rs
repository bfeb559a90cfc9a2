//! Short work is done where it is asked for, without a switch to another thread, as long as it is short.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Says whether to do short work here, or by a detour: on a thread that may block.
#[derive(Debug)]
pub(crate) struct Detour {
    since: Instant,
    /// In milliseconds since then.
    until: AtomicU64,
}

impl Detour {
    /// How long a detour is taken once something was not short.
    pub(crate) const TIME: Duration = Duration::from_millis(250);

    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn is_on(&self) -> bool {
        self.now() < self.until.load(Ordering::Relaxed)
    }

    /// Takes the detour from now on, for a while.
    pub(crate) fn begin(&self) {
        let time = u64::try_from(Self::TIME.as_millis()).unwrap_or(u64::MAX);
        self.until.store(self.now().saturating_add(time), Ordering::Relaxed);
    }
}
