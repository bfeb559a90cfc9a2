//! Work through the engine.

use std::{convert::Infallible, time::Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{
    Workload,
    bench::{Bench, Shared, Step, Timed, random, scatter},
    options::decades,
    units,
};
use crate::{
    access::Caller,
    blob::ByteRange,
    engine::{Address, NewChunk, NewUpload, Uploads},
    error::{Error, Result},
    upload::{FileName, UploadId},
};

/// What a connection hands over at a time.
const FRAME: u64 = 64 << 10;
/// The size of a small file, and of a range that is read.
const SMALL: u64 = 64 << 10;
/// The size of parts that are many, where the store lets them be so small.
const PART: u64 = 4 << 10;
const PARALLEL: [usize; 2] = [4, 16];

/// A client of the engine.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) uploads: Uploads,
    pub(super) caller: Caller,
    /// Random, so that no store makes it smaller.
    payload: Bytes,
}

impl Files {
    pub(super) fn new(uploads: Uploads, caller: Caller) -> Result<Self> {
        let mut seed = u64::from_le_bytes(random()?);
        let words = (0..(1 << 20) / 8).flat_map(|_| {
            seed = seed.wrapping_add(1);
            scatter(seed).to_le_bytes()
        });
        Ok(Self {
            uploads,
            caller,
            payload: words.collect(),
        })
    }

    /// The bytes of a file from `at` on, in frames.
    fn body(&self, at: u64, len: u64) -> impl futures_core::Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
        let payload = self.payload.clone();
        stream::iter((0..len.div_ceil(FRAME)).map(move |frame| {
            let begin = (at + frame * FRAME) % (payload.len() as u64 - FRAME);
            let begin = usize::try_from(begin).unwrap_or_default();
            let len = usize::try_from(FRAME.min(len - frame * FRAME)).unwrap_or_default();
            Ok(payload.slice(begin..begin + len))
        }))
    }

    async fn create(&self, new: NewUpload) -> Result<UploadId> {
        Ok(self.uploads.create(&self.caller, new).await?.id())
    }

    async fn append(&self, id: UploadId, at: u64, len: u64) -> Result<u64> {
        self.uploads.append(&self.caller, id, at, self.body(at, len)).await?;
        Ok(len)
    }

    /// Stores the chunk with this number of a file of `size` bytes.
    async fn put(self, id: UploadId, number: u64, chunk: u64, size: u64) -> Result<u64> {
        let at = number * chunk;
        let len = chunk.min(size - at);
        let new = NewChunk::new(u32::try_from(number).unwrap_or(u32::MAX)).len(len);
        self.uploads
            .put_chunk(&self.caller, id, new, self.body(at, len))
            .await?;
        Ok(len)
    }

    async fn assemble(&self, id: UploadId, size: u64) -> Result<u64> {
        let upload = self.uploads.assemble(&self.caller, id, None).await?;
        if upload.size() == Some(size) {
            Ok(size)
        } else {
            let message = format!("The stores made {:?} bytes of {size}", upload.size());
            Err(Error::internal(message))
        }
    }

    async fn read(self, id: UploadId, range: ByteRange, expected: u64) -> Result<u64> {
        let (_, mut body) = self.uploads.read(&self.caller, id, range).await?;
        let mut read = 0;
        while let Some(frame) = body.next().await {
            read += frame?.len() as u64;
        }
        if read == expected {
            Ok(read)
        } else {
            Err(Error::internal(format!("The store read {read} bytes of {expected}")))
        }
    }
}

impl Bench {
    /// The chunk size that comes nearest to what is wanted.
    fn chunk(&self, wanted: u64) -> u64 {
        let limits = self.blobs.limits();
        wanted.max(limits.min_part).min(limits.max_part)
    }

    fn large_chunk(&self) -> u64 {
        let fewest = self
            .options
            .large
            .div_ceil(u64::from(self.blobs.limits().max_parts).max(1));
        self.chunk(self.options.chunk.max(fewest))
    }

