//! Requests to the object store: each ends within a bounded time, and its failure says what is known then.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use object_store::{
    GetOptions, GetRange, GetResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, multipart::MultipartStore, multipart::PartId, path::Path,
};

#[cfg(any(feature = "aws", feature = "gcp"))]
use super::signed::Signed;
use super::{
    ObjectOptions,
    join::{Copier, Source},
    orphans::Lister,
    place::{Native, Put},
    trouble::{Trouble, Why},
};

/// How often a request that may be done again is done at most.
const TRIES: u32 = 3;

/// The store, and what it can do.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) objects: Arc<dyn ObjectStore>,
    multipart: Option<Arc<dyn MultipartStore>>,
    pub(super) lister: Option<Arc<dyn Lister>>,
    pub(super) copier: Option<Arc<dyn Copier>>,
    /// It turned out that copies are of no use.
    copies_no_more: Arc<AtomicBool>,
    timeout: Duration,
    slowest: u64,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.objects)
    }
}

type Answer<T> = std::result::Result<T, Trouble>;

impl Backend {
    pub(super) fn new(
        objects: Arc<dyn ObjectStore>,
        multipart: Option<Arc<dyn MultipartStore>>,
        options: &ObjectOptions,
    ) -> Self {
        Self {
            objects,
            multipart,
            lister: None,
            copier: None,
            copies_no_more: Arc::default(),
            timeout: options.request_timeout,
            slowest: options.slowest,
        }
    }

    #[cfg(feature = "gcp")]
    pub(super) fn listing(mut self, signer: Arc<dyn object_store::signer::Signer>) -> Self {
        self.lister = Some(Arc::new(Signed::new(signer, self.timeout)));
        self
    }

    /// Copies within `bucket`, too.
    #[cfg(feature = "aws")]
    pub(super) fn copying(mut self, signer: Arc<dyn object_store::signer::Signer>, bucket: String) -> Self {
        let signed = Arc::new(Signed::new(signer, self.timeout).within(bucket));
        self.lister = Some(signed.clone());
        self.copier = Some(signed);
        self
    }

    pub(super) const fn is_native(&self) -> bool {
        self.multipart.is_some()
    }

    /// Whether parts can be copied from objects.
    pub(super) fn can_copy(&self) -> bool {
        self.copier.is_some() && !self.copies_no_more.load(Ordering::Relaxed)
    }

    pub(super) fn copies_no_more(&self) {
        self.copies_no_more.store(true, Ordering::Relaxed);
    }

    /// Waits for `call`, which moves `bytes`, for a bounded time.
    async fn within<T>(
        &self,
        what: &'static str,
        bytes: u64,
        call: impl Future<Output = object_store::Result<T>> + Send,
    ) -> Answer<T> {
        let time = self.timeout + Duration::from_secs(bytes / self.slowest);
        match tokio::time::timeout(time, call).await {
            Ok(result) => result.map_err(|error| Trouble::new(what, error)),
            Err(_) => Err(Trouble::after(what, time)),
        }
    }

