//! Addresses that let whoever has them read one file, for a while.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{
    access::Caller,
    engine::{Clock, SystemClock},
    error::{Error, ErrorKind, Result},
    http::number::digits,
    upload::UploadId,
};

/// Makes and checks addresses that need no sign-in and expire: for [`FileService::signed`](super::FileService::signed).
///
/// Who has such an address can read what it is for until it expires, by GET and HEAD, and nothing else: a `<video>` element,
/// a player or a download manager, which send no token. The address says in whose name it was made. A
/// signature stands for that caller's sign-in and for nothing more: the [`Authorizer`](crate::Authorizer) is asked at each
/// request whether this caller may read the upload, as if they had sent it themselves. So an address never gives more than whoever
/// it was made for has, and is worth nothing once they lose it, or the file is deleted.
///
/// ```
/// # fn f(uploads: tower_upload::Uploads, caller: tower_upload::Caller, id: tower_upload::UploadId) -> tower_upload::Result<()> {
/// use std::time::Duration;
/// use tower_upload::http::UrlSigner;
///
/// let signer = UrlSigner::new(b"32 random bytes of your own, say.")?;
/// let files = uploads.files(|_| None).signed(signer.clone()); // nested at /media, say
/// let url = format!("/media{}", signer.file(&caller, id, Duration::from_secs(600)));
/// # Ok(()) }
/// ```
///
/// The address is `/s/{expires}.{caller}.{signature}/{id}`: `expires` in Unix seconds, `caller` in base64url, and an
/// HMAC-SHA-256 of both, of the id and of what may be read. It is part of the path, so that what a playlist names relative to
/// itself is covered too. Nothing in it is secret, but whoever reads it can use it, and reads the caller's id in it: keep it out of
/// logs (a trace of request paths has it), and give callers ids that may be seen.
#[derive(Clone)]
pub struct UrlSigner {
    /// The first one signs.
    keys: Vec<Hmac<Sha256>>,
    clock: Arc<dyn Clock>,
}

/// What an address is for. What is signed says it, so that none does for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The file itself.
    File,
    /// All that was made of it as an HLS stream.
    Hls,
}

/// What a valid signature says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) caller: Caller,
    /// How long it is valid yet; at least a second.
    pub(super) left: Duration,
}

impl UrlSigner {
    /// The shortest key, in bytes: as many as a signature has.
    pub const MIN_KEY: usize = 32;

    /// Signs with `key`, which was drawn at random and is the same on every node.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a key that is shorter than [`MIN_KEY`](Self::MIN_KEY).
    pub fn new(key: impl AsRef<[u8]>) -> Result<Self> {
        Ok(Self {
            keys: vec![keyed(key.as_ref())?],
            clock: Arc::new(SystemClock::new()),
        })
    }

