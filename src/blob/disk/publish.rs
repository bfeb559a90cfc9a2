//! Making the blob of its parts, and clearing away what is left.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use super::{
    claims::{Sealed, lock},
    fs::{Fs, Open, Stat},
    place::{Attempt, Place, blob, folder, partial},
    store::Shared,
};
use crate::{
    blob::Completed,
    error::{Error, Result},
    planted::{Bug, planted},
    upload::{Blob, Key, Part, UploadId},
};

/// How many directories are remembered to be durable.
const FOLDERS: usize = 4096;

/// What became of the file of an upload before it gets its name.
enum Prepared {
    Ready,
    Answered(Completed),
}

/// A part that was kept aside and goes to `offset`.
struct Aside {
    number: u32,
    offset: u64,
    len: u64,
    path: String,
}

impl<F: Fs> Shared<F> {
    pub(super) async fn complete(self: Arc<Self>, id: UploadId, key: &Key, parts: &[Part]) -> Result<Completed> {
        let arranged = Arranged::of(id, parts)?;
        let total = arranged.total;
        let sealed = Arc::new(self.registry.entry(id).seal().await?);

        // Each job holds the gate, so that a dropped request lets nobody in before the job's end.
        let (shared, gate, to) = (Arc::clone(&self), Arc::clone(&sealed), key.clone());
        let has_folders = lock(&self.folders).durable.contains(&folder(&blob(key)));
        let job = async move {
            match shared.prepare(id, &gate, &to, arranged).await? {
                Prepared::Ready if has_folders => Ok(Prepared::Answered(shared.publish(id, &gate, &to, total).await?)),
                prepared => Ok(prepared),
            }
        };
        if let Prepared::Answered(answer) = self.fs.run(job).await? {
            return Ok(answer);
        }
        if !self.make_folders(&folder(&blob(key)), Arc::clone(&sealed)).await? {
            return Ok(Completed::KeyTaken);
        }
        let (shared, gate, to) = (Arc::clone(&self), sealed, key.clone());
        self.fs
            .run(async move { shared.publish(id, &gate, &to, total).await })
            .await
    }

    /// Brings the file of the upload to the length and the bytes of the blob, durably.
    async fn prepare(&self, id: UploadId, sealed: &Sealed, key: &Key, parts: Arranged) -> Result<Prepared> {
        if planted(Bug::CompleteTrustsKey)
            && let Some((_, stat)) = self.published(key).await?
        {
            return Ok(Prepared::Answered(Completed::Done(Blob::new(stat.len, None))));
        }
        let lost = |numbers| {
            sealed.unseal();
            Ok(Prepared::Answered(Completed::PartsLost(numbers)))
        };
        let file = match self.fs.open(partial(id), Open::Write).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return lost(parts.numbers),
            result => result?,
        };
        let stat = self.fs.stat(&file).await?;
        if stat.links > 1 {
            // It was published: it is complete and never changes.
            return if stat.len == parts.total && parts.unreadable.is_empty() {
                Ok(Prepared::Ready)
            } else {
                Err(Error::internal("The upload was already published with other parts"))
            };
        }

        let mut missing = parts.unreadable;
        for (number, end, attempt) in parts.in_place {
            if end > stat.len || self.space.is_replaced(id, number, attempt) {
                missing.push(number);
            }
        }
        let mut asides = Vec::with_capacity(parts.aside.len());
        for aside in parts.aside {
            match self.fs.open(aside.path.clone(), Open::Read).await {
                Ok(from) if self.fs.stat(&from).await?.len == aside.len => asides.push(aside),
                Ok(_) => missing.push(aside.number),
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(aside.number),
                Err(error) => return Err(error.into()),
            }
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            return lost(missing);
        }

