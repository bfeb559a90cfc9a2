//! Requests that `object_store` has no call for, presigned by it and sent from here: to list multipart uploads and their
//! parts, to copy on the backend's side. S3 and what speaks it; of Google's the lists alone.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use object_store::{
    Error as StoreError,
    path::Path,
    signer::{HeaderMap, HeaderName, HeaderValue, Method, SignedUrlOptions, Signer},
};
use serde::{Deserialize, Serialize};

use super::{
    join::{Copier, Source},
    orphans::{Listed, Lister, Unfinished},
    place::Native,
    proof::bare,
};
use crate::error::{Error, ErrorKind, Result};

/// A store that signs requests for us to send.
#[derive(Debug)]
pub(super) struct Signed {
    signer: Arc<dyn Signer>,
    client: reqwest::Client,
    timeout: Duration,
    /// What copies are made within.
    bucket: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parts {
    #[serde(default)]
    part: Vec<Part>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_part_number_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    part_number: u32,
    #[serde(rename = "ETag")]
    tag: String,
    #[serde(rename = "ChecksumCRC64NVME")]
    crc64: Option<String>,
    #[serde(rename = "ChecksumSHA256")]
    sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default)]
    upload: Vec<Upload>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: Option<String>,
    #[serde(default)]
    next_upload_id_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
    #[serde(default)]
    initiated: Option<String>,
}

/// The answer to a copy; and how `object_store` writes the id of a part that has a checksum.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename = "PartMetadata")]
struct Copied {
    #[serde(rename(deserialize = "ETag", serialize = "e_tag"))]
    tag: String,
    #[serde(rename(deserialize = "ChecksumSHA256", serialize = "checksum_sha256"))]
    sha256: Option<String>,
}

impl Signed {
    pub(super) fn new(signer: Arc<dyn Signer>, timeout: Duration) -> Self {
        Self {
            signer,
            client: reqwest::Client::new(),
            timeout,
            bucket: String::new(),
        }
    }

    #[cfg(feature = "aws")]
    pub(super) fn within(mut self, bucket: String) -> Self {
        self.bucket = bucket;
        self
    }

    /// The answer to a GET; `None` for a 404.
    async fn get(&self, path: &Path, query: &[(&str, &str)]) -> Result<Option<String>> {
        let options = SignedUrlOptions::new().with_query(query.iter().copied());
        let sign = self.signer.signed_url_opts(Method::GET, path, self.timeout, &options);
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::unavailable("The object store did not list what is unfinished").with_source(error)
        };
        let url = sign.await.map_err(|error| failed(error.into()))?;
        let request = self.client.get(url.as_str()).timeout(self.timeout);
        // The URL is a key to the bucket: no error names it.
        let answer = request
            .send()
            .await
            .map_err(|error| failed(error.without_url().into()))?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer
            .error_for_status()
            .map_err(|error| failed(error.without_url().into()))?;
        let text = answer
            .text()
            .await
            .map_err(|error| failed(error.without_url().into()))?;
        Ok(Some(text))
    }

    /// Bucket and path as a header names them: as they are in the URL of a request for them.
    async fn named(&self, path: &Path) -> object_store::Result<String> {
        let url = self.signer.signed_url(Method::GET, path, self.timeout).await?;
        let host = url.host_str().unwrap_or_default();
        let in_host = host
            .strip_prefix(&self.bucket)
            .is_some_and(|rest| rest.starts_with('.'));
        Ok(if in_host {
            format!("/{}{}", self.bucket, url.path())
        } else {
            url.path().to_owned()
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    quick_xml::de::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "The object store's list cannot be read").with_source(error)
    })
}

/// A failed request, as `object_store` says it.
fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Generic {
        store: "S3",
        source: source.into(),
    }
}

fn header(text: &str) -> object_store::Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(failed)
}

/// The id of a part by the answer to its copy.
fn id(answer: &str) -> object_store::Result<String> {
    // An error can come inside of a success.
    let copied: Copied = quick_xml::de::from_str(answer).map_err(|_| failed(answer.to_owned()))?;
    match copied.sha256 {
        // Where the store was told to have checksums, it wants them back.
        Some(_) => quick_xml::se::to_string(&copied).map_err(failed),
        // With its quotes, as other parts have it: Ceph's gateway leaves them out here.
        None => Ok(format!("\"{}\"", bare(&copied.tag))),
    }
}

