//! What an operator sees: events and spans for the log, and figures for a dashboard.
//!
//! The engine and the HTTP layer say here what happened; what becomes of it is this room's business. Figures are the feature
//! `metrics`: without it every function here that only counts is empty. Nothing is measured for each frame of a body, and no label is
//! an id, an owner or a name that a client gave.

mod figures;
mod sink;
#[cfg(feature = "metrics")]
mod stores;

use std::{sync::Arc, time::Instant};

pub(crate) use sink::{ENABLED, describe};

#[cfg(feature = "http")]
use tracing::field::Empty;

use crate::{
    blob::BlobStore,
    error::{Error, ErrorKind},
    metadata::{MetadataStore, Unfinished},
    upload::{DeadLetter, Owner, Protocol, Record, State, UploadId},
};

/// Puts what measures their calls around the stores.
pub(crate) fn measured(
    blobs: Arc<dyn BlobStore>,
    metadata: Arc<dyn MetadataStore>,
) -> (Arc<dyn BlobStore>, Arc<dyn MetadataStore>) {
    #[cfg(feature = "metrics")]
    return (
        Arc::new(stores::MeasuredBlobs(blobs)),
        Arc::new(stores::MeasuredMetadata(metadata)),
    );
    #[cfg(not(feature = "metrics"))]
    (blobs, metadata)
}

/// The upload that the present request turned out to be about.
pub(crate) fn concerns(id: UploadId) {
    tracing::Span::current().record("upload", tracing::field::display(id));
}

/// An upload was created.
pub(crate) fn created(record: &Record) {
    concerns(record.id);
    tracing::debug!(id = %record.id, owner = record.owner.as_str(), protocol = protocol(record), "an upload was created");
    sink::add(&figures::CREATED, &[protocol(record).into()], 1);
}

/// An upload came to its end.
pub(crate) fn ended(record: &Record) {
    let (id, owner) = (record.id, record.owner.as_str());
    match record.state {
        State::Open | State::Assembling => return,
        State::Failed => {
            let reason = record.failure.as_deref().unwrap_or("unknown");
            tracing::warn!(%id, owner, reason, "an upload failed for good");
        }
        State::Assembled => {
            let size = record.blob.as_ref().map(|blob| blob.size);
            tracing::info!(%id, owner, size, "an upload was assembled");
        }
        state => tracing::info!(%id, owner, %state, "an upload ended without a blob"),
    }
    let state = match record.state {
        State::Assembled => "assembled",
        State::Aborted => "aborted",
        State::Expired => "expired",
        State::Deleted => "deleted",
        _ => "failed",
    };
    sink::add(&figures::ENDED, &[state.into()], 1);
}

/// So many bytes of bodies were handed to the blob store.
pub(crate) fn received(bytes: u64) {
    sink::add(&figures::RECEIVED_BYTES, &[], bytes);
}

/// These parts are durable and count from now on.
#[cfg(feature = "metrics")]
fn committed(parts: &[crate::upload::Part]) {
    sink::add(&figures::COMMITTED_PARTS, &[], parts.len() as u64);
    sink::add(&figures::COMMITTED_BYTES, &[], parts.iter().map(|part| part.len).sum());
}

/// How many uploads are unfinished, of all processes that share the metadata store.
pub(crate) fn unfinished(now: Unfinished) {
    sink::set(&figures::OPEN_UPLOADS, &[], now.uploads);
    sink::set(&figures::OPEN_BYTES, &[], now.bytes);
}

/// How much of the budget for bodies is in use, in bytes.
pub(crate) fn budget(memory: u64, files: u64) {
    sink::set(&figures::BUDGET_BYTES, &["memory".into()], memory);
    sink::set(&figures::BUDGET_BYTES, &["files".into()], files);
}

/// How one attempt at an assembly ended, which began at `began`.
pub(crate) fn assembled(began: Instant, state: Result<State, &Error>) {
    let outcome = match state {
        Ok(State::Assembled) => "assembled",
        Ok(_) => "ended",
        Err(error) if error.kind() == ErrorKind::Incomplete => "reopened",
        Err(_) => "error",
    };
    sink::time(&figures::ASSEMBLY, &[outcome.into()], began.elapsed());
}

/// What came of telling a hook one event.
pub(crate) fn told(hook: &str, began: Instant, result: Result<(), &Error>) {
    let outcome = if result.is_ok() { "heard" } else { "error" };
    sink::time(
        &figures::HOOK,
        &[hook.to_owned().into(), outcome.into()],
        began.elapsed(),
    );
}

/// An event was told to a hook in vain for the last time.
pub(crate) fn dead_letter(letter: &DeadLetter) {
    let DeadLetter { hook, event, error, .. } = letter;
    tracing::error!(id = %event.upload_id(), hook, event = %event.id, error, "a hook was told in vain, and is told no more");
    sink::add(&figures::DEAD_LETTERS, &[hook.clone().into()], 1);
}

/// What the receiver of a webhook answered, if it did.
#[cfg(feature = "webhook")]
pub(crate) fn webhook(hook: &str, status: Option<u16>) {
    let answer = match status {
        None => "none",
        Some(410) => "410",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
    };
    sink::add(&figures::WEBHOOK, &[hook.to_owned().into(), answer.into()], 1);
}

/// One request, until it is answered or dropped.
#[cfg(feature = "http")]
#[derive(Debug)]
pub(crate) struct Request {
    began: Instant,
    dialect: &'static str,
    outcome: &'static str,
}

#[cfg(feature = "http")]
impl Request {
    /// The span that it is answered in: without its path, which may hold a token.
    pub(crate) fn span(method: &::http::Method, owner: &Owner) -> tracing::Span {
        tracing::info_span!(
            "upload_request",
            %method,
            owner = owner.as_str(),
            dialect = Empty,
            upload = Empty,
            status = Empty,
        )
    }

    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            dialect: "none",
            outcome: "dropped",
        }
    }

    pub(crate) fn speaks(&mut self, dialect: &'static str) {
        self.dialect = dialect;
        tracing::Span::current().record("dialect", dialect);
    }

    /// By the class of the status, which is that of HTTP.
    pub(crate) fn answered(&mut self, status: u16) {
        self.outcome = match status {
            ..400 => "success",
            400..500 => "refused",
            _ => "error",
        };
        tracing::Span::current().record("status", status);
    }
}

#[cfg(feature = "http")]
impl Drop for Request {
    fn drop(&mut self) {
        let labels = [self.dialect.into(), self.outcome.into()];
        sink::time(&figures::REQUEST, &labels, self.began.elapsed());
    }
}

/// A call of a store that took `time`, and what kind of error it ended in.
#[cfg(feature = "metrics")]
fn called(store: &'static str, operation: &'static str, time: std::time::Duration, error: Option<&'static str>) {
    sink::time(&figures::STORE_CALL, &[store.into(), operation.into()], time);
    if let Some(kind) = error {
        sink::add(
            &figures::STORE_ERRORS,
            &[store.into(), operation.into(), kind.into()],
            1,
        );
    }
}

#[cfg(feature = "metrics")]
const fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::NoSpace => "no_space",
        ErrorKind::Superseded => "superseded",
        ErrorKind::Internal => "internal",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Invalid | ErrorKind::TooLarge => "invalid",
        _ => "other",
    }
}

const fn protocol(record: &Record) -> &'static str {
    match record.protocol {
        Protocol::Engine => "engine",
        Protocol::Chunk => "chunk",
        Protocol::Tus => "tus",
        Protocol::Resumable => "resumable",
    }
}
