//! An upload is one upload, whichever dialect it is asked in.

use serde_json::json;

use super::*;

const LENGTH: (&str, &str) = ("upload-length", "10");

#[tokio::test]
async fn the_chunk_api_knows_an_upload_of_tus() {
    let wire = wire().await;
    let id = wire
        .created(&[LENGTH, ("upload-metadata", "filename YS5tcDQ=")], "0123")
        .await;
    let ask = format!("GET /uploads/{id}/");
    let status = wire.ask(&ask, &[], "").await.data();
    assert_eq!(
        (
            &status["protocol"],
            &status["file_name"],
            &status["bytes"],
            &status["offset"],
            &status["state"]
        ),
        (&json!("tus"), &json!("a.mp4"), &json!(4), &json!(4), &json!("open"))
    );
    // It takes appends, not chunks.
    assert_eq!(
        wire.ask(&format!("PUT /uploads/{id}/chunks/0"), &[], "0123")
            .await
            .status,
        409
    );
    assert_eq!(
        wire.ask(&format!("POST /uploads/{id}/assemble/"), &[], "").await.status,
        409
    );

    let finished = wire.created(&[LENGTH], "0123456789").await;
    let status = wire.ask(&format!("GET /uploads/{finished}/"), &[], "").await.data();
    assert_eq!((&status["state"], &status["offset"]), (&json!("assembled"), &json!(10)));
    let content = format!("GET /uploads/{finished}/content");
    let content = wire.call(request(&content, &[], whole(""))).await;
    assert_eq!((content.status, content.text.as_str()), (200, "0123456789"));

    assert_eq!(wire.ask(&format!("DELETE /uploads/{id}/"), &[], "").await.status, 204);
    assert_eq!(wire.head(&id).await.status, 410);
    assert_eq!(wire.patch(&id, 4, "4567").await.status, 410);
}

#[tokio::test]
async fn tus_knows_an_upload_of_the_chunk_api() {
    let wire = wire().await;
    let id = wire.begun().await;
    assert_eq!(
        wire.ask(&format!("PUT /uploads/{id}/chunks/2"), &[], "89").await.status,
        200
    );
    let head = wire.head(&id).await;
    // As far as it goes without a gap.
    assert_eq!(
        (head.status, head.header("upload-offset"), head.header("upload-length")),
        (200, "4", "10")
    );
    assert!(!head.headers.contains_key("upload-metadata"));

    let patch = wire.patch(&id, 4, "4567").await;
    assert_eq!(patch.status, 403, "{patch:?}");
    assert!(patch.text.contains("chunk API"), "{patch:?}");
    assert_eq!(wire.all().await[0].2, 6);

    assert_eq!(
        wire.ask(&format!("PUT /uploads/{id}/chunks/1"), &[], "4567")
            .await
            .status,
        200
    );
    assert_eq!(wire.head(&id).await.header("upload-offset"), "10");
    assert_eq!(wire.get(&id).await.status, 409);
    assert_eq!(
        wire.ask(&format!("POST /uploads/{id}/assemble/"), &[], "").await.status,
        200
    );
    assert_eq!(wire.head(&id).await.header("upload-offset"), "10");
    assert_eq!(wire.patch(&id, 10, "").await.status, 403);
    assert_eq!(wire.get(&id).await.text, "0123456789");

    assert_eq!(
        wire.tus(&format!("DELETE /files/{id}"), &[], whole("")).await.status,
        204
    );
    assert_eq!(
        wire.ask(&format!("GET /uploads/{id}/"), &[], "").await.data()["state"],
        "deleted"
    );
}

