use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_core::{Stream, stream::BoxStream};
use futures_util::StreamExt as _;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::pace::{MinimumRate, Pace};
use crate::error::{Error, ErrorKind, Result};

type BoxError = Box<dyn StdError + Send + Sync>;

/// The bytes of a request as they come: counted, paced; trailers are kept for [`trailers`](RequestBody::trailers).
///
/// Errors are of kind [`Interrupted`](ErrorKind::Interrupted), [`TooSlow`](ErrorKind::TooSlow) or
/// [`TooLarge`](ErrorKind::TooLarge); after one, the stream is over.
pub(super) struct RequestBody {
    frames: Option<Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>>,
    announced: Option<u64>,
    seen: u64,
    limit: Option<u64>,
    pace: Option<Pace>,
    trailers: Arc<OnceLock<HeaderMap>>,
}

impl RequestBody {
    pub(super) fn new<B>(body: B, headers: &HeaderMap, rate: MinimumRate) -> Self
    where
        B: Body + Send + 'static,
        B::Data: Buf,
        B::Error: Into<BoxError>,
    {
        let header = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        Self {
            announced: header.or_else(|| body.size_hint().exact()),
            frames: Some(Box::pin(Frames { body })),
            seen: 0,
            limit: None,
            pace: Pace::new(rate),
            trailers: Arc::default(),
        }
    }

    /// Where the trailers will be once the body has come to its end, if it has any.
    pub(super) fn trailers(&self) -> Arc<OnceLock<HeaderMap>> {
        Arc::clone(&self.trailers)
    }

    /// The length that was announced, in bytes.
    pub(super) const fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// More than `bytes` of it are an error.
    pub(super) const fn limited(mut self, bytes: u64) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// Whether no byte comes. A body of which that is not said must be looked at.
    pub(super) async fn is_empty(&mut self) -> Result<bool> {
        match self.announced {
            Some(len) => Ok(len == 0),
            None => Ok(self.next().await.transpose()?.is_none()),
        }
    }

    fn end(&mut self) -> Option<Result<Bytes>> {
        self.frames = None;
        let short = self.announced.is_some_and(|announced| announced != self.seen);
        short.then(|| {
            Err(Error::new(
                ErrorKind::Interrupted,
                "The body ended before its Content-Length; send it again",
            ))
        })
    }

    fn take(&mut self, bytes: Bytes) -> Result<Bytes> {
        self.seen += bytes.len() as u64;
        match (self.limit, self.announced) {
            (Some(limit), _) if self.seen > limit => Err(Error::too_large(
                format!("The body is larger than {limit} bytes"),
                limit,
            )),
            (_, Some(announced)) if self.seen > announced => Err(Error::new(
                ErrorKind::Interrupted,
                "The body is longer than its Content-Length",
            )),
            _ => Ok(bytes),
        }
    }
}

impl Stream for RequestBody {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(frames) = &mut this.frames else {
                return Poll::Ready(None);
            };
            let answer = match frames.as_mut().poll_frame(cx) {
                Poll::Pending => match this.pace.as_mut().map(|pace| pace.poll_waiting(cx)) {
                    Some(Poll::Ready(error)) => Err(error),
                    _ => return Poll::Pending,
                },
                Poll::Ready(None) => return Poll::Ready(this.end()),
                Poll::Ready(Some(Err(source))) => {
                    let message = "The body could not be read to its end; send it again";
                    Err(Error::new(ErrorKind::Interrupted, message).with_source(source))
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => continue,
                    Ok(bytes) => this
                        .pace
                        .as_mut()
                        .map_or(Ok(()), |pace| pace.received(bytes.len()))
                        .and_then(|()| this.take(bytes)),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            let _ = this.trailers.set(trailers);
                        }
                        continue;
                    }
                },
            };
            if answer.is_err() {
                this.frames = None;
            }
            return Poll::Ready(Some(answer));
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RequestBody");
        debug
            .field("announced", &self.announced)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// Any body, with its data as `Bytes` and its error boxed.
    struct Frames<B> { #[pin] body: B }
}

