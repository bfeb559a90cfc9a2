//! The floors: what a server costs at least.

use std::{
    convert::Infallible,
    io::SeekFrom,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use tokio::{
    fs::OpenOptions,
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
};

use crate::{
    load::{Load, Sent},
    process::Kind,
    report::Measured,
};

/// `PUT /FILE/OFFSET`: takes the body as `kind` says.
pub(crate) async fn answer(
    kind: Kind,
    directory: Arc<PathBuf>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let status = match take(kind, &directory, request).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    Ok(response)
}

async fn take(kind: Kind, directory: &Path, request: Request<Incoming>) -> Result<(), Box<dyn std::error::Error>> {
    let (name, offset) = request.uri().path()[1..].split_once('/').ok_or("path")?;
    let (name, offset) = (name.to_owned(), offset.parse()?);
    let mut body = request.into_body();
    if kind == Kind::Discard {
        while let Some(frame) = body.frame().await {
            frame?;
        }
        return Ok(());
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join(name))
        .await?;
    file.seek(SeekFrom::Start(offset)).await?;
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            file.write_all(&bytes).await?;
        }
    }
    file.flush().await?;
    if kind == Kind::Sync {
        file.sync_data().await?;
    }
    Ok(())
}

/// What the disk takes with no server in front of it: the same files and chunks, written past the page cache, each synced.
pub(crate) fn disk(load: &Load, directory: &Path) -> Measured {
    const ALIGNED: usize = 4096;
    const STEP: usize = 1 << 20;
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let latencies = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..load.at)
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = vec![7_u8; STEP + ALIGNED];
                    let shift = buffer.as_ptr().align_offset(ALIGNED);
                    let buffer = &mut buffer[shift..shift + STEP];
                    let mut latencies = Vec::new();
                    loop {
                        let file = next.fetch_add(1, Ordering::Relaxed);
                        if file >= load.files {
                            return latencies;
                        }
                        let path = directory.join(format!("file-{file}"));
                        let file = std::fs::OpenOptions::new()
                            .write(true)
                            .create(true)
                            .truncate(false)
                            .custom_flags(libc::O_DIRECT)
                            .open(path)
                            .unwrap();
                        for (offset, len) in load.chunks() {
                            let began = Instant::now();
                            let mut at = 0;
                            while at < len {
                                let want = (STEP as u64).min(len - at) as usize;
                                std::os::unix::fs::FileExt::write_all_at(&file, &buffer[..want], offset + at).unwrap();
                                at += want as u64;
                            }
                            file.sync_data().unwrap();
                            latencies.push(began.elapsed());
                        }
                    }
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let sent = Sent {
        took: began.elapsed(),
        latencies,
    };
    Measured::new(load, sent, None)
}
