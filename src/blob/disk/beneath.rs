//! Paths beneath a directory, on which no symbolic link is followed.

use std::{fs::File, io};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::fs::split;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const PARENT: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) const PARENT: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// Opens `path`, of which no segment may be a symbolic link, beneath `dir`.
pub(super) fn beneath(dir: &File, path: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = if flags.contains(OFlags::CREATE) {
        mode
    } else {
        Mode::empty()
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    loop {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(dir, path, flags, mode, resolve) {
            Ok(file) => return Ok(file.into()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Old kernels do not have it, sandboxes may forbid it.
            Err(Errno::NOSYS | Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    by_segment(dir, path, flags, mode)
}

/// As [`beneath`], one segment after the other.
pub(super) fn by_segment(dir: &File, path: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
    let (folders, name) = split(path);
    let mut at = dir.try_clone()?;
    for segment in folders.split('/').filter(|segment| *segment != ".") {
        if segment == ".." {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = PARENT | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        at = rustix::fs::openat(&at, segment, flags, Mode::empty())?.into();
    }
    if name == ".." {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(rustix::fs::openat(&at, name, flags, mode)?.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn without_openat2_no_link_is_followed_either() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret"), b"").unwrap();
        std::fs::create_dir(inside.path().join("folder")).unwrap();
        std::fs::write(inside.path().join("folder/file"), b"").unwrap();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink(outside.path().join("secret"), inside.path().join("link")).unwrap();
        let dir = File::open(inside.path()).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for open in [beneath, by_segment] {
            for path in [".", "folder", "folder/file"] {
                open(&dir, path, flags, Mode::empty()).unwrap();
            }
            for path in ["out/secret", "link", "../x", "..", "folder/../folder/file/../../.."] {
                assert!(open(&dir, path, flags, Mode::empty()).is_err(), "{path}");
            }
        }
    }
}
