use super::*;

/// Where the store can, it shows parts in the order asked for before they are published.
pub async fn parts_are_read_before_they_are_published(store: Store) {
    let scene = Scene::new(&store, 1, 4).await;
    let mut parts = scene.send_all().await;
    parts[2] = write(&store, &scene.handle, Slot::aside(2, scene.chunk), &scene.right(2)).await;
    for asked in [&parts[..], &parts[1..3], &parts[3..], &[]] {
        let Some(body) = answered(store.read_parts(&scene.handle, asked).await) else {
            continue;
        };
        let wanted: Vec<u8> = asked.iter().flat_map(|part| scene.right(part.number)).collect();
        let bytes = gather(body).await;
        assert!(
            bytes == wanted,
            "`read_parts` must give the bytes of the asked parts, {}",
            differ(&bytes, &wanted)
        );
    }
    scene.is_absent("After `read_parts`").await;
    scene.publish(&parts, "After its parts were read").await;
}

/// Whole, within, across parts, to the end, past the end.
pub async fn ranges_are_read(store: Store) {
    let scene = Scene::new(&store, 1, 3).await;
    let nothing = store.read(&scene.key, ByteRange::ALL).await;
    assert_eq!(
        kind(nothing),
        Some(ErrorKind::NotFound),
        "A blob that is not there is not found"
    );
    scene.is_absent("Before anything").await;
    let parts = scene.send_all().await;
    scene.publish(&parts, "To be read in ranges").await;
    let (whole, size, chunk) = (scene.whole(), scene.size(), scene.chunk);
    for (start, end) in [
        (0, None),
        (0, Some(size)),
        (0, Some(1)),
        (size - 1, None),
        (size - 1, Some(size)),
        (chunk, Some(2 * chunk)),
        (chunk - 1, Some(chunk + 1)),
        (1, Some(size - 1)),
        (chunk + 3, None),
        (5, Some(5)),
        (size, None),
        (size, Some(size)),
        (size, Some(size + 10)),
        (size - 3, Some(size + 1)),
        (0, Some(u64::MAX)),
    ] {
        let bytes = gather(answered(store.read(&scene.key, ByteRange::new(start, end)).await)).await;
        let bound = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let wanted = &whole[bound(start)..bound(end.unwrap_or(size).min(size))];
        assert!(
            bytes == wanted,
            "A read of {start}..{end:?} of {size} bytes must give those up to the blob's end, {}",
            differ(&bytes, wanted)
        );
    }
    for end in [None, Some(size + 2)] {
        let past = store.read(&scene.key, ByteRange::new(size + 1, end)).await;
        assert_eq!(
            kind(past),
            Some(ErrorKind::Invalid),
            "A read that starts past the blob's end is invalid"
        );
    }
}

/// One blob goes, once; its key can be used again.
pub async fn delete_removes_one_blob(store: Store) {
    let (gone, stays) = (Scene::new(&store, 1, 2).await, Scene::new(&store, 11, 2).await);
    for scene in [&gone, &stays] {
        let parts = scene.send_all().await;
        scene.publish(&parts, "To be deleted, or not").await;
    }
    answered(store.discard(&gone.handle).await);
    answered(store.delete(&key("never/was")).await);
    for _ in 0..2 {
        answered(store.delete(&gone.key).await);
        gone.is_absent("After `delete`").await;
    }
    assert_eq!(
        kind(store.read(&gone.key, ByteRange::ALL).await),
        Some(ErrorKind::NotFound),
        "A deleted blob is not found"
    );
    stays.is_published("After another blob was deleted").await;
    let again = Scene::under(&store, 2, 3, gone.key.as_str()).await;
    let parts = again.send_all().await;
    again.publish(&parts, "Under the key of a deleted blob").await;
}

/// Many blobs, with keys of one and of many segments, long ones and look-alikes.
pub async fn keys_nest(store: Store) {
    let long = "n".repeat(255);
    let keys = [
        "a",
        "A1",
        "b.mp4",
        "b.mp4x",
        "b",
        "dir/b",
        "dir/b.mp4",
        "dir-b",
        "dir.b",
        "dir/sub/b",
        "dir/sub2/b",
        "x/y/z/1/2/3/4/5/6/7/8/9",
        "_",
        "0",
        &long,
        &format!("deep/{long}/{long}"),
    ];
    let mut scenes = Vec::new();
    for (number, path) in (0..).zip(keys) {
        let scene = Scene::under(&store, number, 2, path).await;
        let parts = scene.send_all().await;
        scene.publish(&parts, &format!("Under the key {path}")).await;
        scenes.push(scene);
    }
    for (number, scene) in scenes.iter().enumerate() {
        if number % 2 == 0 {
            answered(store.delete(&scene.key).await);
        }
    }
    for (number, scene) in scenes.iter().enumerate() {
        if number % 2 == 0 {
            scene.is_absent("After `delete` among many").await;
        } else {
            scene.is_published("After others were deleted").await;
        }
    }
}
