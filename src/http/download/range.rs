//! Which bytes of a content are asked for (RFC 9110 section 14.2).

use http::{
    HeaderMap, HeaderValue,
    header::{IF_RANGE, RANGE},
};

use super::modified::{Date, Modified};
use crate::http::number::digits;

/// The most ranges that one request gets; who asks for more gets the whole, as RFC 9110 section 14.2 allows.
const MAX_RANGES: usize = 16;
/// Ranges that are no further apart are sent as one, bytes: a part of its own would cost as much.
const NEAR: u64 = 128;

/// What of the content is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) enum Asked {
    Whole,
    /// Bytes `start..end`, at least one.
    Range(u64, u64),
    /// Two or more of them, which neither overlap nor lie next to each other.
    Several(Vec<(u64, u64)>),
    Unsatisfiable,
}

/// `Range`, unless `If-Range` speaks of other content: by its entity tag, or by a date that is exactly its own and a strong
/// validator (RFC 9110 section 13.1.5).
pub(super) fn asked(headers: &HeaderMap, etag: Option<&str>, modified: Option<Modified>, size: u64) -> Asked {
    let is_of = |date| modified.is_some_and(|modified| modified.is_exactly(date));
    let is_tag = |value: &HeaderValue| etag.is_some_and(|etag| value.as_bytes() == etag.as_bytes());
    let holds = |value: &HeaderValue| is_tag(value) || Date::parse(value).is_some_and(is_of);
    if !headers.get(IF_RANGE).is_none_or(holds) {
        return Asked::Whole;
    }
    let mut lines = headers.get_all(RANGE).iter();
    match (lines.next().and_then(|value| value.to_str().ok()), lines.next()) {
        (Some(text), None) => range(text, size),
        _ => Asked::Whole,
    }
}

/// Ranges of bytes (RFC 9110 section 14.1.2) of a content of `size` bytes. What cannot be read, is in another unit or
/// names too many asks for the whole.
///
/// Those that overlap, touch or nearly touch become one (section 15.3.7.2), so that no byte is sent twice: a list of
/// overlapping ranges costs no more than the whole (section 17.15).
pub(in crate::http) fn range(text: &str, size: u64) -> Asked {
    let Some((unit, list)) = text.split_once('=') else {
        return Asked::Whole;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Asked::Whole;
    }
    let mut named = 0;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for one in list.split(',').map(|one| one.trim_matches([' ', '\t'])) {
        if one.is_empty() {
            continue;
        }
        named += 1;
        let Some((start, end)) = one_range(one, size).filter(|_| named <= MAX_RANGES) else {
            return Asked::Whole;
        };
        if start < end {
            add(&mut ranges, (start, end));
        }
    }
    match (named, &ranges[..]) {
        (0, _) => Asked::Whole,
        (_, []) => Asked::Unsatisfiable,
        (_, &[(start, end)]) => Asked::Range(start, end),
        _ => Asked::Several(ranges),
    }
}

/// Bytes `start..end`, none if the range lies past the end; `None` if it is not written as one.
fn one_range(text: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-')?;
    // A position beyond what a number can hold is beyond the end, too.
    let position = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits(text).unwrap_or(u64::MAX))
    };
    match (position(first), position(last)) {
        (Some(first), Some(last)) if first <= last => Some((first, last.saturating_add(1).min(size))),
        (Some(first), None) if last.is_empty() => Some((first, size)),
        (None, Some(suffix)) if first.is_empty() => Some((size.saturating_sub(suffix), size)),
        _ => None,
    }
}

