use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{all_are_caught, caught};
use crate::{
    blob::{Before, BlobBody, BlobStore, ByteRange, Completed, Joined, Limits, MemoryBlobs, PartWriter, Slot},
    conformance,
    error::{Error, ErrorKind, Result},
    upload::{Blob, Handle, Key, Part, Plan, Receipt, UploadId},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    OlderAttemptStillWrites,
    ClaimTakenBack,
    ClaimDestroys,
    CompleteTrustsTheKey,
    CompleteTrustsReceipts,
    CompleteOnlyOnce,
    CompleteInReverse,
    LostPartsLeftOut,
    KeyWrittenOver,
    DiscardDeletesPublished,
    DiscardDoesNothing,
    MaxLenIgnored,
    MaxLenIgnoredByOne,
    FramesSwapped,
    RangeEndIncluded,
    DeleteFailsWhereNothingIs,
    WholeReadBeforePublish,
    NothingSurvives,
    JoinInReverse,
    JoinLeavesOutTheLast,
    JoinLeavesOutWhatIsLost,
    JoinDiscardsItsSource,
    JoinToItself,
    PutKeepsTheFirst,
    PutWithAGap,
    PutIsCutShort,
    ClearsLookAlikes,
    ClearLeavesWhatIsDeep,
    ClearRefused,
}

const BUGS: [(Bug, &str); 28] = [
    (Bug::OlderAttemptStillWrites, "A slot is one"),
    (Bug::ClaimTakenBack, "An older attempt that writes after a newer one"),
    (Bug::ClaimDestroys, "let go before the first write"),
    (Bug::CompleteTrustsTheKey, "another upload's blob of the same size"),
    (Bug::CompleteTrustsReceipts, "`complete` must name the parts"),
    (Bug::CompleteOnlyOnce, "completing must be done, got"),
    (Bug::CompleteInReverse, "must be exactly the parts' bytes"),
    (Bug::LostPartsLeftOut, "A part that was never finished is not there"),
    (Bug::KeyWrittenOver, "another upload's blob of the same size"),
    (Bug::DiscardDeletesPublished, "After a dropped `discard`"),
    (Bug::DiscardDoesNothing, "What was discarded cannot be completed"),
    (Bug::MaxLenIgnored, "must be refused as too large"),
    (Bug::MaxLenIgnoredByOne, "must be refused as too large"),
    (Bug::FramesSwapped, "must be exactly the parts' bytes"),
    (Bug::RangeEndIncluded, "A read of"),
    (Bug::DeleteFailsWhereNothingIs, "A healthy store failed"),
    (Bug::WholeReadBeforePublish, "`read_parts` must give"),
    (Bug::JoinInReverse, "must be exactly the joined bytes"),
    (Bug::JoinLeavesOutTheLast, "what was joined must be there"),
    (
        Bug::JoinLeavesOutWhatIsLost,
        "`join` must tell of parts that are not there",
    ),
    (Bug::JoinDiscardsItsSource, "Parts that are there must be joined"),
    (Bug::JoinToItself, "An upload is not joined to itself"),
    (Bug::PutKeepsTheFirst, "the size of what was put last"),
    (Bug::PutWithAGap, "is there all the time"),
    (Bug::PutIsCutShort, "the size of what was put last"),
    (Bug::ClearsLookAlikes, "`clear` leaves what is not below"),
    (Bug::ClearLeavesWhatIsDeep, "nothing lies below the folder"),
    (Bug::ClearRefused, "takes both `put` and `clear`"),
];

#[test]
fn the_blob_suite_catches_every_planted_bug() {
    all_are_caught(&BUGS, |bug| {
        caught(async || conformance::blob::run(async || Broken::new(bug)).await)
    });
    all_are_caught(
        &[(Bug::NothingSurvives, "must be listed after opening the store again")],
        |bug| caught(async || conformance::blob::durability(async || Broken::new(bug)).await),
    );
}

