//! Preconditions (RFC 9110 section 13): whether a request is to be done at all.

use http::{
    HeaderMap,
    header::{self, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE},
};

use super::modified::{Date, Modified};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    Holds,
    Failed,
    NotModified,
}

impl Precondition {
    /// `If-Match`, or without it `If-Unmodified-Since`; then `If-None-Match`, or without it `If-Modified-Since`: RFC 9110
    /// section 13.2.2, for GET and HEAD. What goes by a date is ignored where that is none, and for content without one.
    pub(super) fn of(headers: &HeaderMap, etag: Option<&str>, modified: Option<Modified>) -> Self {
        let unchanged_since = |name| Some(modified?.is_by(Date::of(headers, name)?));
        let stands = if headers.contains_key(IF_MATCH) {
            names(headers, &IF_MATCH, |tag| Some(tag) == etag)
        } else {
            unchanged_since(&IF_UNMODIFIED_SINCE).unwrap_or(true)
        };
        let is_known = if headers.contains_key(IF_NONE_MATCH) {
            names(headers, &IF_NONE_MATCH, |tag| {
                Some(tag.trim_start_matches("W/")) == etag
            })
        } else {
            unchanged_since(&IF_MODIFIED_SINCE).unwrap_or(false)
        };
        match (stands, is_known) {
            (false, _) => Self::Failed,
            (true, true) => Self::NotModified,
            (true, false) => Self::Holds,
        }
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
    use crate::upload::Timestamp;

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
    #[rustfmt::skip]
    fn preconditions_are_weighed_in_their_order() {
        use Precondition::{Failed, Holds, NotModified};
        const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
        const OBSOLETE: &str = "Sunday, 06-Nov-94 08:49:37 GMT";
        const WRONG: &str = "Monday, 06-Nov-94 08:49:37 GMT";
        let [published, now] = [784_111_777_900, 784_111_778_000].map(Timestamp::from_millis);
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
            (&[("if-match", "\"x\""), ("if-none-match", "\"x\"")], NotModified),
            (&[("if-modified-since", BEFORE)], Holds),
            (&[("if-modified-since", AT)], NotModified),
            (&[("if-modified-since", AFTER)], NotModified),
            (&[("if-modified-since", OBSOLETE)], NotModified),
            (&[("if-modified-since", WRONG)], Holds),
            (&[("if-modified-since", AT), ("if-modified-since", AT)], Holds),
            (&[("if-unmodified-since", BEFORE)], Failed),
            (&[("if-unmodified-since", AT)], Holds),
            (&[("if-unmodified-since", AFTER)], Holds),
            (&[("if-unmodified-since", WRONG)], Holds),
            (&[("if-unmodified-since", BEFORE), ("if-unmodified-since", BEFORE)], Holds),
            // A date says nothing beside an entity tag.
            (&[("if-none-match", "\"a\""), ("if-modified-since", AFTER)], Holds),
            (&[("if-none-match", "x"), ("if-modified-since", AFTER)], Holds),
            (&[("if-none-match", "\"x\""), ("if-modified-since", BEFORE)], NotModified),
            (&[("if-match", "\"x\""), ("if-unmodified-since", BEFORE)], Holds),
            (&[("if-match", "\"a\""), ("if-unmodified-since", AFTER)], Failed),
            // Those that refuse come first.
            (&[("if-unmodified-since", BEFORE), ("if-modified-since", AFTER)], Failed),
            (&[("if-unmodified-since", BEFORE), ("if-none-match", "\"x\"")], Failed),
            (&[("if-match", "\"x\""), ("if-modified-since", AT)], NotModified),
            (&[("if-unmodified-since", AT), ("if-modified-since", AT)], NotModified),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(header::HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(Precondition::of(&map, Some("\"x\""), Modified::at(published, now)), expected, "{headers:?}");
            // Without a date of its own, content ignores all dates.
            map.remove(IF_MODIFIED_SINCE);
            map.remove(IF_UNMODIFIED_SINCE);
            let expected = Precondition::of(&map, Some("\"x\""), None);
            for (name, value) in headers {
                map.append(header::HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(Precondition::of(&map, Some("\"x\""), None), expected, "{headers:?}");
        }
    }
}
