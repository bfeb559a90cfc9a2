use super::*;
use crate::conformance::{all, cut};

/// The bounds do not contradict each other.
pub async fn limits_make_sense(store: Store) {
    let limits = store.limits();
    assert!(
        limits.min_part <= limits.max_part,
        "The smallest part must not be larger than the largest"
    );
    assert!(
        (limits.min_part.max(1)..=limits.max_part).contains(&limits.preferred_part),
        "The preferred part must be one that the store takes"
    );
    assert!(limits.max_parts > 0, "A store that takes no part stores nothing");
}

/// In order, backwards and shuffled: the blob is the parts in the order given to `complete`.
pub async fn parts_make_one_blob_in_any_order(store: Store) {
    for (scene, order) in (1..).zip([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]]) {
        let scene = Scene::new(&store, scene, 5).await;
        let mut parts = Vec::new();
        for number in order {
            parts.push(scene.send(number).await);
            scene.is_absent("Before `complete`").await;
        }
        parts.sort_by_key(|part| part.number);
        scene
            .publish(&parts, &format!("Parts sent in the order {order:?}"))
            .await;
    }
}

/// All at once.
pub async fn parts_are_written_in_parallel(store: Store) {
    let scene = Scene::new(&store, 1, 12).await;
    let tasks = (0..12).map(|number| {
        let scene = scene.clone();
        tokio::spawn(async move { scene.send(number).await })
    });
    let parts = all(tasks.collect()).await;
    scene.publish(&parts, "Parts sent in parallel").await;
}

/// Parts whose place was not known, mixed with others.
pub async fn parts_aside_are_put_in_place(store: Store) {
    for (number, aside) in (1..).zip([vec![1, 3], vec![0, 1, 2, 3, 4], vec![4], vec![0]]) {
        let scene = Scene::new(&store, number, 5).await;
        let mut parts = Vec::new();
        for number in [3, 0, 4, 1, 2] {
            let slot = if aside.contains(&number) {
                Slot::aside(number, scene.chunk)
            } else {
                scene.slot(number)
            };
            parts.push(write(&store, &scene.handle, slot, &scene.right(number)).await);
        }
        parts.sort_by_key(|part| part.number);
        let clause = format!("Parts {aside:?} written aside");
        scene.publish(&parts, &clause).await;
        scene.complete(&parts).await;
        scene.is_published(&clause).await;
    }
    let scene = Scene::new(&store, 10, 3).await;
    let stale = answered(store.open(&scene.handle, Slot::aside(1, scene.chunk)).await);
    let parts = scene.send_all().await;
    assert_eq!(
        kind(stale.finish().await),
        Some(ErrorKind::Superseded),
        "A slot is one, aside or in place: the older attempt aside is superseded by the newer one in place"
    );
    scene
        .publish(&parts, "A part written in place after an attempt aside")
        .await;
}

/// Appends of any length, zero too, where the store has no smallest part.
pub async fn parts_of_any_length_follow_each_other(store: Store) {
    let limits = store.limits();
    let lens: Vec<u64> = if limits.min_part == 0 {
        vec![1, 0, 70_001, 3, 0, 9999, 0]
    } else {
        vec![limits.min_part, limits.min_part + 1, 0]
    };
    let key = key("appended.bin");
    let handle = answered(store.begin(upload_id(1), &key, &Plan::sequential(None)).await);
    let (mut parts, mut whole) = (Vec::new(), Vec::new());
    for (number, len) in (0..).zip(lens) {
        let bytes = content(u64::from(number) + 1, len);
        let slot = Slot::at(number, whole.len() as u64, len.max(limits.min_part.max(100_000)));
        let part = append(&store, &handle, slot, behind(&parts), &bytes).await;
        parts.push(part);
        whole.extend_from_slice(&bytes);
    }
    let done = answered(store.complete(&handle, &key, &parts).await);
    assert!(
        matches!(done, Completed::Done(_)),
        "Parts of different lengths must make a blob, got {done:?}"
    );
    let bytes = bytes_of(&store, &key).await;
    assert!(
        bytes == whole,
        "Parts of different lengths must follow each other, {}",
        differ(&bytes, &whole)
    );
}

fn behind(parts: &[Part]) -> Before<'_> {
    Before::committed(parts.last().map(|part| &part.receipt))
}

/// Appends that were finished and never committed leave no trace, however many followed each other, and what is committed
/// goes on from what was before them.
pub async fn appends_follow_what_is_committed(store: Store) {
    let limits = store.limits();
    let unit = limits.min_part.max(1000);
    let key = key("appended-again.bin");
    let handle = answered(store.begin(upload_id(1), &key, &Plan::sequential(None)).await);
    let (mut parts, mut whole): (Vec<Part>, Vec<u8>) = (Vec::new(), Vec::new());
    for round in 0..40_u32 {
        // Some are longer than whatever the store cuts appends to.
        let len = unit + u64::from(round % 7) * (unit / 3) + if round % 11 == 10 { unit * 40 } else { 0 };
        let slot = |parts: &[Part], at: u64, len: u64| {
            let number = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            Slot::at(number, at, len)
        };
        let mut finished: Vec<Part> = parts.clone();
        let mut at = whole.len() as u64;
        for abandoned in 0..round % 4 {
            let bytes = content(
                u64::from(round * 10 + abandoned) + 5000,
                len + unit * u64::from(abandoned) * 9,
            );
            let uncommitted = (abandoned > 0).then(|| finished.last().map(|part| &part.receipt));
            let before = behind(&parts).and_finished(uncommitted.flatten());
            let slot = slot(&finished, at, bytes.len() as u64);
            let part = append(&store, &handle, slot, before, &bytes).await;
            at += part.len;
            finished.push(part);
        }
        let bytes = content(u64::from(round) + 1, len);
        let slot = slot(&parts, whole.len() as u64, len);
        drop(answered(store.append(&handle, slot, behind(&parts)).await));
        let part = append(&store, &handle, slot, behind(&parts), &bytes).await;
        parts.push(part);
        whole.extend_from_slice(&bytes);
    }
    let done = answered(store.complete(&handle, &key, &parts).await);
    assert!(
        matches!(&done, Completed::Done(blob) if blob.size == whole.len() as u64),
        "Appends after ones that were never committed must make a blob, got {done:?}"
    );
    let bytes = bytes_of(&store, &key).await;
    assert!(
        bytes == whole,
        "Appends that were never committed must leave no trace, {}",
        differ(&bytes, &whole)
    );
}

