use std::future::Future;

use tokio::sync::watch;

use super::error::TranscodeError;

/// Says when a run must stop: its caller is gone, or the transcoder shuts down.
#[derive(Clone, Debug)]
pub(super) struct Cancel {
    /// Closed when the future of the caller is dropped.
    pub(super) caller: watch::Receiver<()>,
    pub(super) shutdown: watch::Receiver<bool>,
}

impl Cancel {
    pub(super) async fn cancelled(&self) {
        let (mut caller, mut shutdown) = (self.caller.clone(), self.shutdown.clone());
        tokio::select! {
            biased;
            () = async { while caller.changed().await.is_ok() {} } => {}
            _ = shutdown.wait_for(|shut| *shut) => {}
        }
    }

    /// `work`, or an error as soon as the run must stop.
    pub(super) async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, TranscodeError> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(TranscodeError::cancelled()),
            done = work => Ok(done),
        }
    }
}
