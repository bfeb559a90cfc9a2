//! The few effects on a file system that the store is made of.

use std::{fmt, future::Future, io, path::PathBuf};

use bytes::Bytes;

use crate::{error::Result, upload::Timestamp};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    /// A new file, to be written; it must not exist.
    New,
    /// A file that exists, to be read and written.
    Write,
    /// A file that exists, to be read.
    Read,
    /// A directory that exists, to be synced.
    Directory,
}

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Names the file on this machine: device and inode.
    pub(crate) identity: (u64, u64),
    /// Its names.
    pub(crate) links: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// A file system beneath one directory. Paths are relative to it, their segments parsed by the caller;
/// no symbolic link is followed.
///
/// Each [`open`](Self::open) is an open file description of its own, and an error of writing back is told
/// once to each: so what shall be known to be durable is written, linked or created after the
/// description was opened that syncs it.
pub(crate) trait Fs: Clone + fmt::Debug + Send + Sync + 'static {
    /// An open file or directory.
    type File: fmt::Debug + Send + Sync + 'static;

    /// Runs effects to their end, also when the returned future is dropped. A job waits for nothing but
    /// effects: what it must hold it was given.
    fn run<T, J>(&self, job: J) -> impl Future<Output = Result<T>> + Send
    where
        T: Send + 'static,
        J: Future<Output = Result<T>> + Send + 'static;

    /// The same, for what is over soon: a batch on its way to the page cache.
    fn run_short<T, J>(&self, job: J) -> impl Future<Output = Result<T>> + Send
    where
        T: Send + 'static,
        J: Future<Output = Result<T>> + Send + 'static,
    {
        self.run(job)
    }

    /// Opens a regular file or a directory.
    fn open(&self, path: String, how: Open) -> impl Future<Output = io::Result<Self::File>> + Send;

    /// Asks about an open file.
    fn stat(&self, file: &Self::File) -> impl Future<Output = io::Result<Stat>> + Send;

    /// Writes all `frames`, one behind the other, from `offset` on.
    fn write(&self, file: &Self::File, offset: u64, frames: Vec<Bytes>) -> impl Future<Output = io::Result<()>> + Send;

    /// Reads up to `len` bytes from `offset` on; fewer only at the end of the file.
    fn read(&self, file: &Self::File, offset: u64, len: usize) -> impl Future<Output = io::Result<Bytes>> + Send;

    /// Copies `len` bytes from `start` of `from` on to `offset` of `to`, or lets both files have them where the file system
    /// can. [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if there are fewer, and then some may have been copied.
    fn copy(
        &self,
        from: &Self::File,
        start: u64,
        to: &Self::File,
        offset: u64,
        len: u64,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Says that these bytes were written and will be synced soon. Promises nothing.
    fn hint(&self, file: &Self::File, offset: u64, len: u64) -> impl Future<Output = ()> + Send;

    /// Sets the length.
    fn set_len(&self, file: &Self::File, len: u64) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes the bytes and the length of a file durable, or the entries of a directory.
    fn sync(&self, file: &Self::File) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes a directory.
    fn mkdir(&self, path: String) -> impl Future<Output = io::Result<()>> + Send;

    /// Removes an empty directory.
    fn rmdir(&self, path: String) -> impl Future<Output = io::Result<()>> + Send;

    /// Gives the file at `from` a second name, which must not exist.
    fn link(&self, from: String, to: String) -> impl Future<Output = io::Result<()>> + Send;

    /// Gives the file at `from` the name `to` instead, in place of whatever file has it.
    fn rename(&self, from: String, to: String) -> impl Future<Output = io::Result<()>> + Send;

    /// Removes a name.
    fn unlink(&self, path: String) -> impl Future<Output = io::Result<()>> + Send;

    /// The names in a directory that begin with `prefix`, and when each file was last written to.
    fn list(&self, path: String, prefix: String) -> impl Future<Output = io::Result<Vec<(String, Timestamp)>>> + Send;

    /// All names in a directory, and whether each is of a directory.
    fn entries(&self, path: String) -> impl Future<Output = io::Result<Vec<(String, bool)>>> + Send;

    /// Where the regular file at `path` lies for other programs, if it is there and reached by no link.
    fn local_path(&self, path: &str) -> Option<PathBuf> {
        let _ = path;
        None
    }

    /// The bytes that may still be written.
    fn free(&self) -> impl Future<Output = io::Result<u64>> + Send;

    /// Now, by the clock that stamps files.
    fn now(&self) -> Timestamp;

    /// 64 random bits.
    fn random(&self) -> u64;
}

/// The directory that holds `path`, and the name in it.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or((".", path))
}
