//! Chunked, resumable uploads for Tower.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        reason = "tests make small numbers"
    )
)]

pub mod access;
pub mod blob;
mod engine;
mod error;
#[cfg(all(feature = "http", any(test, feature = "conformance")))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hook;
#[cfg(feature = "http")]
pub mod http;
pub mod metadata;
mod planted;
#[cfg(test)]
mod simulation;
pub mod upload;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

#[doc(inline)]
pub use access::{Authorizer, Caller};
pub use engine::*;
pub use error::{Error, ErrorKind, Result};
#[doc(inline)]
pub use hook::Hook;
#[doc(inline)]
pub use upload::{Digest, Event, EventKind, FileName, Key, Owner, State, Target, UploadId};
