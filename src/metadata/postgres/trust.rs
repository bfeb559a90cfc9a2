use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long a connection may be idle before it is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(5);

/// So long after one broke no other is trusted: a server does not end all of them at one moment.
const GRACE: Duration = Duration::from_secs(1);

/// Whether an idle connection may be used unasked. Where one broke the others have probably broken too: a server that was
/// restarted then costs one call its answer, and not one for each connection.
#[derive(Debug)]
pub(super) struct Trust {
    began: Instant,
    /// In milliseconds since `began`.
    lost_at: AtomicU64,
}

impl Trust {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            lost_at: AtomicU64::new(0),
        }
    }

    /// A connection broke.
    pub(super) fn lose(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.lost_at.fetch_max(now, Ordering::Relaxed);
    }

    /// Whether a connection may be used that was last at rest `idle` ago.
    pub(super) fn covers(&self, idle: Duration) -> bool {
        let lost_at = Duration::from_millis(self.lost_at.load(Ordering::Relaxed));
        let rested_at = self.began.elapsed().saturating_sub(idle);
        idle <= IDLE && (lost_at.is_zero() || rested_at > lost_at + GRACE)
    }
}
