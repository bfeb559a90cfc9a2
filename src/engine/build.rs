//! From what the host said to an engine that runs.

use std::sync::Arc;

#[cfg(all(feature = "disk", feature = "redb"))]
use super::budget::Spool;
use super::{
    Builder, Inner, Ready, Uploads, bounded::Bounded, budget::Budget, builder::Stores, live::Live, tasks::Tasks,
};
#[cfg(all(feature = "disk", feature = "redb"))]
use crate::{blob::BlobStore, metadata::MetadataStore};
use crate::{
    error::{Error, Result},
    observe,
    upload::{DerivedName, FileName, Key, Target, UploadId},
};

impl Builder<Ready> {
    /// Opens the stores and starts the driver; must run within a Tokio runtime.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for settings that contradict each other or the store;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if another process has the directory, naming it.
    pub async fn build(self) -> Result<Uploads> {
        let Self {
            blobs,
            authorizer,
            #[cfg_attr(not(all(feature = "disk", feature = "redb")), allow(unused_mut))]
            mut config,
            random,
            ..
        } = self;
        let authorizer = authorizer.ok_or_else(|| Error::internal("No authorizer"))?;
        let (blobs, metadata) = match blobs {
            Stores::Open(blobs, metadata) => (blobs, metadata),
            #[cfg(all(feature = "disk", feature = "redb"))]
            Stores::Path(directory) => {
                let blobs: Arc<dyn BlobStore> = Arc::new(crate::blob::DiskBlobs::open(&directory).await?);
                if let Spool::Files(beneath @ None) = &mut config.spool {
                    *beneath = Some(directory.clone());
                }
                let metadata = crate::metadata::RedbMetadata::open(directory.join("metadata.redb")).await?;
                (blobs, Arc::new(metadata) as Arc<dyn MetadataStore>)
            }
        };
        let metadata = Arc::new(Bounded {
            inner: metadata,
            limit: config.store_timeout,
        });
        observe::describe();
        let (blobs, metadata) = observe::measured(blobs, metadata);
        let limits = blobs.limits();
        if let (Some(idle), max) = (limits.max_idle, config.expire_after)
            && max.is_none_or(|max| max > idle)
        {
            return Err(Error::invalid(
                "expire_after",
                format!(
                    "The blob store drops unfinished uploads after {} s: let them expire sooner",
                    idle.as_secs()
                ),
            ));
        }
        let sample = FileName::parse("sample")?;
        config
            .key(UploadId::from_bytes([0; 16]), None, &sample)
            .map_err(|error| {
                Error::invalid("key_template", "The key template makes no valid key").with_source(error)
            })?;
        let longest = Target::parse(&"x".repeat(Target::MAX_LEN))?;
        let derived = config.derived(UploadId::from_bytes([0; 16]), Some(&longest))?;
        if derived.as_str().len() + DerivedName::MAX_LEN >= Key::MAX_LEN {
            return Err(Error::invalid(
                "derived_prefix",
                "The prefix of derived files is too long",
            ));
        }
        let mut names: Vec<_> = config.hooks.iter().map(|hook| hook.name()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("Two hooks have the name {:?}: each needs its own", twice[0]);
            return Err(Error::invalid("hook", message));
        }
        for hook in config.hooks.iter() {
            hook.open().await?;
        }
        let incarnation = random.u64()?;
        let inner = Arc::new(Inner {
            budget: Budget::new(config.budget, config.spool_bytes, config.spool.clone()),
            limits,
            blobs,
            metadata,
            authorizer,
            config,
            random,
            incarnation: incarnation.into(),
            live: Arc::new(Live::default()),
            turns: Default::default(),
            tasks: Tasks::default(),
            driver: std::sync::Mutex::new(None),
            rounds: std::sync::atomic::AtomicUsize::new(0),
        });
        let uploads = Uploads { inner };
        if uploads.inner.config.driver {
            uploads.start_driver();
        }
        Ok(uploads)
    }
}
