use super::*;
use crate::{
    conformance::{RACERS, all},
    upload::{HashState, Version},
};

/// Many commits of one number: one is done, the others are shown it.
pub async fn a_part_is_inserted_once_under_a_race(store: Store) {
    let record = created(&store, 1).await;
    for number in 0..20 {
        let tasks = (0..RACERS).map(|racer| {
            let store = store.clone();
            let mine = part_by(number, u64::from(racer) + 1, &format!("racer-{racer}"));
            tokio::spawn(async move {
                (
                    store
                        .commit(record.id, &Guard::new(1), std::slice::from_ref(&mine))
                        .await,
                    mine,
                )
            })
        });
        let answers = all(tasks.collect()).await;
        let done: Vec<&Part> = answers
            .iter()
            .filter(|(answer, _)| matches!(answer, Ok(Committed::Done(_))))
            .map(|(_, mine)| mine)
            .collect();
        assert_eq!(
            done.len(),
            1,
            "Exactly one of several commits of one part at once must be done"
        );
        for (answer, mine) in &answers {
            let seen = matches!(answer, Ok(Committed::Present(part)) if part == done[0]);
            assert!(
                seen || mine == done[0],
                "The others must be shown the part that is there, got {answer:?}"
            );
        }
        let stored = load(&store, record.id).await;
        assert!(
            stored.parts.contains(done[0]),
            "A part that is there must never be written over"
        );
        assert_eq!(
            stored.tally.parts,
            number + 1,
            "Of several commits of one part exactly one counts"
        );
    }
}

/// A commit of several parts adds all or none.
pub async fn parts_of_one_commit_come_together(store: Store) {
    let record = created(&store, 1).await;
    let tally = commit(&store, record.id, &[part(7, 70), part(5, 50)]).await;
    assert_eq!(
        (tally.parts, tally.bytes, tally.revision),
        (2, 120, 2),
        "A commit of two parts adds both, in one revision"
    );
    let before = load(&store, record.id).await;
    let answer = answered(
        store
            .commit(
                record.id,
                &Guard::new(1),
                &[part(4, 1), part_by(5, 2, "other"), part(6, 3)],
            )
            .await,
    );
    assert_eq!(
        answer,
        Committed::Present(part(5, 50)),
        "A commit must show the part that is there already"
    );
    assert_eq!(
        load(&store, record.id).await,
        before,
        "Where one part is there already none of the others may be added"
    );
    assert_eq!(
        answered(store.commit(upload_id(99), &Guard::new(1), &[part(0, 1)]).await),
        Committed::Unknown,
        "A commit to an upload that does not exist is `Unknown`"
    );
}

/// State, epoch and end refuse before present parts are shown; pin and size after.
pub async fn guard_is_checked_in_order(store: Store) {
    let mut new = draft(1);
    new.epoch = 3;
    new.plan = Plan::indexed(9, Some(10), Some(90));
    let record = create(&store, &new).await;
    let guard = |shape: fn(&mut Guard)| {
        let mut guard = Guard::new(3);
        shape(&mut guard);
        guard
    };
    let try_with = async |guard: Guard, part: Part| answered(store.commit(record.id, &guard, &[part]).await);
    assert!(
        matches!(try_with(guard(|_| ()), part(0, 10)).await, Committed::Done(_)),
        "The right epoch alone must let a part in"
    );
    let before = load(&store, record.id).await;
    let refused = Committed::Refused(before.record.clone(), before.tally);
    for (name, guard) in [
        ("older epoch", guard(|guard| guard.epoch = 2)),
        ("newer epoch", guard(|guard| guard.epoch = 4)),
        ("other end", guard(|guard| guard.end = Some(11))),
    ] {
        assert_eq!(
            try_with(guard.clone(), part(1, 10)).await,
            refused,
            "A commit with another must be refused with the record as it is: {name}"
        );
        assert_eq!(
            try_with(guard, part(0, 10)).await,
            refused,
            "A wrong one is told before parts that are present: {name}"
        );
    }
    for (name, guard) in [
        ("pin", guard(|guard| guard.pin = Some(11))),
        ("size", guard(|guard| guard.size = Some(91))),
    ] {
        assert_eq!(
            try_with(guard.clone(), part(1, 10)).await,
            refused,
            "A commit that disagrees must be refused: {name}"
        );
        let present = Committed::Present(part(0, 10));
        assert_eq!(
            try_with(guard, part_by(0, 9, "again")).await,
            present,
            "Parts that are present are told first: {name}"
        );
    }
    assert_eq!(
        load(&store, record.id).await,
        before,
        "A refused commit must change nothing, nor its revision"
    );
    let agreeing = guard(|guard| (guard.end, guard.pin, guard.size) = (Some(10), Some(10), Some(90)));
    assert!(
        matches!(try_with(agreeing, part(1, 10)).await, Committed::Done(_)),
        "A guard that agrees must let a part in"
    );

    let closed = into_state(&store, &load(&store, record.id).await.record, State::Assembling).await;
    for answer in [
        try_with(guard(|_| ()), part(0, 10)).await,
        try_with(guard(|_| ()), part(5, 10)).await,
    ] {
        assert!(
            matches!(&answer, Committed::Refused(record, _) if *record == closed),
            "Once an upload has left `Open` every commit is refused, that of a present part too, got {answer:?}"
        );
    }
}

