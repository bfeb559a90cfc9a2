use futures_util::future::join_all;

use super::*;
use crate::conformance::cut;

/// Whether the store takes objects that are put at all. One that does not says so both times.
async fn puts(store: &Store) -> bool {
    let put = kind(store.put(&key("puts/at-all"), Bytes::new()).await);
    let cleared = kind(store.clear(&key("puts")).await);
    let cannot = Some(ErrorKind::Invalid);
    assert_eq!(
        put == cannot,
        cleared == cannot,
        "A store takes both `put` and `clear` or refuses both as invalid"
    );
    assert!(put.is_none() || put == cannot, "A healthy store failed: {put:?}");
    put.is_none()
}

/// An object is there whole, and a newer one in its place, shorter or longer.
pub async fn put_replaces_whole_objects(store: Store) {
    if !puts(&store).await {
        return;
    }
    let (one, other) = (key("made/of/one/master"), key("made/of/one/master-2"));
    answered(store.put(&other, content(9, 77)).await);
    for (who, len) in [(1, 5_000), (2, 700_001), (3, 0), (4, 12)] {
        let bytes = content(who, len);
        answered(store.put(&one, bytes.clone()).await);
        let head = answered(store.head(&one).await).map(|blob| blob.size);
        assert_eq!(head, Some(len), "`head` must tell the size of what was put last");
        let read = bytes_of(&store, &one).await;
        assert!(
            read == bytes,
            "What was put last must be read, {}",
            differ(&read, &bytes)
        );
        // The same again.
        answered(store.put(&one, bytes).await);
    }
    let read = bytes_of(&store, &other).await;
    assert!(read == content(9, 77), "What was put beside it must stay");
    if let Some(path) = store.local_path(&one) {
        let file = std::fs::read(path).unwrap_or_default();
        assert!(
            file == content(4, 12),
            "`local_path` must name the file of what was put"
        );
    }
    answered(store.delete(&one).await);
    assert_eq!(
        answered(store.head(&one).await),
        None,
        "What was put can be deleted by itself"
    );
    assert_eq!(
        store.local_path(&one),
        None,
        "`local_path` names nothing where nothing is"
    );
}

/// Whoever reads while it is replaced sees the old object or the new one.
pub async fn put_is_never_seen_by_half(store: Store) {
    if !puts(&store).await {
        return;
    }
    let at = key("made/of/two/master");
    let (old, new) = (content(1, 300_000), content(2, 400_000));
    answered(store.put(&at, old.clone()).await);
    for round in 0..20 {
        let (before, after) = if round % 2 == 0 { (&old, &new) } else { (&new, &old) };
        let reads = join_all((0..4).map(async |_| {
            tokio::task::yield_now().await;
            let body = store.read(&at, ByteRange::ALL).await;
            assert_eq!(
                body.as_ref().err().map(crate::Error::kind),
                None,
                "An object that is replaced is there all the time"
            );
            gather(answered(body)).await
        }));
        let (put, read) = futures_util::future::join(store.put(&at, after.clone()), reads).await;
        answered(put);
        for bytes in read {
            assert!(
                bytes == *before || bytes == *after,
                "What is read while it is replaced must be the old object or the new one, {}",
                differ(&bytes, after)
            );
        }
    }
}

/// All below a folder goes, and nothing else; any number of times.
pub async fn clear_removes_what_lies_below(store: Store) {
    if !puts(&store).await {
        return;
    }
    let folder = key("made/of/three");
    let below = ["a", "b.m4s", "deep/er/c", "deep/d"].map(|name| key(&format!("{folder}/{name}")));
    let beside = ["made/of/three2/a", "made/of/three.x", "made/of/a", "three/a"].map(key);
    for round in 0..2 {
        for (who, at) in (0..).zip(below.iter().chain(&beside)) {
            answered(store.put(at, content(who, 100)).await);
        }
        for _ in 0..2 {
            answered(store.clear(&folder).await);
            for at in &below {
                let head = answered(store.head(at).await);
                assert_eq!(head, None, "After `clear` nothing lies below the folder, round {round}");
            }
        }
    }
    for at in &beside {
        let head = answered(store.head(at).await);
        assert!(head.is_some(), "`clear` leaves what is not below the folder: {at}");
    }
    answered(store.clear(&key("never/was")).await);
    answered(store.clear(&beside[2]).await);
    let head = answered(store.head(&beside[2]).await);
    assert!(head.is_some(), "An object is not below its own key");
    for polls in 1..=10 {
        answered(store.put(&below[2], content(1, 10)).await);
        cut(store.clear(&folder), polls).await;
        answered(store.clear(&folder).await);
        let head = answered(store.head(&below[2]).await);
        assert_eq!(head, None, "After a dropped `clear` was made again");
    }
}
