//! Private directories, which go in every case.
//!
//! ```text
//! work_dir/<16 hex>/        one per transcoder, locked as long as it lives: a lock that is free says that its owner is gone
//! work_dir/<16 hex>/<n>/    one per run: the source (or a link to it) and `out/`
//! ```

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::StreamExt;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::{io::AsyncWriteExt, task::spawn_blocking};

use super::MediaSource;

/// The directory of one transcoder.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    runs: AtomicU64,
    /// Holds the lock.
    _lock: File,
}

impl Home {
    /// Makes a directory beneath `root` and removes those whose owner is gone.
    pub(super) async fn open(root: PathBuf) -> io::Result<Self> {
        spawn_blocking(move || {
            let root = std::path::absolute(root)?;
            DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
            sweep(&root)?;
            loop {
                let mut name = [0; 8];
                getrandom::fill(&mut name)?;
                let path = root.join(format!("{:016x}", u64::from_le_bytes(name)));
                DirBuilder::new().mode(0o700).create(&path)?;
                // Another process that starts now may take the directory for a stale one until it is locked.
                if let Some(lock) = lock(&path)?
                    && is_at(&lock, &path)
                {
                    return Ok(Self {
                        path,
                        runs: AtomicU64::new(0),
                        _lock: lock,
                    });
                }
            }
        })
        .await?
    }

    /// A private directory for one run, with an `out` in it.
    pub(super) async fn run_dir(&self) -> io::Result<RunDir> {
        let path = self.path.join(self.runs.fetch_add(1, Ordering::Relaxed).to_string());
        spawn_blocking(move || {
            DirBuilder::new().mode(0o700).create(&path)?;
            let dir = RunDir { path };
            dir.clear_output()?;
            Ok(dir)
        })
        .await?
    }
}

impl Home {
    /// Removes it. What begins later fails.
    pub(super) fn remove(&self) {
        remove(&self.path);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The directory of one run, removed when it is dropped.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
}

impl RunDir {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn source(&self) -> PathBuf {
        self.path.join("source")
    }

    /// Puts the source, or a link to it, where ffmpeg works.
    pub(super) async fn place(&self, source: MediaSource) -> io::Result<()> {
        let at = self.source();
        match source {
            MediaSource::File(path) => {
                let path = std::path::absolute(path)?;
                spawn_blocking(move || symlink(path, at)).await?
            }
            MediaSource::Bytes(mut bytes) => {
                let mut file = tokio::fs::File::create(at).await?;
                while let Some(frame) = bytes.next().await {
                    file.write_all(&frame.map_err(io::Error::other)?).await?;
                }
                file.flush().await
            }
        }
    }

    pub(super) fn output(&self) -> PathBuf {
        self.path.join("out")
    }

    /// Makes `out` empty.
    pub(super) fn clear_output(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.output()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(self.output())
    }

    /// Removes it, off the runtime's threads.
    pub(super) async fn remove(self) {
        let _panicked = spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Something that was killed, and is not dead yet, may put a file there at the same time.
fn remove(directory: &Path) {
    for _ in 0..20 {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            _ => return,
        }
    }
}

/// Removes directories of transcoders that are gone. What does not look like one is left alone.
fn sweep(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.len() == 16 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit);
        if !ours || !entry.file_type()?.is_dir() {
            continue;
        }
        match lock(&entry.path()) {
            Ok(Some(_lock)) => fs::remove_dir_all(entry.path())?,
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> io::Result<Option<File>> {
    let file = File::open(directory)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(found)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_directory_of_one_that_is_gone_is_removed_and_of_one_that_lives_is_not() {
        let root = tempfile::tempdir().unwrap();
        let stale = root.path().join("0123456789abcdef");
        fs::create_dir_all(stale.join("0/out")).unwrap();
        fs::write(stale.join("0/out/00000.m4s"), "half").unwrap();
        fs::create_dir(root.path().join("somebody-elses")).unwrap();
        let first = Home::open(root.path().to_owned()).await.unwrap();
        let run = first.run_dir().await.unwrap();
        assert!(!stale.exists());
        assert_eq!(fs::metadata(run.path()).unwrap().mode() & 0o777, 0o700);
        let second = Home::open(root.path().to_owned()).await.unwrap();
        assert!(run.path().exists());
        drop((run, first, second));
        let left: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["somebody-elses"]);
    }
}
