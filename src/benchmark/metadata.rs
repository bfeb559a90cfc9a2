//! The metadata store alone, past the engine.

use std::sync::Arc;

use super::{
    Workload,
    bench::{Bench, Timed, random, scatter},
    options::decades,
};
use crate::{
    error::{Error, Result},
    metadata::{Committed, Created, Guard, Lookup, MetadataStore, Page, PartRange, Quota},
    upload::{FileName, Handle, Key, Owner, Part, Plan, Receipt, Record, UploadId, Wake},
};

/// Each owner has so many uploads, however many there are together.
const PER_OWNER: u64 = 10;
const WRITERS: usize = 64;
/// Where the numbers of parts begin that are committed one at a time, and in bursts: no upload gets one twice.
const SINGLE: u64 = 1 << 24;
const BURST: u64 = 1 << 31;

/// Writes and reads records that no bytes belong to.
#[derive(Clone)]
struct Records {
    store: Arc<dyn MetadataStore>,
    run: Arc<str>,
    seed: u64,
    /// What a killed run leaves behind is deleted by this, when it expires.
    handle: Handle,
}

impl Records {
    fn id(&self, number: u64) -> UploadId {
        let (high, low) = (scatter(self.seed ^ number), scatter(self.seed.rotate_left(32) ^ number));
        UploadId::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    fn owner(&self, number: u64) -> Owner {
        Owner::new(format!("{} {}", self.run, number / PER_OWNER))
    }

    async fn create(self, number: u64) -> Result<u64> {
        let id = self.id(number);
        let mut new = Record::new(
            id,
            self.owner(number),
            FileName::parse(&format!("video-{number}.mp4"))?,
            key(id)?,
            Plan::indexed(1_000_000, Some(1 << 20), None),
            self.handle.clone(),
        );
        new.named = true;
        new.expire_after = Some(std::time::Duration::from_secs(3600));
        match self.store.create(&new, &[], &Quota::UNLIMITED, Wake::AtExpiry).await? {
            Created::New(_) => Ok(0),
            other => Err(refused(&other)),
        }
    }

    async fn commit(self, upload: u64, number: u64) -> Result<u64> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let part = Part::new(number, 1 << 20, scatter(number.into()), Receipt::new("a receipt"));
        match self.store.commit(self.id(upload), &Guard::new(1), &[part]).await? {
            Committed::Done(_) => Ok(0),
            other => Err(refused(&other)),
        }
    }

    async fn load(self, upload: u64) -> Result<u64> {
        let found = self.store.load(Lookup::Id(self.id(upload)), PartRange::one(0)).await?;
        found.map(|_| 0).ok_or_else(Error::not_found)
    }

    async fn list(self, upload: u64) -> Result<u64> {
        let owner = self.owner(upload);
        let listed = self.store.list(Some(&owner), Page::new(0, 100)).await?;
        if listed.is_empty() {
            return Err(Error::internal("The store lists no uploads of an owner who has some"));
        }
        Ok(0)
    }
}

fn key(id: UploadId) -> Result<Key> {
    // An id may begin with what no segment of a key does.
    Key::parse(&format!("tower-upload-benchmark/{}", Key::segment(&id.to_string())))
}

fn refused(answer: &impl std::fmt::Debug) -> Error {
    Error::internal(format!("The metadata store answered {answer:?}"))
}

impl Bench {
    pub(super) async fn metadata_alone(&mut self) -> Result<()> {
        let plan = Plan::sequential(None);
        let begun = UploadId::from_bytes(random()?);
        let handle = self.blobs.begin(begun, &key(begun)?, &plan).await?;
        let records = Records {
            store: Arc::clone(&self.metadata),
            run: format!("tower-upload-benchmark {begun}").into(),
            seed: u64::from_le_bytes(random()?),
            handle: handle.clone(),
        };
        let done = self.many_records(&records).await;
        let step = self.step(Workload::Metadata, "remove", self.made.len() as u64);
        let removed = self.remove_made(&step).await;
        self.blobs.discard(&handle).await?;
        done?;
        self.add(&step, 256, None, removed?);
        Ok(())
    }

