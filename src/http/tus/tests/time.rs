//! Expiry, by the clock of the metadata store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::*;
use crate::{Clock, access::OwnerOnly, blob::MemoryBlobs, metadata::MemoryMetadata, upload::Timestamp};

/// Tue, 14 Nov 2023 22:13:20 GMT, and as many seconds as were waited.
#[derive(Debug, Default)]
pub(super) struct Seconds(AtomicU64);

impl Clock for Seconds {
    fn now(&self) -> Timestamp {
        let waited = Duration::from_secs(self.0.load(Ordering::Relaxed));
        Timestamp::from_millis(1_700_000_000_000).after(waited)
    }
}

async fn hour() -> (Wire, Arc<Seconds>) {
    let clock = Arc::new(Seconds::default());
    let metadata = MemoryMetadata::with_clock(clock.clone());
    let stores = Uploads::with(MemoryBlobs::new().by_clock(clock.clone()), metadata);
    let uploads = stores
        .authorizer(OwnerOnly)
        .expire_after(Duration::from_secs(3600))
        .remember_ended(Duration::from_secs(3600))
        .build()
        .await
        .unwrap();
    (serve(uploads, Tus::new()), clock)
}

/// Time passes, and whoever has something to do does it.
pub(super) async fn pass(clock: &Seconds, seconds: u64) {
    clock.0.fetch_add(seconds, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn uploads_expire_when_nobody_goes_on_with_them() {
    let (wire, clock) = hour().await;
    let reply = wire.tus("POST /files", &[("upload-length", "10")], whole("")).await;
    assert_eq!(reply.header("upload-expires"), "Tue, 14 Nov 2023 23:13:20 GMT");
    let id = reply.header("location").strip_prefix("/api/files/").unwrap();
    let partial = [("upload-length", "10"), ("upload-concat", "partial")];
    let partial = wire.created(&partial, "0123456789").await;
    let finished = wire.created(&[("upload-length", "10")], "0123456789").await;

    // Whoever goes on with it keeps it.
    pass(&clock, 1800).await;
    let reply = wire.patch(id, 0, "0123").await;
    assert_eq!(reply.header("upload-expires"), "Tue, 14 Nov 2023 23:43:20 GMT");
    assert_eq!(
        wire.head(id).await.header("upload-expires"),
        "Tue, 14 Nov 2023 23:43:20 GMT"
    );
    let refused = wire.patch(id, 0, "0123").await;
    assert_eq!(
        (refused.status, refused.header("upload-expires")),
        (409, "Tue, 14 Nov 2023 23:43:20 GMT")
    );

    pass(&clock, 1801).await;
    assert_eq!(
        wire.head(&partial).await.status,
        410,
        "a partial upload that nobody joined expires too"
    );
    assert_eq!(wire.head(id).await.status, 200);

    pass(&clock, 1800).await;
    for _ in 0..2 {
        assert_eq!(wire.head(id).await.status, 410);
        let reply = wire.patch(id, 4, "456789").await;
        assert_eq!(
            (reply.status, reply.headers.contains_key("upload-offset")),
            (410, false)
        );
        assert_eq!(
            wire.tus(&format!("DELETE /files/{id}"), &[], whole("")).await.status,
            410
        );
        assert_eq!(wire.get(id).await.status, 404);
    }

    // When it is forgotten it was never there.
    pass(&clock, 7200).await;
    assert_eq!(wire.head(id).await.status, 404);
    assert_eq!(wire.patch(id, 4, "456789").await.status, 404);
    assert_eq!(wire.get(&finished).await.text, "0123456789", "what is finished stays");
}
