//! `upload-chunk/`'s multipart form, read as it streams by, in bounded memory.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{TryStreamExt as _, stream};
use http::{HeaderMap, header::CONTENT_TYPE};
use multer::Multipart;

use super::Fault;
use crate::{
    engine::{Address, NewChunk},
    error::{Error, ErrorKind, Result},
    http::{
        body::RequestBody,
        number::{field_u32, field_u64},
    },
    upload::{Digest, FileName, Target, UploadId},
};

/// The name of the field with the bytes.
pub(super) const CHUNK: &str = "chunk";

const REQUIRED: &[&str] = &["chunk", "videoId", "chunkIndex", "totalChunks", "fileName"];
const REQUIRED_BY_ID: &[&str] = &["chunk", "uploadId", "chunkIndex"];

const MAX_FIELDS: usize = 32;
/// The longest value of a field that is not the chunk, in bytes.
const MAX_TEXT: usize = 4 << 10;
/// How much may come between one field and the next, and with a field that is not the chunk, in bytes.
const MAX_BETWEEN: usize = 8 << 10;
/// The longest boundary: RFC 2046, section 5.1.1.
const MAX_BOUNDARY: usize = 70;
/// The longest piece handed to the parser at once, in bytes.
const PIECE: usize = 64 << 10;

/// A form, field by field.
pub(super) struct Form {
    multipart: Multipart<'static>,
    room: Room,
    fields: usize,
}

impl Form {
    pub(super) fn new(headers: &HeaderMap, body: RequestBody) -> Result<Self> {
        let media = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let boundary = multer::parse_boundary(media).map_err(|error| match error {
            multer::Error::NoBoundary => Error::invalid("Content-Type", "The multipart boundary is missing"),
            _ => Error::new(
                ErrorKind::UnsupportedMediaType,
                "The body must be a form; send it as multipart/form-data",
            ),
        })?;
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
            return Err(Error::invalid(
                "Content-Type",
                "A multipart boundary has 1 to 70 characters",
            ));
        }
        let room = Room::default();
        let pieces = Pieces {
            body,
            frame: Bytes::new(),
            room: room.clone(),
            paused: false,
        };
        Ok(Self {
            multipart: Multipart::new(pieces, boundary),
            room,
            fields: 0,
        })
    }

    /// The next field; what was not read of the one before is lost. `None` after the final boundary.
    pub(super) async fn next(&mut self) -> Result<Option<Field>> {
        self.room.allow(MAX_BETWEEN);
        let Some(field) = self.multipart.next_field().await.map_err(malformed)? else {
            return Ok(None);
        };
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Error::too_large("The form has too many fields", MAX_FIELDS as u64));
        }
        if field.name().is_none_or(str::is_empty) {
            return Err(Error::invalid("body", "A field of the form has no name"));
        }
        let room = self.room.clone();
        Ok(Some(Field { field, room }))
    }

    /// The chunk as it comes. It ends well only after the rest of the form was read and found well-formed, so
    /// that no chunk of a broken form is ever stored.
    pub(super) fn into_chunk(self, chunk: Field, fields: ChunkFields) -> impl Stream<Item = Result<Bytes>> + Send {
        let data = Box::pin(chunk.into_data());
        stream::try_unfold((Some(data), self, fields), |(data, mut form, mut fields)| async move {
            if let Some(mut data) = data
                && let Some(bytes) = data.try_next().await?
            {
                return Ok(Some((bytes, (Some(data), form, fields))));
            }
            while let Some(field) = form.next().await? {
                fields.take_late(field).await?;
            }
            Ok(None)
        })
    }
}

/// One field, not read yet.
pub(super) struct Field {
    field: multer::Field<'static>,
    room: Room,
}

impl Field {
    pub(super) fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    async fn text(mut self) -> Result<String> {
        self.room.allow(MAX_BETWEEN);
        let mut text = Vec::new();
        while let Some(bytes) = self.field.try_next().await.map_err(malformed)? {
            if text.len() + bytes.len() > MAX_TEXT {
                let message = format!("A field of the form other than {CHUNK} has at most {MAX_TEXT} bytes");
                return Err(Error::too_large(message, MAX_TEXT as u64));
            }
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).map_err(|_| Error::invalid(self.name().to_owned(), "The field is not UTF-8"))
    }

    /// Its bytes as they come.
    pub(super) fn into_data(self) -> impl Stream<Item = Result<Bytes>> + Send {
        self.room.allow(usize::MAX);
        self.field
            .map_err(malformed)
            .try_filter(|bytes| std::future::ready(!bytes.is_empty()))
    }
}

/// The fields besides the chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChunkFields {
    upload_id: Option<UploadId>,
    video_id: Option<Target>,
    file_name: Option<FileName>,
    index: Option<u32>,
    total: Option<u32>,
    file_size: Option<u64>,
    checksum: Option<Digest>,
}

