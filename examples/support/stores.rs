//! Stores by URL.

use std::{os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use tower_upload::{
    blob::{
        BlobStore, MemoryBlobs,
        disk::{self, DiskOptions},
    },
    metadata::{self, MemoryMetadata, MetadataStore, RedbOptions},
};

use super::{Args, BoxError};

type Stores = (Arc<dyn BlobStore>, Arc<dyn MetadataStore>);

pub async fn open(args: &Args) -> Result<Stores, BoxError> {
    create_private(&args.data)?;
    let blobs: Arc<dyn BlobStore> = match args.blobs.as_deref() {
        None => Arc::new(disk(args).open(&args.data).await?),
        Some("memory:") => Arc::new(MemoryBlobs::new()),
        #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
        Some(url) if ["s3:", "az:", "gs:"].iter().any(|scheme| url.starts_with(scheme)) => {
            Arc::new(tower_upload::blob::ObjectBlobs::from_url(url)?)
        }
        Some(url) => match url.strip_prefix("file:") {
            Some(path) => Arc::new(disk(args).open(local(url, path)?).await?),
            None => object(url)?,
        },
    };
    let metadata: Arc<dyn MetadataStore> = match args.metadata.as_deref() {
        None => Arc::new(redb(args).open(args.data.join("metadata.redb")).await?),
        Some("memory:") => Arc::new(MemoryMetadata::new()),
        Some(url) if url.starts_with("postgres") => postgres(url).await?,
        Some(url) => match url.strip_prefix("redb:") {
            Some(path) => Arc::new(redb(args).open(local(url, path)?).await?),
            None => return Err(unknown("--metadata", url)),
        },
    };
    Ok((blobs, metadata))
}

fn disk(args: &Args) -> DiskOptions {
    DiskOptions::default().with_durability(if args.durable {
        disk::Durability::Ack
    } else {
        disk::Durability::None
    })
}

fn redb(args: &Args) -> RedbOptions {
    RedbOptions::default().with_durability(if args.durable {
        metadata::Durability::Immediate
    } else {
        metadata::Durability::None
    })
}

/// The rest of the settings is in the environment: keys, region, endpoint.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
fn object(url: &str) -> Result<Arc<dyn BlobStore>, BoxError> {
    let scheme = url.split(':').next().unwrap_or_default();
    let built = [
        ("s3", cfg!(feature = "aws")),
        ("gs", cfg!(feature = "gcp")),
        ("az", cfg!(feature = "azure")),
    ];
    if built.contains(&(scheme, true)) {
        Ok(Arc::new(tower_upload::blob::ObjectBlobs::from_url(url)?))
    } else {
        Err(unknown("--blobs", url))
    }
}

#[cfg(not(any(feature = "aws", feature = "azure", feature = "gcp")))]
fn object(url: &str) -> Result<Arc<dyn BlobStore>, BoxError> {
    Err(unknown("--blobs", url))
}

/// Behind a pooler in transaction mode a server opens it by `PostgresOptions`.
#[cfg(feature = "postgres")]
async fn postgres(url: &str) -> Result<Arc<dyn MetadataStore>, BoxError> {
    Ok(Arc::new(metadata::PostgresMetadata::connect(url).await?))
}

#[cfg(not(feature = "postgres"))]
async fn postgres(url: &str) -> Result<Arc<dyn MetadataStore>, BoxError> {
    Err(unknown("--metadata", url))
}

/// Creates a directory that only its owner can read.
pub fn create_private(directory: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// `PATH` or `///PATH`.
fn local<'a>(url: &str, path: &'a str) -> Result<&'a Path, BoxError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err(format!("{url} names no path").into());
    }
    Ok(Path::new(path))
}

/// The URL is not repeated: it may hold a password.
fn unknown(flag: &str, url: &str) -> BoxError {
    let scheme = url.split(':').next().unwrap_or_default();
    if ["postgres", "postgresql"].contains(&scheme) {
        format!(
            "{flag}: this build has no {scheme} store; build it with --features postgres (and postgres-tls for TLS)"
        )
        .into()
    } else if let Some((_, feature)) = [("s3", "aws"), ("az", "azure"), ("gs", "gcp")]
        .iter()
        .find(|(known, _)| *known == scheme)
    {
        format!("{flag}: this build has no {scheme} store; build it with --features {feature}").into()
    } else {
        format!("{flag}: unknown scheme; --help lists them").into()
    }
}