#[async_trait]
impl Copier for Signed {
    async fn copy_part(&self, native: &Native, index: u32, source: &Source<'_>) -> object_store::Result<String> {
        if self.bucket.is_empty() {
            return Err(StoreError::NotImplemented {
                operation: "to copy a part".into(),
                implementer: "S3".into(),
            });
        }
        let mut headers = HeaderMap::new();
        let mut say = |name: &'static str, text: &str| -> object_store::Result<()> {
            headers.insert(HeaderName::from_static(name), header(text)?);
            Ok(())
        };
        say("x-amz-copy-source", &self.named(source.path).await?)?;
        say("x-amz-copy-source-if-match", source.tag)?;
        if let Some(Range { start, end }) = source.range.clone() {
            say(
                "x-amz-copy-source-range",
                &format!("bytes={start}-{}", end.saturating_sub(1)),
            )?;
        }
        let mut options = SignedUrlOptions::new().with_query([
            ("partNumber", (index + 1).to_string().as_str()),
            ("uploadId", &native.id),
        ]);
        options.signed_headers = headers.clone();
        let path = Path::parse(&native.path)?;
        // As long as the copy may take: whoever waits for it gives up earlier.
        let time = self.timeout * 10;
        let url = self.signer.signed_url_opts(Method::PUT, &path, time, &options).await?;
        let mut request = self.client.put(url.as_str()).timeout(time);
        // Ceph's gateway refuses what does not say that it has no body.
        request = request.header("content-length", "0");
        for (name, value) in &headers {
            request = request.header(name.as_str(), value.as_bytes());
        }
        let answer = request.send().await.map_err(|error| failed(error.without_url()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| failed(error.without_url()))?;
        if !status.is_success() {
            return Err(match status.as_u16() {
                405 | 501 => StoreError::NotImplemented {
                    operation: "to copy a part".into(),
                    implementer: "S3".into(),
                },
                status => failed(format!("status code: {status}: {text}")),
            });
        }
        id(&text)
    }
}

#[async_trait]
impl Lister for Signed {
    async fn parts(&self, native: &Native) -> Result<Option<Vec<Listed>>> {
        let path = Path::parse(&native.path)
            .map_err(|error| Error::internal("The handle has no path of an object").with_source(error))?;
        let (mut out, mut after) = (Vec::new(), String::new());
        loop {
            let mut query = vec![("uploadId", native.id.as_str())];
            if !after.is_empty() {
                query.push(("part-number-marker", &after));
            }
            let Some(text) = self.get(&path, &query).await? else {
                return Ok(None);
            };
            let listed: Parts = parse(&text)?;
            out.extend(listed.part.into_iter().map(|part| Listed {
                index: part.part_number.saturating_sub(1),
                tag: bare(&part.tag),
                sum: part.crc64.or(part.sha256),
            }));
            match listed.next_part_number_marker {
                Some(next) if listed.is_truncated && next != after => after = next,
                _ => return Ok(Some(out)),
            }
        }
    }

    async fn uploads(&self, prefix: &Path) -> Result<Vec<Unfinished>> {
        let beneath = match prefix.as_ref() {
            "" => String::new(),
            path => format!("{path}/"),
        };
        let (mut out, mut after) = (Vec::new(), (String::new(), String::new()));
        loop {
            let mut query = vec![("uploads", "")];
            if !beneath.is_empty() {
                query.push(("prefix", &beneath));
            }
            if !after.0.is_empty() {
                query.extend([("key-marker", after.0.as_str()), ("upload-id-marker", &after.1)]);
            }
            let Some(text) = self.get(&Path::default(), &query).await? else {
                return Ok(out);
            };
            let listed: Uploads = parse(&text)?;
            out.extend(listed.upload.into_iter().map(|upload| {
                Unfinished {
                    begun: upload
                        .initiated
                        .and_then(|time| time.parse::<jiff::Timestamp>().ok())
                        .map(jiff::Timestamp::as_millisecond),
                    path: upload.key,
                    id: upload.upload_id,
                }
            }));
            let next = (
                listed.next_key_marker.unwrap_or_default(),
                listed.next_upload_id_marker.unwrap_or_default(),
            );
            if !listed.is_truncated || next == after || next.0.is_empty() {
                return Ok(out);
            }
            after = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_part_is_named_as_a_part_that_was_sent() {
        let answer = |sum: &str| {
            let answer = format!(
                "<CopyPartResult><ETag>&quot;ab&quot;</ETag>{sum}<LastModified>x</LastModified></CopyPartResult>"
            );
            id(&answer).unwrap()
        };
        assert_eq!(answer(""), "\"ab\"");
        assert_eq!(
            answer("<ChecksumSHA256>aGk=</ChecksumSHA256>"),
            "<PartMetadata><e_tag>\"ab\"</e_tag><checksum_sha256>aGk=</checksum_sha256></PartMetadata>"
        );
        // Of the whole object: it is not wanted back for each part.
        assert_eq!(answer("<ChecksumCRC64NVME>aGk=</ChecksumCRC64NVME>"), "\"ab\"");
        assert!(id("<Error><Code>InternalError</Code></Error>").is_err());
    }
}
