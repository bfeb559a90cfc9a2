//! Stores by URL, configured by the environment.

#[cfg(feature = "aws")]
use object_store::aws::AmazonS3Builder;

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
    /// On S3 the signature of a request does not cover its bytes where TLS does, unless `AWS_UNSIGNED_PAYLOAD` or
    /// `unsigned_payload` says otherwise: each would be hashed once more. Over plain HTTP it does.
    ///
    /// With the endpoint of R2 (`https://<account>.r2.cloudflarestorage.com`) parts are [equal](super::PartBounds::equal).
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
                use object_store::{ClientConfigKey::Timeout, aws::AmazonS3ConfigKey as Config};
                let environment = AmazonS3Builder::from_env().with_url(named.root);
                let timed = environment.with_config(Config::Client(Timeout), timeout);
                let by_environment = std::env::vars_os().any(|(name, _)| name.to_str().is_some_and(is_of_payloads));
                let builder = s3_builder(timed.with_retry(retries()), by_environment, named.settings)?;
                self.parts.equal |= endpoint(&builder).is_some_and(|url| is_of_r2(&url));
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

/// Whether a variable of the environment says if signatures cover payloads, by the names that `object_store` reads.
#[cfg(feature = "aws")]
fn is_of_payloads(name: &str) -> bool {
    use object_store::aws::AmazonS3ConfigKey as Config;
    name.starts_with("AWS_") && name.to_ascii_lowercase().parse().ok() == Some(Config::UnsignedPayload)
}

/// With what is said behind the URL, and with signatures that cover payloads only where TLS does not, unless somebody said
/// otherwise: here, or `by_environment`.
#[cfg(feature = "aws")]
fn s3_builder(
    mut builder: AmazonS3Builder,
    by_environment: bool,
    settings: Vec<(&str, &str)>,
) -> Result<AmazonS3Builder> {
    use object_store::aws::AmazonS3ConfigKey as Config;
    let mut is_said = by_environment;
    for (key, value) in settings {
        let key: Config = key.parse().map_err(|_| unknown(key))?;
        // The builder answers `false` also if nobody said anything.
        is_said |= key == Config::UnsignedPayload;
        builder = builder.with_config(key, value);
    }
    if is_said {
        return Ok(builder);
    }
    // Without an endpoint it is Amazon's own, by https.
    let begins = |url: &str| url.get(..6).is_some_and(|begin| begin.eq_ignore_ascii_case("https:"));
    let is_tls = endpoint(&builder).is_none_or(|url| begins(&url));
    Ok(builder.with_unsigned_payload(is_tls))
}

/// The endpoint that requests go to, if it is not Amazon's own.
#[cfg(feature = "aws")]
fn endpoint(builder: &AmazonS3Builder) -> Option<String> {
    use object_store::aws::AmazonS3ConfigKey as Config;
    let said = builder.get_config_value(&Config::S3Endpoint);
    said.or_else(|| builder.get_config_value(&Config::Endpoint))
}

/// Whether an endpoint is R2's, which takes parts of one length only.
#[cfg(feature = "aws")]
fn is_of_r2(endpoint: &str) -> bool {
    let behind = endpoint.split_once("://").map_or(endpoint, |(_, behind)| behind);
    let host = behind.split(['/', ':', '?']).next().unwrap_or_default();
    host.to_ascii_lowercase().ends_with(".r2.cloudflarestorage.com")
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

#[cfg(all(test, feature = "aws"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use object_store::aws::AmazonS3ConfigKey as Config;

    use super::*;

    /// What the builder has in the end, with this in the environment and this behind the URL.
    fn unsigned(environment: &[(&str, &str)], query: &str) -> String {
        let url = format!("s3://bucket/some/where?{query}");
        let mut builder = AmazonS3Builder::new();
        for (name, value) in environment {
            builder = builder.with_config(name.to_ascii_lowercase().parse().unwrap(), *value);
        }
        let says = environment.iter().any(|(name, _)| is_of_payloads(name));
        let builder = s3_builder(builder, says, Named::parse(&url).unwrap().settings).unwrap();
        builder.get_config_value(&Config::UnsignedPayload).unwrap()
    }

    #[test]
    fn payloads_are_signed_where_tls_does_not_cover_them_or_somebody_wants_it() {
        let plain = ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000");
        let tls = ("AWS_ENDPOINT_URL_S3", "HTTPS://s3.example.com");
        for (environment, query, expected) in [
            (&[][..], "", "true"),
            (&[], "region=here", "true"),
            (&[tls], "", "true"),
            // The endpoint for S3 alone counts before the other one.
            (&[plain, tls], "", "true"),
            (&[plain], "", "false"),
            (&[plain], "endpoint=https://s3.example.com", "true"),
            (&[], "endpoint=http://127.0.0.1:9000", "false"),
            (&[], "aws_endpoint_url_s3=HTTP://127.0.0.1:9000", "false"),
            // What was said stays as it was said: the store knows more words for it than these.
            (&[("AWS_UNSIGNED_PAYLOAD", "0")], "", "0"),
            (&[("AWS_UNSIGNED_PAYLOAD", "false")], "", "false"),
            (&[("AWS_UNSIGNED_PAYLOAD", "Off"), tls], "", "Off"),
            (&[("AWS_UNSIGNED_PAYLOAD", "yes"), plain], "", "yes"),
            (&[("AWS_UNSIGNED_PAYLOAD", "true")], "unsigned_payload=no", "no"),
            (&[], "aws_unsigned_payload=false", "false"),
            (&[], "endpoint=http://127.0.0.1:9000&unsigned_payload=1", "1"),
        ] {
            assert_eq!(unsigned(environment, query), expected, "{environment:?}, {query}");
        }
    }

    #[test]
    fn parts_are_equal_where_the_endpoint_is_of_a_store_that_wants_it() {
        for (endpoint, equal) in [
            ("https://0123abc.r2.cloudflarestorage.com", true),
            ("https://0123abc.eu.r2.cloudflarestorage.com/", true),
            ("https://bucket.0123abc.R2.CloudflareStorage.com:443/x", true),
            ("https://s3.example.com/0123abc.r2.cloudflarestorage.com", false),
            ("https://0123abc.r2.cloudflarestorage.com.example.com", false),
            ("https://notr2.cloudflarestorage.com", false),
            ("https://s3.example.com", false),
        ] {
            let secrets = "aws_access_key_id=x&aws_secret_access_key=y&region=auto";
            for key in ["endpoint", "aws_endpoint_url_s3"] {
                let blobs = ObjectBlobs::from_url(&format!("s3://bucket/x?{key}={endpoint}&{secrets}")).unwrap();
                assert_eq!(blobs.shared.options.parts.equal, equal, "{key}={endpoint}");
            }
        }
    }

    #[test]
    fn variables_about_payloads_are_known_as_the_store_knows_them() {
        assert!(is_of_payloads("AWS_UNSIGNED_PAYLOAD") && is_of_payloads("AWS_unsigned_payload"));
        for other in ["UNSIGNED_PAYLOAD", "aws_unsigned_payload", "AWS_REGION", "AWS_"] {
            assert!(!is_of_payloads(other), "{other}");
        }
    }
}
