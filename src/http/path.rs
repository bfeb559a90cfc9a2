//! Paths and queries as they come over the wire, decoded once.

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};

/// The segments of a path below the mount, each percent-decoded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(Vec<String>);

impl Path {
    /// `None` for what names nothing: an empty segment within, an encoded separator or NUL, bytes that are no UTF-8.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        path.split('/').map(segment).collect::<Option<_>>().map(Self)
    }

    pub(super) fn segments(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

fn segment(raw: &str) -> Option<String> {
    let text = percent_decode_str(raw).decode_utf8().ok()?;
    let safe = !text.is_empty() && !text.contains(['/', '\\', '\0']);
    safe.then(|| text.into_owned())
}

/// The pairs of a query, decoded as a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// The most pairs.
    const MAX: usize = 64;

    pub(super) fn parse(query: Option<&str>) -> Result<Self> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let text = percent_decode_str(&text).decode_utf8();
            text.map(std::borrow::Cow::into_owned)
                .map_err(|_| Error::invalid("query", "The query is not UTF-8"))
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if pairs.len() == Self::MAX {
                return Err(Error::invalid("query", "The query has too many parameters"));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(Error::invalid(name, "The parameter is given more than once"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn segments_are_decoded_once() {
        let parse = |path: &str| Path::parse(path).map(|path| path.0);
        let owned = |segments: &[&str]| Some(segments.iter().map(|segment| (*segment).to_owned()).collect::<Vec<_>>());
        for (path, segments) in [
            ("/uploads/", owned(&["uploads"])),
            ("uploads", owned(&["uploads"])),
            ("/uploads/a%20b/events", owned(&["uploads", "a b", "events"])),
            ("/uploads/%252F", owned(&["uploads", "%2F"])),
            ("/uploads/a%2Fb", None),
            ("/uploads/a%5cb", None),
            ("/uploads/%00", None),
            ("/uploads/%ff", None),
            ("/uploads//x", None),
            ("//uploads", None),
            ("/uploads//", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(parse(path), segments, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded_as_forms() {
        let query = Query::parse(Some("videoId=1%2B2&fileName=my+talk%20%C3%BC.mp4&&empty")).unwrap();
        assert_eq!(query.get("videoId"), Some("1+2"));
        assert_eq!(query.get("fileName"), Some("my talk ü.mp4"));
        assert_eq!(query.get("empty"), Some(""));
        assert_eq!(query.get("other"), None);
        assert_eq!(Query::parse(Some("a=1&%61=2")).unwrap_err().field(), Some("a"));
        assert!(Query::parse(Some("a=%ff")).is_err());
        assert!(Query::parse(Some(&(0..65).map(|i| format!("{i}&")).collect::<String>())).is_err());
    }
}