impl ChunkFields {
    /// Reads a field; one that nobody knows is passed over.
    pub(super) async fn take(&mut self, field: Field) -> Result<()> {
        let name = field.name().to_owned();
        let text = field.text().await?;
        self.set(&name, &text).map(drop)
    }

    /// Reads a field that came after the chunk was let through already.
    async fn take_late(&mut self, field: Field) -> Result<()> {
        let name = field.name().to_owned();
        if name == CHUNK {
            return Err(repeated(CHUNK));
        }
        let text = field.text().await?;
        match self.set(&name, &text)? {
            Some(name @ ("totalChunks" | "fileSize" | "checksum")) => Err(Error::invalid(
                name,
                format!("Send {name} before {CHUNK}, or {CHUNK} before all other fields"),
            )),
            _ => Ok(()),
        }
    }

    /// The name, if it is a known one.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Result<Option<&'static str>> {
        fn once<T>(slot: &mut Option<T>, name: &'static str, value: Result<T>) -> Result<Option<&'static str>> {
            match slot.replace(value?) {
                Some(_) => Err(repeated(name)),
                None => Ok(Some(name)),
            }
        }
        match name {
            "uploadId" => once(&mut self.upload_id, "uploadId", text.parse()),
            "videoId" => once(&mut self.video_id, "videoId", Target::parse(text)),
            "fileName" => once(&mut self.file_name, "fileName", FileName::parse(text)),
            "chunkIndex" => once(&mut self.index, "chunkIndex", field_u32("chunkIndex", text)),
            "totalChunks" => once(&mut self.total, "totalChunks", field_u32("totalChunks", text)),
            "fileSize" => once(&mut self.file_size, "fileSize", field_u64("fileSize", text)),
            "checksum" => once(&mut self.checksum, "checksum", text.parse()),
            _ => Ok(None),
        }
    }

    /// Whether the chunk can be stored without waiting for more fields.
    pub(super) const fn is_enough(&self) -> bool {
        let by_name = self.video_id.is_some() && self.file_name.is_some() && self.total.is_some();
        self.index.is_some() && (self.upload_id.is_some() || by_name)
    }

    pub(super) const fn missing(&self) -> Fault {
        Fault::Missing(if self.upload_id.is_some() {
            REQUIRED_BY_ID
        } else {
            REQUIRED
        })
    }

    pub(super) fn address(&self) -> Result<Address<'_>, Fault> {
        match (self.upload_id, &self.video_id, &self.file_name) {
            (Some(id), ..) => Ok(Address::Id(id)),
            (None, Some(target), Some(file_name)) => Ok(Address::Name(Some(target), file_name)),
            _ => Err(self.missing()),
        }
    }

    pub(super) fn chunk(&self) -> Result<NewChunk, Fault> {
        let (Some(index), true) = (self.index, self.is_enough()) else {
            return Err(self.missing());
        };
        let mut chunk = NewChunk::new(index);
        if let Some(total) = self.total {
            if total == 0 {
                return Err(Error::invalid("totalChunks", "A file has at least one chunk").into());
            }
            if index >= total {
                let message = format!("chunkIndex counts from 0; of {total} chunks the last is {}", total - 1);
                return Err(Error::invalid("chunkIndex", message).into());
            }
            chunk = chunk.total(total);
        }
        if let Some(bytes) = self.file_size {
            chunk = chunk.file_size(bytes);
        }
        if let Some(checksum) = &self.checksum {
            chunk = chunk.checksum(checksum.clone());
        }
        Ok(chunk)
    }
}

pub(super) fn repeated(name: &'static str) -> Error {
    Error::invalid(name, format!("{name} is given more than once"))
}

/// The parser's error as ours; one of the body comes through as it is.
fn malformed(error: multer::Error) -> Error {
    let source = match error {
        multer::Error::StreamReadFailed(source) => match source.downcast::<Error>() {
            Ok(error) => return *error,
            Err(source) => {
                return Error::new(ErrorKind::Interrupted, "The body could not be read to its end").with_source(source);
            }
        },
        error => error,
    };
    Error::invalid(
        "body",
        "The multipart form is malformed, or its final boundary is missing",
    )
    .with_source(source)
}

/// How many bytes the parser may still be given. It keeps what it has not understood yet, without a bound
/// of its own, so this is what bounds its memory.
#[derive(Clone, Debug, Default)]
struct Room(Arc<AtomicUsize>);

