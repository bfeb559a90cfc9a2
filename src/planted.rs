//! Bugs that a test switches on to see that the suites catch them. Nothing of it is in a build that
//! is not a test.

/// A bug that can be planted.
#[allow(dead_code, reason = "each is named by the code that would have it, and in tests")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bug {
    /// A chunk is acknowledged before its commit.
    AcknowledgeBeforeCommit,
    /// New directory entries are not synced.
    NoDirectoryFsync,
    /// Parts are committed to an upload that is not open.
    CommitWithoutOpenCheck,
    /// Assembly does not wait for the batches that writers have outstanding.
    SealWithoutDrainingWriters,
    /// A chunk that is sent again is written over the committed one.
    RetryOverwritesCommittedSlot,
    /// A dropped request frees its claim although its job still writes.
    ClaimFreedOnDrop,
    /// Bytes are deleted before the record says so.
    DeleteBeforeCompareAndSet,
    /// An event is written by another step than the change it tells of.
    EventOutsideStateChange,
    /// A budget permit is never given back.
    BudgetPermitLeaked,
    /// A chunk may be one byte too long.
    ChunkSizePlusOneAccepted,
    /// Chunks are written in place before the chunk size is fixed.
    WriteInPlaceBeforePin,
    /// The offset is the sum of all sizes, gaps or not.
    OffsetIsSumOfSizes,
    /// An object under the key is taken for the upload's.
    CompleteTrustsKey,
    /// The node's clock decides what has expired.
    ExpiryByNodeClock,
    /// After a failed sync another one is believed.
    FsyncRetriedAfterEio,
    /// The offset is told while a writer still goes on.
    OffsetToldBeforeStopped,
    /// The last byte of an upload that seals itself does not seal it.
    LastByteDoesNotSeal,
    /// A partial upload that is gone is left out when the others are joined.
    LostPartialSkipped,
    /// Partial uploads end before the upload that they were joined to is published.
    PartialsEndedBeforePublication,
    /// What an append goes on from is deleted before the append is durable.
    TailDeletedTooEarly,
    /// A blob is said to be made although the answer to that request was lost.
    LostAnswerIsSuccess,
}

/// Whether `bug` is planted on this thread.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(all(test, feature = "disk"))]
pub(crate) use switch::plant;
#[cfg(test)]
pub(crate) use switch::planted;

#[cfg(test)]
mod switch {
    use std::cell::RefCell;

    use super::Bug;

    thread_local! {
        static BUGS: RefCell<Vec<Bug>> = const { RefCell::new(Vec::new()) };
    }

    /// Whether `bug` is planted on this thread.
    pub(crate) fn planted(bug: Bug) -> bool {
        BUGS.with_borrow(|bugs| bugs.contains(&bug))
    }

    /// Plants `bug` on this thread until the guard is dropped.
    pub(crate) fn plant(bug: Bug) -> Planted {
        BUGS.with_borrow_mut(|bugs| bugs.push(bug));
        Planted(bug)
    }

    /// Digs the bug out again when dropped.
    #[derive(Debug)]
    #[must_use]
    pub(crate) struct Planted(Bug);

    impl Drop for Planted {
        fn drop(&mut self) {
            BUGS.with_borrow_mut(|bugs| {
                if let Some(at) = bugs.iter().rposition(|bug| *bug == self.0) {
                    bugs.remove(at);
                }
            });
        }
    }
}
