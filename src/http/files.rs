//! The place where tus and the IETF's protocol create uploads, and what lies beneath it.

use http::{HeaderMap, Response, StatusCode};

use super::{body::UploadBody, path::Path, resumable, settings::Settings, tus};
use crate::{engine::Uploads, upload::UploadId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where uploads are created.
    Collection,
    Upload(UploadId),
    /// Beneath it, but the name of nothing.
    Nothing,
}

impl Place {
    /// What `path`, below the mount, names at the files; `None` if it lies elsewhere.
    pub(super) fn of(settings: &Settings, path: &str) -> Option<Self> {
        let rest = path.strip_prefix(&settings.files)?;
        let at_mount = settings.files.is_empty();
        match rest {
            "" | "/" => return Some(Self::Collection),
            rest if !rest.starts_with('/') => return None,
            _ => {}
        }
        let id = Path::parse(rest).and_then(|path| match path.segments()[..] {
            [id] => id.parse().ok(),
            _ => None,
        });
        match id {
            Some(id) => Some(Self::Upload(id)),
            None if at_mount => None,
            None => Some(Self::Nothing),
        }
    }
}

/// What is spoken here, to a request with the headers `asks`: 200, as clients of tus want it.
pub(super) fn options(uploads: &Uploads, settings: &Settings, asks: &HeaderMap) -> Response<UploadBody> {
    let mut response = Response::new(UploadBody::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    if let Some(tus) = &settings.tus {
        tus::advertise(tus, uploads, headers);
    }
    if let Some(resumable) = &settings.resumable {
        resumable::advertise(resumable, uploads, asks, headers);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_places() {
        let id = UploadId::from_bytes([7; 16]);
        let at = |files: &str, path: &str| {
            let settings = Settings {
                files: files.to_owned(),
                ..Settings::default()
            };
            Place::of(&settings, path)
        };
        for (path, place) in [
            ("/files".to_owned(), Some(Place::Collection)),
            ("/files/".to_owned(), Some(Place::Collection)),
            (format!("/files/{id}"), Some(Place::Upload(id))),
            (format!("/files/{id}/"), Some(Place::Upload(id))),
            (format!("/files/{id}/x"), Some(Place::Nothing)),
            ("/files/..".to_owned(), Some(Place::Nothing)),
            ("/filesystem".to_owned(), None),
            ("/uploads".to_owned(), None),
        ] {
            assert_eq!(at("/files", &path), place, "{path}");
        }
        for (path, place) in [
            ("".to_owned(), Some(Place::Collection)),
            ("/".to_owned(), Some(Place::Collection)),
            (format!("/{id}"), Some(Place::Upload(id))),
            ("/uploads".to_owned(), None),
            (format!("/uploads/{id}"), None),
        ] {
            assert_eq!(at("", &path), place, "{path}");
        }
    }
}
