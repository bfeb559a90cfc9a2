//! `ObjectBlobs` on real servers: moto and Ceph's gateway, which speak S3, and Azurite.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod services;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use object_store::{
    ClientOptions, ObjectStoreExt as _,
    aws::{AmazonS3, AmazonS3Builder, Checksum},
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector},
    multipart::MultipartStore as _,
};
use tower_upload::{
    Address, Caller, FileName, NewChunk, NewUpload, State, Target, UploadId, Uploads,
    access::OwnerOnly,
    blob::{
        BlobStore as _, ByteRange, ObjectBlobs,
        object::{ObjectOptions, PartBounds},
    },
    conformance,
    metadata::MemoryMetadata,
};

use services::Service;

const MIB: usize = 1 << 20;

/// Requests by method, and the bytes of their bodies.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<(BTreeMap<String, usize>, u64)>>);

/// A client that notes what goes through it.
#[derive(Debug)]
struct Counting {
    seen: Seen,
    inner: HttpClient,
}

#[async_trait]
impl HttpService for Counting {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        {
            let mut seen = self.seen.0.lock().unwrap();
            let what = request
                .uri()
                .query()
                .map_or("", |query| query.split(['=', '&']).next().unwrap());
            *seen.0.entry(format!("{} {what}", request.method())).or_default() += 1;
            let len = request
                .headers()
                .get("content-length")
                .and_then(|len| len.to_str().ok()?.parse().ok());
            seen.1 += len.unwrap_or(0_u64);
        }
        self.inner.execute(request).await
    }
}

impl HttpConnector for Seen {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        let seen = self.clone();
        Ok(HttpClient::new(Counting { seen, inner }))
    }
}

fn s3(service: &Service, seen: &Seen) -> AmazonS3 {
    with_checksums(service, seen, None)
}

