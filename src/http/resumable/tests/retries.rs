//! What a client is told when a store or a hook says no: whether it shall go on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;

use super::*;
use crate::{
    EventKind, Hook,
    blob::BlobBody,
    conformance::fault::{Call, Fault, FaultyBlobs, FaultyMetadata, ScriptedFaults},
    error::{Error, ErrorKind},
    upload::Record,
};

#[tokio::test]
async fn what_could_not_be_put_together_now_is_asked_for_again() {
    for draft in ALL {
        for begins in ["in one request", "in two"] {
            let faults = ScriptedFaults::new().on(Call::Complete, 0, Fault::FailBefore);
            let blobs = FaultyBlobs::new(MemoryBlobs::new(), Arc::new(faults));
            let builder = Uploads::with(blobs, MemoryMetadata::new()).authorizer(OwnerOnly);
            let wire = Wire::of(builder.without_driver().build().await.unwrap(), Resumable::new());
            let (path, failed) = if begins == "in two" {
                let path = wire.prepared("open").await;
                let ask = format!("PATCH {path}");
                (path, wire.ask(*draft, &ask, &[MEDIA, LAST, AT_5], "56789").await)
            } else {
                let failed = wire.ask(*draft, "POST /files", &[LAST], "0123456789").await;
                (failed.header("location").to_owned(), failed)
            };
            assert_eq!(
                (failed.status, failed.header("upload-complete")),
                (503, "?0"),
                "{}",
                failed.text
            );
            // Sealed: all is there, and no answer was final.
            assert_eq!(wire.upload(&path).await.state(), State::Assembling);
            let head = wire.ask(*draft, &format!("HEAD {path}"), &[], "").await;
            let told = ["upload-offset", "upload-length", "upload-complete"].map(|name| head.header(name));
            assert_eq!((head.status, told), (204, ["10", "10", "?0"]));
            let elsewhere = wire
                .ask(*draft, &format!("PATCH {path}"), &[MEDIA, LAST, AT_5], "56789")
                .await;
            assert_eq!((elsewhere.status, elsewhere.header("upload-offset")), (409, "10"));
            let more = wire
                .ask(*draft, &format!("PATCH {path}"), &[MEDIA, LAST, AT_10], "X")
                .await;
            assert_eq!((more.status, more.header("upload-complete")), (400, "?0"));
            let last = wire
                .ask(*draft, &format!("PATCH {path}"), &[MEDIA, LAST, AT_10], "")
                .await;
            assert_eq!(
                (last.status, last.header("upload-complete")),
                (200, "?1"),
                "{}",
                last.text
            );
            assert_eq!(wire.file(&path).await, "0123456789");
        }
    }
}

/// Refuses every file, with an error of this kind as long as it shall.
struct Refuses(ErrorKind, Arc<AtomicBool>);

#[async_trait]
impl Hook for Refuses {
    async fn before_publish(&self, _: &Record, _: Option<BlobBody>) -> crate::Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::new(self.0, "There is a virus in it"));
        }
        Ok(())
    }

    fn wants(&self, _: EventKind) -> bool {
        false
    }
}

#[tokio::test]
async fn the_word_of_a_hook_is_final_or_is_not() {
    for draft in ALL {
        for kind in [ErrorKind::Forbidden, ErrorKind::Unavailable] {
            let refuses = Arc::new(AtomicBool::new(true));
            let builder = stores().hook(Refuses(kind, refuses.clone())).without_driver();
            let wire = Wire::of(builder.build().await.unwrap(), Resumable::new());
            let refused = wire.ask(*draft, "POST /files", &[LAST], "0123456789").await;
            let is_final = kind == ErrorKind::Forbidden;
            let expected = if is_final { (422, "?1") } else { (503, "?0") };
            assert_eq!(
                (refused.status, refused.header("upload-complete")),
                expected,
                "{}",
                refused.text
            );
            assert!(refused.text.contains("virus"), "{}", refused.text);
            refuses.store(false, Ordering::Relaxed);
            let path = refused.header("location");
            let last = wire
                .ask(*draft, &format!("PATCH {path}"), &[MEDIA, LAST, AT_10], "")
                .await;
            let expected = if is_final { (422, "?1") } else { (200, "?1") };
            assert_eq!((last.status, last.header("upload-complete")), expected, "{}", last.text);
        }
    }
}

