use std::time::Duration;

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
