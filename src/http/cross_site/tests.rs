//! Rows of what browsers and others send, to each protocol, with a user's cookie.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures_util::stream;
use http::{Request, request::Parts};
use http_body_util::Full;

use crate::{
    Caller, NewChunk, NewUpload, Uploads,
    http::{
        Cors, Resumable, Tus, UploadService,
        tests::{Reply, Who, engine},
    },
    metadata::Page,
    upload::State,
};

/// The user is who the cookie says, as browsers send it with whatever a page asks for.
fn cookie(parts: &Parts) -> Option<Caller> {
    let value = parts.headers.get("cookie")?.to_str().ok()?;
    value.strip_prefix("user=").map(Caller::new)
}

fn ann() -> Caller {
    Caller::new("ann")
}

type Headers = &'static [(&'static str, &'static str)];

/// What changes something: METHOD PATH, headers, body; `{id}` is an upload that one chunk of two is there of.
const ASKS: &[(&str, Headers, &str)] = &[
    // Simple requests, for which browsers ask nobody.
    (
        "POST /upload-chunk/",
        &[("content-type", "multipart/form-data; boundary=X")],
        FORM,
    ),
    (
        "POST /assemble-chunks/",
        &[("content-type", "text/plain")],
        r#"{"videoId":1,"fileName":"a"}"#,
    ),
    (
        "POST /uploads/",
        &[("content-type", "text/plain")],
        r#"{"fileName":"a","fileSize":3}"#,
    ),
    ("POST /uploads/{id}/assemble", &[], "{}"),
    ("POST /ietf", &[("content-type", "text/plain")], "a=b"),
    (
        "POST /ietf",
        &[("content-type", "application/x-www-form-urlencoded")],
        "a=b",
    ),
    ("POST /tus", &[("content-type", "text/plain")], ""),
    // Others.
    (
        "POST /uploads/",
        &[("content-type", "application/json")],
        r#"{"fileName":"a","fileSize":3}"#,
    ),
    ("PUT /uploads/{id}/chunks/1", &[], "45"),
    ("DELETE /uploads/{id}/", &[], ""),
    ("POST /tus", &[("tus-resumable", "1.0.0"), ("upload-length", "3")], ""),
    ("DELETE /tus/{id}", &[("tus-resumable", "1.0.0")], ""),
    ("POST /ietf", &[("upload-complete", "?1")], "abc"),
    ("PUT /ietf", &[("upload-complete", "?0")], "abc"),
    ("DELETE /ietf/{id}", &[], ""),
];

const FORM: &str = "--X\r\nContent-Disposition: form-data; name=\"videoId\"\r\n\r\n1\r\n\
    --X\r\nContent-Disposition: form-data; name=\"chunkIndex\"\r\n\r\n0\r\n\
    --X\r\nContent-Disposition: form-data; name=\"totalChunks\"\r\n\r\n2\r\n\
    --X\r\nContent-Disposition: form-data; name=\"fileName\"\r\n\r\na\r\n\
    --X\r\nContent-Disposition: form-data; name=\"chunk\"; filename=\"b\"\r\n\r\nabc\r\n--X--\r\n";

struct House {
    uploads: Uploads,
    id: String,
}

impl House {
    async fn new() -> Self {
        let uploads = engine().await;
        let new = NewUpload::new("begun").size(6).chunk_size(4);
        let id = uploads.create(&ann(), new).await.unwrap().id();
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"0123"))]);
        uploads.put_chunk(&ann(), id, NewChunk::new(0), body).await.unwrap();
        Self {
            uploads,
            id: id.to_string(),
        }
    }

    /// The service that speaks what `ask` is in: at `/tus` and `/ietf` those protocols.
    fn service(&self, ask: &str) -> UploadService<Who> {
        let service = self.uploads.service(cookie as Who);
        match ask {
            ask if ask.contains("/tus") => service.files("/tus").tus(Tus::new()),
            ask if ask.contains("/ietf") => service.files("/ietf").resumable(Resumable::new()),
            _ => service,
        }
    }

    async fn send(&self, service: UploadService<Who>, ask: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        use tower_service::Service as _;
        let (method, path) = ask.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path.replace("{id}", &self.id));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        Reply::of(service.clone().call(request).await.unwrap()).await
    }

    /// What lies in the stores: the uploads with their states and how much of each is there.
    async fn stored(&self) -> Vec<(String, State, u64)> {
        let all = self.uploads.list(&ann(), Page::new(0, 100)).await.unwrap();
        all.iter()
            .map(|upload| (upload.id().to_string(), upload.state(), upload.tally().bytes))
            .collect()
    }
}

