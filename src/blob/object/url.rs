//! Stores by URL, configured by the environment.

use super::{ObjectBlobs, ObjectOptions};
use crate::error::{Error, Result};

impl ObjectBlobs {
    /// The store that `url` names, with the default options: see [`ObjectOptions::from_url`].
    ///
    /// # Errors
    /// As [`ObjectOptions::from_url`].
    pub fn from_url(url: &str) -> Result<Self> {
        ObjectOptions::default().from_url(url)
    }
}

/// A URL, taken apart.
struct Named<'a> {
    scheme: &'a str,
    /// Scheme and bucket.
    root: &'a str,
    prefix: &'a str,
    settings: Vec<(&'a str, &'a str)>,
}

impl<'a> Named<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (url, query) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, rest) = url.split_once("://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let settings = query.split('&').filter(|pair| !pair.is_empty());
        Some(Self {
            scheme,
            root: &url[..scheme.len() + 3 + bucket.len()],
            prefix,
            settings: settings.map(|pair| pair.split_once('=')).collect::<Option<_>>()?,
        })
        .filter(|_| !bucket.is_empty())
    }
}

impl ObjectOptions {
    /// The store that `url` names: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, as far as
    /// the features for them are on. The prefix is that of the keys.
    ///
    /// The rest comes from the environment, as `object_store` reads it: `AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT`,
    /// `AWS_ALLOW_HTTP`, `AZURE_STORAGE_ACCOUNT_NAME`, `GOOGLE_SERVICE_ACCOUNT` and so on. What is no secret may be said behind
    /// the URL too: `s3://bucket/prefix?endpoint=http://127.0.0.1:9000&allow_http=true`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a URL or settings that name no store. No error repeats the URL.
    #[allow(clippy::wrong_self_convention, reason = "as `open` of the disk's options")]
    pub fn from_url(mut self, url: &str) -> Result<ObjectBlobs> {
        let named = Named::parse(url).ok_or_else(|| {
            Error::invalid(
                "url",
                "The URL of a store is like s3://bucket/prefix, az://... or gs://...",
            )
        })?;
        self.prefix = named.prefix.to_owned();
        // The time for one request of the client within the store, its body included.
        let part = self.part_size.max(128 << 20) / self.slowest.max(1);
        let timeout = format!("{} seconds", self.request_timeout.as_secs() + part);
        match named.scheme {
            #[cfg(feature = "aws")]
            "s3" | "s3a" => {
                use object_store::{ClientConfigKey::Timeout, aws::AmazonS3Builder, aws::AmazonS3ConfigKey as Config};
                let environment = AmazonS3Builder::from_env().with_url(named.root);
                let timed = environment.with_config(Config::Client(Timeout), timeout);
                let mut builder = timed.with_retry(retries());
                // Over TLS the bytes need no hash of their own in every signature.
                let mut plain = builder
                    .get_config_value(&Config::Endpoint)
                    .is_some_and(|url| url.starts_with("http:"));
                for (key, value) in named.settings {
                    let key: Config = key.parse().map_err(|_| unknown(key))?;
                    plain |= key == Config::Endpoint && value.starts_with("http:");
                    builder = builder.with_config(key, value);
                }
                if !plain
                    && builder
                        .get_config_value(&Config::UnsignedPayload)
                        .is_none_or(|said| said != "false")
                {
                    builder = builder.with_unsigned_payload(true);
                }
                self.s3(builder.build().map_err(refused)?)
            }
            #[cfg(feature = "gcp")]
            "gs" => {
                use object_store::{
                    ClientConfigKey::Timeout, gcp::GoogleCloudStorageBuilder, gcp::GoogleConfigKey as Config,
                };
                let environment = GoogleCloudStorageBuilder::from_env().with_url(named.root);
                let timed = environment.with_config(Config::Client(Timeout), timeout);
                let mut builder = timed.with_retry(retries());
                for (key, value) in named.settings {
                    builder = builder.with_config(key.parse().map_err(|_| unknown(key))?, value);
                }
                self.gcs(builder.build().map_err(refused)?)
            }
            #[cfg(feature = "azure")]
            "az" | "azure" | "abfs" | "abfss" => {
                use object_store::{
                    ClientConfigKey::Timeout, azure::AzureConfigKey as Config, azure::MicrosoftAzureBuilder,
                };
                let environment = MicrosoftAzureBuilder::from_env().with_url(named.root);
                let timed = environment.with_config(Config::Client(Timeout), timeout);
                let mut builder = timed.with_retry(retries());
                for (key, value) in named.settings {
                    builder = builder.with_config(key.parse().map_err(|_| unknown(key))?, value);
                }
                self.azure(builder.build().map_err(refused)?)
            }
            scheme => Err(Error::invalid(
                "url",
                format!(
                    "This build has no {} store",
                    if scheme.len() < 9 { scheme } else { "such" }
                ),
            )),
        }
    }
}

fn unknown(key: &str) -> Error {
    // A value may be a secret, a key that is none is not repeated either.
    let _ = key;
    Error::invalid("url", "A setting behind the URL is none of this kind of store")
}

fn refused(error: object_store::Error) -> Error {
    Error::invalid("url", "The settings make no store; look at the URL and the environment").with_source(error)
}

/// Within the time that a request has in all.
fn retries() -> object_store::RetryConfig {
    object_store::RetryConfig {
        max_retries: 4,
        retry_timeout: std::time::Duration::from_secs(45),
        ..object_store::RetryConfig::default()
    }
}
