//! Creation of a session: its shape, its key, its record.

use std::collections::BTreeMap;

use super::{NewUpload, Upload, Uploads, contended, live::Creating, receive::over_quota, request::Chunks};
use crate::{
    access::{Action, Caller, Subject},
    error::{Error, ErrorKind, Result},
    metadata::{Created, Lookup, PartRange},
    observe,
    upload::{
        Algorithm, Concat, EventKind, FileName, Handle, Key, Layout, Plan, Protocol, Record, Snapshot, Tally, Target,
        UploadId, Wake,
    },
};

/// Bounds of the metadata a client may attach.
const MAX_METADATA: usize = 16 << 10;
/// Bounds of what its protocol keeps besides: headers as they came, in which the same is encoded.
const MAX_NOTES: usize = 64 << 10;

impl Uploads {
    /// Creates an upload.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a name, size or chunk size that cannot be; [`TooLarge`](ErrorKind::TooLarge);
    /// [`QuotaExceeded`](ErrorKind::QuotaExceeded); [`Conflict`](ErrorKind::Conflict) if it is [`named`](NewUpload::named) and
    /// the name is that of an upload of another shape; [`NoSpace`](ErrorKind::NoSpace).
    pub async fn create(&self, caller: &Caller, new: NewUpload) -> Result<Upload> {
        let _working = self.inner.tasks.begin()?;
        let file_name = FileName::parse(&new.file_name)?;
        let subject = Subject::New {
            target: new.target.as_ref(),
            file_name: &file_name,
        };
        self.authorize(caller, Action::Create, subject).await?;
        let plan = self.plan(new.size, new.chunks)?;
        check_metadata(&new.metadata, &new.notes)?;
        if new.partial && plan.layout == Layout::Indexed {
            return Err(Error::invalid(
                "partial",
                "A partial upload takes appends, not numbered chunks",
            ));
        }
        if new.named {
            let by = Lookup::Name(caller.owner(), new.target.as_ref(), &file_name);
            if let Some(found) = self.inner.metadata.load(by, PartRange::ALL).await? {
                return self.join_named(caller, found, &new, &plan).await;
            }
        }
        let concat = new.partial.then_some(Concat::Partial);
        let wanted = Wanted::of(&new, file_name, plan.clone(), concat);
        match self.store_new(caller, &wanted, wake).await? {
            Stored::New(created) => Ok(Upload::created(created)),
            Stored::NameTaken(existing) => {
                let found = self.load(existing, PartRange::ALL).await?;
                self.join_named(caller, found, &new, &plan).await
            }
        }
    }

    /// Begins an upload in the blob store and records it, with nothing in it yet.
    pub(super) async fn store_new(
        &self,
        caller: &Caller,
        wanted: &Wanted,
        wake: impl Fn(&Record) -> Wake + Send,
    ) -> Result<Stored> {
        for attempt in 0..super::CONTENTION {
            let (record, creating) = self.draft(caller, wanted, attempt > 0).await?;
            let mut plan = record.plan.clone();
            plan.joined = record.is_partial();
            let handle = self.inner.blobs.begin(record.id, &record.key, &plan).await?;
            let record = Record {
                handle: handle.clone(),
                ..record
            };
            let created = self
                .inner
                .metadata
                .create(&record, &[], &self.inner.config.quota, wake(&record))
                .await;
            match created {
                Ok(Created::New(record)) => {
                    observe::created(&record);
                    self.events_pending(&record);
                    let tally = Tally {
                        revision: 1,
                        ..Tally::default()
                    };
                    return Ok(Stored::New(Snapshot::new(record, tally, Vec::new())));
                }
                Ok(refused) => {
                    self.discard_unrecorded(&handle, creating).await;
                    match refused {
                        Created::NameTaken(existing) => return Ok(Stored::NameTaken(existing.id)),
                        Created::OverQuota(bound) => return Err(over_quota(bound)),
                        _ => {}
                    }
                }
                // It may have been created all the same: a sweep finds out.
                Err(error) => return Err(error),
            }
        }
        Err(contended())
    }

