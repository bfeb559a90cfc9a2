use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle};

use crate::error::{Error, Result};

/// Counts what is under way, so that a shutdown can wait for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    closing: bool,
}

/// One piece of work under way, until dropped.
#[derive(Debug)]
pub(crate) struct Working(Arc<Shared>);

impl Tasks {
    /// Begins a request's work, unless the engine is shutting down.
    pub(crate) fn begin(&self) -> Result<Working> {
        let mut state = self.0.state();
        if state.closing {
            return Err(shutting_down());
        }
        state.under_way += 1;
        Ok(Working(Arc::clone(&self.0)))
    }

    /// Runs what must come to its end although its request may not.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.state().under_way += 1;
        let working = Working(Arc::clone(&self.0));
        tokio::spawn(async move {
            let result = work.await;
            drop(working);
            result
        })
    }

    /// Refuses new requests and waits for those under way.
    pub(crate) async fn close(&self, deadline: Duration) {
        self.0.state().closing = true;
        self.0.changed.notify_waiters();
        // Late ones are left to what durability there is: they were not acknowledged.
        let _ = tokio::time::timeout(deadline, self.until(|state| state.under_way == 0)).await;
    }

    /// Ends when the engine is shutting down.
    pub(crate) async fn closing(&self) {
        self.until(|state| state.closing).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if reached(&self.0.state()) {
                return;
            }
            changed.await;
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way -= 1;
        if state.under_way == 0 {
            drop(state);
            self.0.changed.notify_waiters();
        }
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
