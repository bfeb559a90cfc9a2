//! Joining by a stream, for stores that cannot move bytes where they lie.

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{BlobBody, Joined, PartWriter};
use crate::{
    engine::Crc64,
    error::{Error, ErrorKind, Result},
    upload::Part,
};

/// Writes the bytes of `parts` as they come, and finishes only if all of them have their lengths and checksums.
pub(super) async fn stream(
    mut writer: Box<dyn PartWriter>,
    body: Result<Option<BlobBody>>,
    parts: &[Part],
) -> Result<Joined> {
    let mut body = match body {
        Ok(Some(body)) => body,
        Ok(None) => {
            return Err(Error::new(
                ErrorKind::Invalid,
                "This blob store cannot join uploads: it does not read parts before they are published",
            ));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(lost(parts)),
        Err(error) => return Err(error),
    };
    let mut rest = Bytes::new();
    for (at, part) in parts.iter().enumerate() {
        let (mut left, mut crc64) = (part.len, Crc64::new());
        while left > 0 {
            if rest.is_empty() {
                rest = match body.next().await {
                    Some(Ok(bytes)) => bytes,
                    Some(Err(error)) if error.kind() != ErrorKind::NotFound => return Err(error),
                    Some(Err(_)) | None => return Ok(lost(&parts[at..])),
                };
                continue;
            }
            let piece = rest.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(rest.len()));
            left -= piece.len() as u64;
            crc64.update(&piece);
            writer.write(vec![piece]).await?;
        }
        if crc64.value() != part.crc64 {
            return Ok(lost(&parts[at..=at]));
        }
    }
    // It may have memory that the writer's last bytes wait for.
    drop(body);
    writer.finish().await.map(Joined::Done)
}

fn lost(parts: &[Part]) -> Joined {
    Joined::PartsLost(parts.iter().map(|part| part.number).collect())
}

pub(crate) fn same_upload() -> Error {
    Error::new(ErrorKind::Invalid, "An upload cannot be joined to itself")
}
