use super::*;
use crate::http::tests::{NOBODY, STRANGER, watched};

#[tokio::test]
#[rustfmt::skip]
async fn creation() {
    let long = "x".repeat(101);
    rows(&[
        ("4: POST creates", ALL, "POST /files", &[MORE], "01234", 201, &["upload-offset: 5", "upload-complete: ?0"], "#1"),
        ("4: PUT creates", ALL, "PUT /files/", &[MORE], "01234", 201, &["upload-offset: 5"], "#1"),
        ("4: PATCH creates", ALL, "PATCH /files", &[MORE], "01234", 201, &["upload-offset: 5"], "#1"),
        ("4: no other method does", ALL, "DELETE /files", &[MORE], "", 405, &["allow: OPTIONS, POST, PUT, PATCH"], "#0"),
        ("4.4: the whole file in one request", ALL, "POST /files", &[LAST], "0123456789", 200,
            &["upload-complete: ?1", "upload-offset: 10", "\"size\":10", "\"upload_id\":\"", "\"video_path\":\"", "\"checksum\":\"crc64nvme:"], "#1"),
        ("4.5: a beginning", FULL, "POST /files", &[MORE], "01234", 201, &["upload-limit: max-size=100", "upload-complete: ?0"], "#1"),
        ("4.5: with the length", FULL, "POST /files", &[MORE, ("upload-length", "10")], "01234", 201, &["upload-offset: 5"], "#1"),
        ("4.5: all bytes do not complete it", ALL, "POST /files", &[MORE, ("upload-length", "5")], "01234", 201, &["upload-offset: 5", "upload-complete: ?0"], "#1"),
        ("4.8: an empty body that is the end is an empty file", ALL, "POST /files", &[LAST], "", 200, &["upload-complete: ?1", "\"size\":0"], "#1"),
        ("4.8: an empty body that is not creates only", ALL, "POST /files", &[MORE], "", 201, &["upload-offset: 0", "upload-complete: ?0"], "#1"),
        ("4.13: a new upload begins at 0", ALL, "POST /files", &[MORE, AT_5], "01234", 400, &["\"field\":\"upload-offset\""], "#0"),
        ("4.13: and may say so", ALL, "POST /files", &[MORE, ("upload-offset", "0")], "01234", 201, &[], "#1"),
        ("3: lengths agree: one request", ALL, "POST /files", &[LAST, ("upload-length", "5")], "01234", 200, &[], "#1"),
        ("3: lengths contradict: one request that is short", ALL, "POST /files", &[LAST, ("upload-length", "10")], "01234", 400,
            &["http-problem-types#inconsistent-upload-length", "upload-complete: ?0", "!location"], "#0"),
        ("3: lengths contradict: more is sent than there is", ALL, "POST /files", &[MORE, ("upload-length", "4")], "01234", 400,
            &["http-problem-types#inconsistent-upload-length", "upload-complete: ?0"], "#0"),
        ("2: true is no boolean", ALL, "POST /files", &[("upload-complete", "true")], "01234", 400, &["\"field\":\"upload-"], "#0"),
        ("2: 1 is no boolean", ALL, "POST /files", &[("upload-complete", "1")], "01234", 400, &[], "#0"),
        ("2: a string is no boolean", ALL, "POST /files", &[("upload-complete", "\"?1\"")], "01234", 400, &[], "#0"),
        ("2: the field of another draft is not nothing said", &[Some(4), Some(6), Some(10), FINAL], "POST /files", &[("upload-incomplete", "?1")], "01234", 400, &["\"field\":\"upload-incomplete\""], "#0"),
        ("2: parameters mean nothing", &[Some(10), FINAL], "POST /files", &[("upload-complete", "?0;a=b"), ("upload-length", "10;x=\"y\"")], "01234", 201, &[], "#1"),
        ("2: an item is given once", FULL, "POST /files", &[MORE, ("upload-complete", "?0")], "01234", 400, &[], "#0"),
        ("2: a length that is none is not there", FULL, "POST /files", &[MORE, ("upload-length", "\"10\"")], "01234", 201, &[], "#1"),
        ("2: a length of 16 digits is none", FULL, "POST /files", &[MORE, ("upload-length", "1000000000000000")], "01234", 201, &[], "#1"),
        ("2: a length of 15 digits is one", FULL, "POST /files", &[MORE, ("upload-length", "999999999999999")], "01234", 413, &["upload-limit: max-size=100"], "#0"),
        ("6.10: the body is too large", FULL, "POST /files", &[LAST], &long, 413, &["upload-limit: max-size=100", "upload-complete: ?0", "\"limit\":100"], "#0"),
        ("4.10: nothing redirects", ALL, "POST /files/", &[MORE], "01234", 201, &[], "#1"),
        ("13: nobody creates without signing in", ALL, "POST /files", &[MORE, NOBODY], "01234", 401, &["www-authenticate: Bearer", "!upload-limit"], "#0"),
        ("13: a length is one number", ALL, "POST /files", &[MORE, ("content-length", "+5")], "01234", 400, &["\"field\":\"Content-Length\""], "#0"),
        ("1: an unknown version is as the final form", &[Some(2), Some(11), Some(99)], "POST /files", &[MORE], "01234", 201, &["!upload-draft-interop-version", "upload-limit: max-size=100"], "#1"),
    ])
    .await;
}

