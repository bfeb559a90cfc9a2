//! What a hook makes of a file, while it makes it and afterwards.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tower_upload::{
    Caller, Event, EventKind, Hook, UploadId,
    hook::Telling,
    upload::{Outcome, Progress},
};

use crate::{
    bytes,
    house::{ANN, EVE, House, Reply},
};

const MASTER: &str = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n360p-1/index.m3u8\n";
const LARGER: &str =
    "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n360p-1/index.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n720p-1/index.m3u8\n";

/// Puts a stream with one rendition, and another one when it is told to.
struct Makes {
    go_on: Arc<Notify>,
    segment: Vec<u8>,
}

#[async_trait]
impl Hook for Makes {
    fn name(&self) -> &str {
        "hls"
    }
    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Assembled
    }
    fn works(&self) -> bool {
        true
    }
    async fn on_event(&self, _: &Event, telling: &Telling) -> tower_upload::Result<()> {
        let put = async |name: &str, bytes: &[u8]| telling.put(name, Bytes::copy_from_slice(bytes)).await;
        put("360p-1/init.mp4", b"init").await?;
        put("360p-1/00000.m4s", &self.segment).await?;
        put("360p-1/00001.ts", b"ts").await?;
        put("360p-1/index.m3u8", b"#EXTM3U\n").await?;
        put("poster.jpg", b"jpg").await?;
        put("master.m3u8", MASTER.as_bytes()).await?;
        telling.progress(Progress::new(50, Some(Duration::from_secs(7))));
        self.go_on.notified().await;
        put("master.m3u8", LARGER.as_bytes()).await
    }
}

async fn house() -> (House, Arc<Notify>, Vec<u8>) {
    let (go_on, segment) = (Arc::new(Notify::new()), bytes(700_000));
    let hook = Makes {
        go_on: go_on.clone(),
        segment: segment.clone(),
    };
    let house = House::built(|builder| builder.hook(hook), |files| files).await;
    (house, go_on, segment)
}

/// Asks until the first rendition is there.
async fn master(house: &House, id: UploadId) -> Reply {
    for _ in 0..1000 {
        let reply = house.get_at(&format!("{id}/hls/master.m3u8"), &[ANN]).await;
        if reply.status == 200 {
            return reply;
        }
        assert_eq!(reply.status, 404, "{}", reply.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there is no master playlist");
}

#[tokio::test]
async fn a_stream_is_read_while_it_is_made() {
    let (house, go_on, segment) = house().await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    let first = master(&house, id).await;
    assert_eq!(first.text(), MASTER);
    let day = "private, max-age=86400, immutable";
    for (name, media, cache, body) in [
        (
            "master.m3u8",
            "application/vnd.apple.mpegurl",
            "private, no-cache",
            MASTER.as_bytes(),
        ),
        ("poster.jpg", "image/jpeg", "private, no-cache", b"jpg"),
        (
            "360p-1/index.m3u8",
            "application/vnd.apple.mpegurl",
            "private, no-cache",
            b"#EXTM3U\n",
        ),
        ("360p-1/init.mp4", "video/mp4", day, b"init"),
        ("360p-1/00000.m4s", "video/iso.segment", day, &segment),
        ("360p-1/00001.ts", "video/mp2t", day, b"ts"),
    ] {
        let path = format!("{id}/hls/{name}");
        let reply = house.get_at(&path, &[ANN]).await;
        assert!(
            reply.status == 200 && reply.is_whole && reply.body == body,
            "{name}: {:?}",
            reply.headers
        );
        assert_eq!(
            (reply.header("content-type"), reply.header("cache-control")),
            (media, cache),
            "{name}"
        );
        assert!(reply.header("content-disposition").starts_with("inline"), "{name}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin");
        let etag = reply.header("etag");
        let again = house.get_at(&path, &[ANN, ("if-none-match", etag)]).await;
        assert_eq!((again.status, again.header("cache-control")), (304, cache), "{name}");
        let part = house.get_at(&path, &[ANN, ("range", "bytes=1-2")]).await;
        let range = format!("bytes 1-2/{}", body.len());
        if body.len() > 2 {
            assert_eq!(
                (part.status, part.header("content-range"), &part.body[..]),
                (206, &*range, &body[1..3]),
                "{name}"
            );
        }
        let head = house.ask(&format!("HEAD /media/{path}"), &[ANN]).await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, body.len().to_string().as_str())
        );
        assert_eq!(house.get_at(&path, &[EVE]).await.status, 404, "{name}");
        assert_eq!(house.get_at(&path, &[]).await.status, 401, "{name}");
    }
    let several = house
        .get_at(
            &format!("{id}/hls/360p-1/00000.m4s"),
            &[ANN, ("range", "bytes=0-9,600000-")],
        )
        .await;
    assert!(several.status == 206 && several.is_whole);
    for missing in ["720p-1/index.m3u8", "360p-1", "360p-1/00002.m4s"] {
        assert_eq!(
            house.get_at(&format!("{id}/hls/{missing}"), &[ANN]).await.status,
            404,
            "{missing}"
        );
    }

    // The playlist grows, and whoever has the old one learns it.
    go_on.notify_one();
    let mut now = master(&house, id).await;
    for _ in 0..1000 {
        if now.text() == LARGER {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        let known = [ANN, ("if-none-match", first.header("etag"))];
        now = house.get_at(&format!("{id}/hls/master.m3u8"), &known).await;
    }
    assert_eq!(now.text(), LARGER);

    house.uploads.delete(&Caller::new("ann"), id).await.unwrap();
    for name in ["master.m3u8", "360p-1/00000.m4s"] {
        assert_eq!(
            house.get_at(&format!("{id}/hls/{name}"), &[ANN]).await.status,
            404,
            "{name}"
        );
    }
}

/// Puts a large file beside the folders of its stream, and another of the same size in its place when it is told to.
struct Replaces(Arc<Notify>);

const LARGE: usize = (4 << 20) + 1;

#[async_trait]
impl Hook for Replaces {
    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Assembled
    }
    async fn on_event(&self, _: &Event, telling: &Telling) -> tower_upload::Result<()> {
        telling.put("all.mp4", vec![b'1'; LARGE].into()).await?;
        telling.put("1/all.mp4", vec![b'1'; LARGE].into()).await?;
        self.0.notified().await;
        telling.put("all.mp4", vec![b'2'; LARGE].into()).await?;
        telling.put("master.m3u8", MASTER.into()).await
    }
}

