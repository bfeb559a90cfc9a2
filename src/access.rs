//! Who asks, and whether they may: [`Caller`], [`Action`], [`Authorizer`].

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    error::{Error, ErrorKind},
    upload::{FileName, Owner, Record, Target},
};

/// Who asks. The host says so; the crate never reads a credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    owner: Owner,
    anonymous: bool,
}

impl Caller {
    /// The user with the host's id `id`.
    pub fn new(id: impl AsRef<str>) -> Self {
        Self {
            owner: Owner::new(id),
            anonymous: false,
        }
    }

    /// Nobody in particular: all anonymous callers own the same uploads, told apart by their ids alone.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            owner: Owner::new(""),
            anonymous: true,
        }
    }

    /// The owner of what this caller creates.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whether nobody said who it is.
    #[must_use]
    pub const fn is_anonymous(&self) -> bool {
        self.anonymous
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Begin an upload.
    Create,
    /// Send bytes.
    Write,
    /// Ask for the state, list, or watch events.
    Inspect,
    /// Make the blob of what was sent.
    Assemble,
    /// Give up an unfinished upload.
    Abort,
    /// Delete a finished blob.
    Delete,
    /// Read a finished blob.
    Read,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::Write,
        Self::Inspect,
        Self::Assemble,
        Self::Abort,
        Self::Delete,
        Self::Read,
    ];
}

/// What an action is asked on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Subject<'a> {
    /// An upload that does not exist yet.
    New {
        /// What it will be for.
        target: Option<&'a Target>,
        /// The file's name.
        file_name: &'a FileName,
    },
    /// An upload that exists.
    Upload(&'a Record),
    /// The caller's own uploads, as a list.
    Own,
}

impl Subject<'_> {
    /// What the upload is for in the host's world.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::New { target, .. } => *target,
            Self::Upload(record) => record.target.as_ref(),
            Self::Own => None,
        }
    }
}

/// Why an [`Authorizer`] says no.
#[derive(Debug)]
#[non_exhaustive]
pub enum Denied {
    /// Somebody must sign in first.
    Unauthenticated,
    /// This caller may not.
    Forbidden,
    /// As if the upload did not exist: for uploads of somebody else.
    Hidden,
    /// The host knows no such target, or hides it from this caller.
    TargetNotFound,
    /// It could not be found out; the error is answered as it is.
    Error(Error),
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Denied {
    pub(crate) fn into_error(self, subject: Subject<'_>) -> Error {
        match self {
            Self::Unauthenticated => Error::new(ErrorKind::Unauthenticated, "Sign in first"),
            Self::Forbidden => Error::new(ErrorKind::Forbidden, "You may not do this"),
            Self::Hidden => Error::not_found(),
            Self::TargetNotFound => {
                let id = subject.target().map_or("", Target::as_str);
                Error::new(ErrorKind::TargetNotFound, format!("Video with id {id} not found"))
            }
            Self::Error(error) => error,
        }
    }
}

/// Decides who may do what. Asked on every request, also on those by id.
///
/// Somebody else's upload should be [`Denied::Hidden`], so that it cannot be told from one that
/// does not exist. For [`Action::Create`] and [`Action::Write`] the host can also check that the target exists and
/// is the caller's ([`Denied::TargetNotFound`]).
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `caller` may do `action` on `subject`.
    async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Denied>;
}

#[async_trait]
impl<T: Authorizer + ?Sized> Authorizer for Arc<T> {
    async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Denied> {
        (**self).authorize(caller, action, subject).await
    }
}

#[async_trait]
impl<T: Authorizer + ?Sized> Authorizer for Box<T> {
    async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Denied> {
        (**self).authorize(caller, action, subject).await
    }
}

/// Everybody who signed in may create uploads; each upload is its owner's alone.
#[derive(Clone, Copy, Debug, Default)]
#[allow(
    clippy::exhaustive_structs,
    reason = "it is written as a value, and has nothing to say"
)]
pub struct OwnerOnly;

#[async_trait]
impl Authorizer for OwnerOnly {
    async fn authorize(&self, caller: &Caller, _: Action, subject: Subject<'_>) -> Result<(), Denied> {
        match subject {
            _ if caller.is_anonymous() => Err(Denied::Unauthenticated),
            Subject::Upload(record) if record.owner != *caller.owner() => Err(Denied::Hidden),
            _ => Ok(()),
        }
    }
}

/// Everybody may create uploads, also without signing in; each upload is its owner's alone, and all
/// anonymous callers are one owner. They are told apart by the ids they know, so nobody tells them one another's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllowAnonymous;

#[async_trait]
impl Authorizer for AllowAnonymous {
    async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Denied> {
        match subject {
            Subject::Upload(record) if record.owner != *caller.owner() => Err(Denied::Hidden),
            Subject::Own if caller.is_anonymous() && action == Action::Inspect => Err(Denied::Unauthenticated),
            _ => Ok(()),
        }
    }
}
