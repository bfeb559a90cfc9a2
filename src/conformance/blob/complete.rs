use super::*;
use crate::conformance::{RACERS, all};

/// Again, and by many at once: the same answer, the same bytes.
pub async fn complete_is_idempotent(store: Store) {
    let scene = Scene::new(&store, 1, 3).await;
    let parts = scene.send_all().await;
    let blob = scene.publish(&parts, "Completed once").await;
    for _ in 0..2 {
        assert_eq!(
            scene.publish(&parts, "Completed again").await,
            blob,
            "`complete` must give the same answer again"
        );
    }
    for number in 2..8 {
        let scene = Scene::new(&store, number, 3).await;
        let parts = scene.send_all().await;
        let tasks = (0..RACERS).map(|_| {
            let (scene, parts) = (scene.clone(), parts.clone());
            tokio::spawn(async move { scene.complete(&parts).await })
        });
        for answer in all(tasks.collect()).await {
            assert!(
                matches!(answer, Completed::Done(_)),
                "Whoever completes at the same time must be told `Done`, got {answer:?}"
            );
        }
        scene.is_published("Completed by many at once").await;
    }
}

/// Parts that are not there as recorded are named, nothing is published, and they can be sent again.
pub async fn complete_names_lost_parts(store: Store) {
    let scene = Scene::new(&store, 1, 4).await;
    let mut parts = vec![scene.send(0).await, scene.send(1).await];
    let never = Part::new(2, scene.chunk, 0, parts[1].receipt.clone());
    parts.extend([never, scene.send(3).await]);
    let mut altered = parts.clone();
    altered[1].receipt = Receipt::new(format!("{}0", parts[1].receipt.as_str()));
    let mut shorter = parts.clone();
    shorter[3].len -= 1;
    for (what, parts, lost) in [
        ("one was never sent", &parts, vec![2]),
        ("one was never sent and one has another receipt", &altered, vec![1, 2]),
        ("one was never sent and one has another length", &shorter, vec![2, 3]),
    ] {
        assert_eq!(
            scene.complete(parts).await,
            Completed::PartsLost(lost),
            "`complete` must name the parts that are not there as recorded: {what}"
        );
        scene.is_absent("After `PartsLost`").await;
    }
    parts[2] = scene.send(2).await;
    parts[1] = scene.send(1).await;
    scene.publish(&parts, "After lost parts were sent again").await;

    let scene = Scene::new(&store, 2, 2).await;
    let mut parts = scene.send_all().await;
    let older = parts[0].clone();
    write(&scene.store, &scene.handle, scene.slot(0), &scene.wrong(0)).await;
    // A store that keeps every attempt apart has the older one still. The newer one's bytes are never taken for it.
    match scene.complete(&[older, parts[1].clone()]).await {
        Completed::Done(_) => {
            scene
                .is_published("With the receipt of the older of two attempts")
                .await
        }
        answer => {
            assert!(
                matches!(&answer, Completed::PartsLost(lost) if lost.contains(&0)),
                "The receipt of an attempt that a later one replaced is not what is there, got {answer:?}"
            );
            scene.is_absent("After `PartsLost`").await;
            parts = scene.send_all().await;
            scene.publish(&parts, "After a replaced part was sent again").await;
        }
    }
}

/// Writers that were open, and such as are opened later, change nothing that is published.
pub async fn nothing_changes_after_complete(store: Store) {
    let scene = Scene::new(&store, 1, 3).await;
    let parts = scene.send_all().await;
    let mut held = scene.open(0).await;
    let mut aside = answered(store.open(&scene.handle, Slot::aside(1, scene.chunk)).await);
    let idle = scene.open(2).await;
    let blob = scene.publish(&parts, "Completed while writers were open").await;
    for writer in [&mut held, &mut aside] {
        assert_eq!(
            kind(writer.write(vec![scene.wrong(0)]).await),
            Some(ErrorKind::Superseded),
            "A writer that was open when the upload was completed must be told `Superseded` when it writes"
        );
    }
    assert_eq!(
        kind(idle.finish().await),
        Some(ErrorKind::Superseded),
        "A writer that was open when the upload was completed must be told `Superseded` when it finishes"
    );
    drop((held, aside));
    for slot in [scene.slot(0), Slot::aside(1, scene.chunk)] {
        if let Ok(mut writer) = store.open(&scene.handle, slot).await
            && writer.write(vec![scene.wrong(slot.number)]).await.is_ok()
        {
            assert!(
                writer.finish().await.is_err(),
                "No part of a published upload may be finished"
            );
        }
    }
    scene.is_published("After late writes").await;
    assert_eq!(
        scene.publish(&parts, "Completed again after late writes").await,
        blob,
        "A published blob never changes"
    );
}

/// That something lies under the key proves nothing, and it is not written over.
pub async fn a_taken_key_is_never_written_over(store: Store) {
    let first = Scene::under(&store, 1, 3, "taken.mp4").await;
    let second = Scene::under(&store, 2, 3, "taken.mp4").await;
    let (of_first, of_second) = (first.send_all().await, second.send_all().await);
    first.publish(&of_first, "The first under its key").await;
    for _ in 0..2 {
        assert_eq!(
            second.complete(&of_second).await,
            Completed::KeyTaken,
            "A key that holds another upload's blob of the same size is taken"
        );
    }
    first
        .is_published("After another upload was completed under the same key")
        .await;
    answered(store.discard(&second.handle).await);
    first.is_published("After that other upload was discarded").await;
    first.publish(&of_first, "Completed again after all this").await;

    let mut third = Scene::under(&store, 3, 2, "taken.mp4").await;
    let of_third = third.send_all().await;
    assert_eq!(
        third.complete(&of_third).await,
        Completed::KeyTaken,
        "A key that holds a blob of another size is taken"
    );
    third.key = key("free.mp4");
    // What lies where the blob would have been cannot go elsewhere in every store, and is sent again then.
    if let Completed::PartsLost(_) = third.complete(&of_third).await {
        let again = third.send_all().await;
        third
            .publish(&again, "Sent again for another key after `KeyTaken`")
            .await;
    } else {
        third
            .publish(&of_third, "Completed under another key after `KeyTaken`")
            .await;
    }
}

/// Of two uploads completed under one key at once one has it.
pub async fn one_key_goes_to_one_upload(store: Store) {
    for round in 0..10 {
        let path = format!("contended/{round}");
        let mut tasks = Vec::new();
        for number in 0..4 {
            let scene = Scene::under(&store, round * 10 + number, 2, &path).await;
            let parts = scene.send_all().await;
            tasks.push(tokio::spawn(async move { (scene.complete(&parts).await, scene) }));
        }
        let answers = all(tasks).await;
        let done: Vec<&Scene> = answers
            .iter()
            .filter(|(answer, _)| matches!(answer, Completed::Done(_)))
            .map(|(_, scene)| scene)
            .collect();
        let taken = answers
            .iter()
            .filter(|(answer, _)| *answer == Completed::KeyTaken)
            .count();
        assert_eq!(
            (done.len(), taken),
            (1, 3),
            "Of several uploads completed under one key at once one has it, the others are told `KeyTaken`"
        );
        done[0].is_published("The one that was told `Done`").await;
    }
}
