//! URLs of partial uploads, as clients give them back.

use http::{header::HOST, request::Parts};

use crate::{
    error::{Error, Result},
    http::{files::Place, settings::Settings},
    upload::UploadId,
};

/// The upload that `url` names, which stands in a request to `path` below the mount.
///
/// Nothing is ever fetched: the URL is read for the id in its path, and whoever asks must be allowed that upload. A URL with a
/// host must be of this service where it knows its own origin; behind a proxy of which it was told nothing it cannot, and takes
/// any.
pub(super) fn partial(settings: &Settings, parts: &Parts, path: &str, url: &str) -> Result<UploadId> {
    read(settings, parts, path, url).ok_or_else(|| {
        Error::invalid(
            "Upload-Concat",
            "Upload-Concat names what is no upload of this server; give the URLs that creations answered",
        )
    })
}

fn read(settings: &Settings, parts: &Parts, path: &str, url: &str) -> Option<UploadId> {
    let files = settings.url(parts, &settings.files);
    if let Some(id) = url.strip_prefix(&files).and_then(|rest| rest.strip_prefix('/')) {
        return id.trim_end_matches('/').parse().ok();
    }
    let path = if let Some((scheme, rest)) = url.split_once("://") {
        let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        let (authority, path) = rest.split_at_checked(rest.find('/')?)?;
        let knows_itself = files.contains("://");
        if !is_http || authority.is_empty() || knows_itself && !is_host(parts, authority) {
            return None;
        }
        path.to_owned()
    } else if url.starts_with("//") {
        return None;
    } else if url.starts_with('/') {
        url.to_owned()
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{}{folder}/{url}", settings.mount)
    };
    match Place::of(settings, path.strip_prefix(&settings.mount)?)? {
        Place::Upload(id) => Some(id),
        Place::Collection | Place::Nothing => None,
    }
}

/// Whether the request itself was sent to this host.
fn is_host(parts: &Parts, authority: &str) -> bool {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = parts.uri.authority().map(http::uri::Authority::as_str).or(host);
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Request;

    use super::*;

    #[test]
    fn urls_name_uploads_of_this_service() {
        let id = UploadId::from_bytes([7; 16]);
        let plain = Settings {
            mount: "/api".to_owned(),
            ..Settings::default()
        };
        let public = Settings {
            public_url: Some("https://media.example/x".to_owned()),
            ..plain.clone()
        };
        let request = Request::builder().uri("/files/").header("host", "inner:80");
        let parts = request.body(()).unwrap().into_parts().0;
        for (settings, url, is_ours) in [
            (&plain, format!("/api/files/{id}"), true),
            (&plain, format!("/api/files/{id}/"), true),
            (&plain, id.to_string(), true),
            (&plain, format!("http://any.example/api/files/{id}"), true),
            (&plain, format!("HTTPS://any.example/api/files/{id}"), true),
            (&plain, format!("ftp://any.example/api/files/{id}"), false),
            (&plain, format!("http:///api/files/{id}"), false),
            (&plain, format!("http://any.example/files/{id}"), false),
            (&plain, format!("//any.example/api/files/{id}"), false),
            (&plain, format!("/files/{id}"), false),
            (&plain, format!("/api/files/{id}?x"), false),
            (&plain, format!("/api/files/{id}#x"), false),
            (&plain, format!("/api/files/../files/{id}"), false),
            (&plain, format!("/api/uploads/{id}"), false),
            (&plain, format!("../{id}"), false),
            (&plain, "/api/files/".to_owned(), false),
            (&plain, "http://any.example".to_owned(), false),
            (&plain, String::new(), false),
            (&public, format!("https://media.example/x/api/files/{id}"), true),
            (&public, format!("https://inner:80/api/files/{id}"), true),
            (&public, format!("/api/files/{id}"), true),
            (&public, format!("https://other.example/api/files/{id}"), false),
            (&public, format!("https://media.example.evil/x/api/files/{id}"), false),
            (&public, format!("https://media.example/x/api/files/{id}/y"), false),
        ] {
            let read = partial(settings, &parts, "/files/", &url);
            assert_eq!(read.ok(), is_ours.then_some(id), "{url}");
        }
    }
}
