//! PATCH, and the body of a creation.

use std::sync::{Arc, OnceLock};

use http::HeaderMap;

use super::{Answer, finish, headers, refuse_ended, render, render::Fault};
use crate::{
    access::{Action, Caller},
    engine::{Appended, NewAppend, Upload, Uploads},
    error::{Error, ErrorKind, Result},
    http::{body::RequestBody, dialect::Exchange},
    upload::{Concat, Digest, Layout, State, UploadId},
};

type Trailers = Arc<OnceLock<HeaderMap>>;

/// The body of a request and what its headers say of it.
pub(super) struct Sending {
    pub(super) body: RequestBody,
    checksum: Expected,
}

/// Where the checksum of the body is.
enum Expected {
    Nowhere(Trailers),
    Header(Digest),
    Trailer(Trailers),
}

impl Sending {
    pub(super) fn of(headers: &HeaderMap, body: RequestBody) -> Result<Self> {
        let trailers = body.trailers();
        let checksum = match headers::one(headers, "Upload-Checksum")? {
            Some(text) => Expected::Header(headers::checksum(text)?),
            None if headers::announces_checksum(headers) => Expected::Trailer(trailers),
            None => Expected::Nowhere(trailers),
        };
        Ok(Self { body, checksum })
    }

    /// Appends it all, or of what has no checksum as much as comes.
    pub(super) async fn append(
        self,
        uploads: &Uploads,
        caller: &Caller,
        id: UploadId,
        offset: u64,
    ) -> Result<Appended> {
        let mut append = NewAppend::new().seals_when_whole();
        if let Some(len) = self.body.announced() {
            append = append.len(len);
        }
        let mut unannounced = None;
        match self.checksum {
            Expected::Header(digest) => append = append.checksum(digest),
            Expected::Trailer(trailers) => {
                append = append.checksum_later(headers::ALGORITHMS, move || {
                    let text = trailers.get().map(|trailers| headers::one(trailers, "Upload-Checksum"));
                    let missing = "The Upload-Checksum that Trailer announced did not come; send the bytes again";
                    let text = text.transpose()?.flatten();
                    headers::checksum(text.ok_or_else(|| Error::invalid("Upload-Checksum", missing))?)
                });
            }
            Expected::Nowhere(trailers) => unannounced = Some(trailers),
        }
        let appended = uploads.append_with(caller, id, offset, append, self.body).await?;
        match unannounced.as_ref().and_then(|trailers| trailers.get()) {
            // It is too late to compare the bytes, and to be silent would say that they were compared.
            Some(trailers) if trailers.contains_key("upload-checksum") => Err(Error::invalid(
                "Upload-Checksum",
                "Upload-Checksum came as a trailer that was not announced, so the bytes were stored without it; announce it with \
                 Trailer: Upload-Checksum",
            )),
            _ => Ok(appended),
        }
    }

    /// Refuses more than no bytes.
    async fn refuse_bytes(mut self) -> Result<()> {
        if self.body.is_empty().await? {
            return Ok(());
        }
        Err(Error::too_large("The upload has all its bytes and takes no more", 0))
    }
}

pub(super) async fn answer(exchange: Exchange, id: UploadId) -> Answer {
    let Exchange {
        uploads,
        caller,
        parts,
        body,
        ..
    } = exchange;
    if !headers::is_offset_stream(&parts.headers) {
        return Err(wrong_type().into());
    }
    let offset = headers::one(&parts.headers, "Upload-Offset")?;
    let missing = || {
        Error::invalid(
            "Upload-Offset",
            "Upload-Offset is missing: it says where the bytes begin",
        )
    };
    let offset = headers::number("Upload-Offset", offset.ok_or_else(missing)?)?;
    let size = headers::one(&parts.headers, "Upload-Length")?;
    let size = size.map(|text| headers::number("Upload-Length", text)).transpose()?;
    let sending = Sending::of(&parts.headers, body)?;
    let upload = uploads.glance(&caller, id, Action::Write).await?;
    match append(&uploads, &caller, &upload, offset, size, sending).await {
        // What is whole does not expire, nor does what never does.
        Ok((end, true)) => Ok(render::appended(end, None)),
        Ok((end, _)) if upload.expires_at().is_none() => Ok(render::appended(end, None)),
        Ok((end, _)) => {
            let now = uploads.glance(&caller, id, Action::Write).await;
            Ok(render::appended(end, now.ok().as_ref()))
        }
        Err(error) => match uploads.glance(&caller, id, Action::Write).await {
            // Of numbered chunks it is not known without them.
            Ok(now) if refuse_ended(&now).is_ok() && now.plan().layout == Layout::Sequential => {
                Err(Fault::At(error, Box::new(now)))
            }
            _ => Err(error.into()),
        },
    }
}

