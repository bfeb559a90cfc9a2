//! A backend in memory with the manners of the strict ones, whose requests can be made to fail.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use md5::{Digest as _, Md5};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
    memory::InMemory,
    multipart::{MultipartStore, PartId},
    path::Path,
};

use super::super::{
    PartBounds,
    join::{Copier, Source},
    orphans::{Listed, Lister, Unfinished},
    place::Native,
    proof::{bare, tag_of},
};
use crate::engine::Crc64;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Op {
    Put,
    Get,
    List,
    Delete,
    Begin,
    Part,
    Copy,
    Complete,
    Abort,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Fine,
    /// An error; not done.
    FailBefore,
    /// Done, then an error.
    FailAfter,
    /// Never an answer; not done.
    Hang,
    /// Done, then never an answer.
    HangAfter,
    /// Bytes that are read come up to this one of theirs, then an error.
    Torn(usize),
    /// An error now; done after this time.
    Late(Duration),
    /// Done after this time, and answered then.
    Slow(Duration),
}

type Plan = dyn Fn(Op, usize) -> Fate + Send + Sync;

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) objects: InMemory,
    state: Arc<Mutex<State>>,
    bounds: PartBounds,
    /// How entity tags are made: of the bytes, or of nothing that can be known.
    opaque: bool,
    /// No entity tag is told when an object is made.
    silent: bool,
    /// Parts have checksums.
    sums: bool,
    /// Entity tags of objects are weak ones, which `If-Match` never matches.
    weak: bool,
    /// No multipart uploads.
    plain: bool,
    /// What is answered when an object is made of an upload that is no more.
    gone: &'static str,
    plan: Arc<Plan>,
}

#[derive(Default)]
struct State {
    uploads: BTreeMap<String, Upload>,
    /// Of objects.
    tags: HashMap<Path, String>,
    last: u64,
    asked: BTreeMap<Op, usize>,
    sent: u64,
    /// Multipart uploads are too young to be listed.
    young: bool,
}

struct Upload {
    path: Path,
    parts: BTreeMap<usize, (String, Bytes)>,
}

impl Fake {
    pub(super) fn new(bounds: PartBounds) -> Self {
        Self {
            objects: InMemory::new(),
            state: Arc::default(),
            bounds,
            opaque: false,
            silent: false,
            sums: false,
            weak: false,
            plain: false,
            gone: "",
            plan: Arc::new(|_, _| Fate::Fine),
        }
    }

    /// Entity tags that say nothing of the bytes.
    pub(super) fn opaque(mut self) -> Self {
        self.opaque = true;
        self
    }

    /// As Ceph's gateway: no entity tag of an object that was made of parts.
    pub(super) fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// As S3 when it is told to keep checksums of parts: their ids have them too.
    pub(super) fn sums(mut self) -> Self {
        self.sums = true;
        self
    }

    /// The id of a part as `object_store` writes it.
    fn id(&self, tag: &str, bytes: &[u8]) -> String {
        if !self.sums {
            return tag.to_owned();
        }
        let sum = sum(bytes);
        format!("<PartMetadata><e_tag>{tag}</e_tag><checksum_crc64nvme>{sum}</checksum_crc64nvme></PartMetadata>")
    }

    /// Entity tags that name the bytes, and yet match nothing.
    pub(super) fn weak(mut self) -> Self {
        self.weak = true;
        self
    }

    /// As a server that knows PUT and no more.
    pub(super) fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// An upload that is no more is not 404 when an object shall be made of it, but this.
    pub(super) fn gone(mut self, says: &'static str) -> Self {
        self.gone = says;
        self
    }

    /// The same backend, whose requests fail as `plan` says: it is given how many of the kind there were before.
    pub(super) fn failing(mut self, plan: impl Fn(Op, usize) -> Fate + Send + Sync + 'static) -> Self {
        self.plan = Arc::new(plan);
        self
    }

    pub(super) fn asked(&self) -> BTreeMap<Op, usize> {
        self.state.lock().unwrap().asked.clone()
    }

