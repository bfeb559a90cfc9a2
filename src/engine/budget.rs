//! Memory for bodies: reserved before it is used, never waited for while some is held.

use std::{
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::intake::{Next, next};
use crate::error::{Error, ErrorKind, Result};

/// The bytes of bodies that may be in memory at once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pages: Arc<Semaphore>,
    files: Arc<Semaphore>,
    /// How many pages there are of each.
    of: (usize, usize),
    spool: Spool,
}

/// Where bodies go that do not fit into the budget.
#[derive(Clone, Debug)]
pub(crate) enum Spool {
    /// Anonymous files in this directory, or the system's.
    Files(Option<PathBuf>),
    /// Memory all the same: for simulations, which have no files.
    #[cfg(test)]
    Memory,
}

/// Memory or disk reserved; freed when dropped.
pub(crate) type Reservation = OwnedSemaphorePermit;

const PAGE: u64 = 1024;

impl Budget {
    /// `bytes` in memory, and `file_bytes` in temporary files beyond them.
    pub(crate) fn new(bytes: u64, file_bytes: u64, spool: Spool) -> Self {
        let pages = |bytes: u64| {
            let pages = usize::try_from(bytes / PAGE).unwrap_or(usize::MAX);
            pages.min(Semaphore::MAX_PERMITS)
        };
        let of = (pages(bytes), pages(file_bytes));
        Self {
            pages: Arc::new(Semaphore::new(of.0)),
            files: Arc::new(Semaphore::new(of.1)),
            of,
            spool,
        }
    }

    /// Reserves `bytes`, or nothing.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        reserve(&self.pages, bytes)
    }

    /// Whether more than half of the memory is reserved.
    pub(crate) fn is_scarce(&self) -> bool {
        self.pages.available_permits() < self.of.0 / 2
    }

    /// The bytes that are reserved in memory and in temporary files.
    pub(crate) fn used(&self) -> (u64, u64) {
        let used = |pages: &Semaphore, of: usize| of.saturating_sub(pages.available_permits()) as u64 * PAGE;
        (used(&self.pages, self.of.0), used(&self.files, self.of.1))
    }

    /// Unreserved pages: all of them once everything is quiet.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.pages.available_permits()
    }

    /// Takes a body in, in memory if all of it can be reserved at once, else in an anonymous file.
    ///
    /// `len` is what the client announced; a body of another length is refused, as is one of more than `max` bytes.
    pub(crate) async fn hold(
        &self,
        len: Option<u64>,
        max: u64,
        body: &mut BoxStream<'_, Result<Bytes>>,
    ) -> Result<Held> {
        let too_large = || Error::too_large(format!("A chunk may have {max} bytes at most"), max);
        if len.is_some_and(|len| len > max) {
            return Err(too_large());
        }
        let need = len.unwrap_or(max);
        let mut held = match self.reserve(need) {
            Some(reservation) => Held::memory(Some(reservation)),
            None => match reserve(&self.files, need) {
                Some(reservation) => self.spool.held(reservation).await?,
                None => {
                    return Err(Error::unavailable(
                        "Too many chunks are under way at once; try again in a moment",
                    ));
                }
            },
        };
        loop {
            let frame = match next(body, held.is_gathering()).await? {
                Next::Frame(frame) => frame,
                Next::Idle => {
                    held.flush().await?;
                    continue;
                }
                Next::End => break,
            };
            if held.len + frame.len() as u64 > need {
                return Err(match len {
                    Some(_) => Error::invalid("chunk", "The body is longer than announced"),
                    None => too_large(),
                });
            }
            held.push(frame).await?;
        }
        if let Some(len) = len.filter(|len| *len != held.len) {
            return Err(Error::new(
                ErrorKind::Interrupted,
                format!("The body ended after {} of {len} bytes; send it again", held.len),
            ));
        }
        held.seal().await?;
        Ok(held)
    }
}

fn reserve(pages: &Arc<Semaphore>, bytes: u64) -> Option<Reservation> {
    let wanted = u32::try_from(bytes.div_ceil(PAGE)).ok()?;
    Arc::clone(pages).try_acquire_many_owned(wanted).ok()
}

