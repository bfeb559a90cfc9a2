//! Stores that fail on purpose: [`FaultyMetadata`] and [`FaultyBlobs`] wrap any store and ask a plan,
//! [`Faults`], before each call.
//!
//! ```
//! # #[tokio::main] async fn main() {
//! use std::sync::Arc;
//! use tower_upload::{
//!     ErrorKind,
//!     blob::{BlobStore, MemoryBlobs},
//!     conformance::fault::{Call, Fault, FaultyBlobs, ScriptedFaults},
//!     upload::Key,
//! };
//!
//! // The second `delete` is done, but its answer gets lost.
//! let plan = Arc::new(ScriptedFaults::new().on(Call::Delete, 1, Fault::FailAfter));
//! let blobs = FaultyBlobs::new(MemoryBlobs::new(), plan.clone());
//! let key = Key::parse("a.mp4").unwrap();
//! assert!(blobs.delete(&key).await.is_ok());
//! assert_eq!(blobs.delete(&key).await.unwrap_err().kind(), ErrorKind::Unavailable);
//! assert_eq!(plan.calls(), [Call::Delete, Call::Delete]);
//! # }
//! ```
//!
//! To try every single fault, run once with a plan that injects none, count its [`calls`](ScriptedFaults::calls), then
//! run once for each with [`nth`](ScriptedFaults::nth). For long histories there is [`SeededFaults`].
//!
//! All waiting is tokio's, so that it works with a paused clock.

use std::{future::Future, time::Duration};

use crate::error::{Error, Result};

mod blobs;
mod metadata;
mod plan;

pub use blobs::FaultyBlobs;
pub use metadata::FaultyMetadata;
pub use plan::{ScriptedFaults, SeededFaults};

/// Says what shall happen to each call. A closure `Fn(Call) -> Fault` is one.
pub trait Faults: Send + Sync + 'static {
    /// What shall happen to the call that begins now.
    fn next(&self, call: Call) -> Fault;
}

impl<F: Fn(Call) -> Fault + Send + Sync + 'static> Faults for F {
    fn next(&self, call: Call) -> Fault {
        self(call)
    }
}

/// A method of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// `MetadataStore::create`.
    Create,
    /// `MetadataStore::load`.
    Load,
    /// `MetadataStore::commit`.
    Commit,
    /// `MetadataStore::update`.
    Update,
    /// `MetadataStore::due`.
    Due,
    /// `MetadataStore::list`.
    List,
    /// `MetadataStore::remove`.
    Remove,
    /// `BlobStore::begin`.
    Begin,
    /// `BlobStore::open` and `append`.
    Open,
    /// `PartWriter::write`.
    Write,
    /// `PartWriter::finish`.
    Finish,
    /// `BlobStore::read_parts`.
    ReadParts,
    /// `BlobStore::join`.
    Join,
    /// `BlobStore::complete`.
    Complete,
    /// `BlobStore::discard`.
    Discard,
    /// `BlobStore::begun`.
    Begun,
    /// `BlobStore::head`.
    Head,
    /// `BlobStore::read`.
    Read,
    /// `BlobStore::delete`.
    Delete,
    /// `BlobStore::put`.
    Put,
    /// `BlobStore::clear`.
    Clear,
}

impl Call {
    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(
            self,
            Self::Load | Self::List | Self::ReadParts | Self::Begun | Self::Head | Self::Read
        )
    }
}

/// What happens to a call. Errors are of kind [`Unavailable`](crate::ErrorKind::Unavailable): the caller
/// cannot tell whether the call was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing bad.
    None,
    /// An error; not done.
    FailBefore,
    /// Done, then an error: the answer got lost.
    FailAfter,
    /// Never an answer; not done.
    Hang,
    /// Done, then never an answer.
    HangAfter,
    /// An error now; done after this time, by a task of its own. A read is not done at all.
    LateApply(Duration),
    /// Done after this time, then the answer.
    Delay(Duration),
}

/// Makes `call` suffer `fault`.
async fn suffer<T>(fault: Fault, call: impl Future<Output = Result<T>> + Send + 'static) -> Result<T>
where
    T: Send + 'static,
{
    match fault {
        Fault::LateApply(wait) => {
            // Nobody waits for it: that is the fault.
            drop(tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                drop(call.await);
            }));
            Err(injected())
        }
        fault => suffer_at_once(fault, call).await,
    }
}

async fn suffer_at_once<T>(fault: Fault, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    match fault {
        Fault::None => call.await,
        Fault::Delay(wait) => {
            tokio::time::sleep(wait).await;
            call.await
        }
        Fault::FailBefore | Fault::LateApply(_) => Err(injected()),
        Fault::FailAfter => {
            drop(call.await);
            Err(injected())
        }
        Fault::Hang => std::future::pending().await,
        Fault::HangAfter => {
            drop(call.await);
            std::future::pending().await
        }
    }
}

fn injected() -> Error {
    Error::unavailable("A fault was injected here; the outcome is unknown")
}