/// A file of no byte: no part, or one of no byte.
pub async fn nothing_makes_an_empty_blob(store: Store) {
    for number in 0..2 {
        let key = key(&format!("empty-{number}"));
        let handle = answered(store.begin(upload_id(number), &key, &Plan::sequential(Some(0))).await);
        let mut parts = Vec::new();
        if number == 1 {
            parts.push(append(&store, &handle, Slot::at(0, 0, 10), Before::default(), &Bytes::new()).await);
        }
        let done = answered(store.complete(&handle, &key, &parts).await);
        assert!(
            matches!(&done, Completed::Done(blob) if blob.size == 0),
            "{number} parts without a byte make an empty blob, got {done:?}"
        );
        assert_eq!(bytes_of(&store, &key).await, b"", "An empty blob has no byte");
    }
}

/// One byte too many is refused before any of its frames is written.
pub async fn no_part_gets_longer_than_its_slot(store: Store) {
    let scene = Scene::new(&store, 1, 3).await;
    let neighbour = scene.send(1).await;
    let one_more = Bytes::from_static(b"!");
    let exact = scene.right(0);
    for batches in [
        vec![vec![content(9, scene.chunk + 1)]],
        vec![vec![exact.clone(), one_more.clone()]],
        vec![vec![exact.clone()], vec![one_more.clone()]],
        vec![
            frames(&exact).concat(),
            vec![Bytes::new(), one_more, content(8, scene.chunk)],
        ],
    ] {
        let mut writer = scene.open(0).await;
        let (last, before) = batches.split_last().expect("there is a batch");
        for batch in before {
            answered(writer.write(batch.clone()).await);
        }
        let refused = writer.write(last.clone()).await;
        assert_eq!(
            kind(refused),
            Some(ErrorKind::TooLarge),
            "A write past `max_len` must be refused as too large"
        );
    }
    let parts = [scene.send(0).await, neighbour, scene.send(2).await];
    scene
        .publish(
            &parts,
            "After writes past `max_len` of part 0, which must not have touched part 1",
        )
        .await;
}

/// What a dropped attempt wrote is nowhere in the blob, also where the retry is shorter.
pub async fn a_dropped_writer_leaves_no_byte(store: Store) {
    let scene = Scene::new(&store, 1, 3).await;
    for number in [2, 0, 1] {
        let mut dropped = scene.open(number).await;
        answered(dropped.write(vec![content(99, scene.chunk)]).await);
        drop(dropped);
        drop(scene.open(number).await);
    }
    let parts = scene.send_all().await;
    scene
        .publish(
            &parts,
            "Parts sent again after writers were dropped, the last one shorter",
        )
        .await;

    let lone = Scene::new(&store, 2, 1).await;
    let mut dropped = lone.open(0).await;
    answered(dropped.write(vec![content(99, lone.chunk)]).await);
    drop(dropped);
    let receipt = Receipt::new("0");
    let claimed = lone.complete(&[part(0, &lone.right(0), receipt)]).await;
    assert_eq!(
        claimed,
        Completed::PartsLost(vec![0]),
        "A part that was never finished is not there"
    );
    lone.is_absent("After `PartsLost`").await;
}

/// A call dropped at any point can be made again, and what comes of it is right.
pub async fn dropped_futures_can_be_tried_again(store: Store) {
    for polls in 1..=10 {
        let scene = Scene::new(&store, polls, 3).await;
        let plan = Plan::indexed(3, Some(scene.chunk), Some(scene.size()));
        let another = key(&format!("dropped/{polls}"));
        cut(store.begin(upload_id(1000 + polls), &another, &plan), polls).await;
        let mut parts = Vec::new();
        for number in 0..3 {
            let slot = scene.slot(number);
            drop(cut(store.open(&scene.handle, slot), polls).await);
            let mut writer = scene.open(number).await;
            cut(writer.write(vec![scene.wrong(number)]), polls).await;
            drop(writer);
            let mut writer = scene.open(number).await;
            answered(writer.write(vec![scene.wrong(number)]).await);
            cut(writer.finish(), polls).await;
            parts.push(scene.send(number).await);
        }
        cut(store.complete(&scene.handle, &scene.key, &parts), polls).await;
        scene
            .publish(
                &parts,
                &format!("After every call was dropped at poll {polls} and made again"),
            )
            .await;
        cut(store.discard(&scene.handle), polls).await;
        answered(store.discard(&scene.handle).await);
        scene.is_published("After a dropped `discard`").await;
        cut(store.delete(&scene.key), polls).await;
        answered(store.delete(&scene.key).await);
        scene.is_absent("After a dropped `delete` was made again").await;
    }
}