    pub(super) async fn append(&mut self) -> Result<()> {
        let (size, chunk) = (self.options.large, self.large_chunk());
        let name = format!("append of {}", units::bytes(chunk as f64));
        let step = self.step(Workload::Append, name, size.div_ceil(chunk));
        let files = self.files.clone();
        let began = Instant::now();
        let id = files.create(NewUpload::new("append").size(size)).await?;
        let mut timed = Timed::none();
        for at in (0..size).step_by(usize::try_from(chunk).unwrap_or(usize::MAX)) {
            let append = files.append(id, at, chunk.min(size - at));
            step.time(&mut timed, append).await?;
        }
        files.assemble(id, size).await?;
        timed.elapsed = began.elapsed();
        self.add(&step, 1, None, timed);
        self.forget(id).await
    }

    pub(super) async fn indexed(&mut self) -> Result<()> {
        let (size, chunk) = (self.options.large, self.large_chunk());
        let chunks = size.div_ceil(chunk);
        for at_once in PARALLEL {
            let name = format!("chunk of {}", units::bytes(chunk as f64));
            let step = self.step(Workload::Indexed, name, chunks);
            let began = Instant::now();
            let id = self.create_chunked(size, chunk).await?;
            let files = self.files.clone();
            let mut timed = step
                .each(chunks, at_once, move |number| {
                    files.clone().put(id, number, chunk, size)
                })
                .await?;
            self.files.assemble(id, size).await?;
            timed.elapsed = began.elapsed();
            self.add(&step, at_once, None, timed);
            if at_once == PARALLEL[PARALLEL.len() - 1] {
                self.reads(id, size).await?;
            }
            self.forget(id).await?;
        }
        Ok(())
    }

    async fn create_chunked(&self, size: u64, chunk: u64) -> Result<UploadId> {
        let new = NewUpload::new("chunks").size(size).chunk_size(chunk);
        self.files.create(new).await
    }

    async fn reads(&mut self, id: UploadId, size: u64) -> Result<()> {
        let step = self.step(Workload::Read, "whole file", 3);
        let files = self.files.clone();
        let whole = step
            .each(3, 1, move |_| files.clone().read(id, ByteRange::ALL, size))
            .await?;
        self.add(&step, 1, None, whole);
        let len = SMALL.min(size);
        let ranges = u64::from(self.options.samples) * 4;
        for at_once in [1, 16] {
            let step = self.step(Workload::Read, "random 64 KiB", ranges);
            let files = self.files.clone();
            let timed = step
                .each(ranges, at_once, move |number| {
                    let start = scatter(number) % (size - len + 1);
                    files.clone().read(id, ByteRange::new(start, Some(start + len)), len)
                })
                .await?;
            self.add(&step, at_once, None, timed);
        }
        Ok(())
    }

    pub(super) async fn small(&mut self) -> Result<()> {
        let count = self.options.small;
        for at_once in [1, 16] {
            let step = self.step(Workload::Small, "create, append, assemble", count);
            let (files, made) = (self.files.clone(), Shared::new());
            let ids = made.clone();
            let timed = step
                .each(count, at_once, move |number| {
                    let (files, made) = (files.clone(), made.clone());
                    async move {
                        let new = NewUpload::new(format!("small {number}")).size(SMALL).seals_itself();
                        let id = files.create(new).await?;
                        made.push(id);
                        files.append(id, 0, SMALL).await?;
                        files.assemble(id, SMALL).await
                    }
                })
                .await?;
            self.add(&step, at_once, None, timed);
            self.forget_all(&ids.take()).await?;

            let step = self.step(Workload::Small, "first chunk creates, assemble", count);
            let (files, made) = (self.files.clone(), Shared::new());
            let ids = made.clone();
            let timed = step
                .each(count, at_once, move |number| {
                    let (files, made) = (files.clone(), made.clone());
                    async move {
                        let name = FileName::parse(&format!("small {number}"))?;
                        let chunk = NewChunk::new(0).total(1).len(SMALL);
                        let to = Address::Name(None, &name);
                        let body = files.body(number * SMALL, SMALL);
                        let stored = files.uploads.put_chunk(&files.caller, to, chunk, body).await?;
                        made.push(stored.upload_id);
                        files.assemble(stored.upload_id, SMALL).await
                    }
                })
                .await?;
            self.add(&step, at_once, None, timed);
            self.forget_all(&ids.take()).await?;
        }
        Ok(())
    }

