//! Files and directories, each as programs see it and as it would be found after a power loss.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{
    super::fs::{Open, Stat, split},
    SplitMix64,
    durable::{BLOCK, Data, Names},
};
use crate::upload::Timestamp;

const ROOT: u64 = 1;

pub(super) struct World {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    pub(super) open: usize,
    pub(super) max_open: usize,
    pub(super) capacity: u64,
    /// A write stops half way, this random number says where.
    pub(super) tear: Option<u64>,
}

#[derive(Default)]
struct Inode {
    content: Content,
    links: u64,
    open: usize,
    /// Failures to write back so far.
    errors: u64,
    modified: Timestamp,
}

enum Content {
    File(Data),
    Folder(Names),
}

impl Default for Content {
    fn default() -> Self {
        Self::File(Data::default())
    }
}

impl World {
    pub(super) fn new() -> Self {
        let root = Inode {
            content: Content::Folder(Names::default()),
            links: 1,
            ..Inode::default()
        };
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            open: 0,
            max_open: usize::MAX,
            capacity: u64::MAX,
            tear: None,
        }
    }

    pub(super) fn open(&mut self, path: &str, how: Open, at: Timestamp) -> io::Result<(u64, u64)> {
        if self.open >= self.max_open {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let inode = match how {
            Open::New => self.add(path, Content::default(), at)?,
            _ => self.find(path)?,
        };
        let opened = self.inode(inode);
        match (&opened.content, how) {
            (Content::Folder(_), Open::Read | Open::Write) => return Err(io::ErrorKind::IsADirectory.into()),
            (Content::File(_), Open::Directory) => return Err(io::ErrorKind::NotADirectory.into()),
            _ => {}
        }
        opened.open += 1;
        let errors = opened.errors;
        self.open += 1;
        Ok((inode, errors))
    }

    pub(super) fn close(&mut self, inode: u64) {
        self.open -= 1;
        self.inode(inode).open -= 1;
    }

    pub(super) fn stat(&mut self, number: u64) -> Stat {
        let inode = self.inode(number);
        let len = match &inode.content {
            Content::File(data) => data.seen.len() as u64,
            Content::Folder(_) => 0,
        };
        Stat {
            identity: (1, number),
            links: inode.links,
            len,
        }
    }

    pub(super) fn write(&mut self, inode: u64, offset: u64, bytes: &[u8], at: Timestamp) -> io::Result<()> {
        let torn = self.tear.map(|tear| tear as usize % (bytes.len() + 1));
        let bytes = &bytes[..torn.unwrap_or(bytes.len())];
        let end = offset + bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        let room = self.free() / BLOCK;
        let changed = self.inode(inode);
        changed.modified = at;
        let data = changed.data();
        let fresh = (offset / BLOCK..end.div_ceil(BLOCK))
            .filter(|block| !data.blocks.contains(block))
            .count();
        if fresh as u64 > room {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        data.blocks.extend(offset / BLOCK..end.div_ceil(BLOCK));
        if end as usize > data.seen.len() {
            let given_up = data.len_given_up;
            data.resize(end as usize);
            data.len_given_up = given_up;
        }
        data.seen[offset as usize..end as usize].copy_from_slice(bytes);
        data.len_given_up = data.len_given_up.map(|known| known.max(end));
        data.touch(offset..end);
        Ok(())
    }

    pub(super) fn read(&mut self, inode: u64, offset: u64, len: usize) -> bytes::Bytes {
        let seen = &self.inode(inode).data().seen;
        let start = (offset as usize).min(seen.len());
        let end = start.saturating_add(len).min(seen.len());
        bytes::Bytes::copy_from_slice(&seen[start..end])
    }

    pub(super) fn set_len(&mut self, inode: u64, len: u64, at: Timestamp) {
        let changed = self.inode(inode);
        changed.modified = at;
        changed.data().resize(len as usize);
    }

    /// What is to be synced never will be, and every open description is to be told once.
    pub(super) fn fail_sync(&mut self, inode: u64) {
        let inode = self.inode(inode);
        inode.errors += 1;
        match &mut inode.content {
            Content::File(data) => {
                data.given_up.append(&mut data.dirty);
                if data.seen.len() != data.durable.len() {
                    data.len_given_up = Some(data.durable.len() as u64);
                }
            }
            Content::Folder(names) => names.given_up = names.differing(),
        }
    }

    /// Makes durable what can be, and tells how many failures there were.
    pub(super) fn sync(&mut self, inode: u64) -> u64 {
        let inode = self.inode(inode);
        match &mut inode.content {
            Content::File(data) => data.sync(),
            Content::Folder(names) => {
                for name in names.differing() {
                    if !names.given_up.contains(&name) {
                        names.settle(&name);
                    }
                }
            }
        }
        let errors = inode.errors;
        self.forget_lost();
        errors
    }

    pub(super) fn mkdir(&mut self, path: &str) -> io::Result<()> {
        self.add(path, Content::Folder(Names::default()), Timestamp::default())
            .map(drop)
    }

    pub(super) fn rmdir(&mut self, path: &str) -> io::Result<()> {
        let inode = self.find(path)?;
        if !self.names(inode)?.seen.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.remove(path)
    }

    pub(super) fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.find(from)?;
        self.enter(to, inode)?;
        self.inode(inode).links += 1;
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.find(from)?;
        match self.unlink(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.enter(to, inode)?;
        self.inode(inode).links += 1;
        self.remove(from)
    }

    pub(super) fn unlink(&mut self, path: &str) -> io::Result<()> {
        let inode = self.find(path)?;
        if matches!(self.inode(inode).content, Content::Folder(_)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.remove(path)
    }

    pub(super) fn list(&mut self, path: &str, prefix: &str) -> io::Result<Vec<(String, Timestamp)>> {
        let folder = self.find(path)?;
        let names = self.names(folder)?.seen.clone();
        let found = names.into_iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(found.map(|(name, inode)| (name, self.inode(inode).modified)).collect())
    }

    pub(super) fn entries(&mut self, path: &str) -> io::Result<Vec<(String, bool)>> {
        let folder = self.find(path)?;
        let names = self.names(folder)?.seen.clone();
        let is_folder = |world: &mut Self, inode| matches!(world.inode(inode).content, Content::Folder(_));
        Ok(names
            .into_iter()
            .map(|(name, inode)| (name, is_folder(self, inode)))
            .collect())
    }

    pub(super) fn free(&self) -> u64 {
        let blocks = |inode: &Inode| match &inode.content {
            Content::File(data) if inode.links > 0 || inode.open > 0 => data.blocks.len() as u64,
            _ => 0,
        };
        self.capacity
            .saturating_sub(self.inodes.values().map(blocks).sum::<u64>() * BLOCK)
    }

    pub(super) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![(String::new(), ROOT)];
        while let Some((path, inode)) = folders.pop() {
            match &self.inodes[&inode].content {
                Content::Folder(names) => {
                    let slash = if path.is_empty() { "" } else { "/" };
                    folders.extend(
                        names
                            .seen
                            .iter()
                            .map(|(name, inode)| (format!("{path}{slash}{name}"), *inode)),
                    );
                }
                Content::File(_) => found.push(path),
            }
        }
        found.sort();
        found
    }

    pub(super) fn power_loss(&mut self, rng: &mut SplitMix64) {
        // Now and then all of it is lost, or none.
        let kept = [0, 128, 128, 256][rng.below(4) as usize];
        let mut keep = || rng.below(256) < kept;
        for inode in self.inodes.values_mut() {
            match &mut inode.content {
                Content::File(data) => data.power_loss(&mut keep),
                Content::Folder(names) => {
                    for name in names.differing() {
                        if keep() {
                            names.settle(&name);
                        }
                    }
                    names.given_up.clear();
                    names.seen.clone_from(&names.durable);
                }
            }
        }
        let mut links: BTreeMap<u64, u64> = BTreeMap::from([(ROOT, 1)]);
        let mut folders = vec![ROOT];
        while let Some(folder) = folders.pop() {
            let Content::Folder(names) = &self.inodes[&folder].content else {
                continue;
            };
            for inode in names.seen.values() {
                *links.entry(*inode).or_default() += 1;
                folders.push(*inode);
            }
        }
        for (number, inode) in &mut self.inodes {
            inode.links = links.get(number).copied().unwrap_or(0);
        }
        self.close_all();
    }

    /// Processes close their files when they die.
    pub(super) fn close_all(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.open = 0;
        }
        self.open = 0;
        self.forget_lost();
    }

    /// Forgets what nothing can name any more. A durable name that was removed may come back.
    fn forget_lost(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        for inode in self.inodes.values() {
            if let Content::Folder(names) = &inode.content {
                named.extend(names.durable.values());
            }
        }
        self.inodes
            .retain(|number, inode| inode.links > 0 || inode.open > 0 || named.contains(number));
    }

    fn add(&mut self, path: &str, content: Content, at: Timestamp) -> io::Result<u64> {
        let number = self.next;
        self.enter(path, number)?;
        self.next += 1;
        let inode = Inode {
            content,
            links: 1,
            modified: at,
            ..Inode::default()
        };
        self.inodes.insert(number, inode);
        Ok(number)
    }

    fn enter(&mut self, path: &str, inode: u64) -> io::Result<()> {
        let (folder, name) = split(path);
        let folder = self.find(folder)?;
        let names = self.names(folder)?;
        if names.seen.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        names.seen.insert(name.to_owned(), inode);
        names.given_up.remove(name);
        Ok(())
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let (folder, name) = split(path);
        let folder = self.find(folder)?;
        let names = self.names(folder)?;
        let number = names.seen.remove(name).ok_or(io::ErrorKind::NotFound)?;
        names.given_up.remove(name);
        self.inode(number).links -= 1;
        Ok(())
    }

    fn find(&mut self, path: &str) -> io::Result<u64> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| *name != ".") {
            at = *self.names(at)?.seen.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an open file or a name keeps it")
    }

    fn names(&mut self, number: u64) -> io::Result<&mut Names> {
        match &mut self.inode(number).content {
            Content::Folder(names) => Ok(names),
            Content::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

impl Inode {
    fn data(&mut self) -> &mut Data {
        match &mut self.content {
            Content::File(data) => data,
            Content::Folder(_) => panic!("a directory has no bytes"),
        }
    }
}
