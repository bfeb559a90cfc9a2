//! Files that are sent as partial uploads, side by side, and joined; with what must hold of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};

use super::world::World;
use crate::{
    Caller, Error, ErrorKind, NewUpload, State, Upload, UploadId, Uploads, blob::ByteRange, metadata::Page,
    upload::Concat,
};

/// A file in pieces, and the order in which they are joined.
#[derive(Clone, Debug)]
struct Joint {
    name: String,
    pieces: Vec<Piece>,
    list: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Piece {
    salt: u64,
    size: usize,
    /// Its size is told after its bytes.
    deferred: bool,
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        let mixed = |at: u64| (at ^ self.salt).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 33;
        (0..self.size as u64).map(|at| mixed(at) as u8).collect()
    }
}

/// What clients of a history know together.
#[derive(Debug, Default)]
struct Known {
    /// The partial uploads by what they are to hold.
    partials: BTreeMap<UploadId, Piece>,
    /// The newest one of each piece of each joint.
    current: HashMap<(usize, usize), UploadId>,
    finals: BTreeSet<UploadId>,
    /// Ends that were seen.
    ended: HashMap<UploadId, State>,
    acknowledged: HashMap<UploadId, u64>,
    wanted_gone: BTreeSet<UploadId>,
}

#[derive(Clone)]
pub(super) struct Joints {
    joints: Vec<Joint>,
    known: Arc<Mutex<Known>>,
}