impl Room {
    fn allow(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// How long a piece of `wanted` bytes may be.
    fn take(&self, wanted: usize) -> usize {
        let left = self.0.load(Ordering::Relaxed);
        let taken = wanted.min(PIECE).min(left);
        if left != usize::MAX {
            self.allow(left - taken);
        }
        taken
    }
}

/// The body in small pieces, with a pause after each: the parser swallows whatever is ready before it looks at any of it.
struct Pieces {
    body: RequestBody,
    frame: Bytes,
    room: Room,
    paused: bool,
}

impl Stream for Pieces {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if std::mem::take(&mut this.paused) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.frame.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_next(cx)) {
                Some(Ok(frame)) => this.frame = frame,
                end => return Poll::Ready(end),
            }
        }
        let len = this.room.take(this.frame.len());
        if len == 0 {
            let message = format!("More than {MAX_BETWEEN} bytes lie between two fields of the form");
            return Poll::Ready(Some(Err(Error::invalid("body", message))));
        }
        this.paused = true;
        Poll::Ready(Some(Ok(this.frame.split_to(len))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use futures_util::StreamExt as _;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::http::pace::MinimumRate;

    fn headers(content_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())])
    }

    /// The form in frames of `len` bytes, and how many bytes were taken of it.
    fn form(text: &[u8], len: usize) -> (Form, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = taken.clone();
        let frames: Vec<Bytes> = text.chunks(len).map(Bytes::copy_from_slice).collect();
        let frames = stream::iter(frames).map(move |frame| {
            counter.fetch_add(frame.len(), Ordering::Relaxed);
            Ok::<_, Infallible>(Frame::data(frame))
        });
        let body = RequestBody::new(StreamBody::new(frames), &HeaderMap::new(), MinimumRate::DEFAULT);
        (
            Form::new(&headers("multipart/form-data; boundary=X"), body).unwrap(),
            taken,
        )
    }

    fn part(name: &str, value: &str) -> String {
        format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    /// The fields, and the chunk if there is one.
    async fn read(text: &str, len: usize) -> Result<(ChunkFields, Option<Vec<u8>>)> {
        let (mut form, _) = form(text.as_bytes(), len);
        let (mut fields, mut chunk) = (ChunkFields::default(), None);
        while let Some(field) = form.next().await? {
            if field.name() == CHUNK {
                chunk = Some(field.into_data().try_concat_vec().await?);
            } else {
                fields.take(field).await?;
            }
        }
        Ok((fields, chunk))
    }

    trait ConcatVec: Stream<Item = Result<Bytes>> + Sized {
        async fn try_concat_vec(self) -> Result<Vec<u8>> {
            self.try_fold(Vec::new(), async |mut all, bytes| {
                all.extend_from_slice(&bytes);
                Ok(all)
            })
            .await
        }
    }

    impl<S: Stream<Item = Result<Bytes>>> ConcatVec for S {}

    #[tokio::test]
    async fn read_the_same_however_it_is_cut() {
        let text = [
            "preamble\r\n".to_owned(),
            part("chunk", "a\r\n--Y\r\n--\r\n\0b"),
            part("videoId", "123"),
            part("chunkIndex", "0"),
            part("totalChunks", "10"),
            part("unknown", "x"),
            part("fileName", "my_video.mp4"),
            "--X--\r\nepilogue".to_owned(),
        ]
        .concat();
        let whole = read(&text, text.len()).await.unwrap();
        assert_eq!(whole.1.as_deref(), Some(&b"a\r\n--Y\r\n--\r\n\0b"[..]));
        assert_eq!((whole.0.index, whole.0.total), (Some(0), Some(10)));
        assert!(whole.0.is_enough());
        for len in 1..40 {
            assert_eq!(read(&text, len).await.unwrap(), whole, "{len}");
        }
    }

    #[tokio::test]
    async fn a_form_that_is_cut_anywhere_is_refused() {
        let text = [part("videoId", "1"), part("chunk", "bytes"), "--X--".to_owned()].concat();
        for end in 0..text.len() {
            let error = read(&text[..end], 7).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{end}");
        }
        read(&text, 7).await.unwrap();
    }

    #[tokio::test]
    async fn limits_hold() {
        let kind = async |text: String| read(&text, 1000).await.unwrap_err().kind();
        let end = "--X--";
        assert_eq!(
            kind(part("videoId", &"1".repeat(5000)) + end).await,
            ErrorKind::TooLarge
        );
        assert_eq!(
            kind(part("unknown", &"1".repeat(1 << 20)) + end).await,
            ErrorKind::TooLarge
        );
        assert_eq!(kind(part("x", "").repeat(33) + end).await, ErrorKind::TooLarge);
        assert_eq!(kind(part("", "1") + end).await, ErrorKind::Invalid);
        assert_eq!(kind(part(&"x".repeat(10_000), "1") + end).await, ErrorKind::Invalid);
        assert_eq!(kind(part("videoId", "1").repeat(2) + end).await, ErrorKind::Invalid);
        assert_eq!(
            kind("--X\r\nno header\r\n\r\n\r\n--X--".to_owned()).await,
            ErrorKind::Invalid
        );
        assert_eq!(
            kind("--X\r\nA: b\r\n\r\n\r\n--X--".to_owned()).await,
            ErrorKind::Invalid
        );
        read(&(part("x", "").repeat(32) + end), 1000).await.unwrap();
    }

    #[tokio::test]
    async fn memory_is_bounded_although_all_of_it_is_ready() {
        let header = "--X\r\nContent-Disposition: form-data; name=\"chunk\"\r\n\r\n";
        for endless in [
            "x",
            "--X\r\nA: ",
            "--X\r\nContent-Disposition: form-data; name=\"videoId\"\r\n\r\n",
        ] {
            let (mut form, taken) = form(&[endless.as_bytes(), &vec![b'x'; 8 << 20]].concat(), 1 << 20);
            let error = match form.next().await {
                Ok(Some(field)) => ChunkFields::default().take(field).await.unwrap_err(),
                Ok(None) => unreachable!(),
                Err(error) => error,
            };
            assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge));
            assert!(taken.load(Ordering::Relaxed) <= 2 << 20);
        }
        let text = [header.as_bytes(), &vec![b'x'; 8 << 20], b"\r\n--X--"].concat();
        let (mut form, taken) = form(&text, 16 << 10);
        let mut data = Box::pin(form.next().await.unwrap().unwrap().into_data());
        let mut given = 0;
        while let Some(bytes) = data.try_next().await.unwrap() {
            given += bytes.len();
            assert!(bytes.len() <= PIECE + MAX_BETWEEN);
            assert!(taken.load(Ordering::Relaxed) - given <= PIECE + MAX_BETWEEN, "{given}");
        }
        assert_eq!(given, 8 << 20);
    }

    #[tokio::test]
    async fn a_chunk_ends_well_only_with_its_form() {
        let stream = async |rest: &str| {
            let text = [part("videoId", "1"), part("chunk", "bytes"), rest.to_owned()].concat();
            let (mut form, _) = form(text.as_bytes(), 5);
            let mut fields = ChunkFields::default();
            fields.take(form.next().await.unwrap().unwrap()).await.unwrap();
            let field = form.next().await.unwrap().unwrap();
            form.into_chunk(field, fields).try_concat_vec().await
        };
        assert_eq!(stream("--X--").await.unwrap(), b"bytes");
        assert_eq!(stream(&(part("other", "1") + "--X--")).await.unwrap(), b"bytes");
        for (rest, field) in [
            (String::new(), "body"),
            ("--X\r\n".to_owned(), "body"),
            (part("chunk", "again") + "--X--", "chunk"),
            (part("videoId", "1") + "--X--", "videoId"),
            (part("checksum", "crc32c:00000000") + "--X--", "checksum"),
            (part("chunkIndex", "-1") + "--X--", "chunkIndex"),
        ] {
            assert_eq!(stream(&rest).await.unwrap_err().field(), Some(field), "{rest}");
        }
    }

    #[test]
    fn fields_are_what_they_must_be() {
        for (name, text) in [
            ("chunkIndex", "-1"),
            ("chunkIndex", "+1"),
            ("chunkIndex", "4294967296"),
            ("chunkIndex", ""),
            ("totalChunks", "1.5"),
            ("fileSize", "18446744073709551616"),
            ("videoId", ""),
            ("videoId", "a\nb"),
            ("fileName", "../x"),
            ("checksum", "md5:00"),
        ] {
            let error = ChunkFields::default().set(name, text).unwrap_err();
            assert_eq!(error.field(), Some(name), "{name}={text}");
        }
        assert_eq!(
            ChunkFields::default().set("uploadId", "x").unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(ChunkFields::default().set("other", "x").unwrap(), None);
    }

    #[test]
    fn the_content_type_must_be_a_form_with_a_boundary() {
        let kind = |media: &str| {
            let body = RequestBody::new(
                http_body_util::Empty::<Bytes>::new(),
                &HeaderMap::new(),
                MinimumRate::DEFAULT,
            );
            Form::new(&headers(media), body).err().map(|error| error.kind())
        };
        assert_eq!(
            kind("multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxk"),
            None
        );
        assert_eq!(kind("multipart/form-data; boundary=\"a b\""), None);
        assert_eq!(kind("multipart/form-data"), Some(ErrorKind::Invalid));
        assert_eq!(
            kind(&format!("multipart/form-data; boundary={}", "x".repeat(71))),
            Some(ErrorKind::Invalid)
        );
        assert_eq!(kind("application/json"), Some(ErrorKind::UnsupportedMediaType));
        assert_eq!(
            kind("multipart/mixed; boundary=x"),
            Some(ErrorKind::UnsupportedMediaType)
        );
    }
}
