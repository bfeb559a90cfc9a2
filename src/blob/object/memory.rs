//! Memory for parts: reserved before it is used, never waited for while some is held.

use std::{
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

const PAGE: u64 = 1 << 10;
/// What a part reserves first: small ones need no more.
const FIRST: u64 = 512 << 10;
/// How much is read from a temporary file at once.
const STEP: usize = 1 << 20;
/// How many threads work on temporary files: each has a stack and a heap of its own besides.
const AT_FILES: usize = 4;

/// The bytes of parts that may be in memory at once: most of it for what is being received, and what is left for what is all there
/// and waits to be sent, so that nobody waits for a client.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    receiving: Pool,
    sending: Pool,
    directory: Option<PathBuf>,
    files: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Pool {
    pages: Arc<Semaphore>,
    all: u32,
}

/// Memory reserved; freed when dropped.
pub(super) type Reserved = OwnedSemaphorePermit;

impl Memory {
    pub(super) fn new(bytes: u64, directory: Option<PathBuf>) -> Self {
        Self {
            receiving: Pool::new(bytes - bytes / 4),
            sending: Pool::new(bytes / 4),
            directory,
            files: Arc::new(Semaphore::new(AT_FILES)),
        }
    }

    /// Waits for memory. To be called by who holds none.
    pub(super) async fn reserve(&self, bytes: u64) -> Result<Reserved> {
        let pages = self.sending.count(bytes);
        Arc::clone(&self.sending.pages)
            .acquire_many_owned(pages)
            .await
            .map_err(|_| Error::internal("The memory for parts is closed"))
    }

    /// Memory for bytes that are all there, if it can be had at once: what they were received into is free for others then.
    fn passed_on(&self, bytes: u64) -> Option<Reserved> {
        let pages = self.sending.count(bytes);
        Arc::clone(&self.sending.pages).try_acquire_many_owned(pages).ok()
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let _turn = self.files.acquire().await;
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(Error::unavailable("The server is going down; try again").with_source(error)),
        }
    }

    #[cfg(test)]
    pub(super) fn is_free(&self) -> bool {
        let free = |pool: &Pool| pool.pages.available_permits() == pool.all as usize;
        free(&self.receiving) && free(&self.sending)
    }
}

impl Pool {
    fn new(bytes: u64) -> Self {
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let all = u32::try_from(bytes / PAGE).unwrap_or(most).clamp(1, most);
        Self {
            pages: Arc::new(Semaphore::new(all as usize)),
            all,
        }
    }

    /// What is more than all there is takes all there is.
    fn count(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(PAGE)).unwrap_or(self.all).min(self.all)
    }
}

/// The bytes of one part on their way: in memory as the frames they came in, or in an anonymous file.
#[derive(Debug)]
pub(super) struct Load {
    memory: Memory,
    /// The most it can become.
    most: u64,
    len: u64,
    frames: Vec<Bytes>,
    reserved: Option<Reserved>,
    /// How many bytes that is for.
    room: u64,
    file: Option<std::fs::File>,
}

/// The bytes of a part, in memory that is paid for.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) frames: Vec<Bytes>,
    pub(super) reserved: Reserved,
}

impl Load {
    pub(super) const fn new(memory: Memory, most: u64) -> Self {
        Self {
            memory,
            most,
            len: 0,
            frames: Vec::new(),
            reserved: None,
            room: 0,
            file: None,
        }
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) async fn push(&mut self, frames: Vec<Bytes>) -> Result<()> {
        let more: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        if self.file.is_none() && !self.grow(self.len + more) {
            self.spill().await?;
        }
        self.len += more;
        if self.file.is_some() {
            self.write(frames).await
        } else {
            self.frames.extend(frames);
            Ok(())
        }
    }

    /// Reserves what `len` bytes take, if that is there now: little first, then all that the part can need.
    fn grow(&mut self, len: u64) -> bool {
        if len <= self.room && self.reserved.is_some() {
            return true;
        }
        let wanted = if len <= FIRST { FIRST } else { len.max(self.most) };
        let wanted = wanted.min(self.most).max(len);
        let pool = &self.memory.receiving;
        let have = self.reserved.as_ref().map_or(0, |_| pool.count(self.room));
        let more = pool.count(wanted) - have;
        if more > 0 || self.reserved.is_none() {
            let Ok(permit) = Arc::clone(&pool.pages).try_acquire_many_owned(more) else {
                return false;
            };
            match &mut self.reserved {
                Some(reserved) => reserved.merge(permit),
                none => *none = Some(permit),
            }
        }
        self.room = wanted;
        true
    }

