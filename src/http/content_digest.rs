//! `Content-Digest`, `Repr-Digest` and `Want-Repr-Digest` (RFC 9530), and `Content-MD5` (RFC 1864).

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT},
};
use http::HeaderMap;

use super::structured::{Value, dictionary};
use crate::{
    error::{Error, Result},
    upload::{Algorithm, Digest},
};

/// The strongest digest of the body that the headers give, of those whose algorithm is known.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Digest>> {
    let mut strongest = named(headers, "Content-Digest")?;
    if strongest.is_none()
        && let Some(value) = headers.get("content-md5")
    {
        let bytes = value
            .to_str()
            .ok()
            .and_then(|text| STANDARD_PAD_INDIFFERENT.decode(text.trim()).ok());
        let invalid = || Error::invalid("Content-MD5", "Content-MD5 is 16 bytes in Base64");
        strongest = Some(Digest::new(Algorithm::Md5, bytes.ok_or_else(invalid)?).map_err(|_| invalid())?);
    }
    Ok(strongest)
}

/// The same of the whole file: `Repr-Digest`.
pub(super) fn of_whole(headers: &HeaderMap) -> Result<Option<Digest>> {
    named(headers, "Repr-Digest")
}

/// The algorithm that `Want-Repr-Digest` prefers, of those that can be told: `sha-256=10, md5=1`. What cannot be read asks
/// for nothing.
pub(super) fn wanted(headers: &HeaderMap) -> Option<Algorithm> {
    // Those whose state can be kept from one append to the next.
    let kept = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Sha1, Algorithm::Md5];
    let mut asked = preferences(headers)?;
    asked.retain(|(_, algorithm)| kept.contains(algorithm));
    let best = asked
        .into_iter()
        .max_by_key(|(weight, kind)| (*weight, strength(*kind)));
    best.map(|(_, kind)| kind)
}

/// Of the digests that are `known` the one that `Want-Repr-Digest` prefers.
pub(super) fn preferred<'a>(headers: &HeaderMap, known: &'a [Digest]) -> Option<&'a Digest> {
    let asked = preferences(headers)?;
    let weight = |digest: &Digest| {
        let asked = asked.iter().find(|(_, kind)| *kind == digest.algorithm());
        asked.map(|(weight, kind)| (*weight, strength(*kind)))
    };
    let known = known.iter().filter_map(|digest| Some((weight(digest)?, digest)));
    known.max_by_key(|(weight, _)| *weight).map(|(_, digest)| digest)
}

/// What `Want-Repr-Digest` asks for: weights of 1 to 10, and algorithms that are known. `None` if it is missing or cannot be read.
fn preferences(headers: &HeaderMap) -> Option<Vec<(i64, Algorithm)>> {
    let mut asked = Vec::new();
    for (name, value) in dictionary(&joined(headers, "Want-Repr-Digest")?)? {
        match (algorithm(&name), value) {
            (Some(kind), Value::Integer(weight @ 1..=10)) => asked.push((weight, kind)),
            (_, Value::Integer(_)) => {}
            _ => return None,
        }
    }
    Some(asked)
}

/// A digest as a member of these fields: `sha-256=:BASE64:`.
pub(super) fn written(digest: &Digest) -> String {
    let name = match digest.algorithm() {
        Algorithm::Sha1 => "sha",
        Algorithm::Sha256 => "sha-256",
        Algorithm::Sha512 => "sha-512",
        other => other.name(),
    };
    format!("{name}=:{}:", STANDARD.encode(digest.as_bytes()))
}

fn named(headers: &HeaderMap, field: &'static str) -> Result<Option<Digest>> {
    joined(headers, field).map_or(Ok(None), |text| parse(field, &text))
}

/// All lines of a list field as one.
fn joined(headers: &HeaderMap, field: &str) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(field).iter().map(http::HeaderValue::as_bytes).collect();
    (!lines.is_empty()).then(|| lines.join(&b','))
}

/// Parses a dictionary of digests: `sha-256=:BASE64:, md5=:BASE64:`.
pub(super) fn parse(field: &'static str, text: &[u8]) -> Result<Option<Digest>> {
    let malformed = || Error::invalid(field, format!("{field} is written ALGORITHM=:BASE64:, as in RFC 9530"));
    let members = dictionary(text).filter(|members| !members.is_empty());
    let mut known: Vec<Digest> = Vec::new();
    for (name, value) in members.ok_or_else(malformed)? {
        let Value::Bytes(bytes) = value else {
            return Err(malformed());
        };
        if let Some(algorithm) = algorithm(&name) {
            known.push(
                Digest::new(algorithm, bytes).map_err(|error| Error::invalid(field, error.message().to_owned()))?,
            );
        }
    }
    Ok(known.into_iter().max_by_key(|digest| strength(digest.algorithm())))
}

fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "sha" => Some(Algorithm::Sha1),
        name => name.parse().ok(),
    }
}

fn strength(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Sha512 => 7,
        Algorithm::Sha256 => 6,
        Algorithm::Blake3 => 5,
        Algorithm::Sha1 => 4,
        Algorithm::Md5 => 3,
        Algorithm::Crc64Nvme => 2,
        Algorithm::Crc32c => 1,
        Algorithm::Crc32 => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHA256: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    const MD5: &str = "1B2M2Y8AsgTpgAmY7PhCfg==";

    #[test]
    fn the_strongest_known_counts() {
        let name = |text: &str| {
            parse("Content-Digest", text.as_bytes())
                .unwrap()
                .map(|digest| digest.algorithm())
        };
        assert_eq!(name(SHA256), Some(Algorithm::Sha256));
        assert_eq!(
            name(&format!("md5=:{MD5}:, {SHA256} ,\tcrc32c=:AAAAAA==:")),
            Some(Algorithm::Sha256)
        );
        assert_eq!(name(&format!("{SHA256};x=1, unixsum=:AA==:")), Some(Algorithm::Sha256));
        assert_eq!(name("sha=:AAAAAAAAAAAAAAAAAAAAAAAAAAA=:"), Some(Algorithm::Sha1));
        assert_eq!(name("unixsum=:AA==:"), None);
        assert_eq!(name("crc32c=:AAAAAA==:, crc32c=:AAAAAQ==:"), Some(Algorithm::Crc32c));
        assert_eq!(
            parse("Content-Digest", b"crc32c=:AAAAAA==:, crc32c=:AAAAAQ==:")
                .unwrap()
                .unwrap()
                .as_bytes(),
            [0, 0, 0, 1]
        );
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            "",
            ",",
            "sha-256",
            "sha-256=",
            "sha-256=abc",
            "sha-256=:abc",
            "sha-256=:!:",
            "sha-256=:AAAA:",
            "SHA-256=:AAAA:",
            "=:AAAA:",
            "sha-256=:AAAA:x",
            "unixsum=1",
            &format!("{SHA256},"),
        ] {
            assert_eq!(
                parse("Content-Digest", text.as_bytes()).unwrap_err().field(),
                Some("Content-Digest"),
                "{text}"
            );
        }
    }

    #[test]
    fn content_md5_is_taken_too() {
        let mut headers = HeaderMap::new();
        headers.insert("content-md5", MD5.parse().unwrap());
        assert_eq!(
            of(&headers).unwrap().unwrap().to_string(),
            "md5:d41d8cd98f00b204e9800998ecf8427e"
        );
        headers.append("content-digest", SHA256.parse().unwrap());
        assert_eq!(of(&headers).unwrap().unwrap().algorithm(), Algorithm::Sha256);
        headers.remove("content-digest");
        headers.insert("content-md5", "AAAA".parse().unwrap());
        assert_eq!(of(&headers).unwrap_err().field(), Some("Content-MD5"));
    }

    #[test]
    fn a_digest_of_the_whole_is_asked_for_and_told() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("want-repr-digest", text.parse().unwrap());
            wanted(&headers)
        };
        for (text, algorithm) in [
            ("sha-256=1", Some(Algorithm::Sha256)),
            ("sha-256=1, sha-512=3, md5=10", Some(Algorithm::Md5)),
            ("sha-256=5, sha-512=5", Some(Algorithm::Sha512)),
            ("sha-256=0", None),
            ("sha-256=11", None),
            ("unixsum=10, sha-256=1", Some(Algorithm::Sha256)),
            ("blake3=10", None),
            ("sha-256", None),
            ("sha-256=", None),
            ("", None),
        ] {
            assert_eq!(asked(text), algorithm, "{text:?}");
        }
        for text in [
            SHA256,
            &format!("md5=:{MD5}:"),
            "sha=:AAAAAAAAAAAAAAAAAAAAAAAAAAA=:",
            "crc32c=:AAAAAQ==:",
        ] {
            let digest = parse("Repr-Digest", text.as_bytes()).unwrap().unwrap();
            assert_eq!(written(&digest), text);
        }
        assert_eq!(parse("Repr-Digest", b"x").unwrap_err().field(), Some("Repr-Digest"));
    }
}
