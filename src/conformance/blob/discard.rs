use super::*;

/// Finished, half-written and open attempts all go; to do it again is no error.
pub async fn discard_removes_everything(store: Store) {
    let scene = Scene::new(&store, 1, 4).await;
    let mut parts = scene.send_all().await;
    let mut half = scene.open(1).await;
    answered(half.write(vec![scene.wrong(1).slice(..10)]).await);
    drop(answered(store.open(&scene.handle, Slot::aside(2, scene.chunk)).await));
    for _ in 0..2 {
        answered(store.discard(&scene.handle).await);
    }
    let late = match half.write(vec![scene.wrong(1).slice(10..)]).await {
        Ok(()) => half.finish().await.ok(),
        Err(_) => None,
    };
    if let Some(receipt) = late {
        parts[1] = part(1, &scene.wrong(1), receipt);
    }
    let answer = store.complete(&scene.handle, &scene.key, &parts).await;
    assert!(
        !matches!(answer, Ok(Completed::Done(_))),
        "What was discarded cannot be completed, got {answer:?}"
    );
    scene.is_absent("After `discard`").await;
    assert!(
        !is_begun(&store, &scene.handle).await,
        "A discarded upload must not be begun any more, nor by a late writer"
    );
    answered(store.discard(&scene.handle).await);

    let again = Scene::new(&store, 1, 2).await;
    let parts = again.send_all().await;
    again
        .publish(&parts, "An upload begun with the id of one that was discarded")
        .await;
}

/// A published blob stays.
pub async fn discard_leaves_what_was_published(store: Store) {
    let scene = Scene::new(&store, 1, 3).await;
    let parts = scene.send_all().await;
    scene.publish(&parts, "Completed").await;
    for _ in 0..2 {
        answered(store.discard(&scene.handle).await);
        scene.is_published("After `discard`").await;
    }
    assert!(
        !is_begun(&store, &scene.handle).await,
        "A discarded upload must not be begun any more"
    );
}

/// What was begun is listed once old enough, until it is discarded.
pub async fn begun_lists_what_was_not_discarded(store: Store) {
    let scenes = [
        Scene::new(&store, 1, 2).await,
        Scene::new(&store, 2, 2).await,
        Scene::new(&store, 3, 2).await,
    ];
    scenes[1].send(0).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let listed = answered(store.begun(Duration::ZERO).await);
    for (number, scene) in (1..).zip(&scenes) {
        assert!(
            listed.contains(&(upload_id(number), scene.handle.clone())),
            "Whatever was begun must be listed with its id and handle, with parts and without: {listed:?}"
        );
    }
    let old = answered(store.begun(Duration::from_secs(3600)).await);
    assert_eq!(old, vec![], "What was begun a moment ago is not an hour old");
    answered(store.discard(&scenes[1].handle).await);
    for (scene, expected) in scenes.iter().zip([true, false, true]) {
        assert_eq!(
            is_begun(&store, &scene.handle).await,
            expected,
            "Only what was discarded is forgotten"
        );
    }
    let handle = answered(store.begun(Duration::ZERO).await)
        .into_iter()
        .find(|(id, _)| *id == upload_id(3));
    let (_, handle) = handle.expect("it was just listed");
    answered(store.discard(&handle).await);
    assert!(!is_begun(&store, &handle).await, "A listed handle can be discarded");
}

async fn is_begun(store: &Store, handle: &Handle) -> bool {
    answered(store.begun(Duration::ZERO).await)
        .iter()
        .any(|(_, listed)| listed == handle)
}
