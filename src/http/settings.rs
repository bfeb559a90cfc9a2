use http::{HeaderMap, request::Parts, uri::Authority};

use super::{cors::Cors, cross_site::CrossSite, pace::MinimumRate, resumable::Resumable, tus::Tus};
use crate::upload::UploadId;

/// What the host said about how it is reached, and what it speaks.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) mount: String,
    pub(super) public_url: Option<String>,
    pub(super) trust_forwarded: bool,
    pub(super) minimum_rate: MinimumRate,
    /// Where tus and the IETF's protocol are, below the mount.
    pub(super) files: String,
    pub(super) tus: Option<Tus>,
    pub(super) resumable: Option<Resumable>,
    pub(super) cors: Option<Cors>,
    pub(super) cross_site: CrossSite,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mount: String::new(),
            public_url: None,
            trust_forwarded: false,
            minimum_rate: MinimumRate::DEFAULT,
            files: "/files".to_owned(),
            tus: None,
            resumable: None,
            cors: None,
            cross_site: CrossSite::default(),
        }
    }
}

/// `path` with a leading slash and without one at its end; the root is empty.
pub(super) fn absolute(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() {
        String::new()
    } else {
        format!("/{path}")
    }
}

impl Settings {
    /// The URL of an upload of tus or the IETF's protocol.
    pub(super) fn file_url(&self, parts: &Parts, id: UploadId) -> String {
        self.url(parts, &format!("{}/{id}", self.files))
    }

    /// The URL of `path` (below the mount, with a leading slash), as absolute as the settings allow.
    pub(super) fn url(&self, parts: &Parts, path: &str) -> String {
        let origin = match &self.public_url {
            Some(url) => Some(url.clone()),
            None if self.trust_forwarded => forwarded_origin(parts),
            None => None,
        };
        format!("{}{}{path}", origin.unwrap_or_default(), self.mount)
    }

    /// The hosts, each with its port if one is said, that a request may have been sent to: the public one, what a proxy says
    /// if it is believed, and what the request says.
    pub(super) fn hosts(&self, parts: &Parts) -> impl Iterator<Item = String> {
        let public = self.public_url.as_deref().and_then(|url| url.split_once("://"));
        let public = public.and_then(|(_, rest)| rest.split('/').next()).map(str::to_owned);
        let forwarded = self.trust_forwarded.then(|| forwarded_host(&parts.headers)).flatten();
        let authority = parts.uri.authority().map(|authority| authority.as_str().to_owned());
        let host = first(&parts.headers, "host");
        [public, forwarded, authority, host].into_iter().flatten()
    }
}

/// Scheme and host as a proxy or the client names them; `None` if what they say is no host.
fn forwarded_origin(parts: &Parts) -> Option<String> {
    let headers = &parts.headers;
    let uri = &parts.uri;
    let host = forwarded_host(headers)
        .or_else(|| Some(uri.authority()?.as_str().to_owned()))
        .or_else(|| first(headers, "host"))?;
    let scheme = forwarded(headers, "proto")
        .or_else(|| first(headers, "x-forwarded-proto"))
        .or_else(|| uri.scheme_str().map(str::to_owned))
        .unwrap_or_else(|| "http".to_owned())
        .to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let is_host = host.len() <= 255 && host.bytes().all(plain) && host.parse::<Authority>().is_ok();
    (is_host && matches!(scheme.as_str(), "http" | "https")).then(|| format!("{scheme}://{host}"))
}

fn forwarded_host(headers: &HeaderMap) -> Option<String> {
    forwarded(headers, "host").or_else(|| first(headers, "x-forwarded-host"))
}

/// The first value of a list header.
fn first(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    let value = value.split(',').next()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// A parameter of the first element of `Forwarded` (RFC 7239).
fn forwarded(headers: &HeaderMap, parameter: &str) -> Option<String> {
    let element = first(headers, "forwarded")?;
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case(parameter).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Request;

    use super::*;

    fn url(settings: &Settings, headers: &[(&'static str, &'static str)]) -> String {
        let mut request = Request::builder().uri("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        settings.url(&request.body(()).unwrap().into_parts().0, "/uploads/")
    }

    #[test]
    fn urls_are_as_absolute_as_the_host_allows() {
        let mut settings = Settings {
            mount: "/api".to_owned(),
            ..Settings::default()
        };
        let evil = [
            ("host", "evil.example"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(url(&settings, &evil), "/api/uploads/");

        settings.trust_forwarded = true;
        for (headers, expected) in [
            (&[][..], "/api/uploads/"),
            (&[("host", "a.example:8080")], "http://a.example:8080/api/uploads/"),
            (
                &[
                    ("host", "in"),
                    ("x-forwarded-host", "a.example, b"),
                    ("x-forwarded-proto", "https,http"),
                ],
                "https://a.example/api/uploads/",
            ),
            (
                &[("forwarded", "for=1.2.3.4;proto=HTTPS;host=\"a.example\", for=5")],
                "https://a.example/api/uploads/",
            ),
            (&[("host", "[::1]:80")], "http://[::1]:80/api/uploads/"),
            (&[("host", "a/../b")], "/api/uploads/"),
            (&[("host", "user@a")], "/api/uploads/"),
            (&[("host", "a:b:c")], "/api/uploads/"),
            (&[("host", "[::1")], "/api/uploads/"),
            (&[("host", "")], "/api/uploads/"),
            (&[("host", "a"), ("x-forwarded-proto", "javascript")], "/api/uploads/"),
        ] {
            assert_eq!(url(&settings, headers), expected, "{headers:?}");
        }

        settings.public_url = Some("https://media.example".to_owned());
        assert_eq!(url(&settings, &evil), "https://media.example/api/uploads/");
    }
}
