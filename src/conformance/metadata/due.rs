use super::*;
use crate::{
    conformance::{RACERS, all},
    upload::Timestamp,
};

const LONG: Duration = Duration::from_secs(3600);

/// Oldest first, up to the limit, and each moved on by the lease.
pub async fn due_comes_in_order_and_moves_on(store: Store) {
    let mut expected = Vec::new();
    for (number, wait) in (1..).zip([60, 0, 40, 20, 80]) {
        expected.push(waking(&store, number, Wake::After(Duration::from_millis(wait))).await);
    }
    waking(&store, 9, Wake::After(LONG)).await;
    expected.sort_by_key(|record| record.due_at);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        answered(store.due(LONG, 0).await),
        vec![],
        "No record may be taken with a limit of none"
    );
    let first = answered(store.due(LONG, 2).await);
    let rest = answered(store.due(LONG, 10).await);
    assert_eq!(
        (first.len(), rest.len()),
        (2, 3),
        "Up to `limit` records whose time has come are taken, no other"
    );
    let given: Vec<UploadId> = first.iter().chain(&rest).map(|record| record.id).collect();
    let wanted: Vec<UploadId> = expected.iter().map(|record| record.id).collect();
    assert_eq!(given, wanted, "Due records come oldest `due_at` first");
    for (before, taken) in expected.iter().zip(first.iter().chain(&rest)) {
        assert!(
            taken.due_at >= before.created_at.after(LONG).into(),
            "A taken record is not due again before the lease, counted from now, has passed: {:?}",
            taken.due_at
        );
        let stored = load(&store, taken.id).await;
        assert_eq!(stored.record, *taken, "`due` must answer the record as it stored it");
        assert_eq!(
            (taken.version, stored.tally.revision),
            (before.version.next(), 2),
            "Taking a record changes it: a new version and revision"
        );
        let stale = answered(store.update(before, PartsEdit::Keep, Wake::Keep).await);
        assert_eq!(
            stale,
            Updated::Stale,
            "An update made before somebody took the record is stale"
        );
    }
    assert_eq!(
        answered(store.due(LONG, 10).await),
        vec![],
        "A taken record must not be given again within its lease"
    );
}

/// Who takes at once never takes the same, and nothing is passed over.
pub async fn due_gives_a_record_to_one_alone(store: Store) {
    for round in 0..10 {
        let wanted: Vec<u32> = (round * 20..round * 20 + 20).collect();
        for number in &wanted {
            waking(&store, *number, Wake::After(Duration::ZERO)).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        let tasks = (0..RACERS).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let taken = answered(store.due(LONG, 3).await);
                    if taken.is_empty() {
                        return mine;
                    }
                    mine.extend(taken.into_iter().map(|record| record.id));
                    tokio::task::yield_now().await;
                }
            })
        });
        let mut taken = all(tasks.collect()).await.concat();
        taken.extend(answered(store.due(LONG, 100).await).into_iter().map(|record| record.id));
        taken.sort();
        let mut wanted: Vec<UploadId> = wanted.into_iter().map(upload_id).collect();
        wanted.sort();
        assert_eq!(
            taken, wanted,
            "Every due record must be given to exactly one of those who ask at once"
        );
    }
}

/// `Wake` says when, expiry comes by itself, and a lease ends.
pub async fn due_follows_wake(store: Store) {
    let now = Wake::After(Duration::ZERO);
    let record = waking(&store, 1, now).await;
    let record = update(&store, &record, PartsEdit::Keep, Wake::Keep).await;
    assert!(record.due_at.is_some(), "`Wake::Keep` leaves `due_at` as it was");
    let record = update(&store, &record, PartsEdit::Keep, Wake::Never).await;
    assert_eq!(record.due_at, None, "`Wake::Never` takes `due_at` away");
    assert_eq!(
        answered(store.due(LONG, 10).await),
        vec![],
        "A record that shall never wake is not due"
    );
    let record = update(&store, &record, PartsEdit::Keep, now).await;
    assert_eq!(
        ids(&next_due(&store, Duration::from_millis(30)).await),
        [record.id],
        "`Wake::After` makes a record due"
    );
    assert_eq!(
        ids(&next_due(&store, LONG).await),
        [record.id],
        "A record is due again when its lease has passed"
    );

    let mut short = draft(2);
    short.expire_after = Some(Duration::from_millis(30));
    let short = create(&store, &short).await;
    let due = next_due(&store, LONG).await;
    assert_eq!(ids(&due), [short.id], "An open upload is due when it expires");
    assert_eq!(
        due[0].expires_at, short.expires_at,
        "Taking a record does not move its expiry"
    );
    assert_eq!(
        answered(store.due(LONG, 10).await),
        vec![],
        "An expired upload too is leased to one alone"
    );
    assert!(
        short.expires_at > Some(Timestamp::default()),
        "The store's clock must tell the time"
    );
}

async fn waking(store: &Store, number: u32, wake: Wake) -> Record {
    match answered(store.create(&draft(number), &[], &Quota::UNLIMITED, wake).await) {
        Created::New(record) => record,
        other => panic!("An upload of its own name must be created, got {other:?}"),
    }
}

/// What is due next, waited for.
async fn next_due(store: &Store, lease: Duration) -> Vec<Record> {
    for _ in 0..500 {
        let due = answered(store.due(lease, 10).await);
        if !due.is_empty() {
            return due;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("A record whose `due_at` has come must be given within five seconds");
}

fn ids(records: &[Record]) -> Vec<UploadId> {
    records.iter().map(|record| record.id).collect()
}
