use std::collections::BTreeMap;

use super::checksum::Hasher;
use crate::upload::{
    Algorithm, Concat, Digest, FileName, Key, Owner, Plan, Protocol, Record, Snapshot, State, Tally, Target, Timestamp,
    UploadId,
};

/// An upload as a caller may see it, at one moment.
#[derive(Clone, Debug)]
pub struct Upload {
    snapshot: Snapshot,
    is_new: bool,
}

impl Upload {
    pub(crate) const fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            is_new: false,
        }
    }

    pub(crate) const fn created(snapshot: Snapshot) -> Self {
        Self { snapshot, is_new: true }
    }

    /// Names it.
    #[must_use]
    pub const fn id(&self) -> UploadId {
        self.snapshot.record.id
    }

    /// Whether this call created it.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn state(&self) -> State {
        self.snapshot.record.state
    }

    /// The protocol that created it.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.snapshot.record.protocol
    }

    /// Who created it.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.snapshot.record.owner
    }

    /// What it is for.
    #[must_use]
    pub const fn target(&self) -> Option<&Target> {
        self.snapshot.record.target.as_ref()
    }

    /// The file's name, as the client gave it or a hook changed it.
    #[must_use]
    pub fn file_name(&self) -> &FileName {
        self.snapshot.record.display_name()
    }

    /// What the client said about its file.
    #[must_use]
    pub const fn metadata(&self) -> &BTreeMap<String, String> {
        &self.snapshot.record.metadata
    }

    /// What is known of its shape.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.snapshot.record.plan
    }

    /// Where the blob lies or will lie.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.snapshot.record.key
    }

    /// What is durable of it.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.snapshot.tally
    }

    /// One more with every change; the id of its status events.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.snapshot.tally.revision
    }

    /// Size of the whole file in bytes: as declared, or of the finished blob.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.snapshot
            .record
            .blob
            .as_ref()
            .map(|blob| blob.size)
            .or(self.snapshot.record.plan.size)
    }

    /// End of the longest contiguous durable prefix, in bytes. Of an upload that was read without
    /// its parts (from a list): of the whole, once assembled, else 0 for indexed ones.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self.snapshot.record.plan.chunks {
            None => self.snapshot.tally.bytes,
            Some(_) => {
                let contiguous = self
                    .snapshot
                    .parts
                    .iter()
                    .zip(0..)
                    .take_while(|(part, number)| part.number == *number);
                contiguous.map(|(part, _)| part.len).sum()
            }
        }
    }

    /// The durable chunks as ranges of indices, both ends included.
    #[must_use]
    pub fn received(&self) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for part in &self.snapshot.parts {
            match ranges.last_mut() {
                Some((_, end)) if *end + 1 == part.number => *end = part.number,
                _ => ranges.push((part.number, part.number)),
            }
        }
        ranges
    }

    /// The chunks not yet durable as ranges of indices, both ends included; none for sequential uploads.
    #[must_use]
    pub fn missing(&self) -> Vec<(u32, u32)> {
        let Some(chunks) = self.snapshot.record.plan.chunks else {
            return Vec::new();
        };
        let mut missing = Vec::new();
        let mut next = 0;
        for (start, end) in self.received() {
            if start > next {
                missing.push((next, start - 1));
            }
            next = end + 1;
        }
        if next < chunks {
            missing.push((next, chunks - 1));
        }
        missing
    }

    /// Whether all bytes are durable.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let plan = &self.snapshot.record.plan;
        match plan.chunks {
            Some(chunks) => self.snapshot.tally.parts == chunks,
            None => plan.size == Some(self.snapshot.tally.bytes),
        }
    }

    /// CRC-64/NVME of the finished blob.
    #[must_use]
    pub fn checksum(&self) -> Option<Digest> {
        self.snapshot.record.crc64.map(Digest::crc64)
    }

    /// Digest of the whole file by the algorithm that was [asked for](super::NewUpload::digest) at creation, once all bytes
    /// are there.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        let record = &self.snapshot.record;
        let algorithm = record.wanted_digest?;
        let size = self.size()?;
        if algorithm == Algorithm::Crc64Nvme {
            return self.checksum();
        }
        let saved = record.hash.as_ref();
        let hasher = match saved {
            Some(saved) if saved.end == size => Hasher::restore(algorithm, saved)?,
            None if size == 0 => Hasher::new(algorithm),
            _ => return None,
        };
        hasher.finish().ok()
    }

    /// What the protocol that created it keeps for its own answers.
    #[must_use]
    pub const fn notes(&self) -> &BTreeMap<String, String> {
        &self.snapshot.record.notes
    }

    /// Its place in a concatenation.
    #[must_use]
    pub const fn concat(&self) -> Option<&Concat> {
        self.snapshot.record.concat.as_ref()
    }

    /// Why it failed.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.snapshot.record.failure.as_deref()
    }

    /// When it was created.
    #[must_use]
    pub const fn created_at(&self) -> Timestamp {
        self.snapshot.record.created_at
    }

    /// When its blob was published; `None` while it is not.
    #[must_use]
    pub const fn published_at(&self) -> Option<Timestamp> {
        self.snapshot.record.published_at
    }

    /// When it expires unless somebody goes on with it; `None` once it does not.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.snapshot.record.expires_at
    }

    /// The record itself.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.snapshot.record
    }
}