#[tokio::test]
async fn what_may_be_replaced_and_is_too_large_to_be_compared_is_sent_anew() {
    let go_on = Arc::new(Notify::new());
    let hook = Replaces(go_on.clone());
    let house = House::built(|builder| builder.hook(hook), |files| files).await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    let (path, in_folder) = (format!("{id}/hls/all.mp4"), format!("{id}/hls/1/all.mp4"));
    let mut folders = house.get_at(&in_folder, &[ANN]).await;
    for _ in 0..1000 {
        if folders.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        folders = house.get_at(&in_folder, &[ANN]).await;
    }
    let first = house.get_at(&path, &[ANN]).await;
    assert!(first.status == 200 && first.body.iter().all(|byte| *byte == b'1'));
    assert_eq!(first.header("cache-control"), "private, no-cache");
    go_on.notify_one();
    master(&house, id).await;
    let tag = folders.header("etag");
    for known in ["if-none-match", "if-match", "if-range"] {
        let of_one = house
            .get_at(&in_folder, &[ANN, (known, tag), ("range", "bytes=1-2")])
            .await;
        let expected = if known == "if-none-match" { 304 } else { 206 };
        assert_eq!(
            of_one.status, expected,
            "{known}: what lies in a folder is written once"
        );
        let now = house.get_at(&path, &[ANN, (known, tag), ("range", "bytes=1-2")]).await;
        let is_new = now.body.iter().all(|byte| *byte == b'2');
        let expected = match known {
            "if-none-match" => 206,
            "if-match" => 412,
            _ => 200,
        };
        assert!(
            now.status == expected && (is_new || expected == 412),
            "{known}: {}",
            now.status
        );
    }
    let head = house.ask(&format!("HEAD /media/{path}"), &[ANN]).await;
    assert!(
        head.headers.iter().all(|(name, _)| name != "etag"),
        "{:?}",
        head.headers
    );
}

#[tokio::test]
async fn one_signature_covers_the_stream_and_not_the_file() {
    let (house, _, segment) = house().await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    let other = house.file("b.mp4", "video/mp4", b"0123456789").await;
    master(&house, id).await;
    master(&house, other).await;
    let path = house.signer.hls(&Caller::new("ann"), id, Duration::from_secs(600));
    let path = path.strip_prefix('/').unwrap();
    let playlist = house.get_at(path, &[]).await;
    assert_eq!((playlist.status, playlist.text().as_str()), (200, MASTER));
    assert_eq!(playlist.header("cache-control"), "private, no-cache");
    // As a player resolves what the playlist names.
    let beside = |name: &str| path.replace("master.m3u8", name);
    let reply = house.get_at(&beside("360p-1/00000.m4s"), &[]).await;
    assert!(reply.status == 200 && reply.body == segment);
    assert_eq!(reply.header("cache-control"), "private, max-age=600, immutable");
    assert_eq!(
        house
            .get_at(path.strip_suffix("/hls/master.m3u8").unwrap(), &[])
            .await
            .status,
        403
    );
    assert_eq!(
        house
            .get_at(&path.replace(&id.to_string(), &other.to_string()), &[])
            .await
            .status,
        403
    );
    house.hands.0.fetch_add(600_000, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(house.get_at(&beside("360p-1/00000.m4s"), &[]).await.status, 403);
}

#[tokio::test]
async fn who_watches_an_upload_sees_its_hooks_come_to_their_end() {
    let (house, go_on, _) = house().await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    let mut changes = house.uploads.watch(&Caller::new("ann"), id, None).await.unwrap();
    let mut seen = Vec::new();
    while let Some(upload) = changes.next().await {
        let upload = upload.unwrap();
        let delivery = upload.record().deliveries.get("hls");
        let now = delivery.and_then(|delivery| Some((delivery.outcome?, delivery.progress)));
        if let Some((Outcome::Running, Some(progress))) = now {
            assert_eq!(progress.percent, 50);
            go_on.notify_one();
        }
        seen.extend(now.map(|(outcome, _)| outcome));
    }
    assert_eq!(
        (seen.first(), seen.last()),
        (Some(&Outcome::Running), Some(&Outcome::Finished))
    );
}
