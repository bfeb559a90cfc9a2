use std::{future::Future, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

use crate::error::{Error, Result};

/// Counts what is under way, so that a shutdown can wait for it.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    state: watch::Sender<(usize, bool)>,
}

/// One piece of work under way, until dropped.
#[derive(Debug)]
pub(crate) struct Working(watch::Sender<(usize, bool)>);

impl Tasks {
    pub(crate) fn new() -> Self {
        Self {
            state: watch::Sender::new((0, false)),
        }
    }

    /// Begins a request's work, unless the engine is shutting down.
    pub(crate) fn begin(&self) -> Result<Working> {
        let mut closed = false;
        self.state.send_modify(|(count, closing)| {
            closed = *closing;
            *count += usize::from(!closed);
        });
        if closed {
            Err(shutting_down())
        } else {
            Ok(Working(self.state.clone()))
        }
    }

    /// Runs what must come to its end although its request may not.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.state.send_modify(|(count, _)| *count += 1);
        let working = Working(self.state.clone());
        tokio::spawn(async move {
            let result = work.await;
            drop(working);
            result
        })
    }

    /// Refuses new requests and waits for those under way.
    pub(crate) async fn close(&self, deadline: Duration) {
        self.state.send_modify(|(_, closing)| *closing = true);
        let mut state = self.state.subscribe();
        // Late ones are left to what durability there is: they were not acknowledged.
        let _ = tokio::time::timeout(deadline, state.wait_for(|(count, _)| *count == 0)).await;
    }

    pub(crate) async fn closing(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|(_, closing)| *closing).await;
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.send_modify(|(count, _)| *count -= 1);
    }
}

pub(crate) fn shutting_down() -> Error {
    Error::unavailable("The server is going down; try again in a moment")
}

/// The result of a spawned task; one that was lost with the runtime is unavailable.
pub(crate) async fn join<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Error::internal("The request failed; try again").with_source(error)),
        Err(_) => Err(shutting_down()),
    }
}