        let mut changed = !asides.is_empty();
        for aside in asides {
            let from = self.fs.open(aside.path, Open::Read).await?;
            self.fs.copy(&from, 0, &file, aside.offset, aside.len).await?;
            self.copied.fetch_add(aside.len, Ordering::Relaxed);
        }
        // Of an upload from before a restart nobody knows whether its length, right as it is, is durable. The next sync must have a
        // change of its own to fail for.
        if sealed.resize_failed() || !self.space.began(id) {
            sealed.set_resize_failed(true);
            self.fs.set_len(&file, parts.total.saturating_add(1)).await?;
            changed = true;
        }
        if self.fs.stat(&file).await?.len != parts.total {
            // Until it is synced: it may be done although it is reported as failed.
            sealed.set_resize_failed(true);
            // What abandoned attempts wrote behind the end goes.
            self.fs.set_len(&file, parts.total).await?;
            changed = true;
        }
        // Otherwise every part was synced, and nothing changed since.
        if self.sync && changed {
            let result = self.fs.sync(&file).await;
            sealed.set_resize_failed(result.is_err());
            result?;
        }
        Ok(Prepared::Ready)
    }

    /// Makes the directories for a key, durably. `false` if something else lies where one must be.
    /// `held` is kept until they are made.
    pub(super) async fn make_folders(self: &Arc<Self>, path: &str, held: impl Send + Sync + 'static) -> Result<bool> {
        if lock(&self.folders).durable.contains(path) {
            return Ok(true);
        }
        let alone = Arc::clone(&self.making_folders).lock_owned().await;
        let (shared, path) = (Arc::clone(self), path.to_owned());
        let job = async move {
            let _held = (alone, held);
            let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
            for end in ends.filter(|end| *end > "blobs".len()) {
                if !shared.make_folder(&path[..end]).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        self.fs.run(job).await
    }

    async fn make_folder(&self, path: &str) -> Result<bool> {
        if lock(&self.folders).durable.contains(path) {
            return Ok(true);
        }
        if lock(&self.folders).doubtful.contains(path) {
            return Err(Error::unavailable(
                "A directory of the store could not be made durable; check the disk, then restart the server",
            ));
        }
        let above = match self.fs.open(folder(path), Open::Directory).await {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
            result => result?,
        };
        // An empty one is made anew: its name may be what an earlier process saw a sync fail for. One with something in it
        // was durable before that came into it.
        match self.fs.rmdir(path.to_owned()).await {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(error.into());
            }
            _ => {}
        }
        let is_new = match self.fs.mkdir(path.to_owned()).await {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error.into()),
        };
        if let Err(error) = self.sync_directory(&above).await {
            // Made anew, it is a change that the next sync can fail for. Else no sync proves anything any more.
            if !is_new || self.fs.rmdir(path.to_owned()).await.is_err() {
                lock(&self.folders).doubtful.insert(path.to_owned());
            }
            return Err(error.into());
        }
        let mut folders = lock(&self.folders);
        if folders.durable.len() >= FOLDERS {
            folders.durable.clear();
        }
        folders.durable.insert(path.to_owned());
        Ok(true)
    }

    /// Gives the file its name.
    async fn publish(&self, id: UploadId, sealed: &Sealed, key: &Key, total: u64) -> Result<Completed> {
        let path = blob(key);
        let done = Completed::Done(Blob::new(total, None));
        let directory = match self.fs.open(folder(&path), Open::Directory).await {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Completed::KeyTaken),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lock(&self.folders).durable.clear();
                return Err(Error::unavailable(
                    "Somebody removed a directory of the store; try again",
                ));
            }
            result => result?,
        };
        // Twice is enough: the gate is held, and the name is nobody else's once it was ours.
        for _ in 0..3 {
            match self.fs.link(partial(id), path.clone()).await {
                Ok(()) => {
                    self.sync_directory(&directory).await?;
                    sealed.set_published(key);
                    return Ok(done);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            let ours = self.fs.open(partial(id), Open::Read).await?;
            let ours = self.fs.stat(&ours).await?.identity;
            match self.published(key).await? {
                None => {}
                Some((_, theirs)) if theirs.identity != ours => return Ok(Completed::KeyTaken),
                Some(_) if sealed.is_published(key) => return Ok(done),
                // A try that died, or whose sync failed, made it. Nobody was told, so it is made anew: another
                // sync of the same change would prove nothing.
                Some(_) => self.fs.unlink(path.clone()).await?,
            }
        }
        Err(Error::unavailable(
            "The name of the blob changes all the time; try again",
        ))
    }

    /// Whatever lies under a key.
    pub(super) async fn published(&self, key: &Key) -> Result<Option<(Option<F::File>, Stat)>> {
        let file = match self.fs.open(blob(key), Open::Read).await {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            // A directory, or a link that somebody put there.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory || error.raw_os_error() == Some(libc::ELOOP) => {
                let nothing = Stat {
                    identity: (u64::MAX, u64::MAX),
                    links: 0,
                    len: 0,
                };
                return Ok(Some((None, nothing)));
            }
            Err(error) => return Err(error.into()),
        };
        let stat = self.fs.stat(&file).await?;
        Ok(Some((Some(file), stat)))
    }

    pub(super) async fn discard(self: Arc<Self>, id: UploadId) -> Result<()> {
        let sealed = self.registry.entry(id).seal_for_good().await;
        let shared = Arc::clone(&self);
        let job = async move {
            let mut paths = vec![partial(id)];
            if shared.space.may_have_side_files(id) {
                let side_files = shared.fs.list("partial".into(), format!("{id}.")).await?;
                paths.extend(side_files.into_iter().map(|(name, _)| format!("partial/{name}")));
            }
            // Not synced: a name that a power loss brings back is found by `begun` and discarded again.
            for path in paths.into_iter().rev() {
                match shared.fs.unlink(path).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            shared.space.release(id);
            shared.registry.forget(id);
            drop(sealed);
            Ok(())
        };
        self.fs.run(job).await
    }
}

/// The parts by where they lie.
struct Arranged {
    total: u64,
    numbers: Vec<u32>,
    /// Number, end and attempt.
    in_place: Vec<(u32, u64, Attempt)>,
    aside: Vec<Aside>,
    /// Their receipts are not of this upload, or of another place.
    unreadable: Vec<u32>,
}

impl Arranged {
    fn of(id: UploadId, parts: &[Part]) -> Result<Self> {
        let mut arranged = Self {
            total: 0,
            numbers: parts.iter().map(|part| part.number).collect(),
            in_place: Vec::new(),
            aside: Vec::new(),
            unreadable: Vec::new(),
        };
        if !arranged.numbers.is_sorted_by(|a, b| a < b) {
            return Err(Error::internal("The parts of a blob must be given in order"));
        }
        for part in parts {
            let offset = arranged.total;
            let end = (offset.checked_add(part.len)).ok_or_else(|| Error::internal("The parts are too long"))?;
            match Place::of(part) {
                // A part without bytes is wherever it is asked for.
                Some(Place::InPlace(..)) if part.len == 0 => {}
                Some(Place::InPlace(at, attempt)) if at == offset => {
                    arranged.in_place.push((part.number, end, attempt))
                }
                Some(place @ Place::Aside(_)) => arranged.aside.push(Aside {
                    number: part.number,
                    offset,
                    len: part.len,
                    path: place.path(id),
                }),
                _ => arranged.unreadable.push(part.number),
            }
            arranged.total = end;
        }
        Ok(arranged)
    }
}
