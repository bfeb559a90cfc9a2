//! The state of an upload as Server-Sent Events.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::{Stream, stream::BoxStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::time::{Interval, MissedTickBehavior};

use super::{Answer, render};
use crate::{
    engine::Upload,
    error::Result,
    http::{body::UploadBody, dialect::Exchange, number::digits, problem},
    upload::UploadId,
};

/// How often something is sent, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn answer(exchange: Exchange, id: UploadId) -> Answer {
    let Exchange {
        uploads, caller, parts, ..
    } = exchange;
    let after = last_event_id(&parts.headers);
    let now = uploads.status(&caller, id).await?;
    if after == Some(now.revision()) && uploads.is_settled(now.record()) {
        // The one answer at which a browser's EventSource stops to come back.
        return Ok(render::nothing());
    }
    if parts.method == http::Method::HEAD {
        return Ok(event_stream(UploadBody::empty()));
    }
    let changes = uploads.watch(&caller, id, after).await?;
    Ok(event_stream(UploadBody::stream(Events::new(changes))))
}

fn event_stream(body: UploadBody) -> Response<UploadBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    render::common(headers);
    response
}

/// The revision that the client saw last. What is no revision of ours is as if it had seen none.
fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    digits(headers.get("last-event-id")?.to_str().ok()?)
}

struct Events {
    changes: Option<BoxStream<'static, Result<Upload>>>,
    alive: Interval,
}

impl Events {
    fn new(changes: BoxStream<'static, Result<Upload>>) -> Self {
        let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            changes: Some(changes),
            alive,
        }
    }
}

impl Stream for Events {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(changes) = &mut self.changes else {
            return Poll::Ready(None);
        };
        match changes.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(upload))) => {
                self.alive.reset();
                Poll::Ready(Some(Ok(event(&upload))))
            }
            Poll::Ready(end) => {
                // The client comes back by itself and goes on after what it saw last.
                if let Some(Err(error)) = end {
                    problem::log(&error);
                }
                self.changes = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.alive.poll_tick(cx));
                Poll::Ready(Some(Ok(Bytes::from_static(b": keep-alive\n\n"))))
            }
        }
    }
}

fn event(upload: &Upload) -> Bytes {
    let data = render::status_json(upload);
    format!("id: {}\nevent: status\ndata: {data}\n\n", upload.revision()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::{StreamExt as _, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_every_15_seconds() {
        let mut events = Events::new(stream::pending().boxed());
        let began = tokio::time::Instant::now();
        for beat in 1..=3 {
            assert_eq!(events.next().await.unwrap().unwrap(), ": keep-alive\n\n");
            assert_eq!(began.elapsed().as_secs(), beat * 15);
        }
    }

    #[tokio::test]
    async fn an_error_ends_the_stream() {
        let mut events = Events::new(stream::iter([Err(crate::Error::unavailable("gone"))]).boxed());
        assert!(events.next().await.is_none());
        assert!(events.next().await.is_none());
    }

    #[test]
    fn a_strange_last_event_id_is_none() {
        for (value, id) in [
            ("7", Some(7)),
            ("", None),
            ("-1", None),
            ("x", None),
            ("99999999999999999999", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", value.parse().unwrap());
            assert_eq!(last_event_id(&headers), id, "{value}");
        }
    }
}
