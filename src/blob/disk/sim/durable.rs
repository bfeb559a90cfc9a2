//! What is seen of a file or a directory, and what is durable of it.

use std::collections::{BTreeMap, BTreeSet};

/// What is lost or kept as one.
const SECTOR: u64 = 512;
/// What room is counted in.
pub(super) const BLOCK: u64 = 4096;

#[derive(Default)]
pub(super) struct Data {
    pub(super) seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Sectors in which the two may differ, and which a sync makes durable.
    pub(super) dirty: BTreeSet<u64>,
    /// Sectors that a sync failed to write, and that no later one will.
    pub(super) given_up: BTreeSet<u64>,
    /// A sync failed to write the length: until it is set anew, only what is written again extends the file.
    pub(super) len_given_up: Option<u64>,
    pub(super) blocks: BTreeSet<u64>,
}

#[derive(Default)]
pub(super) struct Names {
    pub(super) seen: BTreeMap<String, u64>,
    pub(super) durable: BTreeMap<String, u64>,
    pub(super) given_up: BTreeSet<String>,
}

impl Data {
    pub(super) fn resize(&mut self, len: usize) {
        if len == self.seen.len() {
            return;
        }
        let (less, more) = (len.min(self.seen.len()), len.max(self.seen.len()));
        self.seen.resize(len, 0);
        self.len_given_up = None;
        self.touch(less as u64..more as u64);
        self.blocks.retain(|block| *block < (len as u64).div_ceil(BLOCK));
    }

    pub(super) fn touch(&mut self, range: std::ops::Range<u64>) {
        for sector in range.start / SECTOR..range.end.div_ceil(SECTOR) {
            self.dirty.insert(sector);
            self.given_up.remove(&sector);
        }
    }

    pub(super) fn sync(&mut self) {
        let len = match self.len_given_up {
            None => self.seen.len(),
            Some(end) => self.durable.len().max(self.seen.len().min(end as usize)),
        };
        self.durable.resize(len, 0);
        for sector in std::mem::take(&mut self.dirty) {
            self.settle(sector);
        }
    }

    /// Makes a sector durable as far as the durable length goes.
    pub(super) fn settle(&mut self, sector: u64) {
        let start = (sector * SECTOR) as usize;
        let end = (start + SECTOR as usize).min(self.seen.len()).min(self.durable.len());
        if start < end {
            self.durable[start..end].copy_from_slice(&self.seen[start..end]);
        }
    }

    pub(super) fn power_loss(&mut self, keep: &mut impl FnMut() -> bool) {
        if self.seen.len() != self.durable.len() && keep() {
            self.durable.resize(self.seen.len(), 0);
        }
        let unsure: Vec<u64> = self.dirty.union(&self.given_up).copied().collect();
        for sector in unsure {
            if keep() {
                self.settle(sector);
            }
        }
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.retain(|block| *block < (self.durable.len() as u64).div_ceil(BLOCK));
        *self = Self {
            seen: self.durable.clone(),
            durable: std::mem::take(&mut self.durable),
            blocks,
            ..Self::default()
        };
    }
}

impl Names {
    pub(super) fn differing(&self) -> BTreeSet<String> {
        let names = self.seen.keys().chain(self.durable.keys());
        names
            .filter(|name| self.seen.get(*name) != self.durable.get(*name))
            .cloned()
            .collect()
    }

    pub(super) fn settle(&mut self, name: &str) {
        match self.seen.get(name) {
            Some(inode) => self.durable.insert(name.to_owned(), *inode),
            None => self.durable.remove(name),
        };
    }
}
