//! The host's code panics within a request: its task ends, nothing that it held stays behind, and the same request again
//! succeeds.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::timeout;

use super::*;
use crate::{
    Address, FileName, Hook, State, Target,
    access::{Action, Authorizer, Denied, Subject},
    blob::{BlobBody, BlobStore as _},
    http::tus::Tus,
    metadata::Page,
    upload::Record,
};

/// Past it something is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Identification,
    Authorizer,
    BeforeCreate,
    BeforePublish,
}

/// Burns through once, when the host's code has come by `place` so many times.
#[derive(Debug)]
struct Fuse {
    place: Place,
    left: AtomicU32,
}

impl Fuse {
    fn passes(&self, place: Place) {
        if place == self.place {
            let left = self.left.load(Ordering::SeqCst);
            self.left.store(left.wrapping_sub(1), Ordering::SeqCst);
            assert_ne!(left, 0, "the host's code panics at {place:?}");
        }
    }

    fn is_burnt(&self) -> bool {
        self.left.load(Ordering::SeqCst) > u32::MAX / 2
    }
}

struct Code(Arc<Fuse>);

#[async_trait]
impl Authorizer for Code {
    async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Denied> {
        tokio::task::yield_now().await;
        self.0.passes(Place::Authorizer);
        OwnerOnly.authorize(caller, action, subject).await
    }
}

#[async_trait]
impl Hook for Code {
    async fn before_create(&self, _: &mut Record) -> crate::Result<()> {
        tokio::task::yield_now().await;
        self.0.passes(Place::BeforeCreate);
        Ok(())
    }

    async fn before_publish(&self, _: &Record, _: Option<BlobBody>) -> crate::Result<()> {
        tokio::task::yield_now().await;
        self.0.passes(Place::BeforePublish);
        Ok(())
    }
}

/// A host whose code panics, and a client that asks again.
struct Host<W> {
    fuse: Arc<Fuse>,
    uploads: Uploads,
    service: UploadService<W>,
    blobs: Arc<MemoryBlobs>,
    /// Of memory for bodies, in bytes.
    budget: usize,
}

async fn host(place: Place) -> Host<impl Fn(&Parts) -> Option<Caller> + Clone + Send + Sync + 'static> {
    let (left, blobs) = (AtomicU32::new(0), Arc::new(MemoryBlobs::new()));
    let fuse = Arc::new(Fuse { place, left });
    let uploads = Uploads::with(Arc::clone(&blobs), MemoryMetadata::new())
        .authorizer(Code(Arc::clone(&fuse)))
        .hook(Code(Arc::clone(&fuse)))
        .orphan_grace(Duration::ZERO)
        .without_driver()
        .build()
        .await
        .unwrap();
    let identifies = Arc::clone(&fuse);
    let who = move |parts: &Parts| {
        identifies.passes(Place::Identification);
        bearer(parts)
    };
    Host {
        fuse,
        service: uploads.service(who).mount("/api").tus(Tus::new()),
        budget: uploads.budget_free(),
        uploads,
        blobs,
    }
}

