//! One source, from its first byte to the last playlist.

use std::{fs::File, future::Future, io, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{
    Containment, HlsSink, Job, Limit, MASTER_PLAYLIST, MediaSource, OnProgress, OutputFile, POSTER, Rendition, Shared,
    TranscodeError, TranscodeErrorKind,
    cancel::Cancel,
    command::{self, MOST_BOUNDARIES},
    content_type,
    ladder::{Picture, Sound, Step, plan},
    options::SegmentFormat,
    playlist::{self, INDEX, INIT, Segment, bandwidth, master_playlist},
    probe::{self, Source},
    process::{self, Heard, Spec},
    progress::{Lines, Tally},
    sniff::sniff,
    workdir::RunDir,
};
use crate::error::Error;

/// What a run made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// The renditions that the master playlist lists, in the order they were made in.
    pub renditions: Vec<Rendition>,
    /// Whether there is a poster: none of sound alone, and none if no picture could be decoded.
    pub poster: bool,
    /// The source promised more than could be decoded: its end is missing or damaged.
    pub shortfall: Option<Shortfall>,
    /// What ffmpeg was contained with.
    pub containment: Containment,
}

/// How much of a damaged source could be used, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Shortfall {
    /// What the source says.
    pub expected: f64,
    /// What became of it.
    pub made: f64,
}

/// How long the probe and the poster may take.
const SHORT: Duration = Duration::from_secs(120);

pub(super) async fn run(shared: &Shared, job: Job, cancel: &Cancel) -> Result<Outcome, TranscodeError> {
    let turn = cancel.or(shared.turns.acquire()).await?;
    let _turn = turn.map_err(|_closed| TranscodeError::cancelled())?;
    let dir = shared.home.run_dir().await.map_err(TranscodeError::io)?;
    let Job {
        source,
        sink,
        on_progress,
    } = job;
    let run = Run {
        shared,
        dir: &dir,
        sink: &*sink,
        cancel,
        on_progress,
        begun: Instant::now(),
    };
    let result = run.go(source).await;
    dir.remove().await;
    result
}

struct Run<'a> {
    shared: &'a Shared,
    dir: &'a RunDir,
    sink: &'a dyn HlsSink,
    cancel: &'a Cancel,
    on_progress: Option<OnProgress>,
    begun: Instant,
}