#[tokio::test]
async fn any_store_call_may_fail_and_the_client_still_gets_its_file() {
    for lost in [Fault::FailBefore, Fault::FailAfter] {
        for at in 0.. {
            let faults = Arc::new(ScriptedFaults::new().nth(at, lost));
            let blobs = FaultyBlobs::new(MemoryBlobs::new(), faults.clone());
            let metadata = FaultyMetadata::new(MemoryMetadata::new(), faults.clone());
            let builder = Uploads::with(blobs, metadata).authorizer(OwnerOnly).without_driver();
            let wire = Wire::of(builder.build().await.unwrap(), Resumable::new());
            let mut created = wire.ask(Some(10), "POST /files", &[MORE], "01234").await;
            if created.status != 201 {
                assert_eq!(created.status, 503, "{}", created.text);
                if !created.headers.contains_key("location") {
                    created = wire.ask(Some(10), "POST /files", &[MORE], "").await;
                }
            }
            let path = created.header("location").to_owned();
            let mut tries = 0;
            // As the text tells clients: what is not final is asked for, then gone on with.
            let last = loop {
                tries += 1;
                assert!(tries < 5, "{lost:?} of call {at}");
                let head = wire.ask(Some(10), &format!("HEAD {path}"), &[], "").await;
                if head.status != 204 {
                    assert_eq!(head.status, 503, "{}", head.text);
                    continue;
                }
                let offset = head.header("upload-offset").to_owned();
                let rest = &"0123456789"[offset.parse::<usize>().unwrap()..];
                let headers = [MEDIA, LAST, ("upload-offset", offset.as_str())];
                let last = wire.ask(Some(10), &format!("PATCH {path}"), &headers, rest).await;
                if last.header("upload-complete") == "?1" {
                    break last;
                }
                assert!(matches!(last.status, 503 | 409), "{lost:?} of call {at}: {}", last.text);
            };
            assert_eq!(last.status, 200, "{lost:?} of call {at}: {}", last.text);
            let calls = faults.calls().len();
            if calls <= at {
                assert!(at > 10, "no fault was met");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_is_deleted_while_it_is_assembled_is_gone() {
    let fail = |call| {
        if call == Call::Complete {
            Fault::FailBefore
        } else {
            Fault::None
        }
    };
    let blobs = FaultyBlobs::new(MemoryBlobs::new(), Arc::new(fail));
    let builder = Uploads::with(blobs, MemoryMetadata::new()).authorizer(OwnerOnly);
    let wire = Wire::of(builder.without_driver().build().await.unwrap(), Resumable::new());
    let failed = wire.ask(FINAL, "POST /files", &[LAST], "0123456789").await;
    let path = failed.header("location").to_owned();
    let ask = format!("DELETE {path}");
    assert_eq!(wire.ask(FINAL, &ask, &[], "").await.status, 204);
    assert_eq!(wire.upload(&path).await.state(), State::Assembling);
    for (ask, headers) in [
        (ask, &[][..]),
        (format!("HEAD {path}"), &[]),
        (format!("PATCH {path}"), &[MEDIA, LAST, AT_10]),
    ] {
        assert_eq!(wire.ask(FINAL, &ask, headers, "").await.status, 404, "{ask}");
    }
}

#[tokio::test]
async fn of_a_whole_file_that_is_answered_with_an_error_nothing_is_left() {
    let faults = ScriptedFaults::new().on(Call::Complete, 0, Fault::FailBefore);
    let blobs = FaultyBlobs::new(MemoryBlobs::new(), Arc::new(faults));
    let builder = Uploads::with(blobs, MemoryMetadata::new()).authorizer(OwnerOnly);
    let wire = Wire::of(builder.without_driver().build().await.unwrap(), Resumable::new());
    let failed = wire.ask(FINAL, "POST /files", &[], "0123456789").await;
    assert_eq!(failed.status, 503, "{}", failed.text);
    assert!(!failed.headers.contains_key("location") && !failed.headers.contains_key("upload-complete"));
    for _ in 0..200 {
        if wire.count().await == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(wire.count().await, 0);
}
