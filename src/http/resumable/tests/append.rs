use futures_util::FutureExt as _;

use super::*;
use crate::http::tests::stalled;

#[tokio::test]
#[rustfmt::skip]
async fn appends() {
    let long = "x".repeat(96);
    rows(&[
        ("6.3: more is to come: 201 up to -05", TO_6, "PATCH {open}", &[MEDIA, MORE, AT_5], "567", 201, &["upload-complete: ?0", "upload-offset: 8"], "8 ?0"),
        ("6.3: more is to come: 204 since -06", FROM_7, "PATCH {open}", &[MEDIA, MORE, AT_5], "567", 204, &["upload-complete: ?0", "upload-offset: 8"], "8 ?0"),
        ("3: all bytes do not complete it", FROM_7, "PATCH {open}", &[MEDIA, MORE, AT_5], "56789", 204, &["upload-complete: ?0", "upload-offset: 10"], "10 ?0"),
        ("6.4: the last one", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5], "56789", 200, &["upload-complete: ?1", "upload-offset: 10", "\"size\":10"], "10 ?1"),
        ("6.4: the last one tells the length", ALL, "PATCH {loose}", &[MEDIA, LAST, AT_5], "56789", 200, &["upload-complete: ?1"], "10 ?1"),
        ("6.5: complete with what is there", ALL, "PATCH {full}", &[MEDIA, LAST, AT_10], "", 200, &["upload-complete: ?1", "\"size\":10"], "10 ?1"),
        ("6.5: of unknown length too", ALL, "PATCH {loose}", &[MEDIA, LAST, AT_5], "", 200, &["\"size\":5"], "5 ?1"),
        ("6.1: an empty append that is not the last", FROM_7, "PATCH {open}", &[MEDIA, MORE, AT_5], "", 204, &["upload-offset: 5"], "5 ?0"),
        ("6.1: no media type before -04", &[Some(3), Some(4), Some(5)], "PATCH {open}", &[LAST, AT_5], "56789", 200, &[], "10 ?1"),
        ("6.1: a media type since -04", &[Some(6), Some(7), Some(8), Some(9), Some(10), FINAL], "PATCH {open}", &[LAST, AT_5], "56789", 415, &["upload-complete: ?0"], "5 ?0"),
        ("6.1: and no other one", FULL, "PATCH {open}", &[LAST, AT_5, ("content-type", "application/offset+octet-stream")], "56789", 415, &[], "5 ?0"),
        ("6.1: in any case, with parameters", FULL, "PATCH {open}", &[LAST, AT_5, ("content-type", "Application/Partial-Upload; x=y")], "56789", 200, &[], "10 ?1"),
        ("6.1: an offset", ALL, "PATCH {open}", &[MEDIA, LAST], "56789", 400, &["\"field\":\"upload-offset\"", "upload-complete: ?0"], "5 ?0"),
        ("2: an offset is an integer", ALL, "PATCH {open}", &[MEDIA, LAST, ("upload-offset", "5.0")], "56789", 400, &[], "5 ?0"),
        ("2: an offset is not negative", ALL, "PATCH {open}", &[MEDIA, LAST, ("upload-offset", "-5")], "56789", 400, &[], "5 ?0"),
        ("2: an offset is given once", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5, AT_5], "56789", 400, &[], "5 ?0"),
        ("2: parameters of an offset mean nothing", ALL, "PATCH {open}", &[MEDIA, LAST, ("upload-offset", "5;a=b")], "56789", 200, &[], "10 ?1"),
        ("6.1: nothing said completes up to -05", TO_6, "PATCH {open}", &[MEDIA, AT_5], "56789", 200, &["upload-complete: ?1"], "10 ?1"),
        ("6.1: it must be said since -06", FROM_7, "PATCH {open}", &[MEDIA, AT_5], "56789", 400, &["\"field\":\"upload-complete\"", "upload-complete: ?0"], "5 ?0"),
        ("2: nor does the field of another draft", &[Some(4), Some(6), Some(10), FINAL], "PATCH {open}", &[MEDIA, AT_5, ("upload-incomplete", "?1")], "56789", 400, &["\"field\":\"upload-incomplete\""], "5 ?0"),
        ("2: what is no boolean completes nothing", ALL, "PATCH {open}", &[MEDIA, AT_5, ("upload-complete", "1")], "56789", 400, &[], "5 ?0"),
        ("6.2: elsewhere: behind", ALL, "PATCH {open}", &[MEDIA, LAST, ("upload-offset", "4")], "456789", 409,
            &["upload-complete: ?0", "upload-offset: 5", "http-problem-types#mismatching-upload-offset", "\"expected-offset\":5", "\"provided-offset\":4"], "5 ?0"),
        ("6.2: elsewhere: ahead", ALL, "PATCH {open}", &[MEDIA, LAST, ("upload-offset", "6")], "6789", 409, &["upload-complete: ?0", "upload-offset: 5", "\"provided-offset\":6"], "5 ?0"),
        ("3: a length that is another", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5, ("upload-length", "11")], "56789", 400,
            &["http-problem-types#inconsistent-upload-length", "upload-complete: ?0"], "5 ?0"),
        ("3: a length that is the same", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5, ("upload-length", "10")], "56789", 200, &[], "10 ?1"),
        ("3: an end that is another", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5], "5678", 400, &["#inconsistent-upload-length", "upload-complete: ?0"], "5 ?0"),
        ("3: past the length is the end of it", ALL, "PATCH {open}", &[MEDIA, MORE, AT_5], "56789X", 400, &["#inconsistent-upload-length", "upload-complete: ?0"], "404"),
        ("3: a first length short of what is there", FULL, "PATCH {loose}", &[MEDIA, MORE, AT_5, ("upload-length", "4")], "", 400, &["#inconsistent-upload-length", "already"], "5 ?0"),
        ("3: a first length short of what is sent", FULL, "PATCH {loose}", &[MEDIA, MORE, AT_5, ("upload-length", "7")], "567", 400, &["#inconsistent-upload-length"], "5 ?0"),
        ("3: a length that comes late", FULL, "PATCH {loose}", &[MEDIA, LAST, AT_5, ("upload-length", "10")], "56789", 200, &[], "10 ?1"),
        ("3: a length that comes late and contradicts", FULL, "PATCH {loose}", &[MEDIA, LAST, AT_5, ("upload-length", "10")], "5678", 400, &["#inconsistent-upload-length"], "5 ?0"),
        ("6.10: past what a file may have", FULL, "PATCH {loose}", &[MEDIA, MORE, AT_5], &long, 413, &["upload-limit: max-size=100", "upload-complete: ?0", "upload-offset: 5"], "5 ?0"),
        ("6.10: a length past what a file may have", FULL, "PATCH {loose}", &[MEDIA, MORE, AT_5, ("upload-length", "101")], "5", 413, &["upload-limit: max-size=100"], "5 ?0"),
        ("6.6: the final answer again, since -12", FROM_9, "PATCH {done}", &[MEDIA, LAST, AT_10], "", 200, &["upload-complete: ?1", "\"size\":10", "\"checksum\":\"crc64nvme:"], "10 ?1"),
        ("6.6: before it is refused: a problem from -04 to -11", &[Some(6), Some(7), Some(8)], "PATCH {done}", &[MEDIA, LAST, AT_10], "", 400,
            &["http-problem-types#completed-upload", "upload-complete: ?0"], "10 ?1"),
        ("6.6: and none before", &[Some(3), Some(4), Some(5)], "PATCH {done}", &[MEDIA, LAST, AT_10], "", 400, &["\"title\":\"Bad Request\""], "10 ?1"),
        ("6.6: more bytes are refused", ALL, "PATCH {done}", &[MEDIA, LAST, AT_10], "X", 400, &["upload-complete: ?0"], "10 ?1"),
        ("6.6: so is an append that is not the last", ALL, "PATCH {done}", &[MEDIA, MORE, AT_10], "", 400, &["upload-complete: ?0"], "10 ?1"),
        ("6.6: and one elsewhere", FROM_9, "PATCH {done}", &[MEDIA, LAST, AT_5], "56789", 409, &["upload-complete: ?0", "upload-offset: 10"], "10 ?1"),
        ("6.6: and one with another length", FROM_9, "PATCH {done}", &[MEDIA, LAST, AT_10, ("upload-length", "11")], "", 400, &["#inconsistent-upload-length"], "10 ?1"),
        ("3: given up", ALL, "PATCH {gone}", &[MEDIA, LAST, AT_5], "56789", 404, &["upload-complete: ?0"], "404"),
        ("3: unknown", ALL, "PATCH {nowhere}", &[MEDIA, LAST, AT_5], "56789", 404, &[], ""),
        ("13: a length is one number", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5, ("content-length", "5, 5")], "56789", 400, &["\"field\":\"Content-Length\""], "5 ?0"),
        ("2: a coded append is not decoded", FULL, "PATCH {open}", &[MEDIA, LAST, AT_5, ("content-encoding", "gzip")], "56789", 200, &[], "10 ?1"),
    ])
    .await;
}

