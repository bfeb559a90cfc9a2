//! A hook that works for long, fails, and is killed in the middle.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;

use super::world::{World, is_dead};
use crate::{
    Event, EventKind, Hook,
    blob::disk::sim::{SimFs, SplitMix64},
    error::{Error, Result},
    hook::Telling,
    upload::{Progress, State},
};

/// What it leaves with an upload.
pub(super) const NOTE: (&str, &str) = ("made", "yes");

pub(super) struct Worker {
    world: World,
    /// The machine that it runs on.
    life: SimFs,
    rng: Arc<Mutex<SplitMix64>>,
}

impl Worker {
    pub(super) fn new(world: World, life: SimFs, seed: u64) -> Self {
        Self {
            world,
            life,
            rng: Arc::new(Mutex::new(SplitMix64::new(seed))),
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.lock().unwrap().below(bound)
    }
}

#[async_trait]
impl Hook for Worker {
    fn name(&self) -> &str {
        "worker"
    }

    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Assembled
    }

    fn works(&self) -> bool {
        true
    }

    fn time_limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn on_event(&self, event: &Event, telling: &Telling) -> Result<()> {
        if let Some(record) = telling.record().await? {
            let so = matches!(record.state, State::Assembled | State::Deleted);
            assert!(so, "{} was told while the upload was {}", event.kind(), record.state);
        }
        self.world.model().count("worker: begins".to_owned());
        for percent in [0, 50] {
            telling.progress(Progress::new(percent, None));
            tokio::time::sleep(Duration::from_secs(self.below(20))).await;
            if is_dead(&self.life) {
                std::future::pending::<()>().await;
            }
        }
        if !self.world.is_calm() {
            match self.below(10) {
                0..3 => return Err(Error::unavailable("it does not work today")),
                // Longer than it may.
                3 => tokio::time::sleep(Duration::from_secs(100)).await,
                _ => {}
            }
        }
        telling.note(NOTE.0, NOTE.1).await?;
        self.world.model().count("worker: done".to_owned());
        Ok(())
    }
}
