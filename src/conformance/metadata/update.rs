use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Barrier;

use super::*;
use crate::conformance::{RACERS, all, cut};

/// Once an update has taken the upload out of `Open` no commit gets in, however close they run.
pub async fn no_commit_after_leaving_open(store: Store) {
    for round in 0..30 {
        let record = created(&store, round).await;
        let start = Arc::new(Barrier::new(RACERS as usize + 1));
        let closed = Arc::new(AtomicBool::new(false));
        let writers = (0..RACERS).map(|racer| {
            let (store, start, closed) = (store.clone(), start.clone(), closed.clone());
            tokio::spawn(async move {
                start.wait().await;
                let mut done = Vec::new();
                for n in 0..1000 {
                    let mine = part(n * RACERS + racer, 1);
                    let late = closed.load(Ordering::SeqCst);
                    match answered(
                        store
                            .commit(record.id, &Guard::new(1), std::slice::from_ref(&mine))
                            .await,
                    ) {
                        Committed::Done(_) if late => {
                            panic!("No commit may be done on an upload once it has left `Open`; this one began after that update")
                        }
                        Committed::Done(_) => done.push(mine),
                        Committed::Refused(now, _) if now.state != State::Open => break,
                        other => panic!("A new part must be committed, or refused once it has left `Open`, got {other:?}"),
                    }
                    tokio::task::yield_now().await;
                }
                done
            })
        });
        let writers: Vec<_> = writers.collect();
        start.wait().await;
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        loop {
            let mut next = load(&store, record.id).await.record;
            next.state = State::Assembling;
            if matches!(
                answered(store.update(&next, PartsEdit::Keep, Wake::Keep).await),
                Updated::Done(_)
            ) {
                break;
            }
        }
        closed.store(true, Ordering::SeqCst);
        let at_close = load(&store, record.id).await;
        let mut done = all(writers).await.concat();
        done.sort_by_key(|part| part.number);
        let at_end = load(&store, record.id).await;
        assert_eq!(
            at_end, at_close,
            "Nothing of an upload may change by commits once it has left `Open`"
        );
        assert_eq!(
            done, at_end.parts,
            "Exactly the parts whose commits were answered `Done` must be there once it has left `Open`"
        );
    }
}

/// Of two updates from one version one is done; the other changes nothing.
pub async fn an_update_needs_the_present_version(store: Store) {
    for round in 0..20 {
        let record = created(&store, round).await;
        commit(&store, record.id, &[part(0, 1), part(1, 1)]).await;
        let tasks = (0..RACERS).map(|racer| {
            let (store, mut next) = (store.clone(), record.clone());
            next.attempts = racer + 1;
            tokio::spawn(async move { store.update(&next, PartsEdit::Remove(vec![0]), Wake::Keep).await })
        });
        let answers: Vec<Updated> = all(tasks.collect()).await.into_iter().map(answered).collect();
        let done: Vec<&Record> = answers
            .iter()
            .filter_map(|answer| match answer {
                Updated::Done(record) => Some(record),
                _ => None,
            })
            .collect();
        assert_eq!(
            done.len(),
            1,
            "Exactly one of several updates from one version may be done: {answers:?}"
        );
        let stale = answers.iter().filter(|answer| **answer == Updated::Stale).count();
        assert_eq!(stale + 1, answers.len(), "The others must be told `Stale`: {answers:?}");
        let stored = load(&store, record.id).await;
        assert_eq!(
            stored.record, *done[0],
            "The update that was done must be what is stored"
        );
        let again = answered(store.update(&record, PartsEdit::Clear, Wake::Never).await);
        assert_eq!(again, Updated::Stale, "An update from an older version is stale");
        assert_eq!(
            load(&store, record.id).await,
            stored,
            "A stale update must change nothing, nor the parts"
        );
    }
    let answer = answered(store.update(&draft(1000), PartsEdit::Keep, Wake::Keep).await);
    assert_eq!(
        answer,
        Updated::Stale,
        "An update of an upload that does not exist is stale"
    );
    assert_eq!(
        find(&store, upload_id(1000)).await,
        None,
        "An update must not create an upload"
    );
}

