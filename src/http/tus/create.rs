//! POST: creation, with or without bytes, of a whole upload, of a part of one, or of one that is made of others.

use super::{
    Answer,
    append::{Brought, Sending, first, wrong_type},
    concat, headers,
    headers::{Concat, Length},
    render,
};
use crate::{
    access::Action,
    engine::NewUpload,
    error::{Error, Result},
    http::{dialect::Exchange, door::refuse_nobody},
    upload::{FileName, Protocol, Target},
};

/// What a file is called that nobody gave a name.
const NAMELESS: &str = "upload";

pub(super) async fn answer(mut exchange: Exchange) -> Answer {
    refuse_nobody(&exchange.uploads, &exchange.caller).await?;
    let headers = &exchange.parts.headers;
    let length = headers::length(
        headers::one(headers, "Upload-Length")?,
        headers::one(headers, "Upload-Defer-Length")?,
    )?;
    let target = exchange.settings.tus.as_ref().and_then(|tus| tus.target.as_deref());
    let mut new = described(headers::one(headers, "Upload-Metadata")?, target)?;
    let concat = headers::one(headers, "Upload-Concat")?.map(str::to_owned);
    let place = match &concat {
        Some(text) => {
            new = new.note(render::CONCAT, text);
            Some(headers::concat(text)?)
        }
        None => None,
    };
    let brings_bytes = headers::is_offset_stream(headers);
    if let Some(Concat::Final(urls)) = place {
        return join(exchange, new, length, &urls).await;
    }
    new = match length {
        Length::Known(bytes) => new.size(bytes),
        Length::Deferred => new,
        Length::Absent => {
            let message = "Upload-Length is missing; if the length is not known yet, send Upload-Defer-Length: 1";
            return Err(Error::invalid("Upload-Length", message).into());
        }
    };
    new = match place {
        Some(_) => new.partial(),
        None => new.seals_itself(),
    };
    if !brings_bytes && !exchange.body.is_empty().await? {
        return Err(wrong_type().into());
    }
    let Exchange {
        uploads,
        settings,
        caller,
        parts,
        body,
        ..
    } = exchange;
    let sending = Sending::of(&parts.headers, body)?;
    if let (Length::Known(size), Some(len)) = (length, sending.body.announced())
        && len > size
    {
        let message = format!("The body has {len} bytes, more than Upload-Length says");
        return Err(Error::too_large(message, size).into());
    }
    let mut upload = uploads.create(&caller, new).await?;
    if brings_bytes || length == Length::Known(0) {
        let id = upload.id();
        match first(&uploads, &caller, &upload, sending).await {
            Brought::Stored => {}
            Brought::Refused(error) => {
                // Nobody was told where it is. If this fails too, it expires.
                let _ = uploads.delete(&caller, id).await;
                return Err(error.into());
            }
        }
        upload = match uploads.glance(&caller, id, Action::Write).await {
            Ok(now) => now,
            // It was created: the client shall know where, and ask there how far it is.
            Err(_) => return Ok(render::created(&settings.file_url(&parts, id), &upload, false)),
        };
    }
    let location = settings.file_url(&parts, upload.id());
    Ok(render::created(&location, &upload, brings_bytes))
}

/// Makes one upload of others.
async fn join(mut exchange: Exchange, new: NewUpload, length: Length, urls: &[&str]) -> Answer {
    if length != Length::Absent {
        let message = "The length of an upload that is made of others is the sum of theirs; leave it out";
        return Err(Error::invalid("Upload-Length", message).into());
    }
    let partials = urls
        .iter()
        .map(|url| concat::partial(&exchange.settings, &exchange.parts, &exchange.path, url))
        .collect::<Result<Vec<_>>>()?;
    if !exchange.body.is_empty().await? {
        let message = "An upload that is made of others takes no bytes of its own; leave the body out";
        return Err(Error::invalid("body", message).into());
    }
    let Exchange {
        uploads,
        settings,
        caller,
        parts,
        ..
    } = exchange;
    let unfinished = settings.tus.as_ref().is_some_and(|tus| tus.unfinished_concatenation);
    let upload = uploads.concatenate(&caller, new, &partials, unfinished).await?;
    Ok(render::created(&settings.file_url(&parts, upload.id()), &upload, false))
}

/// An upload of the file that `Upload-Metadata` speaks of, which is kept as it came too.
fn described(metadata: Option<&str>, target: Option<&str>) -> Result<NewUpload> {
    let text = metadata.unwrap_or_default();
    let pairs = headers::metadata(text)?;
    let named = |key| pairs.iter().find(|(other, value)| *other == key && !value.is_empty());
    let file_name = named("filename").or_else(|| named("name"));
    let file_name = file_name.map_or(NAMELESS, |(_, value)| value.as_str());
    if let Err(error) = FileName::parse(file_name) {
        return Err(Error::invalid("Upload-Metadata", error.message().to_owned()));
    }
    let mut new = NewUpload::new(file_name).protocol(Protocol::Tus);
    if let Some((_, text)) = target.and_then(named) {
        let target =
            Target::parse(text).map_err(|error| Error::invalid("Upload-Metadata", error.message().to_owned()))?;
        new = new.target(target);
    }
    if metadata.is_some() {
        new = new.note(render::METADATA, text);
    }
    for (key, value) in pairs {
        new = new.metadata(key, value);
    }
    Ok(new)
}
