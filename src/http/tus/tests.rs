//! The wire of tus.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower_service::Service as _;

use super::Tus;
use crate::{Caller, Uploads, access::OwnerOnly, blob::MemoryBlobs, http::UploadBody, metadata::MemoryMetadata};

#[tokio::test]
async fn an_upload_from_its_creation_to_its_end() {
    let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .build()
        .await
        .unwrap();
    let service = uploads
        .service(|_: &http::request::Parts| Some(Caller::new("ann")))
        .tus(Tus::new());
    let send = |method: &str, path: &str, headers: &[(&str, &str)], body: &'static str| {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("tus-resumable", "1.0.0");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let mut service = service.clone();
        async move {
            let response: Response<UploadBody> = service.call(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            (parts.status.as_u16(), text, parts.headers)
        }
    };
    const BYTES: (&str, &str) = ("content-type", "application/offset+octet-stream");
    let created = send("POST", "/files", &[("upload-length", "10")], "").await;
    assert_eq!(created.0, 201);
    let url = created.2["location"].to_str().unwrap().to_owned();
    for (method, headers, body, status, answer) in [
        ("PATCH", &[BYTES, ("upload-offset", "0")][..], "01234", 204, ""),
        ("HEAD", &[], "", 200, ""),
        ("PATCH", &[BYTES, ("upload-offset", "5")], "56789", 204, ""),
        ("GET", &[], "", 200, "0123456789"),
        ("DELETE", &[], "", 204, ""),
        ("HEAD", &[], "", 410, ""),
        ("OPTIONS", &[], "", 200, ""),
    ] {
        let reply = send(method, &url, headers, body).await;
        assert_eq!((reply.0, reply.1.as_str()), (status, answer), "{method} {reply:?}");
        assert_eq!(reply.2["tus-resumable"], "1.0.0");
    }
}
