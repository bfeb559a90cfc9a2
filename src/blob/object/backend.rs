//! Requests to the object store: each ends within a bounded time, and its failure says what is known then.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use object_store::{
    GetOptions, GetRange, GetResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, multipart::MultipartStore, multipart::PartId, path::Path,
};

use super::{
    ObjectOptions,
    orphans::Lister,
    place::{Native, Put},
};
use crate::error::{Error, ErrorKind};

/// How often a request that may be done again is done at most.
const TRIES: u32 = 3;

/// The store, and what it can do.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) objects: Arc<dyn ObjectStore>,
    multipart: Option<Arc<dyn MultipartStore>>,
    pub(super) lister: Option<Arc<dyn Lister>>,
    timeout: Duration,
    slowest: u64,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.objects)
    }
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no such object or multipart upload.
    NotThere,
    /// There is an object already.
    Exists,
    /// A part is not the one that was asked for.
    OtherPart,
    /// The backend cannot do it.
    CannotDo,
    /// It refused, for another reason.
    Refused,
    /// Nothing is known of the outcome.
    Unknown,
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) why: Why,
    what: &'static str,
    source: Option<object_store::Error>,
}

impl Trouble {
    fn new(what: &'static str, source: object_store::Error) -> Self {
        Self {
            why: why(&source),
            what,
            source: Some(source),
        }
    }

    fn after(what: &'static str, time: Duration) -> Self {
        tracing::warn!(what, ?time, "the object store did not answer in time");
        Self {
            why: Why::Unknown,
            what,
            source: None,
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        let Trouble { why, what, source } = trouble;
        let error = match why {
            Why::NotThere => Self::new(ErrorKind::NotFound, format!("The object store has nothing to {what}")),
            Why::CannotDo => Self::internal(format!("The object store cannot {what}")),
            Why::Refused | Why::Exists | Why::OtherPart => {
                Self::unavailable(format!("The object store refused to {what}; look at its settings"))
            }
            Why::Unknown => Self::unavailable(format!("The object store did not {what}; try again")),
        };
        match source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// What an error says, by its kind and by the code that the backend gave: there is no other way to tell.
fn why(error: &object_store::Error) -> Why {
    use object_store::Error as E;
    let said = || {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        text
    };
    // With its tags: paths are in the text too, and those a client chose.
    let names = |codes: &[&str]| {
        let text = said();
        codes.iter().any(|code| text.contains(&format!("<Code>{code}</Code>")))
    };
    let status = |first: &str| said().contains(&format!("status code: {first}"));
    match error {
        E::NotFound { .. } if names(&["NoSuchBucket", "ContainerNotFound"]) => Why::Refused,
        E::NotFound { .. } => Why::NotThere,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => Why::Exists,
        E::NotSupported { .. } | E::NotImplemented { .. } => Why::CannotDo,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } | E::InvalidPath { .. } => Why::Refused,
        _ if names(&["NoSuchUpload"]) => Why::NotThere,
        _ if names(&["InvalidPart", "InvalidBlockList", "InvalidBlockId"]) => Why::OtherPart,
        _ if status("4") && !status("408") && !status("429") => Why::Refused,
        _ => Why::Unknown,
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
            timeout: options.request_timeout,
            slowest: options.slowest,
        }
    }

    #[cfg(any(feature = "aws", feature = "gcp"))]
    pub(super) fn listing(mut self, signer: Arc<dyn object_store::signer::Signer>) -> Self {
        self.lister = Some(Arc::new(super::orphans::Signed::new(signer, self.timeout)));
        self
    }

    pub(super) const fn is_native(&self) -> bool {
        self.multipart.is_some()
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
                Err(trouble) if trouble.why == Why::Unknown && trouble.source.is_some() && tries < TRIES => {
                    tracing::debug!(what, error = ?trouble.source, "a request to the object store is made again");
                    tokio::time::sleep(Duration::from_millis(100 << (2 * tries))).await;
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }

    /// Stores an object, whatever was there.
    pub(super) async fn put(&self, path: &Path, frames: &[Bytes]) -> Answer<()> {
        let payload: PutPayload = frames.iter().cloned().collect();
        let bytes = payload.content_length() as u64;
        let put = || self.objects.put(path, payload.clone());
        self.again("store an object", bytes, put).await.map(drop)
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

    pub(super) async fn get(&self, path: &Path, range: Option<GetRange>) -> Answer<GetResult> {
        let call = || {
            let options = GetOptions::default().with_range(range.clone());
            self.objects.get_opts(path, options)
        };
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
        Err(Trouble {
            why: Why::NotThere,
            what: WHAT,
            source: None,
        })
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
        self.multipart.as_ref().ok_or(Trouble {
            why: Why::CannotDo,
            what,
            source: None,
        })
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
            return Err(Trouble {
                why: Why::CannotDo,
                what: "tell parts of a multipart upload apart",
                source: None,
            });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn what_is_definite_is_told_from_what_is_not() {
        let lost = "non-2xx status code: 400 Bad Request: <Error><Code>InvalidPart</Code></Error>";
        for (text, expected) in [
            (lost, Why::OtherPart),
            ("status code: 400: <Code>InvalidBlockList</Code>", Why::OtherPart),
            ("status code: 400: <Code>NoSuchUpload</Code>", Why::NotThere),
            ("status code: 403 Forbidden", Why::Refused),
            ("PUT /InvalidPart.mp4?uploadId=NoSuchUpload: timed out", Why::Unknown),
            ("status code: 429 Too Many Requests", Why::Unknown),
            ("status code: 503: <Code>SlowDown</Code>", Why::Unknown),
            (
                "Server returned error response: <Code>InternalError</Code>",
                Why::Unknown,
            ),
            ("connection reset", Why::Unknown),
        ] {
            assert_eq!(why(&said(text)), expected, "{text}");
        }
        let missing = |source: &str| object_store::Error::NotFound {
            path: "x".into(),
            source: source.to_owned().into(),
        };
        assert_eq!(why(&missing("<Code>NoSuchUpload</Code>")), Why::NotThere);
        assert_eq!(why(&missing("<Code>NoSuchBucket</Code>")), Why::Refused);
    }
}
