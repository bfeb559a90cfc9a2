//! A video becomes an HLS stream: [`FfmpegHls`] is the hook that does it to each upload, and [`Transcoder`] what it does it with: it runs an
//! installed ffmpeg over a file that nobody has reason to trust.
//!
//! ```text
//! first bytes ─► ffprobe ─► ladder ─► one ffmpeg per rendition ─► sink: segments, playlist, "finished", master playlist
//! ```
//!
//! There is one run of ffmpeg for each rendition, not one for all: the smallest is playable after a fraction of the time that the whole
//! ladder takes, a crash costs one rendition and not all, and no more than one lies on the disk at a time. What it
//! costs is that the source is decoded once per rendition. A source that fits as it is (H.264 in MP4) is taken over
//! first, without being encoded; the others then get their keyframes where it has its own, so that segments begin together in all.
//!
//! # What holds a hostile file
//! * Its first bytes must be those of a known container; that container's demuxer is forced, decoders are listed, and of all protocols only files are open.
//!   A playlist or a script is refused before any program has seen it.
//! * ffmpeg is started as a list of arguments, in which nothing is the client's, without a shell, with an empty environment, in a private directory
//!   which is removed in every case.
//! * What [`Containment`] says is in force on the machine: no network, no privileges, limits on memory and processor time, nothing outlives the run.
//! * Time, halts and the size of the output are watched. Whatever ends a run, a drop of its future too, kills the process group and waits for its end.

mod cancel;
mod command;
mod contain;
mod error;
mod hls;
mod ladder;
mod ledger;
mod options;
mod playlist;
mod probe;
mod process;
mod progress;
mod run;
mod sink;
mod sniff;
mod store;
#[cfg(test)]
mod tests;
mod workdir;

use std::{fmt, path::PathBuf, sync::Arc};

use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use self::{
    cancel::Cancel,
    contain::{ProcessLimits, Wrapper, find},
    process::{Heard, Spec, missing},
    workdir::Home,
};
use crate::blob::BlobBody;

pub use self::{
    contain::Containment,
    error::{Limit, TranscodeError, TranscodeErrorKind},
    hls::FfmpegHls,
    options::{Rung, SegmentFormat, TranscodeLimits, TranscodeOptions},
    playlist::master_playlist,
    progress::Progress,
    run::{Outcome, Shortfall},
    sink::{HlsSink, MASTER_PLAYLIST, OutputFile, POSTER, Rendition, content_type},
};

/// Makes HLS streams of files. Cheap to clone; all clones share the limit on runs at once.
#[derive(Clone, Debug)]
pub struct Transcoder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: TranscodeOptions,
    wrapper: Wrapper,
    ffmpeg: PathBuf,
    ffprobe: PathBuf,
    home: Home,
    /// One for each run at once.
    turns: Arc<Semaphore>,
    /// One for each task that has not ended.
    tasks: Arc<Semaphore>,
    shutdown: watch::Sender<bool>,
}

/// More tasks than there will ever be.
const TASKS: u32 = 1 << 20;

/// What is to be converted.
#[non_exhaustive]
pub enum MediaSource {
    /// A local file. It is read where it lies, and must stay there until the run has ended.
    File(PathBuf),
    /// Bytes in order; they are written to the working directory first.
    Bytes(BlobBody),
}

impl fmt::Debug for MediaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes(_) => f.debug_tuple("Bytes").finish_non_exhaustive(),
        }
    }
}

/// Told of progress, twice a second at most. It must not block.
type OnProgress = Box<dyn Fn(&Progress) + Send + Sync>;

/// One run to be.
pub struct Job {
    source: MediaSource,
    sink: Arc<dyn HlsSink>,
    on_progress: Option<OnProgress>,
}

impl Job {
    /// Makes a stream of `source` and gives its files to `sink`.
    #[must_use]
    pub fn new(source: MediaSource, sink: Arc<dyn HlsSink>) -> Self {
        Self {
            source,
            sink,
            on_progress: None,
        }
    }

