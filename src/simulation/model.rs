//! What must hold, told by what clients saw: a small reference for the invariants.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::Coverage;
use crate::{EventKind, State, StoredChunk, Upload, UploadId};

/// A file that clients send, in two variants of the same shape.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) size: usize,
    /// 0 for appends.
    pub(super) chunk: usize,
    /// Appends whose end is not told beforehand.
    pub(super) deferred: bool,
}

impl File {
    pub(super) fn bytes(&self, variant: u8) -> Vec<u8> {
        let salt = self
            .number
            .wrapping_mul(0x9e37)
            .wrapping_add(u64::from(variant).wrapping_mul(0x51_7c_c1));
        (0..self.size as u64)
            .map(|at| {
                let mixed = (at ^ salt).wrapping_mul(0xff51_afd7_ed55_8ccd);
                // No byte of one variant is that of the other, so that a mixture shows.
                ((mixed >> 33) as u8 & 0xfe) | (variant & 1)
            })
            .collect()
    }

    pub(super) fn chunks(&self) -> u32 {
        self.size.div_ceil(self.chunk).max(1) as u32
    }

    pub(super) fn range(&self, index: u32) -> std::ops::Range<usize> {
        let start = (index as usize * self.chunk).min(self.size);
        start..(start + self.chunk).min(self.size)
    }
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) file: Option<File>,
    /// Which variant of a chunk was acknowledged.
    chunks: BTreeMap<u32, u8>,
    /// Chunks that a status told of.
    told: BTreeSet<u32>,
    /// Ranges of an append that were acknowledged.
    appended: Vec<(usize, usize, u8)>,
    offset: u64,
    ended: Option<State>,
    was_complete: bool,
    /// When a commit certainly had not happened yet, but was to come.
    active: Option<Instant>,
    pub(super) wanted_gone: bool,
    assembled: bool,
}

/// What is known of an upload at one moment.
#[derive(Debug, Default)]
pub(super) struct Known {
    chunks: BTreeSet<u32>,
    offset: u64,
    ended: Option<State>,
    /// How many chunks were acknowledged.
    count: usize,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) uploads: HashMap<UploadId, Seen>,
    /// What was tried before, by file and chunk: only the first try is sure to be the commit.
    pub(super) tried: BTreeSet<(u64, u32)>,
    pub(super) coverage: Coverage,
    events: BTreeMap<(String, u32), (EventKind, Instant)>,
    order: HashMap<String, Vec<u32>>,
    expire_after: Duration,
    told_aloud: bool,
    began: Instant,
}

impl Model {
    pub(super) fn new(expire_after: Duration) -> Self {
        Self {
            expire_after,
            uploads: HashMap::new(),
            tried: BTreeSet::new(),
            coverage: Coverage::new(),
            events: BTreeMap::new(),
            order: HashMap::new(),
            told_aloud: super::from_env("SIMULATION_SEED").is_some() || super::from_env("SIMULATION_JOINT").is_some(),
            began: Instant::now(),
        }
    }

    pub(super) fn count(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(&what);
        *self.coverage.entry(what).or_default() += 1;
    }

    /// Whether a store failed or the machine died.
    pub(super) fn has_seen_fault(&self) -> bool {
        self.coverage
            .keys()
            .any(|what| what.starts_with("fault") || what.starts_with("crash"))
    }

    /// Tells the story of a history that is repeated.
    pub(super) fn note(&self, what: &str) {
        if self.told_aloud {
            println!("{:>9.3} {what}", self.began.elapsed().as_secs_f64());
        }
    }

    pub(super) fn upload(&mut self, id: UploadId, file: &File) -> &mut Seen {
        let seen = self.uploads.entry(id).or_default();
        seen.file.get_or_insert_with(|| file.clone());
        seen
    }