    /// The bytes of objects and parts that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.state.lock().unwrap().sent
    }

    pub(super) fn uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }

    /// Whether the multipart uploads are too young to be taken for orphans.
    pub(super) fn young(&self, young: bool) {
        self.state.lock().unwrap().young = young;
    }

    /// One byte of a part of every multipart upload is another from now on. Its tag stays.
    pub(super) fn rot(&self, index: usize) {
        for upload in self.state.lock().unwrap().uploads.values_mut() {
            let (_, bytes) = upload.parts.get_mut(&index).unwrap();
            let mut rotten = bytes.to_vec();
            rotten[0] ^= 1;
            *bytes = rotten.into();
        }
    }

    /// As if a rule had ended all multipart uploads.
    pub(super) fn drop_uploads(&self) {
        self.state.lock().unwrap().uploads.clear();
    }

    fn fate(&self, op: Op, bytes: usize) -> Fate {
        let nth = {
            let mut state = self.state.lock().unwrap();
            state.sent += bytes as u64;
            let asked = state.asked.entry(op).or_default();
            *asked += 1;
            *asked - 1
        };
        (self.plan)(op, nth)
    }

    async fn suffer<T: Send + 'static>(
        &self,
        op: Op,
        bytes: usize,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let fate = self.fate(op, bytes);
        self.suffered(fate, call).await
    }

    async fn suffered<T: Send + 'static>(
        &self,
        fate: Fate,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match fate {
            Fate::Fine | Fate::Torn(_) => call.await,
            Fate::FailBefore => Err(said("503 Slow Down")),
            Fate::FailAfter => {
                call.await?;
                Err(said("connection reset"))
            }
            Fate::Hang => std::future::pending().await,
            Fate::HangAfter => {
                call.await?;
                std::future::pending().await
            }
            Fate::Late(wait) => {
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    drop(call.await);
                });
                Err(said("connection reset"))
            }
            Fate::Slow(wait) => {
                tokio::time::sleep(wait).await;
                call.await
            }
        }
    }
}

impl State {
    fn tag(&mut self, opaque: bool, bytes: &Bytes) -> String {
        self.last += 1;
        let mut md5 = Md5::new();
        md5.update(bytes);
        if opaque {
            md5.update(self.last.to_be_bytes());
        }
        format!("\"{}\"", hex(&md5.finalize()))
    }

    fn upload(&mut self, id: &str, path: &Path) -> Result<&mut Upload> {
        let upload = self.uploads.get_mut(id).filter(|upload| upload.path == *path);
        upload.ok_or_else(|| object_store::Error::NotFound {
            path: path.to_string(),
            source: "<Code>NoSuchUpload</Code>".into(),
        })
    }

