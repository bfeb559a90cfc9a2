//! Creation: any method with a body, on the collection.

use http::{HeaderValue, StatusCode};

use super::{
    Answer, LENGTH, OFFSET, Talk,
    append::Append,
    inconsistent,
    interim::Announcer,
    media_type,
    render::{Fault, Fields, Reply},
    representation::described,
};
use crate::{
    access::Caller,
    engine::{Upload, Uploads},
    error::{Error, ErrorKind},
    http::{body::RequestBody, content_digest, door::refuse_length, structured::field_integer},
    upload::{Protocol, UploadId},
};

impl Talk {
    /// Creates an upload and takes in what the body has of it.
    pub(super) async fn create(&self, body: RequestBody) -> Answer {
        self.uploads.admit(&self.caller).await?;
        let said = self.complete()?;
        let answer = self.create_with(said, body).await;
        if said.is_some() {
            return answer;
        }
        // Whoever does not speak the protocol hears nothing of it.
        let plain = |fields: &mut Fields| {
            *fields = Fields {
                digest: fields.digest.take(),
                ..Fields::default()
            };
        };
        match answer {
            Ok(mut reply) => {
                plain(&mut reply.fields);
                Ok(reply)
            }
            Err(mut fault) => {
                plain(&mut fault.fields);
                Err(fault)
            }
        }
    }

    async fn create_with(&self, said: Option<bool>, body: RequestBody) -> Answer {
        let headers = &self.parts.headers;
        refuse_length(&self.parts)?;
        if field_integer(headers, OFFSET).is_some_and(|offset| offset > 0) {
            return Err(Error::invalid(OFFSET, "A new upload begins at byte 0; append to the one there is").into());
        }
        if said.is_none() && media_type(headers).is_some_and(|media| media.starts_with("multipart/")) {
            let message = "The body is the file itself here; send it as it is, not in a form";
            return Err(Error::new(ErrorKind::UnsupportedMediaType, message).into());
        }
        let complete = said.unwrap_or(true);
        let announced = body.announced();
        let promised = said.and_then(|_| field_integer(headers, LENGTH));
        let size = promised.or(announced.filter(|_| complete));
        if let (Some(len), Some(size)) = (announced, size)
            && (len > size || complete && len != size)
        {
            return Err(inconsistent(format!("The file has {size} bytes, but {len} are sent")));
        }
        let is_careful = !complete && announced == Some(0);
        self.refuse_size(announced, complete || is_careful)?;
        content_digest::of(headers)?;
        let mut new = described(headers, self.resumable.file_name.as_ref())?.protocol(Protocol::Resumable);
        if let Some(size) = size {
            new = new.size(size);
        }
        if let Some(checksum) = content_digest::of_whole(headers)? {
            new = new.checksum(checksum);
        }
        if let Some(algorithm) = content_digest::wanted(headers) {
            new = new.digest(algorithm);
        }
        let upload = self.uploads.create(&self.caller, new).await?;
        let url = self.settings.file_url(&self.parts, upload.id());
        let location = HeaderValue::try_from(url).ok();
        let mut unnamed = said.is_none().then(|| Unnamed::new(self, upload.id()));
        let announcer = said.and_then(|_| Announcer::of(&self.parts, self.rules));
        if let (Some(announcer), Some(location)) = (&announcer, &location) {
            announcer.created(location, self.limits(&upload).as_ref());
        }
        let append = Append {
            id: upload.id(),
            offset: 0,
            size,
            complete,
        };
        let offset = if is_careful {
            0
        } else {
            match self.receive(append, announcer, body).await {
                Ok(appended) => appended.offset,
                Err(fault) => return Err(self.not_begun(&upload, location, fault).await),
            }
        };
        let mut answer = if complete {
            self.conclude(upload.id()).await
        } else {
            let fields = Fields {
                offset: Some(offset),
                complete: Some(false),
                limits: self.limits(&upload),
                ..Fields::default()
            };
            Ok(Reply::new(StatusCode::CREATED, fields))
        };
        match &mut answer {
            Ok(reply) => {
                reply.fields.location = location;
                if let Some(unnamed) = &mut unnamed {
                    unnamed.answered();
                }
            }
            Err(fault) => fault.fields.location = location,
        }
        answer
    }

    /// The body was not taken in to its end. Where it can be gone on with, the client is told where; bytes that are not what they
    /// should be leave nothing behind.
    async fn not_begun(&self, upload: &Upload, location: Option<HeaderValue>, mut fault: Fault) -> Fault {
        if fault.error.kind() == ErrorKind::ChecksumMismatch {
            if let Err(error) = self.uploads.abort(&self.caller, upload.id()).await {
                tracing::debug!(%error, "an upload that failed at its creation is left to expire");
            }
        } else {
            fault.fields.location = location;
        }
        fault
    }
}

/// An upload whose client does not know where it is: unless its request is answered with success, nothing of it is left, so that
/// the client can send it again.
struct Unnamed {
    uploads: Uploads,
    caller: Caller,
    id: Option<UploadId>,
}

impl Unnamed {
    fn new(talk: &Talk, id: UploadId) -> Self {
        Self {
            uploads: talk.uploads.clone(),
            caller: talk.caller.clone(),
            id: Some(id),
        }
    }

    /// The client has its answer, and the upload stays.
    fn answered(&mut self) {
        self.id = None;
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        // Without a runtime the process is ending, and expiry sees to it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (uploads, caller) = (self.uploads.clone(), self.caller.clone());
            runtime.spawn(async move {
                if let Err(error) = uploads.abort(&caller, id).await {
                    tracing::debug!(%error, "an upload whose client is gone is left to expire");
                }
            });
        }
    }
}
