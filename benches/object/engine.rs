//! The engine on an object store, in this process.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tower_upload::{
    Caller, NewAppend, NewChunk, NewUpload, Uploads,
    access::OwnerOnly,
    blob::object::ObjectOptions,
    metadata::{MemoryMetadata, MetadataStore, RedbOptions},
    upload::{FileName, UploadId},
};

use crate::{PART, block};

/// As hyper gives them.
const FRAME: usize = 64 << 10;

/// In which order chunks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Forth,
    Shuffled,
    Back,
    /// No chunks: one append.
    Append,
    /// As many partial uploads, each sent by one append, that are joined.
    Joined(u64),
}

pub(crate) struct Engine {
    uploads: Uploads,
    caller: Caller,
    directory: tempfile::TempDir,
}

impl Engine {
    /// `durable`: metadata in redb, every commit synced; else in memory.
    pub(crate) async fn open(url: &str, durable: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let blobs = ObjectOptions::default().from_url(url).unwrap();
        let metadata: Arc<dyn MetadataStore> = match durable {
            true => Arc::new(
                RedbOptions::default()
                    .open(directory.path().join("metadata.redb"))
                    .await
                    .unwrap(),
            ),
            false => Arc::new(MemoryMetadata::new()),
        };
        let uploads = Uploads::with(blobs, metadata)
            .authorizer(OwnerOnly)
            .build()
            .await
            .unwrap();
        Self {
            uploads,
            caller: Caller::new("bench"),
            directory,
        }
    }

    /// Until every byte is acknowledged.
    pub(crate) async fn upload(&self, len: u64, order: Order, is_announced: bool, at_once: usize) -> UploadId {
        let block = block();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let name = format!("{}.mp4", now.unwrap().as_nanos());
        if order == Order::Append {
            let upload = self
                .uploads
                .create(&self.caller, NewUpload::new(&name).size(len))
                .await
                .unwrap();
            let whole = (0..len.div_ceil(PART)).flat_map(|n| frames(&block, PART.min(len - n * PART)));
            let body = stream::iter(whole.collect::<Vec<_>>());
            self.uploads
                .append_with(&self.caller, upload.id(), 0, NewAppend::new().len(len), body)
                .await
                .unwrap();
            return upload.id();
        }
        if let Order::Joined(count) = order {
            return self.joined(&name, len, count).await;
        }
        let count = u32::try_from(len.div_ceil(PART)).unwrap();
        let mut indices: Vec<u32> = (0..count).collect();
        match order {
            Order::Back => indices.reverse(),
            // Any that mixes well: 89 divides no count that is used here.
            Order::Shuffled => indices.sort_by_key(|index| (index * 89 + 7) % count),
            _ => {}
        }
        let created = match is_announced {
            true => Some(
                self.uploads
                    .create(&self.caller, NewUpload::new(&name).size(len).chunk_size(PART))
                    .await
                    .unwrap()
                    .id(),
            ),
            false => None,
        };
        let file_name = FileName::parse(&name).unwrap();
        let sending = stream::iter(indices).for_each_concurrent(at_once, |index| {
            let body = stream::iter(frames(&block, PART.min(len - u64::from(index) * PART)));
            let chunk = NewChunk::new(index);
            let file_name = &file_name;
            async move {
                match created {
                    Some(id) => self.uploads.put_chunk(&self.caller, id, chunk, body).await,
                    None => {
                        let by_name = tower_upload::Address::Name(None, file_name);
                        self.uploads
                            .put_chunk(&self.caller, by_name, chunk.total(count), body)
                            .await
                    }
                }
                .unwrap();
            }
        });
        sending.await;
        match created {
            Some(id) => id,
            None => {
                let by_name = tower_upload::Address::Name(None, &file_name);
                self.uploads.status(&self.caller, by_name).await.unwrap().id()
            }
        }
    }

    /// Published when it answers.
    async fn joined(&self, name: &str, len: u64, count: u64) -> UploadId {
        let block = block();
        let each = len.div_ceil(count);
        let mut partials = Vec::new();
        for at in (0..len).step_by(each as usize) {
            let len = each.min(len - at);
            let new = NewUpload::new(name).size(len).partial();
            let id = self.uploads.create(&self.caller, new).await.unwrap().id();
            let all = (0..len.div_ceil(PART)).flat_map(|n| frames(&block, PART.min(len - n * PART)));
            let body = stream::iter(all.collect::<Vec<_>>());
            self.uploads
                .append_with(&self.caller, id, 0, NewAppend::new().len(len), body)
                .await
                .unwrap();
            partials.push(id);
        }
        let new = NewUpload::new(name);
        let whole = self.uploads.concatenate(&self.caller, new, &partials, false).await;
        whole.unwrap().id()
    }

    pub(crate) async fn assemble(&self, id: UploadId) -> Duration {
        let began = Instant::now();
        self.uploads.assemble(&self.caller, id, None).await.unwrap();
        began.elapsed()
    }

    pub(crate) async fn delete(&self, id: UploadId) {
        self.uploads.delete(&self.caller, id).await.unwrap();
    }

    pub(crate) async fn close(self) {
        self.uploads.shutdown(Duration::from_secs(10)).await;
        drop(self.directory);
    }
}

fn frames(block: &Bytes, len: u64) -> Vec<Result<Bytes, Infallible>> {
    let len = len as usize;
    (0..len)
        .step_by(FRAME)
        .map(|at| Ok(block.slice(at..len.min(at + FRAME))))
        .collect()
}