impl Joints {
    pub(super) fn draw(world: &World) -> Self {
        let joints = (0..=world.below(2)).map(|number| {
            let pieces: Vec<Piece> = (0..2 + world.below(2))
                .map(|piece| Piece {
                    salt: (number * 16 + piece + 1) * 0x9e37_79b9,
                    size: if world.chance(10) { 0 } else { world.below(450) as usize },
                    deferred: world.chance(35),
                })
                .collect();
            let mut list: Vec<usize> = (0..pieces.len()).collect();
            if world.chance(40) {
                list.reverse();
            }
            if world.chance(30) {
                list.push(world.below(pieces.len() as u64) as usize);
            }
            Joint {
                name: format!("joint-{number}.bin"),
                pieces,
                list,
            }
        });
        Self {
            joints: joints.collect(),
            known: Arc::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// What an upload that is made of others must hold.
    fn expected(&self, upload: &Upload) -> Vec<u8> {
        let Some(Concat::Final(list)) = upload.concat() else {
            panic!("no list of {:?}", upload.record());
        };
        let known = self.known();
        list.iter().flat_map(|id| known.partials[id].bytes()).collect()
    }
}

pub(super) struct Client {
    number: u64,
    world: World,
    joints: Joints,
    caller: Caller,
}

type Body = BoxStream<'static, Result<Bytes, Error>>;

impl Client {
    pub(super) fn new(number: u64, world: World, joints: Joints) -> Self {
        Self {
            number,
            world,
            joints,
            caller: Caller::new("alice"),
        }
    }

    pub(super) async fn run(self) {
        for _ in 0..22 {
            self.world.model().count("operations");
            let uploads = self.world.engine().await;
            let patience = Duration::from_millis(match self.world.below(4) {
                0 => self.world.below(300),
                _ => 40_000,
            });
            let world = &self.world;
            let pause = world.below(3) * world.below(2_000) + world.below(50) / 49 * world.below(900_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            tokio::select! {
                biased;
                () = world.died() => world.model().count("cut: by a crash"),
                done = tokio::time::timeout(patience, self.step(&uploads)) => {
                    if done.is_err() {
                        world.model().count("cut: by the client");
                    }
                }
            }
        }
    }

    async fn step(&self, uploads: &Uploads) {
        let at = self.world.below(self.joints.joints.len() as u64) as usize;
        let pieces = self.joints.joints[at].pieces.len() as u64;
        let piece = self.world.below(pieces) as usize;
        let current = self.joints.known().current.get(&(at, piece)).copied();
        match (self.world.below(100), current) {
            (0..50, None) => self.create(uploads, at, piece).await,
            (0..4, Some(_)) => self.create(uploads, at, piece).await,
            (4..55, Some(id)) => self.append(uploads, id, self.world.chance(60)).await,
            (0..70, _) => {
                let unfinished = self.world.chance(50);
                self.concatenate(uploads, at, unfinished).await;
            }
            (70..85, _) => self.look_at_some(uploads).await,
            (85..90, _) => {
                if let Some(id) = self.some() {
                    self.give_up(uploads, id).await;
                }
            }
            (90..96, _) => {
                if let Some(id) = self.some() {
                    self.assemble(uploads, id).await;
                }
            }
            _ => drop(uploads.sweep().await),
        }
    }

    /// An upload that was heard of.
    fn some(&self) -> Option<UploadId> {
        let known = self.joints.known();
        let all: Vec<_> = known.finals.iter().chain(known.partials.keys()).copied().collect();
        drop(known);
        let finals_first = self.world.chance(50);
        let bound = match (finals_first, self.joints.known().finals.len()) {
            (true, finals @ 1..) => finals,
            _ => all.len(),
        };
        (bound > 0).then(|| all[self.world.below(bound as u64) as usize])
    }

    async fn create(&self, uploads: &Uploads, at: usize, number: usize) {
        let joint = &self.joints.joints[at];
        let piece = &joint.pieces[number];
        let new = NewUpload::new(&joint.name).partial();
        let new = if piece.deferred {
            new
        } else {
            new.size(piece.size as u64)
        };
        match uploads.create(&self.caller, new).await {
            Ok(upload) => {
                let mut known = self.joints.known();
                known.partials.insert(upload.id(), piece.clone());
                known.current.insert((at, number), upload.id());
            }
            Err(error) => self.failed("create", &error),
        }
    }

    /// Sends some of what is missing, or all of it.
    async fn append(&self, uploads: &Uploads, id: UploadId, all: bool) {
        let piece = self.joints.known().partials[&id].clone();
        let (acknowledged, before) = {
            let known = self.joints.known();
            let acknowledged = known.acknowledged.get(&id).copied().unwrap_or(0);
            (acknowledged, known.ended.get(&id).copied())
        };
        let status = match self.world.chance(50) {
            true => uploads.take_over(&self.caller, id).await,
            false => uploads.status(&self.caller, id).await,
        };
        let Ok(status) = status else { return };
        self.saw(&status, before);
        if status.state() != State::Open {
            self.joints.known().current.retain(|_, current| *current != id);
            return;
        }
        assert!(
            status.offset() >= acknowledged,
            "I1: {acknowledged} bytes of a partial upload were acknowledged, it has {}",
            status.offset()
        );
        let rest = piece.bytes()[status.offset() as usize..].to_vec();
        let len = match all {
            true => rest.len(),
            false => self.world.below(rest.len() as u64 + 1) as usize,
        };
        let body = self.body(&rest[..len]);
        match uploads.append(&self.caller, id, status.offset(), body).await {
            Ok(appended) => {
                self.world.model().count("acknowledged: append");
                let mut known = self.joints.known();
                let end = known.acknowledged.entry(id).or_default();
                *end = appended.offset.max(*end);
            }
            Err(error) => return self.failed("append", &error),
        }
        if piece.deferred
            && len == rest.len()
            && let Err(error) = uploads.set_size(&self.caller, id, piece.size as u64).await
        {
            self.failed("size", &error);
        }
    }

    async fn concatenate(&self, uploads: &Uploads, at: usize, unfinished: bool) {
        let joint = &self.joints.joints[at];
        let ids: Option<Vec<UploadId>> = {
            let known = self.joints.known();
            let ids = joint.list.iter().map(|piece| known.current.get(&(at, *piece)).copied());
            ids.collect()
        };
        let Some(ids) = ids else { return };
        let new = NewUpload::new(&joint.name);
        match uploads.concatenate(&self.caller, new, &ids, unfinished).await {
            Ok(upload) => {
                self.world.model().count("acknowledged: concatenation");
                assert!(upload.is_new());
                self.joints.known().finals.insert(upload.id());
                self.saw(&upload, None);
                self.read(uploads, &upload).await;
            }
            Err(error) => {
                if matches!(error.kind(), ErrorKind::Gone | ErrorKind::Failed) {
                    // They are sent anew.
                    self.joints.known().current.retain(|(joint, _), _| *joint != at);
                }
                self.failed("concatenate", &error);
            }
        }
    }

    async fn look_at_some(&self, uploads: &Uploads) {
        let Some(id) = self.some() else { return };
        let before = self.joints.known().ended.get(&id).copied();
        let status = match self.world.chance(30) {
            true => uploads.take_over(&self.caller, id).await,
            false => uploads.status(&self.caller, id).await,
        };
        if let Ok(upload) = status {
            self.world.model().count("looked");
            self.saw(&upload, before);
            self.read(uploads, &upload).await;
            self.judge(uploads, &upload).await;
        }
    }

    async fn give_up(&self, uploads: &Uploads, id: UploadId) {
        self.joints.known().wanted_gone.insert(id);
        let result = match self.world.chance(50) {
            true => uploads.abort(&self.caller, id).await,
            false => uploads.delete(&self.caller, id).await,
        };
        if let Err(error) = result {
            self.failed("give up", &error);
        }
    }

    async fn assemble(&self, uploads: &Uploads, id: UploadId) {
        let is_partial = self.joints.known().partials.contains_key(&id);
        match uploads.assemble(&self.caller, id, None).await {
            Ok(upload) => {
                assert!(!is_partial, "a partial upload was assembled by itself");
                assert_eq!(upload.state(), State::Assembled);
                self.read(uploads, &upload).await;
            }
            Err(error) => self.failed("assemble", &error),
        }
    }

    /// An answer to a request that began when `before` was known of the upload.
    fn saw(&self, upload: &Upload, before: Option<State>) {
        let (id, state) = (upload.id(), upload.state());
        self.world
            .model()
            .note(&format!("client {}: {id} is {state}", self.number));
        let gone = |earlier: State| earlier == State::Assembled && state == State::Deleted;
        assert!(
            before.is_none_or(|before| before == state || gone(before)),
            "I5: the upload was {before:?} and is {state}"
        );
        let mut known = self.joints.known();
        let wanted = known.wanted_gone.contains(&id);
        let is_partial = known.partials.contains_key(&id);
        assert!(
            wanted || state != State::Aborted && (is_partial || state != State::Deleted),
            "the upload is {state}, but nobody wanted that"
        );
        assert!(!is_partial || !matches!(state, State::Assembled | State::Assembling | State::Failed));
        if state.is_final() {
            let seen = known.ended.entry(id).or_insert(state);
            if gone(*seen) {
                *seen = state;
            }
        }
    }

    /// I3: absent or exact.
    async fn read(&self, uploads: &Uploads, upload: &Upload) {
        if upload.state() != State::Assembled {
            return;
        }
        let expected = self.joints.expected(upload);
        assert_eq!(
            upload.size(),
            Some(expected.len() as u64),
            "I3: the blob has another size"
        );
        let Ok((_, body)) = uploads.read(&self.caller, upload.id(), ByteRange::ALL).await else {
            return;
        };
        if let Ok(frames) = body.try_collect::<Vec<_>>().await {
            self.world.model().count("read");
            assert!(frames.concat() == expected, "I3: the blob is not what was joined");
        }
    }

    /// Whether there is a reason for what became of an upload.
    async fn judge(&self, uploads: &Uploads, upload: &Upload) {
        let is_partial = upload.concat() == Some(&Concat::Partial);
        match upload.state() {
            State::Failed => {
                let reason = upload.failure().unwrap_or_default();
                let partials: Vec<UploadId> = self.joints.known().partials.keys().copied().collect();
                let Some(named) = partials.iter().find(|id| reason.contains(&id.to_string())) else {
                    panic!("it failed without a partial upload that did: {reason}");
                };
                if let Ok(partial) = uploads.status(&self.caller, *named).await {
                    let state = partial.state();
                    assert!(
                        state.is_final(),
                        "I1: it failed, but the partial upload is {state}: {reason}"
                    );
                }
            }
            State::Deleted if is_partial => {
                let Ok(all) = uploads.list(&self.caller, Page::new(0, 1000)).await else {
                    return;
                };
                let consumer = |other: &&Upload| match other.concat() {
                    Some(Concat::Final(list)) => {
                        list.contains(&upload.id()) && matches!(other.state(), State::Assembled | State::Deleted)
                    }
                    _ => false,
                };
                assert!(
                    all.iter().any(|other| consumer(&other)),
                    "I1: a partial upload ended, but nothing that it was joined to is published"
                );
            }
            _ => {}
        }
    }

    fn failed(&self, what: &str, error: &Error) {
        self.world
            .model()
            .note(&format!("client {}: {what}: {error:?}", self.number));
        self.world.model().count(format!("refused: {what}, {:?}", error.kind()));
    }

    /// A body on a bad network.
    fn body(&self, bytes: &[u8]) -> Body {
        let frame = 1 + self.world.below(90) as usize;
        let is_cut = self.world.chance(15);
        let cut = match is_cut {
            true => self.world.below(bytes.len() as u64 + 1) as usize,
            false => bytes.len(),
        };
        let frames: Vec<_> = bytes[..cut]
            .chunks(frame)
            .map(|frame| Ok(Bytes::copy_from_slice(frame)))
            .collect();
        let pace = Duration::from_millis(self.world.below(30));
        let frames = stream::iter(frames).then(move |frame| async move {
            tokio::time::sleep(pace).await;
            frame
        });
        if is_cut {
            let error = Error::new(ErrorKind::Interrupted, "the network is gone");
            frames.chain(stream::iter([Err(error)])).boxed()
        } else {
            frames.boxed()
        }
    }
}

impl Joints {
    /// Sends a file and joins it, as an honest client does without faults: then it is assembled.
    pub(super) async fn finish(&self, world: &World) {
        let client = Client::new(9, world.clone(), self.clone());
        let uploads = world.engine().await;
        let at = world.below(self.joints.len() as u64) as usize;
        let joint = &self.joints[at];
        let early = world.chance(50);
        for piece in 0..joint.pieces.len() {
            client.create(&uploads, at, piece).await;
        }
        if early {
            client.concatenate(&uploads, at, true).await;
        }
        let ids: Vec<UploadId> = (0..joint.pieces.len())
            .map(|piece| self.known().current[&(at, piece)])
            .collect();
        for (id, piece) in ids.iter().zip(&joint.pieces) {
            loop {
                let status = uploads
                    .status(&client.caller, *id)
                    .await
                    .expect("a status without faults");
                if status.size() == Some(piece.size as u64) && status.is_complete() {
                    break;
                }
                client.append(&uploads, *id, true).await;
            }
        }
        if !early {
            client.concatenate(&uploads, at, false).await;
        }
        tokio::time::sleep(Duration::from_secs(if early { 100 } else { 0 })).await;
        let all = uploads
            .list(&client.caller, Page::new(0, 1000))
            .await
            .expect("a list without faults");
        let list: Vec<UploadId> = joint.list.iter().map(|piece| ids[*piece]).collect();
        let is_it = |upload: &&Upload| upload.concat() == Some(&Concat::Final(list.clone()));
        let found = all.iter().find(is_it).expect("what was acknowledged");
        assert_eq!(
            found.state(),
            State::Assembled,
            "I7: without faults nothing is joined: {:?}",
            found.record()
        );
        client.read(&uploads, found).await;
    }

    /// What has come to an end: with `at_rest` nothing is left to be done any more.
    pub(super) async fn check(&self, world: &World, at_rest: bool) {
        let client = Client::new(8, world.clone(), self.clone());
        let uploads = world.engine().await;
        let all = uploads
            .list(&client.caller, Page::new(0, 1000))
            .await
            .expect("a list without faults");
        let states: HashMap<UploadId, State> = all.iter().map(|upload| (upload.id(), upload.state())).collect();
        for upload in &all {
            let before = self.known().ended.get(&upload.id()).copied();
            client.saw(upload, before);
            client.read(&uploads, upload).await;
            client.judge(&uploads, upload).await;
            world.model().count(format!(
                "{} {}",
                if upload.concat() == Some(&Concat::Partial) {
                    "partial"
                } else {
                    "joint"
                },
                upload.state()
            ));
            if let (true, State::Assembled, Some(Concat::Final(list))) = (at_rest, upload.state(), upload.concat()) {
                for id in list {
                    let state = states.get(id).copied();
                    assert_ne!(
                        state,
                        Some(State::Open),
                        "I6: a partial upload outlives what it was joined to"
                    );
                }
            }
        }
    }
}
