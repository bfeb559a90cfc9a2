//! Objects that are put whole, and folders of them that are cleared.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    claims::lock,
    fs::{Fs, Open},
    place::{blob, folder},
    store::Shared,
};
use crate::{
    error::{Error, ErrorKind, Result},
    upload::Key,
};

/// Begins the names of files in `partial` that nobody records.
const PUT: &str = "put.";

impl<F: Fs> Shared<F> {
    /// Writes the object aside, makes it durable, then gives it its name.
    pub(super) async fn put(self: Arc<Self>, key: &Key, bytes: Bytes) -> Result<()> {
        let path = blob(key);
        if !self.make_folders(&folder(&path), ()).await? {
            return Err(in_the_way());
        }
        let shared = Arc::clone(&self);
        let job = async move {
            let directory = match shared.fs.open(folder(&path), Open::Directory).await {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(in_the_way()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    lock(&shared.folders).durable.clear();
                    return Err(Error::unavailable("The folder was cleared meanwhile; try again"));
                }
                result => result?,
            };
            let aside = format!("partial/{PUT}{:016x}", shared.fs.random());
            let written = shared.write_aside(&aside, bytes).await;
            let named = match written {
                Ok(()) => shared.fs.rename(aside.clone(), path).await,
                Err(error) => Err(error),
            };
            if let Err(error) = named {
                let _ = shared.fs.unlink(aside).await;
                return Err(match error.kind() {
                    io::ErrorKind::IsADirectory => in_the_way(),
                    _ => error.into(),
                });
            }
            Ok(shared.sync_directory(&directory).await?)
        };
        self.fs.run(job).await
    }

    async fn write_aside(&self, path: &str, bytes: Bytes) -> io::Result<()> {
        let file = self.fs.open(path.to_owned(), Open::New).await?;
        self.fs.write(&file, 0, vec![bytes]).await?;
        if self.sync {
            self.fs.sync(&file).await?;
        }
        Ok(())
    }

    /// Removes what a process that died was putting: it never had a name that counts.
    pub(super) async fn forget_puts(&self) -> Result<()> {
        for (name, _) in self.fs.list("partial".into(), PUT.into()).await? {
            match self.fs.unlink(format!("partial/{name}")).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) async fn clear(self: Arc<Self>, key: &Key) -> Result<()> {
        let alone = Arc::clone(&self.making_folders).lock_owned().await;
        let (shared, path) = (Arc::clone(&self), blob(key));
        let job = async move {
            let _held = alone;
            let absent =
                |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
            let above = match shared.fs.open(folder(&path), Open::Directory).await {
                Err(error) if absent(&error) => return Ok(()),
                result => result?,
            };
            match shared.fs.open(path.clone(), Open::Directory).await {
                Ok(_) => shared.remove_tree(path).await?,
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Whoever removed it may have died before the sync, or seen it fail, and a sync proves only changes
                    // that were made since: so it is removed once more.
                    shared.fs.mkdir(path.clone()).await?;
                    shared.fs.rmdir(path).await?;
                }
                Err(error) => return Err(error.into()),
            }
            Ok(shared.sync_directory(&above).await?)
        };
        self.fs.run(job).await
    }

    /// Removes a directory with all in it. Whoever syncs the one above makes that durable for all of it.
    async fn remove_tree(&self, path: String) -> Result<()> {
        let (mut waiting, mut empty) = (vec![path], Vec::new());
        while let Some(at) = waiting.pop() {
            for (name, is_folder) in self.fs.entries(at.clone()).await? {
                let path = format!("{at}/{name}");
                if is_folder {
                    waiting.push(path);
                    continue;
                }
                match self.fs.unlink(path).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            empty.push(at);
        }
        for at in empty.into_iter().rev() {
            let removed = self.fs.rmdir(at.clone()).await;
            lock(&self.folders).durable.remove(&at);
            match removed {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    return Err(Error::unavailable("Something was put there meanwhile; try again"));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn in_the_way() -> Error {
    Error::new(ErrorKind::Conflict, "Something else lies where the object is to be put")
}
