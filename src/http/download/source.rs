//! Where the bytes of a content are had from.

use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt as _, stream};

use super::without_content;
use crate::{
    access::Caller,
    blob::{BlobBody, ByteRange},
    engine::{Upload, Uploads},
    error::{Error, Result},
    upload::{DerivedName, Key, UploadId},
};

#[derive(Clone, Debug)]
pub(in crate::http) enum Source {
    Stored(Stored),
    Memory(Bytes),
}

/// In the blob store.
#[derive(Clone, Debug)]
pub(in crate::http) struct Stored {
    uploads: Uploads,
    caller: Caller,
    id: UploadId,
    /// What was made of the upload's blob; without a name it is the blob itself.
    name: Option<DerivedName>,
    key: Key,
}

impl Source {
    pub(super) fn blob(uploads: &Uploads, caller: &Caller, upload: &Upload) -> Self {
        Self::stored(uploads, caller, upload.id(), None, upload.key().clone())
    }

    pub(super) fn derived(uploads: &Uploads, caller: &Caller, id: UploadId, name: &DerivedName, key: Key) -> Self {
        Self::stored(uploads, caller, id, Some(name.clone()), key)
    }

    fn stored(uploads: &Uploads, caller: &Caller, id: UploadId, name: Option<DerivedName>, key: Key) -> Self {
        Self::Stored(Stored {
            uploads: uploads.clone(),
            caller: caller.clone(),
            id,
            name,
            key,
        })
    }

    /// For a caller who has just been allowed to.
    pub(super) async fn open_now(&self, range: ByteRange) -> Result<BlobBody> {
        match self {
            Self::Memory(bytes) => slice(bytes, range),
            Self::Stored(stored) => {
                let read = stored.uploads.read_key(&stored.key, range).await;
                read.map_err(without_content)
            }
        }
    }

    /// Asks once more whether the caller may: much may have happened since the answer began.
    pub(super) async fn open(&self, range: ByteRange) -> Result<BlobBody> {
        let Stored {
            uploads,
            caller,
            id,
            name,
            ..
        } = match self {
            Self::Memory(bytes) => return slice(bytes, range),
            Self::Stored(stored) => stored,
        };
        let read = match name {
            None => uploads.read(caller, *id, range).await,
            Some(name) => uploads.read_derived(caller, *id, name.as_str(), range).await,
        };
        read.map(|(_, bytes)| bytes).map_err(without_content)
    }
}

fn slice(bytes: &Bytes, range: ByteRange) -> Result<BlobBody> {
    let at = |place: u64| usize::try_from(place).map_or(bytes.len(), |place| place.min(bytes.len()));
    let (start, end) = (at(range.start), range.end.map_or(bytes.len(), at));
    if start > end {
        return Err(Error::invalid("range", "The range is not within the file"));
    }
    let bytes = bytes.slice(start..end);
    Ok(Box::pin(stream::iter([Ok(bytes)])))
}

/// All bytes of a small file.
pub(super) async fn whole(uploads: &Uploads, key: &Key) -> Result<Bytes> {
    let body = uploads.read_key(key, ByteRange::ALL).await?;
    let bytes = body.try_fold(BytesMut::new(), async |mut all, bytes| {
        all.extend_from_slice(&bytes);
        Ok(all)
    });
    bytes.await.map(BytesMut::freeze)
}
