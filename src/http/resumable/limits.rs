//! `Upload-Limit`: what a client is told before it runs into it.

use std::time::Duration;

use http::HeaderValue;

use super::{Resumable, version::Rules};
use crate::{
    engine::{Clock as _, SystemClock, Upload, Uploads},
    http::structured::MAX_INTEGER,
};

/// The limits of any upload.
pub(super) fn general(resumable: &Resumable, uploads: &Uploads, rules: &Rules) -> Option<HeaderValue> {
    rendered(resumable, uploads, rules, uploads.expire_after())
}

/// Those of `upload`, with the time it has left by this machine's clock.
pub(super) fn of(resumable: &Resumable, uploads: &Uploads, rules: &Rules, upload: &Upload) -> Option<HeaderValue> {
    let record = upload.record();
    let left = record.expires_at.map(|moment| {
        let left = moment.since(SystemClock::new().now());
        // The store's clock may go another way.
        record.expire_after.map_or(left, |after| left.min(after))
    });
    rendered(resumable, uploads, rules, left)
}

fn rendered(
    resumable: &Resumable,
    uploads: &Uploads,
    rules: &Rules,
    lifetime: Option<Duration>,
) -> Option<HeaderValue> {
    let name = rules.lifetime?;
    let max_size = Some(uploads.max_size()).filter(|max| *max < u64::MAX);
    let members = [
        ("max-size", max_size),
        ("max-append-size", resumable.max_append_size),
        ("min-append-size", resumable.min_append_size),
        (name, lifetime.map(|left| left.as_secs())),
    ];
    let mut members: Vec<String> = members
        .into_iter()
        .filter_map(|(name, limit)| Some(format!("{name}={}", limit?.min(MAX_INTEGER))))
        .collect();
    if members.is_empty() {
        members.push("min-size=0".to_owned());
    }
    HeaderValue::try_from(members.join(", ")).ok()
}
