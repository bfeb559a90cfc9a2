//! [`RealFs`]: the machine's own file system.

use std::{
    fs::{DirBuilder, File, Metadata},
    future::Future,
    io::{self, IoSlice, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::{
    beneath::{PARENT, beneath},
    fs::{Fs, Open, Stat, split},
    options::Writes,
    sys,
};
use crate::{
    detour::Detour,
    error::{Error, Result},
    upload::Timestamp,
};

/// The machine's file system beneath one locked directory.
#[derive(Clone, Debug)]
pub(crate) struct RealFs {
    root: Arc<Root>,
    /// Short jobs run where they are asked for, as long as they are short.
    inline: Option<Arc<Detour>>,
}

/// Lives as long as any job does: the lock is not given up before the last late write.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    dir: File,
    _lock: File,
}

/// A batch in memory that is warm takes a tenth of it.
const LONG: Duration = Duration::from_millis(3);
const FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIRECTORY: Mode = Mode::RWXU;
/// The most slices that one `pwritev` takes, on Linux and macOS.
const IOV_MAX: usize = 1024;

impl RealFs {
    /// Opens the directory, which is created if need be, and locks it.
    pub(super) async fn open_root(path: &Path, wait: Duration, sync: bool) -> Result<Self> {
        let path = path.to_owned();
        let deadline = Instant::now() + wait;
        let (dir, lock) = blocking({
            let path = path.clone();
            move || {
                create_root(&path, sync)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = rustix::fs::open(&path, flags, Mode::empty()).map_err(io::Error::from)?;
                let dir = File::from(dir);
                let lock = beneath(&dir, "lock", OFlags::RDWR | OFlags::CREATE, FILE)?;
                Ok((dir, lock))
            }
        })
        .await?;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => return Err(locked(&path, &lock)),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        blocking(move || {
            let mut lock = lock;
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())?;
            Ok(Self {
                root: Arc::new(Root {
                    path: std::path::absolute(&path)?,
                    dir,
                    _lock: lock,
                }),
                inline: None,
            })
        })
        .await
    }

    /// Where batches are written.
    pub(super) fn writing(mut self, writes: Writes) -> Self {
        self.inline = (writes == Writes::Inline).then(|| Arc::new(Detour::new()));
        self
    }

    fn parent<'a>(&self, path: &'a str) -> io::Result<(File, &'a str)> {
        let (folder, name) = split(path);
        Ok((beneath(&self.root.dir, folder, PARENT, Mode::empty())?, name))
    }
}

impl Fs for RealFs {
    type File = File;

    async fn run<T, J>(&self, job: J) -> Result<T>
    where
        T: Send + 'static,
        J: Future<Output = Result<T>> + Send + 'static,
    {
        let root = self.clone();
        blocking(move || {
            let _lives_as_long = root;
            ended(job)
        })
        .await
    }

    async fn run_short<T, J>(&self, job: J) -> Result<T>
    where
        T: Send + 'static,
        J: Future<Output = Result<T>> + Send + 'static,
    {
        match &self.inline {
            Some(detour) if !detour.is_on() => {
                let began = Instant::now();
                let result = ended(job);
                if began.elapsed() > LONG {
                    detour.begin();
                }
                result
            }
            _ => self.run(job).await,
        }
    }

    async fn open(&self, path: String, how: Open) -> io::Result<File> {
        let flags = match how {
            Open::New => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            Open::Write => OFlags::RDWR,
            Open::Read => OFlags::RDONLY,
            Open::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
        };
        // A pipe that somebody put there shall not block.
        let file = beneath(&self.root.dir, &path, flags | OFlags::NONBLOCK, FILE)?;
        match how {
            Open::Write | Open::Read if !file.metadata()?.is_file() => Err(io::ErrorKind::IsADirectory.into()),
            _ => Ok(file),
        }
    }

    async fn stat(&self, file: &File) -> io::Result<Stat> {
        let metadata = file.metadata()?;
        Ok(Stat {
            identity: (metadata.dev(), metadata.ino()),
            links: metadata.nlink(),
            len: metadata.len(),
        })
    }

    async fn write(&self, file: &File, offset: u64, frames: Vec<Bytes>) -> io::Result<()> {
        write_all(file, offset, &frames)
    }

