//! A client: honest most of the time, on a bad network always.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use tokio::time::Instant;

use super::{model::File, world::World};
use crate::{
    Address, Caller, Digest, Error, ErrorKind, FileName, NewAppend, NewChunk, NewUpload, State, Target, Upload,
    UploadId, Uploads, blob::ByteRange, upload::Algorithm,
};

pub(super) struct Client {
    number: u64,
    world: World,
    files: Vec<File>,
    caller: Caller,
    known: Vec<Option<UploadId>>,
}

type Body = BoxStream<'static, Result<Bytes, Error>>;

impl Client {
    pub(super) fn new(number: u64, world: World, files: Vec<File>) -> Self {
        let known = vec![None; files.len()];
        Self {
            number,
            world,
            files,
            caller: Caller::new("alice"),
            known,
        }
    }

    pub(super) async fn run(mut self) {
        for _ in 0..12 {
            self.world.model().count("operations");
            let uploads = self.world.engine().await;
            let patience = Duration::from_millis(match self.world.below(4) {
                0 => self.world.below(300),
                _ => 40_000,
            });
            let world = self.world.clone();
            let pause = world.below(3) * world.below(3_000) + world.below(40) / 39 * world.below(900_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            tokio::select! {
                biased;
                () = world.died() => self.world.model().count("cut: by a crash"),
                done = tokio::time::timeout(patience, self.step(&uploads)) => {
                    if done.is_err() {
                        self.world.model().count("cut: by the client");
                    }
                }
            }
        }
    }

    /// Sends what is missing of the file until it is assembled, as an honest client without faults does.
    pub(super) async fn finish(mut self) {
        let file = self.files[0].clone();
        let uploads = self.world.engine().await;
        for _ in 0..200 {
            let Some(id) = self.find(&uploads, &file).await else {
                self.create(&uploads, 0).await;
                continue;
            };
            self.world.model().note("finish: asks");
            let status = uploads.status(&self.caller, id).await.expect("a status without faults");
            self.world.model().observe(&status);
            let done = if file.deferred {
                status.offset() == file.size as u64
            } else {
                status.is_complete()
            };
            match status.state() {
                State::Assembled => return,
                State::Open if !done => {
                    if file.chunk == 0 {
                        self.world.model().note("finish: appends");
                        self.append(&uploads, 0, id, status.offset(), 0, Trouble::None).await;
                    } else if let Some((missing, _)) = status.missing().first() {
                        self.world.model().note("finish: puts");
                        self.put(&uploads, 0, Some(id), *missing, 0, Trouble::None).await;
                    }
                }
                State::Open | State::Assembling => self.assemble(&uploads, 0, id).await,
                _ => self.known[0] = None,
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("I7: without faults an honest client cannot finish {file:?}");
    }

    async fn step(&mut self, uploads: &Uploads) {
        let at = self.world.below(self.files.len() as u64) as usize;
        let file = self.files[at].clone();
        let id = match self.known[at] {
            Some(id) if !self.world.chance(10) => Some(id),
            _ => self.find(uploads, &file).await,
        };
        self.known[at] = id;
        let variant = u8::from(self.world.chance(12));
        match (self.world.below(100), id) {
            (0..55, None) if file.chunk > 0 && !self.world.chance(25) => {
                let index = self.world.below(file.chunks().into()) as u32;
                let trouble = self.trouble();
                self.put(uploads, at, None, index, variant, trouble).await;
            }
            (0..70, None) => self.create(uploads, at).await,
            (_, None) => {}
            (0..60, Some(id)) if file.chunk > 0 => {
                let index = self.world.below(file.chunks().into()) as u32;
                let trouble = self.trouble();
                let by_id = self.world.chance(70).then_some(id);
                self.put(uploads, at, by_id, index, variant, trouble).await;
            }
            (0..60, Some(id)) => {
                let offset = if self.world.chance(50) {
                    uploads.take_over(&self.caller, id).await
                } else {
                    uploads.status(&self.caller, id).await
                };
                let Ok(status) = offset else { return };
                let trouble = self.trouble();
                self.append(uploads, at, id, status.offset(), variant, trouble).await;
            }
            (60..72, Some(id)) => {
                self.look(uploads, id).await;
            }
            (72..88, Some(id)) => self.assemble(uploads, at, id).await,
            (88..91, Some(id)) => self.give_up(uploads, id).await,
            (91..95, Some(_)) => drop(uploads.sweep().await),
            (_, Some(id)) => self.read(uploads, id).await,
        }
    }

    fn trouble(&self) -> Trouble {
        match self.world.below(100) {
            0..60 => Trouble::None,
            60..70 => Trouble::Cut,
            70..78 => Trouble::Stall,
            78..84 => Trouble::Slow,
            84..89 => Trouble::Longer,
            89..94 => Trouble::Shorter,
            _ => Trouble::BadSum,
        }
    }

    async fn find(&self, uploads: &Uploads, file: &File) -> Option<UploadId> {
        let page = crate::metadata::Page::new(0, 100);
        let listed = uploads.list(&self.caller, page).await.ok()?;
        let found = listed
            .iter()
            .find(|upload| upload.file_name().as_str() == file.name && upload.state().is_live())?;
        self.world.model().upload(found.id(), file);
        Some(found.id())
    }

    async fn create(&mut self, uploads: &Uploads, at: usize) {
        let file = self.files[at].clone();
        let (target, _) = address(&file);
        let size = |new: NewUpload| if file.deferred { new } else { new.size(file.size as u64) };
        let new = NewUpload::new(&file.name).target(target).named();
        let new = size(new);
        let new = if file.chunk > 0 {
            new.chunk_size(file.chunk as u64)
        } else {
            new
        };
        match uploads.create(&self.caller, new).await {
            Ok(upload) => {
                self.world.model().upload(upload.id(), &file);
                self.known[at] = Some(upload.id());
            }
            Err(error) => self.failed("create", &error),
        }
    }

    async fn put(
        &mut self,
        uploads: &Uploads,
        at: usize,
        id: Option<UploadId>,
        index: u32,
        variant: u8,
        trouble: Trouble,
    ) {
        let file = self.files[at].clone();
        let mut bytes = file.bytes(variant)[file.range(index)].to_vec();
        // Nothing has no variants.
        let variant = if bytes.is_empty() { 0 } else { variant };
        let trouble = match (trouble, id) {
            // A chunk of another length may well be what an upload begins with: it is wrong only if the length is fixed.
            (Trouble::Longer | Trouble::Shorter, Some(id)) => match uploads.status(&self.caller, id).await {
                Ok(status) if status.plan().chunk_len(index) == Some(bytes.len() as u64) => trouble,
                _ => Trouble::None,
            },
            (Trouble::Longer | Trouble::Shorter, None) => Trouble::None,
            _ => trouble,
        };
        let first_try = self.world.model().tried.insert((file.number, index));
        let mut chunk = NewChunk::new(index).total(file.chunks());
        match trouble {
            Trouble::Longer => bytes.push(0xab),
            Trouble::Shorter if bytes.is_empty() => return,
            Trouble::Shorter => drop(bytes.pop()),
            _ => {}
        }
        if trouble == Trouble::BadSum || self.world.chance(20) {
            let sum = crate::Crc64::of(&bytes) ^ u64::from(trouble == Trouble::BadSum);
            chunk = chunk.checksum(Digest::new(Algorithm::Crc64Nvme, sum.to_be_bytes().to_vec()).unwrap());
        }
        let body = self.body(&bytes, trouble);
        let began = Instant::now();
        let known = id.map(|id| self.world.model().known(id)).unwrap_or_default();
        let (target, name) = address(&file);
        let result = match id {
            Some(id) => uploads.put_chunk(&self.caller, id, chunk, body).await,
            None => {
                uploads
                    .put_chunk(&self.caller, Address::Name(Some(&target), &name), chunk, body)
                    .await
            }
        };
        match result {
            Ok(stored) => {
                assert!(
                    matches!(trouble, Trouble::None | Trouble::Slow),
                    "I8: {trouble:?} was taken"
                );
                self.known[at] = Some(stored.upload_id);
                let mut model = self.world.model();
                model.note(&format!(
                    "client {}: {} chunk {index} of {} variant {variant}: {stored:?}",
                    self.number, stored.upload_id, file.name
                ));
                model.count("acknowledged: chunk");
                model.acknowledged(&file, variant, &stored, began, first_try, &known);
            }
            Err(error) => self.failed("chunk", &error),
        }
    }

    async fn append(&mut self, uploads: &Uploads, at: usize, id: UploadId, offset: u64, variant: u8, trouble: Trouble) {
        let file = self.files[at].clone();
        let Some(rest) = file.bytes(variant).get(offset as usize..).map(<[u8]>::to_vec) else {
            return;
        };
        let some = if self.number == 9 {
            rest.len()
        } else {
            self.world.below(rest.len() as u64 + 1) as usize
        };
        let mut bytes = rest[..some].to_vec();
        // Where no end was told there is nothing that is too long.
        let trouble = if file.deferred && trouble == Trouble::Longer {
            Trouble::None
        } else {
            trouble
        };
        if trouble == Trouble::Longer {
            bytes = [&rest[..], &[0xab]].concat();
        }
        let mut append = NewAppend::new();
        if trouble == Trouble::BadSum || self.world.chance(20) {
            let sum = crate::Crc64::of(&bytes) ^ u64::from(trouble == Trouble::BadSum);
            append = append.checksum(Digest::new(Algorithm::Crc64Nvme, sum.to_be_bytes().to_vec()).unwrap());
        }
        let ended = self.world.model().ended(id);
        let body = self.body(&bytes, trouble);
        match uploads.append_with(&self.caller, id, offset, append, body).await {
            Ok(appended) => {
                assert!(
                    !matches!(trouble, Trouble::Cut | Trouble::Stall | Trouble::Longer),
                    "{trouble:?} was taken"
                );
                assert!(trouble != Trouble::BadSum, "I8: a wrong checksum was taken");
                assert!(!ended || appended.offset == offset, "I5: an ended upload took bytes");
                let mut model = self.world.model();
                model.count("acknowledged: append");
                model.appended(id, &file, offset, appended.offset, variant);
            }
            Err(error) => self.failed("append", &error),
        }
    }

    async fn assemble(&mut self, uploads: &Uploads, at: usize, id: UploadId) {
        let was_complete = self.world.model().was_complete(id);
        match uploads.assemble(&self.caller, id, None).await {
            Ok(upload) => {
                assert_eq!(upload.state(), State::Assembled);
                self.assembled(&upload, at);
                self.read(uploads, id).await;
            }
            Err(error) => {
                assert!(
                    !was_complete || error.kind() != ErrorKind::Incomplete,
                    "I2: complete, but {:?} is missing",
                    error.missing()
                );
                self.failed("assemble", &error);
            }
        }
    }

    fn assembled(&self, upload: &Upload, at: usize) {
        let mut model = self.world.model();
        if !model.upload(upload.id(), &self.files[at]).wanted_gone {
            model.observe(upload);
        }
    }

    async fn look(&self, uploads: &Uploads, id: UploadId) -> Option<Upload> {
        let known = self.world.model().known(id);
        let upload = uploads.status(&self.caller, id).await.ok()?;
        let mut model = self.world.model();
        model.count("looked");
        model.compare(&known, &upload);
        Some(upload)
    }

    async fn give_up(&self, uploads: &Uploads, id: UploadId) {
        if let Some(seen) = self.world.model().uploads.get_mut(&id) {
            seen.wanted_gone = true;
        }
        let result = match self.world.chance(50) {
            true => uploads.abort(&self.caller, id).await,
            false => uploads.delete(&self.caller, id).await,
        };
        if let Err(error) = result {
            self.failed("give up", &error);
        }
    }

    async fn read(&self, uploads: &Uploads, id: UploadId) {
        let Ok((blob, body)) = uploads.read(&self.caller, id, ByteRange::ALL).await else {
            return;
        };
        if let Ok(frames) = body.try_collect::<Vec<_>>().await {
            assert_eq!(
                blob.size,
                frames.iter().map(|frame| frame.len() as u64).sum::<u64>(),
                "I3: a blob of another size"
            );
            self.world.model().count("read");
            self.world.model().check_bytes(id, &frames.concat());
        }
    }

    fn failed(&self, what: &str, error: &Error) {
        self.world
            .model()
            .note(&format!("client {}: {what}: {error:?}", self.number));
        self.world.model().count(format!("refused: {what}, {:?}", error.kind()));
        assert!(
            self.number != 9 || error.kind() != ErrorKind::NoSpace,
            "no space without faults"
        );
    }

    /// A body on a bad network, in frames of odd lengths.
    fn body(&self, bytes: &[u8], trouble: Trouble) -> Body {
        let frame = 1 + self.world.below(90) as usize;
        let cut = match trouble {
            Trouble::Cut | Trouble::Stall => self.world.below(bytes.len() as u64 + 1) as usize,
            _ => bytes.len(),
        };
        let frames: Vec<_> = bytes[..cut]
            .chunks(frame)
            .map(|frame| Ok(Bytes::copy_from_slice(frame)))
            .collect();
        let pace = Duration::from_millis(if trouble == Trouble::Slow {
            self.world.below(2_000)
        } else {
            self.world.below(30)
        });
        let frames = stream::iter(frames).then(move |frame| async move {
            tokio::time::sleep(pace).await;
            frame
        });
        match trouble {
            Trouble::Cut => {
                let error = Error::new(ErrorKind::Interrupted, "the network is gone");
                frames.chain(stream::iter([Err(error)])).boxed()
            }
            Trouble::Stall => frames.chain(stream::pending()).boxed(),
            _ => frames.boxed(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// The body breaks off.
    Cut,
    /// The body stops for ever.
    Stall,
    /// The body comes slowly.
    Slow,
    /// One byte too many.
    Longer,
    /// One byte too few.
    Shorter,
    /// A checksum of other bytes.
    BadSum,
}

fn address(file: &File) -> (Target, FileName) {
    (Target::parse("7").unwrap(), FileName::parse(&file.name).unwrap())
}
