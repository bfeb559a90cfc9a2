//! What is finished of a stream, kept with the upload.

use serde::{Deserialize, Serialize};

use super::Rendition;
use crate::{
    error::{Error, Result},
    hook::Telling,
    upload::Delivery,
};

/// The note that it is kept in.
const NOTE: &str = "renditions";

/// The renditions of a stream, and the folders that are to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// The attempt that writes it: the one that began last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) owner: String,
    /// Whole, and listed by the master playlist.
    pub(super) made: Vec<Made>,
    /// Begun and not finished, or replaced: whoever comes next deletes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) scraps: Vec<String>,
}

/// A finished rendition and where its files are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) folder: String,
    #[serde(flatten)]
    pub(super) rendition: Rendition,
}

impl Ledger {
    /// Takes it over for `attempt`. From then on an older attempt changes nothing more: its process may only have stood still, and goes on
    /// some day with a folder that is deleted meanwhile.
    pub(super) async fn claim(telling: &Telling, attempt: &str) -> Result<Self> {
        let claim = |delivery: &mut Delivery| {
            let ledger = Self {
                owner: attempt.to_owned(),
                ..Self::of(delivery)
            };
            ledger.note(delivery)?;
            Ok(ledger)
        };
        telling.change(claim).await
    }

    /// One that cannot be read is of a release that wrote it otherwise: all is made anew.
    fn of(delivery: &Delivery) -> Self {
        let text = delivery.notes.get(NOTE);
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    fn note(&self, delivery: &mut Delivery) -> Result<()> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::internal("What is finished cannot be noted").with_source(error))?;
        delivery.notes.insert(NOTE.to_owned(), text);
        Ok(())
    }

    /// An error if a later attempt has taken over.
    pub(super) fn check(telling: &Telling, delivery: &Delivery, attempt: &str) -> Result<()> {
        if Self::of(delivery).owner == attempt {
            return Ok(());
        }
        Err(telling.superseded())
    }

    /// # Errors
    /// Those of [`check`](Self::check), with which nothing is changed.
    pub(super) async fn save(&self, telling: &Telling) -> Result<()> {
        let save = |delivery: &mut Delivery| {
            Self::check(telling, delivery, &self.owner)?;
            self.note(delivery)
        };
        telling.change(save).await
    }

    /// Saves it with a rendition that was finished: whatever ends the process from now on, not all is to be done again.
    pub(super) async fn save_progress(&self, telling: &Telling) -> Result<()> {
        let save = |delivery: &mut Delivery| {
            Self::check(telling, delivery, &self.owner)?;
            delivery.interrupted = 0;
            self.note(delivery)
        };
        telling.change(save).await
    }

    /// What it lists, each named by its folder, as the master playlist does.
    pub(super) fn listed(&self) -> Vec<Rendition> {
        let listed = self.made.iter().map(|made| Rendition {
            name: made.folder.clone(),
            ..made.rendition.clone()
        });
        listed.collect()
    }

    /// Lists a rendition whose files are all stored in `folder`.
    pub(super) fn finish(&mut self, folder: String, rendition: Rendition) {
        self.scraps.retain(|scrap| *scrap != folder);
        self.drop_made(|made| made.rendition.name == rendition.name);
        self.made.push(Made { folder, rendition });
    }

    /// What is listed no more is to be deleted.
    pub(super) fn drop_made(&mut self, goes: impl Fn(&Made) -> bool) {
        let (gone, kept) = std::mem::take(&mut self.made).into_iter().partition(goes);
        self.made = kept;
        let gone: Vec<Made> = gone;
        self.scraps.extend(gone.into_iter().map(|made| made.folder));
    }
}