/// Of many appends at one end exactly one is done.
pub async fn guard_end_lets_one_of_many_pass(store: Store) {
    let record = created(&store, 1).await;
    for round in 0..10_u32 {
        let tasks = (0..RACERS).map(|racer| {
            let store = store.clone();
            let mut guard = Guard::new(1);
            guard.end = Some(u64::from(round) * 5);
            tokio::spawn(async move {
                store
                    .commit(record.id, &guard, &[part(round * RACERS + racer, 5)])
                    .await
            })
        });
        let answers = all(tasks.collect()).await;
        let done = answers
            .iter()
            .filter(|answer| matches!(answer, Ok(Committed::Done(_))))
            .count();
        assert_eq!(
            done, 1,
            "Exactly one of several commits that expect one end at once may be done: {answers:?}"
        );
    }
    assert_eq!(
        load(&store, record.id).await.tally.bytes,
        50,
        "Ten appends of five bytes make fifty"
    );
}

/// The first pin and size become the record's; later ones must agree.
pub async fn guard_pins_chunk_size_and_size(store: Store) {
    for round in 0..10 {
        let record = created(&store, round).await;
        let tasks = (0..RACERS).map(|racer| {
            let store = store.clone();
            let mut guard = Guard::new(1);
            guard.pin = Some(100 + u64::from(racer));
            guard.size = Some(1000 + u64::from(racer));
            tokio::spawn(async move {
                store
                    .commit(record.id, &guard, &[part(racer, 100 + u64::from(racer))])
                    .await
            })
        });
        let answers = all(tasks.collect()).await;
        let done: Vec<u64> = (0..)
            .zip(&answers)
            .filter(|(_, answer)| matches!(answer, Ok(Committed::Done(_))))
            .map(|(racer, _)| racer)
            .collect();
        assert_eq!(
            done.len(),
            1,
            "Of several first chunks with different pins exactly one may be done: {answers:?}"
        );
        let stored = load(&store, record.id).await;
        assert_eq!(
            (stored.record.plan.chunk_size, stored.record.plan.size),
            (Some(100 + done[0]), Some(1000 + done[0])),
            "The first commit's pin and size must become the record's in the same step"
        );
        assert_eq!(
            stored.record.version,
            record.version.next(),
            "A pin changes the record, so its version grows"
        );
    }
}

/// A guard's seal moves the upload on in the same step, with or without a part, and only once.
pub async fn guard_seals_in_the_same_step(store: Store) {
    for with_part in [true, false] {
        let record = created(&store, u8::from(with_part).into()).await;
        commit(&store, record.id, &[part(0, 5)]).await;
        let last = [part(1, 5)];
        let parts: &[Part] = if with_part { &last } else { &[] };
        let size = if with_part { 10 } else { 5 };
        let mut guard = Guard::new(1);
        (guard.end, guard.size, guard.seal) = (Some(5), Some(size), Some(Duration::from_secs(60)));
        let tasks = (0..RACERS).map(|_| {
            let (store, guard, parts) = (store.clone(), guard.clone(), parts.to_vec());
            tokio::spawn(async move { store.commit(record.id, &guard, &parts).await })
        });
        let answers = all(tasks.collect()).await;
        let done = answers
            .iter()
            .filter(|answer| matches!(answer, Ok(Committed::Done(tally)) if tally.bytes == size))
            .count();
        assert_eq!(
            done, 1,
            "Exactly one of several commits that seal at once may be done: {answers:?}"
        );
        let sealed = load(&store, record.id).await;
        assert_eq!(
            (sealed.record.state, sealed.record.plan.size, sealed.tally.bytes),
            (State::Assembling, Some(size), size),
            "A commit that seals leaves the upload assembling, with its size, in the same step"
        );
        assert!(
            sealed.record.version > record.version && sealed.record.expires_at.is_none(),
            "A sealed upload has a new version and expires no more"
        );
        assert!(
            sealed.record.due_at >= Some(record.created_at.after(Duration::from_secs(60))),
            "The driver must look at a sealed upload after the time that the seal gives, not {:?}",
            sealed.record.due_at
        );
        guard.end = Some(size);
        let late = answered(store.commit(record.id, &guard, &[part(2, 5)]).await);
        assert!(
            matches!(late, Committed::Refused(..)),
            "Once it is sealed an upload takes no part, got {late:?}"
        );
    }
}

