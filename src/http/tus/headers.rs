//! The headers of tus 1.0.0, as pure functions from text to types.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD_PAD_INDIFFERENT};
use http::{HeaderMap, header::CONTENT_TYPE};

use crate::{
    error::{Error, Result},
    http::number::digits,
    upload::{Algorithm, Digest},
};

/// What `Upload-Checksum` may name, `sha1` first: the protocol requires it.
pub(super) const ALGORITHMS: [Algorithm; 7] = [
    Algorithm::Sha1,
    Algorithm::Sha256,
    Algorithm::Sha512,
    Algorithm::Md5,
    Algorithm::Crc32,
    Algorithm::Crc32c,
    Algorithm::Blake3,
];

/// The most uploads that one is made of.
const MAX_PARTIALS: usize = 1000;

/// What a creation says of the length of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Deferred,
    /// Neither header is there, as for an upload that is made of others.
    Absent,
}

/// `Upload-Concat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concat<'a> {
    Partial,
    /// The URLs of the uploads that it is made of, in their order.
    Final(Vec<&'a str>),
}

/// The text of a header that is there once at most.
pub(super) fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Error::invalid(
                name,
                format!("{name} has a character that is not ASCII"),
            )),
        },
        _ => Err(Error::invalid(name, format!("{name} is given more than once"))),
    }
}

/// A number of bytes, as in `Upload-Offset` and `Upload-Length`: decimal digits alone, up to `u64::MAX`.
pub(super) fn number(name: &'static str, text: &str) -> Result<u64> {
    let invalid = || Error::invalid(name, format!("{name} must be a whole number of bytes, in digits"));
    digits(text).ok_or_else(invalid)
}

/// `Upload-Length` and `Upload-Defer-Length` of a creation.
pub(super) fn length(length: Option<&str>, defer: Option<&str>) -> Result<Length> {
    match (length, defer) {
        (Some(_), Some(_)) => Err(Error::invalid(
            "Upload-Length",
            "Upload-Length and Upload-Defer-Length exclude each other; send one of them",
        )),
        (Some(text), None) => Ok(Length::Known(number("Upload-Length", text)?)),
        (None, Some("1")) => Ok(Length::Deferred),
        (None, Some(_)) => Err(Error::invalid(
            "Upload-Defer-Length",
            "Upload-Defer-Length is 1 or is not sent",
        )),
        (None, None) => Ok(Length::Absent),
    }
}

/// `Upload-Metadata`: pairs of a key and its value in Base64, keys unique, values possibly empty.
///
/// The protocol allows any bytes in a value. Here they must be text: UTF-8 without control characters.
pub(super) fn metadata(text: &str) -> Result<Vec<(&str, String)>> {
    let invalid = |message: String| Error::invalid("Upload-Metadata", message);
    let (mut pairs, mut keys) = (Vec::new(), HashSet::new());
    if text.trim().is_empty() {
        return Ok(pairs);
    }
    for pair in text.split(',') {
        let pair = pair.trim_matches(' ');
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid(
                "Upload-Metadata is pairs of a key and a Base64 value, separated by commas".to_owned(),
            ));
        }
        if !keys.insert(key) {
            return Err(invalid(format!("Upload-Metadata has the key {key} more than once")));
        }
        let bytes = STANDARD_PAD_INDIFFERENT
            .decode(value)
            .map_err(|_| invalid(format!("The value of {key} in Upload-Metadata is not Base64")))?;
        let value = String::from_utf8(bytes)
            .ok()
            .filter(|value| !value.contains(char::is_control));
        let value = value.ok_or_else(|| {
            invalid(format!(
                "The value of {key} in Upload-Metadata must be text: UTF-8 without control characters"
            ))
        })?;
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// `Upload-Checksum`: the name of an algorithm in lower case, a space, the digest in Base64.
pub(super) fn checksum(text: &str) -> Result<Digest> {
    let invalid = |message: String| Error::invalid("Upload-Checksum", message);
    let (name, digest) = text
        .split_once(' ')
        .ok_or_else(|| invalid("Upload-Checksum is the name of an algorithm, a space and Base64".to_owned()))?;
    let algorithm = ALGORITHMS.into_iter().find(|algorithm| algorithm.name() == name);
    let algorithm = algorithm.ok_or_else(|| {
        let known = ALGORITHMS.map(Algorithm::name).join(", ");
        invalid(format!("The checksum algorithm is not known; known are {known}"))
    })?;
    let bytes = STANDARD_PAD_INDIFFERENT
        .decode(digest)
        .map_err(|_| invalid("The digest in Upload-Checksum is not Base64".to_owned()))?;
    Digest::new(algorithm, bytes).map_err(|error| invalid(error.message().to_owned()))
}