/// The claims suite alone: the whole run trips over the first clause that has to do with them.
#[test]
fn an_older_attempt_that_still_writes_is_caught_by_its_own_clause() {
    let sentence = caught(async || {
        conformance::blob::an_older_attempt_changes_no_byte(Arc::new(Broken::new(Bug::OlderAttemptStillWrites))).await;
    });
    assert!(sentence.contains("An older attempt that writes"), "{sentence}");
    let sentence = caught(async || {
        conformance::blob::nothing_changes_after_complete(Arc::new(Broken::new(Bug::OlderAttemptStillWrites))).await;
    });
    assert!(
        sentence.contains("A writer that was open when the upload was completed"),
        "{sentence}"
    );
    let sentence = caught(async || {
        conformance::blob::discard_leaves_what_was_published(Arc::new(Broken::new(Bug::DiscardDeletesPublished))).await;
    });
    assert!(sentence.contains("After `discard`"), "{sentence}");
    let sentence = caught(async || {
        conformance::blob::a_join_claims_its_slot(Arc::new(Broken::new(Bug::ClaimTakenBack))).await;
    });
    assert!(sentence.contains("is superseded by a join"), "{sentence}");
}

#[derive(Debug)]
struct Broken {
    bug: Bug,
    inner: Arc<MemoryBlobs>,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    /// By handle: what was finished last in each slot.
    parts: HashMap<(Handle, u32), Part>,
    keys: HashMap<Handle, Key>,
    put: Vec<Key>,
}

