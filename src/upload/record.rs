use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Algorithm, Blob, Concat, DeadLetter, Delivery, Digest, Event, EventId, EventKind, FileName, Handle, HashState, Key,
    Outgoing, Owner, Part, Plan, Tally, Target, Timestamp, UploadId,
};
use crate::error::{Error, Result};

/// Counts the changes of a record; an [`update`](crate::metadata::MetadataStore::update) names the
/// one it was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub(crate) u64);

impl Version {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where an upload is in its life. All but the first two are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// Takes chunks.
    Open,
    /// All bytes are there and sealed; the blob is being made.
    Assembling,
    /// The blob is published.
    Assembled,
    /// It can never be assembled; the record says why.
    Failed,
    /// Given up by its owner.
    Aborted,
    /// Nobody went on with it in time.
    Expired,
    /// The finished blob was deleted; or it was a partial upload, and the blob that it was joined to is published.
    Deleted,
}

impl State {
    /// Whether nothing follows, a deletion of an assembled upload aside.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Open | Self::Assembling)
    }

    /// Whether an upload in this state holds its name.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Open | Self::Assembling | Self::Assembled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Assembling => "assembling",
            Self::Assembled => "assembled",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
        })
    }
}

/// The protocol that created an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// The plain engine, no protocol.
    Engine,
    /// The chunk API.
    Chunk,
    /// tus 1.0.0.
    Tus,
    /// Resumable Uploads for HTTP, the IETF's.
    Resumable,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engine => "engine",
            Self::Chunk => "chunk",
            Self::Tus => "tus",
            Self::Resumable => "resumable",
        })
    }
}

/// What shall become of an upload once its running assembly has come to a definite end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Intent {
    /// Give it up.
    Abort,
    /// Delete the blob.
    Delete,
}

/// When the driver shall look at a record next. The store turns it into a moment by its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wake {
    /// As it was.
    Keep,
    /// Not again.
    Never,
    /// After this time.
    After(Duration),
    /// When the upload expires; activity moves that on.
    AtExpiry,
}

/// The upload as metadata.
///
/// Stores keep it whole ([`encode`](Self::encode), [`decode`](Self::decode)) and index what
/// [`name`](Self::name), [`held_key`](Self::held_key), [`owner`](Self::owner) and
/// [`due_at`](Self::due_at) say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Names the upload.
    pub id: UploadId,
    /// Set by the store: 1 at creation, one more with every change of the record.
    pub version: Version,
    /// Where it is in its life.
    pub state: State,
    /// What shall become of it after its assembly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// The protocol that created it.
    pub protocol: Protocol,
    /// Who created it.
    pub owner: Owner,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The name the client gave its file, by which it finds the upload.
    pub file_name: FileName,
    /// What the file is called instead, where [`before_create`](crate::Hook::before_create) changed its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed: Option<FileName>,
    /// Whether (owner, target, file name) names this upload alone.
    pub named: bool,
    /// Where the blob will lie.
    pub key: Key,
    /// Whether the key is this upload's: from its creation until it is given up before sealing or has a definite end.
    pub key_held: bool,
    /// Set while the blob of an ended upload is being deleted, until the key is released: the version by which that was claimed.
    /// Somebody else claims it only once that one's lease is over, or two would delete what a later upload has under the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleaner: Option<Version>,
    /// What the client said about its file, as it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What the protocol that created it keeps for its own answers, as it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
    /// Its shape.
    pub plan: Plan,
    /// Its place in a concatenation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concat: Option<Concat>,
    /// Whether it is sealed by the commit of its last byte, rather than by a request to assemble it. Sequential uploads only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seals_itself: bool,
    /// Who may write: a commit under an older epoch is refused.
    pub epoch: u64,
    /// What the blob store needs to find its bytes.
    pub handle: Handle,
    /// Whether the blob store still holds something under the handle.
    pub staged: bool,
    /// The checksum of the whole file that the client promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
    /// The algorithm of a digest of the whole file that the client wants to be told. Sequential uploads only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_digest: Option<Algorithm>,
    /// The running hash of a sequential upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashState>,
    /// The finished blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Blob>,
    /// CRC-64/NVME of the finished blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64: Option<u64>,
    /// The folder of the files that hooks made of the blob, once there may be some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Key>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How often its assembly was tried.
    #[serde(default)]
    pub attempts: u32,
    /// How long it lives without activity; `None` for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_after: Option<Duration>,
    /// Set by the store: when it was created.
    #[serde(default)]
    pub created_at: Timestamp,
    /// Set by the store: when its blob was published, by the update that made it [`Assembled`](State::Assembled). A record that
    /// was assembled before there was this field has the time of its next update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// Set by the store: when it expires, while open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Set by the store: when the driver shall look at it next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// How many events there were.
    #[serde(default)]
    pub events: u32,
    /// Events that were not told to every hook yet, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<Outgoing>,
    /// How hooks are getting on, by their names: those that fail, and those that work for long.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deliveries: BTreeMap<String, Delivery>,
    /// Events that hooks were told of in vain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<DeadLetter>,
}

