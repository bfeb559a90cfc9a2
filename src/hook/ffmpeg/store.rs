//! The sink that keeps a stream in the blob store.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::{HlsSink, MASTER_PLAYLIST, Outcome, OutputFile, POSTER, Rendition, ledger::Ledger, master_playlist};
use crate::{
    error::{Error, Result},
    hook::Telling,
    upload::Delivery,
};

/// One attempt at a stream.
pub(super) struct Stored {
    telling: Telling,
    /// Ends the names of its folders: no other attempt ever writes there.
    attempt: String,
    ledger: Mutex<Ledger>,
    /// The most bytes of a file: each is read into memory.
    most: u64,
}

impl Stored {
    /// Begins an attempt, which ends those before, and deletes what they left behind.
    pub(super) async fn new(telling: Telling, most: u64) -> Result<Self> {
        let attempt = getrandom::u32().map_err(|error| Error::internal("No random bytes").with_source(error))?;
        let attempt = format!("{attempt:08x}");
        telling.derive().await?;
        // Before anything is deleted: what is deleted then, nobody lists any more.
        let ledger = Ledger::claim(&telling, &attempt).await?;
        let stored = Self {
            telling,
            attempt,
            ledger: Mutex::new(ledger),
            most,
        };
        {
            let mut ledger = stored.ledger.lock().await;
            if !ledger.made.is_empty() {
                // The master playlist may list yet what is to be deleted.
                stored.put_master(&ledger).await?;
            }
            stored.clear_scraps(&mut ledger).await?;
        }
        stored.telling.waits().await?;
        Ok(stored)
    }

    /// Lists what this run made or kept, and nothing else: a rendition that the options do not ask for any more goes.
    pub(super) async fn conclude(&self, outcome: &Outcome) -> Result<()> {
        let mut ledger = self.ledger.lock().await;
        let is_of = |rendition: &Rendition| {
            let mut made = outcome.renditions.iter();
            made.any(|made| made.name == rendition.name && made.recipe == rendition.recipe)
        };
        let before = ledger.made.len();
        ledger.drop_made(|made| !is_of(&made.rendition));
        if ledger.made.len() < before {
            ledger.save(&self.telling).await?;
            self.put_master(&ledger).await?;
        }
        self.clear_scraps(&mut ledger).await?;
        // Also if nothing has changed: only the last attempt says that the stream is finished.
        ledger.save(&self.telling).await
    }

    async fn clear_scraps(&self, ledger: &mut Ledger) -> Result<()> {
        if ledger.scraps.is_empty() {
            return Ok(());
        }
        for scrap in &ledger.scraps {
            self.telling.clear(scrap).await?;
        }
        ledger.scraps.clear();
        ledger.save(&self.telling).await
    }

    async fn put_master(&self, ledger: &Ledger) -> Result<()> {
        let text = master_playlist(&ledger.listed());
        self.store(MASTER_PLAYLIST, Bytes::from(text)).await
    }

    /// Stores a file, unless a later attempt has taken over.
    async fn store(&self, name: &str, bytes: Bytes) -> Result<()> {
        let (telling, attempt) = (self.telling.clone(), self.attempt.clone());
        let check = move |delivery: &Delivery| Ledger::check(&telling, delivery, &attempt);
        self.telling.put_if(name, bytes, check).await
    }

    fn folder(&self, rendition: &str) -> String {
        format!("{rendition}-{}", self.attempt)
    }
}

#[async_trait]
impl HlsSink for Stored {
    async fn put(&self, file: OutputFile<'_>) -> Result<()> {
        if file.size > self.most {
            let message = "A file of the stream is larger than is allowed";
            return Err(Error::too_large(message, self.most));
        }
        let mut ledger = self.ledger.lock().await;
        let name = match file.name.split_once('/') {
            None if file.name == MASTER_PLAYLIST => {
                self.put_master(&ledger).await?;
                return self.telling.note("playlist", MASTER_PLAYLIST).await;
            }
            None => file.name.to_owned(),
            Some((rendition, name)) => {
                let folder = self.folder(rendition);
                if !ledger.scraps.contains(&folder) {
                    // Known before anything is in it, so that nothing is ever left there.
                    ledger.scraps.push(folder.clone());
                    ledger.save(&self.telling).await?;
                }
                format!("{folder}/{name}")
            }
        };
        drop(ledger);
        let bytes = tokio::fs::read(file.path).await?;
        self.store(&name, bytes.into()).await?;
        if name == POSTER {
            self.telling.note("poster", POSTER).await?;
        }
        Ok(())
    }

    async fn finished(&self, rendition: &Rendition) -> Result<()> {
        let mut ledger = self.ledger.lock().await;
        ledger.finish(self.folder(&rendition.name), rendition.clone());
        ledger.save_progress(&self.telling).await
    }

    /// The first that a run asks for once its turn has come.
    async fn renditions(&self) -> Result<Vec<Rendition>> {
        self.telling.goes_on().await?;
        let ledger = self.ledger.lock().await;
        Ok(ledger.made.iter().map(|made| made.rendition.clone()).collect())
    }
}
