//! Tickets: a video element cannot send a bearer token, so it gets an address that works for ten minutes.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

pub const LIFETIME: Duration = Duration::from_secs(600);

/// The length of a key, in bytes.
pub const KEY: usize = 64;

/// Issues tickets, and knows again those of its key.
#[derive(Clone)]
pub struct Tickets(Arc<[u8; KEY]>);

impl Tickets {
    pub fn new(key: [u8; KEY]) -> Self {
        Self(Arc::new(key))
    }

    /// `VIDEO.OWNER.EXPIRY` is what is signed; the ticket is `EXPIRY.SIGNATURE`.
    pub fn issue(&self, video: u64, owner: &str, now: SystemTime) -> String {
        let expiry = seconds(now + LIFETIME);
        let signature = self.mac(video, owner, expiry).finalize().into_bytes();
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{expiry}.{hex}")
    }

    pub fn is_valid(&self, ticket: &str, video: u64, owner: &str, now: SystemTime) -> bool {
        let Some((expiry, signature)) = ticket.split_once('.') else {
            return false;
        };
        let (Ok(expiry), Some(signature)) = (expiry.parse(), unhex(signature)) else {
            return false;
        };
        // Compares in constant time.
        self.mac(video, owner, expiry).verify_slice(&signature).is_ok() && seconds(now) < expiry
    }

    fn mac(&self, video: u64, owner: &str, expiry: u64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new((&*self.0).into());
        mac.update(format!("{video}.{owner}.{expiry}").as_bytes());
        mac
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let plain = text.len() == 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    plain.then(|| (0..text.len()).step_by(2).map(byte).collect::<Option<_>>())?
}