/// Whether the request announces that `Upload-Checksum` comes after its body (RFC 9110 section 6.6.2).
pub(super) fn announces_checksum(headers: &HeaderMap) -> bool {
    headers
        .get_all(http::header::TRAILER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upload-checksum"))
}

/// `Upload-Concat`: `partial`, or `final;` and URLs separated by spaces.
pub(super) fn concat(text: &str) -> Result<Concat<'_>> {
    let invalid = |message: String| Error::invalid("Upload-Concat", message);
    if text == "partial" {
        return Ok(Concat::Partial);
    }
    let urls = text
        .strip_prefix("final;")
        .ok_or_else(|| invalid("Upload-Concat is `partial`, or `final;` and the URLs of uploads".to_owned()))?;
    let urls: Vec<&str> = urls
        .split(' ')
        .filter(|url| !url.is_empty())
        .take(MAX_PARTIALS + 1)
        .collect();
    match urls.len() {
        0 => Err(invalid("Upload-Concat names no upload".to_owned())),
        count if count > MAX_PARTIALS => Err(invalid(format!("Upload-Concat names more than {MAX_PARTIALS} uploads"))),
        _ => Ok(Concat::Final(urls)),
    }
}

/// Whether the body is said to be bytes of the file: its type alone counts, not the parameters.
pub(super) fn is_offset_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split(';').next())
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("application/offset+octet-stream"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn field<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().field().unwrap().to_owned()
    }

    #[test]
    fn numbers_are_digits_alone() {
        for (text, expected) in [
            ("0", Some(0)),
            ("0042", Some(42)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("-1", None),
            ("+5", None),
            (" 5 ", None),
            ("5.0", None),
            ("0x5", None),
            ("1e3", None),
            ("٥", None),
        ] {
            assert_eq!(number("Upload-Offset", text).ok(), expected, "{text:?}");
        }
        assert_eq!(field(number("Upload-Offset", "-1")), "Upload-Offset");
    }

    #[test]
    fn a_length_is_known_or_deferred() {
        for (known, defer, expected) in [
            (Some("5"), None, Ok(Length::Known(5))),
            (Some("0"), None, Ok(Length::Known(0))),
            (None, Some("1"), Ok(Length::Deferred)),
            (None, None, Ok(Length::Absent)),
            (Some("5"), Some("1"), Err("Upload-Length")),
            (Some("-5"), None, Err("Upload-Length")),
            (Some(""), None, Err("Upload-Length")),
            (None, Some("0"), Err("Upload-Defer-Length")),
            (None, Some("2"), Err("Upload-Defer-Length")),
            (None, Some("true"), Err("Upload-Defer-Length")),
            (None, Some(""), Err("Upload-Defer-Length")),
        ] {
            let read = length(known, defer).map_err(|error| error.field().unwrap().to_owned());
            assert_eq!(read, expected.map_err(str::to_owned), "{known:?} {defer:?}");
        }
    }

    #[test]
    fn metadata_is_pairs_of_text() {
        let owned = |pairs: &[(&'static str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
            Some(pairs)
        };
        for (text, expected) in [
            ("", owned(&[])),
            ("  ", owned(&[])),
            ("filename d29ybGQ=", owned(&[("filename", "world")])),
            ("filename d29ybGQ", owned(&[("filename", "world")])),
            ("is_private", owned(&[("is_private", "")])),
            ("is_private ", owned(&[("is_private", "")])),
            ("a YQ==,b Yg==", owned(&[("a", "a"), ("b", "b")])),
            ("a YQ==, b Yg== ,c", owned(&[("a", "a"), ("b", "b"), ("c", "")])),
            ("a YQ==,A Yg==", owned(&[("a", "a"), ("A", "b")])),
            ("name w7w=", owned(&[("name", "ü")])),
            (",", None),
            ("a YQ==,", None),
            (",a YQ==", None),
            ("a YQ==,a Yg==", None),
            ("a YQ== Yg==", None),
            ("a !!!!", None),
            ("a YQ=,b YQ", owned(&[("a", "a"), ("b", "a")])),
            ("a YR==", None),
            ("a  YQ==", None),
            ("a\tYQ==", None),
            ("a _-__", None),
            ("a gA==", None),
            ("a DQo=", None),
            ("a AA==", None),
        ] {
            assert_eq!(metadata(text).ok(), expected, "{text:?}");
        }
        assert_eq!(field(metadata("a !")), "Upload-Metadata");
    }

    #[test]
    fn checksums_have_a_known_name_and_its_length() {
        for (text, expected) in [
            (
                "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
                Some("sha1:2aae6c35c94fcfb415dbe95f408b9ce91ee846ed"),
            ),
            ("crc32c AAAAAQ==", Some("crc32c:00000001")),
            ("crc32 AAAAAQ", Some("crc32:00000001")),
            (
                "md5 1B2M2Y8AsgTpgAmY7PhCfg==",
                Some("md5:d41d8cd98f00b204e9800998ecf8427e"),
            ),
            ("", None),
            ("sha1", None),
            ("sha1 ", None),
            ("sha1  Kq5sNclPz7QV2+lfQIuc6R7oRu0=", None),
            ("SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", None),
            ("sha-1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", None),
            ("sha1 AAAA", None),
            ("sha1 !", None),
            ("crc64nvme AAAAAAAAAAA=", None),
            ("sha3 AAAA", None),
            (" AAAA", None),
        ] {
            let read = checksum(text).ok().map(|digest| digest.to_string());
            assert_eq!(read.as_deref(), expected, "{text:?}");
        }
        for algorithm in ALGORITHMS {
            let zeros = STANDARD_PAD_INDIFFERENT.encode(vec![0; algorithm.len()]);
            assert!(checksum(&format!("{algorithm} {zeros}")).is_ok(), "{algorithm}");
        }
    }

    #[test]
    fn a_concatenation_names_its_uploads() {
        let many = format!("final;{}", "/a ".repeat(MAX_PARTIALS + 1));
        let most = format!("final;{}", "/a ".repeat(MAX_PARTIALS));
        for (text, expected) in [
            ("partial", Some(Concat::Partial)),
            (
                "final;/files/a /files/b",
                Some(Concat::Final(vec!["/files/a", "/files/b"])),
            ),
            (
                "final; /files/a  /files/a",
                Some(Concat::Final(vec!["/files/a", "/files/a"])),
            ),
            ("final;https://a/b", Some(Concat::Final(vec!["https://a/b"]))),
            (&most, Some(Concat::Final(vec!["/a"; MAX_PARTIALS]))),
            (&many, None),
            ("final;", None),
            ("final; ", None),
            ("final", None),
            ("final /files/a", None),
            ("Partial", None),
            ("partial;", None),
            ("", None),
        ] {
            assert_eq!(concat(text).ok(), expected, "{text:.40}");
        }
    }

    #[test]
    fn what_is_sent_twice_is_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(one(&headers, "upload-offset").unwrap(), None);
        headers.append("upload-offset", "1".parse().unwrap());
        assert_eq!(one(&headers, "upload-offset").unwrap(), Some("1"));
        headers.append("upload-offset", "1".parse().unwrap());
        assert_eq!(field(one(&headers, "upload-offset")), "upload-offset");
        headers.insert("upload-offset", http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(field(one(&headers, "upload-offset")), "upload-offset");
    }

    #[test]
    fn the_type_alone_counts() {
        for (text, expected) in [
            ("application/offset+octet-stream", true),
            ("Application/Offset+Octet-Stream", true),
            ("application/offset+octet-stream; charset=utf-8", true),
            ("application/octet-stream", false),
            ("application/offset+octet-streams", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, text.parse().unwrap())]);
            assert_eq!(is_offset_stream(&headers), expected, "{text}");
        }
        assert!(!is_offset_stream(&HeaderMap::new()));
    }

    #[test]
    fn trailers_are_announced_in_a_list() {
        for (text, expected) in [
            ("Upload-Checksum", true),
            ("x-other, upload-checksum", true),
            ("Upload-Checksums", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(http::header::TRAILER, text.parse().unwrap())]);
            assert_eq!(announces_checksum(&headers), expected, "{text}");
        }
    }
}