impl Spool {
    async fn held(&self, reservation: Reservation) -> Result<Held> {
        match self {
            Self::Files(directory) => {
                let directory = directory.clone();
                let file = blocking(move || {
                    Ok(match directory {
                        Some(directory) => tempfile::tempfile_in(directory)?,
                        None => tempfile::tempfile()?,
                    })
                })
                .await?;
                Ok(Held {
                    len: 0,
                    place: Place::File {
                        file: Some(file),
                        pending: BytesMut::new(),
                    },
                    reservation: Some(reservation),
                })
            }
            #[cfg(test)]
            Self::Memory => Ok(Held::memory(Some(reservation))),
        }
    }
}

/// A body that was taken in before it was known where it belongs: in memory within the budget, else in an
/// anonymous temporary file. Dropping it frees both.
#[derive(Debug)]
pub struct Held {
    len: u64,
    place: Place,
    #[allow(dead_code, reason = "held for as long as the bytes are")]
    reservation: Option<Reservation>,
}

#[derive(Debug)]
enum Place {
    Memory {
        frames: Vec<Bytes>,
        tail: BytesMut,
    },
    File {
        file: Option<std::fs::File>,
        pending: BytesMut,
    },
}

/// Frames below this are gathered: each costs more to keep than its bytes.
const SMALL: usize = 16 << 10;
/// How much is gathered before it goes to the file, and read back at once. Outside of the budget: every request that
/// found none may have as much.
const STEP: usize = 128 << 10;

impl Held {
    const fn memory_place(frames: Vec<Bytes>, tail: BytesMut) -> Place {
        Place::Memory { frames, tail }
    }