const HOST: (&str, &str) = ("host", "media.example");
const COOKIE: (&str, &str) = ("cookie", "user=ann");
const EVIL: (&str, &str) = ("origin", "https://evil.example");
const APP: (&str, &str) = ("origin", "https://app.example");
const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");

#[tokio::test]
async fn pages_of_other_sites_change_nothing_in_any_protocol() {
    for (ask, more, body) in ASKS {
        for from in [
            &[CROSS, EVIL][..],
            &[CROSS],
            &[EVIL],
            &[("origin", "null")],
            &[
                ("sec-fetch-site", "same-site"),
                ("origin", "https://sibling.media.example"),
            ],
        ] {
            let house = House::new().await;
            let before = house.stored().await;
            let headers = [&[HOST, COOKIE], from, more].concat();
            let reply = house.send(house.service(ask), ask, &headers, body).await;
            assert_eq!(reply.status, 403, "{ask} {headers:?}: {}", reply.text);
            assert!(reply.text.contains("Pages of other sites"), "{ask}: {}", reply.text);
            let media = match ask {
                ask if ask.contains("/tus") => "text/plain; charset=utf-8",
                ask if ask.contains("/ietf") => "application/problem+json",
                _ => "application/json",
            };
            assert_eq!(reply.header("content-type"), media, "{ask}");
            assert_eq!(house.stored().await, before, "{ask} {headers:?}");
            assert!(house.uploads.audit(true).await.unwrap().findings.is_empty());
        }
        // The control: the page of this origin, and a client that is no browser, are answered as ever.
        for from in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("origin", "https://media.example")],
        ] {
            let house = House::new().await;
            let headers = [&[HOST, COOKIE], from, more].concat();
            let reply = house.send(house.service(ask), ask, &headers, body).await;
            assert_ne!(reply.status, 403, "{ask} {headers:?}: {}", reply.text);
        }
    }
}

#[tokio::test]
async fn what_changes_nothing_is_answered_to_any_page() {
    for ask in [
        "GET /uploads/{id}/",
        "HEAD /uploads/{id}/",
        "GET /uploads/",
        "HEAD /tus/{id}",
        "OPTIONS /tus",
        "HEAD /ietf/{id}",
        "OPTIONS /ietf",
    ] {
        let house = House::new().await;
        let headers = [HOST, COOKIE, CROSS, EVIL, ("tus-resumable", "1.0.0")];
        let reply = house.send(house.service(ask), ask, &headers, "").await;
        assert!(reply.status < 300, "{ask}: {reply:?}");
    }
}

type Set = fn(UploadService<Who>) -> UploadService<Who>;

/// What the host set, what a request says, and whether it may.
type Row = (Set, Headers, bool);