/// The bytes, then the connection is gone.
fn cut(bytes: &[u8]) -> impl Body<Data = Bytes, Error = std::io::Error> + Send + 'static {
    let first = Bytes::copy_from_slice(bytes);
    let frames = stream::iter([Ok(Frame::data(first)), Err(std::io::Error::other("connection reset"))]);
    StreamBody::new(frames)
}

#[tokio::test]
async fn what_came_before_a_cut_is_kept() {
    const FILE: &str = "0123456789";
    for draft in FULL {
        for at in 0..FILE.len() {
            let wire = Wire::new().await;
            // Nobody was told of the creation: the client finds its upload by its list.
            wire.send(
                *draft,
                request("POST /files", &[LAST], cut(&FILE.as_bytes()[..at.min(4)])),
            )
            .await;
            let all = wire.uploads.list(&Caller::new("ann"), Page::new(0, 9)).await.unwrap();
            let path = format!("/files/{}", all[0].id());
            let begun = at.min(4);
            assert_eq!(wire.now(&path).await, format!("{begun} ?0"));
            let offset = begun.to_string();
            let headers = [MEDIA, LAST, ("upload-offset", offset.as_str())];
            let body = cut(&FILE.as_bytes()[begun..at.max(begun)]);
            let broken = wire
                .send(*draft, request(&format!("PATCH {path}"), &headers, body))
                .await;
            assert_eq!((broken.status, broken.header("upload-complete")), (400, "?0"));
            let so_far = at.max(begun);
            assert_eq!(wire.now(&path).await, format!("{so_far} ?0"));
            let offset = so_far.to_string();
            let headers = [MEDIA, LAST, ("upload-offset", offset.as_str())];
            let last = wire
                .ask(*draft, &format!("PATCH {path}"), &headers, &FILE.as_bytes()[so_far..])
                .await;
            assert_eq!(last.status, 200, "{}", last.text);
            assert_eq!(wire.file(&path).await, FILE);
        }
    }
}

