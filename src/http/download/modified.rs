//! When content was last modified, as far as HTTP tells it (RFC 9110 section 8.8.2).

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::upload::Timestamp;

/// The year 10000, in Unix seconds: no date of HTTP says it.
const END: u64 = 253_402_300_800;

/// A modification date, in whole Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct Modified {
    seconds: u64,
    is_strong: bool,
}

impl Modified {
    /// Of content that was published at `published`, told `now`: by the clock of the metadata store and by this machine's.
    ///
    /// It is never later than the answer that tells it (section 8.8.2.1), and a strong validator once its second is over: what is
    /// published does not change, but two clocks need not agree.
    pub(super) fn at(published: Timestamp, now: Timestamp) -> Option<Self> {
        let [published, now] = [published, now].map(|at| at.as_millis() / 1000);
        (now < END).then(|| Self {
            seconds: published.min(now),
            is_strong: published < now,
        })
    }

    /// What `Last-Modified` says.
    pub(super) fn header(self) -> Option<HeaderValue> {
        let at = UNIX_EPOCH + Duration::from_secs(self.seconds);
        HeaderValue::from_str(&httpdate::fmt_http_date(at)).ok()
    }

    /// Whether nothing changed after `date`.
    pub(super) const fn is_by(self, date: Date) -> bool {
        self.seconds <= date.0
    }

    /// Whether `date` names this very content, so that parts of it go together.
    pub(super) const fn is_exactly(self, date: Date) -> bool {
        self.is_strong && self.seconds == date.0
    }
}

/// A date that a request names, in whole Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date(u64);

impl Date {
    /// The date in a header; none if it is none, or more than one.
    pub(super) fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (Some(value), None) => Self::parse(value),
            _ => None,
        }
    }

    /// Reads all three forms of section 5.6.7.
    pub(super) fn parse(value: &HeaderValue) -> Option<Self> {
        let at = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
        at.duration_since(UNIX_EPOCH).ok().map(|since| Self(since.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::header::DATE;

    use super::*;

    fn modified(published: u64, now: u64) -> Option<Modified> {
        Modified::at(Timestamp::from_millis(published), Timestamp::from_millis(now))
    }

    #[test]
    fn dates_are_whole_seconds_and_never_to_come() {
        for (published, now, expected, is_strong) in [
            (784_111_777_000, 784_111_778_000, "Sun, 06 Nov 1994 08:49:37 GMT", true),
            (784_111_777_999, 784_111_778_000, "Sun, 06 Nov 1994 08:49:37 GMT", true),
            (784_111_777_000, 784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT", false),
            (784_111_779_000, 784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT", false),
            (u64::MAX, 784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT", false),
            (0, 1_000, "Thu, 01 Jan 1970 00:00:00 GMT", true),
            (
                253_402_300_799_999,
                253_402_300_799_999,
                "Fri, 31 Dec 9999 23:59:59 GMT",
                false,
            ),
        ] {
            let modified = modified(published, now).unwrap();
            assert_eq!(modified.header().unwrap(), expected, "{published} {now}");
            assert_eq!(modified.is_strong, is_strong, "{published} {now}");
        }
        assert_eq!(modified(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn dates_are_read_in_three_forms() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Mon, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Thu, 31 Feb 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("1994-11-06T08:49:37Z", None),
            ("784111777", None),
            ("", None),
        ] {
            let date = Date::parse(&HeaderValue::from_static(text));
            assert_eq!(date, expected.map(Date), "{text}");
        }
        let mut headers = HeaderMap::new();
        for lines in 1..=2 {
            headers.append(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
            assert_eq!(Date::of(&headers, &DATE).is_some(), lines == 1);
        }
    }
}
