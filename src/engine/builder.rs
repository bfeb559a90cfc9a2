use std::{fmt, future::Future, marker::PhantomData, path::PathBuf, sync::Arc, time::Duration};

use super::{
    Uploads,
    budget::Spool,
    config::Config,
    random::{Random, SystemRandom},
};
use crate::{
    access::{AllowAnonymous, Authorizer},
    blob::BlobStore,
    error::Result,
    hook::{Hook, OnEvent},
    metadata::MetadataStore,
    upload::Event,
};

/// Builder state: nobody said who may do what, so there is no `build` yet.
#[derive(Debug)]
#[non_exhaustive]
pub enum Unauthorized {}

/// Builder state: `build` exists.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ready {}

/// What is read back before a blob is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// Nothing: syncs and receipts are trusted. Bytes that rotted since are published as they are (those that are gone are
    /// found); [`audit`](crate::Uploads::audit) names them, and the recorded checksum is that of what was sent.
    #[default]
    Receipts,
    /// Every byte is read back and compared with the checksum of its part. A part that rotted is named as missing and
    /// can be sent again; of an upload without numbered parts the whole has failed.
    ///
    /// Where a store can read parts only when the blob is made of them (object stores, of parts that are in a multipart
    /// upload), the object is there under its key while it is read. If any of it rotted the object is deleted and the
    /// upload has failed: all of it must be sent again, as a new one.
    Read,
}

/// Builds [`Uploads`]. [`build`](Builder::<Ready>::build) exists once it was said who may do what: by
/// [`authorizer`](Self::authorizer) or [`allow_anonymous`](Self::allow_anonymous):
///
/// ```compile_fail,E0599
/// # use tower_upload::{Uploads, blob::MemoryBlobs, metadata::MemoryMetadata};
/// # async fn f() {
/// let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
///     .max_size(1 << 30)
///     .build() // error: nobody said who may do what
///     .await;
/// # }
/// ```
///
/// ```
/// # use tower_upload::{Uploads, access::OwnerOnly, blob::MemoryBlobs, metadata::MemoryMetadata};
/// # async fn f() {
/// let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
///     .max_size(1 << 30)
///     .authorizer(OwnerOnly)
///     .build()
///     .await;
/// # }
/// ```
pub struct Builder<A> {
    pub(super) blobs: Stores,
    pub(super) authorizer: Option<Arc<dyn Authorizer>>,
    pub(super) config: Config,
    pub(super) random: Arc<dyn Random>,
    state: PhantomData<fn() -> A>,
}

impl<A> fmt::Debug for Builder<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The stores, or where they will be opened.
pub(super) enum Stores {
    Open(Arc<dyn BlobStore>, Arc<dyn MetadataStore>),
    #[cfg(all(feature = "disk", feature = "redb"))]
    Path(PathBuf),
}

impl Uploads {
    /// Uploads in this blob store, with their records in that metadata store.
    pub fn with(blobs: impl BlobStore, metadata: impl MetadataStore) -> Builder<Unauthorized> {
        Builder::new(Stores::Open(Arc::new(blobs), Arc::new(metadata)))
    }

    /// Uploads as files beneath `directory`, with their records in `metadata.redb` in it. The directory is created
    /// if need be, readable by its owner alone, and belongs to one process at a time.
    #[cfg(all(feature = "disk", feature = "redb"))]
    pub fn open(directory: impl Into<PathBuf>) -> Builder<Unauthorized> {
        Builder::new(Stores::Path(directory.into()))
    }
}

impl Builder<Unauthorized> {
    fn new(blobs: Stores) -> Self {
        Self {
            blobs,
            authorizer: None,
            config: Config::default(),
            random: Arc::new(SystemRandom),
            state: PhantomData,
        }
    }

    /// Who may do what. [`OwnerOnly`](crate::access::OwnerOnly) is a good beginning.
    #[must_use]
    pub fn authorizer(self, authorizer: impl Authorizer) -> Builder<Ready> {
        self.authorized(Arc::new(authorizer))
    }

    /// Lets everybody upload, also those who did not sign in. An upload is still its owner's alone, and all who did not
    /// sign in are one owner: whoever knows the id of such an upload may do all with it, and nobody can list them. Who asks by
    /// name gets what somebody else may have named so; give such clients names or targets of their own, or let them go by ids.
    #[must_use]
    pub fn allow_anonymous(self) -> Builder<Ready> {
        self.authorized(Arc::new(AllowAnonymous))
    }

