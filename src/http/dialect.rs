//! Which protocol a request speaks. A dialect parses the request, calls the engine and renders the answer,
//! each in a file of its own; a new one is a file, a variant here and a line in [`Dialect::of`].

use std::sync::Arc;

use http::{Response, request::Parts};

use super::{
    body::{RequestBody, UploadBody},
    chunk_api,
    service::Settings,
};
use crate::{access::Caller, engine::Uploads};

/// A request with all that is needed to answer it.
pub(super) struct Exchange {
    pub(super) uploads: Uploads,
    pub(super) settings: Arc<Settings>,
    pub(super) caller: Caller,
    pub(super) parts: Parts,
    /// The path below the mount, not decoded.
    pub(super) path: String,
    pub(super) body: RequestBody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Chunk,
}

impl Dialect {
    pub(super) const fn of(_exchange: &Exchange) -> Self {
        Self::Chunk
    }

    pub(super) async fn answer(self, exchange: Exchange) -> Response<UploadBody> {
        match self {
            Self::Chunk => chunk_api::answer(exchange).await,
        }
    }
}