#[tokio::test]
async fn the_answers_name_the_upload() {
    for draft in ALL {
        let wire = Wire::new().await;
        for (complete, status) in [(MORE, 201), (LAST, 200)] {
            let reply = wire.ask(*draft, "POST /files", &[complete], "01234").await;
            let path = reply.header("location");
            assert_eq!((reply.status, path.len()), (status, "/files/".len() + 22));
            let is_done = complete == LAST;
            assert_eq!(wire.now(path).await, if is_done { "5 ?1" } else { "5 ?0" });
            if is_done {
                assert_eq!(wire.file(path).await, "01234");
                assert_eq!(reply.json()["upload_id"], path["/files/".len()..]);
            }
        }
    }
}

#[tokio::test]
async fn what_the_file_is_called() {
    for (disposition, default, name) in [
        ("inline; filename=\"talk.mp4\"", None, "talk.mp4"),
        ("inline; filename=\"../../etc/passwd\"", None, "passwd"),
        ("inline; filename*=UTF-8''%c3%bc.mp4; filename=u.mp4", None, "ü.mp4"),
        ("inline;\tfilename=tab.mp4", None, "tab.mp4"),
        ("inline; filename=\"..\"", None, "upload"),
        ("inline; filename=\"..\"", Some("video.bin"), "video.bin"),
        ("", Some("video.bin"), "video.bin"),
        ("", None, "upload"),
    ] {
        let mut resumable = Resumable::new();
        if let Some(default) = default {
            resumable = resumable.file_name(default.parse().unwrap());
        }
        let wire = Wire::with(resumable).await;
        let headers = [MORE, ("content-disposition", disposition)];
        let reply = wire.ask(FINAL, "POST /files", &headers, "").await;
        assert_eq!(reply.status, 201, "{disposition} {}", reply.text);
        let upload = wire.upload(reply.header("location")).await;
        assert_eq!(upload.file_name().as_str(), name, "{disposition}");
    }
}

#[tokio::test]
async fn what_the_file_is_is_kept_as_it_was_said() {
    let wire = Wire::new().await;
    let headers = [
        LAST,
        ("content-type", "video/mp4; codecs=\"avc1\""),
        ("content-encoding", "gzip"),
        ("content-disposition", "inline; filename=\"a.mp4\""),
    ];
    let reply = wire.ask(FINAL, "POST /files", &headers, "no gzip at all").await;
    let path = reply.header("location");
    assert_eq!((reply.status, wire.file(path).await.as_str()), (200, "no gzip at all"));
    let upload = wire.upload(path).await;
    assert_eq!(upload.metadata()["filetype"], "video/mp4; codecs=\"avc1\"");
    for (name, value) in &headers[1..] {
        assert_eq!(upload.notes()[*name], *value);
    }
    for (name, value) in [
        ("content-type", "video"),
        ("content-type", "video/mp4/x y"),
        ("content-type", "a/\u{fc}"),
        ("content-encoding", "gz ip"),
        ("content-encoding", "\u{fc}"),
    ] {
        let reply = wire.ask(FINAL, "POST /files", &[MORE, (name, value)], "01234").await;
        assert_eq!(reply.status, 400, "{name} {value}: {}", reply.text);
        assert!(reply.text.contains(&format!("\"field\":\"{name}\"")), "{}", reply.text);
    }
    assert_eq!(wire.count().await, 1);
}

#[tokio::test]
async fn whoever_does_not_speak_it_sends_a_whole_file() {
    let wire = Wire::new().await;
    let headers = [("content-type", "video/mp4"), ("upload-length", "99")];
    let reply = wire.ask(FINAL, "POST /files", &headers, "0123456789").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    for field in ["upload-complete", "upload-offset", "upload-limit", "location"] {
        assert!(!reply.headers.contains_key(field), "{field}");
    }
    let id = reply.json()["upload_id"].as_str().unwrap().to_owned();
    assert_eq!(wire.file(&id).await, "0123456789");

    let form = [("content-type", "multipart/form-data; boundary=X")];
    assert_eq!(wire.ask(FINAL, "POST /files", &form, "--X--").await.status, 415);
    let huge = wire.ask(FINAL, "POST /files", &[], "x".repeat(101)).await;
    assert_eq!(
        (huge.status, huge.headers.contains_key("upload-complete")),
        (413, false)
    );
    assert_eq!(wire.count().await, 1);
}