#[tokio::test]
#[rustfmt::skip]
async fn what_the_host_allows_and_what_browsers_say() {
    let none: Set = |service| service;
    let cors: Set = |service| service.cors(Cors::new().allow_origin("https://app.example"));
    let any: Set = |service| service.cors(Cors::new().allow_any_origin());
    let both: Set = |service| service.cors(Cors::new().allow_any_origin().allow_origin("https://app.example"));
    let trusted: Set = |service| service.trusted_origin("https://App.example/");
    let open: Set = |service| service.allow_cross_site(true);
    let public: Set = |service| service.public_url("https://media.example:8443/base");
    let forwarded: Set = |service| service.trust_forwarded(true);
    let rows: &[Row] = &[
        // What Sec-Fetch-Site says is what counts, whatever a proxy made of Host.
        (none, &[("sec-fetch-site", "same-origin"), ("host", "backend:8080"), ("origin", "https://media.example")], true),
        (none, &[("sec-fetch-site", "none"), HOST], true),
        (none, &[("sec-fetch-site", "same-site"), HOST, ("origin", "https://media.example")], false),
        (none, &[CROSS, HOST, ("origin", "https://media.example")], false),
        (none, &[("sec-fetch-site", "Same-Origin"), HOST], false),
        (none, &[("sec-fetch-site", "same-origin"), CROSS, HOST], false),
        (none, &[CROSS, ("sec-fetch-site", "same-origin"), HOST], false),
        (none, &[("sec-fetch-site", ""), HOST], false),
        // Without it, whether Origin is an address of this service.
        (none, &[HOST], true),
        (none, &[], true),
        (none, &[HOST, ("origin", "https://media.example")], true),
        (none, &[HOST, ("origin", "http://media.example")], true),
        (none, &[("host", "Media.Example:443"), ("origin", "https://media.example")], true),
        (none, &[("host", "media.example:80"), ("origin", "https://media.example")], false),
        (none, &[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")], true),
        (none, &[("host", "[::1]:8080"), ("origin", "http://[::1]:8080")], true),
        (none, &[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:9090")], false),
        (none, &[HOST, ("origin", "https://media.example.evil.example")], false),
        (none, &[HOST, ("origin", "https://xmedia.example")], false),
        (none, &[HOST, ("origin", "media.example")], false),
        (none, &[HOST, ("origin", "file://")], false),
        (none, &[HOST, ("origin", "")], false),
        (none, &[("host", ""), ("origin", "https://")], false),
        (none, &[("origin", "https://media.example")], false),
        (none, &[HOST, ("origin", "https://media.example"), EVIL], false),
        // Behind a proxy that sets another Host.
        (none, &[("host", "backend:8080"), ("origin", "https://media.example"), ("x-forwarded-host", "media.example")], false),
        (forwarded, &[("host", "backend:8080"), ("origin", "https://media.example"), ("x-forwarded-host", "media.example")], true),
        (forwarded, &[("host", "backend:8080"), ("origin", "https://media.example"), ("forwarded", "host=media.example;proto=https")], true),
        (forwarded, &[("host", "backend:8080"), EVIL, ("x-forwarded-host", "media.example")], false),
        (forwarded, &[CROSS, EVIL, ("x-forwarded-host", "evil.example")], false),
        (public, &[("host", "backend:8080"), ("origin", "https://media.example:8443")], true),
        (public, &[("host", "backend:8080"), ("origin", "https://media.example")], false),
        // Whom the host allows.
        (cors, &[CROSS, HOST, APP], true),
        (cors, &[("sec-fetch-site", "same-site"), HOST, APP], true),
        (cors, &[HOST, APP], true),
        (cors, &[CROSS, HOST, EVIL], false),
        (cors, &[CROSS, HOST, ("origin", "null")], false),
        (cors, &[CROSS, HOST, APP, EVIL], false),
        (cors, &[CROSS, HOST, EVIL, APP], false),
        (trusted, &[CROSS, HOST, APP], true),
        (trusted, &[CROSS, HOST, EVIL], false),
        (open, &[CROSS, HOST, EVIL], true),
        (open, &[CROSS, HOST, ("origin", "null")], true),
        // Every origin is one without cookies, and these have one.
        (any, &[CROSS, HOST, EVIL], false),
        (both, &[CROSS, HOST, EVIL], false),
        (both, &[CROSS, HOST, APP], true),
    ];
    for (set, headers, may) in rows {
        let house = House::new().await;
        let before = house.stored().await;
        let service = set(house.service("/ietf"));
        let headers = [headers, &[COOKIE][..]].concat();
        let reply = house.send(service, "POST /ietf", &headers, "abc").await;
        assert_eq!(reply.status, if *may { 200 } else { 403 }, "{headers:?}: {}", reply.text);
        assert_eq!(house.stored().await != before, *may, "{headers:?}");
    }
    // Every origin, without a cookie: a token, as pages of every origin may have.
    let house = House::new().await;
    let who: Who = |parts| parts.headers.contains_key("authorization").then(ann);
    let service = house.uploads.service(who).files("/ietf").resumable(Resumable::new());
    let headers = [CROSS, HOST, EVIL, ("authorization", "Bearer ann")];
    let reply = house.send(any(service.clone()), "POST /ietf", &headers, "abc").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let reply = house.send(service, "POST /ietf", &headers, "abc").await;
    assert_eq!(reply.status, 403, "{}", reply.text);
    // A password that the browser keeps is sent with what any page asks for.
    for scheme in ["Basic YW5uOmFubg==", "basic x", "Digest username=ann", "Negotiate x", "NTLM x"] {
        let service = house.uploads.service(who).files("/ietf").resumable(Resumable::new());
        let headers = [CROSS, HOST, EVIL, ("authorization", scheme)];
        let reply = house.send(any(service), "POST /ietf", &headers, "abc").await;
        assert_eq!(reply.status, 403, "{scheme}: {}", reply.text);
    }
}