    fn memory(reservation: Option<Reservation>) -> Self {
        Self {
            len: 0,
            place: Self::memory_place(Vec::new(), BytesMut::new()),
            reservation,
        }
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    async fn push(&mut self, frame: Bytes) -> Result<()> {
        self.len += frame.len() as u64;
        match &mut self.place {
            Place::Memory { frames, tail } if frame.len() < SMALL => {
                tail.extend_from_slice(&frame);
                if tail.len() >= SMALL {
                    frames.push(tail.split().freeze());
                }
                Ok(())
            }
            Place::Memory { frames, tail } => {
                if !tail.is_empty() {
                    frames.push(tail.split().freeze());
                }
                frames.push(frame);
                Ok(())
            }
            Place::File { .. } => self.push_to_file(frame).await,
        }
    }

    async fn push_to_file(&mut self, mut frame: Bytes) -> Result<()> {
        while let Place::File { pending, .. } = &mut self.place
            && !frame.is_empty()
        {
            if pending.is_empty() {
                *pending = BytesMut::with_capacity(STEP);
            }
            pending.extend_from_slice(&frame.split_to(frame.len().min(STEP - pending.len())));
            if pending.len() == STEP {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Whether bytes wait in memory for more to come.
    fn is_gathering(&self) -> bool {
        matches!(&self.place, Place::File { pending, .. } if !pending.is_empty())
    }

    /// Whether reading it takes memory anew.
    pub(crate) const fn is_in_file(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }

    async fn seal(&mut self) -> Result<()> {
        match &mut self.place {
            Place::Memory { frames, tail } => {
                if !tail.is_empty() {
                    frames.push(tail.split().freeze());
                }
                Ok(())
            }
            Place::File { .. } => self.flush().await,
        }
    }

    async fn flush(&mut self) -> Result<()> {
        let Place::File { file, pending } = &mut self.place else {
            return Ok(());
        };
        if pending.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(pending).freeze();
        let mut open = file
            .take()
            .ok_or_else(|| Error::internal("The temporary file was lost; send the chunk again"))?;
        *file = Some(
            blocking(move || {
                open.write_all(&bytes)?;
                Ok(open)
            })
            .await?,
        );
        Ok(())
    }

    /// The bytes, from the first one, as often as asked.
    pub(crate) fn read(&self) -> Result<BoxStream<'_, Result<Bytes>>> {
        match &self.place {
            Place::Memory { frames, .. } => Ok(stream::iter(frames.iter().cloned().map(Ok)).boxed()),
            Place::File { file, .. } => {
                let file = file
                    .as_ref()
                    .ok_or_else(|| Error::internal("The temporary file was lost; send the chunk again"))?;
                let file = file.try_clone()?;
                Ok(stream::try_unfold((file, 0), |(mut file, at)| async move {
                    let (file, bytes) = blocking(move || {
                        let mut bytes = vec![0; STEP];
                        file.seek(SeekFrom::Start(at))?;
                        let read = file.read(&mut bytes)?;
                        bytes.truncate(read);
                        Ok((file, Bytes::from(bytes)))
                    })
                    .await?;
                    let next = at + bytes.len() as u64;
                    Ok((!bytes.is_empty()).then_some((bytes, (file, next))))
                })
                .boxed())
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::unavailable("The server is going down; try again").with_source(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(sizes: &[usize]) -> (Vec<u8>, BoxStream<'static, Result<Bytes>>) {
        let mut all = Vec::new();
        let mut out = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let frame = vec![u8::try_from(number % 251).unwrap(); *size];
            all.extend_from_slice(&frame);
            out.push(Ok(Bytes::from(frame)));
        }
        (all, stream::iter(out).boxed())
    }

    async fn read(held: &Held) -> Vec<u8> {
        held.read().unwrap().map(|frame| frame.unwrap().to_vec()).concat().await
    }

    #[tokio::test]
    async fn in_memory_and_in_a_file_alike() {
        let budget = Budget::new(1 << 20, 1 << 20, Spool::Files(None));
        let sizes = [1, 5, 300_000, 7, 20_000, 0, 299_987];
        for (round, spilled) in [(0, false), (1, true)] {
            let taken = spilled.then(|| budget.reserve(1 << 19).unwrap());
            let (all, mut body) = frames(&sizes);
            let held = budget.hold(Some(all.len() as u64), 1 << 20, &mut body).await.unwrap();
            assert_eq!(matches!(held.place, Place::File { .. }), spilled, "round {round}");
            assert_eq!(read(&held).await, all);
            assert_eq!(read(&held).await, all, "read a second time");
            drop((held, taken));
            assert_eq!(budget.free(), 1024, "all is freed");
        }
    }

    #[tokio::test]
    async fn a_stalled_body_that_found_no_budget_holds_no_memory() {
        let paid = Budget::new(0, 1 << 20, Spool::Files(None));
        let paid = reserve(&paid.files, 1).unwrap();
        let mut held = Spool::Files(None).held(paid).await.unwrap();
        held.push(Bytes::from_static(b"some")).await.unwrap();
        assert!(held.is_gathering());
        let (more, mut body) = tokio::sync::mpsc::channel::<Result<Bytes>>(1);
        let mut body = stream::poll_fn(move |cx| body.poll_recv(cx)).boxed();
        assert!(matches!(
            next(&mut body, held.is_gathering()).await.unwrap(),
            Next::Idle
        ));
        held.flush().await.unwrap();
        let Place::File { pending, .. } = &held.place else {
            panic!("it is in memory");
        };
        assert_eq!(pending.capacity(), 0);
        more.send(Ok(Bytes::from_static(b"thing"))).await.unwrap();
        let Next::Frame(frame) = next(&mut body, held.is_gathering()).await.unwrap() else {
            panic!("the frame is lost");
        };
        held.push(frame).await.unwrap();
        held.seal().await.unwrap();
        assert_eq!(read(&held).await, b"something");
    }

    #[tokio::test]
    async fn a_body_of_another_length_is_refused() {
        let budget = Budget::new(1 << 20, 1 << 20, Spool::Files(None));
        for (announced, kind) in [
            (Some(9), ErrorKind::Invalid),
            (Some(11), ErrorKind::Interrupted),
            (Some(33), ErrorKind::TooLarge),
        ] {
            let (_, mut body) = frames(&[10]);
            assert_eq!(
                budget.hold(announced, 32, &mut body).await.unwrap_err().kind(),
                kind,
                "{announced:?}"
            );
        }
        let (_, mut body) = frames(&[10, 30]);
        assert_eq!(
            budget.hold(None, 32, &mut body).await.unwrap_err().kind(),
            ErrorKind::TooLarge
        );
        assert_eq!(budget.free(), 1024);
    }

    #[tokio::test]
    async fn temporary_files_are_bounded_too() {
        let budget = Budget::new(0, 16 << 10, Spool::Files(None));
        let hold = async |len: usize| budget.hold(Some(len as u64), 1 << 20, &mut frames(&[len]).1).await;
        let first = hold(10 << 10).await.unwrap();
        assert_eq!(hold(10 << 10).await.unwrap_err().kind(), ErrorKind::Unavailable);
        drop(first);
        assert!(hold(10 << 10).await.is_ok());
    }
}
