use std::{sync::Arc, time::Duration};

use super::*;
use crate::{Clock, upload::Timestamp};

#[tokio::test]
#[rustfmt::skip]
async fn limits_of_a_request() {
    let limits = "upload-limit: max-size=100, max-append-size=6, min-append-size=4";
    let resumable = Resumable::new().max_append_size(6).min_append_size(4);
    rows_with(&resumable, &[
        ("8: OPTIONS announces them", FULL, "OPTIONS /files", &[], "", 200, &[limits, "accept-patch: application/partial-upload"], "#0"),
        ("8: at an upload too", FULL, "OPTIONS {open}", &[], "", 200, &[limits], "5 ?0"),
        ("8: OPTIONS starts nothing", ALL, "OPTIONS /files", &[LAST], "", 200, &[], "#0"),
        ("8: there is no such field before -04", &[Some(3), Some(4), Some(5)], "OPTIONS /files", &[], "", 200, &["!upload-limit"], ""),
        ("5.1: HEAD tells them", FULL, "HEAD {open}", &[], "", 204, &[limits], ""),
        ("5.1: not before -04", &[Some(3), Some(4), Some(5)], "HEAD {open}", &[], "", 204, &["!upload-limit"], ""),
        ("4.5: a creation tells them", FULL, "POST /files", &[MORE], "0123", 201, &[limits], "#1"),
        ("6.10: a creation that is too large", FULL, "POST /files", &[LAST], "0123456", 413, &[limits, "upload-complete: ?0", "\"limit\":6"], "#0"),
        ("6.10: a creation that is too small", FULL, "POST /files", &[MORE], "012", 400, &[limits, "upload-complete: ?0"], "#0"),
        ("4.8: not if it is the whole", FULL, "POST /files", &[LAST], "012", 200, &[], "#1"),
        ("4.8: not if it is empty", FULL, "POST /files", &[MORE], "", 201, &[], "#1"),
        ("6.10: an append that is too large", FULL, "PATCH {loose}", &[MEDIA, MORE, AT_5], "5678901", 413, &[limits, "upload-complete: ?0", "upload-offset: 5"], "5 ?0"),
        ("6.10: an append that is too small", FULL, "PATCH {loose}", &[MEDIA, MORE, AT_5], "567", 400, &[limits, "upload-complete: ?0"], "5 ?0"),
        ("6.10: an empty append is too small", FULL, "PATCH {loose}", &[MEDIA, MORE, AT_5], "", 400, &[limits], "5 ?0"),
        ("6.10: not if it is the last", FULL, "PATCH {loose}", &[MEDIA, LAST, AT_5], "5", 200, &[], "6 ?1"),
    ])
    .await;
}

#[tokio::test]
async fn a_body_of_unknown_length_is_counted() {
    let wire = Wire::with(Resumable::new().max_append_size(6)).await;
    // Past the end of the file it is over; past what one request may carry, what fits is kept.
    for (path, status, after) in [("open", 400, "404"), ("loose", 413, "10 ?0")] {
        let path = wire.prepared(path).await;
        let frames = stream::iter(["56", "78", "9", "01"].map(Bytes::from));
        let body = StreamBody::new(frames.map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes))));
        let asked = request(&format!("PATCH {path}"), &[MEDIA, MORE, AT_5], body);
        let reply = wire.send(FINAL, asked).await;
        assert_eq!(reply.status, status, "{}", reply.text);
        if status == 413 {
            let told = ["upload-limit", "upload-offset", "upload-complete"].map(|name| reply.header(name));
            assert_eq!(told, ["max-size=100, max-append-size=6", "10", "?0"]);
        }
        assert_eq!(wire.now(&path).await, after);
    }
}

#[tokio::test]
async fn no_limit_at_all_is_said() {
    for (max, expected) in [
        (u64::MAX, "min-size=0"),
        (u64::MAX - 1, "max-size=999999999999999"),
        (1 << 50, "max-size=999999999999999"),
        (1 << 40, "max-size=1099511627776"),
    ] {
        let uploads = stores().max_size(max).build().await.unwrap();
        let wire = Wire::of(uploads, Resumable::new());
        let options = wire.ask(Some(10), "OPTIONS /files", &[], "").await;
        assert_eq!(options.header("upload-limit"), expected);
        let created = wire.ask(Some(10), "POST /files", &[MORE], "0").await;
        assert_eq!(created.header("upload-limit"), expected);
    }
}

#[derive(Debug)]
struct Shifted(i64);

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        let now = crate::SystemClock::new().now().as_millis();
        Timestamp::from_millis(now.saturating_add_signed(self.0 * 1000))
    }
}

#[tokio::test]
async fn the_time_left_is_told() {
    let seconds = |limits: &str, name: &str| -> Option<u64> {
        let members = limits.split(", ").map(|member| member.split_once('=').unwrap());
        members
            .into_iter()
            .find(|(other, _)| *other == name)
            .map(|(_, left)| left.parse().unwrap())
    };
    for (draft, name) in [
        (Some(6), "expires"),
        (Some(7), "max-age"),
        (Some(10), "max-age"),
        (FINAL, "max-age"),
    ] {
        for (shift, range) in [
            (0, 3590..=3600),
            (-1800, 1790..=1800),
            (7200, 3600..=3600),
            (-7200, 0..=0),
        ] {
            let metadata = MemoryMetadata::with_clock(Arc::new(Shifted(shift)));
            let builder = Uploads::with(MemoryBlobs::new(), metadata)
                .authorizer(OwnerOnly)
                .without_driver();
            let uploads = builder.expire_after(Duration::from_secs(3600)).build().await.unwrap();
            let wire = Wire::of(uploads, Resumable::new());
            let options = wire.ask(draft, "OPTIONS /files", &[], "").await;
            assert_eq!(seconds(options.header("upload-limit"), name), Some(3600));
            let created = wire.ask(draft, "POST /files", &[MORE], "0").await;
            let head = wire
                .ask(draft, &format!("HEAD {}", created.header("location")), &[], "")
                .await;
            for reply in [created, head] {
                let left = seconds(reply.header("upload-limit"), name).unwrap();
                assert!(range.contains(&left), "{left} of {shift}");
            }
        }
    }
}
