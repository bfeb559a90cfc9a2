//! The one error type: what kind it is, a sentence that says what to do, and what lies beneath.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

use crate::upload::{Digest, State};

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type BoxError = Box<dyn StdError + Send + Sync>;

/// What went wrong, in terms a caller can act on.
///
/// Stores use few of them: [`Unavailable`](Self::Unavailable) (nothing is known of the outcome; ask
/// again), [`NoSpace`](Self::NoSpace), [`Superseded`](Self::Superseded) and
/// [`Internal`](Self::Internal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value is missing or not what it must be; [`Error::field`] names it.
    Invalid,
    /// Nobody said who is asking.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// No such upload, or one of somebody else: the two are never told apart.
    NotFound,
    /// The host knows no such target (the video an upload is for).
    TargetNotFound,
    /// The request contradicts what is stored; nothing was changed.
    Conflict,
    /// Chunks are missing; [`Error::missing`] lists them.
    Incomplete,
    /// An append began elsewhere than at the end; [`Error::offset`] is the true offset.
    OffsetMismatch,
    /// The upload was aborted, expired or deleted; [`Error::state`] tells which.
    Gone,
    /// The upload failed for good.
    Failed,
    /// Larger than a limit; [`Error::limit`] is the bound in bytes (or items).
    TooLarge,
    /// A content type or coding that is not understood.
    UnsupportedMediaType,
    /// The bytes are not those the checksum speaks of; see [`Error::expected`] and [`Error::actual`].
    ChecksumMismatch,
    /// The caller's quota or rate is used up.
    QuotaExceeded,
    /// The body ended early or could not be read.
    Interrupted,
    /// The body came slower than the configured minimum rate.
    TooSlow,
    /// A newer request for the same bytes took over.
    Superseded,
    /// A store is not available or did not answer; the outcome may be unknown. Ask again.
    Unavailable,
    /// The store has no room.
    NoSpace,
    /// Something that should not happen.
    Internal,
}

/// The crate's error: [`kind`](Self::kind), a sentence for a person, details and a source.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    missing: Vec<(u32, u32)>,
    offset: Option<u64>,
    limit: Option<u64>,
    state: Option<State>,
    digests: Option<(Digest, Digest)>,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` with a sentence that tells a person what to do.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            field: None,
            missing: Vec::new(),
            offset: None,
            limit: None,
            state: None,
            digests: None,
            retry_after: None,
            source: None,
        }))
    }

    /// [`ErrorKind::Invalid`] for the field named `field`.
    pub fn invalid(field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(ErrorKind::Invalid, message);
        error.0.field = Some(field.into());
        error
    }

    /// [`ErrorKind::Unavailable`]: a store did not answer, or its answer leaves the outcome open.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unavailable, message).with_retry_after(Duration::from_secs(1))
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// [`ErrorKind::NotFound`], with the same words for an unknown upload and for a stranger's.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(ErrorKind::NotFound, "Upload not found")
    }

    /// [`ErrorKind::TooLarge`] with the bound that was passed.
    pub fn too_large(message: impl Into<Cow<'static, str>>, limit: u64) -> Self {
        let mut error = Self::new(ErrorKind::TooLarge, message);
        error.0.limit = Some(limit);
        error
    }

    /// [`ErrorKind::ChecksumMismatch`]: the digest that was promised and the one that was computed.
    #[must_use]
    pub fn checksum_mismatch(expected: Digest, actual: Digest) -> Self {
        let mut error = Self::new(
            ErrorKind::ChecksumMismatch,
            "The bytes received do not match the checksum; send them again",
        );
        error.0.digests = Some((expected, actual));
        error
    }

    /// [`ErrorKind::Gone`] for an upload that ended in `state`.
    #[must_use]
    pub fn gone(state: State) -> Self {
        let mut error = Self::new(ErrorKind::Gone, format!("The upload was {state}; begin a new one"));
        error.0.state = Some(state);
        error
    }

    /// [`ErrorKind::Incomplete`] with the missing chunks as ranges, both ends included.
    #[must_use]
    pub fn incomplete(missing: Vec<(u32, u32)>) -> Self {
        let mut error = Self::new(
            ErrorKind::Incomplete,
            "Chunks are missing; send them, then assemble again",
        );
        error.0.missing = missing;
        error
    }

    /// [`ErrorKind::OffsetMismatch`] with the offset at which the next append must begin.
    #[must_use]
    pub fn offset_mismatch(offset: u64) -> Self {
        let mut error = Self::new(
            ErrorKind::OffsetMismatch,
            format!("The upload continues at byte {offset}"),
        );
        error.0.offset = Some(offset);
        error
    }

    /// Adds how long to wait before asking again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds what lies beneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind, to decide by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence for a person; the same as [`Display`](fmt::Display).
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The field that was [`Invalid`](ErrorKind::Invalid).
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// Missing chunks as ranges, both ends included.
    #[must_use]
    pub fn missing(&self) -> &[(u32, u32)] {
        &self.0.missing
    }

    /// Where the next append must begin, in bytes.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The bound that was passed.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.0.limit
    }

    /// The state an upload that is [`Gone`](ErrorKind::Gone) ended in.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        self.0.state
    }

    /// The digest that was promised.
    #[must_use]
    pub fn expected(&self) -> Option<&Digest> {
        self.0.digests.as_ref().map(|(expected, _)| expected)
    }

    /// The digest that was computed.
    #[must_use]
    pub fn actual(&self) -> Option<&Digest> {
        self.0.digests.as_ref().map(|(_, actual)| actual)
    }

    /// How long to wait before asking again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(field) = &self.0.field {
            debug.field("field", field);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<std::io::Error> for Error {
    /// `ENOSPC` and `EDQUOT` become [`ErrorKind::NoSpace`], "too many open files" and interruptions
    /// [`ErrorKind::Unavailable`], the rest [`ErrorKind::Internal`].
    fn from(source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        let error = match source.kind() {
            Io::StorageFull | Io::QuotaExceeded => Self::new(
                ErrorKind::NoSpace,
                "The store has no room left; try again when space was freed",
            ),
            Io::Interrupted | Io::TimedOut | Io::WouldBlock | Io::OutOfMemory => {
                Self::unavailable("The store is busy; try again")
            }
            _ if matches!(source.raw_os_error(), Some(EMFILE | ENFILE)) => {
                Self::unavailable("The server has no file descriptor left; try again")
            }
            _ => Self::internal("The store failed"),
        };
        error.with_source(source)
    }
}