/// A request that has sent "567" and then stalls, and its path.
async fn stalling(wire: &Wire) -> (String, tokio::task::JoinHandle<Reply>) {
    let path = wire.prepared("open").await;
    let (body, taken) = held_up("567");
    let request = spoken(FINAL, request(&format!("PATCH {path}"), &[MEDIA, LAST, AT_5], body));
    let mut service = wire.service.clone();
    let sending = tokio::spawn(async move { read(FINAL, service.call(request).await.unwrap()).await });
    taken.notified().await;
    (path, sending)
}

#[tokio::test(start_paused = true)]
async fn a_newer_request_stops_whoever_still_sends() {
    for (ask, status, after) in [
        ("HEAD", 204, "8 ?0"),
        ("GET", 204, "8 ?0"),
        ("PATCH at 8", 200, "10 ?1"),
        ("PATCH at 5", 409, "8 ?0"),
        ("DELETE", 204, "404"),
    ] {
        let wire = Wire::new().await;
        let (path, sending) = stalling(&wire).await;
        let reply = match ask.strip_prefix("PATCH at ") {
            Some(offset) => {
                let headers = [MEDIA, LAST, ("upload-offset", offset)];
                let body = if offset == "8" { "89" } else { "56789" };
                wire.ask(FINAL, &format!("PATCH {path}"), &headers, body).await
            }
            None => wire.ask(FINAL, &format!("{ask} {path}"), &[], "").await,
        };
        assert_eq!(reply.status, status, "{ask} {}", reply.text);
        if ask == "HEAD" || status == 409 {
            assert_eq!(reply.header("upload-offset"), "8", "{ask}");
        }
        let stopped = sending.await.unwrap();
        assert_eq!(
            (stopped.status, stopped.header("upload-complete")),
            (503, "?0"),
            "{ask} {}",
            stopped.text
        );
        assert_eq!(wire.now(&path).await, after, "{ask}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_of_another_protocol_stops_nobody() {
    let wire = Wire::new().await;
    let (path, sending) = stalling(&wire).await;
    assert_eq!(wire.upload(&path).await.offset(), 5);
    assert!(sending.now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_may_come_back() {
    let wire = Wire::new().await;
    let path = wire.prepared("open").await;
    let slow = wire
        .send(
            FINAL,
            request(&format!("PATCH {path}"), &[MEDIA, LAST, AT_5], stalled("56")),
        )
        .await;
    assert_eq!(
        (slow.status, slow.header("upload-complete")),
        (503, "?0"),
        "{}",
        slow.text
    );
    assert_eq!(wire.now(&path).await, "7 ?0");
}

#[tokio::test]
async fn appends_of_unknown_length() {
    for (path, complete, length, sent, status, after) in [
        ("open", LAST, "", "56789", 200, "10 ?1"),
        ("open", MORE, "", "56789", 204, "10 ?0"),
        ("open", LAST, "", "5678", 400, "9 ?0"),
        ("open", MORE, "", "56789X", 400, "404"),
        ("loose", LAST, "", "567", 200, "8 ?1"),
        ("loose", LAST, "10", "567", 400, "8 ?0"),
        ("loose", MORE, "10", "567", 204, "8 ?0"),
        ("done", LAST, "", "", 409, "10 ?1"),
    ] {
        let wire = Wire::new().await;
        let at = wire.prepared(path).await;
        let frames = stream::iter(sent.as_bytes().chunks(2).map(Bytes::copy_from_slice));
        let body = StreamBody::new(frames.map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes))));
        let headers = [MEDIA, complete, AT_5, ("upload-length", length)];
        let reply = wire
            .send(Some(10), request(&format!("PATCH {at}"), &headers, body))
            .await;
        assert_eq!(reply.status, status, "{path} {sent} {}", reply.text);
        assert_eq!(wire.now(&at).await, after, "{path} {sent}");
    }
    // Only the end of such a body tells that it is empty.
    for (sent, status) in [("", 200), ("X", 400)] {
        let wire = Wire::new().await;
        let path = wire.prepared("done").await;
        let frames = stream::iter(sent.as_bytes().chunks(2).map(Bytes::copy_from_slice));
        let body = StreamBody::new(frames.map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes))));
        let reply = wire
            .send(FINAL, request(&format!("PATCH {path}"), &[MEDIA, LAST, AT_10], body))
            .await;
        assert_eq!(reply.status, status, "{}", reply.text);
    }
}

