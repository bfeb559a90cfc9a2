//! This crate behind the same hyper, set up as its documentation says.

use std::path::Path;

use tower_upload::{
    Caller, Uploads,
    access::OwnerOnly,
    blob::disk::{DiskOptions, Writes},
    http::{Resumable, Tus, UploadService},
    metadata::{Durability, RedbOptions},
};

type Who = fn(&http::request::Parts) -> Option<Caller>;

pub(crate) async fn service(directory: &Path, durable: bool, inline: bool) -> UploadService<Who> {
    let (mut disk, mut redb) = (DiskOptions::default(), RedbOptions::default());
    if !durable {
        disk = disk.with_durability(tower_upload::blob::disk::Durability::None);
        redb = redb.with_durability(Durability::None);
    }
    if inline {
        disk = disk.with_writes(Writes::Inline);
    }
    let blobs = disk.open(directory).await.unwrap();
    let metadata = redb.open(directory.join("metadata.redb")).await.unwrap();
    let uploads = Uploads::with(blobs, metadata)
        .authorizer(OwnerOnly)
        .build()
        .await
        .unwrap();
    let who: Who = |_| Some(Caller::new("bench"));
    uploads.service(who).tus(Tus::new()).resumable(Resumable::new())
}
