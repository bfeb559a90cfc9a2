use super::*;

/// What was answered is there after closing and opening again. `open` opens the same location each time; at
/// the first time it is empty.
///
/// # Panics
/// If a clause of the contract is broken; the message says which.
pub async fn durability<S: BlobStore>(open: impl AsyncFn() -> S) {
    bounded("durability", Box::pin(survives(open))).await;
}

async fn survives<S: BlobStore>(open: impl AsyncFn() -> S) {
    let store: Store = Arc::new(open().await);
    let mut ready = Scene::new(&store, 1, 4).await;
    let mut parts = vec![ready.send(0).await];
    parts.push(write(&store, &ready.handle, Slot::aside(1, ready.chunk), &ready.right(1)).await);
    let mut half = ready.open(2).await;
    answered(half.write(vec![ready.wrong(2).slice(..100)]).await);
    drop(half);
    let mut published = Scene::new(&store, 2, 3).await;
    let of_published = published.send_all().await;
    let blob = published.publish(&of_published, "Before the store is closed").await;
    let mut discarded = Scene::new(&store, 3, 2).await;
    discarded.send(0).await;
    answered(store.discard(&discarded.handle).await);
    let joint = answered(store.begin(upload_id(4), &key("joined"), &Plan::sequential(None)).await);
    let joined = Slot::at(0, 0, of_published.iter().map(|part| part.len).sum());
    let source = Scene::source(&store, 5, 3).await;
    let of_source = source.send_all().await;
    let joined = match answered(
        store
            .join(&joint, joined, Before::default(), &source.handle, &of_source)
            .await,
    ) {
        Joined::Done(receipt) => part(0, &source.whole(), receipt),
        lost @ Joined::PartsLost(_) => panic!("Parts that are there must be joined, got {lost:?}"),
    };
    answered(store.discard(&source.handle).await);
    let whole = source.whole();
    drop(source);
    let [kept, cleared] = ["made/kept/index", "made/cleared/deep/index"].map(key);
    let puts = kind(store.put(&cleared, content(1, 10)).await) != Some(ErrorKind::Invalid);
    if puts {
        answered(store.put(&kept, content(2, 20)).await);
        answered(store.put(&kept, content(3, 5_000)).await);
        answered(store.clear(&key("made/cleared")).await);
    }
    (ready.store, published.store, discarded.store) = (nowhere(), nowhere(), nowhere());
    drop(store);

    let store: Store = Arc::new(open().await);
    (ready.store, published.store, discarded.store) = (store.clone(), store.clone(), store.clone());
    let begun: Vec<Handle> = answered(store.begun(Duration::ZERO).await)
        .into_iter()
        .map(|(_, handle)| handle)
        .collect();
    assert!(
        begun.contains(&ready.handle),
        "What was begun must be listed after opening the store again"
    );
    assert!(
        !begun.contains(&discarded.handle),
        "What was discarded must not come back"
    );
    let done = answered(store.complete(&joint, &key("joined"), &[joined]).await);
    assert!(
        matches!(done, Completed::Done(_)) && bytes_of(&store, &key("joined")).await == whole,
        "What was joined must be there after opening the store again, got {done:?}"
    );
    answered(store.discard(&joint).await);
    if puts {
        assert!(
            bytes_of(&store, &kept).await == content(3, 5_000),
            "What was put last must be there after opening the store again"
        );
        assert_eq!(
            answered(store.head(&cleared).await),
            None,
            "What was cleared must not come back"
        );
    }
    published.is_published("After opening the store again").await;
    assert_eq!(
        published
            .publish(&of_published, "Completed again after opening the store again")
            .await,
        blob,
        "`complete` must give the same answer after opening the store again"
    );
    let mut unfinished = parts.clone();
    unfinished.push(Part::new(2, ready.chunk, 0, Receipt::new("0")));
    let answer = ready.complete(&unfinished).await;
    assert_eq!(
        answer,
        Completed::PartsLost(vec![2]),
        "After opening again finished parts are there, unfinished ones are not"
    );
    parts.extend([ready.send(2).await, ready.send(3).await]);
    ready
        .publish(&parts, "Begun before and completed after opening the store again")
        .await;
    (ready.store, published.store, discarded.store) = (nowhere(), nowhere(), nowhere());
    drop(store);

    let store: Store = Arc::new(open().await);
    (ready.store, published.store) = (store.clone(), store.clone());
    ready.is_published("After opening the store a third time").await;
    ready
        .publish(&parts, "Completed again after opening the store a third time")
        .await;
    answered(store.discard(&ready.handle).await);
    ready.is_published("Discarded after opening the store again").await;
    answered(store.delete(&published.key).await);
    (ready.store, published.store) = (nowhere(), nowhere());
    drop(store);

    let store: Store = Arc::new(open().await);
    ready.store = store.clone();
    published.store = store;
    published.is_absent("Deleted before opening the store again").await;
    ready.is_published("After opening the store a fourth time").await;
}

/// A store to hold while the real one is closed.
fn nowhere() -> Store {
    Arc::new(crate::blob::MemoryBlobs::new())
}
