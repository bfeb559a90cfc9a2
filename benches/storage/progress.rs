//! How far it is, on stderr: a bar on a terminal, a line for each step elsewhere.

use std::{
    collections::HashSet,
    io::{IsTerminal as _, Write as _, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tower_upload::benchmark::Progress;

const WIDTH: usize = 30;
/// Drawn no more often than this.
const PACE: Duration = Duration::from_millis(80);

/// The bar of one run.
#[derive(Debug)]
pub(crate) struct Bar {
    title: String,
    drawn: Mutex<Drawn>,
}

#[derive(Debug)]
struct Drawn {
    /// The steps that have a line.
    told: HashSet<String>,
    at: Instant,
}

impl Bar {
    pub(crate) fn new(title: String) -> Self {
        let drawn = Mutex::new(Drawn {
            told: HashSet::new(),
            at: Instant::now(),
        });
        Self { title, drawn }
    }

    pub(crate) fn show(&self, progress: &Progress) {
        let step = format!("{}: {}", progress.workload, progress.step);
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = stderr().lock();
        // What cannot be drawn is no reason to stop.
        let _ = if !out.is_terminal() {
            match drawn.told.insert(step.clone()) {
                true => writeln!(out, "{}: {step} ({})", self.title, progress.total),
                false => Ok(()),
            }
        } else if progress.done == progress.total || drawn.at.elapsed() >= PACE {
            drawn.at = Instant::now();
            let full = usize::try_from(progress.done * WIDTH as u64 / progress.total.max(1)).unwrap_or(WIDTH);
            let full = full.min(WIDTH);
            let (done, left) = ("█".repeat(full), "░".repeat(WIDTH - full));
            let counts = format!("{}/{}", progress.done, progress.total);
            write!(out, "\r\x1b[2K{done}{left} {}: {step} {counts}", self.title).and_then(|()| out.flush())
        } else {
            Ok(())
        };
    }
}

/// Removes the bar.
pub(crate) fn end() {
    let mut out = stderr().lock();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[2K").and_then(|()| out.flush());
    }
}
