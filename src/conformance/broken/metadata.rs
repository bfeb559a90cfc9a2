use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{all_are_caught, caught};
use crate::{
    conformance,
    error::Result,
    metadata::{
        Committed, Created, Guard, Lookup, MemoryMetadata, MetadataStore, Page, PartRange, PartsEdit, Quota,
        Unfinished, Updated,
    },
    upload::{FileName, HashState, Owner, Part, Record, Snapshot, State, UploadId, Version, Wake},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    CommitWithoutOpenCheck,
    OpenCheckedBeforeTheCommit,
    TakenPartWrittenOver,
    NameNotReleased,
    TallyWrongAfterRemove,
    QuotaIgnored,
    QuotaIgnoredByCommits,
    PinForgotten,
    HashForgotten,
    SealForgotten,
    FirstPartsInASecondStep,
    DueWithoutLease,
    RemoveAtAnyVersion,
    ListOldestFirst,
    ListOfEverybody,
    StaleUpdateDone,
    NamesFolded,
    HalfACommit,
    EpochIgnored,
    ExpiryNeverSlides,
    CreationMoved,
    PublicationNotStamped,
    PublicationStampedAnew,
    NothingSurvives,
}

const BUGS: [(Bug, &str); 23] = [
    (
        Bug::CommitWithoutOpenCheck,
        "Once an upload has left `Open` every commit is refused",
    ),
    (Bug::OpenCheckedBeforeTheCommit, "once it has left `Open`"),
    (Bug::TakenPartWrittenOver, "Parts that are there are told before"),
    (Bug::NameNotReleased, "must be created, got NameTaken"),
    (Bug::TallyWrongAfterRemove, "The tally must say exactly"),
    (Bug::QuotaIgnored, "Exactly as many uploads as the quota allows"),
    (Bug::QuotaIgnoredByCommits, "exactly 3 fit into"),
    (Bug::PinForgotten, "A commit that disagrees must be refused: pin"),
    (Bug::HashForgotten, "A guard's hash state must be stored"),
    (Bug::SealForgotten, "A commit that seals leaves the upload assembling"),
    (Bug::FirstPartsInASecondStep, "counted in the creation's own step"),
    (Bug::DueWithoutLease, "Up to `limit` records whose time has come"),
    (Bug::RemoveAtAnyVersion, "A removal at an older version is refused"),
    (Bug::ListOldestFirst, "newest first"),
    (Bug::ListOfEverybody, "no stranger's"),
    (Bug::StaleUpdateDone, "after a stale update"),
    (Bug::NamesFolded, "must be created, got NameTaken"),
    (Bug::HalfACommit, "A commit of two parts adds both, in one revision"),
    (Bug::EpochIgnored, "older epoch"),
    (Bug::ExpiryNeverSlides, "must move the expiry on"),
    (Bug::CreationMoved, "The time of creation must stay"),
    (Bug::PublicationNotStamped, "must set the time of publication"),
    (Bug::PublicationStampedAnew, "must stay as it is: an update"),
];

#[test]
fn the_metadata_suite_catches_every_planted_bug() {
    all_are_caught(&BUGS, |bug| {
        caught(async || conformance::metadata::run(async || Broken::new(bug)).await)
    });
    all_are_caught(
        &[(Bug::NothingSurvives, "must be there after opening the store again")],
        |bug| caught(async || conformance::metadata::durability(async || Broken::new(bug)).await),
    );
}

#[derive(Debug)]
struct Broken {
    bug: Bug,
    inner: MemoryMetadata,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    names: HashMap<(Owner, FileName), Record>,
    extra: HashMap<UploadId, u64>,
    owners: HashSet<Owner>,
}

