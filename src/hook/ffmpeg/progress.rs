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
    /// How long the rest will take, by how long this run took for what it did until now.
    pub left: Option<Duration>,
}

/// How far a run is, by the [weights](super::ladder::Step::weight) of its steps.
#[derive(Debug)]
pub(super) struct Tally {
    /// Of all steps, of those that are over, and of these what a run before did.
    work: f64,
    done: f64,
    kept: f64,
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
            kept: 0.0,
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

    /// A rendition that was finished by a run before.
    pub(super) fn kept(&mut self, weight: f64) {
        self.kept += weight;
        self.finished(weight);
    }

    /// How far it is when `part` (0 to 1) of a step of this weight is done.
    pub(super) fn at(&mut self, rendition: &str, weight: f64, part: Option<f64>) -> Progress {
        let done = part.map(|part| self.done + part.clamp(0.0, 1.0) * weight);
        let percent = done.map(|done| {
            self.told = self.told.max(done / self.work * 100.0).min(100.0);
            self.told
        });
        let left = done.and_then(|done| self.left(done));
        Progress {
            rendition: rendition.to_owned(),
            finished: self.finished,
            total: self.total,
            percent,
            left,
        }
    }

    /// As long as this run took for what it did itself, for the rest; `None` until it did a hundredth of its own.
    fn left(&self, done: f64) -> Option<Duration> {
        let (made, all) = (done - self.kept, self.work - self.kept);
        let elapsed = self.begun.elapsed().as_secs_f64();
        let left = (made > 0.01 * all).then(|| elapsed * (self.work - done).max(0.0) / made)?;
        Duration::try_from_secs_f64(left).ok()
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

    #[tokio::test(start_paused = true)]
    async fn what_another_run_did_says_nothing_of_the_time_that_is_left() {
        let mut tally = Tally::new(Instant::now());
        tally.expect(2, 1000.0);
        tally.kept(900.0);
        assert_eq!(tally.at("480p", 100.0, Some(0.0)).left, None);
        tokio::time::advance(Duration::from_secs(10)).await;
        let now = tally.at("480p", 100.0, Some(0.5));
        assert_eq!((now.finished, now.total), (1, 2));
        assert!((now.percent.unwrap() - 95.0).abs() < 1e-9, "{now:?}");
        assert!((now.left.unwrap().as_secs_f64() - 10.0).abs() < 1e-6, "{now:?}");
        // Of a run that has all yet to do it is as it was.
        let mut tally = Tally::new(Instant::now());
        tally.expect(1, 100.0);
        tokio::time::advance(Duration::from_secs(10)).await;
        let now = tally.at("480p", 100.0, Some(0.25));
        assert!((now.left.unwrap().as_secs_f64() - 30.0).abs() < 1e-6, "{now:?}");
    }

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