    fn complete(&mut self, bounds: PartBounds, path: &Path, id: &str, ids: &[PartId]) -> Result<(Bytes, String)> {
        let upload = self.upload(id, path)?;
        let mut whole = Vec::new();
        let mut tags = Md5::new();
        let mut first = None;
        if ids.is_empty() || ids.len() > bounds.count as usize {
            return Err(said("status code: 400: <Code>MalformedXML</Code>"));
        }
        for (number, asked) in ids.iter().enumerate() {
            let Some((tag, bytes)) = upload.parts.get(&number) else {
                return Err(said("status code: 400: <Code>InvalidPart</Code>"));
            };
            let with_sum = format!(">{}<", sum(bytes));
            let other_sum = asked.content_id.contains("<checksum") && !asked.content_id.contains(&with_sum);
            if bare(tag) != tag_of(&asked.content_id) || other_sum {
                return Err(said("status code: 400: <Code>InvalidPart</Code>"));
            }
            let (len, is_last) = (bytes.len() as u64, number + 1 == ids.len());
            let first = *first.get_or_insert(len);
            if !is_last && len < bounds.min {
                return Err(said("status code: 400: <Code>EntityTooSmall</Code>"));
            }
            if bounds.equal && (if is_last { len > first } else { len != first }) {
                return Err(said(
                    "status code: 400: <Code>InvalidPart</Code> all parts must be equal",
                ));
            }
            whole.extend_from_slice(bytes);
            let bare = tag.trim_matches('"');
            let byte = |at: usize| u8::from_str_radix(&bare[at..at + 2], 16).unwrap();
            tags.update((0..32).step_by(2).map(byte).collect::<Vec<u8>>());
        }
        let tag = format!("\"{}-{}\"", hex(&tags.finalize()), ids.len());
        self.uploads.remove(id);
        Ok((whole.into(), tag))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sum(bytes: &[u8]) -> String {
    format!("{:016x}", Crc64::of(bytes))
}

fn said(text: &str) -> object_store::Error {
    object_store::Error::Generic {
        store: "Fake",
        source: text.to_owned().into(),
    }
}

impl fmt::Display for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

#[async_trait]
impl ObjectStore for Fake {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (fake, path, len) = (self.clone(), path.clone(), payload.content_length());
        let call = async move {
            let bytes = Bytes::from(payload.clone());
            let mut put = fake.objects.put_opts(&path, payload, options).await?;
            let mut state = fake.state.lock().unwrap();
            let tag = state.tag(fake.opaque, &bytes);
            put.e_tag = Some(tag.clone());
            state.tags.insert(path, tag);
            Ok(put)
        };
        self.suffer(Op::Put, len, call).await
    }

    async fn put_multipart_opts(&self, path: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if self.plain {
            return Err(object_store::Error::NotImplemented {
                operation: "`put_multipart_opts`".into(),
                implementer: self.to_string(),
            });
        }
        Ok(Box::new(Writing {
            id: self.create_multipart(path).await?,
            fake: self.clone(),
            path: path.clone(),
            parts: Arc::default(),
            count: 0,
        }))
    }

    async fn get_opts(&self, path: &Path, mut options: GetOptions) -> Result<GetResult> {
        let (fake, path) = (self.clone(), path.clone());
        let fate = self.fate(Op::Get, 0);
        let call = async move {
            let asked = options.if_match.take();
            let mut found = fake.objects.get_opts(&path, options).await?;
            if let Some(tag) = fake.state.lock().unwrap().tags.get(&path) {
                found.meta.e_tag = Some(format!("{}{tag}", if fake.weak { "W/" } else { "" }));
            }
            if asked.is_some_and(|asked| fake.weak || found.meta.e_tag != Some(asked)) {
                return Err(object_store::Error::Precondition {
                    path: path.to_string(),
                    source: "status code: 412".into(),
                });
            }
            if let Fate::Torn(at) = fate {
                let (meta, range) = (found.meta.clone(), found.range.clone());
                let bytes = found.bytes().await?;
                let frames = [Ok(bytes.slice(..at.min(bytes.len()))), Err(said("connection reset"))];
                found = GetResult {
                    payload: GetResultPayload::Stream(stream::iter(frames).boxed()),
                    meta,
                    range,
                    attributes: object_store::Attributes::default(),
                    extensions: object_store::Extensions::default(),
                };
            }
            Ok(found)
        };
        self.suffered(fate, call).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.objects.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let fake = self.clone();
        paths
            .then(move |path| {
                let fake = fake.clone();
                async move {
                    let (path, inner) = (path?, fake.clone());
                    let call = async move {
                        inner.objects.delete(&path).await?;
                        inner.state.lock().unwrap().tags.remove(&path);
                        Ok(path)
                    };
                    fake.suffer(Op::Delete, 0, call).await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        *self.state.lock().unwrap().asked.entry(Op::List).or_default() += 1;
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (fake, prefix) = (self.clone(), prefix.cloned());
        let call = async move { fake.objects.list_with_delimiter(prefix.as_ref()).await };
        self.suffer(Op::List, 0, call).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Writing {
    fake: Fake,
    path: Path,
    id: String,
    parts: Arc<Mutex<BTreeMap<usize, PartId>>>,
    count: usize,
}

#[async_trait]
impl MultipartUpload for Writing {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (fake, path, id, parts) = (
            self.fake.clone(),
            self.path.clone(),
            self.id.clone(),
            self.parts.clone(),
        );
        let index = self.count;
        self.count += 1;
        Box::pin(async move {
            let part = fake.put_part(&path, &id, index, data).await?;
            parts.lock().unwrap().insert(index, part);
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts = self.parts.lock().unwrap().values().cloned().collect();
        self.fake.complete_multipart(&self.path, &self.id, parts).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.fake.abort_multipart(&self.path, &self.id).await
    }
}

#[async_trait]
impl MultipartStore for Fake {
    async fn create_multipart(&self, path: &Path) -> Result<String> {
        let (fake, path) = (self.clone(), path.clone());
        let call = async move {
            let mut state = fake.state.lock().unwrap();
            state.last += 1;
            let id = format!("u{}", state.last);
            let parts = BTreeMap::new();
            state.uploads.insert(id.clone(), Upload { path, parts });
            Ok(id)
        };
        self.suffer(Op::Begin, 0, call).await
    }

    async fn put_part(&self, path: &Path, id: &String, index: usize, data: PutPayload) -> Result<PartId> {
        let (fake, path, id) = (self.clone(), path.clone(), id.clone());
        let len = data.content_length();
        let call = async move {
            let bytes = Bytes::from(data);
            let mut state = fake.state.lock().unwrap();
            if index as u64 >= u64::from(fake.bounds.count) || bytes.len() as u64 > fake.bounds.max {
                return Err(said("status code: 400: <Code>InvalidArgument</Code>"));
            }
            let tag = state.tag(fake.opaque, &bytes);
            let upload = state.upload(&id, &path)?;
            let content_id = fake.id(&tag, &bytes);
            upload.parts.insert(index, (tag, bytes));
            Ok(PartId { content_id })
        };
        self.suffer(Op::Part, len, call).await
    }

    async fn complete_multipart(&self, path: &Path, id: &String, parts: Vec<PartId>) -> Result<PutResult> {
        let (fake, path, id) = (self.clone(), path.clone(), id.clone());
        let call = async move {
            let done = fake.state.lock().unwrap().complete(fake.bounds, &path, &id, &parts);
            let (whole, tag) = done.map_err(|error| match error {
                object_store::Error::NotFound { .. } if !fake.gone.is_empty() => said(fake.gone),
                error => error,
            })?;
            fake.objects.put(&path, whole.into()).await?;
            fake.state.lock().unwrap().tags.insert(path, tag.clone());
            Ok(PutResult {
                e_tag: (!fake.silent).then_some(tag),
                version: None,
                extensions: object_store::Extensions::default(),
            })
        };
        self.suffer(Op::Complete, 0, call).await
    }

    async fn abort_multipart(&self, path: &Path, id: &String) -> Result<()> {
        let (fake, path, id) = (self.clone(), path.clone(), id.clone());
        let call = async move {
            let mut state = fake.state.lock().unwrap();
            state.upload(&id, &path)?;
            state.uploads.remove(&id);
            Ok(())
        };
        self.suffer(Op::Abort, 0, call).await
    }
}

#[async_trait]
impl Copier for Fake {
    async fn copy_part(&self, native: &Native, index: u32, source: &Source<'_>) -> Result<String> {
        let (fake, native, from) = (self.clone(), native.clone(), source.path.clone());
        let (range, tag) = (source.range.clone(), source.tag.to_owned());
        let call = async move {
            let found = fake.objects.get(&from).await;
            let found = found.map_err(|_| said("status code: 404: <Code>NoSuchKey</Code>"))?;
            if fake.state.lock().unwrap().tags.get(&from) != Some(&tag) {
                return Err(said("status code: 412: <Code>PreconditionFailed</Code>"));
            }
            let mut bytes = found.bytes().await?;
            if let Some(range) = range {
                let range = range.start as usize..range.end as usize;
                if bytes.len() as u64 <= fake.bounds.min || range.end > bytes.len() {
                    return Err(said("status code: 400: <Code>InvalidRequest</Code>"));
                }
                bytes = bytes.slice(range);
            }
            let mut state = fake.state.lock().unwrap();
            let tag = state.tag(fake.opaque, &bytes);
            let upload = state.upload(&native.id, &native.path.as_str().into())?;
            let id = fake.id(&tag, &bytes);
            upload.parts.insert(index as usize, (tag, bytes));
            Ok(id)
        };
        self.suffer(Op::Copy, 0, call).await
    }
}

#[async_trait]
impl Lister for Fake {
    async fn parts(&self, native: &Native) -> crate::Result<Option<Vec<Listed>>> {
        let state = self.state.lock().unwrap();
        let upload = state.uploads.get(&native.id);
        Ok(upload.map(|upload| {
            upload
                .parts
                .iter()
                .map(|(index, (tag, bytes))| Listed {
                    index: *index as u32,
                    tag: bare(tag),
                    sum: self.sums.then(|| sum(bytes)),
                })
                .collect()
        }))
    }

    async fn uploads(&self, prefix: &Path) -> crate::Result<Vec<Unfinished>> {
        let state = self.state.lock().unwrap();
        let uploads = state
            .uploads
            .iter()
            .filter(|(_, upload)| upload.path.prefix_matches(prefix));
        Ok(uploads
            .map(|(id, upload)| Unfinished {
                path: upload.path.to_string(),
                id: id.clone(),
                begun: (!state.young).then_some(0),
            })
            .collect())
    }
}
