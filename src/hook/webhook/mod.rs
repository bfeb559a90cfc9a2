//! Events told to a receiver over HTTPS, signed so that it knows who tells them: [`Webhook`].
//!
//! Each event is one `POST` by the convention of [Standard Webhooks](https://www.standardwebhooks.com):
//!
//! ```text
//! POST /hooks HTTP/1.1
//! content-type: application/json
//! webhook-id: tWmHkWcYdZ2yFX0hLRmUMA-1           the event's id: the same whenever it is told again
//! webhook-timestamp: 1767225600                  when it was sent, in seconds since 1970
//! webhook-signature: v1,K5oZfzN95Z9UVu1E…        base64 of HMAC-SHA-256 over ID.TIMESTAMP.BODY, one for each secret
//!
//! {"type":"upload.assembled","data":{"upload":"tWmHkWcYdZ2yFX0hLRmUMA","number":1,"owner":"alice","target":null,
//!  "file_name":"talk.mp4","key":"videos/originals/talk.mp4","size":73400320}}
//! ```
//!
//! `type` is `upload.` and the [kind](EventKind); `number` counts the events of one upload. `hook` names the hook in an event that
//! speaks of one.
//!
//! # What an answer means
//! | answer | |
//! | --- | --- |
//! | 2xx | the event was told |
//! | 410 | the receiver wants no more: a [dead letter](crate::Uploads::dead_letters) at once |
//! | any other; none in time; no connection | told again later, with a growing delay, and in the end a dead letter |
//!
//! Other 4xx are tried again on purpose: they are what a receiver answers while its new release or its new secret is on the way.
//! Redirects are not followed, and bodies of answers not read. An event can come twice, and then has the same id; receivers keep the
//! ids they have seen.
//!
//! A receiver that is busy answers 429 or 503 with `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3): it is then told no
//! event of this upload before that, for an hour at most. The same goes for any other answer that is told again later.
//! It never shortens the delay; a value that is neither is as good as none.
//!
//! # Where it goes
//! A URL that a customer may choose must not reach into the network that the server stands in. So this resolves the name
//! itself, leaves out every address that is not a public one (loopback, private, link-local, shared, multicast, documentation, what
//! clouds serve their metadata at, and IPv6 forms that carry such an IPv4 address), and connects to what is left, with no second look
//! at the name. Proxies that environment variables name are not used. An IPv6 network that translates to IPv4 under a prefix of
//! its own (NAT64 other than `64:ff9b::/96`) has to keep its translator from private addresses itself.

mod address;
mod retry_after;
mod send;
mod sign;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::Uri;
use serde::Serialize;

pub use self::sign::{Secret, TOLERANCE, verify};
use self::{retry_after::retry_after, send::Receiver};
use super::{Hook, Telling};
use crate::{
    engine::{Clock as _, SystemClock},
    error::{Error, ErrorKind, Result},
    observe,
    upload::{Event, EventKind, FileName, Key, Owner, Target, UploadId},
};

/// What is over a request's own bound before the engine gives a telling up.
const SLACK: Duration = Duration::from_secs(5);

/// Tells events to a receiver over HTTPS. See [the module](self) for what is sent, and where to.
///
/// ```
/// # async fn example() -> tower_upload::Result<()> {
/// use tower_upload::{Uploads, access::OwnerOnly, blob::MemoryBlobs, hook::webhook::{Secret, Webhook}, metadata::MemoryMetadata};
///
/// let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
/// let webhook = Webhook::to("https://hooks.example.com/uploads", secret).named("billing").build()?;
/// let uploads = Uploads::with(MemoryBlobs::new(), MemoryMetadata::new())
///     .authorizer(OwnerOnly)
///     .hook(webhook)
///     .build()
///     .await?;
/// # drop(uploads); Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Webhook {
    name: Arc<str>,
    secrets: Vec<Secret>,
    kinds: Option<Arc<[EventKind]>>,
    timeout: Duration,
    receiver: Receiver,
}

impl Webhook {
    /// One that tells `url`, `https://HOST[:PORT][/PATH][?QUERY]`, and signs with `secret`.
    pub fn to(url: impl Into<String>, secret: Secret) -> WebhookBuilder {
        WebhookBuilder {
            name: "webhook".into(),
            url: url.into(),
            secrets: vec![secret],
            kinds: None,
            timeout: Duration::from_secs(15),
            roots: Vec::new(),
            allow_private: false,
            allow_http: false,
        }
    }

