//! What `object_store` has no call for: to list multipart uploads and their parts. By presigned requests, where the store
//! signs them (S3 and Google's, which speak the same there).

use std::fmt;

use async_trait::async_trait;
use object_store::path::Path;

use super::place::Native;
use crate::error::Result;

/// A multipart upload that the backend has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfinished {
    pub(super) path: String,
    pub(super) id: String,
    /// When it began, by the backend's clock, in milliseconds since 1970.
    pub(super) begun: Option<i64>,
}

/// Lists what is unfinished.
#[async_trait]
pub(super) trait Lister: fmt::Debug + Send + Sync {
    /// The parts of a multipart upload: index and entity tag without quotes. `None` if there is no such upload.
    async fn parts(&self, native: &Native) -> Result<Option<Vec<(u32, String)>>>;

    /// The multipart uploads beneath `prefix`.
    async fn uploads(&self, prefix: &Path) -> Result<Vec<Unfinished>>;
}

#[cfg(any(feature = "aws", feature = "gcp"))]
pub(super) use signed::Signed;

#[cfg(any(feature = "aws", feature = "gcp"))]
mod signed {
    use std::{sync::Arc, time::Duration};

    use object_store::signer::{Method, SignedUrlOptions, Signer};
    use serde::Deserialize;

    use super::*;
    use crate::error::{Error, ErrorKind};

    /// A store that signs requests for us to send.
    #[derive(Debug)]
    pub(in super::super) struct Signed {
        signer: Arc<dyn Signer>,
        client: reqwest::Client,
        timeout: Duration,
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

    impl Signed {
        pub(in super::super) fn new(signer: Arc<dyn Signer>, timeout: Duration) -> Self {
            Self {
                signer,
                client: reqwest::Client::new(),
                timeout,
            }
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
    }

    fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
        quick_xml::de::from_str(text).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "The object store's list cannot be read").with_source(error)
        })
    }

    #[async_trait]
    impl Lister for Signed {
        async fn parts(&self, native: &Native) -> Result<Option<Vec<(u32, String)>>> {
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
                out.extend(listed.part.into_iter().map(|part| {
                    let index = part.part_number.saturating_sub(1);
                    (index, part.tag.trim_matches('"').to_owned())
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
}