/// An update to another's name or key is refused and changes nothing.
pub async fn an_update_takes_no_name_or_key_of_another(store: Store) {
    let (holder, other) = (created(&store, 1).await, created(&store, 2).await);
    commit(&store, other.id, &[part(0, 1)]).await;
    let before = load(&store, other.id).await;
    let mut named = other.clone();
    named.file_name = holder.file_name.clone();
    let mut keyed = other.clone();
    keyed.key = holder.key.clone();
    for (what, next) in [("name", &named), ("key", &keyed)] {
        let answer = answered(store.update(next, PartsEdit::Clear, Wake::Keep).await);
        assert_eq!(
            answer,
            Updated::KeyTaken,
            "An update to what another upload holds must be refused: {what}"
        );
        assert_eq!(
            load(&store, other.id).await,
            before,
            "A refused update must change nothing: {what}"
        );
        assert_eq!(
            by_name(&store, &other).await,
            Some(other.id),
            "A refused update must not lose the old name: {what}"
        );
    }

    keyed.key = key("elsewhere/3.mp4");
    let moved = update(&store, &keyed, PartsEdit::Keep, Wake::Keep).await;
    let mut newcomer = draft(3);
    newcomer.key = moved.key.clone();
    let answer = answered(store.create(&newcomer, &[], &Quota::UNLIMITED, Wake::Keep).await);
    assert_eq!(answer, Created::KeyTaken, "A key taken by an update is held");
    newcomer.key = other.key.clone();
    create(&store, &newcomer).await;

    let aborted = into_state(&store, &holder, State::Aborted).await;
    let mut successor = nameless(4);
    successor.named = true;
    successor.file_name = holder.file_name.clone();
    create(&store, &successor).await;
    let mut back = aborted;
    back.state = State::Open;
    let answer = answered(store.update(&back, PartsEdit::Keep, Wake::Keep).await);
    assert_eq!(
        answer,
        Updated::KeyTaken,
        "An upload cannot come back to a name that another has taken since"
    );
}

/// The time of creation is the store's: no update moves it, whatever it says.
pub async fn creation_keeps_its_time(store: Store) {
    let record = created(&store, 1).await;
    let mut next = record.clone();
    next.created_at = record.created_at.after(Duration::from_secs(3600));
    let updated = update(&store, &next, PartsEdit::Keep, Wake::Keep).await;
    for (what, now) in [
        ("the answer to an update", &updated),
        ("a look at it", &load(&store, record.id).await.record),
    ] {
        assert_eq!(
            now.created_at, record.created_at,
            "The time of creation must stay as it is: {what}"
        );
    }
}

/// The update that publishes sets the time of it, by the store's clock; no later one moves it.
pub async fn publication_is_stamped_once(store: Store) {
    let mut record = created(&store, 1).await;
    record = into_state(&store, &record, State::Assembling).await;
    assert_eq!(
        record.published_at, None,
        "What is not published has no time of publication"
    );
    let published = into_state(&store, &record, State::Assembled).await;
    assert!(
        published.published_at >= Some(record.created_at),
        "The update that publishes must set the time of publication by the store's clock, got {:?}",
        published.published_at
    );
    // Long enough for any clock to go on.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let later = update(&store, &published, PartsEdit::Keep, Wake::Never).await;
    let deleted = into_state(&store, &later, State::Deleted).await;
    for (after, now) in [
        ("an update", &later),
        ("its deletion", &deleted),
        ("a look at it", &load(&store, record.id).await.record),
    ] {
        assert_eq!(
            now.published_at, published.published_at,
            "The time of publication must stay as it is: {after}"
        );
    }
}

/// Ended uploads give up their name with the step that ends them; keys go when the record says so.
pub async fn names_and_keys_are_released(store: Store) {
    for (number, state) in (1..).zip([State::Failed, State::Aborted, State::Expired, State::Deleted]) {
        let record = created(&store, number).await;
        let ended = into_state(&store, &record, state).await;
        assert_eq!(
            by_name(&store, &record).await,
            None,
            "A name must be released by the update to state {state}"
        );
        assert_eq!(
            load(&store, record.id).await.record,
            ended,
            "An upload in state {state} must still be found by its id"
        );
        let mut next = draft(100 + number);
        next.file_name = record.file_name.clone();
        create(&store, &next).await;

        let mut rival = nameless(200 + number);
        rival.key = record.key.clone();
        let answer = answered(store.create(&rival, &[], &Quota::UNLIMITED, Wake::Keep).await);
        assert_eq!(
            answer,
            Created::KeyTaken,
            "A key is held as long as `key_held` says, in state {state} too"
        );
        let mut released = ended;
        released.key_held = false;
        update(&store, &released, PartsEdit::Keep, Wake::Keep).await;
        create(&store, &rival).await;
    }
    let mut record = created(&store, 10).await;
    for state in [State::Assembling, State::Assembled] {
        record = into_state(&store, &record, state).await;
        assert_eq!(
            by_name(&store, &record).await,
            Some(record.id),
            "An upload keeps its name in state {state}"
        );
    }
    assert!(
        answered(store.remove(record.id, record.version).await),
        "A removal at the present version must be done"
    );
    assert_eq!(
        by_name(&store, &record).await,
        None,
        "A removed upload must not keep its name"
    );
    let mut successor = record.clone();
    successor.id = upload_id(11);
    create(&store, &successor).await;
}