    async fn read(&self, file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
        read_up_to(file, offset, len).map(Bytes::from)
    }

    async fn copy(&self, from: &File, start: u64, to: &File, offset: u64, len: u64) -> io::Result<()> {
        let copied = copy_in_kernel(from, start, to, offset, len)?;
        let mut done = copied;
        while done < len {
            let want = usize::try_from((len - done).min(1 << 20)).unwrap_or(1 << 20);
            let bytes = read_up_to(from, start + done, want)?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all_at(&bytes, offset + done)?;
            done += bytes.len() as u64;
        }
        Ok(())
    }

    async fn hint(&self, file: &File, offset: u64, len: u64) {
        sys::start_writeback(file, offset, len);
    }

    async fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        if file.metadata()?.is_dir() {
            file.sync_all()
        } else {
            file.sync_data()
        }
    }

    async fn mkdir(&self, path: String) -> io::Result<()> {
        let (parent, name) = self.parent(&path)?;
        Ok(rustix::fs::mkdirat(parent, name, DIRECTORY)?)
    }

    async fn rmdir(&self, path: String) -> io::Result<()> {
        let (parent, name) = self.parent(&path)?;
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
    }

    async fn link(&self, from: String, to: String) -> io::Result<()> {
        let (from_parent, from_name) = self.parent(&from)?;
        let (to_parent, to_name) = self.parent(&to)?;
        Ok(rustix::fs::linkat(
            from_parent,
            from_name,
            to_parent,
            to_name,
            AtFlags::empty(),
        )?)
    }

    async fn rename(&self, from: String, to: String) -> io::Result<()> {
        let (from_parent, from_name) = self.parent(&from)?;
        let (to_parent, to_name) = self.parent(&to)?;
        Ok(rustix::fs::renameat(from_parent, from_name, to_parent, to_name)?)
    }

    async fn unlink(&self, path: String) -> io::Result<()> {
        let (parent, name) = self.parent(&path)?;
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
    }

    async fn list(&self, path: String, prefix: String) -> io::Result<Vec<(String, Timestamp)>> {
        let dir = beneath(&self.root.dir, &path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut found = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_str().unwrap_or(".");
            if name == "." || name == ".." || !name.starts_with(&prefix) {
                continue;
            }
            match beneath(&dir, name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).and_then(|file| file.metadata())
            {
                Ok(metadata) if metadata.is_file() => found.push((name.to_owned(), modified(&metadata))),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn entries(&self, path: String) -> io::Result<Vec<(String, bool)>> {
        let dir = beneath(&self.root.dir, &path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut found = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_str().unwrap_or(".");
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                },
                kind => kind,
            };
            found.push((name.to_owned(), kind == FileType::Directory));
        }
        Ok(found)
    }

    fn local_path(&self, path: &str) -> Option<PathBuf> {
        let file = beneath(&self.root.dir, path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).ok()?;
        let (found, path) = (file.metadata().ok()?, self.root.path.join(path));
        // The directory may have been moved since.
        let named = std::fs::symlink_metadata(&path).ok()?;
        let is_same = found.is_file() && (found.dev(), found.ino()) == (named.dev(), named.ino());
        is_same.then_some(path)
    }

    async fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.root.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn now(&self) -> Timestamp {
        Timestamp::default().after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn random(&self) -> u64 {
        getrandom::u64().unwrap_or_else(|_| self.now().as_millis())
    }
}

/// What comes of a job, whose effects here wait for nothing.
fn ended<T>(job: impl Future<Output = Result<T>>) -> Result<T> {
    job.now_or_never()
        .unwrap_or_else(|| Err(Error::internal("A file system job waited for something")))
}

async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => Err(Error::unavailable("A file system job did not end; try again").with_source(error)),
    }
}

/// Creates the directory and those above it, each for the owner alone, and makes their names durable.
fn create_root(path: &Path, sync: bool) -> Result<()> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|path| *path != Path::new("") && !path.exists())
        .collect();
    for path in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ if !sync => {}
            made => {
                let above = path.parent().filter(|path| *path != Path::new(""));
                let synced = File::open(above.unwrap_or(Path::new("."))).and_then(|above| above.sync_all());
                if synced.is_err() && made.is_ok() {
                    // Made anew the next time, it is a change that a sync can fail for.
                    let _ = std::fs::remove_dir(path);
                }
                synced?;
            }
        }
    }
    Ok(())
}

