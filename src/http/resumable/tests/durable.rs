#![cfg(all(feature = "disk", feature = "redb"))]

use std::time::Duration;

use super::*;

async fn open(at: &std::path::Path) -> Wire {
    let builder = Uploads::open(at).authorizer(OwnerOnly).max_size(100).never_expire();
    Wire::of(builder.build().await.unwrap(), Resumable::new())
}

async fn close(wire: Wire) {
    wire.uploads.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn uploads_outlive_the_process() {
    for draft in FULL {
        let directory = tempfile::tempdir().unwrap();
        let wire = open(directory.path()).await;
        let headers = [MORE, ("upload-length", "10"), ("want-repr-digest", "sha-256=1")];
        let created = wire.ask(*draft, "POST /files", &headers, "01234").await;
        let path = created.header("location").to_owned();
        close(wire).await;

        let wire = open(directory.path()).await;
        let head = wire.ask(*draft, &format!("HEAD {path}"), &[], "").await;
        let told = ["upload-offset", "upload-length", "upload-complete"].map(|name| head.header(name));
        assert_eq!((head.status, told), (204, ["5", "10", "?0"]));
        let last = wire
            .ask(*draft, &format!("PATCH {path}"), &[MEDIA, LAST, AT_5], "56789")
            .await;
        assert_eq!(
            (last.status, last.header("upload-complete")),
            (200, "?1"),
            "{}",
            last.text
        );
        assert!(last.headers.contains_key("repr-digest"));
        close(wire).await;

        let wire = open(directory.path()).await;
        assert_eq!(wire.now(&path).await, "10 ?1");
        assert_eq!(wire.file(&path).await, "0123456789");
        let again = wire
            .ask(Some(10), &format!("PATCH {path}"), &[MEDIA, LAST, AT_10], "")
            .await;
        assert_eq!((again.status, &again.text), (200, &last.text));
        assert_eq!(again.header("repr-digest"), last.header("repr-digest"));
        close(wire).await;
    }
}

#[tokio::test]
async fn a_prefix_that_a_dropped_request_left_outlives_the_process() {
    for at in 0..=5 {
        let directory = tempfile::tempdir().unwrap();
        let wire = open(directory.path()).await;
        let path = wire.prepared("loose").await;
        let headers = [MEDIA, LAST, AT_5];
        send_and_drop(&wire, Some(6), &format!("PATCH {path}"), &headers, &"56789"[..at]).await;
        assert_eq!(wire.now(&path).await, format!("{} ?0", 5 + at));
        close(wire).await;

        let wire = open(directory.path()).await;
        let offset = (5 + at).to_string();
        assert_eq!(wire.now(&path).await, format!("{offset} ?0"));
        let headers = [MEDIA, LAST, ("upload-offset", offset.as_str())];
        let last = wire
            .ask(Some(6), &format!("PATCH {path}"), &headers, &"56789"[at..])
            .await;
        assert_eq!(last.status, 200, "{}", last.text);
        assert_eq!(wire.file(&path).await, "0123456789");
        close(wire).await;
    }
}
