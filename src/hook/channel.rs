use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Hook, Telling};
use crate::{
    error::{Error, Result},
    upload::Event,
};

/// Sends events into a channel of this process.
///
/// An event counts as told once the channel has taken it: what is in the channel when the process dies is not told again. While it is
/// full the event waits; once its receiver is gone events are told again later, and in the end become dead letters.
#[derive(Clone, Debug)]
pub struct Channel {
    name: String,
    sender: mpsc::Sender<Event>,
}

impl Channel {
    /// A hook with this name that sends into `sender`.
    #[must_use]
    pub fn new(name: impl Into<String>, sender: mpsc::Sender<Event>) -> Self {
        Self {
            name: name.into(),
            sender,
        }
    }
}

#[async_trait]
impl Hook for Channel {
    fn name(&self) -> &str {
        &self.name
    }

    async fn on_event(&self, event: &Event, _: &Telling) -> Result<()> {
        let sent = self.sender.send(event.clone()).await;
        sent.map_err(|_| Error::unavailable("Nobody receives from the channel of events any more"))
    }
}
