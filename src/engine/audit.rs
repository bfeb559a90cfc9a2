use futures_util::StreamExt as _;

use super::{Uploads, verify::rotten};
use crate::{
    blob::ByteRange,
    error::Result,
    metadata::{Page, PartRange},
    upload::{Snapshot, State, UploadId},
};

/// What [`Uploads::sweep`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Leftovers of uploads that have ended.
    pub ended: usize,
    /// Bytes of which no record speaks.
    pub unknown: usize,
}

/// What [`Uploads::audit`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Audit {
    /// Uploads looked at.
    pub uploads: usize,
    /// Where metadata and blobs disagree.
    pub findings: Vec<Finding>,
}

/// One disagreement of metadata and blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The upload.
    pub id: UploadId,
    /// Its state as recorded.
    pub state: State,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The blob of an assembled upload is not there.
    BlobMissing,
    /// The blob has another size, in bytes.
    BlobSize(u64),
    /// These parts are not there or have other bytes than were acknowledged.
    Parts(Vec<u32>),
}

const PAGE: usize = 256;

impl Uploads {
    /// Compares metadata and blobs: after one of them was restored from a backup, say. With `deep` every byte is read and
    /// compared with its checksum. Changes nothing.
    ///
    /// It goes by the records: unfinished uploads of which none speaks are for [`sweep`](Self::sweep) to find, and blobs
    /// of which none speaks are taken for the host's own.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn audit(&self, deep: bool) -> Result<Audit> {
        let mut audit = Audit::default();
        loop {
            let page = self.inner.metadata.list(None, Page::new(audit.uploads, PAGE)).await?;
            for snapshot in &page {
                let record = &snapshot.record;
                if let Some(problem) = self.audit_one(snapshot, deep).await? {
                    audit.findings.push(Finding {
                        id: record.id,
                        state: record.state,
                        problem,
                    });
                }
            }
            audit.uploads += page.len();
            if page.len() < PAGE {
                return Ok(audit);
            }
        }
    }

    async fn audit_one(&self, snapshot: &Snapshot, deep: bool) -> Result<Option<Problem>> {
        let record = &snapshot.record;
        match record.state {
            State::Assembled => {
                let Some(blob) = self.inner.blobs.head(&record.key).await? else {
                    return Ok(Some(Problem::BlobMissing));
                };
                if record.blob.as_ref().is_some_and(|expected| expected.size != blob.size) {
                    return Ok(Some(Problem::BlobSize(blob.size)));
                }
                if !deep {
                    return Ok(None);
                }
                let parts = self.load(record.id, PartRange::ALL).await?.parts;
                let body = self.inner.blobs.read(&record.key, ByteRange::ALL).await?;
                problem(rotten(&parts, body, |_| {}).await?)
            }
            State::Open | State::Assembling if snapshot.tally.parts > 0 => {
                let parts = self.load(record.id, PartRange::ALL).await?.parts;
                let mut lost = Vec::new();
                for part in parts {
                    let one = std::slice::from_ref(&part);
                    match self.inner.blobs.read_parts(&record.handle, one).await {
                        Ok(None) => return Ok(None),
                        Ok(Some(body)) if deep => {
                            lost.extend(rotten(one, body, |_| {}).await.unwrap_or(vec![part.number]))
                        }
                        // Its first bytes tell whether it is there.
                        Ok(Some(mut body)) => {
                            if part.len > 0 && !matches!(body.next().await, Some(Ok(_))) {
                                lost.push(part.number);
                            }
                        }
                        Err(_) => lost.push(part.number),
                    }
                }
                problem(lost)
            }
            _ => Ok(None),
        }
    }
}

fn problem(lost: Vec<u32>) -> Result<Option<Problem>> {
    Ok((!lost.is_empty()).then_some(Problem::Parts(lost)))
}