    /// Moves what is in memory to a file.
    async fn spill(&mut self) -> Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let directory = self.memory.directory.clone();
        let file = self
            .memory
            .blocking(move || {
                Ok(match directory {
                    Some(directory) => tempfile::tempfile_in(directory)?,
                    None => tempfile::tempfile()?,
                })
            })
            .await?;
        self.file = Some(file);
        let frames = std::mem::take(&mut self.frames);
        self.write(frames).await?;
        (self.reserved, self.room) = (None, 0);
        Ok(())
    }

    async fn write(&mut self, frames: Vec<Bytes>) -> Result<()> {
        let mut file = self.file.take().ok_or_else(lost)?;
        let written = self.memory.blocking(move || {
            for frame in frames {
                file.write_all(&frame)?;
            }
            Ok(file)
        });
        self.file = Some(written.await?);
        Ok(())
    }

    /// All bytes in memory, and room for `more` besides. Waits for memory with none in hand.
    pub(super) async fn ready(mut self, more: u64) -> Result<Ready> {
        if self.file.is_none()
            && self.grow(self.len + more)
            && let Some(reserved) = self.reserved.take()
        {
            let frames = std::mem::take(&mut self.frames);
            let reserved = self.memory.passed_on(self.len + more).unwrap_or(reserved);
            return Ok(Ready { frames, reserved });
        }
        self.spill().await?;
        let reserved = self.memory.reserve(self.len + more).await?;
        let mut file = self.file.take().ok_or_else(lost)?;
        let len = self.len;
        let frames = self.memory.blocking(move || {
            file.seek(SeekFrom::Start(0))?;
            let (mut frames, mut left) = (Vec::new(), len);
            while left > 0 {
                let step = usize::try_from(left).unwrap_or(STEP).min(STEP);
                let mut bytes = vec![0; step];
                file.read_exact(&mut bytes)?;
                frames.push(Bytes::from(bytes));
                left -= step as u64;
            }
            Ok(frames)
        });
        let frames = frames.await?;
        Ok(Ready { frames, reserved })
    }
}

fn lost() -> Error {
    Error::internal("The temporary file was lost; send the bytes again")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_no_room_goes_through_a_file_and_waits_with_none_in_hand() {
        let memory = Memory::new(2 << 20, None);
        let bytes: Vec<Bytes> = (0..5_u8).map(|n| Bytes::from(vec![n; 200_000])).collect();
        let mut first = Load::new(memory.clone(), 1 << 20);
        first.push(bytes.clone()).await.unwrap();
        assert!(first.file.is_none());
        let mut second = Load::new(memory.clone(), 1 << 20);
        for frame in &bytes {
            second.push(vec![frame.clone()]).await.unwrap();
        }
        assert!(second.file.is_some() && second.reserved.is_none());
        let sending = memory.reserve(1 << 20).await.unwrap();
        let waiting = tokio::spawn(second.ready(0));
        let first = first.ready(0).await.unwrap();
        assert_eq!(first.frames, bytes, "the frames as they came");
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(sending);
        let second = waiting.await.unwrap().unwrap();
        assert_eq!(second.frames.concat(), bytes.concat());
        drop(second);
        assert!(memory.is_free());
    }

    #[tokio::test]
    async fn what_is_received_makes_room_for_others() {
        let memory = Memory::new(4 << 20, None);
        let mut sending = Vec::new();
        for at in 0..4 {
            let mut load = Load::new(memory.clone(), 1 << 20);
            load.push(vec![Bytes::from(vec![at; 1 << 20])]).await.unwrap();
            assert!(load.file.is_none(), "part {at}");
            sending.push(load.ready(0).await.unwrap());
        }
        let mut more = Load::new(memory.clone(), 1 << 20);
        more.push(vec![Bytes::from(vec![9; 1 << 20])]).await.unwrap();
        assert!(more.file.is_some());
        sending.clear();
        assert!(memory.is_free());
    }

    #[tokio::test]
    async fn small_parts_reserve_little() {
        let memory = Memory::new(2 << 20, None);
        let mut loads = Vec::new();
        for _ in 0..3 {
            let mut load = Load::new(memory.clone(), 8 << 20);
            load.push(vec![Bytes::from_static(b"x")]).await.unwrap();
            assert!(load.file.is_none());
            loads.push(load);
        }
        let mut fourth = Load::new(memory.clone(), 8 << 20);
        fourth.push(vec![Bytes::from_static(b"x")]).await.unwrap();
        assert!(fourth.file.is_some());
        // One part that is larger than all memory takes all of it.
        loads.clear();
        fourth.push(vec![Bytes::from(vec![7; 3 << 20])]).await.unwrap();
        assert_eq!(fourth.ready(0).await.unwrap().frames.concat().len(), (3 << 20) + 1);
    }
}
