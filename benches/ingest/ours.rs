//! This crate behind the same hyper, set up as its documentation says.

use std::path::Path;

use tower_upload::{
    Caller, Uploads,
    access::OwnerOnly,
    blob::disk::DiskOptions,
    http::{Resumable, Tus, UploadService},
    metadata::{Durability, RedbOptions},
};

type Who = fn(&http::request::Parts) -> Option<Caller>;

pub(crate) async fn service(directory: &Path, durable: bool) -> UploadService<Who> {
    let uploads = if durable {
        Uploads::open(directory)
    } else {
        let disk = DiskOptions::default().with_durability(tower_upload::blob::disk::Durability::None);
        let blobs = disk.open(directory).await.unwrap();
        let redb = RedbOptions::default().with_durability(Durability::None);
        let metadata = redb.open(directory.join("metadata.redb")).await.unwrap();
        Uploads::with(blobs, metadata)
    };
    let uploads = uploads.authorizer(OwnerOnly).build().await.unwrap();
    let who: Who = |_| Some(Caller::new("bench"));
    uploads.service(who).tus(Tus::new()).resumable(Resumable::new())
}
