//! The host's world: a catalogue of videos that survives kill -9 and power loss.
//!
//! A file of JSON lines, one for each change, the last one of a video counting. What is answered was synced.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tower_upload::UploadId;

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Catalogue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    /// Held while something is written.
    log: Mutex<Log>,
    videos: Mutex<BTreeMap<u64, Video>>,
    /// Held as long as the process lives.
    _lock: File,
}

/// What a client says of a video.
#[derive(Clone, Debug, Default)]
pub struct NewVideo {
    pub title: String,
    pub description: String,
    pub category: Option<i64>,
    pub thumbnail: Option<Thumbnail>,
}

#[derive(Clone, Debug)]
pub struct Thumbnail {
    /// Without a dot.
    pub extension: &'static str,
    pub bytes: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Video {
    pub id: u64,
    pub title: String,
    pub description: String,
    pub category: Option<i64>,
    /// Relative to the data directory.
    pub thumbnail: Option<String>,
    pub processing_status: Status,
    /// The blob's key, once there is one.
    pub video_path: Option<String>,
    pub owner: String,
    /// The uploads that were finished for it, the latest last. An event that is told again is known by them.
    pub uploads: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Pending,
    Uploaded,
}

impl Video {
    /// The upload that made the present file.
    pub fn upload(&self) -> Option<UploadId> {
        self.video_path.as_ref()?;
        self.uploads.last()?.parse().ok()
    }
}

impl Catalogue {
    /// Opens `catalogue.jsonl` in this directory, or creates it.
    pub async fn open(directory: &Path) -> io::Result<Self> {
        let directory = directory.to_owned();
        blocking(move || {
            let lock = private()
                .create(true)
                .truncate(false)
                .open(directory.join("catalogue.lock"))?;
            lock.try_lock()
                .map_err(|_| io::Error::other("another process has the catalogue of this data directory"))?;
            let path = directory.join("catalogue.jsonl");
            let videos = read(&path)?;
            // Written anew at every start: one line for each video, and no line that a crash cut.
            let log = Log::write_anew(&path, &directory, &videos)?;
            Ok(Self(Arc::new(Inner {
                directory,
                log: Mutex::new(log),
                videos: Mutex::new(videos),
                _lock: lock,
            })))
        })
        .await
    }

    /// The videos of one owner, oldest first.
    pub fn of(&self, owner: &str) -> Vec<Video> {
        self.videos()
            .values()
            .filter(|video| video.owner == owner)
            .cloned()
            .collect()
    }

    /// A video, if it is this owner's.
    pub fn find(&self, id: u64, owner: &str) -> Option<Video> {
        self.videos().get(&id).filter(|video| video.owner == owner).cloned()
    }

    pub fn owner(&self, id: u64) -> Option<String> {
        self.videos().get(&id).map(|video| video.owner.clone())
    }

    /// Whether `id`, as a client wrote it, is a video of this owner.
    pub fn is_owned(&self, id: &str, owner: &str) -> bool {
        parse(id).is_some_and(|id| self.find(id, owner).is_some())
    }

    pub async fn create(&self, owner: &str, new: NewVideo) -> io::Result<Video> {
        let owner = owner.to_owned();
        self.change(move |catalogue| {
            let id = catalogue.videos().last_key_value().map_or(0, |(id, _)| *id) + 1;
            let thumbnail = new
                .thumbnail
                .as_ref()
                .map(|thumbnail| catalogue.0.keep_thumbnail(id, thumbnail));
            Ok(Some(Video {
                id,
                title: new.title,
                description: new.description,
                category: new.category,
                thumbnail: thumbnail.transpose()?,
                processing_status: Status::Pending,
                video_path: None,
                owner,
                uploads: Vec::new(),
            }))
        })
        .await?
        .ok_or_else(|| io::Error::other("no video was made"))
    }

    /// A video's file is there. Told again, it changes nothing.
    pub async fn assembled(&self, id: &str, upload: UploadId, key: &str) -> io::Result<()> {
        let (id, upload, key) = (parse(id), upload.to_string(), key.to_owned());
        let set = move |mut video: Video| {
            if video.uploads.contains(&upload) {
                return None;
            }
            video.processing_status = Status::Uploaded;
            video.video_path = Some(key);
            video.uploads.push(upload);
            Some(video)
        };
        self.change(move |catalogue| Ok(catalogue.get(id).and_then(set)))
            .await
            .map(drop)
    }

    /// A video's file is gone.
    pub async fn deleted(&self, id: &str, upload: UploadId) -> io::Result<()> {
        let (id, upload) = (parse(id), upload.to_string());
        let clear = move |mut video: Video| {
            if video.video_path.is_none() || video.uploads.last() != Some(&upload) {
                return None;
            }
            video.processing_status = Status::Pending;
            video.video_path = None;
            Some(video)
        };
        self.change(move |catalogue| Ok(catalogue.get(id).and_then(clear)))
            .await
            .map(drop)
    }

    /// Makes a change durable, then visible. It comes to its end also when nobody waits for it any more.
    async fn change<F>(&self, change: F) -> io::Result<Option<Video>>
    where
        F: FnOnce(&Self) -> io::Result<Option<Video>> + Send + 'static,
    {
        let catalogue = self.clone();
        blocking(move || {
            let mut log = catalogue.0.log.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(video) = change(&catalogue)? else {
                return Ok(None);
            };
            log.append(&video)?;
            catalogue.videos().insert(video.id, video.clone());
            Ok(Some(video))
        })
        .await
    }

    fn get(&self, id: Option<u64>) -> Option<Video> {
        self.videos().get(&id?).cloned()
    }

    fn videos(&self) -> MutexGuard<'_, BTreeMap<u64, Video>> {
        self.0.videos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Durable before any video speaks of it.
    fn keep_thumbnail(&self, id: u64, thumbnail: &Thumbnail) -> io::Result<String> {
        let directory = self.directory.join("thumbnails");
        super::stores::create_private(&directory)?;
        let name = format!("{id}.{}", thumbnail.extension);
        replace(&directory, &name, &thumbnail.bytes)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(format!("thumbnails/{name}"))
    }
}

#[derive(Debug)]
struct Log {
    file: File,
    len: u64,
    broken: bool,
}

impl Log {
    fn write_anew(path: &Path, directory: &Path, videos: &BTreeMap<u64, Video>) -> io::Result<Self> {
        let mut text = Vec::new();
        for video in videos.values() {
            text.extend_from_slice(&line(video)?);
        }
        replace(directory, "catalogue.jsonl", &text)?;
        let file = OpenOptions::new().append(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            file,
            len,
            broken: false,
        })
    }

    fn append(&mut self, video: &Video) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the catalogue's disk failed; restart the server"));
        }
        let line = line(video)?;
        if let Err(error) = self.file.write_all(&line) {
            self.broken = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        self.file.sync_data().inspect_err(|_| self.broken = true)?;
        self.len += line.len() as u64;
        Ok(())
    }
}

fn line(video: &Video) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(video)?;
    line.push(b'\n');
    Ok(line)
}

fn read(path: &Path) -> io::Result<BTreeMap<u64, Video>> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let mut videos = BTreeMap::new();
    // What follows the last line break was cut by a crash and never acknowledged.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for line in text[..whole]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let video: Video = serde_json::from_slice(line)?;
        videos.insert(video.id, video);
    }
    Ok(videos)
}

/// Makes a file with these bytes, durably: it is the old one or the new one.
fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = private().create(true).truncate(true).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// One way of writing each id.
fn parse(id: &str) -> Option<u64> {
    id.parse().ok().filter(|number: &u64| number.to_string() == id)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