pub(super) fn wrong_type() -> Error {
    let message = "Bytes of a file are sent as application/offset+octet-stream";
    Error::new(ErrorKind::UnsupportedMediaType, message)
}

/// Answers where the upload ends then, and whether that is the end of its file.
async fn append(
    uploads: &Uploads,
    caller: &Caller,
    upload: &Upload,
    offset: u64,
    size: Option<u64>,
    sending: Sending,
) -> Result<(u64, bool)> {
    let id = upload.id();
    refuse_ended(upload)?;
    if matches!(upload.concat(), Some(Concat::Final(_))) {
        let message = "This upload is made of partial ones and takes no bytes of its own";
        return Err(Error::new(ErrorKind::Forbidden, message));
    }
    if upload.plan().layout == Layout::Indexed {
        let message = "This upload takes numbered chunks; go on with it by the chunk API";
        return Err(Error::new(ErrorKind::Forbidden, message));
    }
    if let (Some(size), Some(known)) = (size, upload.size())
        && size != known
    {
        let message = format!("The upload has {known} bytes; its length changes no more");
        return Err(Error::invalid("Upload-Length", message));
    }
    if upload.state() != State::Open {
        let end = upload.size().unwrap_or_else(|| upload.offset());
        if offset != end {
            return Err(Error::offset_mismatch(end));
        }
        sending.refuse_bytes().await?;
        finish(uploads, caller, id).await?;
        return Ok((end, true));
    }
    let (appended, sealed) = match size.filter(|_| upload.size().is_none()) {
        None => (sending.append(uploads, caller, id, offset).await?, false),
        Some(size) => {
            // A request that cannot succeed does not fix the length either.
            let end = upload.offset();
            if offset != end {
                return Err(Error::offset_mismatch(end));
            }
            let room = size
                .checked_sub(offset)
                .ok_or_else(|| Error::invalid("Upload-Length", format!("The upload has {offset} bytes already")))?;
            if sending.body.announced().is_some_and(|len| len > room) {
                return Err(Error::too_large(
                    format!("The upload has room for {room} bytes more"),
                    room,
                ));
            }
            if room > 0 {
                uploads.set_size(caller, id, size).await?;
                (sending.append(uploads, caller, id, offset).await?, false)
            } else {
                // The length would seal the upload, which then compares no checksum any more.
                let checked = Sending {
                    body: sending.body.limited(0),
                    ..sending
                };
                let appended = checked.append(uploads, caller, id, offset).await?;
                uploads.set_size(caller, id, size).await?;
                (appended, true)
            }
        }
    };
    let is_whole = (appended.is_complete || sealed) && !matches!(upload.concat(), Some(Concat::Partial));
    if is_whole {
        finish(uploads, caller, id).await?;
    }
    Ok((appended.offset, is_whole))
}

/// What came of the body of a creation.
pub(super) enum Brought {
    /// It counts as far as the upload now says; the client can go on from there.
    Stored,
    /// It was refused, and nothing of it shall stay.
    Refused(Error),
}

/// Appends the body of a creation to the upload that it created.
pub(super) async fn first(uploads: &Uploads, caller: &Caller, upload: &Upload, sending: Sending) -> Brought {
    let appended = match sending.append(uploads, caller, upload.id(), 0).await {
        Ok(appended) if appended.is_complete && upload.concat().is_none() => finish(uploads, caller, upload.id()).await,
        appended => appended.map(|_| ()),
    };
    match appended {
        Ok(()) => Brought::Stored,
        // The client is told how far it came, and needs the place of the upload to go on.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Interrupted
                    | ErrorKind::TooSlow
                    | ErrorKind::Superseded
                    | ErrorKind::QuotaExceeded
                    | ErrorKind::Unavailable
                    | ErrorKind::NoSpace
                    | ErrorKind::Internal
            ) =>
        {
            tracing::debug!(id = %upload.id(), %error, "the body of a creation was stored in part");
            Brought::Stored
        }
        Err(error) => Brought::Refused(error),
    }
}
