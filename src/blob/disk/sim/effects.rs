use std::{
    fmt, future, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{EPOCH, Machine, OpKind, SimFs, World};
use crate::{
    blob::disk::fs::{Fs, Open, Stat},
    error::Result,
    upload::Timestamp,
};

/// An open file description.
pub(crate) struct SimFile {
    machine: Arc<Machine>,
    life: u64,
    inode: u64,
    path: String,
    /// The errors of writing back that it was told.
    told: AtomicU64,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.path)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Ok(mut state) = self.machine.state.lock()
            && state.life == self.life
        {
            state.world.close(self.inode);
        }
    }
}

impl Fs for SimFs {
    type File = SimFile;

    async fn run<T, J>(&self, job: J) -> Result<T>
    where
        T: Send + 'static,
        J: Future<Output = Result<T>> + Send + 'static,
    {
        if self.state().life != self.life {
            future::pending::<()>().await;
        }
        let task = tokio::spawn(job);
        {
            let mut state = self.state();
            if state.jobs.len() > 100 {
                state.jobs.retain(|job| !job.is_finished());
            }
            state.jobs.push(task.abort_handle());
        }
        match task.await {
            Ok(result) if self.state().life == self.life => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => future::pending().await,
        }
    }

    async fn open(&self, path: String, how: Open) -> io::Result<SimFile> {
        let (kind, at) = match how {
            Open::New => (OpKind::Create, self.now()),
            _ => (OpKind::Open, EPOCH),
        };
        let (inode, told) = self
            .call(kind, &path, |state, fault| match fault {
                Some(_) => Err(io::ErrorKind::Other.into()),
                None => state.world.open(&path, how, at),
            })
            .await?;
        Ok(SimFile {
            machine: Arc::clone(&self.machine),
            life: self.life,
            inode,
            path,
            told: AtomicU64::new(told),
        })
    }

    async fn stat(&self, file: &SimFile) -> io::Result<Stat> {
        self.call(OpKind::Stat, &file.path, |state, _| Ok(state.world.stat(file.inode)))
            .await
    }

    async fn write(&self, file: &SimFile, offset: u64, frames: Vec<Bytes>) -> io::Result<()> {
        let at = self.now();
        self.call(OpKind::Write, &file.path, |state, fault| match fault {
            Some(_) => Ok(()),
            None => state.world.write(file.inode, offset, &frames.concat(), at),
        })
        .await
    }

    async fn read(&self, file: &SimFile, offset: u64, len: usize) -> io::Result<Bytes> {
        self.call(OpKind::Read, &file.path, |state, _| {
            Ok(state.world.read(file.inode, offset, len))
        })
        .await
    }

    async fn copy(&self, from: &SimFile, start: u64, to: &SimFile, offset: u64, len: u64) -> io::Result<()> {
        let at = self.now();
        self.call(OpKind::Copy, &to.path, |state, fault| {
            let bytes = state.world.read(from.inode, start, len as usize);
            match fault {
                Some(_) => Ok(()),
                None => {
                    state.world.write(to.inode, offset, &bytes, at)?;
                    let whole = bytes.len() as u64 == len;
                    whole.then_some(()).ok_or(io::ErrorKind::UnexpectedEof.into())
                }
            }
        })
        .await
    }

    async fn hint(&self, _: &SimFile, _: u64, _: u64) {}

    async fn set_len(&self, file: &SimFile, len: u64) -> io::Result<()> {
        let at = self.now();
        self.call(OpKind::SetLen, &file.path, |state, fault| {
            if fault.is_none() {
                state.world.set_len(file.inode, len, at);
            }
            Ok(())
        })
        .await
    }

    async fn sync(&self, file: &SimFile) -> io::Result<()> {
        self.call(OpKind::Sync, &file.path, |state, fault| {
            if fault.is_some() {
                state.world.fail_sync(file.inode);
            }
            let errors = state.world.sync(file.inode);
            if file.told.swap(errors, Ordering::Relaxed) == errors {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        })
        .await
    }

    async fn mkdir(&self, path: String) -> io::Result<()> {
        self.name(OpKind::Mkdir, &path, World::mkdir).await
    }

    async fn rmdir(&self, path: String) -> io::Result<()> {
        self.name(OpKind::Rmdir, &path, World::rmdir).await
    }

    async fn link(&self, from: String, to: String) -> io::Result<()> {
        self.name(OpKind::Link, &to, |world, to| world.link(&from, to)).await
    }

    async fn rename(&self, from: String, to: String) -> io::Result<()> {
        self.name(OpKind::Rename, &to, |world, to| world.rename(&from, to))
            .await
    }

    async fn unlink(&self, path: String) -> io::Result<()> {
        self.name(OpKind::Unlink, &path, World::unlink).await
    }

    async fn list(&self, path: String, prefix: String) -> io::Result<Vec<(String, Timestamp)>> {
        self.call(OpKind::List, &path, |state, _| state.world.list(&path, &prefix))
            .await
    }

    async fn entries(&self, path: String) -> io::Result<Vec<(String, bool)>> {
        self.call(OpKind::List, &path, |state, _| state.world.entries(&path))
            .await
    }

    async fn free(&self) -> io::Result<u64> {
        self.call(OpKind::Free, ".", |state, _| Ok(state.world.free())).await
    }

    fn now(&self) -> Timestamp {
        EPOCH.after(self.machine.booted.elapsed())
    }

    fn random(&self) -> u64 {
        self.state().rng.next()
    }
}

impl SimFs {
    async fn name(
        &self,
        kind: OpKind,
        path: &str,
        change: impl FnOnce(&mut World, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        self.call(kind, path, |state, fault| match fault {
            Some(_) => Ok(()),
            None => change(&mut state.world, path),
        })
        .await
    }
}