    /// Calls `told` with the progress, twice a second at most. It must not block.
    #[must_use]
    pub fn on_progress(mut self, told: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Box::new(told));
        self
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Transcoder {
    async fn open(options: TranscodeOptions) -> Result<Self, TranscodeError> {
        Self::contained(options, Wrapper::detect().await).await
    }

    async fn contained(options: TranscodeOptions, wrapper: Wrapper) -> Result<Self, TranscodeError> {
        let program = |name| {
            find(name).ok_or_else(|| missing("ffmpeg and ffprobe are not installed, or not where the options say"))
        };
        let (ffmpeg, ffprobe) = (program(&options.ffmpeg)?, program(&options.ffprobe)?);
        if options.require_containment && !wrapper.containment.is_full() {
            let message = format!("This machine cannot contain ffmpeg in full: {:?}", wrapper.containment);
            return Err(TranscodeError::new(TranscodeErrorKind::Uncontained, message));
        }
        let home = Home::open(options.work_dir.clone()).await.map_err(TranscodeError::io)?;
        let shared = Arc::new(Shared {
            turns: Arc::new(Semaphore::new(options.at_once)),
            tasks: Arc::new(Semaphore::new(TASKS as usize)),
            shutdown: watch::Sender::new(false),
            options,
            wrapper,
            ffmpeg,
            ffprobe,
            home,
        });
        shared.check_encoders().await?;
        Ok(Self { shared })
    }

    /// What keeps ffmpeg within bounds on this machine.
    #[must_use]
    pub fn containment(&self) -> Containment {
        self.shared.wrapper.containment
    }

    /// Makes a stream, when its turn has come. Dropping the future stops the work: what was started is killed and removed by a task of its own.
    ///
    /// A run that was interrupted is begun again with the same arguments: renditions that the sink has already are kept.
    ///
    /// # Errors
    /// The [kind](TranscodeError::kind) tells what to do, and [`is_retryable`](TranscodeError::is_retryable) whether to try again. Renditions
    /// that were finished before it stay playable.
    pub async fn run(&self, job: Job) -> Result<Outcome, TranscodeError> {
        let (_alive, caller) = watch::channel(());
        let cancel = Cancel {
            caller,
            shutdown: self.shared.shutdown.subscribe(),
        };
        let shared = Arc::clone(&self.shared);
        let Ok(task) = Arc::clone(&shared.tasks).try_acquire_owned() else {
            return Err(TranscodeError::cancelled());
        };
        let work = async move {
            let result = run::run(&shared, job, &cancel).await;
            drop((shared, task));
            result
        };
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(error) => Err(TranscodeError::io(std::io::Error::other(error))),
        }
    }

    /// Stops all runs, and returns when their processes have ended and their files are removed. Later runs are refused.
    pub async fn shutdown(&self) {
        self.shared.shutdown.send_replace(true);
        let _all_ended = self
            .shared
            .tasks
            .acquire_many(TASKS)
            .await
            .map(tokio::sync::SemaphorePermit::forget);
        let shared = Arc::clone(&self.shared);
        let _panicked = tokio::task::spawn_blocking(move || shared.home.remove()).await;
    }
}

impl Shared {
    fn command<A: AsRef<std::ffi::OsStr>>(
        &self,
        program: &std::path::Path,
        args: &[A],
        output: u64,
    ) -> tokio::process::Command {
        let limits = &self.options.limits;
        let limits = ProcessLimits {
            cpu: limits.cpu,
            memory: limits.memory,
            file_size: output,
            processes: limits.processes,
            time: limits.time,
        };
        self.wrapper.command(&limits, program, args)
    }

    /// Runs a program for what it writes to its standard output, at most 1 MiB.
    async fn ask(
        &self,
        program: &std::path::Path,
        args: &[String],
        dir: &std::path::Path,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, TranscodeError> {
        const MOST: usize = 1 << 20;
        let spec = Spec {
            command: self.command(program, args, MOST as u64),
            dir,
            namespace: self.wrapper.containment.processes,
            deadline,
            stall: self.options.limits.stall,
            meter: None,
        };
        let mut answer = Vec::new();
        process::run(spec, cancel, |bytes| {
            answer.extend_from_slice(bytes);
            if answer.len() > MOST {
                Heard::TooMuch
            } else {
                Heard::Progress
            }
        })
        .await?;
        Ok(answer)
    }

    async fn check_encoders(&self) -> Result<(), TranscodeError> {
        let dir = self.home.run_dir().await.map_err(TranscodeError::io)?;
        let (_alive, caller) = watch::channel(());
        let cancel = Cancel {
            caller,
            shutdown: self.shutdown.subscribe(),
        };
        let deadline = Instant::now() + std::time::Duration::from_secs(30);
        let args = ["-hide_banner", "-encoders"].map(str::to_owned);
        let answer = self.ask(&self.ffmpeg, &args, dir.path(), deadline, &cancel).await;
        dir.remove().await;
        let answer = String::from_utf8_lossy(&answer?).into_owned();
        let has = |encoder: &str| {
            answer
                .lines()
                .any(|line| line.split_whitespace().nth(1) == Some(encoder))
        };
        if has("libx264") && has("aac") {
            return Ok(());
        }
        Err(missing(
            "ffmpeg lacks an encoder; it must be built with libx264 and aac",
        ))
    }
}