    fn authorized(self, authorizer: Arc<dyn Authorizer>) -> Builder<Ready> {
        Builder {
            blobs: self.blobs,
            authorizer: Some(authorizer),
            config: self.config,
            random: self.random,
            state: PhantomData,
        }
    }
}

impl<A> Builder<A> {
    /// The largest file, in bytes. 1 TiB unless said otherwise.
    #[must_use]
    pub const fn max_size(mut self, bytes: u64) -> Self {
        self.config.max_size = bytes;
        self
    }

    /// The largest chunk, in bytes. 128 MiB unless said otherwise.
    #[must_use]
    pub const fn max_chunk_size(mut self, bytes: u64) -> Self {
        self.config.max_chunk = bytes;
        self
    }

    /// The most chunks of one upload, and the most pieces that appends leave of one: a request that brings bytes leaves one
    /// for each [checkpoint](Self::checkpoint) it reaches and one for its end. 100,000 unless said otherwise; all are in memory
    /// when the upload is put together.
    #[must_use]
    pub const fn max_chunks(mut self, chunks: u32) -> Self {
        self.config.max_chunks = chunks;
        self
    }

    /// How long an unfinished upload lives without activity. A day unless said otherwise. Activity is noted coarsely: to a
    /// sixteenth of the time.
    #[must_use]
    pub const fn expire_after(mut self, idle: Duration) -> Self {
        self.config.expire_after = Some(idle);
        self
    }

    /// Unfinished uploads live for ever.
    #[must_use]
    pub const fn never_expire(mut self) -> Self {
        self.config.expire_after = None;
        self
    }

    /// How long an upload that was aborted, expired, failed or deleted is remembered (and answered as gone rather than
    /// unknown). A day unless said otherwise.
    #[must_use]
    pub const fn remember_ended(mut self, time: Duration) -> Self {
        self.config.retain = time;
        self
    }

    /// How long an assembled upload is remembered: its name, its checksums and the way from its id to its bytes. For ever
    /// unless said otherwise. The blob stays in any case.
    #[must_use]
    pub const fn remember_assembled(mut self, time: Duration) -> Self {
        self.config.retain_assembled = Some(time);
        self
    }

    /// The most unfinished uploads of one owner. 1,000 unless said otherwise.
    #[must_use]
    pub const fn max_open_uploads(mut self, uploads: u64) -> Self {
        self.config.quota.uploads = Some(uploads);
        self
    }

    /// The most bytes in one owner's unfinished uploads, declared ones included.
    #[must_use]
    pub const fn max_open_bytes(mut self, bytes: u64) -> Self {
        self.config.quota.bytes = Some(bytes);
        self
    }

    /// The bytes of bodies that may be in memory at once; what does not fit goes through temporary files. 64 MiB unless
    /// said otherwise.
    ///
    /// Each request under way takes up to 256 KiB besides, and so do the HTTP server's connections: hyper's read up to 400 KiB
    /// ahead, and hold that more than once while a body streams, unless its `max_buf_size` says less.
    #[must_use]
    pub const fn memory_budget(mut self, bytes: u64) -> Self {
        self.config.budget = bytes;
        self
    }

    /// The bytes that may be in those temporary files at once; beyond them a chunk is refused as
    /// [`Unavailable`](crate::ErrorKind::Unavailable). 8 GiB unless said otherwise.
    #[must_use]
    pub const fn temporary_space(mut self, bytes: u64) -> Self {
        self.config.spool_bytes = bytes;
        self
    }

    /// Where those temporary files lie: with [`Uploads::open`] in its directory, else in the system's for them, unless said
    /// otherwise.
    #[must_use]
    pub fn temporary_files(mut self, directory: impl Into<PathBuf>) -> Self {
        self.config.spool = Spool::Files(Some(directory.into()));
        self
    }

    /// How much of an append is made durable at a time, in bytes: what a crash can cost. 16 MiB unless said otherwise.
    #[must_use]
    pub const fn checkpoint(mut self, bytes: u64) -> Self {
        self.config.checkpoint = if bytes == 0 { 1 } else { bytes };
        self
    }

