//! Webhooks against receivers on this machine: what is sent, what answers mean, and where nothing is ever sent.
#![allow(clippy::unwrap_used, missing_docs)]

mod receiver;

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use receiver::{Answer, Receiver, Request};
use serde_json::{Value, json};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};
use tower_upload::{
    Caller, Clock, ErrorKind, EventKind, NewUpload, Uploads,
    access::OwnerOnly,
    blob::MemoryBlobs,
    hook::webhook::{Secret, TOLERANCE, Webhook, WebhookBuilder, verify},
    metadata::MemoryMetadata,
    upload::{DeadLetter, Timestamp, UploadId},
};

/// A clock that is put forward by hand, so that what is told later is told at once.
#[derive(Debug, Default)]
struct Leaping(AtomicU64);

impl Clock for Leaping {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What outlives a process.
#[derive(Clone)]
struct Stores {
    clock: Arc<Leaping>,
    blobs: Arc<MemoryBlobs>,
    metadata: Arc<MemoryMetadata>,
}

impl Stores {
    fn new() -> Self {
        let clock = Arc::new(Leaping::default());
        Self {
            blobs: Arc::new(MemoryBlobs::new()),
            metadata: Arc::new(MemoryMetadata::with_clock(clock.clone())),
            clock,
        }
    }

    async fn open(&self, webhook: Webhook) -> Uploads {
        Uploads::with(self.blobs.clone(), self.metadata.clone())
            .authorizer(OwnerOnly)
            .hook(webhook)
            .hook_attempts(3)
            .without_driver()
            .build()
            .await
            .unwrap()
    }

    /// What is to be told later is due.
    async fn drive(&self, uploads: &Uploads) {
        self.clock.0.fetch_add(3_600_000, Ordering::SeqCst);
        uploads.drive().await.unwrap();
    }
}

fn secret(byte: u8) -> Secret {
    Secret::from_bytes(&[byte; 32]).unwrap()
}

fn local(receiver: &Receiver) -> WebhookBuilder {
    Webhook::to(receiver.url("127.0.0.1"), secret(1))
        .allow_http()
        .allow_private()
}

async fn create(uploads: &Uploads, name: &str) -> UploadId {
    let new = NewUpload::new(name).size(3);
    uploads.create(&Caller::new("alice"), new).await.unwrap().id()
}

/// The first letter that is given up, after it was tried again as often as there is time for.
async fn given_up(webhook: Webhook) -> DeadLetter {
    let stores = Stores::new();
    let uploads = stores.open(webhook).await;
    create(&uploads, "a").await;
    for _ in 0..600 {
        if let Some(letter) = uploads.dead_letters().await.unwrap().into_iter().next() {
            return letter;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stores.drive(&uploads).await;
    }
    panic!("nothing is given up");
}

fn checked<'a>(request: &'a Request, secrets: &[Secret]) -> tower_upload::Result<&'a str> {
    verify(
        secrets,
        |name| request.headers.get(name).map(String::as_str),
        &request.body,
        TOLERANCE,
    )
}

#[tokio::test]
async fn tells_each_event_signed_with_every_secret() {
    let receiver = Receiver::start([Answer::status(204)]).await;
    let webhook = local(&receiver).also_signed_with(secret(2)).build().unwrap();
    let uploads = Stores::new().open(webhook).await;
    let id = create(&uploads, "talk.mp4").await;
    receiver.wait_for(1).await;
    uploads.abort(&Caller::new("alice"), id).await.unwrap();
    let heard = receiver.wait_for(2).await;

    assert_eq!(heard[0].line, "POST /hooks?secret=canary HTTP/1.1");
    assert_eq!(heard[0].headers["host"], receiver.address.to_string());
    assert_eq!(heard[0].headers["content-type"], "application/json");
    for (number, request) in heard.iter().enumerate() {
        for secrets in [&[secret(1)][..], &[secret(2)], &[secret(3), secret(2)]] {
            assert_eq!(checked(request, secrets).unwrap(), format!("{id}-{number}"));
        }
        assert_eq!(checked(request, &[secret(3)]).unwrap_err().kind(), ErrorKind::Forbidden);
    }
    let body: Value = serde_json::from_slice(&heard[0].body).unwrap();
    let key = body["data"]["key"].clone();
    let data = json!({"upload": id.to_string(), "number": 0, "owner": "alice", "target": null,
        "file_name": "talk.mp4", "key": key, "size": 3});
    assert_eq!(body, json!({"type": "upload.created", "data": data}));
    let body: Value = serde_json::from_slice(&heard[1].body).unwrap();
    assert_eq!(
        (&body["type"], &body["data"]["number"]),
        (&json!("upload.aborted"), &json!(1))
    );
}

