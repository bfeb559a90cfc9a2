//! The secrets that addresses are signed with: made once, and kept, so that an address outlives a restart.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use tower_upload::http::UrlSigner;

use super::{BoxError, ticket};

const FILE: &str = "signing.key";
const LEN: usize = UrlSigner::MIN_KEY + ticket::KEY;

/// What the file holds, one after the other.
pub struct Keys {
    pub addresses: [u8; UrlSigner::MIN_KEY],
    pub tickets: [u8; ticket::KEY],
}

impl Keys {
    /// Those in `data`; if there are none they are made. Blocks.
    pub fn open(data: &Path) -> Result<Self, BoxError> {
        let path = data.join(FILE);
        if !path.try_exists()? {
            make(data, &path)?;
        }
        let bytes = fs::read(&path)?;
        let mode = fs::metadata(&path)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(
                "others may read {}: whoever does can sign addresses; chmod 600",
                path.display()
            );
        }
        let damaged = || {
            let path = path.display();
            format!("{path} has not {LEN} bytes; delete it for a new one, which voids the addresses given out so far")
        };
        let (addresses, tickets) = bytes.split_first_chunk().ok_or_else(damaged)?;
        Ok(Self {
            addresses: *addresses,
            tickets: tickets.try_into().map_err(|_| damaged())?,
        })
    }
}

/// Whole or not at all; of several servers that begin at once one makes it for all.
fn make(data: &Path, path: &Path) -> Result<(), BoxError> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes)?;
    // Readable by its owner alone from the beginning.
    let mut new = tempfile::NamedTempFile::new_in(data)?;
    new.write_all(&bytes)?;
    new.as_file().sync_all()?;
    match new.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error.into()),
        _ => Ok(fs::File::open(data)?.sync_all()?),
    }
}
