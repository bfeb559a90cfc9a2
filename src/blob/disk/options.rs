use std::{path::Path, time::Duration};

use super::{DiskBlobs, real::RealFs, store::Disk};
use crate::error::Result;

/// What survives a power loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Everything that was acknowledged.
    #[default]
    Ack,
    /// Nothing is promised: no sync at all. A crash of the process alone still loses nothing.
    None,
}

/// Where batches are written to the page cache. Syncs always run on tokio's threads for what blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Writes {
    /// On tokio's threads for what blocks. Nothing else in the process waits for the disk.
    #[default]
    Pool,
    /// On the runtime's own threads, which saves a hop for each batch: for a local disk. A write that takes longer than
    /// it should sends the next ones to the pool for a while, so that a disk that cannot keep up holds each
    /// thread up once, not again and again; one that hangs (a network mount, say) would hold the runtime up for as long.
    Inline,
}

/// How [`DiskBlobs`] keeps its files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DiskOptions {
    pub(super) durability: Durability,
    pub(super) overcommit: f64,
    pub(super) lock_wait: Duration,
    pub(super) writes: Writes,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Ack,
            overcommit: 1.0,
            lock_wait: Duration::from_secs(5),
            writes: Writes::Pool,
        }
    }
}

impl DiskOptions {
    /// What survives a power loss; [`Durability::Ack`] if not said.
    #[must_use]
    pub const fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How many times the free space unfinished uploads may declare together, less what they wrote; 1 if not said.
    /// [`f64::INFINITY`] reserves nothing. What uploads of an earlier run of the process declared is not counted.
    #[must_use]
    pub const fn with_overcommit(mut self, factor: f64) -> Self {
        self.overcommit = factor;
        self
    }

    /// How long to wait for a process that has the directory; 5 seconds if not said.
    #[must_use]
    pub const fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Where batches are written; [`Writes::Pool`] if not said.
    #[must_use]
    pub const fn with_writes(mut self, writes: Writes) -> Self {
        self.writes = writes;
        self
    }

    /// Opens `root`; it and the directories above it are created if need be.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if another process has it, named in the message.
    pub async fn open(self, root: impl AsRef<Path>) -> Result<DiskBlobs> {
        let sync = self.durability == Durability::Ack;
        let fs = RealFs::open_root(root.as_ref(), self.lock_wait, sync)
            .await?
            .writing(self.writes);
        let disk = Disk::on(fs, &self).await?;
        Ok(DiskBlobs { disk })
    }
}
