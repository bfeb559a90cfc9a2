//! Concatenation: one upload made of others that were sent side by side.

use super::{NewUpload, Upload, Uploads};
use crate::{
    access::Caller,
    error::{Error, Result},
    upload::UploadId,
};

impl Uploads {
    /// Creates an upload that is `partials`, in this order. A partial may be named more than once.
    ///
    /// Each partial is authorised for `caller` by itself, and its expiry is extended first. Unless `unfinished` ones are
    /// allowed, all of them must have all their bytes; the bytes are joined and published before this answers, and by the
    /// driver if this is cut off. A partial that is lost on the way makes the upload fail, never short. The partials end with
    /// the publication.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Invalid`](crate::ErrorKind::Invalid) for what is not a partial, or not finished;
    /// [`TooLarge`](crate::ErrorKind::TooLarge) for the sum; those of [`create`](Self::create).
    pub async fn concatenate(
        &self,
        caller: &Caller,
        new: NewUpload,
        partials: &[UploadId],
        unfinished: bool,
    ) -> Result<Upload> {
        let _ = (caller, new, partials, unfinished);
        Err(Error::internal("Concatenation is not there yet"))
    }
}