impl<B> Body for Frames<B>
where
    B: Body,
    B::Data: Buf,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.project().body.poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
            Err(error) => Err(error.into()),
        }))
    }
}

/// The body of an answer.
pub struct UploadBody(Content);

enum Content {
    Empty,
    Full(Bytes),
    Stream(BoxStream<'static, Result<Bytes>>),
    /// As many bytes as are left to come.
    Sized(BoxStream<'static, Result<Bytes>>, u64),
}

impl UploadBody {
    pub(super) const fn empty() -> Self {
        Self(Content::Empty)
    }

    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Content::Full(bytes.into()))
    }

    pub(super) fn stream(bytes: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self(Content::Stream(Box::pin(bytes)))
    }

    /// A stream of `len` bytes. If it has another length, that is an error at its end, as the client must not take it for whole.
    pub(super) fn sized(bytes: impl Stream<Item = Result<Bytes>> + Send + 'static, len: u64) -> Self {
        Self(Content::Sized(Box::pin(bytes), len))
    }
}

impl fmt::Debug for UploadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UploadBody").field(&self.size_hint().exact()).finish()
    }
}

impl Default for UploadBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Content::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Stream(stream) => stream.as_mut().poll_next(cx).map_ok(Frame::data),
            Content::Sized(stream, left) => {
                let frame = ready!(stream.as_mut().poll_next(cx));
                let wrong = || Error::internal("A blob has not the length that it should have");
                Poll::Ready(match frame {
                    Some(Ok(bytes)) => match left.checked_sub(bytes.len() as u64) {
                        Some(rest) => {
                            *left = rest;
                            Some(Ok(Frame::data(bytes)))
                        }
                        None => Some(Err(wrong())),
                    },
                    None if *left > 0 => {
                        *left = 0;
                        Some(Err(wrong()))
                    }
                    Some(Err(error)) => Some(Err(error)),
                    None => None,
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Stream(_) => false,
            Content::Sized(_, left) => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(_) => SizeHint::default(),
            Content::Sized(_, left) => SizeHint::with_exact(*left),
        }
    }
}

