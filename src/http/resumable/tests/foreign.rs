//! Uploads of other protocols, and what is spoken where.

use super::*;
use crate::http::Tus;

#[tokio::test]
#[rustfmt::skip]
async fn uploads_of_other_protocols() {
    rows(&[
        ("the offset of chunks is their prefix", ALL, "HEAD {chunk}", &[], "", 204, &["upload-offset: 4", "upload-complete: ?0", "upload-length: 10"], ""),
        ("chunks are given up", ALL, "DELETE {chunk}", &[], "", 204, &[], "404"),
        ("chunks take no appends", ALL, "PATCH {chunk}", &[MEDIA, LAST, ("upload-offset", "4")], "456789", 403, &["chunk API", "upload-complete: ?0"], "4 ?0"),
        ("the offset of tus", ALL, "HEAD {tus}", &[], "", 204, &["upload-offset: 5", "upload-complete: ?0", "upload-length: 10"], ""),
        ("tus is given up", ALL, "DELETE {tus}", &[], "", 204, &[], "404"),
        ("tus is gone on with", TO_6, "PATCH {tus}", &[MEDIA, MORE, AT_5], "567", 201, &["upload-offset: 8"], "8 ?0"),
        ("tus is gone on with to its end", ALL, "PATCH {tus}", &[MEDIA, LAST, AT_5], "56789", 200, &["upload-complete: ?1", "\"size\":10"], "10 ?1"),
        ("a part of a tus file is gone on with", TO_6, "PATCH {part}", &[MEDIA, MORE, AT_5], "56789", 201, &["upload-offset: 10"], "10 ?0"),
        ("and never completed", ALL, "PATCH {part}", &[MEDIA, LAST, AT_5], "56789", 403, &["join them by tus"], "5 ?0"),
    ])
    .await;
}

#[tokio::test]
async fn a_tus_upload_seals_itself_under_our_appends() {
    for (draft, status) in [(Some(6), 201), (FINAL, 204)] {
        let wire = Wire::new().await;
        let path = wire.prepared("tus").await;
        let all = wire
            .ask(draft, &format!("PATCH {path}"), &[MEDIA, MORE, AT_5], "56789")
            .await;
        assert_eq!((all.status, all.header("upload-complete")), (status, "?0"));
        assert_eq!(wire.file(&path).await, "0123456789");
        let last = wire
            .ask(draft, &format!("PATCH {path}"), &[MEDIA, LAST, AT_10], "")
            .await;
        assert_eq!(
            (last.status, last.header("upload-complete")),
            (200, "?1"),
            "{}",
            last.text
        );
    }
}

#[tokio::test]
async fn a_length_that_we_tell_seals_a_tus_upload_that_waits_for_it() {
    let wire = Wire::new().await;
    let ann = Caller::new("ann");
    let new = NewUpload::new("a").protocol(Protocol::Tus).seals_itself();
    let id = wire.uploads.create(&ann, new).await.unwrap().id();
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from("01234"))]);
    wire.uploads.append(&ann, id, 0, body).await.unwrap();
    let path = format!("/files/{id}");
    let last = wire
        .ask(FINAL, &format!("PATCH {path}"), &[MEDIA, LAST, AT_5], "")
        .await;
    assert_eq!(
        (last.status, last.header("upload-complete")),
        (200, "?1"),
        "{}",
        last.text
    );
    assert_eq!(wire.file(&path).await, "01234");
}

#[tokio::test]
async fn our_uploads_are_gone_on_with_by_the_engine() {
    let wire = Wire::new().await;
    let path = wire.prepared("open").await;
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from("56789"))]);
    wire.uploads
        .append(&Caller::new("ann"), id(&path), 5, body)
        .await
        .unwrap();
    assert_eq!(wire.now(&path).await, "10 ?0");
    assert!(
        is_open(&wire.upload(&path).await),
        "only this protocol says that it is complete"
    );
    let last = wire
        .ask(FINAL, &format!("PATCH {path}"), &[MEDIA, LAST, AT_10], "")
        .await;
    assert_eq!(last.status, 200, "{}", last.text);
    assert_eq!(wire.file(&path).await, "0123456789");
}

#[tokio::test]
async fn a_request_says_what_it_speaks() {
    let mut wire = Wire::new().await;
    wire.service = wire.service.tus(Tus::new());
    let path = wire.prepared("open").await;
    for (draft, ask, headers, status) in [
        (Some(6), format!("HEAD {path}"), &[][..], 204),
        (FINAL, format!("HEAD {path}"), &[], 204),
        (FINAL, format!("PATCH {path}"), &[MEDIA, AT_5], 400),
        (FINAL, "POST /files".to_owned(), &[MORE], 201),
    ] {
        assert_eq!(wire.ask(draft, &ask, headers, "").await.status, status, "{ask}");
    }
}
