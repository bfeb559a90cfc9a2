//! Which protocol a request speaks. A dialect parses the request, calls the engine and renders the answer,
//! each in a room of its own; a new one is a module, a variant here and a line in [`Dialect::of`].

use std::sync::Arc;

use http::{Method, Response, request::Parts};

use super::{
    body::{RequestBody, UploadBody},
    chunk_api,
    files::{self, Place},
    resumable,
    settings::Settings,
    tus,
};
use crate::{
    access::{Action, Caller},
    engine::Uploads,
    upload::Protocol,
};

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
    Tus(Place),
    Resumable(Place),
    /// What is spoken at the files: all of it in one answer.
    Options,
}

impl Dialect {
    /// The place says whether it is the chunk API. At the files a request says itself what it speaks, by headers that its
    /// protocol requires; one that need not say so is answered by the protocol that created the upload.
    pub(super) async fn of(uploads: &Uploads, caller: &Caller, settings: &Settings, parts: &Parts, path: &str) -> Self {
        let Some(place) = Place::of(settings, path) else {
            return Self::Chunk;
        };
        let both = match (&settings.tus, &settings.resumable) {
            (None, None) => return Self::Chunk,
            (tus, resumable) => tus.is_some() && resumable.is_some(),
        };
        if parts.method == Method::OPTIONS {
            return Self::Options;
        }
        let is_resumable = if !both {
            settings.resumable.is_some()
        } else if tus::is_spoken(&parts.headers) {
            false
        } else if resumable::is_spoken(&parts.headers) {
            true
        } else if let Place::Upload(id) = place {
            // Clients of tus always say so, but for a download; the IETF's need not.
            match uploads.glance(caller, id, Action::Inspect).await {
                Ok(upload) if upload.protocol() == Protocol::Tus => false,
                Ok(upload) => upload.protocol() == Protocol::Resumable || parts.method != Method::GET,
                Err(_) => parts.method != Method::GET,
            }
        } else {
            false
        };
        if is_resumable {
            Self::Resumable(place)
        } else {
            Self::Tus(place)
        }
    }

    /// As logs and figures call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Tus(_) => "tus",
            Self::Resumable(_) => "resumable",
            Self::Options => "options",
        }
    }

    pub(super) async fn answer(self, exchange: Exchange) -> Response<UploadBody> {
        match self {
            Self::Chunk => chunk_api::answer(exchange).await,
            Self::Tus(place) => tus::answer(exchange, place).await,
            Self::Resumable(place) => resumable::answer(exchange, place).await,
            Self::Options => files::options(&exchange.uploads, &exchange.settings, &exchange.parts.headers),
        }
    }
}
