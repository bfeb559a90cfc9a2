//! Numbers as they come over the wire: decimal digits and nothing else.

use crate::error::{Error, Result};

/// The number that `text` is, without sign, space or overflow.
pub(super) fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

/// The same, of the field `name`.
pub(super) fn field_u64(name: &'static str, text: &str) -> Result<u64> {
    digits(text).ok_or_else(|| out_of_range(name, u64::MAX))
}

/// The same, up to `u32::MAX`.
pub(super) fn field_u32(name: &'static str, text: &str) -> Result<u32> {
    let number = digits(text).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| out_of_range(name, u32::MAX.into()))
}

pub(super) fn out_of_range(name: &'static str, max: u64) -> Error {
    Error::invalid(name, format!("{name} must be a whole number from 0 to {max}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_digits_are_numbers() {
        for (text, number) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("1e3", None),
            ("0x1", None),
            ("١", None),
        ] {
            assert_eq!(digits(text), number, "{text:?}");
        }
        assert_eq!(field_u32("chunkIndex", "4294967295").unwrap(), u32::MAX);
        assert_eq!(
            field_u32("chunkIndex", "4294967296").unwrap_err().field(),
            Some("chunkIndex")
        );
    }
}
