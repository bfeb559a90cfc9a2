//! Every numeric field with every text that is no number it can be.

use serde_json::json;
use tower_upload::access::OwnerOnly;

use super::{ANN, FORM, House, JSON, form};

/// What is no whole number from 0 to `u64::MAX`, however it is read.
const BAD: [&str; 22] = [
    "-1",
    "+1",
    " 1",
    "1 ",
    "1.0",
    "0x1",
    "1e3",
    "18446744073709551616",
    "99999999999999999999999",
    "-9223372036854775808",
    "",
    "NaN",
    "inf",
    "١",
    "１",
    "1_000",
    "1,000",
    "0b1",
    "1\t",
    "null",
    "true",
    "--1",
];
/// What is too large for 32 bits besides.
const TOO_LONG: [&str; 2] = ["4294967296", "18446744073709551615"];

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test(start_paused = true)]
async fn bad_numbers_are_refused_by_name_and_change_nothing() {
    let house = House::new(OwnerOnly).await;
    let id = house.begun(None).await;
    let before = house.holdings().await;
    let mut combinations = 0;
    let mut expect = async |field: &str, ask: String, headers: &[(&str, &str)], body: String| {
        let reply = house.ask(&ask, headers, body.clone()).await;
        let about = format!("{ask} {body:?}: {} {}", reply.status, reply.text);
        assert_eq!(reply.status, 400, "{about}");
        assert_eq!(reply.field().as_deref(), Some(field), "{about}");
        combinations += 1;
    };
    for (field, wide) in [("chunkIndex", false), ("totalChunks", false), ("fileSize", true)] {
        for bad in BAD.iter().chain(TOO_LONG.iter().filter(|_| !wide)) {
            let mut fields = vec![
                ("videoId", "n"),
                ("fileName", "n.mp4"),
                ("chunkIndex", "0"),
                ("totalChunks", "3"),
            ];
            fields.retain(|(name, _)| *name != field);
            fields.insert(0, (field, bad));
            let chunk = [("chunk", "x")];
            for form in [
                form(&[&fields[..], &chunk].concat()),
                form(&[&chunk[..], &fields].concat()),
            ] {
                expect(field, "POST /upload-chunk/".to_owned(), &[ANN, FORM], form).await;
            }
        }
    }
    for bad in BAD.iter().chain(&TOO_LONG).filter(|bad| !bad.is_empty()) {
        let ask = format!("PUT /uploads/{id}/chunks/{}", encoded(bad));
        expect("chunkIndex", ask, &[ANN], "4567".to_owned()).await;
    }
    for field in ["skip", "limit"] {
        for bad in BAD {
            expect(
                field,
                format!("GET /uploads/?{field}={}", encoded(bad)),
                &[ANN],
                String::new(),
            )
            .await;
        }
    }
    for field in ["fileSize", "chunkSize"] {
        for bad in BAD.into_iter().chain(TOO_LONG) {
            let mut body = json!({"fileName": "n.mp4", "fileSize": 1, "videoId": "n"});
            body[field] = json!(bad);
            expect(field, "POST /uploads/".to_owned(), &[ANN, JSON], body.to_string()).await;
            // The same as a JSON number: if it is none, no field can be told.
            body[field] = json!("HERE");
            let raw = body.to_string().replace("\"HERE\"", bad);
            let told = match bad.parse::<serde_json::Number>() {
                Ok(_) if TOO_LONG.contains(&bad) => continue,
                Ok(_) => field,
                Err(_) if matches!(bad.trim(), "null" | "1") => continue,
                Err(_) if bad == "true" => field,
                Err(_) => "body",
            };
            expect(told, "POST /uploads/".to_owned(), &[ANN, JSON], raw).await;
        }
    }
    println!("{combinations} combinations of field and number");
    assert!(combinations > 250, "{combinations}");
    assert!(house.holdings().await == before, "a refused request changed a store");
}

/// Numbers that are right by themselves and wrong together.
#[tokio::test(start_paused = true)]
async fn numbers_that_contradict_each_other_are_refused_and_change_nothing() {
    let house = House::new(OwnerOnly).await;
    let id = house.begun(None).await;
    let before = house.holdings().await;
    let max = u64::MAX.to_string();
    for (index, total, size, status, field) in [
        ("3", "3", None, 400, "chunkIndex"),
        ("4294967295", "4294967295", None, 400, "chunkIndex"),
        ("0", "0", None, 400, "totalChunks"),
        ("4294967294", "4294967295", None, 413, ""),
        ("0", "4294967295", None, 413, ""),
        ("0", "3", Some(max.as_str()), 413, ""),
        ("0", "3", Some("1"), 400, "fileSize"),
        ("0", "3", Some("13"), 400, "fileSize"),
        ("0", "1", Some("5"), 400, "chunk"),
    ] {
        let mut fields = vec![
            ("videoId", "n"),
            ("fileName", "n.mp4"),
            ("chunkIndex", index),
            ("totalChunks", total),
        ];
        fields.extend(size.map(|size| ("fileSize", size)));
        fields.push(("chunk", "0123"));
        let reply = house.ask("POST /upload-chunk/", &[ANN, FORM], form(&fields)).await;
        let about = format!("{fields:?}: {} {}", reply.status, reply.text);
        assert_eq!(reply.status, status, "{about}");
        assert_eq!(reply.field().unwrap_or_default(), field, "{about}");
    }
    for (index, total, size, field) in [
        ("1", "4", None, "totalChunks"),
        ("1", "2", None, "totalChunks"),
        ("1", "3", Some("11"), "fileSize"),
        ("3", "3", None, "chunkIndex"),
    ] {
        let mut fields = vec![("uploadId", id.as_str()), ("chunkIndex", index), ("totalChunks", total)];
        fields.extend(size.map(|size| ("fileSize", size)));
        fields.push(("chunk", "4567"));
        let reply = house.ask("POST /upload-chunk/", &[ANN, FORM], form(&fields)).await;
        assert_eq!(
            (reply.status, reply.field().as_deref()),
            (400, Some(field)),
            "{fields:?} {}",
            reply.text
        );
    }
    for (size, chunk, status) in [
        (u64::MAX, 1, 413),
        (u64::MAX, u64::MAX, 413),
        (1, u64::MAX, 413),
        (1 << 40, 1, 413),
        (1, 0, 400),
    ] {
        let body = json!({"fileName": "n", "fileSize": size, "chunkSize": chunk});
        let reply = house.json("POST /uploads/", &body).await;
        assert_eq!(reply.status, status, "{body} {}", reply.text);
    }
    assert!(house.holdings().await == before, "a refused request changed a store");
}