/// An upload that the host's own code began, or that another protocol did, is gone on with as one of tus.
#[tokio::test]
async fn appends_of_any_origin_go_on() {
    use crate::{NewUpload, upload::Protocol};
    for protocol in [Protocol::Engine, Protocol::Resumable, Protocol::Tus] {
        let wire = wire().await;
        let new = NewUpload::new("a").protocol(protocol);
        let id = wire.uploads.create(&ann(), new).await.unwrap().id().to_string();
        assert_eq!(wire.patch(&id, 0, "0123").await.status, 204);
        let headers = [BYTES, ("upload-offset", "4"), LENGTH];
        let reply = wire.tus(&format!("PATCH /files/{id}"), &headers, whole("456789")).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        assert_eq!(wire.get(&id).await.text, "0123456789", "{protocol}");
    }
}

/// Of one that the host began, whoever sent its last byte may never come back, nor get as far as asking for the file.
#[tokio::test]
async fn the_last_byte_seals_what_another_began() {
    use crate::{
        NewAppend, NewUpload, Uploads,
        access::{Action, Authorizer, Caller, Denied, Subject},
        blob::MemoryBlobs,
        metadata::MemoryMetadata,
        upload::State,
    };
    struct Appends;
    #[async_trait::async_trait]
    impl Authorizer for Appends {
        async fn authorize(&self, _: &Caller, action: Action, _: Subject<'_>) -> Result<(), Denied> {
            (action != Action::Assemble).then_some(()).ok_or(Denied::Forbidden)
        }
    }
    let bytes = || futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"0123456789"))]);
    let began = async |uploads: &Uploads| uploads.create(&ann(), NewUpload::new("a").size(10)).await.unwrap().id();
    let state = async |uploads: &Uploads, id| uploads.status(&ann(), id).await.unwrap().state();

    let wire = wire().await;
    let id = began(&wire.uploads).await;
    let append = NewAppend::new().seals_when_whole();
    wire.uploads.append_with(&ann(), id, 0, append, bytes()).await.unwrap();
    assert_eq!(state(&wire.uploads, id).await, State::Assembling);

    // Sent by the host's own code, and told as whole by tus: so it is.
    let id = began(&wire.uploads).await;
    wire.uploads.append(&ann(), id, 0, bytes()).await.unwrap();
    assert_eq!(state(&wire.uploads, id).await, State::Open);
    assert_eq!(wire.head(&id.to_string()).await.header("upload-offset"), "10");
    assert_eq!(state(&wire.uploads, id).await, State::Assembled);

    // Where that is not for the caller to say, the host says it.
    let stores = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new());
    let wire = serve(stores.authorizer(Appends).build().await.unwrap(), Tus::new());
    let id = began(&wire.uploads).await;
    assert_eq!(wire.patch(&id.to_string(), 0, "0123456789").await.status, 204);
    assert_eq!(wire.head(&id.to_string()).await.header("upload-offset"), "10");
    assert_eq!(state(&wire.uploads, id).await, State::Open);
}

/// A browser's preflight is answered, and pages may read what clients go by.
#[tokio::test]
async fn pages_of_other_origins() {
    let wire = wire().await;
    let cors = crate::http::Cors::new().allow_origin("https://app.example");
    let wire = Wire {
        uploads: wire.uploads,
        service: wire.service.cors(cors),
    };
    let origin = ("origin", "https://app.example");
    let preflight = [origin, ("access-control-request-method", "PATCH"), NO_VERSION];
    let reply = wire.call(request("OPTIONS /files", &preflight, whole(""))).await;
    assert_eq!(
        (reply.status, reply.header("access-control-allow-origin")),
        (204, origin.1)
    );
    for name in [
        "Tus-Resumable",
        "Upload-Offset",
        "Upload-Length",
        "Upload-Metadata",
        "Upload-Checksum",
    ] {
        assert!(reply.header("access-control-allow-headers").contains(name), "{name}");
    }
    let reply = wire.tus("POST /files", &[origin, LENGTH], whole("")).await;
    for name in ["Location", "Upload-Offset", "Upload-Expires", "Tus-Resumable"] {
        assert!(reply.header("access-control-expose-headers").contains(name), "{name}");
    }
}
