//! What is verified of a sealed upload: the promised checksum, the bytes of every part, the hooks' judgement.

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt as _, StreamExt as _};

use super::{
    Uploads,
    builder::Verify,
    checksum::{Crc64, Hasher},
    conclude::longer,
};
use crate::{
    blob::{BlobBody, ByteRange},
    error::{Error, ErrorKind, Result},
    hook::Hook,
    upload::{Algorithm, Digest, Part, Record},
};

impl Uploads {
    /// What is verified before the blob is published, where the store can read parts then.
    pub(super) async fn verify_unpublished(&self, record: &Record, parts: &[Part], crc64: u64) -> Result<(), Verdict> {
        if record.intent.is_some() {
            return Ok(());
        }
        match self.verify_parts(record, parts, crc64).await {
            Err(Verdict::Later(error)) if error.kind() == ErrorKind::NotFound => {
                // Something is gone for good; a look at each tells which.
                let lost = self.lost(record, parts).await?;
                Err(if lost.is_empty() {
                    Verdict::Later(error)
                } else {
                    Verdict::Lost(lost)
                })
            }
            verdict => verdict,
        }
    }

    async fn verify_parts(&self, record: &Record, parts: &[Part], crc64: u64) -> Result<(), Verdict> {
        if let Some(expected) = record
            .checksum
            .as_ref()
            .filter(|sum| sum.algorithm() == Algorithm::Crc64Nvme)
            && *expected != Digest::crc64(crc64)
        {
            return Err(Verdict::Refused(format!("the file's checksum is not {expected}")));
        }
        if let Some((expected, actual)) = self.running_hash(record, parts)
            && expected != actual
        {
            return Err(Verdict::Refused(format!("the file's checksum is not {expected}")));
        }
        if self.must_read(record, parts)
            && let Some(body) = self.inner.blobs.read_parts(&record.handle, parts).await?
        {
            self.inspect(record, parts, body).await?;
        }
        for hook in &*self.inner.config.hooks {
            let body = match hook.wants_bytes() {
                true => self.inner.blobs.read_parts(&record.handle, parts).await?,
                false => None,
            };
            if hook.wants_bytes() == body.is_some() {
                ask(hook.as_ref(), record, body).await?;
            }
        }
        Ok(())
    }

    /// The same for stores that can read only what is complete.
    pub(super) async fn verify_published(&self, record: &Record, parts: &[Part]) -> Result<(), Verdict> {
        let wanted = self.inner.config.hooks.iter().any(|hook| hook.wants_bytes());
        if record.intent.is_some() || !(wanted || self.must_read(record, parts)) {
            return Ok(());
        }
        if self.inner.blobs.read_parts(&record.handle, parts).await?.is_some() {
            return Ok(());
        }
        if self.must_read(record, parts) {
            let body = self.inner.blobs.read(&record.key, ByteRange::ALL).await?;
            self.inspect(record, parts, body).await?;
        }
        for hook in self.inner.config.hooks.iter().filter(|hook| hook.wants_bytes()) {
            let body = self.inner.blobs.read(&record.key, ByteRange::ALL).await?;
            ask(hook.as_ref(), record, Some(body)).await?;
        }
        Ok(())
    }

    /// The parts that are not there with the bytes that were acknowledged.
    async fn lost(&self, record: &Record, parts: &[Part]) -> Result<Vec<u32>> {
        let mut lost = Vec::new();
        for part in parts {
            let one = std::slice::from_ref(part);
            let found = match self.inner.blobs.read_parts(&record.handle, one).await {
                Ok(Some(body)) => rotten(one, body, |_| {}).await,
                Ok(None) => Ok(Vec::new()),
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => lost.extend(found),
                Err(error) if error.kind() == ErrorKind::NotFound => lost.push(part.number),
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    /// Whether what must be verified takes a read of every byte.
    fn must_read(&self, record: &Record, parts: &[Part]) -> bool {
        let sum = record
            .checksum
            .as_ref()
            .filter(|sum| sum.algorithm() != Algorithm::Crc64Nvme);
        self.inner.config.verify == Verify::Read || (sum.is_some() && self.running_hash(record, parts).is_none())
    }

    /// The promised checksum and the one that ran along with the appends, if it did to the end.
    fn running_hash(&self, record: &Record, parts: &[Part]) -> Option<(Digest, Digest)> {
        let expected = record.checksum.clone()?;
        let size: u64 = parts.iter().map(|part| part.len).sum();
        let saved = record.hash.as_ref().filter(|saved| saved.end == size)?;
        let actual = Hasher::restore(expected.algorithm(), saved)?.finish().ok()?;
        Some((expected, actual))
    }

    /// Reads all bytes: every part must have its checksum, and the whole the one that was promised.
    async fn inspect(&self, record: &Record, parts: &[Part], body: BlobBody) -> Result<(), Verdict> {
        let mut hasher = record.checksum.as_ref().map(|sum| Hasher::new(sum.algorithm()));
        let rotten = rotten(parts, body, |bytes| {
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
        })
        .await?;
        if !rotten.is_empty() {
            return Err(Verdict::Lost(rotten));
        }
        match (&record.checksum, hasher.map(Hasher::finish).transpose()?) {
            (Some(expected), Some(actual)) if *expected != actual => {
                Err(Verdict::Refused(format!("the file's checksum is not {expected}")))
            }
            _ => Ok(()),
        }
    }
}

/// Asks a hook, for no longer than it may take: one that hangs must not hold an assembly for ever. Each further attempt has more
/// time.
async fn ask(hook: &dyn Hook, record: &Record, body: Option<BlobBody>) -> Result<()> {
    let asked = AssertUnwindSafe(hook.before_publish(record, body)).catch_unwind();
    match tokio::time::timeout(longer(hook.time_limit(), record.attempts), asked).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::internal(format!("The hook {:?} panicked", hook.name()))),
        Err(_) => {
            let message = format!("The hook {:?} took longer than it may; it is asked again", hook.name());
            Err(Error::unavailable(message))
        }
    }
}

/// Why a sealed upload is not published now.
pub(super) enum Verdict {
    /// These parts are not what was acknowledged: they can be sent again.
    Lost(Vec<u32>),
    /// It can never be published, for this reason.
    Refused(String),
    /// It could not be found out.
    Later(Error),
}

impl From<Error> for Verdict {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Invalid | ErrorKind::Forbidden => Self::Refused(error.to_string()),
            _ => Self::Later(error),
        }
    }
}

/// The parts whose bytes in `body` do not have their checksum.
pub(super) async fn rotten(parts: &[Part], mut body: BlobBody, mut pass: impl FnMut(&[u8])) -> Result<Vec<u32>> {
    let mut rotten = Vec::new();
    let mut rest = bytes::Bytes::new();
    for part in parts {
        let mut crc64 = Crc64::new();
        let mut left = part.len;
        while left > 0 {
            if rest.is_empty() {
                match body.next().await {
                    Some(bytes) => rest = bytes?,
                    None => break,
                }
            }
            let piece = rest.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(rest.len()));
            left -= piece.len() as u64;
            crc64.update(&piece);
            pass(&piece);
        }
        if left > 0 || crc64.value() != part.crc64 {
            rotten.push(part.number);
        }
    }
    Ok(rotten)
}
