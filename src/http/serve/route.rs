//! What a path below the mount of the service of files names.

use crate::{
    http::path::Path,
    upload::{DerivedName, UploadId},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The signature, where there is one.
    pub(super) token: Option<String>,
    pub(super) id: UploadId,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    File,
    /// What was made of it: a file of its HLS stream.
    Hls(DerivedName),
}

impl Route {
    /// `None` for what names nothing.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parsed = Path::parse(path)?;
        let (token, rest) = match parsed.segments()[..] {
            ["s", token, ref rest @ ..] => (Some(token.to_owned()), rest.to_vec()),
            ref rest => (None, rest.to_vec()),
        };
        let (id, what) = match rest[..] {
            [id] => (id, What::File),
            [id, "hls", ref name @ ..] => {
                let name = DerivedName::parse(&name.join("/")).ok();
                (id, What::Hls(name.filter(|_| !path.ends_with('/'))?))
            }
            _ => return None,
        };
        Some(Self {
            token,
            id: id.parse().ok()?,
            what,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_name_files() {
        let id = UploadId::from_bytes([7; 16]);
        let hls = |name: &str| What::Hls(DerivedName::parse(name).unwrap());
        for (path, token, what) in [
            (format!("/{id}"), None, What::File),
            (format!("/{id}/"), None, What::File),
            (format!("/{id}/hls/master.m3u8"), None, hls("master.m3u8")),
            (format!("/{id}/hls/720p/seg-00001.m4s"), None, hls("720p/seg-00001.m4s")),
            (format!("/s/1.a.x/{id}"), Some("1.a.x"), What::File),
            (format!("/s/1.a.x/{id}/hls/a.ts"), Some("1.a.x"), hls("a.ts")),
            (format!("/s/1.a.x/{id}/hls/%61.ts"), Some("1.a.x"), hls("a.ts")),
        ] {
            let token = token.map(str::to_owned);
            assert_eq!(Route::parse(&path), Some(Route { token, id, what }), "{path}");
        }
        for path in [
            "".to_owned(),
            "/".to_owned(),
            "/s".to_owned(),
            "/s/".to_owned(),
            "/s/1.a.x".to_owned(),
            "/favicon.ico".to_owned(),
            format!("//{id}"),
            format!("/{id}x"),
            format!("/{id}/x"),
            format!("/{id}/hls"),
            format!("/{id}/hls/"),
            format!("/{id}/hls/a.ts/"),
            format!("/{id}/hls//a.ts"),
            format!("/{id}/hls/../a.ts"),
            format!("/{id}/hls/%2e%2e/a.ts"),
            format!("/{id}/hls/a%2fb.ts"),
            format!("/{id}/hls/a%5cb.ts"),
            format!("/{id}/hls/a%00.ts"),
            format!("/{id}/hls/.hidden"),
            format!("/{id}/hls/a b.ts"),
            format!("/{id}/hls/ä.ts"),
            format!("/{id}/hls/a/b/c/d/e/f/g/h/i.ts"),
            format!("/{id}/hls/{}.ts", "a".repeat(101)),
            format!("/s/s/1.a.x/{id}"),
        ] {
            assert_eq!(Route::parse(&path), None, "{path}");
        }
    }
}