    /// The upload that has the name already, if it is of the shape that was asked for and the caller may go on with it.
    async fn join_named(&self, caller: &Caller, found: Snapshot, new: &NewUpload, plan: &Plan) -> Result<Upload> {
        self.authorize(caller, Action::Write, Subject::Upload(&found.record))
            .await?;
        let stored = &found.record.plan;
        let same_chunks = match new.chunks {
            Chunks::Of(bytes) => stored.chunk_size == Some(bytes),
            Chunks::Proposed | Chunks::None => true,
        };
        let same_size = stored.size.is_none() || stored.size == plan.size;
        let same_sum = new.checksum.is_none() || new.checksum == found.record.checksum;
        if stored.layout == plan.layout && same_chunks && same_size && same_sum {
            Ok(Upload::new(found))
        } else {
            Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "There is an upload of this name already, of another size or shape ({})",
                    found.record.id
                ),
            ))
        }
    }

    pub(super) fn check_size(&self, size: u64) -> Result<()> {
        let max = self.inner.config.max_size;
        if size > max {
            return Err(Error::too_large(format!("A file may have {max} bytes at most"), max));
        }
        Ok(())
    }

    /// The shape of an upload: chunks that fit the store and the limits.
    fn plan(&self, size: Option<u64>, chunks: Chunks) -> Result<Plan> {
        if let Some(size) = size {
            self.check_size(size)?;
        }
        if chunks == Chunks::None {
            return Ok(Plan::sequential(size));
        }
        let size = size.ok_or_else(|| Error::invalid("fileSize", "Numbered chunks need the size of the file"))?;
        let limits = &self.inner.limits;
        let max_chunk = self.inner.config.max_chunk.min(limits.max_part);
        let max_chunks = u64::from(self.inner.config.max_chunks.min(limits.max_parts));
        let chunk_size = match chunks {
            Chunks::Of(0) => return Err(Error::invalid("chunkSize", "A chunk has one byte at least")),
            Chunks::Of(bytes) => bytes,
            _ => {
                let mut bytes = limits.preferred_part.min(max_chunk).max(1);
                // Few chunks are cheaper to keep, small ones cheaper to lose.
                while size.div_ceil(bytes) > max_chunks.min(2_000) && bytes < max_chunk {
                    bytes = bytes.saturating_mul(2).min(max_chunk);
                }
                bytes
            }
        };
        let count = size.div_ceil(chunk_size).max(1);
        if chunk_size > max_chunk {
            return Err(Error::too_large(
                format!("A chunk may have {max_chunk} bytes at most"),
                max_chunk,
            ));
        }
        if count > 1 && chunk_size < limits.min_part {
            let min = limits.min_part;
            return Err(Error::invalid(
                "chunkSize",
                format!("A chunk must have {min} bytes at least"),
            ));
        }
        if count > max_chunks {
            let message = format!("The file would have {count} chunks, {max_chunks} are allowed; send larger ones");
            return Err(Error::too_large(message, max_chunks));
        }
        let count = u32::try_from(count).map_err(|_| Error::too_large("Too many chunks", max_chunks))?;
        Ok(Plan::indexed(count, Some(chunk_size), Some(size)))
    }

    /// A record that nobody has stored yet, under a key that is free; `taken`: the key that comes to mind is not.
    pub(super) async fn draft(&self, caller: &Caller, wanted: &Wanted, taken: bool) -> Result<(Record, Creating)> {
        let mut bytes = [0; 16];
        self.inner.random.fill(&mut bytes)?;
        let id = UploadId::from_bytes(bytes);
        let creating = self.inner.live.creating(id);
        let config = &self.inner.config;
        let key = |file_name: &FileName| match (&wanted.key, &wanted.concat) {
            // It is never published: the key that comes to mind is that of the upload it is joined to.
            (_, Some(Concat::Partial)) => Key::parse(&format!("partial/{}", Key::segment(&id.to_string()))),
            (Some(key), _) => Ok(key.clone()),
            (None, _) => config.key(id, wanted.target.as_ref(), file_name),
        };
        let (owner, file_name) = (caller.owner(), &wanted.file_name);
        let first_key = key(file_name)?;
        let (plan, handle) = (wanted.plan.clone(), Handle::new(""));
        let mut record = Record::new(id, owner.clone(), file_name.clone(), first_key.clone(), plan, handle);
        record.target.clone_from(&wanted.target);
        record.named = wanted.named;
        record.protocol = wanted.protocol;
        record.metadata.clone_from(&wanted.metadata);
        record.checksum.clone_from(&wanted.checksum);
        record.notes.clone_from(&wanted.notes);
        record.seals_itself = wanted.seals_itself;
        record.wanted_digest = wanted.wanted_digest;
        record.concat.clone_from(&wanted.concat);
        // One that is made of others ends with them.
        record.expire_after = config.expire_after.filter(|_| record.joins().is_none());
        // Nobody is at joining it yet.
        record.attempts = u32::from(record.joins().is_some());
        record.epoch = self.incarnation();
        for hook in &*config.hooks {
            hook.before_create(&mut record).await?;
        }
        if record.file_name != *file_name {
            record.renamed = Some(std::mem::replace(&mut record.file_name, file_name.clone()));
            if record.key == first_key {
                record.key = key(record.display_name())?;
            }
        }
        if record.named {
            // What it is found by.
            (record.owner, record.target) = (owner.clone(), wanted.target.clone());
        }
        if taken || self.inner.blobs.head(&record.key).await?.is_some() {
            record.key = self.free_key(&record.key).await?;
        }
        self.push_event(&mut record, EventKind::Created);
        Ok((record, creating))
    }

    /// `key` with a random suffix, so that there is no blob under it.
    pub(super) async fn free_key(&self, key: &Key) -> Result<Key> {
        for _ in 0..super::CONTENTION {
            let fresh = key.with_suffix(&format!("{:016x}", self.inner.random.u64()?));
            if self.inner.blobs.head(&fresh).await?.is_none() {
                return Ok(fresh);
            }
        }
        Err(contended())
    }

    /// Removes bytes that no record speaks of; a failure is left to the sweep.
    pub(super) async fn discard_unrecorded(&self, handle: &Handle, creating: Creating) {
        if let Err(error) = self.inner.blobs.discard(handle).await {
            tracing::warn!(%error, "what a refused creation wrote is left to the sweep");
        }
        drop(creating);
    }
}

