//! Structured fields (RFC 9651), as far as the protocols use them: items and dictionaries are parsed whole, and of their
//! values integers, booleans and byte sequences are kept.

use base64::{Engine as _, engine::general_purpose::STANDARD_PAD_INDIFFERENT};
use http::HeaderMap;

/// The largest integer: 15 digits.
pub(super) const MAX_INTEGER: u64 = 999_999_999_999_999;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Integer(i64),
    Boolean(bool),
    Bytes(Vec<u8>),
    /// A decimal, string, token, date, display string or inner list.
    Other,
}

/// The field `name` as an item; `None` if it is missing, given twice or not of that form. Parameters mean nothing here.
pub(super) fn field_item(headers: &HeaderMap, name: &str) -> Option<Value> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    item(line.as_bytes())
}

/// The field `name` as an integer that is not negative.
pub(super) fn field_integer(headers: &HeaderMap, name: &str) -> Option<u64> {
    match field_item(headers, name)? {
        Value::Integer(number) => u64::try_from(number).ok(),
        _ => None,
    }
}

/// The field `name` as a boolean.
pub(super) fn field_boolean(headers: &HeaderMap, name: &str) -> Option<bool> {
    match field_item(headers, name)? {
        Value::Boolean(value) => Some(value),
        _ => None,
    }
}

pub(super) fn item(text: &[u8]) -> Option<Value> {
    let mut rest = Rest(text);
    rest.skip(b" ");
    let value = rest.value()?;
    rest.parameters()?;
    rest.skip(b" ");
    rest.0.is_empty().then_some(value)
}

/// How many members of a dictionary are read: as many as RFC 9651 section 3.2 wants at least. Each is compared with all others.
const MAX_MEMBERS: usize = 1024;

/// The members in their order, [`MAX_MEMBERS`] at most; of one key given twice the last counts.
pub(super) fn dictionary(text: &[u8]) -> Option<Vec<(String, Value)>> {
    let mut members: Vec<(String, Value)> = Vec::new();
    let mut rest = Rest(text);
    rest.skip(b" ");
    while !rest.0.is_empty() {
        let key = rest.key()?;
        let value = if rest.take(b'=') {
            rest.member()?
        } else {
            Value::Boolean(true)
        };
        rest.parameters()?;
        members.retain(|(other, _)| *other != key);
        if members.len() == MAX_MEMBERS {
            return None;
        }
        members.push((key, value));
        rest.skip(b" \t");
        if rest.0.is_empty() {
            break;
        }
        if !rest.take(b',') {
            return None;
        }
        rest.skip(b" \t");
        if rest.0.is_empty() {
            return None; // a comma at the end
        }
    }
    Some(members)
}