/// `Keep`, `Clear` and `Remove` leave a tally that is exact, and numbers that can be used again.
pub async fn edits_of_parts_keep_the_tally_exact(store: Store) {
    let mut record = created(&store, 1).await;
    let id = record.id;
    let parts: Vec<Part> = (0..6).map(|number| part(number, 10 + u64::from(number))).collect();
    commit(&store, record.id, &parts).await;
    let is = async |numbers: &[u32], after: &str| {
        let stored = load(&store, id).await;
        let there: Vec<u32> = stored.parts.iter().map(|part| part.number).collect();
        assert_eq!(there, numbers, "Parts after {after}");
    };
    record = update(&store, &record, PartsEdit::Keep, Wake::Keep).await;
    is(&[0, 1, 2, 3, 4, 5], "an update that keeps them").await;
    record = update(&store, &record, PartsEdit::Remove(vec![4, 1, 77]), Wake::Keep).await;
    is(&[0, 2, 3, 5], "the removal of 1, 4 and one that is not there").await;
    commit(&store, record.id, &[part_by(1, 99, "again")]).await;
    is(&[0, 1, 2, 3, 5], "a removed part came again").await;
    let mut next = record.clone();
    next.state = State::Aborted;
    record = update(&store, &next, PartsEdit::Clear, Wake::Never).await;
    is(&[], "an update that clears them").await;
    let tally = load(&store, record.id).await.tally;
    assert_eq!(
        (tally.parts, tally.bytes),
        (0, 0),
        "A cleared upload has no part and no byte"
    );
}

/// A removal at another version is none; a removal takes all.
pub async fn remove_needs_the_present_version(store: Store) {
    let old = created(&store, 1).await;
    commit(&store, old.id, &[part(0, 5)]).await;
    let record = update(&store, &old, PartsEdit::Keep, Wake::After(Duration::ZERO)).await;
    let before = load(&store, old.id).await;
    assert!(
        !answered(store.remove(old.id, old.version).await),
        "A removal at an older version is refused"
    );
    assert!(
        !answered(store.remove(old.id, record.version.next()).await),
        "A removal at a version to come is refused"
    );
    assert_eq!(
        load(&store, old.id).await,
        before,
        "A refused removal must change nothing"
    );
    assert!(
        answered(store.remove(record.id, record.version).await),
        "A removal at the present version must be done"
    );
    assert!(
        !answered(store.remove(record.id, record.version).await),
        "What was removed cannot be removed again"
    );
    assert_eq!(find(&store, old.id).await, None, "A removed upload must not be found");
    assert_eq!(
        answered(store.due(Duration::from_secs(60), 10).await),
        vec![],
        "A removed upload must not be due"
    );
    let again = created(&store, 1).await;
    let fresh = load(&store, again.id).await;
    assert_eq!(
        (fresh.parts, fresh.tally.revision),
        (vec![], 1),
        "Parts must go with their upload"
    );
}

/// A call whose future is dropped at any point is done wholly or not at all, and can be asked again.
pub async fn dropped_futures_leave_all_or_nothing(store: Store) {
    for polls in 1..=8 {
        let new = draft(polls);
        let first = [part(0, 3), part(1, 4)];
        let unlimited = Quota::UNLIMITED;
        cut(store.create(&new, &first, &unlimited, Wake::AtExpiry), polls).await;
        let record = match answered(store.create(&new, &first, &unlimited, Wake::AtExpiry).await) {
            Created::New(record) => record,
            Created::NameTaken(record) if record.id == new.id => record,
            other => panic!("After a dropped creation the next one must find it or do it, got {other:?}"),
        };
        assert_eq!(
            load(&store, new.id).await.tally.parts,
            2,
            "A dropped creation must bring all its first parts or not exist"
        );

        let more = [part(2, 5), part(3, 6)];
        let guard = Guard::new(1);
        cut(store.commit(record.id, &guard, &more), polls).await;
        match answered(store.commit(record.id, &guard, &more).await) {
            Committed::Done(_) | Committed::Present(_) => {}
            other => panic!("After a dropped commit the next one must find it or do it, got {other:?}"),
        }
        assert_eq!(
            load(&store, record.id).await.tally.parts,
            4,
            "A dropped commit must bring all its parts or none"
        );

        let mut next = load(&store, record.id).await.record;
        next.state = State::Aborted;
        cut(store.update(&next, PartsEdit::Clear, Wake::Keep), polls).await;
        answered(store.update(&next, PartsEdit::Clear, Wake::Keep).await);
        let stored = load(&store, record.id).await;
        assert_eq!(
            (stored.record.state, stored.record.version, stored.tally.parts),
            (State::Aborted, next.version.next(), 0),
            "A dropped update must be done once or not at all"
        );
        assert_eq!(
            by_name(&store, &record).await,
            None,
            "A dropped update must release the name in the same step"
        );

        cut(store.due(Duration::ZERO, 10), polls).await;
        // The dropped call may still take effect between the two.
        for _ in 0..100 {
            let Some(snapshot) = find(&store, record.id).await else {
                break;
            };
            let version = snapshot.record.version;
            cut(store.remove(record.id, version), polls).await;
            answered(store.remove(record.id, version).await);
        }
        assert_eq!(
            find(&store, record.id).await,
            None,
            "A dropped removal must be done by the next one"
        );
    }
}