impl Broken {
    fn new(bug: Bug) -> Self {
        Self {
            bug,
            inner: MemoryMetadata::new(),
            notes: Mutex::default(),
        }
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn present(&self, id: UploadId) -> Option<Snapshot> {
        self.inner.load(Lookup::Id(id), PartRange::ALL).await.unwrap()
    }

    /// Commits although the upload is closed.
    async fn force(&self, closed: &Record, guard: &Guard, parts: &[Part]) -> Result<Committed> {
        let mut open = closed.clone();
        open.state = State::Open;
        if let Updated::Done(mut reopened) = self.inner.update(&open, PartsEdit::Keep, Wake::Keep).await? {
            let answer = self.inner.commit(closed.id, guard, parts).await?;
            reopened.state = closed.state;
            self.inner.update(&reopened, PartsEdit::Keep, Wake::Keep).await?;
            return Ok(answer);
        }
        Ok(Committed::Unknown)
    }
}

#[async_trait]
impl MetadataStore for Broken {
    async fn create(&self, new: &Record, first: &[Part], quota: &Quota, wake: Wake) -> Result<Created> {
        let mut new = new.clone();
        let name = (new.owner.clone(), new.file_name.clone());
        self.notes().owners.insert(new.owner.clone());
        match self.bug {
            Bug::NameNotReleased => {
                let holder = self.notes().names.get(&name).cloned();
                if let Some(holder) = holder.filter(|_| new.named) {
                    return Ok(Created::NameTaken(holder));
                }
            }
            Bug::QuotaIgnored => return self.inner.create(&new, first, &Quota::UNLIMITED, wake).await,
            Bug::FirstPartsInASecondStep => {
                let answer = self.inner.create(&new, &[], quota, wake).await?;
                if matches!(answer, Created::New(_)) && !first.is_empty() {
                    self.inner.commit(new.id, &Guard::new(new.epoch), first).await?;
                }
                return Ok(answer);
            }
            Bug::NamesFolded => new.file_name = FileName::parse(&new.file_name.as_str().to_lowercase()).unwrap(),
            _ => {}
        }
        self.inner.create(&new, first, quota, wake).await
    }

    async fn load(&self, by: Lookup<'_>, parts: PartRange) -> Result<Option<Snapshot>> {
        if let (Bug::NameNotReleased, Lookup::Name(owner, _, file_name)) = (self.bug, by) {
            let kept = self.notes().names.get(&(owner.clone(), file_name.clone())).cloned();
            if let Some(record) = kept {
                return self.inner.load(Lookup::Id(record.id), parts).await;
            }
        }
        let mut found = self.inner.load(by, parts).await?;
        if let Some(snapshot) = &mut found {
            snapshot.tally.bytes += self.notes().extra.get(&snapshot.record.id).copied().unwrap_or(0);
        }
        Ok(found)
    }

    async fn commit(&self, id: UploadId, guard: &Guard, parts: &[Part]) -> Result<Committed> {
        let mut guard = guard.clone();
        let before = self.present(id).await;
        match (self.bug, before) {
            (Bug::EpochIgnored, Some(before)) => guard.epoch = before.record.epoch,
            (Bug::QuotaIgnoredByCommits, _) => guard.quota = Quota::UNLIMITED,
            (Bug::PinForgotten, _) => guard.pin = None,
            (Bug::HashForgotten, _) => guard.hash = None::<HashState>,
            (Bug::SealForgotten, _) => guard.seal = None,
            (Bug::CommitWithoutOpenCheck, Some(before)) if before.record.state != State::Open => {
                return self.force(&before.record, &guard, parts).await;
            }
            (Bug::OpenCheckedBeforeTheCommit, Some(before)) if before.record.state == State::Open => {
                tokio::task::yield_now().await;
                let answer = self.inner.commit(id, &guard, parts).await?;
                if let Committed::Refused(record, _) = &answer
                    && record.state != State::Open
                {
                    return self.force(record, &guard, parts).await;
                }
                return Ok(answer);
            }
            (Bug::HalfACommit, _) => {
                let mut last = self.inner.commit(id, &guard, &[]).await?;
                for part in parts {
                    match self.inner.commit(id, &guard, std::slice::from_ref(part)).await? {
                        present @ Committed::Present(_) => return Ok(present),
                        answer => last = answer,
                    }
                }
                return Ok(last);
            }
            (Bug::TakenPartWrittenOver, Some(before)) if before.record.state == State::Open => {
                let numbers = parts.iter().map(|part| part.number).collect();
                self.inner
                    .update(&before.record, PartsEdit::Remove(numbers), Wake::Keep)
                    .await?;
            }
            (Bug::ExpiryNeverSlides, Some(before)) if before.record.expire_after.is_some() => {
                let answer = self.inner.commit(id, &guard, parts).await?;
                let mut slid = self.present(id).await.unwrap().record;
                (slid.expires_at, slid.due_at) = (before.record.expires_at, before.record.due_at);
                if slid.version != before.record.version {
                    self.inner.update(&slid, PartsEdit::Keep, Wake::Keep).await?;
                }
                return Ok(answer);
            }
            _ => {}
        }
        self.inner.commit(id, &guard, parts).await
    }

