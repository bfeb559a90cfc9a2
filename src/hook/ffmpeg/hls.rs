//! [`FfmpegHls`]: the transcoder as a hook.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{TryStreamExt as _, stream};
use tokio::sync::OnceCell;

use super::{Job, MediaSource, Outcome, Progress, TranscodeError, TranscodeOptions, Transcoder, store::Stored};
use crate::{
    blob::{BlobBody, BlobStore, ByteRange},
    error::{Error, ErrorKind, Result},
    hook::{Hook, Telling},
    upload::{Event, EventKind, Key, State},
};

/// Makes an HLS stream of each upload that is assembled, in the blob store, below the upload's [folder](Telling::derive):
///
/// ```text
/// master.m3u8                  lists what is finished, from the first rendition on
/// poster.jpg
/// 360p-1f9c0a44/index.m3u8     one folder for each attempt at a rendition
/// 360p-1f9c0a44/init.mp4
/// 360p-1f9c0a44/00000.m4s
/// ```
///
/// [`Uploads::read_derived`](crate::Uploads::read_derived) reads them. `master.m3u8` is put again, whole, each time that a rendition was finished:
/// any reader of the store can play it, also one that knows nothing of this crate, and it never lists anything half-made. What is
/// finished is kept with the upload, so that after a crash only the rendition is made again that was under way, in a
/// folder of its own; what is left of the attempt before is deleted first.
///
/// A blob on a local disk is read where it lies; from any other store it is copied to the working directory first.
///
/// How far it is and why it failed is in the upload's status. The upload itself is never harmed by it. When it is deleted the work stops,
/// and the engine deletes the stream.
///
/// ```no_run
/// # async fn f() -> tower_upload::Result<()> {
/// use tower_upload::{Uploads, access::OwnerOnly, hook::ffmpeg::{FfmpegHls, TranscodeOptions}};
///
/// let uploads = Uploads::open("./upload-data")
///     .authorizer(OwnerOnly)
///     .hook(FfmpegHls::new(TranscodeOptions::new("./upload-work")))
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
pub struct FfmpegHls {
    name: String,
    options: TranscodeOptions,
    transcoder: OnceCell<Transcoder>,
}

impl fmt::Debug for FfmpegHls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FfmpegHls")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Longer than anybody waits for a turn.
const A_WEEK: Duration = Duration::from_secs(7 * 86_400);

impl FfmpegHls {
    /// What the hook is named in records, if nothing else is said.
    pub const NAME: &str = "hls";

    /// A hook that works by these options. Looks for ffmpeg when the engine is built.
    #[must_use]
    pub fn new(options: TranscodeOptions) -> Self {
        Self {
            name: Self::NAME.to_owned(),
            options,
            transcoder: OnceCell::new(),
        }
    }

    /// What it is named in records; [`NAME`](Self::NAME) if not said.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    async fn transcoder(&self) -> Result<&Transcoder, TranscodeError> {
        self.transcoder.get_or_try_init(|| self.options.clone().open()).await
    }

    async fn convert(&self, event: &Event, telling: &Telling) -> Result<()> {
        let transcoder = self.transcoder().await.map_err(told)?;
        let sink = Arc::new(Stored::new(telling.clone(), self.options.limits.segment).await?);
        let source = source(telling.blobs(), &event.key);
        let progress = telling.clone();
        let job = Job::new(source, Arc::clone(&sink) as Arc<dyn super::HlsSink>)
            .on_progress(move |now| progress.progress(shown(now)));
        let outcome = transcoder.run(job).await.map_err(told)?;
        sink.conclude(&outcome).await?;
        note_shortfall(telling, &outcome).await
    }
}

#[async_trait]
impl Hook for FfmpegHls {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Assembled
    }

    fn works(&self) -> bool {
        true
    }

    fn time_limit(&self) -> Duration {
        self.options.limits.time.saturating_add(A_WEEK)
    }

    fn announcement(&self) -> Option<&str> {
        Some("HLS conversion in progress.")
    }

    async fn open(&self) -> Result<()> {
        let transcoder = self.transcoder().await?;
        let containment = transcoder.containment();
        if !containment.is_full() {
            tracing::warn!(?containment, "ffmpeg is not contained in full on this machine");
        }
        Ok(())
    }

    async fn close(&self) {
        if let Some(transcoder) = self.transcoder.get() {
            transcoder.shutdown().await;
        }
    }

    async fn on_event(&self, event: &Event, telling: &Telling) -> Result<()> {
        let result = tokio::select! {
            biased;
            () = telling.ended() => Err(Error::new(ErrorKind::Gone, "The upload was deleted")),
            result = self.convert(event, telling) => result,
        };
        let Err(error) = result else { return Ok(()) };
        // Its bytes go at once, and ffmpeg may have missed them before anybody has said here that the upload has ended.
        let has_ended = error.kind() == ErrorKind::Gone || has_ended(telling).await?;
        if !has_ended {
            return Err(error);
        }
        tracing::info!(id = %event.upload_id(), "an upload was deleted, and is not converted");
        Ok(())
    }
}

async fn has_ended(telling: &Telling) -> Result<bool> {
    let record = telling.record().await?;
    Ok(record.is_none_or(|record| record.state != State::Assembled))
}

fn source(blobs: &Arc<dyn BlobStore>, key: &Key) -> MediaSource {
    if let Some(path) = blobs.local_path(key) {
        return MediaSource::File(path);
    }
    // Opened when its turn has come: a connection would not wait as long.
    let (blobs, key) = (Arc::clone(blobs), key.clone());
    let bytes = stream::once(async move { blobs.read(&key, ByteRange::ALL).await }).try_flatten();
    MediaSource::Bytes(Box::pin(bytes) as BlobBody)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
fn shown(now: &Progress) -> crate::upload::Progress {
    let percent = now.percent.unwrap_or(0.0).clamp(0.0, 100.0);
    crate::upload::Progress::new(percent as u8, now.left)
}

/// The engine tells again what may succeed another time, and gives up what is [`Failed`](ErrorKind::Failed).
fn told(error: TranscodeError) -> Error {
    if let Some(source) = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>())
        && source.kind() == ErrorKind::Gone
    {
        return Error::new(ErrorKind::Gone, source.to_string());
    }
    let kind = if error.is_retryable() {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Failed
    };
    tracing::debug!(kind = ?error.kind(), detail = error.detail(), "a video was not converted");
    Error::new(kind, error.message().to_owned()).with_source(error)
}

async fn note_shortfall(telling: &Telling, outcome: &Outcome) -> Result<()> {
    let note = outcome.shortfall.map_or_else(String::new, |short| {
        format!(
            "The file is damaged: {:.0} of {:.0} seconds could be read",
            short.made, short.expected
        )
    });
    telling.note("shortfall", &note).await
}