#[tokio::test]
async fn is_told_of_the_kinds_it_wants() {
    let receiver = Receiver::start([Answer::status(200)]).await;
    let webhook = local(&receiver).only([EventKind::Aborted]).build().unwrap();
    let uploads = Stores::new().open(webhook).await;
    let id = create(&uploads, "a").await;
    uploads.abort(&Caller::new("alice"), id).await.unwrap();
    let heard = receiver.wait_for(1).await;
    assert_eq!(checked(&heard[0], &[secret(1)]).unwrap(), format!("{id}-0"));
}

#[tokio::test]
async fn one_that_is_gone_is_asked_once_and_any_other_again() {
    let gone = Receiver::start([Answer::status(410)]).await;
    let letter = given_up(local(&gone).build().unwrap()).await;
    assert_eq!((letter.attempts, gone.connections()), (1, 1));
    for code in [400, 401, 404, 422, 429, 500, 503] {
        let receiver = Receiver::start([Answer::status(code)]).await;
        let letter = given_up(local(&receiver).build().unwrap()).await;
        assert_eq!((letter.attempts, receiver.connections()), (3, 3), "{code}");
        assert!(letter.error.contains(&format!("answered {code}")), "{}", letter.error);
        let heard = receiver.heard();
        assert!(heard.iter().all(|request| request.body == heard[0].body));
        assert!(
            heard
                .iter()
                .all(|request| request.headers["webhook-id"] == letter.event.id.to_string())
        );
    }
    let recovers = Receiver::start([Answer::status(503), Answer::status(201)]).await;
    let stores = Stores::new();
    let uploads = stores.open(local(&recovers).build().unwrap()).await;
    create(&uploads, "a").await;
    recovers.wait_for(1).await;
    while recovers.connections() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stores.drive(&uploads).await;
    }
    assert!(uploads.dead_letters().await.unwrap().is_empty());
}