    async fn update(&self, next: &Record, edit: PartsEdit, wake: Wake) -> Result<Updated> {
        let mut next = next.clone();
        match self.bug {
            Bug::NameNotReleased if next.named && !next.state.is_live() => {
                let name = (next.owner.clone(), next.file_name.clone());
                self.notes().names.insert(name, next.clone());
            }
            Bug::TallyWrongAfterRemove => {
                if let (PartsEdit::Remove(numbers), Some(before)) = (&edit, self.present(next.id).await) {
                    let removed = before.parts.iter().filter(|part| numbers.contains(&part.number));
                    let extra: u64 = removed.map(|part| part.len).sum();
                    *self.notes().extra.entry(next.id).or_default() += extra;
                }
            }
            Bug::StaleUpdateDone => {
                if let Some(before) = self.present(next.id).await {
                    next.version = before.record.version;
                }
            }
            Bug::PublicationNotStamped => {
                let mut answer = self.inner.update(&next, edit, wake).await?;
                if let Updated::Done(record) = &mut answer {
                    record.published_at = None;
                }
                return Ok(answer);
            }
            Bug::CreationMoved => {
                let moved = next.created_at;
                let mut answer = self.inner.update(&next, edit, wake).await?;
                if let Updated::Done(record) = &mut answer {
                    record.created_at = moved;
                }
                return Ok(answer);
            }
            Bug::PublicationStampedAnew => next.published_at = None,
            _ => {}
        }
        self.inner.update(&next, edit, wake).await
    }

    async fn due(&self, lease: Duration, limit: usize) -> Result<Vec<Record>> {
        let lease = if self.bug == Bug::DueWithoutLease {
            Duration::ZERO
        } else {
            lease
        };
        self.inner.due(lease, limit).await
    }

    async fn list(&self, owner: Option<&Owner>, page: Page) -> Result<Vec<Snapshot>> {
        let mut listed = Vec::new();
        let owners = match self.bug {
            Bug::ListOfEverybody => self.notes().owners.iter().cloned().collect(),
            Bug::ListOldestFirst => owner.cloned().into_iter().collect::<Vec<_>>(),
            _ => return self.inner.list(owner, page).await,
        };
        for owner in owners {
            listed.extend(self.inner.list(Some(&owner), Page::new(0, usize::MAX)).await?);
        }
        listed.sort_by_key(|snapshot| snapshot.record.created_at);
        if self.bug == Bug::ListOfEverybody {
            listed.reverse();
        }
        Ok(listed.into_iter().skip(page.skip).take(page.limit).collect())
    }

    async fn remove(&self, id: UploadId, expected: Version) -> Result<bool> {
        let present = self.present(id).await.map(|snapshot| snapshot.record.version);
        let version = present
            .filter(|_| self.bug == Bug::RemoveAtAnyVersion)
            .unwrap_or(expected);
        self.inner.remove(id, version).await
    }

    async fn unfinished(&self) -> Result<Option<Unfinished>> {
        self.inner.unfinished().await
    }
}
