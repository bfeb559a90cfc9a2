//! One program, started, watched and ended together with all that it started.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::mpsc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    cancel::Cancel,
    error::{Limit, TranscodeError, TranscodeErrorKind},
};

/// How much of standard error is kept.
const STDERR_KEPT: usize = 4 << 10;
/// How often the output is measured.
const TICK: Duration = Duration::from_millis(250);

/// What is started and how long it may go on.
#[derive(Debug)]
pub(super) struct Spec<'a> {
    pub(super) command: Command,
    /// Its working directory.
    pub(super) dir: &'a Path,
    /// The command's first program is the parent of a process namespace.
    pub(super) namespace: bool,
    pub(super) deadline: Instant,
    pub(super) stall: Duration,
    /// A directory and the bytes that may lie in it.
    pub(super) meter: Option<(PathBuf, u64)>,
}

/// What standard output told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    Progress,
    TooMuch,
}

/// Runs it to its end; every standard output byte goes to `hear`. When this returns, however it does, no process of its group is left.
///
/// # Errors
/// The kind says how it ended, unless it ended well.
pub(super) async fn run(
    spec: Spec<'_>,
    cancel: &Cancel,
    mut hear: impl FnMut(&[u8]) -> Heard,
) -> Result<(), TranscodeError> {
    let mut running = Running::start(spec.command, spec.dir, spec.namespace).await?;
    let (mut stdout, mut stderr) = (running.child.stdout.take(), running.child.stderr.take());
    let (mut out, mut err) = ([0; 4096], [0; 4096]);
    let mut tail = Tail::default();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut moved = Instant::now();
    let mut written = 0;
    let ended = loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break Err(TranscodeError::cancelled()),
            () = sleep_until(spec.deadline) => break Err(reached(Limit::Time)),
            () = sleep_until(moved + spec.stall) => break Err(reached(Limit::Stall)),
            status = running.child.wait() => break status.map_err(TranscodeError::io),
            _ = tick.tick() => if let Some((directory, most)) = &spec.meter {
                let now = measure(directory.clone()).await;
                // The limit on a file's size stops it at the very byte.
                if now >= *most {
                    break Err(reached(Limit::Output));
                }
                if now != written {
                    (written, moved) = (now, Instant::now());
                }
            },
            read = read(&mut stdout, &mut out) => match hear(&out[..read]) {
                Heard::Nothing => {}
                Heard::Progress => moved = Instant::now(),
                Heard::TooMuch => break Err(reached(Limit::Output)),
            },
            read = read(&mut stderr, &mut err) => tail.push(&err[..read]),
        }
    };
    running.end().await;
    // Whoever held the pipes is dead: what is left in them is little and ends.
    let drained = async {
        while stdout.is_some() {
            let read = read(&mut stdout, &mut out).await;
            if hear(&out[..read]) == Heard::TooMuch {
                return Err(reached(Limit::Output));
            }
        }
        while stderr.is_some() {
            let read = read(&mut stderr, &mut err).await;
            tail.push(&err[..read]);
        }
        Ok(())
    };
    let drained = timeout(Duration::from_secs(1), drained).await.unwrap_or(Ok(()));
    let result = ended.and_then(|status| drained.and_then(|()| judge(status, &tail)));
    result.map_err(|error| error.with_detail(tail.text(spec.dir)))
}

/// Reads from the pipe if it is still open, and closes it at its end.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else {
        return std::future::pending().await;
    };
    let read = open.read(buffer).await.unwrap_or(0);
    if read == 0 {
        *pipe = None;
    }
    read
}

pub(super) fn reached(limit: Limit) -> TranscodeError {
    let message = match limit {
        Limit::Time => "The video took longer to process than is allowed",
        Limit::Cpu => "The video took more processor time than is allowed",
        Limit::Memory => "The video took more memory than is allowed",
        Limit::Output => "The video became larger than is allowed",
        Limit::Segment => "A few seconds of the video became larger than is allowed for one piece of a stream",
        Limit::Stall => "The work on the video came to a halt; try again later",
        Limit::Killed => "The work on the video was killed, for it used too much processor time or memory",
    };
    TranscodeError::new(TranscodeErrorKind::LimitReached(limit), message)
}

fn judge(status: ExitStatus, tail: &Tail) -> Result<(), TranscodeError> {
    // The init of the namespace tells of a signal like a shell: 128 and its number.
    let signal = status.signal().or_else(|| {
        status
            .code()
            .filter(|code| (129..=128 + 64).contains(code))
            .map(|code| code - 128)
    });
    if let Some(signal) = signal {
        return Err(match Signal::from_named_raw(signal) {
            Some(Signal::XCPU) => reached(Limit::Cpu),
            Some(Signal::XFSZ) => reached(Limit::Output),
            Some(Signal::KILL) => reached(Limit::Killed),
            _ => TranscodeError::new(
                TranscodeErrorKind::Crashed,
                "The program that converts videos crashed; try again later",
            ),
        });
    }
    match status.code() {
        // ffmpeg may go on without the frames that it had no memory for, and end well.
        Some(_) if tail.says("Cannot allocate memory") => Err(reached(Limit::Memory)),
        Some(0) => Ok(()),
        Some(126 | 127) => Err(missing("The program that converts videos cannot be started")),
        _ if tail.says("exceeds specified max pixel count") => Err(TranscodeError::new(
            TranscodeErrorKind::TooLarge,
            "The picture has more pixels than are allowed",
        )),
        _ if tail.says("File too large") => Err(reached(Limit::Output)),
        _ if tail.says("No space left on device") => {
            Err(TranscodeError::io(io::Error::from(io::ErrorKind::StorageFull)))
        }
        _ if tail.says("Unknown encoder") || tail.says("Unrecognized option") || tail.says("Option not found") => Err(
            missing("The program that converts videos is too old or lacks an encoder"),
        ),
        _ => Err(TranscodeError::new(
            TranscodeErrorKind::Refused,
            "The video cannot be converted",
        )),
    }
}

