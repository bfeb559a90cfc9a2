//! Final uploads: what the engine joins.

use super::*;

const LENGTH: (&str, &str) = ("upload-length", "10");
const PARTIAL: (&str, &str) = ("upload-concat", "partial");

/// `final;` and the URLs of these uploads.
fn of(ids: &[&str]) -> String {
    let urls: Vec<String> = ids.iter().map(|id| format!("/api/files/{id}")).collect();
    format!("final;{}", urls.join(" "))
}

async fn join(wire: &Wire, concat: &str, headers: &[(&str, &str)]) -> Reply {
    let headers = [headers, &[("upload-concat", concat)]].concat();
    wire.tus("POST /files", &headers, whole("")).await
}

#[tokio::test]
async fn partial_uploads_become_one() {
    let wire = wire().await;
    let a = wire
        .created(&[LENGTH, PARTIAL, ("upload-metadata", "filename YQ==")], "0123456789")
        .await;
    let b = wire.created(&[("upload-length", "5"), PARTIAL], "abc").await;
    assert_eq!(wire.patch(&b, 3, "de").await.status, 204);
    let concat = of(&[&b, &a]);
    let metadata = "filename Yi5tcDQ=";
    let reply = join(&wire, &concat, &[("upload-metadata", metadata)]).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let id = reply.header("location").strip_prefix("/api/files/").unwrap();
    let head = wire.head(id).await;
    assert_eq!(
        (head.header("upload-offset"), head.header("upload-length")),
        ("15", "15")
    );
    assert_eq!(
        (head.header("upload-concat"), head.header("upload-metadata")),
        (concat.as_str(), metadata)
    );
    let content = wire.get(id).await;
    assert_eq!(content.text, "abcde0123456789");
    assert_eq!(
        content.header("content-disposition"),
        "attachment; filename=\"b.mp4\"",
        "of the final upload alone"
    );

    let patch = wire.patch(id, 15, "x").await;
    assert_eq!(patch.status, 403, "{patch:?}");
    assert_eq!(wire.patch(id, 0, "x").await.status, 403);
    assert_eq!(wire.get(id).await.text, "abcde0123456789");
    assert_eq!(
        wire.tus(&format!("DELETE /files/{id}"), &[], whole("")).await.status,
        204
    );
    assert_eq!(wire.head(id).await.status, 410);
}

#[tokio::test]
async fn a_partial_upload_may_come_twice() {
    let wire = wire().await;
    let a = wire.created(&[("upload-length", "2"), PARTIAL], "ab").await;
    let reply = join(&wire, &of(&[&a, &a]), &[]).await;
    let id = reply.header("location").strip_prefix("/api/files/").unwrap();
    assert_eq!(wire.get(id).await.text, "abab");
}

#[tokio::test]
async fn what_cannot_be_joined_is_refused() {
    let wire = wire().await;
    let done = wire.created(&[LENGTH, PARTIAL], "0123456789").await;
    let unfinished = wire.created(&[LENGTH, PARTIAL], "0123").await;
    let plain = wire.created(&[LENGTH], "0123").await;
    let finished = wire.created(&[LENGTH], "0123456789").await;
    let chunked = wire.begun().await;
    let deleted = wire.created(&[LENGTH, PARTIAL], "").await;
    wire.tus(&format!("DELETE /files/{deleted}"), &[], whole("")).await;
    let eve = [LENGTH, PARTIAL, ("authorization", "Bearer eve"), BYTES];
    let reply = wire.tus("POST /files", &eve, whole("0123456789")).await;
    let theirs = reply.header("location").strip_prefix("/api/files/").unwrap().to_owned();
    let before = wire.all().await.len();
    for (says, second, statuses) in [
        ("a partial upload that is not finished", &unfinished, &[400][..]),
        ("an upload that is not partial", &plain, &[400]),
        ("a finished upload", &finished, &[400]),
        ("an upload of the chunk API", &chunked, &[400]),
        ("a deleted upload", &deleted, &[400, 404, 410]),
        ("an unknown upload", &UNKNOWN.to_owned(), &[400, 404]),
        ("an upload of somebody else", &theirs, &[400, 404]),
    ] {
        let reply = join(&wire, &of(&[&done, second]), &[]).await;
        assert!(statuses.contains(&reply.status), "{says} {reply:?}");
        assert_eq!(wire.all().await.len(), before, "{says}");
        assert_eq!(wire.head(&done).await.status, 200, "{says}");
    }
    let [theirs, unknown] = [theirs.as_str(), UNKNOWN].map(|id| of(&[&done, id]));
    let (theirs, unknown) = (join(&wire, &theirs, &[]).await, join(&wire, &unknown, &[]).await);
    assert_eq!(
        (theirs.status, theirs.text, theirs.headers),
        (unknown.status, unknown.text, unknown.headers)
    );
}

#[tokio::test]
async fn a_sum_over_the_maximum_is_413() {
    let stores = Uploads::with(crate::blob::MemoryBlobs::new(), crate::metadata::MemoryMetadata::new());
    let uploads = stores
        .authorizer(crate::access::OwnerOnly)
        .max_size(15)
        .build()
        .await
        .unwrap();
    let wire = serve(uploads, Tus::new());
    let a = wire.created(&[LENGTH, PARTIAL], "0123456789").await;
    let reply = join(&wire, &of(&[&a, &a]), &[]).await;
    assert_eq!(reply.status, 413, "{reply:?}");
}

#[tokio::test]
async fn unfinished_uploads_are_joined_when_they_are_finished() {
    let wire = serve(engine().await, Tus::new().unfinished_concatenation());
    let a = wire.created(&[LENGTH, PARTIAL], "0123").await;
    let b = wire.created(&[("upload-defer-length", "1"), PARTIAL], "").await;
    let concat = of(&[&a, &b]);
    let reply = join(&wire, &concat, &[]).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let id = reply.header("location").strip_prefix("/api/files/").unwrap().to_owned();
    let head = wire.head(&id).await;
    assert_eq!((head.status, head.header("upload-concat")), (200, concat.as_str()));
    for name in ["upload-offset", "upload-defer-length"] {
        assert!(!head.headers.contains_key(name), "{head:?}");
    }
    assert_eq!(wire.patch(&id, 0, "x").await.status, 403);
    assert_eq!(wire.patch(&a, 4, "456789").await.status, 204);
    let headers = [BYTES, ("upload-offset", "0"), ("upload-length", "2")];
    assert_eq!(
        wire.tus(&format!("PATCH /files/{b}"), &headers, whole("ab"))
            .await
            .status,
        204
    );
    let joined = async {
        while wire.head(&id).await.header("upload-offset") != "12" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), joined)
        .await
        .unwrap();
    assert_eq!(wire.head(&id).await.header("upload-length"), "12");
    assert_eq!(wire.get(&id).await.text, "0123456789ab");
}
