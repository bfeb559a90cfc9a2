use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A checksum algorithm a client can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Algorithm {
    /// MD5, RFC 1321.
    Md5,
    /// SHA-1, FIPS 180-4.
    Sha1,
    /// SHA-256, FIPS 180-4.
    Sha256,
    /// SHA-512, FIPS 180-4.
    Sha512,
    /// CRC-32 as in ISO-HDLC (zip, PNG), big-endian.
    Crc32,
    /// CRC-32C (Castagnoli), RFC 3720, big-endian.
    Crc32c,
    /// CRC-64/NVME, big-endian.
    Crc64Nvme,
    /// BLAKE3, 32 bytes.
    Blake3,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Blake3,
    ];

    /// The name as in `sha256:HEX`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
            Self::Crc64Nvme => "crc64nvme",
            Self::Blake3 => "blake3",
        }
    }

    /// The digest's length in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
        }
    }

    /// Never: every algorithm yields bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    /// Takes the names with and without the dash: `sha-256`, `sha256`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let name = text.to_ascii_lowercase().replace('-', "");
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                Error::invalid(
                    "checksum",
                    format!("The checksum algorithm is not known; known are {names}"),
                )
            })
    }
}

/// A checksum with its algorithm, shown as `sha256:HEX`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

impl Digest {
    /// A digest of these bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the length is not the algorithm's.
    pub fn new(algorithm: Algorithm, bytes: impl Into<Box<[u8]>>) -> Result<Self, Error> {
        let bytes = bytes.into();
        if bytes.len() == algorithm.len() {
            Ok(Self { algorithm, bytes })
        } else {
            Err(Error::invalid(
                "checksum",
                format!("A {algorithm} checksum has {} bytes", algorithm.len()),
            ))
        }
    }

    /// The CRC-64/NVME that the crate computes of everything it takes in.
    #[must_use]
    pub fn crc64(value: u64) -> Self {
        Self {
            algorithm: Algorithm::Crc64Nvme,
            bytes: value.to_be_bytes().into(),
        }
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The bytes, big-endian for the CRCs.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm)?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Parses `ALGORITHM:HEX`.
impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::invalid("checksum", "A checksum is written ALGORITHM:HEX, as in sha256:0f3a…");
        let (name, hex) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm: Algorithm = name.parse()?;
        if hex.len() != algorithm.len() * 2 || !hex.is_ascii() {
            return Err(malformed());
        }
        let bytes: Option<Box<[u8]>> = hex
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| {
                let high = char::from(pair[0]).to_digit(16)?;
                let low = char::from(pair[1]).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()
            })
            .collect();
        Self::new(algorithm, bytes.ok_or_else(malformed)?)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in [
            "md5:00112233445566778899aabbccddeeff",
            "crc32c:0a0b0c0d",
            "crc64nvme:0102030405060708",
        ] {
            assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        }
        assert_eq!("SHA-256".parse::<Algorithm>().unwrap(), Algorithm::Sha256);
    }

    #[test]
    fn refuses_what_is_no_digest() {
        for text in [
            "",
            "md5",
            "md5:",
            "md5:00",
            "nope:00",
            "crc32c:0a0b0c0",
            "crc32c:0a0b0c0g",
            "crc32c:+a0b0c0d",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