pub(super) fn missing(message: &'static str) -> TranscodeError {
    TranscodeError::new(TranscodeErrorKind::Missing, message)
}

/// The last of what was written to standard error.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * STDERR_KEPT {
            self.0.drain(..self.0.len() - STDERR_KEPT);
        }
    }

    fn says(&self, words: &str) -> bool {
        self.0.windows(words.len()).any(|window| window == words.as_bytes())
    }

    /// Without the path of the working directory and without control characters: a log is a terminal to somebody.
    fn text(&self, dir: &Path) -> String {
        let kept = &self.0[self.0.len().saturating_sub(STDERR_KEPT)..];
        String::from_utf8_lossy(kept)
            .replace(&*dir.to_string_lossy(), ".")
            .chars()
            .map(|char| if char.is_control() && char != '\n' { ' ' } else { char })
            .collect()
    }
}

/// The bytes of the files in `directory` and in those beneath it.
async fn measure(directory: PathBuf) -> u64 {
    fn sum(directory: &Path) -> u64 {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
            .map(|(path, meta)| if meta.is_dir() { sum(&path) } else { meta.len() })
            .fold(0, u64::saturating_add)
    }
    tokio::task::spawn_blocking(move || sum(&directory)).await.unwrap_or(0)
}

/// A child that leads a process group, which is killed and reaped when this is dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    group: Option<Pid>,
    namespace: bool,
    /// Lets the thread that is its parent end.
    _parent: mpsc::Sender<()>,
}

impl Running {
    /// The kernel kills the child when the thread that started it ends. The runtime's threads may end at any time: it gets one of its own, which sleeps.
    async fn start(mut command: Command, dir: &Path, namespace: bool) -> Result<Self, TranscodeError> {
        command
            .current_dir(dir)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let runtime = tokio::runtime::Handle::current();
        let (send, started) = oneshot::channel();
        let parent = move || {
            let (alive, gone) = mpsc::channel();
            let spawned = {
                let _runtime = runtime.enter();
                command.spawn()
            };
            let running = spawned.map(|child| Self {
                group: child.id().and_then(|id| Pid::from_raw(id.cast_signed())),
                namespace,
                child,
                _parent: alive,
            });
            let _dropped_and_killed = send.send(running);
            let _ended = gone.recv();
        };
        std::thread::Builder::new()
            .name("ffmpeg-parent".to_owned())
            .stack_size(256 << 10)
            .spawn(parent)
            .map_err(TranscodeError::io)?;
        match started.await {
            Ok(Ok(running)) => Ok(running),
            Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                Err(missing("The program that converts videos cannot be started").with_source(error))
            }
            Ok(Err(error)) => Err(TranscodeError::io(error)),
            Err(_) => Err(TranscodeError::io(io::Error::other(
                "the thread that starts ffmpeg ended",
            ))),
        }
    }

    /// Kills what is left, reaps the child and waits until all of its group are gone: they may still write.
    async fn end(&mut self) {
        if let Some(leader) = self.child.id().filter(|_| self.namespace) {
            // The namespace's init goes first, and with it all of the namespace before its parent reaps it. Killed before its init,
            // the parent would leave that one to the machine's init, which in a container may be the server itself.
            let children = fs::read_to_string(format!("/proc/{leader}/task/{leader}/children")).unwrap_or_default();
            for child in children
                .split_whitespace()
                .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            {
                let _gone_already = kill_process(child, Signal::KILL);
            }
            // It may have no child yet.
            let patience = if children.is_empty() { 0 } else { 5 };
            let _gone = timeout(Duration::from_secs(patience), self.child.wait()).await;
        }
        self.kill_group();
        let _reaped = self.child.wait().await;
        for wait in 0..40 {
            let gone = self.group.is_none_or(|group| test_kill_process_group(group).is_err());
            if gone {
                break;
            }
            sleep(Duration::from_millis(wait)).await;
        }
        self.group = None;
    }

    /// Also after the child was reaped: others of its group may live. Its number is free for a new group only when they are all gone.
    fn kill_group(&self) {
        if let Some(group) = self.group {
            let _nobody_left = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    /// Only when the runtime itself is shut down: there is nobody left to wait.
    fn drop(&mut self) {
        if self.group.is_none() {
            return;
        }
        self.kill_group();
        for _ in 0..2000 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
