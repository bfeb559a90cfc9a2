use super::*;
use crate::metadata::{Page, QuotaBound};

/// What was answered is there after closing and opening again. `open` opens the same location each time; at
/// the first time it is empty.
///
/// # Panics
/// If a clause of the contract is broken; the message says which.
pub async fn durability<S: MetadataStore>(open: impl AsyncFn() -> S) {
    bounded("durability", Box::pin(survives(open))).await;
}

async fn survives<S: MetadataStore>(open: impl AsyncFn() -> S) {
    let store: Store = Arc::new(open().await);
    let mut new = draft(1);
    new.target = Some(target("video"));
    new.plan.size = Some(1000);
    new.expire_after = Some(Duration::from_secs(3600));
    answered(
        store
            .create(&new, &[part(3, 30)], &Quota::UNLIMITED, Wake::AtExpiry)
            .await,
    );
    let mut guard = Guard::new(1);
    guard.pin = Some(10);
    answered(store.commit(new.id, &guard, &[part(0, 10), part(1, 10)]).await);
    let record = load(&store, new.id).await.record;
    update(&store, &record, PartsEdit::Remove(vec![0]), Wake::Keep).await;
    let ended = created(&store, 2).await;
    into_state(&store, &ended, State::Aborted).await;
    let gone = created(&store, 3).await;
    answered(store.remove(gone.id, gone.version).await);
    let due = draft(4);
    answered(
        store
            .create(&due, &[], &Quota::UNLIMITED, Wake::After(Duration::ZERO))
            .await,
    );
    let before = [
        load(&store, new.id).await,
        load(&store, ended.id).await,
        load(&store, due.id).await,
    ];
    drop(store);

    let store: Store = Arc::new(open().await);
    for snapshot in &before {
        let found = find(&store, snapshot.record.id).await;
        assert_eq!(
            found.as_ref(),
            Some(snapshot),
            "What was answered must be there after opening the store again"
        );
    }
    assert_eq!(find(&store, gone.id).await, None, "What was removed must not come back");
    assert_eq!(
        by_name(&store, &new).await,
        Some(new.id),
        "A name must be held after opening the store again"
    );
    assert_eq!(
        by_name(&store, &ended).await,
        None,
        "A released name must not come back"
    );
    let listed = answered(store.list(Some(&new.owner), Page::new(0, 10)).await).len();
    assert_eq!(listed, 3, "The owner's list must survive");
    let mut rival = nameless(5);
    rival.key = new.key.clone();
    let answer = answered(store.create(&rival, &[], &Quota::UNLIMITED, Wake::Keep).await);
    assert_eq!(
        answer,
        Created::KeyTaken,
        "A key must be held after opening the store again"
    );
    let quota = Quota {
        uploads: None,
        bytes: Some(1000),
    };
    let answer = answered(store.create(&nameless(6), &[part(0, 1)], &quota, Wake::Keep).await);
    assert_eq!(
        answer,
        Created::OverQuota(QuotaBound::Bytes(1000)),
        "What an owner uses must be counted after opening the store again"
    );
    let taken = answered(store.due(Duration::from_secs(3600), 10).await);
    assert_eq!(
        taken.iter().map(|record| record.id).collect::<Vec<_>>(),
        [due.id],
        "What is due must survive"
    );
    drop(store);

    let store: Store = Arc::new(open().await);
    assert_eq!(
        answered(store.due(Duration::from_secs(3600), 10).await),
        vec![],
        "A lease must survive"
    );
    assert_eq!(
        commit(&store, new.id, &[part(0, 10)]).await.parts,
        3,
        "An upload must go on after opening the store again"
    );
}
