//! Reads on the thread that asks for them, of what is in memory: most are over sooner than another thread has woken up.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::detour::Detour;

/// Parts that are read here at most: decoding many takes as long as a switch to another thread, and longer.
pub(super) const FEW: u32 = 64;

thread_local! {
    static IS_NEAR: Cell<bool> = const { Cell::new(false) };
}

/// Whether reads are done where they are asked for, one at a time: a thread of the runtime that must wait for the disk after all
/// is the only one that does, until it is over and for a while after it. The others come by way of the pool.
#[derive(Debug)]
pub(super) struct Near {
    alone: Mutex<()>,
    detour: Detour,
    /// The file system cannot say what is in memory.
    never: AtomicBool,
}

impl Near {
    pub(super) fn new() -> Self {
        Self {
            alone: Mutex::default(),
            detour: Detour::new(),
            never: AtomicBool::new(false),
        }
    }

    /// A runtime of one thread would do nothing else while a disk does not answer.
    fn is_open(&self) -> bool {
        use tokio::runtime::{Handle, RuntimeFlavor};
        cfg!(target_os = "linux")
            && !self.never.load(Ordering::Relaxed)
            && !self.detour.is_on()
            && Handle::try_current().is_ok_and(|runtime| {
                runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1
            })
    }

    /// Runs what reads here, if that may be. One that panics, over a damaged file, is as one that was not run.
    pub(super) fn run<T>(&self, read: impl FnOnce() -> T) -> Option<T> {
        struct Ended;
        impl Drop for Ended {
            fn drop(&mut self) {
                IS_NEAR.set(false);
            }
        }
        if !self.is_open() {
            return None;
        }
        let _alone = match self.alone.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        IS_NEAR.set(true);
        let _ended = Ended;
        catch_unwind(AssertUnwindSafe(read)).ok()
    }

    /// Says that what reads may have to wait soon.
    pub(super) fn keep_away(&self) {
        self.detour.begin();
    }

    /// Fills `out` from the page cache, if this thread is to read no further than that and all of it is there.
    #[cfg(target_os = "linux")]
    pub(super) fn reads(&self, file: &std::fs::File, offset: u64, out: &mut [u8]) -> bool {
        use std::io::IoSliceMut;

        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        if !IS_NEAR.get() {
            return false;
        }
        let wanted = out.len();
        let read = preadv2(file, &mut [IoSliceMut::new(out)], offset, ReadWriteFlags::NOWAIT);
        if matches!(read, Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) {
            self.never.store(true, Ordering::Relaxed);
        }
        let is_there = read.is_ok_and(|read| read == wanted);
        if !is_there {
            self.detour.begin();
        }
        is_there
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs::File, io::Write as _};

    use super::*;

    fn file() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_memory_has_is_read_here_and_what_it_has_not_ends_that() {
        let (near, file, mut out) = (Near::new(), file(), [0; 4]);
        assert!(!near.reads(&file, 3, &mut out), "nobody asked for it to be read here");
        let is_there = near.run(|| near.reads(&file, 3, &mut out));
        if near.never.load(Ordering::Relaxed) {
            println!("skipped: the file system of temporary files cannot say what is in memory");
            assert_eq!(near.run(|| 1), None);
            return;
        }
        assert_eq!(is_there, Some(true));
        assert_eq!(&out, b"3456");
        assert_eq!(near.run(|| near.run(|| 1)), Some(None), "one at a time");
        assert_eq!(near.run(|| panic!("of a damaged page")), None::<()>);
        assert_eq!(
            near.run(|| near.reads(&file, 8, &mut out)),
            Some(false),
            "only a part of it is there"
        );
        assert_eq!(near.run(|| 1), None);
        tokio::time::sleep(Detour::TIME).await;
        assert_eq!(near.run(|| 1), Some(1));
        assert!(!IS_NEAR.get());
        near.keep_away();
        assert_eq!(near.run(|| 1), None);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_never_reads_itself() {
        assert_eq!(Near::new().run(|| 1), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn one_worker_is_one_thread() {
        assert_eq!(Near::new().run(|| 1), None);
    }
}