#[tokio::test]
async fn of_a_whole_file_that_is_cut_nothing_is_left() {
    let wire = Wire::new().await;
    for ends in ["with an error", "by the client"] {
        let frames = stream::iter([Ok(Frame::data(Bytes::from("01234")))]);
        let error = Err(std::io::Error::other("connection reset"));
        if ends == "with an error" {
            let body = StreamBody::new(frames.chain(stream::iter([error])));
            assert_eq!(wire.send(FINAL, request("POST /files", &[], body)).await.status, 400);
        } else {
            send_and_drop(&wire, FINAL, "POST /files", &[], "01234").await;
        }
        for _ in 0..200 {
            if wire.count().await == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(wire.count().await, 0, "{ends}");
    }
    let all = wire.uploads.list(&Caller::new("ann"), Page::new(0, 9)).await.unwrap();
    assert_eq!(all.len(), 2);
    for upload in all {
        assert_eq!(upload.state(), State::Aborted);
    }
}

#[tokio::test]
async fn a_body_of_unknown_length() {
    for (draft, complete, length, sent, status, after) in [
        (FINAL, LAST, "", "01234", 200, "5 ?1"),
        (Some(6), LAST, "5", "01234", 200, "5 ?1"),
        (FINAL, MORE, "", "01234", 201, "5 ?0"),
        (FINAL, MORE, "", "", 201, "0 ?0"),
        // 3: short of what was said: what came is kept; more than that: it is over.
        (FINAL, LAST, "10", "01234", 400, "5 ?0"),
        (Some(10), MORE, "4", "01234", 400, "404"),
        (Some(6), LAST, "4", "01234", 400, "404"),
    ] {
        let wire = Wire::new().await;
        let frames = stream::iter(sent.as_bytes().chunks(3).map(Bytes::copy_from_slice));
        let body = StreamBody::new(frames.map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes))));
        let headers = [complete, ("upload-length", length)];
        let reply = wire.send(draft, request("POST /files", &headers, body)).await;
        assert_eq!(reply.status, status, "{}", reply.text);
        if status == 400 {
            assert!(reply.text.contains("#inconsistent-upload-length"), "{}", reply.text);
            assert_eq!(reply.header("upload-complete"), "?0");
        }
        let all = wire.uploads.list(&Caller::new("ann"), Page::new(0, 9)).await.unwrap();
        assert_eq!(wire.now(&format!("/files/{}", all[0].id())).await, after, "{sent}");
    }
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_not_read() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let wire = Wire::with(Resumable::new().max_append_size(50)).await;
    let open = wire.prepared("open").await;
    for (ask, headers, status) in [
        ("POST /files", &[MORE, NOBODY][..], 401),
        ("POST /files", &[("upload-complete", "x")], 400),
        ("POST /files", &[MORE, ("upload-length", "101")], 413),
        ("POST /files", &[LAST, ("content-length", "51")], 413),
        ("POST /files", &[MORE, ("content-digest", "x")], 400),
        ("POST /files", &[MORE, ("content-type", "x")], 400),
        ("PATCH {open}", &[MORE, AT_5, MEDIA, NOBODY], 401),
        ("PATCH {open}", &[MORE, AT_5, MEDIA, STRANGER], 404),
        ("PATCH {open}", &[MORE, AT_5], 415),
        ("PATCH {open}", &[MORE, MEDIA], 400),
        ("PATCH {open}", &[MORE, AT_10, MEDIA], 409),
        ("PATCH {open}", &[MORE, AT_5, MEDIA, ("content-digest", "x")], 400),
        ("PATCH {open}", &[MORE, AT_5, MEDIA, ("content-length", "51")], 400),
        ("PATCH /files/AAAAAAAAAAAAAAAAAAAAAA", &[MORE, AT_5, MEDIA], 404),
        ("PATCH /files/x/y", &[MORE, AT_5, MEDIA], 404),
        ("GET /files", &[MORE], 405),
    ] {
        let polled = Arc::new(AtomicBool::new(false));
        let ask = ask.replace("{open}", &open);
        let reply = wire.send(FINAL, request(&ask, headers, watched(&polled))).await;
        assert_eq!(reply.status, status, "{ask} {headers:?} {}", reply.text);
        assert!(!polled.load(Ordering::Relaxed), "{ask} {headers:?}");
    }
}
