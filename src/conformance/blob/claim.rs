use super::*;
use crate::conformance::{RACERS, all};

/// W0 writes half; W1 opens, writes and finishes; W0 goes on: it is told so, and W1's bytes are intact.
pub async fn an_older_attempt_changes_no_byte(store: Store) {
    for (number, aside) in [(1, false), (2, true)] {
        let scene = Scene::new(&store, number, 3).await;
        let slot = if aside {
            Slot::aside(1, scene.chunk)
        } else {
            scene.slot(1)
        };
        let mut older: Vec<Box<dyn PartWriter>> = Vec::new();
        for _ in 0..2 {
            let mut writer = answered(store.open(&scene.handle, slot).await);
            answered(writer.write(vec![scene.wrong(1).slice(..100)]).await);
            older.push(writer);
        }
        let newer = write(&store, &scene.handle, slot, &scene.right(1)).await;
        let last = older.pop().expect("there are two");
        let mut first = older.pop().expect("there are two");
        assert_eq!(
            kind(first.write(vec![scene.wrong(1).slice(100..)]).await),
            Some(ErrorKind::Superseded),
            "An older attempt that writes after a newer one claimed the slot must be told `Superseded`"
        );
        assert_eq!(
            kind(last.finish().await),
            Some(ErrorKind::Superseded),
            "An older attempt that finishes after a newer one claimed the slot must be told `Superseded`"
        );
        drop(first);
        let parts = [scene.send(0).await, newer, scene.send(2).await];
        scene
            .publish(
                &parts,
                "After an older attempt went on beside a newer one that had finished",
            )
            .await;
    }
}

/// A claim outlives its claimer: the older attempt is fenced although the newer one was dropped, or has
/// not written yet.
pub async fn an_older_attempt_stays_fenced(store: Store) {
    let scene = Scene::new(&store, 1, 2).await;
    let mut older = scene.open(0).await;
    answered(older.write(vec![scene.wrong(0).slice(..10)]).await);
    drop(scene.open(0).await);
    assert_eq!(
        kind(older.write(vec![scene.wrong(0).slice(10..)]).await),
        Some(ErrorKind::Superseded),
        "A claim holds although its writer was dropped"
    );
    drop(older);

    let mut older = scene.open(0).await;
    answered(older.write(vec![scene.wrong(0)]).await);
    let mut newer = scene.open(0).await;
    assert_eq!(
        kind(older.finish().await),
        Some(ErrorKind::Superseded),
        "A claim holds from the return of `open`, before anything is written"
    );
    answered(newer.write(frames(&scene.right(0)).concat()).await);
    let parts = [
        part(0, &scene.right(0), answered(newer.finish().await)),
        scene.send(1).await,
    ];
    scene.publish(&parts, "After two older attempts").await;
}

/// A slot that is opened and let go keeps the part that is there.
pub async fn a_claim_alone_destroys_nothing(store: Store) {
    let scene = Scene::new(&store, 1, 3).await;
    let parts = scene.send_all().await;
    for number in 0..3 {
        drop(scene.open(number).await);
        drop(answered(
            store.open(&scene.handle, Slot::aside(number, scene.chunk)).await,
        ));
    }
    scene
        .publish(&parts, "Slots opened again, and let go before the first write")
        .await;
}

/// Of many that hold a writer the last to open wins, whatever the others do at the same time.
pub async fn the_newest_of_many_claims_wins(store: Store) {
    for round in 0..10 {
        let scene = Scene::new(&store, round, 2).await;
        let mut writers = Vec::new();
        for _ in 0..RACERS {
            writers.push(scene.open(0).await);
        }
        let tasks = (1..=RACERS).zip(writers).map(|(racer, mut writer)| {
            let bytes = if racer == RACERS {
                scene.right(0)
            } else {
                content(racer.into(), scene.chunk)
            };
            tokio::spawn(async move {
                for batch in frames(&bytes) {
                    writer.write(batch).await?;
                    tokio::task::yield_now().await;
                }
                writer.finish().await
            })
        });
        let mut answers = all(tasks.collect()).await;
        let newest = answered(answers.pop().expect("there are several"));
        for answer in answers {
            assert_eq!(
                kind(answer),
                Some(ErrorKind::Superseded),
                "Only the newest of several attempts may finish"
            );
        }
        let parts = [part(0, &scene.right(0), newest), scene.send(1).await];
        scene
            .publish(&parts, "Several attempts at once, the newest alone finished")
            .await;
    }
    for round in 100..120 {
        let scene = Scene::new(&store, round, 1).await;
        let roomy = Slot::at(0, 0, store.limits().max_part.min(1 << 30));
        let mut older = answered(store.open(&scene.handle, roomy).await);
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = older.write(vec![Bytes::from_static(b"x")]).await {
                    return error.kind();
                }
                tokio::task::yield_now().await;
            }
        });
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        let parts = [scene.send(0).await];
        let told = all(vec![writing]).await;
        assert_eq!(
            told,
            [ErrorKind::Superseded],
            "An attempt that is writing when a newer one claims must be told so"
        );
        scene
            .publish(&parts, "A newer attempt claimed while the older one was writing")
            .await;
    }
}

/// The same numbers in two uploads are two parts.
pub async fn uploads_do_not_touch_each_other(store: Store) {
    let scenes = [Scene::new(&store, 1, 3).await, Scene::new(&store, 2, 3).await];
    let mut parts = [Vec::new(), Vec::new()];
    for number in 0..3 {
        let mut writers = [scenes[0].open(number).await, scenes[1].open(number).await];
        for (scene, writer) in scenes.iter().zip(&mut writers) {
            answered(writer.write(vec![scene.right(number)]).await);
        }
        for ((scene, writer), parts) in scenes.iter().zip(writers).zip(&mut parts) {
            parts.push(part(number, &scene.right(number), answered(writer.finish().await)));
        }
    }
    answered(store.discard(&Scene::new(&store, 3, 3).await.handle).await);
    for (scene, parts) in scenes.iter().zip(&parts) {
        scene.publish(parts, "Two uploads at the same time").await;
    }
}
