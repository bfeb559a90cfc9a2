//! Every request dropped at every await: nothing acknowledged is lost, nothing leaks, and the same request again succeeds.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use crate::{
    Address, Caller, Error, FileName, NewChunk, NewUpload, State, Target, UploadId, Uploads,
    access::OwnerOnly,
    blob::{
        ByteRange,
        disk::{DiskOptions, sim::SimFs, store::Disk},
    },
    conformance::fault::{Call, Fault, FaultyMetadata},
    engine::Spool,
    metadata::{MemoryMetadata, Page},
};

/// A future that is dropped at its `left`-th await.
struct DroppedAt<F> {
    inner: Pin<Box<F>>,
    left: u32,
}

impl<F: Future> Future for DroppedAt<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(done) = self.inner.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Pending
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Create,
    FirstChunk,
    Chunk,
    Append,
    Assemble,
    Abort,
    Delete,
}

const BYTES: &[u8] = b"every byte of it counts, wherever it was cut";
const CHUNK: usize = 20;

fn caller() -> Caller {
    Caller::new("alice")
}

fn body(bytes: &[u8]) -> impl futures_core::Stream<Item = Result<Bytes, Error>> + Send + use<> {
    let frames: Vec<_> = bytes.chunks(6).map(|frame| Ok(Bytes::copy_from_slice(frame))).collect();
    stream::iter(frames)
}

async fn engine(fs: &SimFs) -> Uploads {
    let disk = Disk::on(fs.clone(), &DiskOptions::default()).await.unwrap();
    // Every call of a store is an await.
    let slow = |_: Call| Fault::Delay(Duration::from_millis(1));
    let metadata = FaultyMetadata::new(MemoryMetadata::new(), Arc::new(slow));
    Uploads::with(disk, metadata)
        .authorizer(OwnerOnly)
        .checkpoint(16)
        .orphan_grace(Duration::ZERO)
        .without_driver()
        .configure(|config| {
            config.spool = Spool::Memory;
            config.batch = 10;
        })
        .build()
        .await
        .unwrap()
}

async fn put(uploads: &Uploads, id: Option<UploadId>, index: u32) -> Result<UploadId, Error> {
    let (target, name) = (Target::parse("7").unwrap(), FileName::parse("a.bin").unwrap());
    let to = id.map_or(Address::Name(Some(&target), &name), Address::Id);
    let at = index as usize * CHUNK;
    let bytes = &BYTES[at..(at + CHUNK).min(BYTES.len())];
    let stored = uploads
        .put_chunk(&caller(), to, NewChunk::new(index).total(3), body(bytes))
        .await?;
    Ok(stored.upload_id)
}

/// What is there before the request that is cut.
async fn prepare(uploads: &Uploads, request: Request) -> Option<UploadId> {
    let caller = caller();
    match request {
        Request::Create | Request::FirstChunk => None,
        Request::Append => {
            let new = NewUpload::new("a.bin").size(BYTES.len() as u64);
            Some(uploads.create(&caller, new).await.unwrap().id())
        }
        _ => {
            let id = put(uploads, None, 2).await.unwrap();
            put(uploads, Some(id), 0).await.unwrap();
            if request != Request::Chunk {
                put(uploads, Some(id), 1).await.unwrap();
            }
            if request == Request::Delete {
                uploads.assemble(&caller, id, None).await.unwrap();
            }
            Some(id)
        }
    }
}

async fn ask(uploads: &Uploads, request: Request, id: Option<UploadId>) -> Result<Option<UploadId>, Error> {
    let caller = caller();
    match (request, id) {
        (Request::Append, Some(id)) => {
            let from = uploads.take_over(&caller, id).await?.offset();
            let rest = &BYTES[usize::try_from(from).unwrap()..];
            uploads.append(&caller, id, from, body(rest)).await?;
        }
        (Request::Chunk, Some(id)) => drop(put(uploads, Some(id), 1).await?),
        (Request::Assemble, Some(id)) => drop(uploads.assemble(&caller, id, None).await?),
        (Request::Abort, Some(id)) => uploads.abort(&caller, id).await?,
        (Request::Delete, Some(id)) => uploads.delete(&caller, id).await?,
        (Request::FirstChunk, _) => return put(uploads, None, 1).await.map(Some),
        _ => {
            let new = NewUpload::new("a.bin")
                .size(BYTES.len() as u64)
                .chunk_size(CHUNK as u64);
            let new = new.target(Target::parse("7").unwrap()).named();
            return uploads.create(&caller, new).await.map(|upload| Some(upload.id()));
        }
    }
    Ok(id)
}

/// Whether the request was over before its `at`-th await.
async fn cut(request: Request, at: u32) -> bool {
    let fs = SimFs::new(7);
    fs.set_latency(Duration::from_millis(1));
    let uploads = engine(&fs).await;
    let before = prepare(&uploads, request).await;
    let asked = ask(&uploads, request, before);
    let done = DroppedAt {
        inner: Box::pin(asked),
        left: at,
    }
    .await;
    let is_done = done.is_some();
    if at.is_multiple_of(2) {
        // What goes on in the background is over, or not.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let id = ask(&uploads, request, before)
        .await
        .unwrap_or_else(|error| panic!("{request:?} again: {error:?}"));
    let id = id.unwrap();
    match request {
        Request::Abort | Request::Delete => {
            let ended = if request == Request::Abort {
                State::Aborted
            } else {
                State::Deleted
            };
            assert_eq!(uploads.status(&caller(), id).await.unwrap().state(), ended);
        }
        _ => {
            for (first, last) in uploads.status(&caller(), id).await.unwrap().missing() {
                for index in first..=last {
                    put(&uploads, Some(id), index).await.unwrap();
                }
            }
            uploads.assemble(&caller(), id, None).await.unwrap();
            let (_, body) = uploads.read(&caller(), id, ByteRange::ALL).await.unwrap();
            assert_eq!(
                body.try_collect::<Vec<_>>().await.unwrap().concat(),
                BYTES,
                "{request:?} cut at {at}"
            );
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    uploads.sweep().await.unwrap();
    let all = uploads.list(&caller(), Page::new(0, 9)).await.unwrap();
    assert_eq!(all.len(), 1, "{request:?} cut at {at}: one upload");
    let expected = usize::from(all[0].state() == State::Assembled);
    assert_eq!(fs.paths().len(), expected, "{request:?} cut at {at}: {:?}", fs.paths());
    assert_eq!(uploads.budget_free(), 64 << 10, "{request:?} cut at {at}: budget");
    drop(uploads);
    assert_eq!(fs.open_files(), 0, "{request:?} cut at {at}: open files");
    is_done
}

#[tokio::test(start_paused = true)]
async fn a_request_can_be_dropped_at_every_await() {
    let mut cuts = 0;
    for request in [
        Request::Create,
        Request::FirstChunk,
        Request::Chunk,
        Request::Append,
        Request::Assemble,
        Request::Abort,
        Request::Delete,
    ] {
        let mut at = 0;
        while !cut(request, at).await {
            at += 1;
        }
        assert!(at >= 2, "{request:?} has {at} awaits only");
        cuts += at;
    }
    println!("{cuts} awaits, a request dropped at each");
}