    /// Accepts what was signed with `key`, too. To change the key: accept the new one on every node, then sign with it and accept
    /// the old one, and drop the old one when what it signed has expired.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn accept(mut self, key: impl AsRef<[u8]>) -> Result<Self> {
        self.keys.push(keyed(key.as_ref())?);
        Ok(self)
    }

    /// The clock by which addresses expire; the machine's if not said.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The path, below where the service is mounted, at which the finished file is read in the name of `caller` for
    /// `lifetime`, cut to seconds.
    #[must_use]
    pub fn file(&self, caller: &Caller, id: UploadId, lifetime: Duration) -> String {
        let token = self.token(Scope::File, caller, id, lifetime);
        format!("/s/{token}/{id}")
    }

    /// The same for the HLS stream that was made of it: the path of its master playlist. One signature covers the
    /// playlists and segments that it leads to.
    #[must_use]
    pub fn hls(&self, caller: &Caller, id: UploadId, lifetime: Duration) -> String {
        let token = self.token(Scope::Hls, caller, id, lifetime);
        format!("/s/{token}/{id}/hls/master.m3u8")
    }

    fn token(&self, scope: Scope, caller: &Caller, id: UploadId, lifetime: Duration) -> String {
        let who = if caller.is_anonymous() {
            NOBODY.to_owned()
        } else {
            format!("{SOMEBODY}{}", URL_SAFE_NO_PAD.encode(caller.owner().as_str()))
        };
        let claims = format!("{}.{who}", self.now().saturating_add(lifetime.as_secs()));
        let signature = signed(&self.keys[0], scope, id, &claims).finalize().into_bytes();
        format!("{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What `token` says, if it was signed for this and is valid still.
    ///
    /// # Errors
    /// [`Forbidden`](ErrorKind::Forbidden), which says whether it is wrong or expired.
    pub(super) fn verify(&self, token: &str, scope: Scope, id: UploadId) -> Result<Signed> {
        let forged = || {
            let message = "The address was not made here, or not for this; ask for a new one";
            Error::new(ErrorKind::Forbidden, message)
        };
        let (claims, signature) = token.rsplit_once('.').ok_or_else(forged)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| forged())?;
        // Each is compared in constant time, and what was signed is looked at only then.
        let is_ours = |key: &Hmac<Sha256>| signed(key, scope, id, claims).verify_slice(&signature).is_ok();
        if !self.keys.iter().any(is_ours) {
            return Err(forged());
        }
        let (expires, who) = claims.split_once('.').ok_or_else(forged)?;
        let left = digits(expires).ok_or_else(forged)?.saturating_sub(self.now());
        if left == 0 {
            let message = "The address has expired; ask for a new one";
            return Err(Error::new(ErrorKind::Forbidden, message));
        }
        Ok(Signed {
            caller: caller(who).ok_or_else(forged)?,
            left: Duration::from_secs(left),
        })
    }

    /// Unix seconds.
    fn now(&self) -> u64 {
        self.clock.now().as_millis() / 1000
    }
}

const NOBODY: &str = "a";
const SOMEBODY: &str = "u";