/// How the attempt at a new upload ended.
#[allow(clippy::large_enum_variant, reason = "it is taken apart where it is answered")]
pub(super) enum Stored {
    New(Snapshot),
    NameTaken(UploadId),
}

/// What an upload shall be, before it has an id and a key.
pub(super) struct Wanted {
    pub(super) file_name: FileName,
    pub(super) target: Option<Target>,
    pub(super) named: bool,
    pub(super) protocol: Protocol,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) checksum: Option<crate::upload::Digest>,
    pub(super) key: Option<Key>,
    pub(super) plan: Plan,
    pub(super) notes: BTreeMap<String, String>,
    pub(super) seals_itself: bool,
    pub(super) wanted_digest: Option<Algorithm>,
    pub(super) concat: Option<Concat>,
}

impl Wanted {
    pub(super) fn of(new: &NewUpload, file_name: FileName, plan: Plan, concat: Option<Concat>) -> Self {
        Self {
            file_name,
            target: new.target.clone(),
            named: new.named,
            protocol: new.protocol,
            metadata: new.metadata.clone(),
            checksum: new.checksum.clone(),
            key: new.key.clone(),
            plan,
            notes: new.notes.clone(),
            seals_itself: new.seals_itself && concat.is_none(),
            wanted_digest: new.wanted_digest,
            concat,
        }
    }
}

/// Metadata ends up in headers and pages: it is refused here with what could break out of them.
pub(super) fn check_metadata(metadata: &BTreeMap<String, String>, notes: &BTreeMap<String, String>) -> Result<()> {
    for (texts, most) in [(metadata, MAX_METADATA), (notes, MAX_NOTES)] {
        let texts = || texts.iter().flat_map(|(key, value)| [key, value]);
        if texts().map(String::len).sum::<usize>() > most {
            return Err(Error::invalid(
                "metadata",
                format!("The metadata may have {most} bytes at most"),
            ));
        }
        if texts().any(|text| text.contains(char::is_control)) {
            return Err(Error::invalid("metadata", "The metadata has a control character"));
        }
    }
    Ok(())
}

/// When the driver looks at a new record: at once if events wait to be told in case this process dies.
pub(super) fn wake(record: &Record) -> Wake {
    if record.outbox.is_empty() {
        Wake::AtExpiry
    } else {
        Wake::After(super::tell::RETELL)
    }
}
