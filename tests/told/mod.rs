//! Every event is told, in order, by whichever process there is: the same on each store that outlives one.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use tower_upload::{
    Caller, Error, Event, EventKind, Hook, NewUpload, State, UploadId, Uploads, access::OwnerOnly, blob::MemoryBlobs,
    hook::Telling, metadata::MetadataStore,
};

/// Much longer than it takes: a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Long enough that the first process is gone before it tells again.
const HOLD: Duration = Duration::from_secs(3);

/// What lies outside of a hook, and so outlives its engine.
#[derive(Clone, Default)]
struct Ear {
    fails: Arc<AtomicU32>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Ear {
    /// Fails so often before it hears.
    fn failing(times: u32) -> Self {
        let ear = Self::default();
        ear.fails.store(times, Ordering::SeqCst);
        ear
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

struct Named(&'static str, Ear);

#[async_trait]
impl Hook for Named {
    fn name(&self) -> &str {
        self.0
    }

    async fn on_event(&self, event: &Event, _: &Telling) -> tower_upload::Result<()> {
        let Ear { fails, heard } = &self.1;
        heard.lock().unwrap().push(match &event.hook {
            Some(hook) => format!("{} {hook}", event.kind()),
            None => event.kind().to_string(),
        });
        let left = fails.load(Ordering::SeqCst);
        fails.store(left.saturating_sub(1), Ordering::SeqCst);
        if left > 0 {
            return Err(Error::unavailable("no such luck").with_retry_after(HOLD));
        }
        Ok(())
    }
}

async fn until(what: &str, reached: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !reached().await {
        assert!(began.elapsed() < PATIENCE, "{what}: it does not come to that");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs three engines one after the other over `open`, which opens the same store again each time.
pub(crate) async fn all_is_told_in_order_also_by_the_next_process<M: MetadataStore>(open: impl AsyncFn() -> M) {
    let blobs = Arc::new(MemoryBlobs::new());
    let (once, deaf, well) = (Ear::failing(1), Ear::failing(u32::MAX), Ear::default());
    let start = async || {
        Uploads::with(blobs.clone(), open().await)
            .authorizer(OwnerOnly)
            .hook(Named("once", once.clone()))
            .hook(Named("deaf", deaf.clone()))
            .hook(Named("well", well.clone()))
            .hook_attempts(2)
            .build()
            .await
            .unwrap()
    };
    let ann = Caller::new("ann");
    let is_all_told = async |uploads: &Uploads, id: UploadId| {
        let upload = uploads.status(&ann, id).await.unwrap();
        upload.record().outbox.is_empty()
    };

    // The first is gone once each was told something: two of them in vain.
    let first = start().await;
    let id = first.create(&ann, NewUpload::new("a.mp4").size(3)).await.unwrap().id();
    let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
    first.append(&ann, id, 0, body).await.unwrap();
    let upload = first.assemble(&ann, id, None).await.unwrap();
    assert_eq!(upload.state(), State::Assembled);
    until("something is told", async || {
        [&once, &deaf].iter().all(|ear| !ear.heard().is_empty())
    })
    .await;
    assert!(!is_all_told(&first, id).await);
    first.shutdown(PATIENCE).await;
    drop(first);

    let second = start().await;
    until("all is told or given up", async || is_all_told(&second, id).await).await;
    assert_eq!(once.heard()[..3], ["created", "created", "assembled"]);
    assert_eq!(deaf.heard(), ["created", "created", "assembled", "assembled"]);
    let news = ["hook-failed deaf", "hook-failed deaf"];
    assert_eq!(once.heard()[3..], news);
    assert_eq!(well.heard()[..2], ["created", "assembled"]);
    assert_eq!(well.heard()[2..], news);
    second.shutdown(PATIENCE).await;
    drop(second);

    let third = start().await;
    let letters = third.dead_letters().await.unwrap();
    let listed: Vec<_> = letters
        .iter()
        .map(|letter| (letter.hook.as_str(), letter.event.kind(), letter.attempts))
        .collect();
    assert_eq!(
        listed,
        [("deaf", EventKind::Created, 2), ("deaf", EventKind::Assembled, 2)]
    );
    assert!(letters[0].error.contains("no such luck"), "{}", letters[0].error);
    deaf.fails.store(0, Ordering::SeqCst);
    for letter in &letters {
        assert!(third.retry_dead_letter(letter.event.id, "deaf").await.unwrap());
    }
    until("what was given up is told", async || is_all_told(&third, id).await).await;
    assert_eq!(deaf.heard()[4..], ["created", "assembled"]);
    assert!(third.dead_letters().await.unwrap().is_empty());
    third.shutdown(PATIENCE).await;
}
