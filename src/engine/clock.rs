use std::{
    fmt,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::upload::Timestamp;

/// Tells the time: a store's own, by which uploads expire.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock, read once; from then on time passes as the monotonic clock says, so that a
/// wall clock that is put forward while the process runs expires nothing early.
///
/// It stays as wrong as it was when it was read, and stands still while the machine sleeps, so what another process reads next may lie
/// far from it: a store that outlives the process must expect that.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    began: Timestamp,
    instant: Instant,
}

impl SystemClock {
    /// Reads the wall clock.
    #[must_use]
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            began: Timestamp::default().after(since),
            instant: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.began.after(self.instant.elapsed())
    }
}
