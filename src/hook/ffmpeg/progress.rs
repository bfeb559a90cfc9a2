use std::time::Duration;

use tokio::time::Instant;

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The rendition that is being made.
    pub rendition: String,
    /// How many are finished.
    pub finished: u32,
    /// How many there will be.
    pub total: u32,
    /// Of the whole run, in percent. It never goes down. `None` while the source does not say how long it is.
    pub percent: Option<f64>,
    /// How long the rest will take, by how long it took until now.
    pub left: Option<Duration>,
}

/// How far a run is, by the [weights](super::ladder::Step::weight) of its steps.
#[derive(Debug)]
pub(super) struct Tally {
    /// Of all steps, and of those that are over.
    work: f64,
    done: f64,
    /// How many there will be of renditions, and how many are finished.
    total: u32,
    finished: u32,
    /// The furthest that was told, in percent.
    told: f64,
    begun: Instant,
}

impl Tally {
    pub(super) const fn new(begun: Instant) -> Self {
        Self {
            work: 0.0,
            done: 0.0,
            total: 0,
            finished: 0,
            told: 0.0,
            begun,
        }
    }

    /// What is to be done besides what is over: so many renditions of these weights together.
    pub(super) fn expect(&mut self, renditions: usize, work: f64) {
        self.work = self.done + work;
        self.total = self
            .finished
            .saturating_add(u32::try_from(renditions).unwrap_or(u32::MAX));
    }

    /// A step is over, though nothing came of it.
    pub(super) fn in_vain(&mut self, weight: f64) {
        self.done += weight;
    }

    pub(super) fn finished(&mut self, weight: f64) {
        self.done += weight;
        self.finished = self.finished.saturating_add(1);
    }

    /// How far it is when `part` (0 to 1) of a step of this weight is done.
    pub(super) fn at(&mut self, rendition: &str, weight: f64, part: Option<f64>) -> Progress {
        let done = part.map(|part| (self.done + part.clamp(0.0, 1.0) * weight) / self.work);
        let elapsed = self.begun.elapsed().as_secs_f64();
        let left = done
            .filter(|done| *done > 0.01)
            .and_then(|done| Duration::try_from_secs_f64(elapsed * (1.0 - done) / done).ok());
        let percent = done.map(|done| {
            self.told = self.told.max(done * 100.0).min(100.0);
            self.told
        });
        Progress {
            rendition: rendition.to_owned(),
            finished: self.finished,
            total: self.total,
            percent,
            left,
        }
    }
}

/// Reads what `ffmpeg -progress` prints: lines of `key=value`. What it does not understand it forgets.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// The furthest time, in microseconds.
    pub(super) reached: u64,
}

/// Longer lines are no progress.
const LONGEST: usize = 256;

impl Lines {
    /// Whether the time moved on.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let before = self.reached;
        for &byte in bytes {
            if byte == b'\n' {
                self.end();
            } else if self.line.len() <= LONGEST {
                self.line.push(byte);
            }
        }
        self.reached > before
    }

    fn end(&mut self) {
        let time = std::str::from_utf8(&self.line)
            .ok()
            .filter(|line| line.len() <= LONGEST)
            .and_then(|line| line.strip_prefix("out_time_us="))
            .and_then(|time| time.trim().parse::<u64>().ok());
        self.reached = self.reached.max(time.unwrap_or(0));
        self.line.clear();
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds of a video")]
    pub(super) fn seconds(&self) -> f64 {
        self.reached as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_only_grow_and_garbage_is_forgotten() {
        let mut lines = Lines::default();
        assert!(!lines.push(b"frame=1\nout_time_us=500"));
        assert!(lines.push(b"\nout_time_us=400\nout_time_us=N/A\nout_time_us=-3\n"));
        assert!(!lines.push(&[b'x'; 10_000]));
        assert!(!lines.push(b"out_time_us=99999999999999\n"));
        assert!(!lines.push(b"\xff\xfe\n\n=\n"));
        assert!(lines.push(b"out_time_us=2500000\n"));
        assert!((lines.seconds() - 2.5).abs() < 1e-9);
        assert!(lines.line.capacity() < 1024);
    }
}
