//! What was told in vain, for a person to look at.

use std::time::Duration;

use crate::{
    engine::{CONTENTION, Uploads, contended},
    error::Result,
    metadata::{Lookup, Page, PartRange, PartsEdit},
    upload::{DeadLetter, EventId, State, Wake},
};

const PAGE: usize = 256;

impl Uploads {
    /// Every event that was told to a hook in vain, of all uploads that are remembered: for a person to look at, and to
    /// [tell again](Self::retry_dead_letter) or [forget](Self::forget_dead_letter). Reads all records.
    ///
    /// # Errors
    /// Those of the metadata store.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        let _working = self.inner.tasks.begin()?;
        let mut letters = Vec::new();
        let mut skip = 0;
        loop {
            let page = self.inner.metadata.list(None, Page::new(skip, PAGE)).await?;
            skip += page.len();
            let is_last = page.len() < PAGE;
            letters.extend(page.into_iter().flat_map(|snapshot| snapshot.record.dead_letters));
            if is_last {
                return Ok(letters);
            }
        }
    }

    /// Has a dead letter told again, from the start. `false` if there is none.
    ///
    /// # Errors
    /// Those of the metadata store.
    pub async fn retry_dead_letter(&self, event: EventId, hook: &str) -> Result<bool> {
        self.edit_dead_letter(event, hook, true).await
    }

    /// Forgets a dead letter. `false` if there is none.
    ///
    /// # Errors
    /// Those of the metadata store.
    pub async fn forget_dead_letter(&self, event: EventId, hook: &str) -> Result<bool> {
        self.edit_dead_letter(event, hook, false).await
    }

    async fn edit_dead_letter(&self, event: EventId, hook: &str, again: bool) -> Result<bool> {
        let _working = self.inner.tasks.begin()?;
        for _ in 0..CONTENTION {
            let found = self
                .inner
                .metadata
                .load(Lookup::Id(event.upload_id()), PartRange::NONE)
                .await?;
            let Some(mut next) = found.map(|snapshot| snapshot.record) else {
                return Ok(false);
            };
            let Some(at) = next.dead_letters.iter().position(|letter| letter.is(event, hook)) else {
                return Ok(false);
            };
            let letter = next.dead_letters.remove(at);
            if again {
                next.owe(letter.event, letter.hook);
            }
            let wake = match next.state {
                State::Open | State::Assembling if again => Wake::After(Duration::ZERO),
                State::Open | State::Assembling => Wake::Keep,
                _ => self.end_wake(&next),
            };
            if let Some(changed) = self.update(&next, PartsEdit::Keep, wake).await? {
                self.events_pending(&changed);
                return Ok(true);
            }
        }
        Err(contended())
    }
}
