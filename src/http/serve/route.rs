//! What a path below the mount of the service of files names.

use crate::{http::path::Path, upload::UploadId};

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
    /// What was made of it: a name within its HLS stream.
    Hls(String),
}

/// The most folders and names of something within an HLS stream.
const DEPTH: usize = 4;

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
                let is_name = (1..=DEPTH).contains(&name.len()) && name.iter().all(|segment| is_plain(segment));
                if !is_name || path.ends_with('/') {
                    return None;
                }
                (id, What::Hls(name.join("/")))
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

/// Only such names are ever given to something that was made.
fn is_plain(segment: &str) -> bool {
    segment.len() <= 100
        && !segment.starts_with(['.', '-'])
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_files() {
        let id = UploadId::from_bytes([7; 16]);
        let hls = |name: &str| What::Hls(name.to_owned());
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
            format!("/{id}/hls/a/b/c/d/e.ts"),
            format!("/{id}/hls/{}.ts", "a".repeat(100)),
            format!("/s/s/1.a.x/{id}"),
        ] {
            assert_eq!(Route::parse(&path), None, "{path}");
        }
    }
}
