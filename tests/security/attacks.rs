//! The rows of the table of attacks, one test or more each.

use std::os::unix::fs::MetadataExt as _;

use serde_json::{Value, json};
use tower_upload::{
    Uploads,
    access::OwnerOnly,
    blob::{ByteRange, DiskBlobs, disk::DiskOptions},
    metadata::MemoryMetadata,
    upload::{FileName, Key, State},
};

use super::{
    ANN, Bytes, EVE, FORM, Full, House, JSON, Ordering, UNKNOWN, Who, bearer, counted, form, request, session,
};

/// Names that would lead elsewhere, or hide what they are.
const ESCAPING: [&str; 22] = [
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..\\boot.ini",
    "C:\\boot.ini",
    "a/b",
    "a\\b",
    ".",
    "..",
    " .. ",
    "",
    " ",
    "a\0b",
    "a\r\nSet-Cookie: x=1",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\u{1b}[31m",
    "a\u{7f}",
    "a\u{85}b",
    "a\u{2028}b",
    "a\u{202e}gpj.exe",
    "a\u{61c}b",
];
/// Names that are strange, but can be shown.
const STRANGE: [&str; 14] = [
    "CON",
    "con.mp4",
    "LPT1.mp4",
    "C:video.mp4",
    ".hidden",
    "...",
    "-rf",
    "~root",
    "$(id).mp4",
    "%2e%2e%2fx",
    "a;b|c.mp4",
    "<script>.mp4",
    "\"quoted\".mp4",
    "日本語.mp4",
];

#[tokio::test(start_paused = true)]
async fn names_that_escape_are_refused_wherever_they_are_given() {
    let house = House::new(OwnerOnly).await;
    let before = house.holdings().await;
    let long = "x".repeat(FileName::MAX_LEN + 1);
    for name in ESCAPING.into_iter().chain([long.as_str()]) {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let fields = [
            ("fileName", name),
            ("videoId", "1"),
            ("chunkIndex", "0"),
            ("totalChunks", "1"),
        ];
        let chunk = [("chunk", "x")];
        let requests = [
            (
                "POST /uploads/".to_owned(),
                JSON,
                json!({"fileName": name, "fileSize": 1}).to_string(),
            ),
            (
                "POST /assemble-chunks/".to_owned(),
                JSON,
                json!({"fileName": name, "videoId": 1}).to_string(),
            ),
            (
                format!("GET /uploads/?videoId=1&fileName={encoded}"),
                JSON,
                String::new(),
            ),
            (
                "POST /upload-chunk/".to_owned(),
                FORM,
                form(&[&fields[..], &chunk].concat()),
            ),
            (
                "POST /upload-chunk/".to_owned(),
                FORM,
                form(&[&chunk[..], &fields].concat()),
            ),
        ];
        for (ask, media, body) in requests {
            let reply = house.ask(&ask, &[ANN, media], body).await;
            assert_eq!(reply.status, 400, "{ask} {name:?} {}", reply.text);
            assert_eq!(
                reply.field().as_deref(),
                Some("fileName"),
                "{ask} {name:?} {}",
                reply.text
            );
        }
    }
    assert!(house.holdings().await == before, "a refused name changed a store");
}

#[tokio::test(start_paused = true)]
async fn a_name_makes_one_segment_of_a_key_whatever_it_is() {
    let house = House::new(OwnerOnly).await;
    let targets = ["1", "../../x", "a/b", "..", "C:\\", "%2e%2e%2f", "CON", "-"];
    for name in STRANGE {
        for target in targets {
            let body = json!({"fileName": name, "fileSize": 1, "videoId": target});
            let created = house.json("POST /uploads/", &body).await;
            assert_eq!(created.status, 201, "{name:?} {target:?} {}", created.text);
            let id = created.id();
            let ask = format!("PUT /uploads/{id}/chunks/0");
            assert_eq!(house.ask(&ask, &[ANN], "x").await.status, 200);
            let assembled = house.assemble(&id).await.json();
            let path = assembled["data"]["video_path"].as_str().unwrap();
            Key::parse(path).unwrap();
            let segments: Vec<&str> = path.split('/').collect();
            assert_eq!(
                (segments.len(), &segments[..2]),
                (3, &["videos", "originals"][..]),
                "{path}"
            );
            let shown = house.ask(&format!("GET /uploads/{id}/"), &[ANN], "").await.json();
            assert_eq!(
                shown["data"]["file_name"], name,
                "the name is kept as it is, to be shown"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ids_and_paths_are_decoded_once_and_lead_nowhere() {
    let house = House::new(OwnerOnly).await;
    let id = house.begun(None).await;
    let before = house.holdings().await;
    let encode = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let once = encode(&id);
    assert_eq!(
        house.ask(&format!("GET /uploads/{once}/"), &[ANN], "").await.status,
        200
    );
    let hostile = [
        encode(&once),
        "..".to_owned(),
        "%2e%2e".to_owned(),
        "%252e%252e".to_owned(),
        format!("..%2F{id}"),
        format!("%2e%2e%2f{id}"),
        format!("..%252F{id}"),
        format!("..%5C{id}"),
        format!("{id}%00"),
        format!("{id}%2500"),
        format!("{id}%20"),
        format!("{id}%0d%0aSet-Cookie:x"),
        format!("{id}%2F..%2F{id}"),
        format!("{id}="),
        format!("{id};x"),
        format!("{}/../{id}", UNKNOWN),
        format!("./{id}"),
        format!("/{id}"),
        "%ff%fe".to_owned(),
        "%zz".to_owned(),
        id.to_uppercase(),
        id[..21].to_owned(),
    ];
    for hostile in &hostile {
        for (method, rest) in [
            ("GET", ""),
            ("HEAD", ""),
            ("DELETE", ""),
            ("PUT", "/chunks/0"),
            ("POST", "/assemble"),
            ("GET", "/events"),
        ] {
            let ask = format!("{method} /uploads/{hostile}{rest}");
            let reply = house.ask(&ask, &[ANN], "").await;
            assert!(
                matches!(reply.status, 404 | 405),
                "{ask} {} {}",
                reply.status,
                reply.text
            );
        }
        let form = form(&[("uploadId", hostile.as_str()), ("chunkIndex", "0"), ("chunk", "0123")]);
        let reply = house.ask("POST /upload-chunk/", &[ANN, FORM], form).await;
        assert!(
            matches!(reply.status, 400 | 404),
            "{hostile} {} {}",
            reply.status,
            reply.text
        );
    }
    assert!(house.holdings().await == before, "a hostile path changed a store");
}

#[tokio::test(start_paused = true)]
async fn line_breaks_and_controls_are_refused_in_metadata_and_reach_no_header() {
    let house = House::new(OwnerOnly).await;
    let before = house.holdings().await;
    for control in ["\r\n", "\n", "\r", "\0", "\u{85}", "\u{1b}", "\u{7f}"] {
        let hostile = format!("a{control}Set-Cookie: x=1");
        for (field, body) in [
            (
                "metadata",
                json!({"fileName": "a", "fileSize": 1, "metadata": {"k": hostile}}),
            ),
            (
                "metadata",
                json!({"fileName": "a", "fileSize": 1, "metadata": {hostile.clone(): "v"}}),
            ),
            ("videoId", json!({"fileName": "a", "fileSize": 1, "videoId": hostile})),
            ("fileName", json!({"fileName": hostile, "fileSize": 1})),
        ] {
            let reply = house.json("POST /uploads/", &body).await;
            assert_eq!(
                (reply.status, reply.field().as_deref()),
                (400, Some(field)),
                "{body} {}",
                reply.text
            );
            assert!(!reply.headers.contains_key("set-cookie"));
        }
    }
    for body in [
        json!({"fileName": "a", "fileSize": 1, "metadata": {"k": "x".repeat(17 << 10)}}),
        json!({"fileName": "a", "fileSize": 1, "metadata": {"k": 1}}),
        json!({"fileName": "a", "fileSize": 1, "metadata": {"k": {"deep": "x"}}}),
        json!({"fileName": "a", "fileSize": 1, "metadata": "k v"}),
    ] {
        let reply = house.json("POST /uploads/", &body).await;
        assert_eq!(
            (reply.status, reply.field().as_deref()),
            (400, Some("metadata")),
            "{}",
            reply.text
        );
    }
    assert!(house.holdings().await == before);
}

fn part(header: &str, body: &str) -> String {
    format!("------X\r\n{header}\r\n\r\n{body}\r\n")
}

#[tokio::test(start_paused = true)]
async fn nobody_has_a_body_read() {
    let house = House::new(OwnerOnly).await;
    let id = house.begun(None).await;
    let before = house.holdings().await;
    for (ask, media, body) in takers(&id) {
        let (body, taken) = counted([Bytes::from(body)].into_iter());
        let reply = house.send(request(&ask, &[media], body)).await;
        assert_eq!(reply.status, 401, "{ask} {}", reply.text);
        assert_eq!(taken.load(Ordering::SeqCst), 0, "{ask}");
    }
    assert!(house.holdings().await == before);
}

/// However long a broken form is, hardly any of it is read, and none of it is stored.
#[tokio::test(start_paused = true)]
async fn a_form_that_never_makes_sense_is_given_up_early() {
    const LONG: usize = 16 << 20;
    /// Of 32 fields, each with what may lie before and in it, and of what was read ahead.
    const MOST: usize = 32 * 2 * (8 << 10) + (128 << 10);
    let field = |name: &str| format!("Content-Disposition: form-data; name=\"{name}\"");
    let tiny: String = (0..100_000).map(|n| part(&field(&format!("f{n}")), "")).collect();
    let by_id =
        |id: &str| part(&field("uploadId"), id) + &part(&field("chunkIndex"), "0") + &part(&field("chunk"), "0123");
    let endless = |text: &str| text.repeat(LONG / text.len());
    let start = "------X\r\n";
    for (what, text) in [
        ("100,000 tiny fields", tiny.clone()),
        ("100,000 tiny fields after the chunk", by_id("{id}") + &tiny),
        (
            "a field for ever",
            format!("{start}{}\r\n\r\n{}", field("videoId"), endless("x")),
        ),
        (
            "an unknown field for ever",
            format!("{start}{}\r\n\r\n{}", field("y"), endless("x")),
        ),
        (
            "a field after the chunk for ever",
            format!("{}{start}{}\r\n\r\n{}", by_id("{id}"), field("y"), endless("x")),
        ),
        (
            "a name for ever",
            format!("{start}Content-Disposition: form-data; name=\"{}", endless("n")),
        ),
        ("headers for ever", format!("{start}{}", endless("X-A: b\r\n"))),
        ("a preamble for ever", endless("no boundary\r\n")),
        (
            "an epilogue that looks like fields",
            by_id("{id}") + "------X--\r\n" + &tiny,
        ),
        (
            "a form within a field",
            part(
                &format!("{}\r\nContent-Type: multipart/mixed; boundary=Y", field("videoId")),
                &endless("--Y\r\n\r\n\r\n"),
            ),
        ),
    ] {
        let house = House::new(OwnerOnly).await;
        let id = house.begun(None).await;
        let before = house.holdings().await;
        let text = text.replace("{id}", &id);
        let whole = text.len();
        for len in [1 << 10, 64 << 10] {
            let frames: Vec<Bytes> = text.as_bytes().chunks(len).map(Bytes::copy_from_slice).collect();
            let (body, taken) = counted(frames.into_iter());
            let reply = house.send(request("POST /upload-chunk/", &[ANN, FORM], body)).await;
            let taken = taken.load(Ordering::SeqCst);
            if what.starts_with("an epilogue") {
                assert_eq!(reply.status, 200, "{what} {}", reply.text);
                continue;
            }
            assert!(
                matches!(reply.status, 400 | 413),
                "{what}: {} {}",
                reply.status,
                reply.text
            );
            assert!(
                taken <= MOST,
                "{what}: {taken} of {whole} bytes were read in frames of {len}"
            );
            assert!(house.holdings().await == before, "{what} changed a store");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_form_within_the_chunk_is_bytes_like_any_others() {
    let house = House::new(OwnerOnly).await;
    let inner = "--Y\r\nContent-Disposition: form-data; name=\"uploadId\"\r\n\r\nx\r\n--Y--\r\n";
    let body = part("Content-Disposition: form-data; name=\"videoId\"", "1")
        + &part("Content-Disposition: form-data; name=\"fileName\"", "nested.mp4")
        + &part("Content-Disposition: form-data; name=\"chunkIndex\"", "0")
        + &part("Content-Disposition: form-data; name=\"totalChunks\"", "1")
        + &part(
            "Content-Disposition: form-data; name=\"chunk\"\r\nContent-Type: multipart/form-data; boundary=Y",
            inner,
        )
        + "------X--\r\n";
    let reply = house.ask("POST /upload-chunk/", &[ANN, FORM], body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let [upload] = &house.holdings().await.uploads[..] else {
        panic!()
    };
    assert_eq!(upload.tally.bytes, inner.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn malformed_forms_are_refused_and_change_nothing() {
    let good = form(&[("uploadId", "{id}"), ("chunkIndex", "0"), ("chunk", "0123")]);
    let name = |name: &str| part(&format!("Content-Disposition: form-data; {name}"), "x");
    let mut bodies = vec![
        good.replace("------X--\r\n", ""),
        good.replace("------X--\r\n", "------X"),
        good.replace("------X--\r\n", "------Y--\r\n"),
        good.replace("\r\n", "\n"),
        good.replace("0123", "01234"),
        good.replace("0123", "012"),
        good.replace("------X--", &(name("name=\"chunk\"") + "------X--")),
        good.replace("------X--", &(name("name=\"checksum\"") + "------X--")),
        name("name=\"\"") + &good,
        name("filename=\"x\"") + &good,
        name("name=\"chunkIndex\"") + &good,
        name(&format!("name=\"{}\"", "n".repeat(20_000))) + &good,
        part("No-Disposition: x", "x") + &good,
        part("Content-Disposition: attachment; name=\"x\"", "x").replace("Content-Disposition: ", "\0") + &good,
        format!("------X\r\n{}", "A: b\r\n".repeat(200)) + &good,
        String::new(),
    ];
    bodies.extend((0..good.len() - 4).step_by(7).map(|cut| good[..cut].to_owned()));
    for body in bodies {
        let house = House::new(OwnerOnly).await;
        let id = house.begun(None).await;
        let before = house.holdings().await;
        let body = body.replace("{id}", &id);
        let reply = house.ask("POST /upload-chunk/", &[ANN, FORM], body.clone()).await;
        assert!(
            matches!(reply.status, 400 | 404 | 413),
            "{} {} {body}",
            reply.status,
            reply.text
        );
        assert!(house.holdings().await == before, "{body} changed a store");
    }
}

/// Every route that takes a body: METHOD PATH, its type, and a body that is right.
fn takers(id: &str) -> Vec<(String, (&'static str, &'static str), String)> {
    let by_id = [("uploadId", id), ("chunkIndex", "0")];
    let by_name = [
        ("videoId", "9"),
        ("fileName", "b.mp4"),
        ("chunkIndex", "0"),
        ("totalChunks", "2"),
    ];
    let chunk = [("chunk", "0123")];
    vec![
        ("POST /uploads/".to_owned(), JSON, session("9").to_string()),
        (
            "POST /assemble-chunks/".to_owned(),
            JSON,
            json!({"videoId": "v1", "fileName": "a.mp4"}).to_string(),
        ),
        (format!("POST /uploads/{id}/assemble/"), JSON, "{}".to_owned()),
        (
            format!("PUT /uploads/{id}/chunks/0"),
            ("content-type", "application/octet-stream"),
            "0123".to_owned(),
        ),
        (
            "POST /upload-chunk/".to_owned(),
            FORM,
            form(&[&by_id[..], &chunk].concat()),
        ),
        (
            "POST /upload-chunk/".to_owned(),
            FORM,
            form(&[&chunk[..], &by_id].concat()),
        ),
        (
            "POST /upload-chunk/".to_owned(),
            FORM,
            form(&[&by_name[..], &chunk].concat()),
        ),
        (
            "POST /upload-chunk/".to_owned(),
            FORM,
            form(&[&chunk[..], &by_name].concat()),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_content_length_that_lies_is_refused() {
    let house = House::new(OwnerOnly).await;
    let id = house.begun(None).await;
    let before = house.holdings().await;
    for (ask, media, body) in takers(&id) {
        let len = body.len() as u64;
        for lie in [0, len - 1, len + 1, len + 1000, u64::MAX] {
            let lie = lie.to_string();
            let reply = house
                .ask(&ask, &[ANN, media, ("content-length", &lie)], body.clone())
                .await;
            assert!(
                matches!(reply.status, 400 | 413),
                "{ask} {lie} of {len}: {} {}",
                reply.status,
                reply.text
            );
        }
        for lie in ["-1", "+1", "x", "", "1.0", "18446744073709551616", "4, 4"] {
            let reply = house
                .ask(&ask, &[ANN, media, ("content-length", lie)], body.clone())
                .await;
            assert_eq!(
                (reply.status, reply.field().as_deref()),
                (400, Some("Content-Length")),
                "{ask} {lie} {}",
                reply.text
            );
        }
    }
    assert!(house.holdings().await == before, "a lie changed a store");
}

#[tokio::test(start_paused = true)]
async fn an_encoded_body_is_refused_unread() {
    let house = House::new(OwnerOnly).await;
    let id = house.begun(None).await;
    let before = house.holdings().await;
    for (ask, media, body) in takers(&id) {
        for coding in [
            "gzip",
            "GZIP",
            "br",
            "deflate",
            "zstd",
            "compress",
            "x-gzip",
            "identity, gzip",
            "gzip, identity",
            "aes128gcm",
        ] {
            let (counting, taken) = counted([Bytes::from(body.clone())].into_iter());
            let headers = [ANN, media, ("content-encoding", coding)];
            let reply = house.send(request(&ask, &headers, counting)).await;
            assert_eq!(reply.status, 415, "{ask} {coding} {}", reply.text);
            assert_eq!(taken.load(Ordering::SeqCst), 0, "{ask} {coding}");
        }
    }
    assert!(house.holdings().await == before);
}

#[tokio::test(start_paused = true)]
async fn too_many_sessions_are_429_for_their_owner_alone() {
    let house = House::built(OwnerOnly, |builder| builder.max_open_uploads(3)).await;
    let first = house.begun(None).await;
    for video in ["v2", "v3"] {
        assert_eq!(house.json("POST /uploads/", &session(video)).await.status, 201);
    }
    let before = house.holdings().await;
    let named = |chunk_first: bool| {
        let fields = [
            ("videoId", "v4"),
            ("fileName", "b"),
            ("chunkIndex", "0"),
            ("totalChunks", "2"),
        ];
        let chunk = [("chunk", "0123")];
        form(&if chunk_first {
            [&chunk[..], &fields].concat()
        } else {
            [&fields[..], &chunk].concat()
        })
    };
    for (media, body) in [
        (JSON, session("v4").to_string()),
        (FORM, named(true)),
        (FORM, named(false)),
    ] {
        let ask = if media == JSON {
            "POST /uploads/"
        } else {
            "POST /upload-chunk/"
        };
        let reply = house.ask(ask, &[ANN, media], body).await;
        assert_eq!(reply.status, 429, "{}", reply.text);
        assert!(reply.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
        assert_eq!(reply.json()["error"]["retry_after"].as_u64(), Some(60));
    }
    assert!(house.holdings().await == before, "a session too many changed a store");
    let other = house
        .ask("POST /uploads/", &[EVE, JSON], session("v4").to_string())
        .await;
    assert_eq!(other.status, 201, "another owner has room");
    house.delete(&first).await;
    assert_eq!(house.json("POST /uploads/", &session("v4")).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn declared_bytes_count_against_the_quota() {
    let house = House::built(OwnerOnly, |builder| builder.max_open_bytes(100)).await;
    let sized = |video: &str, size: u64| json!({"fileName": "a", "fileSize": size, "videoId": video});
    assert_eq!(house.json("POST /uploads/", &sized("1", 60)).await.status, 201);
    let before = house.holdings().await;
    for size in [41, 1 << 30, 1 << 36] {
        assert_eq!(
            house.json("POST /uploads/", &sized("2", size)).await.status,
            429,
            "{size}"
        );
    }
    assert!(house.holdings().await == before);
    assert_eq!(house.json("POST /uploads/", &sized("2", 40)).await.status, 201);
}

#[tokio::test]
async fn huge_sparse_uploads_take_no_space_before_their_bytes_come() {
    let root = tempfile::tempdir().unwrap();
    let blobs = DiskOptions::default()
        .with_overcommit(1.0)
        .open(root.path())
        .await
        .unwrap();
    let disk: DiskBlobs = blobs;
    let uploads = Uploads::with(disk, MemoryMetadata::new())
        .authorizer(OwnerOnly)
        .max_size(1 << 60)
        .max_chunks(u32::MAX)
        .without_driver()
        .build()
        .await
        .unwrap();
    let service = uploads.service(bearer as Who);
    let create = async |size: u64| {
        let body = json!({"fileName": "a", "fileSize": size, "chunkSize": 1 << 27}).to_string();
        let answer = tower_service::Service::call(
            &mut service.clone(),
            request("POST /uploads/", &[ANN, JSON], Full::new(Bytes::from(body))),
        );
        answer.await.unwrap().status().as_u16()
    };
    assert_eq!(create((1 << 60) + 1).await, 413);
    assert_eq!(create(u64::MAX).await, 413);
    assert_eq!(create(1 << 58).await, 507);
    let files = || -> Vec<std::fs::Metadata> {
        let entries = std::fs::read_dir(root.path().join("partial")).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap()).collect()
    };
    assert!(files().is_empty(), "a refused upload left a file");
    assert_eq!(create(1 << 30).await, 201);
    let files = files();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].blocks(), 0, "space was taken in advance");
}

#[tokio::test(start_paused = true)]
async fn json_that_is_deep_double_or_long_is_refused_on_every_route() {
    let house = House::new(OwnerOnly).await;
    let id = house.begun(None).await;
    let before = house.holdings().await;
    let deep = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    for (ask, _, good) in takers(&id).into_iter().filter(|(_, media, _)| *media == JSON) {
        let with = |member: &str| match good.strip_suffix('}') {
            Some("{") => format!("{{{member}}}"),
            Some(rest) => format!("{rest},{member}}}"),
            None => panic!(),
        };
        for bad in [
            deep(20),
            deep(30_000),
            "[".repeat(60_000),
            "{\"a\":".repeat(10_000),
            with("\"z\":1,\"z\":1"),
            with("\"z\":1,\"\\u007a\":1"),
            with("\"z\":{\"a\":1,\"a\":2}"),
            with(&format!("\"z\":\"{}\"", "x".repeat(65_536))),
            with("\"z\":\"\\ud800\""),
            good.clone() + &good,
            good.clone() + "x",
            "[]".to_owned(),
            "null".to_owned(),
            "{".to_owned(),
        ] {
            let reply = house.ask(&ask, &[ANN, JSON], bad.clone()).await;
            let about = format!("{ask} {bad:.60} {}", reply.text);
            assert_eq!((reply.status, reply.field().as_deref()), (400, Some("body")), "{about}");
        }
        // Without a length, for ever.
        let (body, taken) = counted((0..1 << 20).map(|_| Bytes::from_static(&[b' '; 1024])));
        let reply = house.send(request(&ask, &[ANN, JSON], body)).await;
        assert_eq!(
            (reply.status, reply.field().as_deref()),
            (400, Some("body")),
            "{ask} {}",
            reply.text
        );
        assert!(taken.load(Ordering::SeqCst) <= 66 << 10);
    }
    assert!(house.holdings().await == before);
}

/// That no header of CORS is in any answer, `House::send` sees to for every test.
#[tokio::test(start_paused = true)]
async fn neither_cors_nor_method_override() {
    let house = House::new(OwnerOnly).await;
    let id = house.begun(None).await;
    let before = house.holdings().await;
    let origin = [
        ("origin", "https://evil.example"),
        ("access-control-request-method", "PUT"),
    ];
    for path in [
        "/uploads/",
        &format!("/uploads/{id}/"),
        &format!("/uploads/{id}/chunks/0"),
        "/upload-chunk/",
    ] {
        let reply = house
            .ask(&format!("OPTIONS {path}"), &[ANN, origin[0], origin[1]], "")
            .await;
        assert_eq!(reply.status, 405, "{path}");
    }
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        for method in ["DELETE", "PUT", "PATCH"] {
            for (ask, status) in [
                (format!("GET /uploads/{id}/?_method={method}"), 200),
                (format!("POST /uploads/{id}/"), 405),
                (format!("POST /uploads/{id}/chunks/0"), 405),
            ] {
                let reply = house.ask(&ask, &[ANN, (name, method)], "0123").await;
                assert_eq!(reply.status, status, "{ask} {name}: {method} {}", reply.text);
                let reply = house.ask(&ask, &[ANN, origin[0], (name, method)], "0123").await;
                let status = if status == 405 { 403 } else { status };
                assert_eq!(reply.status, status, "{ask} {name}: {method} {}", reply.text);
            }
        }
    }
    assert!(house.holdings().await == before, "an overridden method changed a store");
}

#[tokio::test(start_paused = true)]
async fn hosts_are_reflected_only_where_trusted_and_sane() {
    let hosts = [
        ("evil.example", true),
        ("evil.example:8080", true),
        ("[::1]:80", true),
        ("evil.example/path", false),
        ("user:pass@evil.example", false),
        ("evil.example#", false),
        ("evil.example?x", false),
        ("<script>", false),
        ("evil.example\\x", false),
        ("a b", false),
        ("a:b:c", false),
        ("[::1", false),
        ("\"", false),
    ];
    let forwarded = |host: &str| format!("host=\"{host}\"");
    for (host, sane) in hosts {
        let forwarded = forwarded(host);
        for (name, value) in [
            ("host", host),
            ("x-forwarded-host", host),
            ("forwarded", forwarded.as_str()),
        ] {
            for (trust, public) in [(false, false), (true, false), (true, true), (false, true)] {
                let house = House::new(OwnerOnly).await;
                let mut service = house.service.clone().trust_forwarded(trust);
                if public {
                    service = service.public_url("https://media.example");
                }
                let house = House { service, ..house };
                let reply = house
                    .ask("POST /uploads/", &[ANN, JSON, (name, value)], session("1").to_string())
                    .await;
                assert_eq!(reply.status, 201);
                let location = reply.headers["location"].to_str().unwrap().to_owned();
                let start = match (public, trust && sane) {
                    (true, _) => "https://media.example/api/streaming/uploads/".to_owned(),
                    (false, true) => format!("http://{host}/api/streaming/uploads/"),
                    (false, false) => "/api/streaming/uploads/".to_owned(),
                };
                assert!(
                    location.starts_with(&start),
                    "{name}: {value} gave {location}, not {start}"
                );
                let urls = &reply.json()["data"]["urls"];
                for url in ["upload", "chunks", "assemble", "events"] {
                    assert!(urls[url].as_str().unwrap().starts_with(&start), "{urls}");
                }
            }
        }
    }
}

/// Two strangers with one video and one file name: each has an upload of their own, and the second can tell the first
/// neither from the answers nor harm it.
#[tokio::test(start_paused = true)]
async fn a_taken_key_harms_nobody() {
    let house = House::new(OwnerOnly).await;
    let hers = house.filled(None).await;
    let path = house.assemble(&hers).await.json()["data"]["video_path"].clone();
    let before = house.holdings().await.of("ann");
    let mut paths = vec![path];
    for owner in ["Bearer eve", "Bearer mallory"] {
        let who = ("authorization", owner);
        let created = house
            .ask("POST /uploads/", &[who, JSON], session("v1").to_string())
            .await;
        assert_eq!(created.status, 201);
        let id = created.id();
        for (index, bytes) in ["abcd", "efgh", "ij"].into_iter().enumerate() {
            let ask = format!("PUT /uploads/{id}/chunks/{index}");
            assert_eq!(house.ask(&ask, &[who], bytes).await.status, 200);
        }
        let reply = house.ask(&format!("POST /uploads/{id}/assemble"), &[who], "").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        paths.push(reply.json()["data"]["video_path"].clone());
        house.ask(&format!("DELETE /uploads/{id}/"), &[who], "").await;
    }
    paths.sort_by_key(Value::to_string);
    paths.dedup();
    assert_eq!(paths.len(), 3, "a key was given twice");
    assert!(house.holdings().await.of("ann") == before);
    assert_eq!(house.state(&hers).await, Some(State::Assembled));
    let (_, body) = house
        .uploads
        .read(&tower_upload::Caller::new("ann"), hers.parse().unwrap(), ByteRange::ALL)
        .await
        .unwrap();
    let bytes: Vec<Bytes> = futures_util::TryStreamExt::try_collect(body).await.unwrap();
    assert_eq!(bytes.concat(), b"0123456789");
}

/// Requests that wait for a slow store and are given up leave nothing behind.
#[tokio::test(start_paused = true)]
async fn requests_that_are_given_up_while_an_assembly_hangs_leave_no_task() {
    let house = House::new(OwnerOnly).await;
    let id = house.filled(None).await;
    house.stuck.store(true, Ordering::SeqCst);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(house.assemble(&id).await.status, 0);
    let before = tasks();
    for _ in 0..100 {
        assert_eq!(house.assemble(&id).await.status, 0);
        house.uploads.drive().await.unwrap();
    }
    assert_eq!(tasks(), before);
}

/// Frames of one byte are not kept one by one.
#[tokio::test(start_paused = true)]
async fn a_body_of_single_bytes_costs_no_more_than_its_bytes() {
    let house = House::new(OwnerOnly).await;
    let body = json!({"fileName": "tiny", "fileSize": 100_000, "chunkSize": 100_000});
    let id = house.json("POST /uploads/", &body).await.id();
    let (body, _) = counted((0..100_000).map(|_| Bytes::from_static(b"x")));
    let reply = house
        .send(request(&format!("PUT /uploads/{id}/chunks/0"), &[ANN], body))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // The memory store keeps frames as they reach it.
    let [upload] = &house.holdings().await.uploads[..] else {
        panic!()
    };
    let parts = tower_upload::blob::BlobStore::read_parts(&*house.blobs, &upload.record.handle, &upload.parts);
    let frames = futures_util::StreamExt::count(parts.await.unwrap().unwrap()).await;
    assert!(frames <= 100, "{frames} frames");
}
