use std::sync::{Arc, Mutex};

use super::*;
use crate::http::{Interim, InterimSender};

#[derive(Default)]
struct Recorder(Mutex<Vec<Response<()>>>);

impl InterimSender for Recorder {
    fn send(&self, response: Response<()>) {
        self.0.lock().unwrap().push(response);
    }
}

/// The fields of each interim answer, and the final one.
async fn recorded(
    wire: &Wire,
    draft: Draft,
    ask: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> (Vec<String>, Reply) {
    let recorder = Arc::new(Recorder::default());
    let mut asked = request(ask, headers, Full::new(Bytes::from(body)));
    asked.extensions_mut().insert(Interim::new(recorder.clone()));
    let reply = wire.send(draft, asked).await;
    let sent = recorder.0.lock().unwrap();
    let told = sent.iter().map(|response| {
        assert_eq!(response.status(), 104);
        let version = response.headers().get("upload-draft-interop-version");
        assert_eq!(version.map(|version| version.to_str().unwrap().parse().unwrap()), draft);
        let mut fields: Vec<String> = response
            .headers()
            .iter()
            .filter(|(name, _)| *name != "upload-draft-interop-version")
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        fields.sort();
        fields.join(", ")
    });
    (told.collect(), reply)
}

async fn wire() -> Wire {
    Wire::of(stores().checkpoint(4).build().await.unwrap(), Resumable::new())
}

#[tokio::test]
async fn a_creation_is_announced_before_its_body_is_read() {
    for draft in ALL {
        for (complete, status) in [(LAST, 200), (MORE, 201)] {
            let (told, reply) = recorded(&wire().await, *draft, "POST /files", &[complete], "0123456789").await;
            assert_eq!(reply.status, status);
            let location = format!("location: {}", reply.header("location"));
            let progress = ["upload-offset: 4", "upload-offset: 8", "upload-offset: 10"].map(str::to_owned);
            let expected = match draft {
                // 1: none to whom does not say which draft it speaks.
                None => Vec::new(),
                // 4.2: the location; 4.3: progress since -03; 4.2: the limits since -04.
                Some(3 | 4) => vec![location],
                Some(5) => [vec![location], progress.to_vec()].concat(),
                Some(_) => [
                    vec![format!("{location}, upload-limit: max-size=100")],
                    progress.to_vec(),
                ]
                .concat(),
            };
            assert_eq!(told, expected, "{draft:?}");
        }
    }
}

#[tokio::test]
async fn an_append_is_told_its_progress_and_no_location() {
    for draft in ALL {
        let wire = wire().await;
        let path = wire.prepared("open").await;
        let (told, reply) = recorded(&wire, *draft, &format!("PATCH {path}"), &[MEDIA, LAST, AT_5], "56789").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let has_progress = draft.is_some_and(|version| version >= 5);
        let expected: &[&str] = if has_progress {
            &["upload-offset: 9", "upload-offset: 10"]
        } else {
            &[]
        };
        assert_eq!(told, expected, "{draft:?}");
    }
}

#[tokio::test]
async fn nobody_else_hears_of_it() {
    let wire = wire().await;
    for (draft, headers) in [(Some(11), &[LAST][..]), (Some(2), &[LAST]), (Some(10), &[])] {
        let (told, reply) = recorded(&wire, draft, "POST /files", headers, "0123456789").await;
        assert_eq!((told.len(), reply.status), (0, 200), "{draft:?} {headers:?}");
    }
}

#[tokio::test]
async fn a_cut_body_was_announced_and_is_gone_on_with() {
    let wire = wire().await;
    let recorder = Arc::new(Recorder::default());
    let frames = [
        Ok(http_body::Frame::data(Bytes::from("01234"))),
        Err(std::io::Error::other("connection reset")),
    ];
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
    let mut asked = request("POST /files", &[LAST, ("content-length", "10")], body);
    asked.extensions_mut().insert(Interim::new(recorder.clone()));
    let reply = wire.send(Some(6), asked).await;
    let path = recorder.0.lock().unwrap()[0].headers()["location"]
        .to_str()
        .unwrap()
        .to_owned();
    // 4.6: the same wherever it is told.
    assert_eq!((reply.status, reply.header("location")), (400, path.as_str()));
    let head = wire.ask(Some(6), &format!("HEAD {path}"), &[], "").await;
    assert_eq!(
        (head.header("upload-offset"), head.header("upload-length")),
        ("5", "10")
    );
    let last = wire
        .ask(Some(6), &format!("PATCH {path}"), &[MEDIA, LAST, AT_5], "56789")
        .await;
    assert_eq!(last.status, 200);
    assert_eq!(wire.file(&path).await, "0123456789");
}