/// Drives `uploads` again and again, `step` of the stores' time each, until `receiver` was told `count` events; how much time it took.
async fn time_until(stores: &Stores, uploads: &Uploads, receiver: &Receiver, count: usize, step: u64) -> u64 {
    let began = stores.clock.0.load(Ordering::SeqCst);
    while receiver.heard().len() < count {
        // What was told is written down before time goes on.
        tokio::time::sleep(Duration::from_millis(20)).await;
        stores.clock.0.fetch_add(step, Ordering::SeqCst);
        uploads.drive().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stores.clock.0.load(Ordering::SeqCst) - began
}

#[tokio::test]
async fn a_receiver_that_is_busy_says_when_to_come_again() {
    let minute = 60_000;
    let busy =
        |code: u16, more: &str| Answer::Say(format!("HTTP/1.1 {code} X\r\n{more}\r\ncontent-length: 2\r\n\r\nhi"));
    for (first, at_least, at_most) in [
        (busy(429, "retry-after: 1200"), 20 * minute, 22 * minute),
        (busy(503, "Retry-After: 1200"), 20 * minute, 22 * minute),
        (busy(404, "retry-after: 1200"), 20 * minute, 22 * minute),
        (busy(307, "retry-after: 1200"), 20 * minute, 22 * minute),
        (
            busy(
                503,
                "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 09:09:37 GMT",
            ),
            20 * minute,
            22 * minute,
        ),
        // An hour at most, as before if it cannot be read, and never less than the back-off.
        (
            busy(503, "retry-after: 999999999999999999999"),
            60 * minute,
            62 * minute,
        ),
        (busy(503, "retry-after: tomorrow"), 0, 2 * minute),
        (busy(503, "retry-after: -1200"), 0, 2 * minute),
        (busy(503, "retry-after: 0"), 0, 2 * minute),
    ] {
        let receiver = Receiver::start([first.clone(), Answer::status(200)]).await;
        let stores = Stores::new();
        let uploads = stores.open(local(&receiver).build().unwrap()).await;
        let id = create(&uploads, "a").await;
        receiver.wait_for(1).await;
        // What happens meanwhile is told in its turn, and after a restart the time is kept.
        tokio::time::sleep(Duration::from_millis(50)).await;
        uploads.abort(&Caller::new("alice"), id).await.unwrap();
        uploads.shutdown(Duration::from_secs(30)).await;
        let uploads = stores.open(local(&receiver).build().unwrap()).await;
        let waited = time_until(&stores, &uploads, &receiver, 2, minute).await;
        assert!((at_least..=at_most).contains(&waited), "{first:?}: {waited} ms");
        let heard = receiver.wait_for(3).await;
        let ids: Vec<_> = heard
            .iter()
            .map(|request| request.headers["webhook-id"].clone())
            .collect();
        assert_eq!(
            ids,
            [format!("{id}-0"), format!("{id}-0"), format!("{id}-1")],
            "{first:?}"
        );
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let inside = Receiver::start([Answer::status(200)]).await;
    for code in [301, 302, 303, 307, 308] {
        let location = inside.url("127.0.0.1");
        let answer = format!("HTTP/1.1 {code} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let outside = Receiver::start([Answer::Say(answer)]).await;
        let letter = given_up(local(&outside).build().unwrap()).await;
        assert!(letter.error.contains("redirects are not followed"), "{}", letter.error);
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn strange_answers_do_no_harm() {
    let brief = Duration::from_millis(300);
    let tiny = Duration::from_millis(1);
    let header =
        "x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
    for (answer, why) in [
        (Answer::Wait, "did not answer within"),
        (
            Answer::Repeat("HTTP/1.1 200 X\r\n", "x", Duration::from_millis(10)),
            "did not answer",
        ),
        (
            Answer::Repeat("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", tiny),
            "did not answer within",
        ),
        (
            Answer::Repeat("HTTP/1.1 200 X\r\n", header, Duration::ZERO),
            "as HTTP servers do",
        ),
        (Answer::Say("SSH-2.0-OpenSSH_10.0\r\n".to_owned()), "as HTTP servers do"),
        (Answer::Say(String::new()), "as HTTP servers do"),
        (Answer::Say("HTTP/1.1 200".to_owned()), "as HTTP servers do"),
        (Answer::Say("\0\u{7f}\u{ff}\n\n\n\n".repeat(9)), "as HTTP servers do"),
        (
            Answer::Say("HTTP/1.1 999999 X\r\n\r\n".to_owned()),
            "as HTTP servers do",
        ),
    ] {
        let receiver = Receiver::start([answer.clone()]).await;
        let letter = given_up(local(&receiver).timeout(brief).build().unwrap()).await;
        assert!(letter.error.contains(why), "{answer:?}: {}", letter.error);
        assert!(!letter.error.contains("canary"), "{}", letter.error);
    }
    // What follows the head of an answer is not waited for.
    let endless = Receiver::start([Answer::Repeat("HTTP/1.1 200 X\r\n\r\n", "more", Duration::ZERO)]).await;
    let uploads = Stores::new().open(local(&endless).build().unwrap()).await;
    let id = create(&uploads, "a").await;
    endless.wait_for(1).await;
    for _ in 0..500 {
        let upload = uploads.status(&Caller::new("alice"), id).await.unwrap();
        if upload.record().outbox.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it counts as not told");
}

#[tokio::test]
async fn private_addresses_are_not_reached_under_any_name() {
    let inside = Receiver::start([Answer::status(200)]).await;
    // Written out, the builder refuses them.
    for host in [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[64:ff9b::7f00:1]",
    ] {
        let error = Webhook::to(inside.url(host), secret(1))
            .allow_http()
            .build()
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::Invalid, Some("url")),
            "{host}"
        );
        assert!(error.to_string().contains("private address"), "{error}");
    }
    // A name, or an address that only the resolver knows as one, is found out when it is resolved.
    for host in [
        "localhost",
        "localhost.",
        "LOCALHOST",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "0",
    ] {
        let webhook = Webhook::to(inside.url(host), secret(1)).allow_http().build().unwrap();
        let letter = given_up(webhook).await;
        let is_refused = letter.error.contains("private address") || letter.error.contains("was not found");
        assert!(is_refused, "{host}: {}", letter.error);
        assert!(!letter.error.contains("canary"), "{}", letter.error);
    }
    assert_eq!(inside.connections(), 0);
    // The control: where it is allowed, it is reached.
    let webhook = Webhook::to(inside.url("localhost"), secret(1))
        .allow_http()
        .allow_private();
    let uploads = Stores::new().open(webhook.build().unwrap()).await;
    create(&uploads, "a").await;
    inside.wait_for(1).await;
}

#[test]
fn urls_that_are_none_are_refused() {
    for url in [
        "",
        "/hooks",
        "example.com",
        "ftp://example.com/",
        "https://",
        "https:///hooks",
        "https://user:password@example.com/",
        "https://example.com/\r\nx: y",
        "https://exa mple.com/",
        "http://example.com/",
        "https://example.com:99999/",
    ] {
        let error = Webhook::to(url, secret(1)).build().unwrap_err();
        assert_eq!(error.field(), Some("url"), "{url}");
        assert!(!error.to_string().contains("user:password"), "{error}");
    }
    let webhook = Webhook::to("https://example.com/hooks?secret=canary", secret(1));
    assert!(!format!("{webhook:?} {:?}", webhook.clone().build().unwrap()).contains("canary"));
}

#[tokio::test]
async fn a_receiver_is_known_by_its_certificate() {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(include_bytes!("tls/localhost.pem"))
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let receiver = Receiver::start_with([Answer::status(200)], Some(acceptor)).await;
    let to = |host: &str| {
        let url = format!("https://{host}:{}/", receiver.address.port());
        Webhook::to(url, secret(1)).allow_private()
    };
    let authority = include_bytes!("tls/authority.pem");
    for stranger in [to("localhost"), to("127.0.0.1").root_certificates(*authority)] {
        let letter = given_up(stranger.build().unwrap()).await;
        assert!(letter.error.contains("could not be trusted"), "{}", letter.error);
    }
    assert!(receiver.heard().is_empty());
    let webhook = to("localhost").root_certificates(*authority).build().unwrap();
    let uploads = Stores::new().open(webhook).await;
    let id = create(&uploads, "a").await;
    let heard = receiver.wait_for(1).await;
    assert_eq!(checked(&heard[0], &[secret(1)]).unwrap(), format!("{id}-0"));
    let error = to("localhost").root_certificates("no PEM").build().unwrap_err();
    assert_eq!(error.field(), Some("root_certificates"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_before_a_crash_is_told_again_under_the_same_id() {
    let receiver = Receiver::start([Answer::Wait, Answer::status(200)]).await;
    let stores = Stores::new();
    let dies = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (first, webhook) = (stores.clone(), local(&receiver).build().unwrap());
    let id = dies
        .spawn(async move {
            let uploads = first.open(webhook).await;
            let id = create(&uploads, "a").await;
            std::mem::forget(uploads); // It gets no chance to put anything in order.
            id
        })
        .await
        .unwrap();
    // The receiver has it, and the process is gone before it hears so.
    receiver.wait_for(1).await;
    dies.shutdown_background();

    let second = stores.open(local(&receiver).build().unwrap()).await;
    while receiver.connections() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stores.drive(&second).await;
    }
    let heard = receiver.wait_for(2).await;
    for request in &heard {
        assert_eq!(checked(request, &[secret(1)]).unwrap(), format!("{id}-0"));
    }
    assert_eq!(heard[0].body, heard[1].body);
}

const CHILD: &str = "TOWER_UPLOAD_TEST_WEBHOOK";

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    if let Ok(url) = std::env::var(CHILD) {
        let webhook = Webhook::to(url, secret(1))
            .allow_http()
            .allow_private()
            .build()
            .unwrap();
        let uploads = Stores::new().open(webhook).await;
        create(&uploads, "a").await;
        uploads.shutdown(Duration::from_secs(30)).await;
        return;
    }
    let receiver = Receiver::start([Answer::status(200)]).await;
    let proxy = Receiver::start([Answer::status(200)]).await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "proxies_of_the_environment_are_not_used"])
        .env(CHILD, receiver.url("127.0.0.1"));
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        child.env(name, proxy.url("127.0.0.1"));
    }
    let output = tokio::task::spawn_blocking(move || child.output().unwrap())
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((receiver.connections(), proxy.connections()), (1, 0));
}
