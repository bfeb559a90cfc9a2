//! The engine under measurement, and how operations are timed.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;

use super::{Latency, Measured, Options, Progress, Report, Workload, files::Files};
use crate::{
    access::{Caller, OwnerOnly},
    blob::BlobStore,
    engine::Uploads,
    error::{Error, Result},
    metadata::{Lookup, MetadataStore, Page, PartRange},
    upload::{UploadId, Version},
};

/// How many deletions are under way at once.
const CLEANERS: usize = 32;
/// What a killed run leaves behind lives this long.
const EXPIRY: Duration = Duration::from_secs(3600);

pub(super) struct Bench {
    pub(super) files: Files,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) metadata: Arc<dyn MetadataStore>,
    pub(super) options: Options,
    pub(super) report: Report,
    /// Records that were made past the engine.
    pub(super) made: Vec<UploadId>,
}

/// What a series of operations came to.
pub(super) struct Timed {
    pub(super) took: Vec<Duration>,
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
}

impl Bench {
    pub(super) async fn new(
        name: String,
        blobs: Arc<dyn BlobStore>,
        metadata: Arc<dyn MetadataStore>,
        options: Options,
    ) -> Result<Self> {
        let expiry = blobs.limits().max_idle.map_or(EXPIRY, |idle| idle.min(EXPIRY));
        // Nothing runs beside what is measured: the engine's own tasks wait for the next engine on these stores.
        let uploads = Uploads::with(Arc::clone(&blobs), Arc::clone(&metadata))
            .authorizer(OwnerOnly)
            .expire_after(expiry)
            .key_template("tower-upload-benchmark/{id}")
            .max_size(u64::MAX >> 1)
            .max_open_uploads(u64::MAX)
            .without_driver()
            .build()
            .await?;
        let run = UploadId::from_bytes(random()?);
        Ok(Self {
            files: Files::new(uploads, Caller::new(format!("tower-upload-benchmark {run}")))?,
            blobs,
            metadata,
            options,
            report: Report::new(name),
            made: Vec::new(),
        })
    }

    pub(super) async fn workloads(&mut self) -> Result<()> {
        self.append().await?;
        self.indexed().await?;
        self.small().await?;
        self.parts().await?;
        self.assembly().await?;
        self.metadata_alone().await
    }

    pub(super) fn into_report(mut self) -> Report {
        self.report.fit();
        self.report
    }

    pub(super) fn step(&self, workload: Workload, step: impl Into<String>, total: u64) -> Step {
        Step {
            options: self.options.clone(),
            workload,
            step: step.into(),
            done: Arc::default(),
            total,
        }
    }

    pub(super) fn add(&mut self, step: &Step, at_once: usize, amount: Option<u32>, timed: Timed) {
        self.report.measured.push(Measured {
            workload: step.workload,
            operation: step.step.clone(),
            at_once: u32::try_from(at_once).unwrap_or(u32::MAX),
            amount,
            operations: timed.took.len() as u64,
            bytes: timed.bytes,
            seconds: timed.elapsed.as_secs_f64(),
            latency: Latency::of(timed.took),
        });
    }

    /// Deletes an upload and forgets it.
    pub(super) async fn forget(&self, id: UploadId) -> Result<()> {
        let Files { uploads, caller, .. } = &self.files;
        uploads.delete(caller, id).await?;
        let Some(left) = self.metadata.load(Lookup::Id(id), PartRange::NONE).await? else {
            return Ok(());
        };
        if left.record.staged || left.record.key_held {
            // The record is what leads the next engine on these stores to its bytes.
            return Err(Error::unavailable(format!(
                "The bytes of {id} could not be deleted; an engine with its driver does it"
            )));
        }
        self.metadata.remove(id, left.record.version).await?;
        Ok(())
    }

    pub(super) async fn forget_all(&self, ids: &[UploadId]) -> Result<()> {
        stream::iter(ids)
            .map(|id| self.forget(*id))
            .buffer_unordered(CLEANERS)
            .try_collect()
            .await
    }