    async fn tell(&self, event: &Event) -> Result<()> {
        let id = event.id.to_string();
        let body = serde_json::to_vec(&Payload::of(event))
            .map_err(|error| Error::internal("An event could not be written as JSON").with_source(error))?;
        let timestamp = SystemClock::new().now().as_millis() / 1000;
        let signature = sign::header(&self.secrets, &id, timestamp, &body);
        let sent = self.receiver.post(&id, timestamp, &signature, body);
        let sent = tokio::time::timeout(self.timeout, sent).await;
        let answer = sent.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs_f32();
            Err(Error::unavailable(format!(
                "{} did not answer within {seconds} s",
                self.receiver.host()
            )))
        });
        observe::webhook(&self.name, answer.as_ref().ok().map(|answer| answer.status.as_u16()));
        let answer = answer?;
        let host = self.receiver.host();
        let failed = match answer.status.as_u16() {
            200..=299 => return Ok(()),
            410 => {
                let message = format!("{host} wants no more events: it answered 410");
                return Err(Error::new(ErrorKind::Failed, message));
            }
            code @ 300..=399 => {
                format!("{host} answered {code}, and redirects are not followed: give the URL that it leads to")
            }
            code => format!("{host} answered {code}"),
        };
        let error = Error::unavailable(failed);
        Err(match retry_after(&answer.headers, SystemClock::new().now()) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        })
    }
}

#[async_trait]
impl Hook for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, kind: EventKind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    fn time_limit(&self) -> Duration {
        self.timeout + SLACK
    }

    async fn on_event(&self, event: &Event, _: &Telling) -> Result<()> {
        self.tell(event).await
    }
}

/// Makes a [`Webhook`].
#[derive(Clone)]
#[must_use]
pub struct WebhookBuilder {
    name: Arc<str>,
    url: String,
    secrets: Vec<Secret>,
    kinds: Option<Arc<[EventKind]>>,
    timeout: Duration,
    roots: Vec<Vec<u8>>,
    allow_private: bool,
    allow_http: bool,
}

/// Without the URL, whose path and query may be secret.
impl fmt::Debug for WebhookBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookBuilder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl WebhookBuilder {
    /// The [name](Hook::name) of the hook: `webhook` unless said otherwise.
    pub fn named(mut self, name: impl AsRef<str>) -> Self {
        self.name = name.as_ref().into();
        self
    }

    /// Signs with this secret too, so that receivers can change from one to the other: add the new one here, have them
    /// use it, then leave the old one out.
    pub fn also_signed_with(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Tells events of these kinds alone. All unless said otherwise.
    pub fn only(mut self, kinds: impl IntoIterator<Item = EventKind>) -> Self {
        self.kinds = Some(kinds.into_iter().collect());
        self
    }

    /// How long one attempt may take, from the look-up of the name to the head of the answer: 15 seconds unless said
    /// otherwise.
    pub const fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// Believes the authorities in this PEM file too, besides those of the system.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// Lets it reach private addresses and this machine itself. Only for URLs that no customer chooses.
    pub const fn allow_private(mut self) -> Self {
        self.allow_private = true;
        self
    }

    /// Lets the URL be `http://`: whoever is on the way reads the events.
    pub const fn allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// The hook.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a URL that is none or may not be told, or a PEM file without certificates;
    /// [`Unavailable`](ErrorKind::Unavailable) if the system's authorities cannot be read.
    pub fn build(self) -> Result<Webhook> {
        // The text is not repeated: its path and query may be secret.
        let no_url = || Error::invalid("url", "A webhook's URL is https://HOST[:PORT][/PATH][?QUERY]");
        let url: Uri = self.url.parse().map_err(|_| no_url())?;
        let is_https = match url.scheme_str() {
            Some("https") => true,
            Some("http") if self.allow_http => false,
            Some("http") => {
                let message = "A webhook's URL begins with https://, unless http is allowed";
                return Err(Error::invalid("url", message));
            }
            _ => return Err(no_url()),
        };
        if url.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            let message = "A webhook's URL holds no user name or password: its events are signed";
            return Err(Error::invalid("url", message));
        }
        Ok(Webhook {
            name: self.name,
            secrets: self.secrets,
            kinds: self.kinds,
            timeout: self.timeout,
            receiver: Receiver::new(&url, is_https, self.allow_private, &self.roots)?,
        })
    }
}

#[derive(Serialize)]
struct Payload<'a> {
    r#type: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    upload: UploadId,
    number: u32,
    owner: &'a Owner,
    target: Option<&'a Target>,
    file_name: &'a FileName,
    key: &'a Key,
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'a str>,
}

impl<'a> Payload<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            r#type: format!("upload.{}", event.kind),
            data: Data {
                upload: event.upload_id(),
                number: event.id.number(),
                owner: &event.owner,
                target: event.target.as_ref(),
                file_name: &event.file_name,
                key: &event.key,
                size: event.size,
                hook: event.hook.as_deref(),
            },
        }
    }
}