    /// A chunk was acknowledged to a request that began at `began`, when `ended` was known of the upload.
    pub(super) fn acknowledged(
        &mut self,
        file: &File,
        variant: u8,
        stored: &StoredChunk,
        began: Instant,
        first_try: bool,
        known: &Known,
    ) {
        let seen = self.upload(stored.upload_id, file);
        assert!(
            known.ended.is_none() || seen.assembled,
            "I5: an ended upload acknowledged chunk {}",
            stored.index
        );
        let before = seen.chunks.insert(stored.index, variant);
        assert!(
            before.is_none_or(|before| before == variant),
            "I4: chunk {} was acknowledged with two contents",
            stored.index
        );
        assert!(
            stored.stored as usize >= known.count,
            "I1: fewer chunks are counted than were acknowledged"
        );
        assert_eq!(stored.is_complete, stored.stored == stored.total);
        seen.was_complete |= stored.is_complete;
        if first_try {
            seen.active = seen.active.max(Some(began));
        }
    }

    pub(super) fn appended(&mut self, id: UploadId, file: &File, from: u64, to: u64, variant: u8) {
        let seen = self.upload(id, file);
        seen.appended.push((from as usize, to as usize, variant));
        seen.offset = seen.offset.max(to);
    }

    pub(super) fn ended(&self, id: UploadId) -> bool {
        self.uploads.get(&id).is_some_and(|seen| seen.ended.is_some())
    }

    pub(super) fn was_complete(&self, id: UploadId) -> bool {
        self.uploads.get(&id).is_some_and(|seen| seen.was_complete)
    }

    /// A snapshot that a request got which began after all that the model knows had happened.
    pub(super) fn observe(&mut self, upload: &Upload) {
        self.count(format!("state: {}", upload.state()));
        let Some(seen) = self.uploads.get_mut(&upload.id()) else {
            return;
        };
        let state = upload.state();
        if let Some(ended) = seen.ended {
            let allowed = state == ended || (ended == State::Assembled && state == State::Deleted);
            assert!(allowed, "I5: the upload was {ended} and is {state}");
        }
        if state.is_final() {
            seen.ended = Some(state);
        }
        assert!(
            state != State::Failed,
            "a file of honest bytes failed: {:?}",
            upload.failure()
        );
        assert!(
            seen.wanted_gone || !matches!(state, State::Aborted | State::Deleted),
            "the upload is {state}, but nobody wanted that"
        );
        if !state.is_live() {
            return;
        }
        if upload.plan().chunks.is_some() {
            let received: BTreeSet<u32> = upload
                .received()
                .iter()
                .flat_map(|(start, end)| *start..=*end)
                .collect();
            for acknowledged in seen.chunks.keys() {
                assert!(
                    received.contains(acknowledged),
                    "I1: acknowledged chunk {acknowledged} is missing"
                );
            }
            for told in &seen.told {
                assert!(received.contains(told), "I2: chunk {told} was reported and is missing");
            }
            let prefix = (0..).take_while(|index| received.contains(index)).count() as u64;
            let chunk = upload.plan().chunk_size.unwrap_or(0);
            assert!(
                chunk == 0 || upload.offset() <= prefix * chunk,
                "I2: the offset reaches over a gap"
            );
            seen.told = received;
        } else {
            assert!(
                upload.offset() >= seen.offset,
                "the offset went from {} to {}",
                seen.offset,
                upload.offset()
            );
            seen.offset = upload.offset();
        }
        seen.assembled |= state == State::Assembled;
    }

    /// What a request that begins now must find.
    pub(super) fn known(&self, id: UploadId) -> Known {
        let Some(seen) = self.uploads.get(&id) else {
            return Known::default();
        };
        let chunks = seen.chunks.keys().chain(&seen.told).copied().collect();
        Known {
            chunks,
            offset: seen.offset,
            ended: seen.ended,
            count: seen.chunks.len(),
        }
    }

    /// Compares a status with what was known when it was asked for.
    pub(super) fn compare(&mut self, known: &Known, upload: &Upload) {
        if let Some(ended) = known.ended {
            let allowed = upload.state() == ended || (ended == State::Assembled && upload.state() == State::Deleted);
            assert!(allowed, "I5: the upload was {ended} and is {}", upload.state());
        }
        if !upload.state().is_live() {
            return;
        }
        let received: BTreeSet<u32> = upload
            .received()
            .iter()
            .flat_map(|(start, end)| *start..=*end)
            .collect();
        if upload.plan().chunks.is_some() {
            let missing: Vec<_> = known.chunks.difference(&received).collect();
            assert!(
                missing.is_empty(),
                "I1, I2: chunks {missing:?} were stored and are missing"
            );
        } else {
            assert!(
                upload.offset() >= known.offset,
                "the offset went from {} to {}",
                known.offset,
                upload.offset()
            );
        }
        if let Some(seen) = self.uploads.get_mut(&upload.id()) {
            seen.told.extend(received);
            if upload.plan().chunks.is_none() {
                seen.offset = seen.offset.max(upload.offset());
            }
        }
    }