    /// The size of small parts and how many there may be at most, beside those that are timed.
    fn many(&mut self) -> (u64, u32) {
        let (limits, options) = (self.blobs.limits(), &self.options);
        let chunk = self.chunk(PART);
        let room = (options.large.saturating_mul(4) / chunk).max(100);
        let most = u64::from(options.parts)
            .min(room)
            .min(u64::from(limits.max_parts.saturating_sub(options.samples)).max(1));
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        if most < options.parts {
            let note = format!(
                "{} parts at most instead of {}: here each has at least {}",
                units::count(most.into()),
                units::count(options.parts.into()),
                units::bytes(chunk as f64),
            );
            if !self.report.notes.contains(&note) {
                self.report.notes.push(note);
            }
        }
        (chunk, most)
    }

    /// The latency of a chunk when there are few or many already: of several uploads in turn, so that all see the same
    /// store at the same time.
    pub(super) async fn parts(&mut self) -> Result<()> {
        let (chunk, most) = self.many();
        let samples = self.options.samples;
        let mut uploads = Vec::new();
        for level in decades(most) {
            let id = self.create_chunked(u64::from(level + samples) * chunk, chunk).await?;
            let step = self.step(Workload::Parts, format!("filling {level}"), level.into());
            self.fill(&step, id, chunk, level, level + samples).await?;
            uploads.push((id, level, Timed::none()));
        }
        let name = format!("chunk of {}, by parts", units::bytes(chunk as f64));
        let step = self.step(Workload::Parts, name, u64::from(samples) * uploads.len() as u64);
        for turn in 0..samples {
            for (id, level, timed) in &mut uploads {
                let size = u64::from(*level + samples) * chunk;
                let put = self.files.clone().put(*id, u64::from(*level + turn), chunk, size);
                step.time(timed, put).await?;
            }
        }
        for (id, level, timed) in uploads {
            self.add(&step, 1, Some(level), timed);
            self.forget(id).await?;
        }
        Ok(())
    }

    /// Stores the first `chunks` of `total` chunks.
    async fn fill(&self, step: &Step, id: UploadId, chunk: u64, chunks: u32, total: u32) -> Result<Timed> {
        let (files, size) = (self.files.clone(), u64::from(total) * chunk);
        step.each(chunks.into(), 16, move |number| {
            files.clone().put(id, number, chunk, size)
        })
        .await
    }

    pub(super) async fn assembly(&mut self) -> Result<()> {
        let (chunk, most) = self.many();
        let mut levels: Vec<u32> = decades(most);
        levels.insert(0, 1);
        levels.dedup();
        for level in levels {
            let repeats = (most / level / 2).clamp(2, 9);
            let size = u64::from(level) * chunk;
            let mut timed = Timed::none();
            let step = self.step(Workload::Assembly, "whole upload, by parts", repeats.into());
            for _ in 0..repeats {
                let id = self.create_chunked(size, chunk).await?;
                let filling = self.step(Workload::Assembly, format!("filling {level}"), level.into());
                self.fill(&filling, id, chunk, level, level).await?;
                step.time(&mut timed, self.files.assemble(id, size)).await?;
                self.forget(id).await?;
            }
            self.add(&step, 1, Some(level), timed);
        }
        Ok(())
    }
}
