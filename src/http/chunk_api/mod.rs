//! The chunk API: parse, call the engine, render.

mod events;
mod form;
#[cfg(any(test, feature = "conformance"))]
pub(super) mod fuzzing;
mod json;
#[cfg(feature = "benchmark")]
pub(super) mod micro;
mod render;
mod route;

use http::{Method, Response};

use self::{
    form::{ChunkFields, Form},
    render::Location,
    route::Route,
};
use super::{
    body::UploadBody,
    content_digest,
    cross_site::refuse_cross_site,
    dialect::Exchange,
    door::{refuse_coding, refuse_length, refuse_nobody},
    download,
    number::field_u64,
    path::{Path, Query},
};
use crate::{
    engine::{Address, NewChunk, NewUpload, Upload},
    error::{Error, ErrorKind},
    metadata::Page,
    upload::{FileName, Protocol, State, Target, UploadId},
};

type Answer = Result<Response<UploadBody>, Fault>;

/// Why a request was not done.
#[derive(Debug)]
enum Fault {
    /// These fields are required, and at least one of them is missing.
    Missing(&'static [&'static str]),
    /// The path names nothing.
    NoRoute,
    /// The path is there, but only for these methods.
    Method(&'static str),
    /// Everything else.
    Error(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub(super) async fn answer(exchange: Exchange) -> Response<UploadBody> {
    let (uploads, caller) = (exchange.uploads.clone(), exchange.caller.clone());
    let mut answer = dispatch(exchange).await;
    if let Err(Fault::Error(error)) = &answer
        && error.kind() == ErrorKind::NotFound
        && let Err(denied) = refuse_nobody(&uploads, &caller).await
    {
        // Whether an upload exists is not for somebody to learn who did not even sign in.
        answer = Err(denied.into());
    }
    answer.unwrap_or_else(|fault| render::fault(&fault))
}

async fn dispatch(exchange: Exchange) -> Answer {
    let path = Path::parse(&exchange.path).ok_or(Fault::NoRoute)?;
    let route = Route::of(&path.segments())?;
    refuse_cross_site(&exchange.settings, &exchange.parts)?;
    let method = match exchange.parts.method.clone() {
        Method::HEAD => Method::GET,
        method => method,
    };
    if method == Method::POST || method == Method::PUT {
        refuse_coding(&exchange.parts)?;
        refuse_length(&exchange.parts)?;
    }
    match (route, method) {
        (Route::UploadChunk, Method::POST) => upload_chunk(exchange).await,
        (Route::AssembleChunks, Method::POST) => assemble_by_name(exchange).await,
        (Route::Uploads, Method::POST) => create(exchange).await,
        (Route::Uploads, Method::GET) => find(exchange).await,
        (Route::Upload(id), Method::GET) => {
            let upload = exchange.uploads.status(&exchange.caller, id).await?;
            Ok(render::status(&upload))
        }
        (Route::Upload(id), Method::DELETE) => delete(exchange, id).await,
        (Route::Chunk(id, index), Method::PUT) => put_chunk(exchange, id, index).await,
        (Route::Assemble(id), Method::POST) => assemble_by_id(exchange, id).await,
        (Route::Events(id), Method::GET) => events::answer(exchange, id).await,
        (Route::Content(id), Method::GET) => {
            let Exchange {
                uploads, caller, parts, ..
            } = exchange;
            Ok(download::answer(&uploads, &caller, &parts, id).await?)
        }
        (route, _) => Err(Fault::Method(route.methods())),
    }
}

async fn upload_chunk(exchange: Exchange) -> Answer {
    let Exchange {
        uploads,
        caller,
        parts,
        body,
        ..
    } = exchange;
    uploads.admit(&caller).await?;
    let announced = body.announced();
    let mut form = Form::new(&parts.headers, body)?;
    let mut fields = ChunkFields::default();
    let mut held = None;
    while let Some(field) = form.next().await? {
        if field.name() != form::CHUNK {
            fields.take(field).await?;
        } else if held.is_some() {
            return Err(form::repeated(form::CHUNK).into());
        } else if fields.is_enough() {
            let (to, chunk) = (fields.address()?, fields.chunk()?);
            let stored = uploads
                .put_chunk(&caller, to, chunk, form.into_chunk(field, fields.clone()))
                .await?;
            return Ok(render::chunk_stored(&stored));
        } else {
            held = Some(
                uploads
                    .hold_at_most(announced.unwrap_or(u64::MAX), field.into_data())
                    .await?,
            );
        }
    }
    let held = held.ok_or_else(|| fields.missing())?;
    let (to, chunk) = (fields.address()?, fields.chunk()?);
    let stored = uploads.put_held(&caller, to, chunk, held).await?;
    Ok(render::chunk_stored(&stored))
}

async fn put_chunk(exchange: Exchange, id: UploadId, index: u32) -> Answer {
    let Exchange {
        uploads,
        caller,
        parts,
        body,
        ..
    } = exchange;
    if json::media_type(&parts.headers).is_some_and(|media| media.starts_with("multipart/")) {
        let message = "The body is the chunk itself here; send forms to upload-chunk/";
        return Err(Error::new(ErrorKind::UnsupportedMediaType, message).into());
    }
    let mut chunk = NewChunk::new(index);
    if let Some(len) = body.announced() {
        chunk = chunk.len(len);
    }
    if let Some(checksum) = content_digest::of(&parts.headers)? {
        chunk = chunk.checksum(checksum);
    }
    let stored = uploads.put_chunk(&caller, id, chunk, body).await?;
    Ok(render::chunk_stored(&stored))
}

async fn create(exchange: Exchange) -> Answer {
    let Exchange {
        uploads,
        caller,
        parts,
        body,
        settings,
        ..
    } = exchange;
    uploads.admit(&caller).await?;
    let fields = json::read(&parts.headers, body).await?;
    let (Some(file_name), Some(file_size)) = (fields.text("fileName")?, fields.number("fileSize")?) else {
        return Err(Fault::Missing(&["fileName", "fileSize"]));
    };
    let file_name = FileName::parse(file_name)?;
    let mut new = NewUpload::new(file_name.as_str())
        .size(file_size)
        .protocol(Protocol::Chunk);
    new = match fields.number("chunkSize")? {
        Some(0) => return Err(Error::invalid("chunkSize", "A chunk has at least one byte").into()),
        Some(bytes) => new.chunk_size(bytes),
        None => new.chunked(),
    };
    if let Some(id) = fields.video_id()? {
        new = new.target(id.target).named();
    }
    if let Some(checksum) = fields.digest("checksum")? {
        new = new.checksum(checksum);
    }
    for (key, value) in fields.metadata()? {
        new = new.metadata(key, value);
    }
    let upload = uploads.create(&caller, new).await?;
    let url = |path: &str| settings.url(&parts, &format!("/uploads/{}/{path}", upload.id()));
    Ok(render::created(
        &upload,
        Location {
            upload: url(""),
            chunks: url("chunks/{index}"),
            assemble: url("assemble/"),
            events: url("events"),
        },
    ))
}

/// One upload by its name, or all of the caller's.
async fn find(exchange: Exchange) -> Answer {
    const LIMIT: u64 = 50;
    const MAX_LIMIT: u64 = 200;
    let Exchange {
        uploads, caller, parts, ..
    } = exchange;
    let query = Query::parse(parts.uri.query())?;
    match (query.get("videoId"), query.get("fileName")) {
        (None, None) => {}
        (Some(target), Some(file_name)) => {
            let target = if target.is_empty() {
                None
            } else {
                Some(Target::parse(target)?)
            };
            let file_name = FileName::parse(file_name)?;
            let upload = uploads
                .status(&caller, Address::Name(target.as_ref(), &file_name))
                .await?;
            return Ok(render::status(&upload));
        }
        _ => return Err(Fault::Missing(&["videoId", "fileName"])),
    }
    let number = |name| query.get(name).map(|text| field_u64(name, text)).transpose();
    let limit = number("limit")?.unwrap_or(LIMIT).min(MAX_LIMIT);
    let skip = number("skip")?.unwrap_or(0);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let found = uploads.list(&caller, Page::new(size(skip), size(limit))).await?;
    Ok(render::list(&found, skip, limit))
}

async fn delete(exchange: Exchange, id: UploadId) -> Answer {
    let Exchange { uploads, caller, .. } = exchange;
    uploads.delete(&caller, id).await?;
    Ok(render::nothing())
}

async fn assemble_by_name(exchange: Exchange) -> Answer {
    let Exchange {
        uploads,
        caller,
        parts,
        body,
        ..
    } = exchange;
    refuse_nobody(&uploads, &caller).await?;
    let fields = json::read(&parts.headers, body).await?;
    let (Some(video_id), Some(file_name)) = (fields.video_id()?, fields.text("fileName")?) else {
        return Err(Fault::Missing(&["videoId", "fileName"]));
    };
    let file_name = FileName::parse(file_name)?;
    let checksum = fields.digest("checksum")?;
    let address = Address::Name(Some(&video_id.target), &file_name);
    let upload = match uploads.assemble(&caller, address, checksum.as_ref()).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::NotFound, "No chunks found for this video").into());
        }
        upload => finished(upload?)?,
    };
    let announcement = uploads.announcement(upload.record());
    Ok(render::assembled_by_name(&upload, &video_id.sent, announcement))
}

async fn assemble_by_id(exchange: Exchange, id: UploadId) -> Answer {
    let Exchange {
        uploads,
        caller,
        parts,
        body,
        ..
    } = exchange;
    refuse_nobody(&uploads, &caller).await?;
    let fields = json::read(&parts.headers, body).await?;
    let checksum = fields.digest("checksum")?;
    let upload = finished(uploads.assemble(&caller, id, checksum.as_ref()).await?)?;
    let announcement = uploads.announcement(upload.record());
    Ok(render::assembled_by_id(&upload, announcement))
}

fn finished(upload: Upload) -> Result<Upload, Error> {
    match upload.state() {
        State::Assembled => Ok(upload),
        _ => Err(Error::unavailable("The file is still being put together; ask again")),
    }
}
