//! The host's code that takes part in an upload's life or is told of it: [`Hook`].

#[cfg(all(feature = "ffmpeg", unix))]
pub mod ffmpeg;

use std::future::Future;

use async_trait::async_trait;

use crate::{
    blob::BlobBody,
    error::Result,
    upload::{Event, Record},
};

/// Takes part in the life of uploads. Every method has a default that does nothing.
#[async_trait]
pub trait Hook: Send + Sync + 'static {
    /// Whether the outbox keeps events for this hook. Without it an event costs nothing.
    fn wants_events(&self) -> bool {
        true
    }

    /// Asked before an upload exists: an error vetoes it and is answered as it is; `record` may be
    /// changed in its metadata, file name and final key.
    async fn before_create(&self, record: &mut Record) -> Result<()> {
        let _ = record;
        Ok(())
    }

    /// Asked when all bytes are there and before they are published, with the bytes to inspect if
    /// [`wants_bytes`](Self::wants_bytes). An error of kind [`Invalid`](crate::ErrorKind::Invalid) or
    /// [`Forbidden`](crate::ErrorKind::Forbidden) refuses the file: the upload has failed. Any other error is
    /// tried again. It can be asked more than once for the same upload.
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
    /// later, with a growing delay.
    async fn on_event(&self, event: &Event) -> Result<()>;
}

/// A closure as a hook for events.
#[derive(Clone, Copy)]
pub(crate) struct OnEvent<F>(pub(crate) F);

#[async_trait]
impl<F, Fut> Hook for OnEvent<F>
where
    F: Fn(Event) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    async fn on_event(&self, event: &Event) -> Result<()> {
        (self.0)(event.clone()).await
    }
}
