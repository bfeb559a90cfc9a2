//! `object_store` alone.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    ObjectStoreExt as _, PutPayload,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    multipart::MultipartStore as _,
    path::Path,
};

use crate::{PART, block};

pub(crate) fn store(url: &str) -> AmazonS3 {
    let (root, query) = url.split_once('?').unwrap();
    let mut builder = AmazonS3Builder::new().with_url(root);
    for (key, value) in query.split('&').map(|pair| pair.split_once('=').unwrap()) {
        builder = builder.with_config(key.parse::<AmazonS3ConfigKey>().unwrap(), value);
    }
    builder.build().unwrap()
}

fn path() -> Path {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Path::from(format!("floor/{}", now.unwrap().as_nanos()))
}

fn parts(len: u64) -> Vec<PutPayload> {
    let block = block();
    let lens = (0..len.div_ceil(PART)).map(|n| PART.min(len - n * PART));
    lens.map(|len| PutPayload::from_bytes(block.slice(..len as usize)))
        .collect()
}

/// All parts of a multipart upload, so many at once.
pub(crate) async fn put_multipart(store: &AmazonS3, len: u64, at_once: usize) -> Path {
    let path = path();
    let mut upload = store.put_multipart(&path).await.unwrap();
    let sending: Vec<_> = parts(len).into_iter().map(|part| upload.put_part(part)).collect();
    stream::iter(sending)
        .buffer_unordered(at_once)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    upload.complete().await.unwrap();
    path
}

/// How long the request takes that makes an object of parts which are there.
pub(crate) async fn complete(store: &AmazonS3, len: u64, at_once: usize) -> (Duration, Path) {
    let path = path();
    let id = store.create_multipart(&path).await.unwrap();
    let sending = parts(len).into_iter().enumerate();
    let parts = stream::iter(sending).map(|(n, part)| store.put_part(&path, &id, n, part));
    let parts = parts.buffered(at_once).try_collect().await.unwrap();
    let began = Instant::now();
    store.complete_multipart(&path, &id, parts).await.unwrap();
    (began.elapsed(), path)
}

pub(crate) async fn delete(store: &AmazonS3, path: Path) {
    store.delete(&path).await.unwrap();
}