fn with_checksums(service: &Service, seen: &Seen, checksum: Option<Checksum>) -> AmazonS3 {
    let mut builder = AmazonS3Builder::new().with_bucket_name(service.get("BUCKET"));
    for (name, value) in service.variables() {
        if let Ok(key) = name.to_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(checksum) = checksum {
        builder = builder.with_checksum_algorithm(checksum);
    }
    builder.with_http_connector(seen.clone()).build().unwrap()
}

/// A prefix that no other test has.
fn fresh() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

fn body(bytes: &[u8]) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + use<> {
    let frames: Vec<_> = bytes
        .chunks(100_000)
        .map(|frame| Ok(Bytes::copy_from_slice(frame)))
        .collect();
    stream::iter(frames)
}

fn alice() -> Caller {
    Caller::new("alice")
}

/// An engine on a prefix of its own, and what it asks for.
struct Lab {
    uploads: Uploads,
    store: AmazonS3,
    prefix: String,
    seen: Seen,
}

impl Lab {
    async fn new(service: &Service) -> Self {
        Self::with_checksums(service, None).await
    }

    async fn with_checksums(service: &Service, checksum: Option<Checksum>) -> Self {
        let (seen, prefix) = (Seen::default(), fresh());
        let options = ObjectOptions::default().with_prefix(&prefix);
        let store = with_checksums(service, &seen, checksum);
        let blobs = options.with_orphan_age(Duration::ZERO).s3(store).unwrap();
        let uploads = Uploads::with(blobs, MemoryMetadata::new())
            .authorizer(OwnerOnly)
            .orphan_grace(Duration::from_millis(1))
            .without_driver();
        Self {
            uploads: uploads.build().await.unwrap(),
            store: s3(service, &Seen::default()),
            prefix,
            seen,
        }
    }

    /// Assembles, compares every byte, and looks for what is left over; requests and the bytes sent for each received.
    async fn publish(&self, id: UploadId, whole: &[u8], what: &str) -> f64 {
        let upload = self.uploads.assemble(&alice(), id, None).await.unwrap();
        assert_eq!(upload.state(), State::Assembled, "{what}");
        let (requests, sent) = self.seen.0.lock().unwrap().clone();
        let (_, read) = self.uploads.read(&alice(), id, ByteRange::ALL).await.unwrap();
        let read = read.try_collect::<Vec<_>>().await.unwrap().concat();
        assert!(read == whole, "{what}: other bytes");
        let prefix = object_store::path::Path::from(self.prefix.as_str());
        let list = async || {
            let listed = object_store::ObjectStore::list(&self.store, Some(&prefix));
            listed.try_collect::<Vec<_>>().await.unwrap()
        };
        // What is left over goes after the answer.
        for _ in 0..100 {
            if list().await.len() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let left = list().await;
        assert_eq!(left.len(), 1, "{what}: only the blob is left, not {left:?}");
        let ratio = sent as f64 / whole.len().max(1) as f64;
        println!("{what}: {ratio:.4} bytes sent for each received; {requests:?}");
        ratio
    }

    async fn chunk(&self, id: UploadId, whole: &[u8], size: usize, number: usize) {
        let bytes = &whole[number * size..whole.len().min((number + 1) * size)];
        let chunk = NewChunk::new(number as u32);
        self.uploads.put_chunk(&alice(), id, chunk, body(bytes)).await.unwrap();
    }

    async fn append(&self, id: UploadId, whole: &[u8], step: usize) {
        for at in (0..whole.len()).step_by(step) {
            let piece = body(&whole[at..whole.len().min(at + step)]);
            self.uploads.append(&alice(), id, at as u64, piece).await.unwrap();
        }
    }
}

async fn suite(service: &Service) {
    let small = ObjectOptions::default();
    conformance::blob::run(async || {
        // As on the host of a bucket: chunks of the suite are too small for parts.
        small
            .clone()
            .with_prefix(fresh())
            .s3(s3(service, &Seen::default()))
            .unwrap()
    })
    .await;
}

async fn whole_uploads(service: &Service) {
    let whole = bytes(40 * MIB + 12_345);
    let chunk = 8 * MIB;
    for (what, order) in [
        ("chunks in order", [0, 1, 2, 3, 4, 5]),
        ("chunks shuffled", [3, 5, 0, 4, 1, 2]),
    ] {
        let lab = Lab::new(service).await;
        let new = NewUpload::new("a.mp4")
            .size(whole.len() as u64)
            .chunk_size(chunk as u64);
        let id = lab.uploads.create(&alice(), new).await.unwrap().id();
        for number in order {
            lab.chunk(id, &whole, chunk, number).await;
        }
        assert!(lab.publish(id, &whole, what).await < 1.01);
    }

    let lab = Lab::new(service).await;
    let (target, name) = (Target::parse("9").unwrap(), FileName::parse("a.mp4").unwrap());
    let mut id = None;
    for number in (0..6).rev() {
        let bytes = &whole[number * chunk..whole.len().min((number + 1) * chunk)];
        let new = NewChunk::new(number as u32).total(6);
        let to = Address::Name(Some(&target), &name);
        id = Some(
            lab.uploads
                .put_chunk(&alice(), to, new, body(bytes))
                .await
                .unwrap()
                .upload_id,
        );
    }
    lab.publish(id.unwrap(), &whole, "last chunk first").await;

    let lab = Lab::new(service).await;
    let new = NewUpload::new("a.mp4")
        .size(whole.len() as u64)
        .chunk_size(3 * MIB as u64);
    let id = lab.uploads.create(&alice(), new).await.unwrap().id();
    for number in [13, 3, 5, 0, 12, 4, 1, 2, 9, 7, 8, 6, 11, 10] {
        lab.chunk(id, &whole, 3 * MIB, number).await;
    }
    lab.publish(id, &whole, "chunks of 3 MiB").await;

    for (what, size, step) in [
        ("one stream", None, whole.len()),
        ("one stream, its length told", Some(whole.len() as u64), whole.len()),
        ("appends of 5,000,001 bytes", Some(whole.len() as u64), 5_000_001),
        ("appends of 1 MiB", None, MIB),
    ] {
        let lab = Lab::new(service).await;
        let mut new = NewUpload::new("a.mp4");
        if let Some(size) = size {
            new = new.size(size);
        }
        let id = lab.uploads.create(&alice(), new).await.unwrap().id();
        lab.append(id, &whole, step).await;
        lab.publish(id, &whole, what).await;
    }

    for len in [0, 1, 100_000] {
        let lab = Lab::new(service).await;
        let id = lab
            .uploads
            .create(&alice(), NewUpload::new("a.mp4").size(len as u64))
            .await
            .unwrap()
            .id();
        if len > 0 {
            lab.append(id, &whole[..len], len).await;
        }
        lab.publish(id, &whole[..len], &format!("a file of {len} bytes")).await;
    }

    for (what, step, most) in [
        ("joined", 11 * MIB, 1.01),
        ("joined, of appends of 7 MiB", 7 * MIB, 1.7),
        ("joined, of appends too small for parts", 2_000_000, 2.4),
    ] {
        let lab = Lab::new(service).await;
        let mut ids = Vec::new();
        for piece in whole.chunks(11 * MIB) {
            let new = NewUpload::new("a.mp4").size(piece.len() as u64).partial();
            let id = lab.uploads.create(&alice(), new).await.unwrap().id();
            lab.append(id, piece, step).await;
            ids.push(id);
        }
        let new = NewUpload::new("a.mp4");
        let upload = lab.uploads.concatenate(&alice(), new, &ids, false).await.unwrap();
        let ratio = lab.publish(upload.id(), &whole, what).await;
        assert!(ratio < most, "{what}: {ratio}");
    }
}

/// A part that is written over is named, and can be sent again; what nothing speaks of is swept.
async fn other_parts_and_orphans(lab: Lab) {
    let whole = bytes(18 * MIB);
    let new = NewUpload::new("a.mp4")
        .size(whole.len() as u64)
        .chunk_size(6 * MIB as u64);
    let upload = lab.uploads.create(&alice(), new).await.unwrap();
    for number in 0..3 {
        lab.chunk(upload.id(), &whole, 6 * MIB, number).await;
    }
    let path = object_store::path::Path::from(format!("{}/{}", lab.prefix, upload.key().as_str()));
    let dir = object_store::path::Path::from(format!("{}/.uploads", lab.prefix));
    let marks: Vec<_> = object_store::ObjectStore::list(&lab.store, Some(&dir))
        .try_collect()
        .await
        .unwrap();
    let handle = lab.store.get(&marks[0].location).await.unwrap().bytes().await.unwrap();
    let handle: serde_json::Value = serde_json::from_slice(&handle).unwrap();
    let multipart = handle["native"]["id"].as_str().unwrap().to_owned();
    lab.store
        .put_part(&path, &multipart, 1, vec![7; 6 * MIB].into())
        .await
        .unwrap();
    let error = lab.uploads.assemble(&alice(), upload.id(), None).await.unwrap_err();
    assert_eq!(error.missing(), [(1, 1)], "{error:?}");
    lab.chunk(upload.id(), &whole, 6 * MIB, 1).await;
    lab.publish(upload.id(), &whole, "a part was written over").await;

    let orphan = object_store::path::Path::from(format!("{}/orphan", lab.prefix));
    let id = lab.store.create_multipart(&orphan).await.unwrap();
    let other = lab.store.create_multipart(&"elsewhere".into()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(lab.uploads.sweep().await.unwrap().unknown, 1);
    let put = |path: object_store::path::Path, id: String| {
        let store = lab.store.clone();
        async move { store.put_part(&path, &id, 0, vec![1].into()).await }
    };
    assert!(put(orphan, id).await.is_err(), "the orphan is gone");
    assert!(
        put("elsewhere".into(), other).await.is_ok(),
        "what is elsewhere is somebody else's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn moto() {
    let Some(service) = Service::start_or_skip("moto", &[]) else {
        return;
    };
    suite(&service).await;
    whole_uploads(&service).await;
    other_parts_and_orphans(Lab::new(&service).await).await;
}

/// Ids of parts have a checksum beside the tag, by which a part is told from another.
#[tokio::test(flavor = "multi_thread")]
async fn moto_with_checksums_of_parts() {
    let Some(service) = Service::start_or_skip("moto", &[]) else {
        return;
    };
    for checksum in [Checksum::SHA256, Checksum::CRC64NVME] {
        other_parts_and_orphans(Lab::with_checksums(&service, Some(checksum)).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ceph() {
    let Some(service) = Service::start_or_skip("rgw", &[]) else {
        return;
    };
    suite(&service).await;
    whole_uploads(&service).await;
    other_parts_and_orphans(Lab::new(&service).await).await;
}

#[cfg(feature = "azure")]
#[tokio::test(flavor = "multi_thread")]
async fn azurite() {
    use object_store::azure::MicrosoftAzureBuilder;

    let Some(service) = Service::start_or_skip("azurite", &[]) else {
        return;
    };
    let store = || {
        let account = service.get("AZURE_STORAGE_ACCOUNT_NAME");
        let builder = MicrosoftAzureBuilder::new()
            .with_endpoint(format!("{}/{account}", service.get("AZURITE_BLOB_STORAGE_URL")))
            .with_account(account)
            .with_access_key(service.get("AZURE_STORAGE_ACCOUNT_KEY"))
            .with_container_name(service.get("BUCKET"))
            .with_allow_http(true);
        builder.build().unwrap()
    };
    conformance::blob::run(async || {
        let bounds = PartBounds::new(1, 1 << 30, 50_000);
        let options = ObjectOptions::default().with_parts(bounds).with_prefix(fresh());
        options.azure(store()).unwrap()
    })
    .await;
    let blobs = ObjectOptions::default().with_prefix(fresh()).azure(store()).unwrap();
    let uploads = Uploads::with(blobs.clone(), MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .without_driver()
        .build()
        .await
        .unwrap();
    // More than one step of a read.
    let whole = bytes(34 * MIB + 5);
    let id = uploads.create(&alice(), NewUpload::new("a.mp4")).await.unwrap().id();
    uploads
        .append(&alice(), id, 0, body(&whole[..9_000_000]))
        .await
        .unwrap();
    uploads
        .append(&alice(), id, 9_000_000, body(&whole[9_000_000..]))
        .await
        .unwrap();
    uploads.assemble(&alice(), id, None).await.unwrap();
    let (_, read) = uploads.read(&alice(), id, ByteRange::ALL).await.unwrap();
    assert!(read.try_collect::<Vec<_>>().await.unwrap().concat() == whole);
    for _ in 0..100 {
        if blobs.begun(Duration::ZERO).await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("something is left over");
}

/// By a URL, as a program's options have it.
#[test]
fn urls_name_stores() {
    let url = "s3://bucket/some/where?endpoint=http://127.0.0.1:9&allow_http=true&region=here";
    let blobs = ObjectBlobs::from_url(&format!("{url}&aws_access_key_id=x&aws_secret_access_key=y")).unwrap();
    assert!(format!("{blobs:?}").contains("bucket"), "{blobs:?}");
    for wrong in [
        "bucket",
        "s3://",
        "ftp://x/y",
        "s3://b/../x",
        "s3://bucket/x?nothing=1",
        "s3://bucket/x?y",
    ] {
        let error = ObjectBlobs::from_url(wrong).unwrap_err();
        assert!(!error.to_string().contains("bucket/x"), "{error}");
    }
}

#[cfg(all(feature = "gcp", feature = "azure"))]
#[test]
fn urls_name_the_stores_of_other_clouds() {
    let url = "gs://bucket/some/where?google_skip_signature=true";
    let blobs = ObjectBlobs::from_url(url).unwrap();
    assert!(format!("{blobs:?}").contains("bucket"), "{blobs:?}");
    let store = object_store::gcp::GoogleCloudStorageBuilder::new()
        .with_bucket_name("bucket")
        .with_skip_signature(true)
        .build();
    ObjectOptions::default().gcs(store.unwrap()).unwrap();
    for scheme in ["az", "azure", "abfs", "abfss"] {
        let url = format!("{scheme}://bucket/some/where?azure_storage_account_name=acc&azure_skip_signature=true");
        let blobs = ObjectBlobs::from_url(&url).unwrap();
        assert!(format!("{blobs:?}").contains("bucket"), "{blobs:?}");
        assert_eq!(blobs.limits().max_idle, Some(Duration::from_secs(7 * 86_400)));
    }
    for wrong in ["gs://bucket/x?nothing=1", "az://bucket/x?nothing=1", "gs://", "az://"] {
        let error = ObjectBlobs::from_url(wrong).unwrap_err();
        assert!(!error.to_string().contains("bucket/x"), "{error}");
    }
}