    /// The bytes of an assembled upload.
    pub(super) fn check_bytes(&mut self, id: UploadId, bytes: &[u8]) {
        let Some(seen) = self.uploads.get(&id) else { return };
        let Some(file) = &seen.file else { return };
        if file.deferred {
            let least = seen.appended.iter().map(|(_, to, _)| *to).max().unwrap_or(0);
            assert!(
                (least..=file.size).contains(&bytes.len()),
                "I3: {} bytes of a blob, {least} or more were sent",
                bytes.len()
            );
        } else {
            assert_eq!(bytes.len(), file.size, "I3: the blob has another size");
        }
        let variants = [file.bytes(0), file.bytes(1)];
        if file.chunk > 0 {
            for index in 0..file.chunks() {
                let range = file.range(index);
                let is = |variant: u8| bytes[range.clone()] == variants[usize::from(variant)][range.clone()];
                match seen.chunks.get(&index) {
                    Some(variant) => assert!(is(*variant), "I3: chunk {index} has not the acknowledged bytes"),
                    None => assert!(is(0) || is(1), "I3: chunk {index} is a mixture"),
                }
            }
        } else {
            for (at, byte) in bytes.iter().enumerate() {
                assert!(
                    variants.iter().any(|variant| variant[at] == *byte),
                    "I3: byte {at} was never sent"
                );
            }
            for (from, to, variant) in &seen.appended {
                let expected = &variants[usize::from(*variant)][*from..*to];
                assert!(
                    bytes[*from..*to] == *expected,
                    "I3: {from}..{to} has not the acknowledged bytes"
                );
            }
        }
    }

    pub(super) fn event(&mut self, event: &crate::Event, heard: bool) {
        self.count(format!(
            "event: {}{}",
            event.kind(),
            if heard { "" } else { ", not heard" }
        ));
        let upload = event.upload_id().to_string();
        let number = event.id.number();
        let before = self
            .events
            .insert((upload.clone(), number), (event.kind(), Instant::now()));
        assert!(
            before.is_none_or(|(kind, _)| kind == event.kind()),
            "event {} changed its kind",
            event.id
        );
        let order = self.order.entry(upload).or_default();
        if !order.contains(&number) {
            assert!(
                order.iter().all(|earlier| *earlier < number),
                "event {} was told too late",
                event.id
            );
            order.push(number);
        }
        if event.kind() == EventKind::Expired
            && let Some(active) = self.uploads.get(&event.upload_id()).and_then(|seen| seen.active)
        {
            let idle = active.elapsed();
            let least = self.expire_after - self.expire_after / 16 - Duration::from_secs(2);
            assert!(idle >= least, "I1: an upload expired after {idle:?} of idleness");
        }
    }

    /// At the end: the events of what became of an upload.
    pub(super) fn check_events(&self, upload: &Upload, has_worker: bool) {
        let id = upload.id().to_string();
        let kinds: Vec<EventKind> = self
            .events
            .range((id.clone(), 0)..=(id.clone(), u32::MAX))
            .map(|(_, (kind, _))| *kind)
            .collect();
        let expected: &[EventKind] = match upload.state() {
            State::Assembled if has_worker => &[EventKind::Created, EventKind::Assembled, EventKind::HookFinished],
            State::Assembled => &[EventKind::Created, EventKind::Assembled],
            State::Aborted => &[EventKind::Created, EventKind::Aborted],
            State::Expired => &[EventKind::Created, EventKind::Expired],
            _ => return,
        };
        assert_eq!(kinds, expected, "events of {} ({})", id, upload.state());
    }
}