impl Broken {
    fn new(bug: Bug) -> Self {
        Self {
            bug,
            inner: Arc::new(MemoryBlobs::new()),
            notes: Arc::default(),
        }
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl BlobStore for Broken {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn begin(&self, id: UploadId, key: &Key, plan: &Plan) -> Result<Handle> {
        self.inner.begin(id, key, plan).await
    }

    async fn open(&self, handle: &Handle, mut slot: Slot) -> Result<Box<dyn PartWriter>> {
        match self.bug {
            Bug::OlderAttemptStillWrites | Bug::ClaimTakenBack | Bug::FramesSwapped => {
                return Ok(Box::new(BrokenWriter {
                    bug: self.bug,
                    store: self.inner.clone(),
                    handle: handle.clone(),
                    slot,
                    frames: Vec::new(),
                    claim: match self.bug {
                        Bug::OlderAttemptStillWrites => None,
                        _ => Some(self.inner.open(handle, slot).await?),
                    },
                }));
            }
            Bug::ClaimDestroys => {
                self.inner.open(handle, slot).await?.finish().await?;
            }
            Bug::MaxLenIgnored => slot.max_len = u64::MAX,
            Bug::MaxLenIgnoredByOne => slot.max_len += 1,
            _ => {}
        }
        self.inner.open(handle, slot).await
    }

    async fn read_parts(&self, handle: &Handle, parts: &[Part]) -> Result<Option<BlobBody>> {
        if self.bug == Bug::WholeReadBeforePublish {
            let twice: Vec<Part> = parts.iter().chain(parts).cloned().collect();
            return self.inner.read_parts(handle, &twice).await;
        }
        self.inner.read_parts(handle, parts).await
    }

    async fn join(
        &self,
        into: &Handle,
        slot: Slot,
        before: Before<'_>,
        from: &Handle,
        parts: &[Part],
    ) -> Result<Joined> {
        let mut parts = parts.to_vec();
        match self.bug {
            Bug::JoinInReverse => parts.reverse(),
            Bug::JoinLeavesOutTheLast if parts.len() > 1 => drop(parts.pop()),
            Bug::JoinLeavesOutWhatIsLost => {
                while let Joined::PartsLost(lost) = self.inner.join(into, slot, before, from, &parts).await? {
                    parts.retain(|part| !lost.contains(&part.number));
                }
            }
            Bug::JoinToItself if into == from => return Ok(Joined::PartsLost(Vec::new())),
            _ => {}
        }
        let joined = self.inner.join(into, slot, before, from, &parts).await;
        if self.bug == Bug::JoinDiscardsItsSource {
            self.inner.discard(from).await?;
        }
        joined
    }

    async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        let mut parts = parts.to_vec();
        match self.bug {
            Bug::CompleteTrustsTheKey => {
                if let Some(blob) = self.inner.head(key).await? {
                    return Ok(Completed::Done(blob));
                }
            }
            Bug::CompleteOnlyOnce if self.inner.head(key).await?.is_some() => return Ok(Completed::KeyTaken),
            Bug::CompleteInReverse => parts.reverse(),
            Bug::KeyWrittenOver if self.notes().keys.get(handle) != Some(key) => self.inner.delete(key).await?,
            Bug::CompleteTrustsReceipts | Bug::LostPartsLeftOut => {
                // What is there is found by trying: the memory store names what is not.
                if let Completed::PartsLost(lost) = self.inner.complete(handle, key, &parts).await? {
                    if self.bug == Bug::LostPartsLeftOut {
                        parts.retain(|part| !lost.contains(&part.number));
                        return self.inner.complete(handle, key, &parts).await;
                    }
                    let wrong_receipt = |number: &u32| self.notes().parts.contains_key(&(handle.clone(), *number));
                    let lost = lost
                        .into_iter()
                        .filter(|number| *number != 1 && !wrong_receipt(number))
                        .collect();
                    return Ok(Completed::PartsLost(lost));
                }
            }
            _ => {}
        }
        self.notes().keys.insert(handle.clone(), key.clone());
        self.inner.complete(handle, key, &parts).await
    }

    async fn discard(&self, handle: &Handle) -> Result<()> {
        let key = self.notes().keys.get(handle).cloned();
        match (self.bug, key) {
            (Bug::DiscardDeletesPublished, Some(key)) => self.inner.delete(&key).await?,
            (Bug::DiscardDoesNothing, _) => return Ok(()),
            _ => {}
        }
        self.inner.discard(handle).await
    }

    async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        self.inner.begun(older_than).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Blob>> {
        self.inner.head(key).await
    }

    async fn read(&self, key: &Key, mut range: ByteRange) -> Result<BlobBody> {
        if self.bug == Bug::RangeEndIncluded {
            range.end = range.end.map(|end| end.saturating_add(1));
        }
        self.inner.read(key, range).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        if self.bug == Bug::DeleteFailsWhereNothingIs && self.inner.head(key).await?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, "There is no such blob"));
        }
        self.inner.delete(key).await
    }

    async fn put(&self, key: &Key, mut bytes: Bytes) -> Result<()> {
        match self.bug {
            Bug::PutKeepsTheFirst if self.inner.head(key).await?.is_some() => return Ok(()),
            Bug::PutWithAGap => {
                self.inner.delete(key).await?;
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            }
            Bug::PutIsCutShort => bytes.truncate(bytes.len().saturating_sub(1)),
            _ => {}
        }
        self.notes().put.push(key.clone());
        self.inner.put(key, bytes).await
    }

    async fn clear(&self, folder: &Key) -> Result<()> {
        let put = self.notes().put.clone();
        match self.bug {
            Bug::ClearRefused => return Err(Error::invalid("store", "It cannot")),
            Bug::ClearsLookAlikes | Bug::ClearLeavesWhatIsDeep => {
                for key in put {
                    let rest = key.as_str().strip_prefix(folder.as_str());
                    let deep = rest.is_some_and(|rest| rest.matches('/').count() > 1);
                    if rest.is_some_and(|rest| !rest.is_empty()) && !(deep && self.bug == Bug::ClearLeavesWhatIsDeep) {
                        self.inner.delete(&key).await?;
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        self.inner.clear(folder).await
    }
}

#[derive(Debug)]
struct BrokenWriter {
    bug: Bug,
    store: Arc<MemoryBlobs>,
    handle: Handle,
    slot: Slot,
    frames: Vec<Bytes>,
    claim: Option<Box<dyn PartWriter>>,
}

#[async_trait]
impl PartWriter for BrokenWriter {
    async fn write(&mut self, mut frames: Vec<Bytes>) -> Result<()> {
        if self.bug == Bug::FramesSwapped {
            frames.reverse();
        }
        self.frames.extend(frames.iter().cloned());
        let Some(claim) = &mut self.claim else {
            return Ok(());
        };
        let answer = claim.write(frames).await;
        let superseded = matches!(&answer, Err(error) if error.kind() == ErrorKind::Superseded);
        if self.bug == Bug::ClaimTakenBack && superseded {
            self.claim = Some(self.store.open(&self.handle, self.slot).await?);
            return Ok(());
        }
        answer
    }

    async fn finish(mut self: Box<Self>) -> Result<Receipt> {
        match self.claim.take() {
            Some(claim) => claim.finish().await,
            None => {
                // The claim is made only now, whoever made another one meanwhile.
                let mut late = self.store.open(&self.handle, self.slot).await?;
                late.write(std::mem::take(&mut self.frames)).await?;
                late.finish().await
            }
        }
    }
}
