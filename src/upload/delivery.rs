use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Event, EventId, Timestamp};

/// An event on its way to the hooks that wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outgoing {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Names of the hooks that were not told yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owed: Vec<String>,
}

/// How one hook is getting on with an upload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Delivery {
    /// What it has come to. `None` for hooks whose outcome is nobody's business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// How often the event that it is told of now has failed.
    #[serde(default)]
    pub attempts: u32,
    /// How often it was told, if it works, without coming to any end: the process ended, or stood still for longer than its lease. What it
    /// finishes on the way sets it back.
    #[serde(default, skip_serializing_if = "is_none")]
    pub interrupted: u32,
    /// Until when it is left alone, because it asked for it when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// What it said the last time it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it left for others to read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_none(count: &u32) -> bool {
    *count == 0
}

/// What a hook that works has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// It works.
    Running,
    /// It is done.
    Finished,
    /// It was given up.
    Failed,
}

/// How far a hook is with its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// How long it will take yet, if that can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Duration>,
}

impl Progress {
    /// `percent` done, at most 100, and `left` to go.
    #[must_use]
    pub fn new(percent: u8, left: Option<Duration>) -> Self {
        Self {
            percent: percent.min(100),
            left,
        }
    }
}

/// An event that a hook was told of in vain, until it was given up: for a person to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The hook.
    pub hook: String,
    /// The event.
    pub event: Event,
    /// How often it was told.
    pub attempts: u32,
    /// What it said at last.
    pub error: String,
}

impl DeadLetter {
    /// Whether it is this event for this hook.
    #[must_use]
    pub fn is(&self, event: EventId, hook: &str) -> bool {
        self.event.id == event && self.hook == hook
    }
}