#[tokio::test]
async fn a_length_that_is_known_is_told_although_the_body_broke_off() {
    let wire = Wire::new().await;
    let path = wire.prepared("loose").await;
    let headers = [MEDIA, LAST, AT_5, ("content-length", "5")];
    let broken = wire
        .send(FINAL, request(&format!("PATCH {path}"), &headers, cut(b"56")))
        .await;
    assert_eq!(broken.status, 400);
    let head = wire.ask(FINAL, &format!("HEAD {path}"), &[], "").await;
    assert_eq!(
        (head.header("upload-offset"), head.header("upload-length")),
        ("7", "10")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_race_are_never_mixed() {
    for round in 0..20 {
        let wire = Wire::new().await;
        let path = wire.prepared("loose").await;
        let racers = ["aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"].map(|bytes| {
            let frames = stream::iter(bytes.as_bytes().chunks(1 + round % 3)).then(|bytes| async move {
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(bytes)))
            });
            let asked = request(&format!("PATCH {path}"), &[MEDIA, MORE, AT_5], StreamBody::new(frames));
            let (mut service, asked) = (wire.service.clone(), spoken(FINAL, asked));
            tokio::spawn(async move { read(FINAL, service.call(asked).await.unwrap()).await })
        });
        let mut winners = 0;
        for racer in racers {
            let reply = racer.await.unwrap();
            winners += usize::from(reply.status == 204);
            assert!(matches!(reply.status, 204 | 409 | 503), "{reply:?}");
        }
        let offset = wire.upload(&path).await.offset().to_string();
        let headers = [MEDIA, LAST, ("upload-offset", offset.as_str())];
        assert_eq!(
            wire.ask(FINAL, &format!("PATCH {path}"), &headers, "").await.status,
            200
        );
        let file = wire.file(&path).await;
        let tail = file.strip_prefix("01234").unwrap();
        assert!(winners <= 1 && (winners == 0 || tail.len() == 8), "{winners} {tail}");
        assert!(tail.bytes().all(|byte| byte == tail.as_bytes()[0]), "{tail}");
    }
}
