//! Signatures by Standard Webhooks: HMAC-SHA-256 over ID.TIMESTAMP.BODY.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{
    engine::{Clock as _, SystemClock},
    error::{Error, ErrorKind, Result},
    upload::Timestamp,
};

const VERSION: &str = "v1,";
const PREFIX: &str = "whsec_";
/// The clocks of a sender and a receiver may differ by so much, the way of the request included.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// What a sender and its receiver share: 24 to 64 random bytes.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// Reads `whsec_` and base64; the prefix may be missing.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), without the text.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let bytes = STANDARD
            .decode(text.strip_prefix(PREFIX).unwrap_or(text))
            .map_err(|_| wrong_secret())?;
        Self::from_bytes(&bytes)
    }

    /// A secret of these bytes.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) unless there are 24 to 64.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if !(24..=64).contains(&bytes.len()) {
            return Err(wrong_secret());
        }
        Hmac::new_from_slice(bytes).map(Self).map_err(|_| wrong_secret())
    }

    fn over(&self, id: &str, timestamp: u64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(id.as_bytes());
        mac.update(format!(".{timestamp}.").as_bytes());
        mac.update(body);
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn wrong_secret() -> Error {
    let message = "A webhook's secret is whsec_ and the base64 of 24 to 64 random bytes";
    Error::invalid("secret", message)
}

/// The value of `webhook-signature`: one signature for each secret.
pub(super) fn header(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let signatures = secrets.iter().map(|secret| {
        let mac = secret.over(id, timestamp, body).finalize().into_bytes();
        format!("{VERSION}{}", STANDARD.encode(mac))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

/// For receivers: whether a request was signed with one of `secrets`, at most `tolerance` ago ([`TOLERANCE`] suits most). `header`
/// finds a header by its name in lower case; `body` is as it came, before anything parsed it. Answers the event's id: who has seen
/// it before leaves the event aside.
///
/// Takes as long for a signature that is nearly right as for any other.
///
/// ```
/// # use tower_upload::{Result, hook::webhook::{Secret, TOLERANCE, verify}};
/// # fn example(headers: &::http::HeaderMap, body: &[u8]) -> Result<()> {
/// let secrets = [Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?];
/// let id = verify(&secrets, |name| headers.get(name)?.to_str().ok(), body, TOLERANCE)?;
/// # let _ = id; Ok(()) }
/// ```
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid) if a header is missing or cannot be read, [`Forbidden`](ErrorKind::Forbidden) if the signature is
/// of another secret or request, or too old.
pub fn verify<'a>(
    secrets: &[Secret],
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
    tolerance: Duration,
) -> Result<&'a str> {
    verify_at(SystemClock::new().now(), secrets, header, body, tolerance)
}

fn verify_at<'a>(
    now: Timestamp,
    secrets: &[Secret],
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
    tolerance: Duration,
) -> Result<&'a str> {
    let find = |name: &'static str| {
        let missing = || Error::invalid(name, format!("The header {name} is missing"));
        header(name).filter(|value| !value.is_empty()).ok_or_else(missing)
    };
    let (id, timestamp, signatures) = (
        find("webhook-id")?,
        find("webhook-timestamp")?,
        find("webhook-signature")?,
    );
    // As it was signed: "+1" and "01" are other texts.
    let seconds: u64 = timestamp
        .parse()
        .ok()
        .filter(|seconds: &u64| seconds.to_string() == timestamp)
        .ok_or_else(|| Error::invalid("webhook-timestamp", "webhook-timestamp is in whole seconds since 1970"))?;
    let candidates: Vec<_> = signatures
        .split(' ')
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix(VERSION)?).ok())
        .collect();
    let mut is_signed = false;
    for secret in secrets {
        let mac = secret.over(id, seconds, body);
        for candidate in &candidates {
            is_signed |= mac.clone().verify_slice(candidate).is_ok();
        }
    }
    if !is_signed {
        let message = "The signature is not one of this request by a known secret";
        return Err(Error::new(ErrorKind::Forbidden, message));
    }
    if (now.as_millis() / 1000).abs_diff(seconds) > tolerance.as_secs() {
        let message = "The request was signed too long ago, or the clocks differ";
        return Err(Error::new(ErrorKind::Forbidden, message));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    /// Computed by Python's `hmac`; the same as in the convention's own libraries.
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret() -> Secret {
        Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()
    }

    fn other() -> Secret {
        Secret::from_bytes(&[7; 32]).unwrap()
    }

    fn check(now: u64, secrets: &[Secret], timestamp: &str, signature: &str, body: &[u8]) -> Result<()> {
        let header = |name: &str| match name {
            "webhook-id" => Some(ID),
            "webhook-timestamp" => Some(timestamp),
            "webhook-signature" => Some(signature),
            _ => None,
        };
        // The headers live as long as the test: what is answered is one of them.
        let now = Timestamp::from_millis(now * 1000);
        verify_at(now, secrets, header, body, TOLERANCE).map(|id| assert_eq!(id, ID))
    }

    #[test]
    fn signs_as_others_do() {
        assert_eq!(header(&[secret()], ID, AT, BODY), SIGNATURE);
        let both = header(&[other(), secret()], ID, AT, BODY);
        assert_eq!(both.split(' ').count(), 2);
        assert!(both.ends_with(SIGNATURE));
    }

    #[test]
    fn knows_its_own_and_no_other() {
        let at = AT.to_string();
        let ok = |secrets: &[Secret], signature: &str| check(AT, secrets, &at, signature, BODY).is_ok();
        assert!(ok(&[secret()], SIGNATURE));
        assert!(ok(&[other(), secret()], SIGNATURE));
        assert!(ok(&[secret()], &format!("v1a,abc v1,AAAA v2,!!! {SIGNATURE} v1,zzzz")));
        assert!(!ok(&[other()], SIGNATURE));
        assert!(!ok(&[], SIGNATURE));
        for signature in [
            " ",
            "v1,",
            "v1",
            &SIGNATURE[3..],
            &SIGNATURE.replace("v1", "v2"),
            &SIGNATURE[..SIGNATURE.len() - 2],
            &SIGNATURE.replace("g0", "h0"),
        ] {
            assert!(!ok(&[secret()], signature), "{signature:?}");
        }
        let refused =
            |timestamp: &str, body: &[u8]| check(AT, &[secret()], timestamp, SIGNATURE, body).unwrap_err().kind();
        assert_eq!(refused(&at, b"{}"), ErrorKind::Forbidden);
        assert_eq!(refused(&(AT + 1).to_string(), BODY), ErrorKind::Forbidden);
        for timestamp in ["", "x", "+1614265330", "01614265330", "1614265330.0", "-1"] {
            assert_eq!(refused(timestamp, BODY), ErrorKind::Invalid, "{timestamp:?}");
        }
    }

    #[test]
    fn what_is_old_or_of_the_future_is_refused() {
        let at = AT.to_string();
        for (now, is_ok) in [(AT - 300, true), (AT + 300, true), (AT - 301, false), (AT + 301, false)] {
            assert_eq!(check(now, &[secret()], &at, SIGNATURE, BODY).is_ok(), is_ok, "{now}");
        }
    }

    #[test]
    fn secrets_are_long_enough_and_not_shown() {
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "whsec_***", "secret"] {
            let error = Secret::parse(text).unwrap_err();
            assert_eq!(error.field(), Some("secret"), "{text}");
        }
        assert!(Secret::from_bytes(&[1; 65]).is_err());
        assert_eq!(format!("{:?}", secret()), "Secret(..)");
    }
}