    /// Where blobs are published: segments of text with `{target}`, `{file_name}` and `{id}`;
    /// `videos/originals/{target}_{file_name}` unless said otherwise. Each segment is made safe after it was filled in, and a
    /// key that is taken gets a random suffix.
    #[must_use]
    pub fn key_template(mut self, template: impl Into<Arc<str>>) -> Self {
        self.config.key_template = template.into();
        self
    }

    /// Where the folders lie of files that hooks make of assembled uploads, each `PREFIX/{target}/{id}`, or `PREFIX/{id}` of an upload without a
    /// target; `videos/hls` unless said otherwise. Let no [`key_template`](Self::key_template) lead there. Uploads that were assembled
    /// before keep their folder.
    #[must_use]
    pub fn derived_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.config.derived_prefix = prefix.into();
        self
    }

    /// What is read back before a blob is published. [`Verify::Receipts`] unless said otherwise.
    #[must_use]
    pub const fn verify(mut self, verify: Verify) -> Self {
        self.config.verify = verify;
        self
    }

    /// How old bytes must be that no record speaks of before a sweep removes them: longer than any request to the
    /// metadata store can be under way. 15 minutes unless said otherwise.
    #[must_use]
    pub const fn orphan_grace(mut self, age: Duration) -> Self {
        self.config.orphan_grace = age;
        self
    }

    /// How long a process keeps an upload to itself that it finishes, expires or cleans: if it died or stands still, another one
    /// goes on with it after that. 60 seconds unless said otherwise; it should be longer than the slowest assembly.
    #[must_use]
    pub const fn lease(mut self, time: Duration) -> Self {
        self.config.lease = time;
        self
    }

    /// How long a call of the metadata store may take before it is given up, with its outcome unknown. 30 seconds unless said
    /// otherwise.
    #[must_use]
    pub const fn metadata_timeout(mut self, time: Duration) -> Self {
        self.config.store_timeout = time;
        self
    }

    /// How long the blob store may take to make one blob before it is given up and tried again later; an hour unless said
    /// otherwise, and twice as long at each further attempt, up to 32 times. Nothing is lost by it, but what is copied within that time is
    /// copied anew.
    #[must_use]
    pub const fn assembly_timeout(mut self, time: Duration) -> Self {
        self.config.assembly_timeout = time;
        self
    }

    /// Adds a hook, whose [name](Hook::name) must be its own.
    #[must_use]
    pub fn hook(mut self, hook: impl Hook) -> Self {
        let hook: Arc<dyn Hook> = Arc::new(hook);
        self.config.hooks = self.config.hooks.iter().cloned().chain([hook]).collect();
        self
    }

    /// Adds a closure that is told of every event, at least once and in order for each upload. On an error it is told again later.
    #[must_use]
    pub fn on_event<F, Fut>(self, tell: F) -> Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let name = match self.config.hooks.len() {
            0 => "on_event".to_owned(),
            before => format!("on_event-{before}"),
        };
        self.hook(OnEvent { name, tell })
    }

    /// How often a hook is told of one event in vain before it becomes a [dead letter](Uploads::dead_letters): 20 times unless said
    /// otherwise, which takes about two hours, as it waits longer each time. So it does if the process ended as often, and at
    /// least five times, while a hook that [works](crate::Hook::works) was told; a shutdown in good order does not count.
    #[must_use]
    pub const fn hook_attempts(mut self, attempts: u32) -> Self {
        self.config.hook_attempts = attempts;
        self
    }

    /// How long dead letters are kept once their upload has ended without a blob: 30 days unless said otherwise.
    #[must_use]
    pub const fn remember_dead_letters(mut self, time: Duration) -> Self {
        self.config.retain_dead_letters = time;
        self
    }

    /// Leaves finishing, expiry and cleaning to the host, who calls [`Uploads::drive`] and [`Uploads::sweep`].
    #[must_use]
    pub const fn without_driver(mut self) -> Self {
        self.config.driver = false;
        self
    }

    #[cfg(test)]
    pub(crate) fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    #[cfg(test)]
    pub(crate) fn random(mut self, random: impl Random) -> Self {
        self.random = Arc::new(random);
        self
    }
}