/// What is not parsed yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip(&mut self, these: &[u8]) {
        self.while_in(|byte| these.contains(&byte));
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn while_in(&mut self, is_in: impl Fn(u8) -> bool) -> &'a [u8] {
        let len = self.0.iter().take_while(|byte| is_in(**byte)).count();
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn key(&mut self) -> Option<String> {
        let first = *self.0.first()?;
        if !(first.is_ascii_lowercase() || first == b'*') {
            return None;
        }
        let key = self.while_in(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte));
        String::from_utf8(key.to_vec()).ok()
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.skip(b" ");
            self.key()?;
            if self.take(b'=') {
                self.value()?;
            }
        }
        Some(())
    }

    fn member(&mut self) -> Option<Value> {
        if !self.take(b'(') {
            return self.value();
        }
        loop {
            self.skip(b" ");
            if self.take(b')') {
                return Some(Value::Other);
            }
            self.value()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn value(&mut self) -> Option<Value> {
        match *self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'@' => {
                self.take(b'@');
                matches!(self.number()?, Value::Integer(_)).then_some(Value::Other)
            }
            b'?' => {
                self.take(b'?');
                let is_true = self.take(b'1');
                (is_true || self.take(b'0')).then_some(Value::Boolean(is_true))
            }
            b':' => {
                self.take(b':');
                let base64 = self.while_in(|byte| byte != b':');
                let bytes = STANDARD_PAD_INDIFFERENT.decode(base64).ok()?;
                self.take(b':').then_some(Value::Bytes(bytes))
            }
            b'"' => self.string(),
            b'%' => self.display_string(),
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.while_in(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(Value::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let is_negative = self.take(b'-');
        let whole = self.while_in(|byte| byte.is_ascii_digit());
        if self.take(b'.') {
            let fraction = self.while_in(|byte| byte.is_ascii_digit());
            let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
            return fits.then_some(Value::Other);
        }
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        let number: i64 = std::str::from_utf8(whole).ok()?.parse().ok()?;
        Some(Value::Integer(if is_negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Value> {
        self.take(b'"');
        loop {
            self.while_in(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
            if self.take(b'"') {
                return Some(Value::Other);
            }
            if !(self.take(b'\\') && (self.take(b'"') || self.take(b'\\'))) {
                return None;
            }
        }
    }

    fn display_string(&mut self) -> Option<Value> {
        self.take(b'%');
        if !self.take(b'"') {
            return None;
        }
        let raw = self.while_in(|byte| matches!(byte, b' '..=b'~') && byte != b'"');
        if !self.take(b'"') {
            return None;
        }
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let mut escapes = raw.split(|byte| *byte == b'%').skip(1);
        let escaped = escapes.all(|part| part.len() >= 2 && part[..2].iter().all(is_hex));
        let decoded = percent_encoding::percent_decode(raw).decode_utf8();
        (escaped && decoded.is_ok()).then_some(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn items_as_in_rfc_9651() {
        use Value::{Boolean, Bytes, Integer, Other};
        for (text, value) in [
            ("42", Some(Integer(42))),
            ("  42  ", Some(Integer(42))),
            ("-0", Some(Integer(0))),
            ("-999999999999999", Some(Integer(-999_999_999_999_999))),
            ("999999999999999", Some(Integer(999_999_999_999_999))),
            ("1000000000000000", None),
            ("00", Some(Integer(0))),
            ("5;a=b", Some(Integer(5))),
            (
                "5; a;b=\"x,;\";c=:AA==:;d=?0;e=1.5;f=@1;g=%\"%c3%bc\"",
                Some(Integer(5)),
            ),
            ("5 ;a", None),
            ("5;A", None),
            ("5;", None),
            ("5;a=", None),
            ("5,6", None),
            ("5 6", None),
            ("\t5", None),
            ("--5", None),
            ("+5", None),
            ("", None),
            (" ", None),
            ("1.5", Some(Other)),
            ("1.", None),
            ("1.2345", None),
            ("1234567890123.5", None),
            ("?1", Some(Boolean(true))),
            ("?0", Some(Boolean(false))),
            ("?1;x", Some(Boolean(true))),
            ("?2", None),
            ("?", None),
            ("?10", None),
            ("true", Some(Other)),
            ("1", Some(Integer(1))),
            ("\"?1\"", Some(Other)),
            ("\"a\\\"b\\\\\"", Some(Other)),
            ("\"a\\b\"", None),
            ("\"a", None),
            ("\"\u{fc}\"", None),
            (":aGk=:", Some(Bytes(b"hi".to_vec()))),
            (":aGk:", Some(Bytes(b"hi".to_vec()))),
            ("::", Some(Bytes(Vec::new()))),
            (":a!:", None),
            (":aGk=", None),
            ("@1659578233", Some(Other)),
            ("@1.5", None),
            ("%\"f%c3%bc\"", Some(Other)),
            ("%\"%C3%BC\"", None),
            ("%\"%c3\"", None),
            ("%\"a%\"", None),
            ("*a:b/c", Some(Other)),
            ("(1 2)", None),
        ] {
            assert_eq!(item(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn dictionaries_as_in_rfc_9651() {
        let keys = |text: &str| {
            dictionary(text.as_bytes()).map(|members| members.into_iter().map(|(key, _)| key).collect::<Vec<_>>())
        };
        for (text, expected) in [
            ("", Some(&[][..])),
            ("a=1", Some(&["a"])),
            ("a, b;x=1 ,\tc=(1 \"x, y\";p 2);q", Some(&["a", "b", "c"])),
            ("a=1, b=2, a=3", Some(&["b", "a"])),
            ("c=()", Some(&["c"])),
            ("a=1,", None),
            ("a=1,,b=2", None),
            ("a=1 b=2", None),
            ("a=", None),
            ("A=1", None),
            ("=1", None),
            ("c=(1", None),
            ("c=(1,2)", None),
            ("c=(1\t2)", None),
        ] {
            let expected = expected.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
            assert_eq!(keys(text), expected, "{text:?}");
        }
        assert_eq!(
            dictionary(b"a=1;x, b=?0, c, a=:AQ==:").unwrap(),
            [
                ("b".to_owned(), Value::Boolean(false)),
                ("c".to_owned(), Value::Boolean(true)),
                ("a".to_owned(), Value::Bytes(vec![1])),
            ]
        );
    }

    #[test]
    fn a_dictionary_has_so_many_members_and_no_more() {
        let members = |count: usize| {
            let text: Vec<String> = (0..count).map(|at| format!("k{at}")).collect();
            dictionary(text.join(",").as_bytes()).map(|members| members.len())
        };
        assert_eq!(members(MAX_MEMBERS), Some(MAX_MEMBERS));
        assert_eq!(members(MAX_MEMBERS + 1), None);
        let same = vec!["a"; MAX_MEMBERS + 1].join(",");
        assert_eq!(dictionary(same.as_bytes()).map(|members| members.len()), Some(1));
    }

    #[test]
    fn a_field_is_one_line() {
        let mut headers = HeaderMap::new();
        assert_eq!(field_integer(&headers, "upload-offset"), None);
        headers.insert("upload-offset", "5;a=b".parse().unwrap());
        assert_eq!(field_integer(&headers, "upload-offset"), Some(5));
        assert_eq!(field_boolean(&headers, "upload-offset"), None);
        headers.append("upload-offset", "5".parse().unwrap());
        assert_eq!(field_integer(&headers, "upload-offset"), None);
        headers.insert("upload-offset", "-5".parse().unwrap());
        assert_eq!(field_integer(&headers, "upload-offset"), None);
    }
}
