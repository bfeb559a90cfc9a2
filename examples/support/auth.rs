//! Bearer tokens: who sends a request.

use std::{fmt, sync::Arc};

use http::{Request, header::AUTHORIZATION, request::Parts};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use tower_upload::Caller;

/// Who sent the request, in its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: Arc<str>,
}

impl User {
    /// What the upload service asks of every request.
    pub fn caller(request: &Parts) -> Option<Caller> {
        request.extensions.get::<Self>().map(|user| Caller::new(&user.id))
    }
}

/// The tokens that are valid, as digests.
#[derive(Clone)]
pub struct Tokens(Arc<Known>);

enum Known {
    /// No tokens: everybody is one user.
    Anybody,
    Users(Vec<([u8; 32], User)>),
}

impl Tokens {
    /// If none is given, one is made, and answered so that it can be shown.
    pub fn new(given: &[(String, String)], anonymous: bool) -> Result<(Self, Option<String>), getrandom::Error> {
        let user = |(token, id): &(String, String)| (digest(token.as_bytes()), User { id: id.as_str().into() });
        if anonymous {
            return Ok((Self(Arc::new(Known::Anybody)), None));
        }
        if !given.is_empty() {
            return Ok((Self(Arc::new(Known::Users(given.iter().map(user).collect()))), None));
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let demo = user(&(token.clone(), "demo".to_owned()));
        Ok((Self(Arc::new(Known::Users(vec![demo]))), Some(token)))
    }

    /// Puts the [`User`] into the request's extensions, if its token is valid.
    pub fn identify<B>(&self, mut request: Request<B>) -> Request<B> {
        if let Some(user) = self.user(&request) {
            request.extensions_mut().insert(user);
        }
        request
    }

    fn user<B>(&self, request: &Request<B>) -> Option<User> {
        let users = match &*self.0 {
            Known::Anybody => return Some(User { id: "anonymous".into() }),
            Known::Users(users) => users,
        };
        let value = request.headers().get(AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        // All are compared, each in constant time: how long it takes tells nothing of a token.
        let sent = digest(token.trim_ascii());
        let mut found = u32::MAX;
        for (place, (known, _)) in (0..).zip(users) {
            let same: Choice = known.ct_eq(&sent);
            found.conditional_assign(&place, same);
        }
        users.get(usize::try_from(found).ok()?).map(|(_, user)| user.clone())
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}
