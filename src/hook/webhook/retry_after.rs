//! `Retry-After` of an answer (RFC 9110, 10.2.3): in how many seconds, or at what moment.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use jiff::{civil::DateTime, tz::TimeZone};

use crate::upload::Timestamp;

/// The forms of RFC 9110, 5.6.7: the one that is sent today, then two that are read for the sake of old servers.
const DATES: [&str; 3] = [
    "%a, %d %b %Y %H:%M:%S GMT",
    "%A, %d-%b-%y %H:%M:%S GMT",
    "%a %b %e %H:%M:%S %Y",
];

/// How long the one who answered with these headers asks to be left alone. A moment is compared with the answer's own `Date`,
/// since the clocks may differ, and with `now` if there is none. `None` without the header, and for one that says nothing.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = single(headers, &header::RETRY_AFTER)?;
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that are too many are a time that is too long.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let moment = date(value)?;
    let now = single(headers, &header::DATE).and_then(date).unwrap_or(now);
    Some(moment.since(now))
}

/// The value of a header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn date(text: &str) -> Option<Timestamp> {
    let date = DATES.iter().find_map(|form| DateTime::strptime(form, text).ok())?;
    let moment = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
    u64::try_from(moment).ok().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000);

    fn after(values: &[&str], date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::RETRY_AFTER, value.parse().unwrap());
        }
        if let Some(date) = date {
            headers.insert(header::DATE, date.parse().unwrap());
        }
        retry_after(&headers, NOW).map(|wait| wait.as_secs())
    }

    #[test]
    fn says_in_seconds_or_at_what_moment() {
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("007", Some(7)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            ("Sunday, 06-Nov-94 08:51:37 GMT", Some(120)),
            ("Sun Nov  6 08:51:37 1994", Some(120)),
            ("Sun Nov 13 08:49:37 1994", Some(7 * 86_400)),
            // Over already.
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1 s", None),
            ("0x10", None),
            ("soon", None),
            // No such day; another day of the week; another zone; no zone.
            ("Sun, 31 Nov 1994 08:49:37 GMT", None),
            ("Mon, 06 Nov 1994 08:51:37 GMT", None),
            ("Sun, 06 Nov 1994 08:51:37 CET", None),
            ("Sun, 06 Nov 1994 08:51:37 +0100", None),
            ("Sun, 06 Nov 1994 08:51:37", None),
            ("1994-11-06T08:51:37Z", None),
        ] {
            assert_eq!(after(&[value], None), expected, "{value:?}");
        }
        assert_eq!(after(&[], None), None);
        assert_eq!(after(&["1", "2"], None), None);
    }

    #[test]
    fn a_moment_is_one_of_the_clock_that_says_it() {
        let moment = "Sun, 06 Nov 1994 08:51:37 GMT";
        for (date, expected) in [
            ("Sun, 06 Nov 1994 08:51:07 GMT", 30),
            ("Sun, 06 Nov 1994 08:59:37 GMT", 0),
            ("no date", 120),
        ] {
            assert_eq!(after(&[moment], Some(date)), Some(expected), "{date}");
            assert_eq!(after(&["5"], Some(date)), Some(5), "{date}");
        }
    }
}
