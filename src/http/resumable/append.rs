//! Appends: PATCH, and the body of a creation.

use super::{
    Answer, LENGTH, OFFSET, PARTIAL_UPLOAD, Talk, alive, inconsistent,
    interim::Announcer,
    media_type, mismatch, offset,
    render::{Fault, Fields, Reply, Type},
};
use crate::{
    engine::{Appended, NewAppend, Upload},
    error::{Error, ErrorKind},
    http::{body::RequestBody, content_digest, door::refuse_length, structured::field_integer},
    upload::{Concat, Layout, Protocol, State, UploadId},
};

/// Where a body goes.
pub(super) struct Append {
    pub(super) id: UploadId,
    pub(super) offset: u64,
    /// Of the whole file, as far as it is known.
    pub(super) size: Option<u64>,
    /// Whether the end of the body is that of the file.
    pub(super) complete: bool,
}

impl Talk {
    /// Goes on with an upload.
    pub(super) async fn append(&self, mut upload: Upload, body: RequestBody) -> Answer {
        let headers = &self.parts.headers;
        refuse_length(&self.parts)?;
        if self.rules.has_media_type && media_type(headers).as_deref() != Some(PARTIAL_UPLOAD) {
            let message = "Send the bytes of an append as application/partial-upload";
            return Err(Error::new(ErrorKind::UnsupportedMediaType, message).into());
        }
        let at = field_integer(headers, OFFSET).ok_or_else(|| required(OFFSET))?;
        let complete = match self.complete()? {
            Some(complete) => complete,
            None if self.rules.must_say_complete => return Err(required(self.rules.complete_field())),
            None => true,
        };
        alive(&upload)?;
        refuse_foreign(&upload, complete)?;
        if upload.state() == State::Open && offset(&upload) != at {
            // Whoever still sends may have stored more by now: only once he is stopped the offset stays true.
            upload = self.uploads.take_over(&self.caller, upload.id()).await?;
            alive(&upload)?;
        }
        if upload.state() != State::Open {
            return self.again(&upload, at, complete, body).await;
        }
        if offset(&upload) != at {
            return Err(mismatch(offset(&upload), at));
        }
        let announced = body.announced();
        let promised = field_integer(headers, LENGTH);
        let end = announced.map(|len| at.saturating_add(len));
        let known = upload.size().or(promised).or(end.filter(|_| complete));
        if let Some(size) = known {
            self.check_lengths(&upload, size, promised, end, complete).await?;
        }
        self.refuse_size(announced, complete)?;
        content_digest::of(headers)?;
        if let (None, Some(size)) = (upload.size(), known) {
            let fixed = self.uploads.set_size(&self.caller, upload.id(), size).await?;
            if fixed.state() != State::Open {
                // It had all its bytes, and sealed itself.
                return self.again(&fixed, at, complete, body).await;
            }
        }
        let append = Append {
            id: upload.id(),
            offset: at,
            size: known,
            complete,
        };
        let appended = self
            .receive(append, Announcer::of(&self.parts, self.rules), body)
            .await?;
        if complete {
            return self.conclude(upload.id()).await;
        }
        if appended.is_complete && upload.record().seals_itself {
            // As the protocol wants it that created it; how that ends, the append after this one is told.
            let _ = self.uploads.assemble(&self.caller, upload.id(), None).await;
        }
        let fields = Fields {
            offset: Some(appended.offset),
            complete: Some(false),
            limits: self.limits(&upload),
            ..Fields::default()
        };
        Ok(Reply::new(self.rules.appended, fields))
    }

    /// All lengths that are told must be one, and nothing may come after it.
    async fn check_lengths(
        &self,
        upload: &Upload,
        size: u64,
        promised: Option<u64>,
        end: Option<u64>,
        complete: bool,
    ) -> Result<(), Fault> {
        if let Some(end) = end.filter(|end| upload.size().is_some() && *end > size) {
            return Err(self.overrun(upload.id(), size, Some(end)).await);
        }
        if let Some(other) = promised.filter(|promised| *promised != size) {
            return Err(inconsistent(format!("The file has {size} bytes, not {other}")));
        }
        if size < upload.offset() {
            return Err(inconsistent(format!("The upload has more than {size} bytes already")));
        }
        match end {
            Some(end) if end > size || complete && end != size => Err(inconsistent(format!(
                "The file has {size} bytes, but would end after {end}"
            ))),
            _ => Ok(()),
        }
    }

