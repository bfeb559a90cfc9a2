use super::*;
use crate::{conformance::all, metadata::Page};

/// Newest first, of this owner alone, whatever the state, page by page.
pub async fn list_is_the_owners_newest_first(store: Store) {
    let states = [
        State::Open,
        State::Assembling,
        State::Assembled,
        State::Failed,
        State::Aborted,
        State::Expired,
    ];
    let mut expected = Vec::new();
    for (number, state) in (0..).zip(states.into_iter().cycle().take(12)) {
        let record = created(&store, number).await;
        commit(&store, record.id, &[part(0, 7)]).await;
        into_state(&store, &record, state).await;
        expected.insert(0, record.id);
        let mut stranger = draft(100 + number);
        stranger.owner = Owner::new(if number % 2 == 0 { "owner2" } else { "Owner" });
        create(&store, &stranger).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let owner = Owner::new("owner");
    let page = async |skip, limit| {
        let listed = answered(store.list(Some(&owner), Page::new(skip, limit)).await);
        listed
            .into_iter()
            .map(|snapshot| snapshot.record.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        page(0, 100).await,
        expected,
        "All uploads of the owner in any state, and no stranger's, newest first"
    );
    assert_eq!(page(0, 5).await, expected[..5], "No more than `limit`");
    assert_eq!(
        page(5, 5).await,
        expected[5..10],
        "The next page goes on where the last one ended"
    );
    assert_eq!(page(10, 5).await, expected[10..], "The last page is short");
    assert_eq!(page(12, 5).await, vec![], "There is nothing past the end");
    assert_eq!(page(0, 0).await, vec![], "A page of none is empty");
    let nobody = answered(store.list(Some(&Owner::new("nobody")), Page::new(0, 10)).await);
    assert_eq!(nobody, vec![], "An owner without uploads has an empty list");
    for listed in answered(store.list(Some(&owner), Page::new(0, 100)).await) {
        let stored = load(&store, listed.record.id).await;
        assert_eq!(
            (listed.record, listed.tally),
            (stored.record, stored.tally),
            "A list must show records and tallies as they are"
        );
    }
}

/// Only the asked numbers, sorted, in whatever order they came.
pub async fn load_gives_the_parts_asked_for(store: Store) {
    let record = created(&store, 1).await;
    for number in [5, 300, 0, 70_000, 2, 1, 256] {
        commit(&store, record.id, &[part(number, u64::from(number))]).await;
    }
    let numbers = async |start, end| {
        let asked = PartRange { start, end };
        let snapshot = answered(store.load(Lookup::Id(record.id), asked).await);
        let snapshot = snapshot.expect("An upload must be found by its id");
        assert_eq!(
            snapshot.tally.parts, 7,
            "The tally counts all parts, however few are asked for"
        );
        snapshot.parts.iter().map(|part| part.number).collect::<Vec<_>>()
    };
    assert_eq!(
        numbers(0, u32::MAX).await,
        [0, 1, 2, 5, 256, 300, 70_000],
        "All parts, sorted by number"
    );
    assert_eq!(
        numbers(1, 256).await,
        [1, 2, 5],
        "Parts `start..end`, the end not included"
    );
    assert_eq!(numbers(256, 257).await, [256], "One part");
    assert_eq!(numbers(3, 5).await, [] as [u32; 0], "A range without parts is empty");
    assert_eq!(numbers(0, 0).await, [] as [u32; 0], "No part is asked for");
    let named = Lookup::Name(&record.owner, None, &record.file_name);
    assert_eq!(
        answered(store.load(named, PartRange::ALL).await),
        Some(load(&store, record.id).await),
        "An upload is the same by name as by id"
    );
    assert_eq!(
        find(&store, upload_id(2)).await,
        None,
        "An upload that does not exist is not found"
    );
}

/// While others write, a read shows a tally and parts that belong together.
pub async fn reads_are_of_one_moment(store: Store) {
    let record = created(&store, 1).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..200 {
                commit(&store, record.id, &[part(2 * number, 10), part(2 * number + 1, 1)]).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let readers = (0..3).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut last = 0;
            loop {
                let seen = load(&store, record.id).await;
                assert_eq!(seen.tally.parts % 2, 0, "A read must never show half a commit");
                assert_eq!(
                    seen.tally.revision,
                    u64::from(seen.tally.parts / 2) + 1,
                    "A read must show the revision that its parts had"
                );
                assert!(
                    seen.tally.revision >= last,
                    "A later read must not show an earlier moment"
                );
                last = seen.tally.revision;
                if seen.tally.parts == 400 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    all(vec![writer]).await;
    all(readers).await;
}