    /// Removes records that were made past the engine; those that were never made are no error.
    pub(super) async fn remove_made(&mut self, step: &Step) -> Result<Timed> {
        let ids = Arc::new(std::mem::take(&mut self.made));
        let metadata = Arc::clone(&self.metadata);
        let removed = {
            let ids = Arc::clone(&ids);
            step.each(ids.len() as u64, 256, move |at| {
                let (metadata, id) = (Arc::clone(&metadata), ids[usize::try_from(at).unwrap_or_default()]);
                async move {
                    if !metadata.remove(id, Version::default().next()).await?
                        && let Some(left) = metadata.load(Lookup::Id(id), PartRange::NONE).await?
                    {
                        metadata.remove(id, left.record.version).await?;
                    }
                    Ok(0)
                }
            })
            .await
        };
        if removed.is_err() {
            self.made = Arc::unwrap_or_clone(ids);
        }
        removed
    }

    /// Deletes whatever is left, after an error that is much.
    pub(super) async fn clean(&mut self) -> Result<()> {
        if !self.made.is_empty() {
            let step = self.step(Workload::Metadata, "cleaning", self.made.len() as u64);
            self.remove_made(&step).await?;
        }
        loop {
            let Files { uploads, caller, .. } = &self.files;
            let left = uploads.list(caller, Page::new(0, 256)).await?;
            if left.is_empty() {
                break;
            }
            let ids: Vec<UploadId> = left.iter().map(crate::engine::Upload::id).collect();
            self.forget_all(&ids).await?;
        }
        self.files.uploads.shutdown(Duration::from_secs(60)).await;
        Ok(())
    }
}

/// A series of operations as it goes on.
#[derive(Clone)]
pub(super) struct Step {
    options: Options,
    workload: Workload,
    step: String,
    done: Arc<AtomicU64>,
    total: u64,
}

impl Step {
    /// The same by another name.
    pub(super) fn called(&self, step: String) -> Self {
        Self { step, ..self.clone() }
    }

    fn tick(&self) {
        self.options.tell(&Progress {
            workload: self.workload,
            step: self.step.clone(),
            done: self.done.fetch_add(1, Ordering::Relaxed) + 1,
            total: self.total,
        });
    }

    /// Does one operation, which answers how many bytes it moved.
    pub(super) async fn time(&self, into: &mut Timed, operation: impl Future<Output = Result<u64>>) -> Result<()> {
        let began = Instant::now();
        into.bytes += operation.await?;
        let took = began.elapsed();
        into.took.push(took);
        into.elapsed += took;
        self.tick();
        Ok(())
    }

    /// Does operations `0..operations`, `at_once` of them in tasks of their own.
    pub(super) async fn each<F, Fut>(&self, operations: u64, at_once: usize, operation: F) -> Result<Timed>
    where
        F: Fn(u64) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<u64>> + Send + 'static,
    {
        let next = Arc::new(AtomicU64::new(0));
        let operation = Arc::new(operation);
        let began = Instant::now();
        let mut workers: JoinSet<Result<Timed>> = JoinSet::new();
        for _ in 0..at_once {
            let (next, operation, step) = (Arc::clone(&next), Arc::clone(&operation), self.clone());
            workers.spawn(async move {
                let mut timed = Timed::none();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= operations {
                        return Ok(timed);
                    }
                    if let Err(error) = step.time(&mut timed, operation(number)).await {
                        // The others come to their ends: what is cleaned up afterwards must be still.
                        next.store(operations, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            });
        }
        let (mut all, mut result) = (Timed::none(), Ok(()));
        while let Some(worker) = workers.join_next().await {
            let died = |error| Error::internal("A task of the benchmark died").with_source(error);
            match worker.map_err(died).flatten() {
                Ok(timed) => {
                    all.took.extend(timed.took);
                    all.bytes += timed.bytes;
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        all.elapsed = began.elapsed();
        result.map(|()| all)
    }
}

impl Timed {
    pub(super) const fn none() -> Self {
        Self {
            took: Vec::new(),
            bytes: 0,
            elapsed: Duration::ZERO,
        }
    }
}

pub(super) fn random<const LEN: usize>() -> Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::unavailable("The system gave no random bytes; try again").with_source(std::io::Error::from(error))
    })?;
    Ok(bytes)
}

/// A number that looks random, always the same for the same `seed`.
pub(super) const fn scatter(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// What several tasks put into one list.
#[derive(Clone)]
pub(super) struct Shared<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Shared<T> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn push(&self, item: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }

    pub(super) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
