//! What the failure of a request says.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no such object or multipart upload.
    NotThere,
    /// There is an object already.
    Exists,
    /// A part is not the one that was asked for.
    OtherPart,
    /// Parts are there, and no object can be made of such.
    Unfit,
    /// The backend cannot do it.
    CannotDo,
    /// It refused, for another reason.
    Refused,
    /// Nothing is known of the outcome.
    Unknown,
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) why: Why,
    what: &'static str,
    source: Option<object_store::Error>,
}

impl Trouble {
    pub(super) fn new(what: &'static str, source: object_store::Error) -> Self {
        Self {
            why: why(&source),
            what,
            source: Some(source),
        }
    }

    /// As this side knows it.
    pub(super) const fn plain(why: Why, what: &'static str) -> Self {
        Self {
            why,
            what,
            source: None,
        }
    }

    /// Whether nothing is known of the outcome although there was an answer, or a broken connection.
    pub(super) const fn was_answered(&self) -> bool {
        matches!(self.why, Why::Unknown) && self.source.is_some()
    }

    /// No answer came in all its time.
    pub(super) fn after(what: &'static str, time: Duration) -> Self {
        tracing::warn!(what, ?time, "the object store did not answer in time");
        Self::plain(Why::Unknown, what)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        let Trouble { why, what, source } = trouble;
        let error = match why {
            Why::NotThere => Self::new(ErrorKind::NotFound, format!("The object store has nothing to {what}")),
            Why::CannotDo => Self::internal(format!("The object store cannot {what}")),
            Why::Refused | Why::Exists | Why::OtherPart | Why::Unfit => {
                Self::unavailable(format!("The object store refused to {what}; look at its settings"))
            }
            Why::Unknown => Self::unavailable(format!("The object store did not {what}; try again")),
        };
        match source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// What an error says, by its kind and by the code that the backend gave: there is no other way to tell.
fn why(error: &object_store::Error) -> Why {
    use object_store::Error as E;
    let said = || {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        text
    };
    // With its tags: paths are in the text too, and those a client chose.
    let names = |codes: &[&str]| {
        let text = said();
        codes.iter().any(|code| text.contains(&format!("<Code>{code}</Code>")))
    };
    let status = |first: &str| said().contains(&format!("status code: {first}"));
    match error {
        E::NotFound { .. } if names(&["NoSuchBucket", "ContainerNotFound"]) => Why::Refused,
        E::NotFound { .. } => Why::NotThere,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => Why::Exists,
        E::NotSupported { .. } | E::NotImplemented { .. } => Why::CannotDo,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } | E::InvalidPath { .. } => Why::Refused,
        _ if names(&["NoSuchUpload"]) => Why::NotThere,
        _ if names(&["InvalidPart", "InvalidBlockList", "InvalidBlockId"]) => Why::OtherPart,
        _ if names(&["EntityTooSmall", "EntityTooLarge", "InvalidPartOrder"]) => Why::Unfit,
        _ if status("4") && !status("408") && !status("429") => Why::Refused,
        _ => Why::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn what_is_definite_is_told_from_what_is_not() {
        let lost = "non-2xx status code: 400 Bad Request: <Error><Code>InvalidPart</Code></Error>";
        for (text, expected) in [
            (lost, Why::OtherPart),
            ("status code: 400: <Code>InvalidBlockList</Code>", Why::OtherPart),
            ("status code: 400: <Code>NoSuchUpload</Code>", Why::NotThere),
            ("status code: 400: <Code>EntityTooSmall</Code>", Why::Unfit),
            ("status code: 403 Forbidden", Why::Refused),
            ("PUT /InvalidPart.mp4?uploadId=NoSuchUpload: timed out", Why::Unknown),
            ("status code: 429 Too Many Requests", Why::Unknown),
            ("status code: 503: <Code>SlowDown</Code>", Why::Unknown),
            (
                "Server returned error response: <Code>InternalError</Code>",
                Why::Unknown,
            ),
            ("connection reset", Why::Unknown),
        ] {
            assert_eq!(why(&said(text)), expected, "{text}");
        }
        let missing = |source: &str| object_store::Error::NotFound {
            path: "x".into(),
            source: source.to_owned().into(),
        };
        assert_eq!(why(&missing("<Code>NoSuchUpload</Code>")), Why::NotThere);
        assert_eq!(why(&missing("<Code>NoSuchBucket</Code>")), Why::Refused);
    }
}