    /// An append after the last one. If it adds nothing it asks how the upload ended.
    async fn again(&self, upload: &Upload, at: u64, complete: bool, mut body: RequestBody) -> Answer {
        let size = offset(upload);
        // No client of ours has been answered yet, or it spoke another protocol.
        let is_news = upload.state() == State::Assembling || upload.protocol() != Protocol::Resumable;
        let may_ask = self.rules.replays || is_news;
        if may_ask && at != size {
            return Err(mismatch(size, at));
        }
        let promised = field_integer(&self.parts.headers, LENGTH);
        if let Some(other) = promised.filter(|promised| *promised != size) {
            return Err(inconsistent(format!("The file has {size} bytes, not {other}")));
        }
        if may_ask && complete && body.is_empty().await? {
            return self.conclude(upload.id()).await;
        }
        let message = "The upload is complete; it takes no more bytes";
        let mut fault = Fault::from(Error::invalid(OFFSET, message));
        fault.kind = self.rules.has_completed_problem.then_some(Type::Completed);
        Err(fault)
    }

    /// Takes a body in.
    pub(super) async fn receive(
        &self,
        append: Append,
        announcer: Option<Announcer>,
        body: RequestBody,
    ) -> Result<Appended, Fault> {
        let room = append.size.map(|size| size.saturating_sub(append.offset));
        let max = self.resumable.max_append_size;
        let limit = max.filter(|max| room.is_none_or(|room| *max < room));
        let mut new = NewAppend::new();
        if let Some(len) = body.announced() {
            new = new.len(len);
        }
        if let Some(checksum) = content_digest::of(&self.parts.headers)? {
            new = new.checksum(checksum);
        }
        if append.complete {
            new = new.completes();
        }
        if let Some(announcer) = announcer {
            new = new.on_progress(move |offset| announcer.progress(offset));
        }
        let body = match limit {
            Some(bytes) => body.limited(bytes),
            None => body,
        };
        let appended = self
            .uploads
            .append_with(&self.caller, append.id, append.offset, new, body);
        match (appended.await, append.size) {
            (Err(error), Some(size)) if error.kind() == ErrorKind::TooLarge && limit.is_none() => {
                // More came than was announced: what fits was kept, and is all there is room for.
                let upload = self.uploads.status(&self.caller, append.id).await?;
                if offset(&upload) < size {
                    return Err(error.into());
                }
                Err(self.overrun(append.id, size, None).await)
            }
            (Err(error), Some(_)) if error.field() == Some("size") => Err(inconsistent(error.message().to_owned())),
            (appended, _) => Ok(appended?),
        }
    }

    /// More bytes than the file has: nobody knows which of them are right, so the upload is given up.
    async fn overrun(&self, id: UploadId, size: u64, end: Option<u64>) -> Fault {
        if let Err(error) = self.uploads.abort(&self.caller, id).await {
            return error.into();
        }
        let sent = end.map_or("more".to_owned(), |end| end.to_string());
        inconsistent(format!(
            "The file has {size} bytes, but {sent} were sent; the upload was given up, begin a new one"
        ))
    }
}

/// Refuses appends where the protocol that created the upload has none.
fn refuse_foreign(upload: &Upload, complete: bool) -> Result<(), Fault> {
    let message = match upload.concat() {
        _ if upload.plan().layout == Layout::Indexed => {
            "This upload takes numbered chunks: go on with it by the chunk API"
        }
        Some(Concat::Final(_)) => "This upload is made of partial ones and takes no bytes of its own",
        Some(Concat::Partial) if complete => "This upload becomes part of another one: join them by tus",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Forbidden, message).into())
}

fn required(field: &'static str) -> Fault {
    Error::invalid(field, format!("{field} is required, and must be given once")).into()
}
