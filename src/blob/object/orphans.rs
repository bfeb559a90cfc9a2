//! What `object_store` has no call for: to list multipart uploads and their parts.

use std::fmt;

use async_trait::async_trait;
use object_store::path::Path;

use super::place::Native;
use crate::error::Result;

/// A multipart upload that the backend has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfinished {
    pub(super) path: String,
    pub(super) id: String,
    /// When it began, by the backend's clock, in milliseconds since 1970.
    pub(super) begun: Option<i64>,
}

/// A part of a multipart upload that the backend has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) index: u32,
    /// Its entity tag without quotes.
    pub(super) tag: String,
    /// Its checksum, where the upload began with one.
    pub(super) sum: Option<String>,
}

/// Lists what is unfinished.
#[async_trait]
pub(super) trait Lister: fmt::Debug + Send + Sync {
    /// The parts of a multipart upload. `None` if there is no such upload.
    async fn parts(&self, native: &Native) -> Result<Option<Vec<Listed>>>;

    /// The multipart uploads beneath `prefix`.
    async fn uploads(&self, prefix: &Path) -> Result<Vec<Unfinished>>;
}
