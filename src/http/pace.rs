//! How fast a body must come.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use crate::error::{Error, ErrorKind, Result};

/// How fast a body must come at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MinimumRate {
    pub(super) bytes_per_second: u64,
    pub(super) window: Duration,
}

impl MinimumRate {
    pub(super) const DEFAULT: Self = Self {
        bytes_per_second: 1024,
        window: Duration::from_secs(30),
    };

    /// Whether this many bytes are enough for that much waiting.
    fn is_met(self, bytes: u64, waited: Duration) -> bool {
        u128::from(bytes) * 1000 >= u128::from(self.bytes_per_second) * waited.as_millis()
    }
}

/// Measures a body in windows of waiting for the client. The time that the store takes does not count.
pub(super) struct Pace {
    rate: MinimumRate,
    waited: Duration,
    waiting_since: Option<Instant>,
    bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(super) fn new(rate: MinimumRate) -> Option<Self> {
        (rate.bytes_per_second > 0 && !rate.window.is_zero()).then_some(Self {
            rate,
            waited: Duration::ZERO,
            waiting_since: None,
            bytes: 0,
            timer: None,
        })
    }

    /// The client has sent nothing more: ready with an error once it was too slow for a window.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            let now = Instant::now();
            let since = *self.waiting_since.get_or_insert(now);
            let window = self.rate.window;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(window)));
            ready!(timer.as_mut().poll(cx));
            self.waited += now.saturating_duration_since(since);
            self.waiting_since = Some(now);
            let left = window.saturating_sub(self.waited);
            if left.is_zero() {
                if let Err(error) = self.close_window() {
                    return Poll::Ready(error);
                }
                timer_at(&mut self.timer, now + window);
            } else {
                timer_at(&mut self.timer, now + left);
            }
        }
    }

    pub(super) fn received(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes as u64;
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        if self.waited < self.rate.window {
            Ok(())
        } else {
            self.close_window()
        }
    }

    fn close_window(&mut self) -> Result<()> {
        if !self.rate.is_met(self.bytes, self.waited) {
            let message = format!(
                "The body comes slower than {} bytes a second",
                self.rate.bytes_per_second
            );
            return Err(Error::new(ErrorKind::TooSlow, message));
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        Ok(())
    }
}

fn timer_at(timer: &mut Option<Pin<Box<Sleep>>>, deadline: Instant) {
    if let Some(timer) = timer {
        timer.as_mut().reset(deadline);
    }
}
