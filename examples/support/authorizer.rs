//! The library sees the catalogue through this alone.

use tower_upload::{
    Authorizer, Caller,
    access::{Action, Denied, OwnerOnly, Subject},
};

use super::catalogue::Catalogue;

/// Everybody's uploads are their own, and so must be the video an upload is for.
pub struct VideoAuthorizer {
    catalogue: Catalogue,
}

impl VideoAuthorizer {
    pub const fn new(catalogue: Catalogue) -> Self {
        Self { catalogue }
    }
}

#[async_trait::async_trait]
impl Authorizer for VideoAuthorizer {
    async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Denied> {
        OwnerOnly.authorize(caller, action, subject).await?;
        match (action, subject.target()) {
            (Action::Create | Action::Write, Some(video)) => {
                let owned = self.catalogue.is_owned(video.as_str(), caller.owner().as_str());
                owned.then_some(()).ok_or(Denied::TargetNotFound)
            }
            _ => Ok(()),
        }
    }
}
