//! The host's code that takes part in an upload's life or is told of it: [`Hook`].
//!
//! An event is written in one step with the state it speaks of, into the record's outbox, together with the names of the hooks that
//! want it. Each hook is then told of each upload's events one by one, in their order, until it has heard them: by the process
//! where it happened, or by any other if that one dies. One hook that fails holds up no other, nor does one that works for long, but for what happens to the upload while it does. An event that was told
//! in vain too often becomes a [dead letter](crate::Uploads::dead_letters), which a person can look at and have told again.

#[cfg(all(feature = "ffmpeg", unix))]
pub mod ffmpeg;

use std::{future::Future, time::Duration};

use async_trait::async_trait;

use crate::{
    blob::BlobBody,
    error::Result,
    upload::{Event, EventKind, Record},
};

mod channel;
#[cfg(feature = "webhook")]
pub mod webhook;

pub use channel::Channel;
#[cfg(feature = "webhook")]
pub use webhook::Webhook;

pub use crate::engine::Telling;

/// Takes part in the life of uploads. Every method has a default that does nothing.
#[async_trait]
pub trait Hook: Send + Sync + 'static {
    /// Names the hook in records: what it is still owed is found by it after a restart, so it stays the same from release to
    /// release. Each hook of an engine has its own.
    fn name(&self) -> &str {
        "hook"
    }

    /// Whether it is told of events of this kind. What no hook wants costs nothing.
    fn wants(&self, kind: EventKind) -> bool {
        let _ = kind;
        true
    }

    /// Whether it works for long: how far it is, what it left and what became of it is then kept with the upload, shown in its
    /// status, and told to the other hooks ([`HookFinished`](EventKind::HookFinished), [`HookFailed`](EventKind::HookFailed)).
    /// When the process shuts down it is not waited for, but dropped, and told again elsewhere.
    fn works(&self) -> bool {
        false
    }

    /// How long it may take over one event before it is dropped and told again, and over one
    /// [`before_publish`](Self::before_publish), in which it may have to read the whole file, before it is dropped and asked again
    /// (with twice the time at each further attempt, up to 32 times): five minutes unless said otherwise.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(300)
    }

    /// What it goes on to do after an assembly, as a sentence for the one who uploaded; told with the outcome of the
    /// assembly by protocols that have a place for it.
    fn announcement(&self) -> Option<&str> {
        None
    }

    /// Called once before the engine begins its work: looks whether what the hook needs is there.
    ///
    /// # Errors
    /// Any keeps the engine from being built.
    async fn open(&self) -> Result<()> {
        Ok(())
    }

    /// Called when the engine has [shut down](crate::Uploads::shutdown): ends what the hook still has running.
    async fn close(&self) {}

    /// Asked before an upload exists: an error vetoes it and is answered as it is; `record` may be
    /// changed in its metadata, file name and final key. A key that is left as it is follows the file name. Clients that
    /// address the upload by its name go on with the one they gave it.
    async fn before_create(&self, record: &mut Record) -> Result<()> {
        let _ = record;
        Ok(())
    }

    /// Asked when all bytes are there and before they are published, with the bytes to inspect if
    /// [`wants_bytes`](Self::wants_bytes). An error of kind [`Invalid`](crate::ErrorKind::Invalid) or
    /// [`Forbidden`](crate::ErrorKind::Forbidden) refuses the file: the upload has failed. After any other error, a panic, or
    /// when [`time_limit`](Self::time_limit) is over the upload is not published yet and the hook is asked again later, with a
    /// growing delay. It can be asked more than once for the same upload.
    ///
    /// On a store that cannot read parts before it completes them (S3) the bytes are those of the
    /// object, which is then visible under its key already; a refusal deletes it.
    async fn before_publish(&self, record: &Record, bytes: Option<BlobBody>) -> Result<()> {
        let _ = (record, bytes);
        Ok(())
    }

    /// Whether [`before_publish`](Self::before_publish) wants to read the bytes, which costs a read of the whole file.
    fn wants_bytes(&self) -> bool {
        false
    }

    /// Told of `event`, at least once, in order for each upload, also after a crash. On an error it is told again
    /// later, with a growing delay, up to [so many times](crate::engine::Builder::hook_attempts); after one of kind
    /// [`Invalid`](crate::ErrorKind::Invalid), [`Forbidden`](crate::ErrorKind::Forbidden) or [`Failed`](crate::ErrorKind::Failed) not
    /// again. One that says [how long to wait](crate::Error::with_retry_after), beyond a second and up to an hour, is told no
    /// event of this upload before that; it never shortens the delay.
    async fn on_event(&self, event: &Event, telling: &Telling) -> Result<()> {
        let _ = (event, telling);
        Ok(())
    }
}

/// A closure as a hook for events.
#[derive(Clone)]
pub(crate) struct OnEvent<F> {
    pub(crate) name: String,
    pub(crate) tell: F,
}

#[async_trait]
impl<F, Fut> Hook for OnEvent<F>
where
    F: Fn(Event) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    async fn on_event(&self, event: &Event, _: &Telling) -> Result<()> {
        (self.tell)(event.clone()).await
    }
}