fn locked(path: &Path, lock: &File) -> Error {
    let pid = read_up_to(lock, 0, 32)
        .ok()
        .and_then(|text| String::from_utf8(text).ok()?.trim().parse::<u32>().ok());
    let path = PathBuf::from(path);
    Error::unavailable(match pid {
        Some(pid) => format!(
            "{} is in use by process {pid}; stop it or choose another directory",
            path.display()
        ),
        None => format!(
            "{} is in use by another process; stop it or choose another directory",
            path.display()
        ),
    })
}

fn write_all(file: &File, mut offset: u64, frames: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = frames
        .iter()
        .filter(|frame| !frame.is_empty())
        .map(|frame| IoSlice::new(frame))
        .collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match rustix::io::pwritev(file, &left[..left.len().min(IOV_MAX)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn read_up_to(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    // Not made zero before: of a long file that would cost as much as reading it.
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Copies without bringing the bytes here, or with shared extents where the file system can, and tells how far
/// it came.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn copy_in_kernel(from: &File, start: u64, to: &File, offset: u64, len: u64) -> io::Result<u64> {
    let (mut at, mut put) = (start, offset);
    while at - start < len {
        let want = usize::try_from(len - (at - start)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut put), want) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM | Errno::BADF) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(at - start)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[allow(clippy::unnecessary_wraps)]
fn copy_in_kernel(_: &File, _: u64, _: &File, _: u64, _: u64) -> io::Result<u64> {
    Ok(0)
}

fn modified(metadata: &Metadata) -> Timestamp {
    let since = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Timestamp::default().after(since.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_long_job_sends_the_next_ones_to_the_pool() {
        let dir = tempfile::tempdir().unwrap();
        let fs = RealFs::open_root(dir.path(), Duration::ZERO, false).await.unwrap();
        let here = std::thread::current().id();
        let thread = |wait: Duration| async move {
            std::thread::sleep(wait);
            Ok(std::thread::current().id())
        };
        assert_ne!(fs.run_short(thread(Duration::ZERO)).await.unwrap(), here);
        let fs = fs.writing(Writes::Inline);
        assert_ne!(fs.run(thread(Duration::ZERO)).await.unwrap(), here);
        for _ in 0..2 {
            assert_eq!(fs.run_short(thread(Duration::ZERO)).await.unwrap(), here);
            assert_eq!(fs.run_short(thread(LONG * 2)).await.unwrap(), here);
            assert_ne!(fs.run_short(thread(Duration::ZERO)).await.unwrap(), here);
            tokio::time::sleep(Detour::TIME).await;
        }
    }

    #[tokio::test]
    async fn bytes_from_within_a_file_are_copied_into_another() {
        let (dir, wait) = (tempfile::tempdir().unwrap(), Duration::from_secs(1));
        let fs = RealFs::open_root(dir.path(), wait, false).await.unwrap();
        let from = fs.open("from".into(), Open::New).await.unwrap();
        let to = fs.open("to".into(), Open::New).await.unwrap();
        let bytes: Vec<u8> = (0..20_000_u32).map(|at| (at % 251) as u8).collect();
        fs.write(&from, 0, vec![Bytes::from(bytes.clone())]).await.unwrap();
        fs.write(&to, 0, vec![Bytes::from_static(b"before")]).await.unwrap();
        fs.copy(&from, 4097, &to, 6, 10_000).await.unwrap();
        fs.copy(&from, 19_999, &to, 10_006, 1).await.unwrap();
        let short = fs.copy(&from, 19_000, &to, 10_007, 2_000).await.unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        let copied = read_up_to(&to, 0, 10_007).unwrap();
        assert!(copied == [b"before", &bytes[4097..14_097], &bytes[19_999..]].concat());
    }

    #[test]
    fn more_frames_than_one_call_takes_are_all_written() {
        let file = tempfile::tempfile().unwrap();
        let frames: Vec<Bytes> = (0..3000_u32)
            .map(|number| Bytes::from(number.to_le_bytes()[..number as usize % 4].to_vec()))
            .collect();
        write_all(&file, 7, &frames).unwrap();
        let all = read_up_to(&file, 7, 1 << 20).unwrap();
        assert_eq!(all, frames.concat());
    }
}