impl<W: Fn(&Parts) -> Option<Caller> + Clone + Send + Sync + 'static> Host<W> {
    /// Each request runs in a task of its own, as a server runs it; one that ends in a panic is asked again.
    async fn ask(&self, ask: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        for _ in 0..2 {
            let mut service = self.service.clone();
            let request = request(ask, headers, Full::new(Bytes::copy_from_slice(body.as_bytes())));
            let task = tokio::spawn(async move { Reply::of(service.call(request).await.unwrap()).await });
            let ended = timeout(PATIENCE, task).await;
            match ended.unwrap_or_else(|_| panic!("{ask} is stuck after {:?}", self.fuse)) {
                Ok(reply) if reply.status < 500 => {
                    // What came before the panic counts, and the client is told.
                    let is_done = reply.status < 300 || reply.header("upload-offset") == "7";
                    assert!(is_done, "{ask} after {:?}: {reply:?}", self.fuse);
                    return reply;
                }
                Ok(reply) => assert_eq!(self.fuse.place, Place::BeforePublish, "{reply:?}"),
                Err(error) => assert!(error.is_panic()),
            }
            assert!(self.fuse.is_burnt());
        }
        panic!("{ask} fails again after {:?}", self.fuse);
    }

    /// Numbered chunks that come as forms, whose fields come after the bytes.
    async fn chunks(&self, video: &str) {
        for (index, bytes) in [("1", "456"), ("0", "0123")] {
            let form = form(&[
                ("chunk", bytes),
                ("videoId", video),
                ("chunkIndex", index),
                ("totalChunks", "2"),
                ("fileName", "a"),
            ]);
            self.ask("POST /upload-chunk/", &[FORM], &form).await;
        }
        let body = json!({"videoId": video, "fileName": "a"}).to_string();
        let json = [("content-type", "application/json")];
        self.ask("POST /assemble-chunks/", &json, &body).await;
        let (target, name) = (Target::parse(video).unwrap(), FileName::parse("a").unwrap());
        self.is_whole(Address::Name(Some(&target), &name)).await;
    }

    /// A stream that begins with its creation, and is assembled with its last byte.
    async fn stream(&self) {
        const BYTES: (&str, &str) = ("content-type", "application/offset+octet-stream");
        const TUS: (&str, &str) = ("tus-resumable", "1.0.0");
        let created = self
            .ask("POST /files", &[TUS, BYTES, ("upload-length", "7")], "0123")
            .await;
        let id = created.header("location").strip_prefix("/api/files/").unwrap();
        let head = self.ask(&format!("HEAD /files/{id}"), &[TUS], "").await;
        assert_eq!(head.header("upload-offset"), "4");
        let patch = format!("PATCH /files/{id}");
        self.ask(&patch, &[TUS, BYTES, ("upload-offset", "4")], "456").await;
        self.is_whole(Address::Id(id.parse().unwrap())).await;
    }

    async fn is_whole(&self, at: Address<'_>) {
        let ann = Caller::new("ann");
        // What burns through only now has nothing to do with a request.
        let burnt = self.fuse.left.swap(u32::MAX / 2, Ordering::SeqCst);
        let upload = timeout(PATIENCE, self.uploads.assemble(&ann, at, None))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(upload.state(), State::Assembled);
        let (_, body) = self.uploads.read(&ann, upload.id(), ByteRange::ALL).await.unwrap();
        assert_eq!(body.try_collect::<Vec<_>>().await.unwrap().concat(), b"0123456");
        self.fuse.left.store(burnt, Ordering::SeqCst);
    }

    async fn holds_nothing(&self) {
        let freed = async {
            while self.uploads.budget_free() != self.budget {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let ended = timeout(PATIENCE, freed).await;
        ended.unwrap_or_else(|_| panic!("{} of {} bytes are free", self.uploads.budget_free(), self.budget));
        self.uploads.sweep().await.unwrap();
        // A creation whose answer never came is an upload like any that a client gives up.
        let burnt = self.fuse.left.swap(u32::MAX / 2, Ordering::SeqCst);
        let listed = self
            .uploads
            .list(&Caller::new("ann"), Page::new(0, 1000))
            .await
            .unwrap();
        self.fuse.left.store(burnt, Ordering::SeqCst);
        let open: BTreeSet<_> = listed
            .iter()
            .filter(|upload| upload.state() == State::Open)
            .map(crate::Upload::id)
            .collect();
        let begun = self.blobs.begun(Duration::ZERO).await.unwrap();
        assert_eq!(begun.into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), open);
        assert!(open.len() <= 2, "{} uploads after {:?}", open.len(), self.fuse);
    }
}

#[tokio::test]
async fn a_panic_of_the_hosts_code_leaves_nothing_behind() {
    for (place, least) in [
        (Place::Identification, 6),
        (Place::Authorizer, 6),
        (Place::BeforeCreate, 2),
        (Place::BeforePublish, 2),
    ] {
        let host = host(place).await;
        let mut panics = 0;
        loop {
            host.fuse.left.store(panics, Ordering::SeqCst);
            host.chunks(&panics.to_string()).await;
            host.stream().await;
            host.holds_nothing().await;
            if !host.fuse.is_burnt() {
                break;
            }
            panics += 1;
        }
        assert!(panics >= least, "{place:?}: {panics} panics");
        let shutdown = host.uploads.shutdown(2 * PATIENCE);
        timeout(PATIENCE, shutdown)
            .await
            .expect("it waits for a request that is no more");
    }
}