pin_project! {
    /// The body of an answer behind an [`UploadLayer`](super::UploadLayer): ours, or the wrapped service's as it is.
    #[derive(Debug)]
    pub struct LayerBody<B> { #[pin] side: Side<B> }
}

pin_project! {
    #[derive(Debug)]
    #[project = SideProjection]
    enum Side<B> {
        Own { #[pin] body: UploadBody },
        Inner { #[pin] body: B },
    }
}

impl<B> LayerBody<B> {
    pub(super) const fn own(body: UploadBody) -> Self {
        Self {
            side: Side::Own { body },
        }
    }

    pub(super) const fn inner(body: B) -> Self {
        Self {
            side: Side::Inner { body },
        }
    }
}

impl<B> Body for LayerBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().side.project() {
            SideProjection::Own { body } => body.poll_frame(cx).map_err(Into::into),
            SideProjection::Inner { body } => body.poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.side {
            Side::Own { body } => body.is_end_stream(),
            Side::Inner { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.side {
            Side::Own { body } => body.size_hint(),
            Side::Inner { body } => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{convert::Infallible, time::Duration};

    use futures_util::{TryStreamExt as _, stream};
    use http_body_util::{Full, StreamBody};
    use tokio::time::Instant;

    use super::*;

    fn body(announced: Option<&str>, bytes: &'static [u8]) -> RequestBody {
        let mut headers = HeaderMap::new();
        if let Some(len) = announced {
            headers.insert(CONTENT_LENGTH, len.parse().unwrap());
        }
        let frames = stream::iter(bytes.chunks(2)).map(|frame| Ok::<_, Infallible>(Frame::data(frame)));
        RequestBody::new(StreamBody::new(frames), &headers, MinimumRate::DEFAULT)
    }

    async fn read(body: RequestBody) -> Result<Vec<u8>> {
        let frames: Vec<Bytes> = body.try_collect().await?;
        Ok(frames.concat())
    }

    #[tokio::test]
    async fn the_announced_length_must_be_kept() {
        assert_eq!(read(body(None, b"hello")).await.unwrap(), b"hello");
        assert_eq!(read(body(Some("5"), b"hello")).await.unwrap(), b"hello");
        for wrong in ["0", "4", "6"] {
            assert_eq!(
                read(body(Some(wrong), b"hello")).await.unwrap_err().kind(),
                ErrorKind::Interrupted,
                "{wrong}"
            );
        }
        let full = RequestBody::new(Full::new(Bytes::from("hello")), &HeaderMap::new(), MinimumRate::DEFAULT);
        assert_eq!(full.announced(), Some(5));
    }

    #[tokio::test]
    async fn a_limit_is_named() {
        let error = read(body(None, b"hello").limited(4)).await.unwrap_err();
        assert_eq!((error.kind(), error.limit()), (ErrorKind::TooLarge, Some(4)));
        assert_eq!(read(body(None, b"hello").limited(5)).await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn an_error_ends_it() {
        let frames = stream::iter([
            Ok(Frame::data(Bytes::from("a"))),
            Err("cut"),
            Ok(Frame::data(Bytes::from("b"))),
        ]);
        let mut body = RequestBody::new(StreamBody::new(frames), &HeaderMap::new(), MinimumRate::DEFAULT);
        assert_eq!(body.next().await.unwrap().unwrap(), "a");
        assert_eq!(body.next().await.unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
        assert!(body.next().await.is_none());
    }

    /// A frame of `len` bytes every `every` seconds, and how long it took until it ended, one way or the other.
    async fn paced(every: u64, len: usize, frames: usize, store: u64) -> (Result<usize>, u64) {
        let frames = stream::iter(0..frames).then(move |_| async move {
            tokio::time::sleep(Duration::from_secs(every)).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; len])))
        });
        let mut body = RequestBody::new(StreamBody::new(frames), &HeaderMap::new(), MinimumRate::DEFAULT);
        let began = Instant::now();
        let mut seen = 0;
        let end = loop {
            match body.try_next().await {
                Ok(Some(bytes)) => seen += bytes.len(),
                Ok(None) => break Ok(seen),
                Err(error) => break Err(error),
            }
            tokio::time::sleep(Duration::from_secs(store)).await;
        };
        (end, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_slower_than_the_minimum_is_given_up() {
        let too_slow = |(end, seconds): (Result<usize>, u64)| (end.unwrap_err().kind(), seconds);
        assert_eq!(too_slow(paced(3600, 1, 1, 0).await), (ErrorKind::TooSlow, 30));
        assert_eq!(too_slow(paced(1, 1, 1000, 0).await), (ErrorKind::TooSlow, 30));
        assert_eq!(too_slow(paced(1, 1000, 1000, 0).await), (ErrorKind::TooSlow, 30));
        assert_eq!(too_slow(paced(31, 1 << 20, 3, 0).await), (ErrorKind::TooSlow, 30));
        // A short body may take its time within one window.
        assert_eq!(paced(10, 1, 2, 0).await.0.unwrap(), 2);
        assert_eq!(paced(1, 1024, 1000, 0).await.0.unwrap(), 1_024_000);
        assert_eq!(paced(29, 1 << 20, 10, 0).await.0.unwrap(), 10 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_the_store_does_not_count() {
        assert_eq!(paced(1, 1024, 100, 60).await.0.unwrap(), 102_400);
        let (end, seconds) = paced(2, 1024, 100, 60).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::TooSlow);
        assert!(seconds >= 14 * 60, "{seconds}");
    }

    #[tokio::test]
    async fn an_answer_tells_its_length() {
        let mut body = UploadBody::full("hello");
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "hello");
        assert!(body.is_end_stream());
        assert_eq!(UploadBody::stream(stream::empty()).size_hint().exact(), None);
    }
}
