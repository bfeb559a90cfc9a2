use std::fmt;

use serde::{Deserialize, Serialize};

use super::{FileName, Key, Owner, Target, UploadId};

/// Names one event for ever: a hook that sees it again knows that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventId {
    upload: UploadId,
    number: u32,
}

impl EventId {
    /// The event with `number` of this upload; numbers count from 0 in the order of what happened.
    #[must_use]
    pub const fn new(upload: UploadId, number: u32) -> Self {
        Self { upload, number }
    }

    /// The upload it speaks of.
    #[must_use]
    pub const fn upload_id(self) -> UploadId {
        self.upload
    }

    /// The place of the event in the upload's life, from 0.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }
}

/// `UPLOAD-NUMBER`.
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.upload, self.number)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EventKind {
    /// The upload exists.
    Created,
    /// The blob is published under its key.
    Assembled,
    /// Aborted by a caller.
    Aborted,
    /// Nobody went on with it in time.
    Expired,
    /// It can never be assembled.
    Failed,
    /// The finished blob was deleted; or a partial upload ended because the blob that it was joined to is published.
    Deleted,
    /// A hook has finished its work: [`Event::hook`] says which.
    #[serde(rename = "hook-finished")]
    HookFinished,
    /// A hook failed for good: [`Event::hook`] says which.
    #[serde(rename = "hook-failed")]
    HookFailed,
}

impl EventKind {
    /// Whether it speaks of a hook rather than of the upload.
    #[must_use]
    pub const fn is_of_hook(self) -> bool {
        matches!(self, Self::HookFinished | Self::HookFailed)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Assembled => "assembled",
            Self::Aborted => "aborted",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Deleted => "deleted",
            Self::HookFinished => "hook-finished",
            Self::HookFailed => "hook-failed",
        })
    }
}

/// A fact about an upload, written with the state it speaks of in one step and told at least once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Names this event for ever.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// Who created the upload.
    pub owner: Owner,
    /// What the upload is for.
    pub target: Option<Target>,
    /// The name the client gave its file.
    pub file_name: FileName,
    /// Where the blob lies, or would have.
    pub key: Key,
    /// The blob's size in bytes, once known.
    pub size: Option<u64>,
    /// The hook that it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
}

impl Event {
    /// The upload it speaks of.
    #[must_use]
    pub fn upload_id(&self) -> UploadId {
        self.id.upload
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }
}
