//! The one table from what went wrong to how HTTP says it.

use std::{error::Error as _, time::Duration};

use http::StatusCode;

use crate::error::{Error, ErrorKind};

/// The status of an answer that tells of an error of this kind.
pub(super) const fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid | ErrorKind::Interrupted => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound | ErrorKind::TargetNotFound => StatusCode::NOT_FOUND,
        ErrorKind::TooSlow => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::Conflict
        | ErrorKind::Incomplete
        | ErrorKind::OffsetMismatch
        | ErrorKind::Failed
        | ErrorKind::Superseded => StatusCode::CONFLICT,
        ErrorKind::Gone => StatusCode::GONE,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::ChecksumMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The same in tus, which has statuses of its own, and whose clients go on after 409, 423 and 5xx and give up after any
/// other 4xx: so a body that stalled is none of the client's fault there.
pub(super) fn tus_status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::ChecksumMismatch => StatusCode::from_u16(460).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY),
        ErrorKind::Superseded => StatusCode::LOCKED,
        ErrorKind::Failed => StatusCode::GONE,
        ErrorKind::TooSlow => StatusCode::SERVICE_UNAVAILABLE,
        kind => status(kind),
    }
}

/// `Retry-After` in whole seconds, rounded up: as the error says, else what suits its kind.
pub(super) fn retry_after(error: &Error) -> Option<u64> {
    let suits = match error.kind() {
        ErrorKind::QuotaExceeded => Some(Duration::from_secs(30)),
        ErrorKind::Unavailable => Some(Duration::from_secs(1)),
        _ => None,
    };
    let wait = error.retry_after().or(suits)?;
    Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
}

/// Tells the host's log of what is no fault of the client.
pub(super) fn log(error: &Error) {
    let cause = error.source().map(tracing::field::display);
    match error.kind() {
        ErrorKind::Internal => tracing::error!(%error, cause, "upload request failed"),
        ErrorKind::Unavailable | ErrorKind::NoSpace => tracing::warn!(%error, cause, "upload request failed"),
        kind => tracing::debug!(%error, cause, ?kind, "upload request refused"),
    }
}

/// The same for the IETF's protocol. Its clients give an upload up at any 4xx but 409, 413 and 429, and after a 5xx ask
/// where it continues; a 404 is all they know of an end.
pub(super) const fn resumable(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Superseded | ErrorKind::TooSlow => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::ChecksumMismatch => StatusCode::BAD_REQUEST,
        ErrorKind::Failed => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Gone => StatusCode::NOT_FOUND,
        kind => status(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up() {
        let busy = || Error::new(ErrorKind::Unavailable, "");
        assert_eq!(retry_after(&busy()), Some(1));
        assert_eq!(
            retry_after(&busy().with_retry_after(Duration::from_millis(2001))),
            Some(3)
        );
        assert_eq!(retry_after(&busy().with_retry_after(Duration::ZERO)), Some(1));
        assert_eq!(retry_after(&Error::not_found()), None);
        assert_eq!(retry_after(&Error::new(ErrorKind::QuotaExceeded, "")), Some(30));
    }
}
