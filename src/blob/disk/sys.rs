//! The one system call that no safe wrapper has.
#![allow(unsafe_code)]

use std::fs::File;

/// Starts writing these bytes back, without waiting and without any promise: what fails is told by
/// the sync.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn start_writeback(file: &File, offset: u64, len: u64) {
    use std::os::fd::AsRawFd as _;

    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else {
        return;
    };
    // SAFETY: the call takes no pointer, and the descriptor is open for as long as `file` is borrowed.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// Does nothing where there is no such call.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn start_writeback(_: &File, _: u64, _: u64) {}
