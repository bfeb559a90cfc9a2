//! Preconditions (RFC 9110 section 13): whether a request is to be done at all.

use http::{
    HeaderMap,
    header::{self, IF_MATCH, IF_NONE_MATCH},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    Holds,
    Failed,
    NotModified,
}

impl Precondition {
    /// `If-Match`, then `If-None-Match`: RFC 9110 section 13.2.2. What goes by a modification date is ignored.
    pub(super) fn of(headers: &HeaderMap, etag: &str) -> Self {
        if headers.contains_key(IF_MATCH) && !names(headers, &IF_MATCH, |tag| tag == etag) {
            return Self::Failed;
        }
        if names(headers, &IF_NONE_MATCH, |tag| tag.trim_start_matches("W/") == etag) {
            return Self::NotModified;
        }
        Self::Holds
    }
}

/// Whether a list of entity tags has one that `is_it`, or is `*`. A list that cannot be read has none.
fn names(headers: &HeaderMap, name: &header::HeaderName, is_it: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| entity_tags(line).unwrap_or_default())
        .any(|tag| tag == "*" || is_it(tag))
}

/// The entity tags of a list, each as it is written; `None` if it is none.
pub(in crate::http) fn entity_tags(text: &str) -> Option<Vec<&str>> {
    let text = text.trim_matches([' ', '\t']);
    if text == "*" {
        return Some(vec![text]);
    }
    let mut tags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(tags);
        }
        let opaque = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let len = rest.len() - opaque.len() + opaque.find('"')? + 1;
        let (tag, after) = rest.split_at_checked(len)?;
        tags.push(tag);
        rest = after.trim_start_matches([' ', '\t']);
        if !(rest.is_empty() || rest.starts_with(',')) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;

    use super::*;

    #[test]
    fn entity_tags_are_read_one_by_one() {
        for (text, expected) in [
            ("\"a\"", Some(vec!["\"a\""])),
            ("\"a\", W/\"b\"", Some(vec!["\"a\"", "W/\"b\""])),
            (" ,\"a\" ,, \"b,c\",", Some(vec!["\"a\"", "\"b,c\""])),
            ("*", Some(vec!["*"])),
            ("", Some(vec![])),
            ("a", None),
            ("\"a", None),
            ("\"a\" \"b\"", None),
            ("w/\"a\"", None),
            ("*, \"a\"", None),
        ] {
            assert_eq!(entity_tags(text), expected, "{text}");
        }
    }

    #[test]
    fn preconditions_are_weighed_in_their_order() {
        use Precondition::{Failed, Holds, NotModified};
        for (headers, expected) in [
            (&[][..], Holds),
            (&[("if-match", "\"x\"")], Holds),
            (&[("if-match", "*")], Holds),
            (&[("if-match", "\"a\", \"x\"")], Holds),
            (&[("if-match", "\"a\"")], Failed),
            (&[("if-match", "W/\"x\"")], Failed),
            (&[("if-match", "x")], Failed),
            (&[("if-none-match", "\"a\"")], Holds),
            (&[("if-none-match", "\"x\"")], NotModified),
            (&[("if-none-match", "W/\"x\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "x")], Holds),
            (&[("if-match", "\"a\""), ("if-none-match", "\"x\"")], Failed),
            (&[("if-modified-since", "Fri, 31 Dec 9999 23:59:59 GMT")], Holds),
            (&[("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")], Holds),
            (&[("if-match", "\"x\""), ("if-none-match", "\"x\"")], NotModified),
        ] {
            let map = headers.iter().map(|(name, value)| {
                let name: header::HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_static(value))
            });
            assert_eq!(Precondition::of(&map.collect(), "\"x\""), expected, "{headers:?}");
        }
    }
}
