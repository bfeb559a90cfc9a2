use super::*;
use crate::http::tests::{NOBODY, STRANGER};

#[tokio::test]
#[rustfmt::skip]
async fn offset_retrieval() {
    rows(&[
        ("5.1: HEAD tells the offset", ALL, "HEAD {open}", &[], "", 204, &["upload-offset: 5", "upload-complete: ?0", "upload-length: 10", "cache-control: no-store"], "5 ?0"),
        ("5.1: and the limits", FULL, "HEAD {open}", &[], "", 204, &["upload-limit: max-size=100"], ""),
        ("5.1: and no length that is not known", FULL, "HEAD {loose}", &[], "", 204, &["upload-offset: 5", "!upload-length"], ""),
        ("3: all bytes do not complete it", ALL, "HEAD {full}", &[], "", 204, &["upload-offset: 10", "upload-complete: ?0", "upload-length: 10"], ""),
        ("5.2: complete is what was answered for good", ALL, "HEAD {done}", &[], "", 204, &["upload-offset: 10", "upload-complete: ?1", "upload-length: 10"], ""),
        ("5.3: unknown", ALL, "HEAD {nowhere}", &[], "", 404, &["!upload-offset"], ""),
        ("5.3: given up", ALL, "HEAD {gone}", &[], "", 404, &["!upload-offset"], ""),
        ("5.4: no offset in the request", ALL, "HEAD {open}", &[AT_5], "", 400, &[], "5 ?0"),
        ("5.4: no completeness in the request", ALL, "HEAD {open}", &[LAST], "", 400, &[], "5 ?0"),
        ("5.4: no length in the request", ALL, "HEAD {open}", &[("upload-length", "10")], "", 400, &[], "5 ?0"),
        ("1: GET is as HEAD since -12", FROM_9, "GET {open}", &[], "", 204, &["upload-offset: 5", "upload-complete: ?0", "upload-length: 10", "cache-control: no-store"], ""),
        ("1: GET is nothing before", TO_8, "GET {open}", &[], "", 405, &["allow: OPTIONS, HEAD, PATCH, DELETE"], ""),
        ("7: DELETE gives it up", ALL, "DELETE {open}", &[], "", 204, &[], "404"),
        ("7: also a finished one", ALL, "DELETE {done}", &[], "", 204, &[], "404"),
        ("7: unknown", ALL, "DELETE {nowhere}", &[], "", 404, &[], ""),
        ("7: given up already", ALL, "DELETE {gone}", &[], "", 404, &[], "404"),
        ("7: no offset in the request", ALL, "DELETE {open}", &[AT_5], "", 400, &[], "5 ?0"),
        ("7: no completeness in the request", ALL, "DELETE {open}", &[MORE], "", 400, &[], "5 ?0"),
        ("6: PATCH alone appends", ALL, "POST {open}", &[MORE, AT_5, MEDIA], "56789", 405, &[], "5 ?0"),
        ("3: what is beneath an upload is nothing", ALL, "HEAD {open}/x", &[], "", 404, &[], "5 ?0"),
    ])
    .await;
}

#[tokio::test]
async fn nobody_learns_of_uploads_of_others() {
    for draft in ALL {
        for method in ["HEAD", "GET", "PATCH", "DELETE", "POST"] {
            let wire = Wire::new().await;
            let path = wire.prepared("open").await;
            for (who, status) in [(STRANGER, 404), (NOBODY, 401)] {
                let headers = if method == "PATCH" {
                    &[who, MORE, AT_5, MEDIA][..]
                } else {
                    &[who]
                };
                let there = wire.ask(*draft, &format!("{method} {path}"), headers, "").await;
                let nowhere = wire.ask(*draft, &format!("{method} {NOWHERE}"), headers, "").await;
                assert_eq!(
                    (there.status, &there.text, &there.headers),
                    (status, &nowhere.text, &nowhere.headers),
                    "{draft:?} {method}"
                );
            }
            assert_eq!(wire.now(&path).await, "5 ?0");
        }
    }
}

#[tokio::test]
async fn a_refused_file_is_never_complete_without_its_error() {
    let wire = Wire::new().await;
    let headers = [LAST, ("repr-digest", "crc32c=:AAAAAA==:")];
    let reply = wire.ask(FINAL, "POST /files", &headers, "0123456789").await;
    assert_eq!(
        (reply.status, reply.header("upload-complete")),
        (422, "?1"),
        "{}",
        reply.text
    );
    let path = reply.header("location").to_owned();
    for ask in ["HEAD", "DELETE"] {
        let reply = wire.ask(Some(6), &format!("{ask} {path}"), &[], "").await;
        assert_eq!((reply.status, reply.header("upload-complete")), (422, "?1"), "{ask}");
    }
    let again = wire
        .ask(FINAL, &format!("PATCH {path}"), &[LAST, AT_10, MEDIA], "")
        .await;
    assert_eq!(
        (again.status, again.header("upload-complete")),
        (422, "?1"),
        "{}",
        again.text
    );
}
