//! What the host said to the [`Builder`](super::Builder), and what goes without saying.

use std::{fmt, sync::Arc, time::Duration};

use super::{Verify, budget::Spool};
use crate::{
    error::Result,
    hook::Hook,
    metadata::Quota,
    upload::{EventKind, FileName, Key, Target, UploadId},
};

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) max_size: u64,
    pub(crate) max_chunk: u64,
    pub(crate) max_chunks: u32,
    pub(crate) expire_after: Option<Duration>,
    pub(crate) retain: Duration,
    pub(crate) retain_assembled: Option<Duration>,
    pub(crate) quota: Quota,
    pub(crate) budget: u64,
    pub(crate) spool: Spool,
    pub(crate) spool_bytes: u64,
    pub(crate) checkpoint: u64,
    /// The most bytes of a partial upload that are joined in one step.
    pub(crate) join_step: u64,
    pub(crate) batch: usize,
    pub(crate) key_template: Arc<str>,
    pub(crate) derived_prefix: Arc<str>,
    pub(crate) verify: Verify,
    pub(crate) hooks: Arc<[Arc<dyn Hook>]>,
    pub(crate) hook_attempts: u32,
    pub(crate) retain_dead_letters: Duration,
    pub(crate) tick: Duration,
    pub(crate) lease: Duration,
    pub(crate) orphan_grace: Duration,
    pub(crate) sweep_every: Duration,
    pub(crate) store_timeout: Duration,
    pub(crate) assembly_timeout: Duration,
    pub(crate) driver: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("max_size", &self.max_size)
            .field("max_chunk", &self.max_chunk)
            .field("expire_after", &self.expire_after)
            .field("quota", &self.quota)
            .field("budget", &self.budget)
            .field("verify", &self.verify)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The hooks that want to be told of such an event, which may speak of one of them.
    pub(crate) fn hooks_for(&self, kind: EventKind, of: Option<&str>) -> Vec<String> {
        let wanted = self.hooks.iter().filter(|hook| hook.wants(kind));
        wanted
            .map(|hook| hook.name().to_owned())
            .filter(|name| Some(name.as_str()) != of)
            .collect()
    }

    /// The folder of the files that hooks make of an upload.
    pub(crate) fn derived(&self, id: UploadId, target: Option<&Target>) -> Result<Key> {
        // An id may begin with a dash, a segment may not.
        let (prefix, id) = (&self.derived_prefix, Key::segment(&id.to_string()));
        match target {
            Some(target) => Key::parse(&format!("{prefix}/{}/{id}", Key::segment(target.as_str()))),
            None => Key::parse(&format!("{prefix}/{id}")),
        }
    }

    /// The final key of a file by the template.
    pub(crate) fn key(&self, id: UploadId, target: Option<&Target>, file_name: &FileName) -> Result<Key> {
        let id = id.to_string();
        let target = target.map_or(id.as_str(), Target::as_str);
        let mut segments = Vec::new();
        for segment in self.key_template.split('/') {
            let filled = segment.replace("{target}", target).replace("{id}", &id);
            segments.push(Key::segment(&filled.replace("{file_name}", file_name.as_str())));
        }
        Key::parse(&segments.join("/"))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_size: 1 << 40,
            max_chunk: 128 << 20,
            max_chunks: 100_000,
            expire_after: Some(Duration::from_secs(24 * 3600)),
            retain: Duration::from_secs(24 * 3600),
            retain_assembled: None,
            quota: Quota {
                uploads: Some(1_000),
                bytes: None,
            },
            budget: 64 << 20,
            spool: Spool::Files(None),
            spool_bytes: 8 << 30,
            checkpoint: 16 << 20,
            join_step: 256 << 20,
            batch: 512 << 10,
            key_template: "videos/originals/{target}_{file_name}".into(),
            derived_prefix: "videos/hls".into(),
            verify: Verify::default(),
            hooks: Arc::new([]),
            hook_attempts: 20,
            retain_dead_letters: Duration::from_secs(30 * 86_400),
            tick: Duration::from_secs(1),
            lease: Duration::from_secs(60),
            orphan_grace: Duration::from_secs(15 * 60),
            sweep_every: Duration::from_secs(3600),
            store_timeout: Duration::from_secs(30),
            assembly_timeout: Duration::from_secs(3600),
            driver: true,
        }
    }
}
