//! `Content-Digest` (RFC 9530) and `Content-MD5` (RFC 1864).

use base64::{Engine as _, engine::general_purpose::STANDARD_PAD_INDIFFERENT};
use http::HeaderMap;

use crate::{
    error::{Error, Result},
    upload::{Algorithm, Digest},
};

/// The strongest digest that the headers give, of those whose algorithm is known.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Digest>> {
    let mut strongest = None;
    let mut lines = headers.get_all("content-digest").iter().peekable();
    if lines.peek().is_some() {
        let lines: Option<Vec<&str>> = lines.map(|line| line.to_str().ok()).collect();
        strongest = parse(&lines.ok_or_else(malformed)?.join(","))?;
    }
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

/// Parses the dictionary of a `Content-Digest`: `sha-256=:BASE64:, md5=:BASE64:`.
pub(super) fn parse(text: &str) -> Result<Option<Digest>> {
    let mut known: Vec<Digest> = Vec::new();
    for member in text.split(',').map(trim) {
        let (name, value) = member.split_once('=').ok_or_else(malformed)?;
        if !is_key(name) {
            return Err(malformed());
        }
        let bytes = byte_sequence(value).ok_or_else(malformed)?;
        if let Some(algorithm) = algorithm(name) {
            let digest = Digest::new(algorithm, bytes)
                .map_err(|error| Error::invalid("Content-Digest", error.message().to_owned()))?;
            known.retain(|other| other.algorithm() != algorithm); // of one key given twice the last counts: RFC 9651
            known.push(digest);
        }
    }
    Ok(known.into_iter().max_by_key(|digest| strength(digest.algorithm())))
}

fn malformed() -> Error {
    Error::invalid(
        "Content-Digest",
        "Content-Digest is written ALGORITHM=:BASE64:, as in RFC 9530",
    )
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn is_key(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte))
}

/// `:BASE64:`, and parameters after it, which mean nothing here.
fn byte_sequence(value: &str) -> Option<Vec<u8>> {
    let (base64, rest) = value.strip_prefix(':')?.split_once(':')?;
    let parameters = trim(rest);
    (parameters.is_empty() || parameters.starts_with(';')).then(|| STANDARD_PAD_INDIFFERENT.decode(base64).ok())?
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
        let name = |text: &str| parse(text).unwrap().map(|digest| digest.algorithm());
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
            parse("crc32c=:AAAAAA==:, crc32c=:AAAAAQ==:")
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
            assert_eq!(parse(text).unwrap_err().field(), Some("Content-Digest"), "{text}");
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
}
