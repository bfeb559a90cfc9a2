use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};
use tracing::Instrument as _;

use crate::{
    error::{Error, Result},
    planted::{Bug, planted},
};

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

    /// Does what must come to its end although its request may not: here, without a switch to another thread, and from
    /// where it is on as a task of its own if this future is dropped.
    pub(crate) fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> SeenThrough<T> {
        self.0.state().under_way += 1;
        SeenThrough {
            work: Some(work.boxed()),
            tasks: self.clone(),
            _working: Working(Arc::clone(&self.0)),
        }
    }

    /// Runs what nobody waits for.
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

/// Work that goes on if nobody waits for it any more.
pub(crate) struct SeenThrough<T: Send + 'static> {
    work: Option<BoxFuture<'static, Result<T>>>,
    tasks: Tasks,
    _working: Working,
}

impl<T: Send + 'static> Future for SeenThrough<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let Some(work) = &mut self.work else {
            return Poll::Ready(Err(shutting_down()));
        };
        let polled = AssertUnwindSafe(|| work.as_mut().poll(context));
        let result = match std::panic::catch_unwind(polled) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(_) => Err(Error::internal("The request failed; try again")),
        };
        self.work = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for SeenThrough<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and what was not acknowledged may be lost.
        if let Some(work) = self.work.take()
            && Handle::try_current().is_ok()
            && !planted(Bug::ClaimFreedOnDrop)
        {
            drop(self.tasks.spawn(work.in_current_span()));
        }
    }
}