fn caller(who: &str) -> Option<Caller> {
    if who == NOBODY {
        return Some(Caller::anonymous());
    }
    let id = URL_SAFE_NO_PAD.decode(who.strip_prefix(SOMEBODY)?).ok()?;
    Some(Caller::new(String::from_utf8(id).ok()?))
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>> {
    let short = || {
        let least = UrlSigner::MIN_KEY;
        Error::invalid(
            "key",
            format!("A key for signed addresses has at least {least} random bytes"),
        )
    };
    if key.len() < UrlSigner::MIN_KEY {
        return Err(short());
    }
    Hmac::new_from_slice(key).map_err(|_| short())
}

/// No part of it can be taken for another: each but the last has an alphabet without line ends.
fn signed(key: &Hmac<Sha256>, scope: Scope, id: UploadId, claims: &str) -> Hmac<Sha256> {
    let scope = match scope {
        Scope::File => "file",
        Scope::Hls => "hls",
    };
    let mut mac = key.clone();
    mac.update(format!("tower-upload address 1\nread {scope}\n{id}\n{claims}").as_bytes());
    mac
}

impl fmt::Debug for UrlSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlSigner")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::upload::Timestamp;

    const KEY: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];
    const TEN: Duration = Duration::from_secs(10);
    const ID: UploadId = UploadId::from_bytes([7; 16]);

    #[derive(Clone, Debug)]
    struct Hands(Arc<AtomicU64>);

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::SeqCst))
        }
    }

    fn signer(key: [u8; 32]) -> (UrlSigner, Hands) {
        let hands = Hands(Arc::new(AtomicU64::new(1_000_000)));
        (UrlSigner::new(key).unwrap().with_clock(hands.clone()), hands)
    }

    fn token(path: &str) -> &str {
        path.split('/').nth(2).unwrap()
    }

    #[test]
    fn an_address_says_who_and_how_long() {
        let (signer, hands) = signer(KEY);
        for caller in [
            Caller::new("ann"),
            Caller::new(""),
            Caller::anonymous(),
            Caller::new("ü.a\n"),
        ] {
            let path = signer.file(&caller, ID, TEN);
            assert!(path.ends_with(&format!("/{ID}")), "{path}");
            assert!(
                path.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte))
            );
            let signed = signer.verify(token(&path), Scope::File, ID).unwrap();
            assert_eq!(signed, Signed { caller, left: TEN });
        }
        let path = signer.hls(&Caller::new("ann"), ID, TEN);
        assert!(path.ends_with("/hls/master.m3u8"), "{path}");
        hands.0.store(1_009_999, Ordering::SeqCst);
        let signed = signer.verify(token(&path), Scope::Hls, ID).unwrap();
        assert_eq!(signed.left, Duration::from_secs(1));
        hands.0.store(1_010_000, Ordering::SeqCst);
        let expired = signer.verify(token(&path), Scope::Hls, ID).unwrap_err();
        assert_eq!(expired.kind(), ErrorKind::Forbidden);
        assert!(expired.message().contains("expired"), "{expired}");
        // It is said to be expired only if it ever was valid.
        let forged = signer.verify(token(&path), Scope::File, ID).unwrap_err();
        assert!(!forged.message().contains("expired"), "{forged}");
        let for_ever = signer.file(&Caller::anonymous(), ID, Duration::MAX);
        signer.verify(token(&for_ever), Scope::File, ID).unwrap();
    }

    #[test]
    fn what_was_not_signed_is_refused() {
        let (signer, _) = signer(KEY);
        let path = signer.file(&Caller::new("ann"), ID, TEN);
        let good = token(&path);
        let [expires, who, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
        let eve = format!("u{}", URL_SAFE_NO_PAD.encode("eve"));
        for forged in [
            format!("{}.{who}.{signature}", 999_999),
            format!("0{expires}.{who}.{signature}"),
            format!("+{expires}.{who}.{signature}"),
            format!("{expires}.{eve}.{signature}"),
            format!("{expires}.a.{signature}"),
            format!("{expires}.{who}."),
            format!("{expires}.{who}"),
            format!("{expires}{who}.{signature}"),
            format!(".{expires}.{who}.{signature}"),
            format!("{good}A"),
            format!("{good}="),
            good[..good.len() - 1].to_owned(),
            good.to_uppercase(),
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            format!("{expires}.{who}.{}", URL_SAFE_NO_PAD.encode([0; 32])),
            format!(
                "{expires}.{who}.{}",
                URL_SAFE_NO_PAD.encode(&URL_SAFE_NO_PAD.decode(signature).unwrap()[..16])
            ),
        ] {
            let refused = signer.verify(&forged, Scope::File, ID).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Forbidden, "{forged}");
        }
        signer.verify(good, Scope::File, ID).unwrap();
        signer.verify(good, Scope::Hls, ID).unwrap_err();
        signer
            .verify(good, Scope::File, UploadId::from_bytes([8; 16]))
            .unwrap_err();
    }

    #[test]
    fn a_key_can_be_changed() {
        let (old, _) = signer(KEY);
        let (new, _) = signer(OTHER);
        let path = old.file(&Caller::new("ann"), ID, TEN);
        new.verify(token(&path), Scope::File, ID).unwrap_err();
        let both = new.accept(KEY).unwrap();
        both.verify(token(&path), Scope::File, ID).unwrap();
        let path = both.file(&Caller::new("ann"), ID, TEN);
        old.verify(token(&path), Scope::File, ID).unwrap_err();
        old.accept(OTHER)
            .unwrap()
            .verify(token(&path), Scope::File, ID)
            .unwrap();
    }

    #[test]
    fn keys_are_long_and_shown_to_nobody() {
        assert_eq!(UrlSigner::new([1; 31]).unwrap_err().field(), Some("key"));
        assert!(signer(KEY).0.accept(b"").is_err());
        assert_eq!(format!("{:?}", signer(KEY).0), "UrlSigner { keys: 1, .. }");
    }
}
