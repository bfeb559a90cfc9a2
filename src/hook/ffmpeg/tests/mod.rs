//! Real runs of ffmpeg over small sources that it made itself, and runs of programs that misbehave in its place.

mod fake;
mod hostile;
mod media;
mod probe;
mod stored;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::error::{Error, Result};

/// Keeps what it is given, in the order it came.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) state: Mutex<State>,
    /// Fails from this call of `put` on.
    pub(super) fails_at: Option<usize>,
    /// Tells of every call, and may hold it up.
    pub(super) slow: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) names: Vec<String>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) finished: Vec<Rendition>,
}

#[async_trait]
impl HlsSink for Shelf {
    async fn put(&self, file: OutputFile<'_>) -> Result<()> {
        if let Some(slow) = self.slow {
            tokio::time::sleep(slow).await;
        }
        let bytes = fs::read(file.path)?;
        assert_eq!(bytes.len() as u64, file.size);
        let mut state = self.state.lock().unwrap();
        if self.fails_at.is_some_and(|at| state.names.len() >= at) {
            return Err(Error::unavailable("the shelf is full"));
        }
        if file.name == MASTER_PLAYLIST {
            listed_is_whole(std::str::from_utf8(&bytes).unwrap(), &state);
        }
        state.names.push(file.name.to_owned());
        state.files.insert(file.name.to_owned(), bytes);
        Ok(())
    }

    async fn finished(&self, rendition: &Rendition) -> Result<()> {
        self.state.lock().unwrap().finished.push(rendition.clone());
        Ok(())
    }

    async fn renditions(&self) -> Result<Vec<Rendition>> {
        Ok(self.state.lock().unwrap().finished.clone())
    }
}

/// Everything that a master playlist lists is there before it, and so is all that those playlists list.
fn listed_is_whole(master: &str, state: &State) {
    for playlist in master.lines().filter(|line| !line.starts_with('#')) {
        let text = state
            .files
            .get(playlist)
            .unwrap_or_else(|| panic!("{playlist} is listed, and not there"));
        let directory = playlist.split_once('/').unwrap().0;
        let text = std::str::from_utf8(text).unwrap();
        assert!(text.ends_with("#EXT-X-ENDLIST\n"));
        let map = text
            .lines()
            .filter_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\"")?.strip_suffix('"'));
        for segment in text.lines().filter(|line| !line.starts_with('#')).chain(map) {
            assert!(
                state.files.contains_key(&format!("{directory}/{segment}")),
                "{segment} is missing"
            );
        }
        let name = state.finished.iter().any(|rendition| rendition.name == directory);
        assert!(name, "{directory} is listed and not finished");
    }
}

impl Shelf {
    pub(super) fn state(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    /// Writes all files to a directory, for a player.
    pub(super) fn lay_out(&self, directory: &Path) {
        for (name, bytes) in self.state().files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

/// A directory with a `work` and what a test needs.
pub(super) struct Bench {
    pub(super) dir: TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn options(&self) -> TranscodeOptions {
        TranscodeOptions::new(self.path("work"))
            .with_preset("ultrafast")
            .with_threads(1)
    }

    /// Makes a source by the arguments behind `ffmpeg -v error -y`.
    pub(super) fn make(&self, name: &str, args: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y"])
            .args(args.split_whitespace())
            .arg(&path)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        path
    }

    /// No run left anything in the working directory.
    pub(super) fn nothing_left(&self) {
        for home in fs::read_dir(self.path("work")).unwrap() {
            let left: Vec<_> = fs::read_dir(home.unwrap().path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

/// Whether ffmpeg is there; where all tests must run it has to be.
pub(super) fn ffmpeg() -> bool {
    let there = ["ffmpeg", "ffprobe"]
        .iter()
        .all(|name| contain::find(Path::new(name)).is_some());
    assert!(
        there || std::env::var_os("CI").is_none(),
        "ffmpeg is missing: apt install ffmpeg"
    );
    if !there {
        eprintln!("skipped: there is no ffmpeg");
    }
    there
}

pub(super) async fn run(transcoder: &Transcoder, source: &Path, shelf: &Arc<Shelf>) -> Result<Outcome, TranscodeError> {
    let sink: Arc<dyn HlsSink> = Arc::<Shelf>::clone(shelf);
    transcoder
        .run(Job::new(MediaSource::File(source.to_owned()), sink))
        .await
}

/// Numbers of the processes in whose environment or arguments `word` stands.
pub(super) fn processes_with(word: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let has = |file: &str| {
            fs::read(entry.path().join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(word))
        };
        if pid != std::process::id() && (has("cmdline") || has("environ")) {
            found.push(pid);
        }
    }
    found
}