/// A guard's hash becomes the record's; none leaves it.
pub async fn guard_sets_the_hash(store: Store) {
    let record = created(&store, 1).await;
    let mut guard = Guard::new(1);
    guard.hash = Some(HashState::new(5, vec![1, 0, 255]));
    answered(store.commit(record.id, &guard, &[part(0, 5)]).await);
    commit(&store, record.id, &[part(1, 5)]).await;
    let stored = load(&store, record.id).await.record;
    assert_eq!(
        stored.hash, guard.hash,
        "A guard's hash state must be stored, and kept by a commit without one"
    );
    assert_eq!(
        stored.version,
        record.version.next(),
        "A new hash state changes the record, so its version grows"
    );
    guard.hash = Some(HashState::new(15, vec![2]));
    guard.epoch = 9;
    answered(store.commit(record.id, &guard, &[part(2, 5)]).await);
    assert_eq!(
        load(&store, record.id).await.record,
        stored,
        "A refused commit must not change the hash"
    );
}

/// The revision grows by one with each change, the version with each change of the record.
pub async fn versions_and_revisions_grow(store: Store) {
    let record = created(&store, 1).await;
    let is = async |version: u64, revision: u64, after: &str| {
        let stored = load(&store, record.id).await;
        assert_eq!(
            (stored.record.version.get(), stored.tally.revision),
            (version, revision),
            "(version, revision) after {after}"
        );
        stored.record
    };
    is(1, 1, "creation").await;
    commit(&store, record.id, &[part(0, 1)]).await;
    is(1, 2, "a commit that changes nothing of the record").await;
    let mut pin = Guard::new(1);
    pin.pin = Some(10);
    answered(store.commit(record.id, &pin, &[part(1, 1)]).await);
    is(2, 3, "a commit that pins").await;
    answered(store.commit(record.id, &pin, &[part(2, 1)]).await);
    is(2, 4, "a commit whose pin is known already").await;
    answered(store.commit(record.id, &pin, &[part(2, 1)]).await);
    let record = is(2, 4, "a commit of a part that is present").await;
    let next = update(&store, &record, PartsEdit::Keep, Wake::Keep).await;
    assert_eq!(
        next.version,
        Version::default().next().next().next(),
        "`update` answers the record with its new version"
    );
    is(3, 5, "an update").await;
    answered(store.update(&record, PartsEdit::Clear, Wake::Keep).await);
    is(3, 5, "a stale update").await;
}

/// A commit moves the expiry on, coarsely.
pub async fn expiry_slides_with_commits(store: Store) {
    let mut long = draft(1);
    long.expire_after = Some(Duration::from_secs(86_400));
    let long = create(&store, &long).await;
    commit(&store, long.id, &[part(0, 1)]).await;
    assert_eq!(
        load(&store, long.id).await.record,
        long,
        "An expiry that hardly moves is not worth a change of the record"
    );

    let mut short = draft(2);
    short.expire_after = Some(Duration::from_millis(1600));
    let short = create(&store, &short).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    commit(&store, short.id, &[part(0, 1)]).await;
    let slid = load(&store, short.id).await.record;
    assert!(
        slid.expires_at >= short.expires_at.map(|at| at.after(Duration::from_millis(250))),
        "A commit must move the expiry on, by the store's clock: {:?} after {:?}",
        slid.expires_at,
        short.expires_at
    );
    assert_eq!(
        slid.due_at, slid.expires_at,
        "What moves the expiry moves `due_at` with it"
    );
    assert_eq!(
        slid.version,
        short.version.next(),
        "A moved expiry changes the record, so its version grows"
    );
}

/// Ten thousand parts are counted, found one by one, and read whole.
pub async fn many_parts_are_counted_and_found(store: Store) {
    let record = created(&store, 1).await;
    let tasks = (0..40).map(|batch| {
        let store = store.clone();
        tokio::spawn(async move {
            // Every batch takes each 40th number, so that they interleave.
            let parts: Vec<Part> = (0..250).map(|n| part(n * 40 + batch, 1 << 20)).collect();
            commit(&store, record.id, &parts).await
        })
    });
    all(tasks.collect()).await;
    let stored = load(&store, record.id).await;
    assert_eq!(
        (stored.tally.parts, stored.tally.bytes),
        (10_000, 10_000 << 20),
        "Ten thousand parts must all be counted"
    );
    let one = answered(store.load(Lookup::Id(record.id), PartRange::one(9_999)).await).map(|one| one.parts);
    assert_eq!(
        one,
        Some(vec![part(9_999, 1 << 20)]),
        "One of ten thousand parts must be found by its number"
    );
    let present = answered(store.commit(record.id, &Guard::new(1), &[part(5_000, 1)]).await);
    assert_eq!(
        present,
        Committed::Present(part(5_000, 1 << 20)),
        "One of ten thousand parts must be told as present"
    );
}
