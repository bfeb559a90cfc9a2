use std::{path::PathBuf, time::Duration};

use super::{Transcoder, error::TranscodeError};

/// What segments are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SegmentFormat {
    /// Fragmented MP4 (`.m4s` with an `init.mp4`): smaller, and what players want today.
    #[default]
    Fmp4,
    /// MPEG transport stream (`.ts`): for very old players.
    MpegTs,
}

/// One step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Rung {
    /// The shorter side in pixels: 720 is 1280x720, and 720x1280 for a video that stands upright.
    pub short_side: u32,
    /// The most bits per second of video at 16:9. Other shapes get their share by area.
    pub max_bitrate: u32,
}

impl Rung {
    /// A rung whose shorter side is `short_side` pixels, with at most `max_bitrate` bits per second of video.
    #[must_use]
    pub const fn new(short_side: u32, max_bitrate: u32) -> Self {
        Self {
            short_side,
            max_bitrate,
        }
    }

    /// 1080, 720, 480 and 360 with 5, 2.8, 1.4 and 0.8 Mbit/s.
    pub const DEFAULT: [Self; 4] = [
        Self::new(1080, 5_000_000),
        Self::new(720, 2_800_000),
        Self::new(480, 1_400_000),
        Self::new(360, 800_000),
    ];
}

/// What a source may be and what a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TranscodeLimits {
    /// The longest source; 12 hours.
    pub duration: Duration,
    /// The most pixels of a frame; 8192 x 4320.
    pub pixels: u64,
    /// The most streams in a container; 64.
    pub streams: u32,
    /// The longest a run may take, without the wait for its turn, but with reading the source and storing what is made;
    /// 12 hours.
    pub time: Duration,
    /// The longest without progress or output; 5 minutes.
    pub stall: Duration,
    /// Processor time of one process, all its threads together; 48 hours.
    pub cpu: Duration,
    /// Address space of one process, in bytes; 6 GiB.
    pub memory: u64,
    /// Bytes that all renditions of a run may have together; 64 GiB.
    pub output: u64,
    /// Bytes of one file of a stream; 128 MiB. Each is held in memory while it is stored, one at a time for each run. A segment of an encoded
    /// rendition has at most (its length + 2 s) times its bit rate: 12 MiB of the default ladder, 100 MiB of 30 s with 25 Mbit/s. A
    /// source with a larger one is not copied but encoded.
    pub segment: u64,
    /// Processes and threads at once, where the kernel counts them apart from all others of the same user (user
    /// namespaces, and not root: [`Containment::process_count`](super::Containment::process_count)); 256.
    pub processes: u32,
}

impl Default for TranscodeLimits {
    fn default() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            duration: Duration::from_secs(12 * HOUR),
            pixels: 8192 * 4320,
            streams: 64,
            time: Duration::from_secs(12 * HOUR),
            stall: Duration::from_secs(300),
            cpu: Duration::from_secs(48 * HOUR),
            memory: 6 << 30,
            output: 64 << 30,
            segment: 128 << 20,
            processes: 256,
        }
    }
}

macro_rules! limit {
    ($($name:ident, $field:ident: $type:ty, $doc:literal;)*) => {$(
        #[doc = concat!("Sets ", $doc, ".")]
        #[must_use]
        pub const fn $name(mut self, limit: $type) -> Self {
            self.$field = limit;
            self
        }
    )*};
}

impl TranscodeLimits {
    limit! {
        with_duration, duration: Duration, "the longest source";
        with_pixels, pixels: u64, "the most pixels of a frame";
        with_streams, streams: u32, "the most streams in a container";
        with_time, time: Duration, "the longest a run may take";
        with_stall, stall: Duration, "the longest without progress or output";
        with_cpu, cpu: Duration, "the processor time of one process";
        with_memory, memory: u64, "the address space of one process, in bytes";
        with_output, output: u64, "the bytes all renditions of a run may have together";
        with_segment, segment: u64, "the bytes of one file of a stream";
        with_processes, processes: u32, "the processes and threads at once";
    }
}

/// How videos become streams.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TranscodeOptions {
    pub(super) ffmpeg: PathBuf,
    pub(super) ffprobe: PathBuf,
    pub(super) work_dir: PathBuf,
    pub(super) format: SegmentFormat,
    pub(super) segment: Duration,
    pub(super) ladder: Vec<Rung>,
    pub(super) max_frame_rate: u32,
    pub(super) preset: &'static str,
    pub(super) copy: bool,
    pub(super) poster: bool,
    pub(super) at_once: usize,
    pub(super) threads: u16,
    pub(super) require_containment: bool,
    pub(super) limits: TranscodeLimits,
}