/// The format of encoded records: the first byte.
const FORMAT: u8 = 1;

impl Record {
    /// A new, open upload without target, expiry or checksum.
    #[must_use]
    pub fn new(id: UploadId, owner: Owner, file_name: FileName, key: Key, plan: Plan, handle: Handle) -> Self {
        Self {
            id,
            version: Version(0),
            state: State::Open,
            intent: None,
            protocol: Protocol::Engine,
            owner,
            target: None,
            file_name,
            renamed: None,
            named: false,
            key,
            key_held: true,
            cleaner: None,
            metadata: BTreeMap::new(),
            notes: BTreeMap::new(),
            plan,
            concat: None,
            seals_itself: false,
            epoch: 1,
            handle,
            staged: true,
            checksum: None,
            wanted_digest: None,
            hash: None,
            blob: None,
            crc64: None,
            failure: None,
            derived: None,
            attempts: 0,
            expire_after: None,
            created_at: Timestamp::default(),
            published_at: None,
            expires_at: None,
            due_at: None,
            events: 0,
            outbox: Vec::new(),
            deliveries: BTreeMap::new(),
            dead_letters: Vec::new(),
        }
    }

    /// The record as bytes: a format byte, then JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        serde_json::to_writer(&mut out, self).expect("a record has only string keys and no failing serializer");
        out
    }

    /// The record of what [`encode`](Self::encode) gave, now or in an older release.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if it is of a newer format, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [FORMAT, json @ ..] => serde_json::from_slice(json)
                .map_err(|error| Error::internal("A metadata record is damaged").with_source(error)),
            [format, ..] => Err(Error::internal(format!(
                "A metadata record has format {format}, this release reads format {FORMAT}; run the release that wrote it"
            ))),
            [] => Err(Error::internal("A metadata record is empty")),
        }
    }

    /// What the file is called.
    #[must_use]
    pub fn display_name(&self) -> &FileName {
        self.renamed.as_ref().unwrap_or(&self.file_name)
    }

    /// What names this upload alone, while it is live: (owner, target, file name).
    #[must_use]
    pub fn name(&self) -> Option<(&Owner, Option<&Target>, &FileName)> {
        (self.named && self.state.is_live()).then_some((&self.owner, self.target.as_ref(), &self.file_name))
    }

    /// The final key, while no other upload may have it.
    #[must_use]
    pub fn held_key(&self) -> Option<&Key> {
        self.key_held.then_some(&self.key)
    }

    /// Whether it is sent to be joined with others.
    pub(crate) const fn is_partial(&self) -> bool {
        matches!(self.concat, Some(Concat::Partial))
    }

    /// The partial uploads that are joined to this one.
    pub(crate) fn joins(&self) -> Option<&[UploadId]> {
        match &self.concat {
            Some(Concat::Final(partials)) => Some(partials),
            _ => None,
        }
    }

    /// The bytes this upload counts for against its owner's quota: those declared or those
    /// stored, whichever are more; none once it has ended.
    #[must_use]
    pub fn reserved(&self, tally: Tally) -> u64 {
        match self.state {
            State::Open | State::Assembling => self.plan.size.unwrap_or(0).max(tally.bytes),
            _ => 0,
        }
    }

    /// Sets the times. Every store calls it with its own clock's `now` on `create` and `update`,
    /// and on a `commit` that shall slide the expiry (with [`Wake::AtExpiry`]).
    pub fn stamp(&mut self, now: Timestamp, wake: Wake) {
        if self.version == Version(0) {
            self.created_at = now;
        }
        if self.state == State::Assembled && self.published_at.is_none() {
            self.published_at = Some(now);
        }
        match wake {
            Wake::Keep => {}
            Wake::Never => self.due_at = None,
            Wake::After(wait) => self.due_at = Some(now.after(wait)),
            Wake::AtExpiry => {
                self.expires_at = self.expire_after.map(|after| now.after(after));
                // What waits for the driver goes on waiting for it.
                if !self.waits() || self.due_at.is_none() {
                    self.due_at = self.expires_at;
                }
            }
        }
        if self.state != State::Open {
            self.expires_at = None;
        } else if self.expires_at.is_none() {
            self.expires_at = self.expire_after.map(|after| now.after(after));
        }
        if let (State::Open, Some(expires)) = (self.state, self.expires_at) {
            self.due_at = Some(self.due_at.map_or(expires, |due| due.min(expires)));
        }
    }

    /// Whether the driver has more to do than to let it expire: events are untold, or other uploads are joined to it.
    pub(crate) fn waits(&self) -> bool {
        !self.outbox.is_empty() || self.joins().is_some()
    }

    /// Whether sliding the expiry from what is stored to `now` is worth a change: it is coarse, a
    /// sixteenth of the time.
    #[must_use]
    pub fn slides(&self, now: Timestamp) -> bool {
        match (self.state, self.expire_after, self.expires_at) {
            (State::Open, Some(after), Some(expires)) => {
                // No longer than a timestamp can say, or it would never be reached.
                let after = after.min(Duration::from_millis(u64::MAX));
                now.after(after).since(expires) > after / 16
            }
            _ => false,
        }
    }

    /// Puts an event that was told in vain back into the outbox, where it was.
    pub(crate) fn owe(&mut self, event: Event, hook: String) {
        let at = self.outbox.partition_point(|outgoing| outgoing.event.id < event.id);
        match self.outbox.get_mut(at) {
            Some(outgoing) if outgoing.event.id == event.id => outgoing.owed.push(hook),
            _ => self.outbox.insert(
                at,
                Outgoing {
                    event,
                    owed: vec![hook],
                },
            ),
        }
    }

    /// Appends an event to the outbox, for these hooks.
    pub(crate) fn push_event(&mut self, kind: EventKind, owed: Vec<String>) {
        self.push_event_of(kind, None, owed);
    }

    /// The same of what became of a hook.
    pub(crate) fn push_event_of(&mut self, kind: EventKind, hook: Option<&str>, owed: Vec<String>) {
        let event = Event {
            id: EventId::new(self.id, self.events),
            kind,
            owner: self.owner.clone(),
            target: self.target.clone(),
            file_name: self.display_name().clone(),
            key: self.key.clone(),
            size: self.blob.as_ref().map(|blob| blob.size).or(self.plan.size),
            hook: hook.map(str::to_owned),
        };
        self.outbox.push(Outgoing { event, owed });
        self.events += 1;
    }
}

/// An upload as a store has it: one consistent read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The record.
    pub record: Record,
    /// What has been committed.
    pub tally: Tally,
    /// The parts that were asked for, by number.
    pub parts: Vec<Part>,
}

impl Snapshot {
    /// A snapshot.
    #[must_use]
    pub const fn new(record: Record, tally: Tally, parts: Vec<Part>) -> Self {
        Self { record, tally, parts }
    }
}