    async fn many_records(&mut self, records: &Records) -> Result<()> {
        self.parts_of_records(records).await?;
        for amount in decades(self.options.open_uploads) {
            self.fill_to(records, amount).await?;
            self.single(records, amount).await?;
        }
        let existing = self.made.len() as u64;
        let commits = u64::from(self.options.samples) * 20;
        let step = self.step(Workload::Metadata, "commit", commits);
        let all = records.clone();
        let timed = step
            .each(commits, WRITERS, move |number| {
                all.clone().commit(scatter(number) % existing, BURST + number)
            })
            .await?;
        self.add(&step, WRITERS, None, timed);
        Ok(())
    }

    /// Commits to uploads that have few or many parts, in turn.
    async fn parts_of_records(&mut self, records: &Records) -> Result<()> {
        let mut uploads = Vec::new();
        for level in decades(self.options.parts) {
            let upload = self.create_next(records).await?;
            let step = self.step(Workload::Metadata, format!("filling {level} parts"), level.into());
            let filled = records.clone();
            step.each(level.into(), WRITERS, move |number| {
                filled.clone().commit(upload, number)
            })
            .await?;
            uploads.push((upload, level, Timed::none()));
        }
        let samples = self.options.samples;
        let step = self.step(
            Workload::Metadata,
            "commit, by parts",
            u64::from(samples) * uploads.len() as u64,
        );
        for turn in 0..samples {
            for (upload, level, timed) in &mut uploads {
                let commit = records.clone().commit(*upload, u64::from(*level + turn));
                step.time(timed, commit).await?;
            }
        }
        for (_, level, timed) in uploads {
            self.add(&step, 1, Some(level), timed);
        }
        Ok(())
    }

    async fn create_next(&mut self, records: &Records) -> Result<u64> {
        let number = self.made.len() as u64;
        self.made.push(records.id(number));
        records.clone().create(number).await?;
        Ok(number)
    }

    /// Creates records until there are so many.
    async fn fill_to(&mut self, records: &Records, amount: u32) -> Result<()> {
        let from = self.made.len() as u64;
        let missing = u64::from(amount).saturating_sub(from);
        self.made
            .extend((from..from + missing).map(|number| records.id(number)));
        let step = self.step(Workload::Metadata, "create", missing);
        let filled = records.clone();
        let timed = step
            .each(missing, WRITERS, move |number| filled.clone().create(from + number))
            .await?;
        if amount == self.options.open_uploads {
            self.add(&step, WRITERS, None, timed);
        }
        Ok(())
    }

    /// Times single operations, one of each kind in turn.
    async fn single(&mut self, records: &Records, amount: u32) -> Result<()> {
        let samples = self.options.samples;
        let existing = self.made.len() as u64;
        let what = format!("one of each, beside {amount} open uploads");
        let step = self.step(Workload::Metadata, what, u64::from(samples) * 4);
        let mut timed = [(); 4].map(|()| Timed::none());
        for turn in 0..u64::from(samples) {
            let upload = scatter(turn ^ u64::from(amount)) % existing;
            let number = self.made.len() as u64;
            let part = SINGLE + number;
            self.made.push(records.id(number));
            let [create, commit, load, list] = &mut timed;
            step.time(create, records.clone().create(number)).await?;
            step.time(commit, records.clone().commit(upload, part)).await?;
            step.time(load, records.clone().load(upload)).await?;
            step.time(list, records.clone().list(upload)).await?;
        }
        for (name, timed) in ["create", "commit", "load", "list of an owner"].iter().zip(timed) {
            let step = step.called(format!("{name}, by open uploads"));
            self.add(&step, 1, Some(amount), timed);
        }
        Ok(())
    }
}