impl TranscodeOptions {
    /// Runs have their private directories beneath `work_dir`, which is created if need be (mode 0700) and may be shared by
    /// several processes of one machine. The largest rendition of each run that is under way must fit in there,
    /// and the source too if it comes as a stream.
    #[must_use]
    pub fn new(work_dir: impl Into<PathBuf>) -> Self {
        Self {
            ffmpeg: "ffmpeg".into(),
            ffprobe: "ffprobe".into(),
            work_dir: work_dir.into(),
            format: SegmentFormat::Fmp4,
            segment: Duration::from_secs(4),
            ladder: Rung::DEFAULT.to_vec(),
            max_frame_rate: 60,
            preset: "veryfast",
            copy: true,
            poster: true,
            at_once: 1,
            threads: 0,
            require_containment: false,
            limits: TranscodeLimits::default(),
        }
    }

    /// The programs, as paths or names to look up in `PATH`; `ffmpeg` and `ffprobe` if not said.
    #[must_use]
    pub fn with_programs(mut self, ffmpeg: impl Into<PathBuf>, ffprobe: impl Into<PathBuf>) -> Self {
        self.ffmpeg = ffmpeg.into();
        self.ffprobe = ffprobe.into();
        self
    }

    /// What segments are made of; [`SegmentFormat::Fmp4`] if not said.
    #[must_use]
    pub const fn with_format(mut self, format: SegmentFormat) -> Self {
        self.format = format;
        self
    }

    /// How long a segment is, from 1 to 30 seconds; 4 if not said. That of a copied stream ends at the first keyframe after it.
    #[must_use]
    pub fn with_segment(mut self, segment: Duration) -> Self {
        self.segment = segment.clamp(Duration::from_secs(1), Duration::from_secs(30));
        self
    }

    /// The ladder; [`Rung::DEFAULT`] if not said. Nothing is scaled up: a source smaller than every rung gets one of its own size.
    #[must_use]
    pub fn with_ladder(mut self, ladder: impl IntoIterator<Item = Rung>) -> Self {
        self.ladder = ladder.into_iter().collect();
        self
    }

    /// The most frames per second; 60 if not said. A source above it is halved until it fits.
    #[must_use]
    pub const fn with_max_frame_rate(mut self, rate: u32) -> Self {
        self.max_frame_rate = if rate == 0 { 1 } else { rate };
        self
    }

    /// The preset of x264; `veryfast` if not said.
    #[must_use]
    pub const fn with_preset(mut self, preset: &'static str) -> Self {
        self.preset = preset;
        self
    }

    /// Whether a video that already fits (H.264 and AAC in MP4) is taken over as a rendition as it is; yes if not said.
    #[must_use]
    pub const fn with_copy(mut self, copy: bool) -> Self {
        self.copy = copy;
        self
    }

    /// Whether a picture of the video is made; yes if not said.
    #[must_use]
    pub const fn with_poster(mut self, poster: bool) -> Self {
        self.poster = poster;
        self
    }

    /// How many runs work at once, the others wait; 1 if not said.
    #[must_use]
    pub fn with_runs_at_once(mut self, runs: usize) -> Self {
        self.at_once = runs.max(1);
        self
    }

    /// How many threads an encoder uses; as ffmpeg thinks best if not said. The same number gives the same bytes again.
    #[must_use]
    pub const fn with_threads(mut self, threads: u16) -> Self {
        self.threads = threads;
        self
    }

    /// Makes [`open`](Self::open) fail unless every kind of [`Containment`](super::Containment) is to be had, which root never has.
    #[must_use]
    pub const fn with_required_containment(mut self) -> Self {
        self.require_containment = true;
        self
    }

    /// What a source may be and what a run may use.
    #[must_use]
    pub const fn with_limits(mut self, limits: TranscodeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Looks for the programs, finds out what the machine can contain them with, and removes what runs of a
    /// process that is gone left in the working directory.
    ///
    /// # Errors
    /// [`Missing`](super::TranscodeErrorKind::Missing), [`Uncontained`](super::TranscodeErrorKind::Uncontained),
    /// [`Io`](super::TranscodeErrorKind::Io).
    pub async fn open(self) -> Result<Transcoder, TranscodeError> {
        Transcoder::open(self).await
    }
}
