use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::error::{Error, ErrorKind};

/// Which limit ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// The time of the whole run.
    Time,
    /// Processor seconds of one process.
    Cpu,
    /// Memory of one process.
    Memory,
    /// Bytes written.
    Output,
    /// Bytes of one segment.
    Segment,
    /// Neither progress nor output for too long.
    Stall,
    /// Killed by the system: processor seconds or memory were used up.
    Killed,
}

/// Why a file did not become a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TranscodeErrorKind {
    /// Not a container that is taken, or nothing in it that could be shown.
    Unsupported,
    /// A container that is taken, but it cannot be read.
    Broken,
    /// Longer, larger or with more streams than is allowed, as it says itself.
    TooLarge,
    /// It took more than is allowed to process it.
    LimitReached(Limit),
    /// ffmpeg gave up with an error of its own: it would do so again.
    Refused,
    /// ffmpeg died of a signal: a second try may succeed.
    Crashed,
    /// ffmpeg or ffprobe is not there, cannot be started or lacks an encoder.
    Missing,
    /// The containment that was asked for cannot be had on this machine.
    Uncontained,
    /// The run was dropped or the transcoder shut down.
    Cancelled,
    /// The sink did not take what was made.
    Sink,
    /// The working directory or the source could not be read or written.
    Io,
}

/// Why a file did not become a stream: a [kind](Self::kind), a sentence that may be shown to whoever uploaded it, and
/// [details](Self::detail) for the log only.
pub struct TranscodeError(Box<Inner>);

struct Inner {
    kind: TranscodeErrorKind,
    message: Cow<'static, str>,
    detail: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl TranscodeError {
    pub(super) fn new(kind: TranscodeErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            detail: String::new(),
            source: None,
        }))
    }

    pub(super) fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(TranscodeErrorKind::Unsupported, message)
    }

    pub(super) fn cancelled() -> Self {
        Self::new(
            TranscodeErrorKind::Cancelled,
            "The work was stopped; it can begin again",
        )
    }

    pub(super) fn io(source: std::io::Error) -> Self {
        let message = "The server could not read or write its working files; try again later";
        Self::new(TranscodeErrorKind::Io, message).with_source(source)
    }

    pub(super) fn sink(source: Error) -> Self {
        let message = "The stream could not be stored; try again later";
        Self::new(TranscodeErrorKind::Sink, message).with_source(source)
    }

    pub(super) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = detail.into();
        self
    }

    pub(super) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind, to decide by.
    #[must_use]
    pub fn kind(&self) -> TranscodeErrorKind {
        self.0.kind
    }

    /// A sentence without paths or anything of ffmpeg's own words; the same as [`Display`](fmt::Display).
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The end of what ffmpeg wrote to its standard error, at most 4 KiB: for a log. A client's file has a say in it.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Whether the same file may succeed another time. What is final would end the same way again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            TranscodeErrorKind::Unsupported
            | TranscodeErrorKind::Broken
            | TranscodeErrorKind::TooLarge
            | TranscodeErrorKind::Refused => false,
            TranscodeErrorKind::LimitReached(limit) => matches!(limit, Limit::Killed | Limit::Stall),
            TranscodeErrorKind::Crashed
            | TranscodeErrorKind::Missing
            | TranscodeErrorKind::Uncontained
            | TranscodeErrorKind::Cancelled
            | TranscodeErrorKind::Sink
            | TranscodeErrorKind::Io => true,
        }
    }
}

impl fmt::Display for TranscodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for TranscodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TranscodeError");
        debug.field("kind", &self.0.kind).field("message", &self.0.message);
        if !self.0.detail.is_empty() {
            debug.field("detail", &self.0.detail);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for TranscodeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<TranscodeError> for Error {
    /// What may succeed another time becomes [`ErrorKind::Unavailable`], a file that is not taken
    /// [`ErrorKind::UnsupportedMediaType`], one that is too large [`ErrorKind::TooLarge`], the rest [`ErrorKind::Invalid`].
    fn from(error: TranscodeError) -> Self {
        let kind = match error.kind() {
            _ if error.is_retryable() => ErrorKind::Unavailable,
            TranscodeErrorKind::Unsupported => ErrorKind::UnsupportedMediaType,
            TranscodeErrorKind::TooLarge | TranscodeErrorKind::LimitReached(_) => ErrorKind::TooLarge,
            _ => ErrorKind::Invalid,
        };
        Self::new(kind, error.message().to_owned()).with_source(error)
    }
}