/// Adds a range in the place of the first one that it is near to, with all others that it is near to.
fn add(ranges: &mut Vec<(u64, u64)>, mut new: (u64, u64)) {
    let mut place = None;
    while let Some(at) = ranges
        .iter()
        .position(|(start, end)| *start <= new.1.saturating_add(NEAR) && new.0 <= end.saturating_add(NEAR))
    {
        let (start, end) = ranges.remove(at);
        new = (new.0.min(start), new.1.max(end));
        place = Some(place.map_or(at, |place: usize| place.min(at)));
    }
    ranges.insert(place.unwrap_or(ranges.len()), new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::Timestamp;

    #[test]
    fn a_range_is_of_the_content_that_the_client_has() {
        let at = |published, now| Modified::at(Timestamp::from_millis(published), Timestamp::from_millis(now));
        let (settled, fresh) = (
            at(784_111_777_900, 784_111_778_000),
            at(784_111_777_000, 784_111_777_900),
        );
        let (range, whole) = (Asked::Range(2, 5), Asked::Whole);
        for (condition, modified, expected) in [
            ("\"x\"", None, &range),
            ("\"x\"", settled, &range),
            ("W/\"x\"", settled, &whole),
            ("\"a\"", settled, &whole),
            ("Sun, 06 Nov 1994 08:49:37 GMT", settled, &range),
            ("Sunday, 06-Nov-94 08:49:37 GMT", settled, &range),
            ("Sun, 06 Nov 1994 08:49:36 GMT", settled, &whole),
            ("Sun, 06 Nov 1994 08:49:38 GMT", settled, &whole),
            ("Mon, 06 Nov 1994 08:49:37 GMT", settled, &whole),
            // Whether something else had that date, too, is known when its second is over.
            ("Sun, 06 Nov 1994 08:49:37 GMT", fresh, &whole),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None, &whole),
        ] {
            let headers = [(RANGE, "bytes=2-4"), (IF_RANGE, condition)];
            let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
            let asked = asked(&HeaderMap::from_iter(headers), Some("\"x\""), modified, 10);
            assert_eq!(&asked, expected, "{condition} {modified:?}");
        }
    }

    #[test]
    fn one_range_is_cut_out() {
        for (text, size, expected) in [
            ("bytes=0-0", 10, Asked::Range(0, 1)),
            ("bytes=0-9", 10, Asked::Range(0, 10)),
            ("bytes=2-", 10, Asked::Range(2, 10)),
            ("bytes=2-99", 10, Asked::Range(2, 10)),
            ("bytes=-3", 10, Asked::Range(7, 10)),
            ("bytes=-99", 10, Asked::Range(0, 10)),
            ("Bytes= 1-2", 10, Asked::Range(1, 3)),
            ("bytes=0-18446744073709551615", 10, Asked::Range(0, 10)),
            ("bytes=0-99999999999999999999", 10, Asked::Range(0, 10)),
            ("bytes=10-", 10, Asked::Unsatisfiable),
            ("bytes=10-11", 10, Asked::Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Asked::Unsatisfiable),
            ("bytes=-0", 10, Asked::Unsatisfiable),
            ("bytes=0-", 0, Asked::Unsatisfiable),
            ("bytes=-1", 0, Asked::Unsatisfiable),
            ("bytes=5-2", 10, Asked::Whole),
            ("bytes=-", 10, Asked::Whole),
            ("bytes=", 10, Asked::Whole),
            ("bytes=,", 10, Asked::Whole),
            ("bytes", 10, Asked::Whole),
            ("bytes=a-b", 10, Asked::Whole),
            ("bytes=+1-2", 10, Asked::Whole),
            ("bytes=1-x", 10, Asked::Whole),
            ("bytes=1--2", 10, Asked::Whole),
            ("seconds=1-2", 10, Asked::Whole),
            ("", 10, Asked::Whole),
        ] {
            assert_eq!(range(text, size), expected, "{text} of {size}");
        }
    }

    #[test]
    fn several_ranges_never_send_a_byte_twice() {
        let several = |ranges: &[(u64, u64)]| Asked::Several(ranges.to_vec());
        for (text, expected) in [
            ("bytes=0-9,1000-1009", several(&[(0, 10), (1000, 1010)])),
            ("bytes= 0-9 ,\t1000-1009 , ", several(&[(0, 10), (1000, 1010)])),
            ("bytes=1000-1009,0-9", several(&[(1000, 1010), (0, 10)])),
            ("bytes=-10,0-9", several(&[(9990, 10_000), (0, 10)])),
            // Past the end is left out, and what is left may be one.
            ("bytes=0-9,20000-", Asked::Range(0, 10)),
            ("bytes=10000-,20000-,-0", Asked::Unsatisfiable),
            // What overlaps, touches or nearly touches is one.
            ("bytes=0-9,5-19", Asked::Range(0, 20)),
            ("bytes=0-9,10-19", Asked::Range(0, 20)),
            ("bytes=0-9,138-147", Asked::Range(0, 148)),
            ("bytes=0-9,139-147", several(&[(0, 10), (139, 148)])),
            ("bytes=0-,0-,0-,0-,0-,0-", Asked::Range(0, 10_000)),
            ("bytes=0-0,5000-5000,9000-9000,0-", Asked::Range(0, 10_000)),
            ("bytes=500-509,0-9,200-300,100-400", Asked::Range(0, 510)),
            ("bytes=5000-5001,0-9,200-300,5-250", several(&[(5000, 5002), (0, 301)])),
            // One that cannot be read makes all of it unreadable.
            ("bytes=0-9,x", Asked::Whole),
            ("bytes=0-9,9-0", Asked::Whole),
        ] {
            assert_eq!(range(text, 10_000), expected, "{text}");
        }
        let list = |ranges: usize| {
            let ranges: Vec<String> = (0..ranges).map(|at| format!("{}-{}", at * 500, at * 500)).collect();
            format!("bytes={}", ranges.join(","))
        };
        assert!(matches!(range(&list(MAX_RANGES), 10_000), Asked::Several(ranges) if ranges.len() == MAX_RANGES));
        assert_eq!(range(&list(MAX_RANGES + 1), 10_000), Asked::Whole);
        let near: String = (0..5000).map(|_| "0-,").collect();
        assert_eq!(range(&format!("bytes={near}"), 10_000), Asked::Whole);
    }
}
