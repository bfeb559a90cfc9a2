//! What is finished of a stream, kept with the upload.

use serde::{Deserialize, Serialize};

use super::Rendition;
use crate::{
    error::{Error, Result},
    hook::Telling,
    upload::Record,
};

/// The note that it is kept in.
const NOTE: &str = "renditions";

/// The renditions of a stream, and the folders that are to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
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
    pub(super) async fn load(telling: &Telling, hook: &str) -> Result<Self> {
        let record = telling.record().await?.ok_or_else(Error::not_found)?;
        Ok(Self::of(&record, hook))
    }

    /// One that cannot be read is of a release that wrote it otherwise: all is made anew.
    fn of(record: &Record, hook: &str) -> Self {
        let notes = record.deliveries.get(hook).map(|delivery| &delivery.notes);
        let text = notes.and_then(|notes| notes.get(NOTE));
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    pub(super) async fn save(&self, telling: &Telling) -> Result<()> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::internal("What is finished cannot be noted").with_source(error))?;
        telling.note(NOTE, &text).await
    }

    /// Saves it with a rendition that was finished: whatever ends the process from now on, not all is to be done again.
    pub(super) async fn save_progress(&self, telling: &Telling) -> Result<()> {
        self.save(telling).await?;
        telling
            .change(|delivery| {
                delivery.interrupted = 0;
                Ok(())
            })
            .await
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
