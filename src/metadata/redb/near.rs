//! Reads on the thread that asks for them, of what is in memory: most are over sooner than another thread has woken up.

use std::cell::Cell;

use crate::detour::Detour;

/// Parts that are read here at most: decoding many takes as long as a switch to another thread, and longer.
pub(super) const FEW: u32 = 64;

thread_local! {
    static IS_NEAR: Cell<bool> = const { Cell::new(false) };
}

/// Whether reads are done where they are asked for. One that needs the disk ends that for a while: at most one thread of a
/// runtime waits for it, and others come by way of the pool.
#[derive(Debug)]
pub(super) struct Near {
    detour: Detour,
}

impl Near {
    pub(super) fn new() -> Self {
        Self { detour: Detour::new() }
    }

    /// A runtime of one thread would do nothing else while a disk does not answer.
    pub(super) fn is_open(&self) -> bool {
        use tokio::runtime::{Handle, RuntimeFlavor};
        cfg!(target_os = "linux")
            && !self.detour.is_on()
            && Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
    }

    /// Runs what reads here.
    pub(super) fn run<T>(&self, read: impl FnOnce() -> T) -> T {
        struct Ended;
        impl Drop for Ended {
            fn drop(&mut self) {
                IS_NEAR.set(false);
            }
        }
        IS_NEAR.set(true);
        let _ended = Ended;
        read()
    }

    /// Fills `out` from the page cache, if this thread is to read no further than that and all of it is there.
    #[cfg(target_os = "linux")]
    pub(super) fn reads(&self, file: &std::fs::File, offset: u64, out: &mut [u8]) -> bool {
        use std::io::IoSliceMut;

        use rustix::io::{ReadWriteFlags, preadv2};
        if !IS_NEAR.get() {
            return false;
        }
        let wanted = out.len();
        let read = preadv2(file, &mut [IoSliceMut::new(out)], offset, ReadWriteFlags::NOWAIT);
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
        // Not where temporary files lie, which may be a file system in memory that waits for nothing.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(b"0123456789").unwrap();
        file
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_memory_has_is_read_here_and_what_it_has_not_ends_that() {
        let (near, file, mut out) = (Near::new(), file(), [0; 4]);
        assert!(near.is_open());
        assert!(!near.reads(&file, 3, &mut out), "nobody asked for it to be read here");
        assert!(near.run(|| near.reads(&file, 3, &mut out)));
        assert_eq!(&out, b"3456");
        assert!(near.is_open());
        assert!(
            !near.run(|| near.reads(&file, 8, &mut out)),
            "only a part of it is there"
        );
        assert!(!near.is_open());
        tokio::time::sleep(Detour::TIME).await;
        assert!(near.is_open());
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_never_reads_itself() {
        assert!(!Near::new().is_open());
    }
}