impl Run<'_> {
    async fn go(&self, source: MediaSource) -> Result<Outcome, TranscodeError> {
        self.of_source(self.dir.place(source)).await?;
        let source = self.probe().await?;
        let earlier = self.in_sink(self.sink.renditions()).await?;
        let mut outcome = Outcome {
            renditions: Vec::new(),
            poster: false,
            shortfall: None,
            containment: self.shared.wrapper.containment,
        };
        let mut steps = plan(&source, &self.shared.options, self.shared.options.copy);
        let work = |steps: &[Step]| steps.iter().map(|step| step.weight(&source)).sum::<f64>();
        let mut tally = Tally::new(self.begun);
        let mut boundaries = None;
        if steps.first().is_some_and(Step::is_copy) {
            let step = steps.remove(0);
            let encoded = plan(&source, &self.shared.options, false);
            // Until it is known to be good, all the encoding that it may spare is yet to come.
            tally.expect(steps.len() + 1, step.weight(&source) + work(&encoded));
            if let Some(segments) = self.copy(&source, &step, &mut tally).await? {
                boundaries = Some(starts(&segments));
                self.keep(&source, &step, None, segments, &earlier, &mut outcome)
                    .await?;
                tally.finished(step.weight(&source));
                outcome.poster = self.poster(&source).await?;
            } else {
                tally.in_vain(step.weight(&source));
                steps = encoded;
            }
        }
        tally.expect(steps.len(), work(&steps));
        for step in &steps {
            let boundaries = boundaries.as_deref();
            let recipe = self.recipe(&source, step, boundaries);
            if let Some(same) = earlier
                .iter()
                .find(|made| made.name == step.name && made.recipe == recipe)
            {
                self.list(same.clone(), &mut outcome).await?;
                tally.kept(step.weight(&source));
            } else {
                let segments = self.make(&source, step, boundaries, &mut tally).await?;
                self.keep(&source, step, boundaries, segments, &earlier, &mut outcome)
                    .await?;
                tally.finished(step.weight(&source));
            }
            if outcome.renditions.len() == 1 {
                outcome.poster = self.poster(&source).await?;
            }
        }
        let made = outcome
            .renditions
            .iter()
            .map(|rendition| rendition.duration)
            .fold(0.0, f64::max);
        let expected = source.shown.or(source.duration);
        outcome.shortfall = expected
            .filter(|expected| made + 1.0 + expected / 50.0 < *expected)
            .map(|expected| Shortfall { expected, made });
        Ok(outcome)
    }

    async fn probe(&self) -> Result<Source, TranscodeError> {
        let path = self.dir.source();
        let sniffed = async { spawn_blocking(move || sniff(&mut File::open(path)?)).await? };
        let container = self.of_source(sniffed).await?;
        let container = container
            .ok_or_else(|| TranscodeError::unsupported("The file is no video or sound of a kind that is taken"))?;
        let options = &self.shared.options;
        let args = command::probe(container, options);
        let deadline = self.deadline().min(Instant::now() + SHORT);
        let answer = self
            .shared
            .ask(&self.shared.ffprobe, &args, self.dir.path(), deadline, self.cancel)
            .await;
        let answer = answer.map_err(|error| match error.kind() {
            TranscodeErrorKind::Refused => probe::broken().with_detail(error.detail()),
            _ => error,
        })?;
        probe::parse(&answer, container, &options.limits)
    }

    /// The source as it is, cut into segments; `None` if it is better encoded after all.
    async fn copy(
        &self,
        source: &Source,
        step: &Step,
        tally: &mut Tally,
    ) -> Result<Option<Vec<Segment>>, TranscodeError> {
        let segments = match self.make(source, step, None, tally).await {
            Ok(segments) => segments,
            Err(error) => {
                let encodes = matches!(
                    error.kind(),
                    TranscodeErrorKind::Refused
                        | TranscodeErrorKind::Broken
                        | TranscodeErrorKind::LimitReached(Limit::Segment)
                );
                return if encodes { Ok(None) } else { Err(error) };
            }
        };
        // A source whose keyframes are far apart, or whose bits come in bursts, makes a bad stream.
        let longest = segments.iter().map(|segment| segment.seconds).fold(0.0, f64::max);
        let (peak, average) = bandwidth(&segments);
        let even = longest <= 3.0 * self.shared.options.segment.as_secs_f64() && peak <= average.saturating_mul(4);
        Ok((even && segments.len() <= MOST_BOUNDARIES).then_some(segments))
    }

    /// Runs ffmpeg for one rendition. What it made lies in `out/`.
    async fn make(
        &self,
        source: &Source,
        step: &Step,
        boundaries: Option<&[f64]>,
        tally: &mut Tally,
    ) -> Result<Vec<Segment>, TranscodeError> {
        let limits = &self.shared.options.limits;
        let format = self.shared.options.format;
        let output = self.dir.output();
        self.dir.clear_output().map_err(TranscodeError::io)?;
        let args = command::rendition(source, step, boundaries, &self.shared.options);
        let spec = Spec {
            command: self.shared.command(&self.shared.ffmpeg, &args, limits.output),
            dir: self.dir.path(),
            namespace: self.shared.wrapper.containment.processes,
            deadline: self.deadline(),
            stall: limits.stall,
            meter: Some((output.clone(), limits.output)),
        };
        let mut lines = Lines::default();
        self.tell(source, step, 0.0, tally);
        process::run(spec, self.cancel, |bytes| {
            if !lines.push(bytes) {
                return Heard::Nothing;
            }
            self.tell(source, step, lines.seconds(), tally);
            Heard::Progress
        })
        .await?;
        let most = limits.segment;
        let segments = spawn_blocking(move || playlist::read(&output, format, most)).await;
        let segments = segments
            .map_err(io::Error::from)
            .flatten()
            .map_err(|error| match error.kind() {
                io::ErrorKind::FileTooLarge => process::reached(Limit::Segment),
                _ => TranscodeError::io(error),
            })?;
        let segments = segments.ok_or_else(|| {
            TranscodeError::new(
                TranscodeErrorKind::Broken,
                "Nothing of the video could be decoded: the file is broken",
            )
        })?;
        if segments.iter().map(|segment| segment.seconds).sum::<f64>() > limits.duration.as_secs_f64() {
            return Err(probe::too_long(limits.duration));
        }
        Ok(segments)
    }

    fn tell(&self, source: &Source, step: &Step, seconds: f64, tally: &mut Tally) {
        if let Some(told) = &self.on_progress {
            let part = source.duration.map(|duration| seconds / duration);
            told(&tally.at(&step.name, step.weight(source), part));
        }
    }

    /// Gives a finished rendition to the sink, file by file, unless it has it already; then lists it.
    async fn keep(
        &self,
        source: &Source,
        step: &Step,
        boundaries: Option<&[f64]>,
        segments: Vec<Segment>,
        earlier: &[Rendition],
        outcome: &mut Outcome,
    ) -> Result<(), TranscodeError> {
        let format = self.shared.options.format;
        let recipe = self.recipe(source, step, boundaries);
        if let Some(same) = earlier
            .iter()
            .find(|made| made.name == step.name && made.recipe == recipe)
        {
            return self.list(same.clone(), outcome).await;
        }
        let rendition = self.describe(step, &segments, recipe)?;
        let used = outcome
            .renditions
            .iter()
            .map(|rendition| rendition.bytes)
            .fold(rendition.bytes, u64::saturating_add);
        if used > self.shared.options.limits.output {
            return Err(process::reached(Limit::Output));
        }
        let index = self.dir.output().join(INDEX);
        tokio::fs::write(index, playlist::media(&segments, format))
            .await
            .map_err(TranscodeError::io)?;
        let init = (format == SegmentFormat::Fmp4).then_some(INIT);
        let files = init
            .into_iter()
            .chain(segments.iter().map(|segment| &*segment.name))
            .chain([INDEX]);
        for file in files {
            self.put(&format!("{}/{file}", step.name), file).await?;
        }
        self.in_sink(self.sink.finished(&rendition)).await?;
        self.list(rendition, outcome).await
    }

    /// Adds a rendition whose files are all stored to the master playlist.
    async fn list(&self, rendition: Rendition, outcome: &mut Outcome) -> Result<(), TranscodeError> {
        outcome.renditions.push(rendition);
        let path = self.dir.output().join(MASTER_PLAYLIST);
        let text = master_playlist(&outcome.renditions);
        tokio::fs::write(path, text).await.map_err(TranscodeError::io)?;
        self.put(MASTER_PLAYLIST, MASTER_PLAYLIST).await
    }

    async fn put(&self, name: &str, file: &str) -> Result<(), TranscodeError> {
        let path = self.dir.output().join(file);
        let size = tokio::fs::metadata(&path).await.map_err(TranscodeError::io)?.len();
        let file = OutputFile {
            name,
            content_type: content_type(name),
            path: &path,
            size,
        };
        self.in_sink(self.sink.put(file)).await
    }

    fn describe(&self, step: &Step, segments: &[Segment], recipe: String) -> Result<Rendition, TranscodeError> {
        let (peak, average) = bandwidth(segments);
        let mut codecs = Vec::new();
        if step.picture != Picture::None {
            let avc1 =
                playlist::avc1(&self.dir.output(), segments, self.shared.options.format).map_err(TranscodeError::io)?;
            codecs.push(avc1.ok_or_else(probe::broken)?);
        }
        if step.sound != Sound::None {
            codecs.push("mp4a.40.2".to_owned());
        }
        Ok(Rendition {
            name: step.name.clone(),
            resolution: step.picture.size(),
            frame_rate: step.picture.frame_rate().map(probe::Rate::value),
            codecs: codecs.join(","),
            bandwidth: peak,
            average_bandwidth: average,
            duration: segments.iter().map(|segment| segment.seconds).sum(),
            segments: u32::try_from(segments.len()).unwrap_or(u32::MAX),
            bytes: playlist::total(segments),
            copied: step.is_copy(),
            recipe,
        })
    }

    /// The arguments decide what is made.
    fn recipe(&self, source: &Source, step: &Step, boundaries: Option<&[f64]>) -> String {
        let args = command::rendition(source, step, boundaries, &self.shared.options);
        blake3::hash(args.join("\0").as_bytes()).to_hex()[..16].to_owned()
    }

    /// A picture from a tenth into the video, or its first. A video without one is still a video.
    async fn poster(&self, source: &Source) -> Result<bool, TranscodeError> {
        if source.video.is_none() || !self.shared.options.poster {
            return Ok(false);
        }
        let early = source.duration.map_or(0.0, |duration| (duration / 10.0).min(30.0));
        for at in [early, 0.0] {
            self.dir.clear_output().map_err(TranscodeError::io)?;
            let deadline = self.deadline().min(Instant::now() + SHORT);
            let args = command::poster(source, at, &self.shared.options);
            match self
                .shared
                .ask(&self.shared.ffmpeg, &args, self.dir.path(), deadline, self.cancel)
                .await
            {
                Err(error) if error.kind() == TranscodeErrorKind::Cancelled => return Err(error),
                _ => {}
            }
            let made = tokio::fs::metadata(self.dir.output().join(POSTER)).await;
            let sizes = 1..=self.shared.options.limits.segment;
            if made.is_ok_and(|file| file.is_file() && sizes.contains(&file.len())) {
                self.put(POSTER, POSTER).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads where the source is. A store that hangs must not keep the turn for ever; that the time is over is its fault, not the file's.
    async fn of_source<T>(&self, work: impl Future<Output = io::Result<T>>) -> Result<T, TranscodeError> {
        let read = self.cancel.or(timeout_at(self.deadline(), work)).await?;
        read.unwrap_or_else(|late| Err(late.into())).map_err(TranscodeError::io)
    }

    /// The same where the stream is kept.
    async fn in_sink<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, TranscodeError> {
        let late = |_| Err(Error::unavailable("The store took longer than a run may"));
        let stored = self.cancel.or(timeout_at(self.deadline(), work)).await?;
        stored.unwrap_or_else(late).map_err(TranscodeError::sink)
    }

    fn deadline(&self) -> Instant {
        self.begun + self.shared.options.limits.time
    }
}

/// Where segments begin, in seconds.
fn starts(segments: &[Segment]) -> Vec<f64> {
    let mut at = 0.0;
    let mut starts = Vec::with_capacity(segments.len());
    for segment in segments {
        starts.push(at);
        at += segment.seconds;
    }
    starts
}