    /// The same for what may be done again, a few times. What did not answer in all its time is not asked again.
    async fn again<T, F>(&self, what: &'static str, bytes: u64, call: impl Fn() -> F + Send + Sync) -> Answer<T>
    where
        T: Send,
        F: Future<Output = object_store::Result<T>> + Send,
    {
        let mut tries = 1;
        loop {
            match self.within(what, bytes, call()).await {
                Err(trouble) if trouble.was_answered() && tries < TRIES => {
                    tracing::debug!(what, error = ?trouble, "a request to the object store is made again");
                    tokio::time::sleep(Duration::from_millis(100 << (2 * tries))).await;
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }

    /// Stores an object, whatever was there; its entity tag.
    pub(super) async fn put(&self, path: &Path, frames: &[Bytes]) -> Answer<Option<String>> {
        let payload: PutPayload = frames.iter().cloned().collect();
        let bytes = payload.content_length() as u64;
        let put = || self.objects.put(path, payload.clone());
        self.again("store an object", bytes, put).await.map(|put| put.e_tag)
    }

    /// Stores an object where there is none, as far as the backend can see to that; its entity tag.
    pub(super) async fn create(&self, path: &Path, frames: &[Bytes]) -> Answer<Option<String>> {
        let payload: PutPayload = frames.iter().cloned().collect();
        let bytes = payload.content_length() as u64;
        let put = |mode: PutMode| {
            let call = self.objects.put_opts(path, payload.clone(), PutOptions::from(mode));
            self.within("publish a blob", bytes, call)
        };
        let put = match put(PutMode::Create).await {
            Err(trouble) if trouble.why == Why::CannotDo => put(PutMode::Overwrite).await,
            answer => answer,
        };
        put.map(|put| put.e_tag)
    }

    pub(super) async fn get(&self, path: &Path, options: GetOptions) -> Answer<GetResult> {
        let call = || self.objects.get_opts(path, options.clone());
        self.again("read an object", 0, call).await
    }

    /// Reads `len` bytes of an object from `start` on; [`Why::NotThere`] also if it has not as many.
    pub(super) async fn bytes(&self, path: &Path, start: u64, len: u64) -> Answer<Vec<Bytes>> {
        const WHAT: &str = "read an object";
        let read = || async move {
            let range = GetRange::Bounded(start..start + len);
            let options = GetOptions::default().with_range(Some(range));
            let mut body = self.objects.get_opts(path, options).await?.into_stream();
            let mut frames = Vec::new();
            while let Some(frame) = body.next().await {
                frames.push(frame?);
            }
            Ok(frames)
        };
        if len == 0 {
            return Ok(Vec::new());
        }
        let frames: Vec<Bytes> = self.again(WHAT, len, read).await?;
        if frames.iter().map(|frame| frame.len() as u64).sum::<u64>() == len {
            return Ok(frames);
        }
        Err(Trouble::plain(Why::NotThere, WHAT))
    }

    pub(super) async fn head(&self, path: &Path) -> Answer<Option<ObjectMeta>> {
        let head = || self.objects.head(path);
        match self.again("look at an object", 0, head).await {
            Err(trouble) if trouble.why == Why::NotThere => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Deletes objects, whether they are there or not.
    pub(super) async fn delete(&self, paths: Vec<Path>) -> Answer<()> {
        let delete = || {
            let paths = stream::iter(paths.clone()).map(Ok).boxed();
            let mut deleted = self.objects.delete_stream(paths);
            async move {
                while let Some(answer) = deleted.next().await {
                    match answer {
                        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
        };
        if paths.is_empty() {
            return Ok(());
        }
        self.again("delete objects", 0, delete).await
    }

    /// All objects beneath `prefix`.
    pub(super) async fn list(&self, prefix: &Path) -> Answer<Vec<ObjectMeta>> {
        let list = || {
            let mut listed = self.objects.list(Some(prefix));
            async move {
                let mut out = Vec::new();
                while let Some(meta) = listed.next().await {
                    out.push(meta?);
                }
                Ok(out)
            }
        };
        self.again("list objects", 0, list).await
    }

    /// The directories beneath `prefix`.
    pub(super) async fn directories(&self, prefix: &Path) -> Answer<Vec<Path>> {
        let list = || self.objects.list_with_delimiter(Some(prefix));
        match self.again("list directories", 0, list).await {
            Ok(listed) => Ok(listed.common_prefixes),
            Err(trouble) if trouble.why == Why::NotThere => Ok(Vec::new()),
            Err(trouble) => Err(trouble),
        }
    }

    fn multipart(&self, what: &'static str) -> Answer<&Arc<dyn MultipartStore>> {
        self.multipart.as_ref().ok_or(Trouble::plain(Why::CannotDo, what))
    }

    pub(super) async fn begin_multipart(&self, path: &Path) -> Answer<String> {
        const WHAT: &str = "begin a multipart upload";
        let store = self.multipart(WHAT)?;
        self.within(WHAT, 0, store.create_multipart(path)).await
    }

    pub(super) async fn put_part(&self, native: &Native, index: u32, frames: &[Bytes]) -> Answer<Put> {
        const WHAT: &str = "store a part";
        let (store, path) = (self.multipart(WHAT)?, parsed(&native.path, WHAT)?);
        let payload: PutPayload = frames.iter().cloned().collect();
        let bytes = payload.content_length() as u64;
        let put = || store.put_part(&path, &native.id, index as usize, payload.clone());
        let id = self.again(WHAT, bytes, put).await?.content_id;
        if id.is_empty() {
            // Nothing would tell it from a later part of the same number.
            return Err(Trouble::plain(Why::CannotDo, "tell parts of a multipart upload apart"));
        }
        Ok(Put { index, id })
    }

    /// Makes a part of `len` bytes by a copy.
    pub(super) async fn copy_part(&self, native: &Native, index: u32, source: &Source<'_>, len: u64) -> Answer<Put> {
        const WHAT: &str = "copy a part";
        let copier = self.copier.as_ref().ok_or(Trouble::plain(Why::CannotDo, WHAT))?;
        let copy = || copier.copy_part(native, index, source);
        let id = self.again(WHAT, len, copy).await?;
        Ok(Put { index, id })
    }

    /// Makes the object; its entity tag, if the backend tells one.
    pub(super) async fn complete(&self, native: &Native, puts: &[Put]) -> Answer<Option<String>> {
        const WHAT: &str = "complete a multipart upload";
        let (store, path) = (self.multipart(WHAT)?, parsed(&native.path, WHAT)?);
        let parts = puts.iter().map(|put| PartId {
            content_id: put.id.clone(),
        });
        let complete = store.complete_multipart(&path, &native.id, parts.collect());
        let put = self.within(WHAT, 0, complete).await?;
        Ok(put.e_tag.filter(|tag| !tag.is_empty()))
    }

    pub(super) async fn abort(&self, native: &Native) -> Answer<()> {
        const WHAT: &str = "abort a multipart upload";
        let (store, path) = (self.multipart(WHAT)?, parsed(&native.path, WHAT)?);
        let abort = || store.abort_multipart(&path, &native.id);
        match self.again(WHAT, 0, abort).await {
            // Servers say in many ways that there is none.
            Err(trouble) if trouble.why != Why::Unknown => Ok(()),
            answer => answer,
        }
    }

    /// Begins to write an object in parts on a store of any kind.
    pub(super) async fn write(&self, path: &Path) -> Answer<Box<dyn MultipartUpload>> {
        let begin = self.objects.put_multipart_opts(path, PutMultipartOptions::default());
        self.within("publish a blob", 0, begin).await
    }

    /// Waits for a step of such writing.
    pub(super) async fn step<T>(
        &self,
        bytes: u64,
        call: impl Future<Output = object_store::Result<T>> + Send,
    ) -> Answer<T> {
        self.within("publish a blob", bytes, call).await
    }
}

fn parsed(path: &str, what: &'static str) -> Answer<Path> {
    Path::parse(path).map_err(|error| Trouble::new(what, error.into()))
}
