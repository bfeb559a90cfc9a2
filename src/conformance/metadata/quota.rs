use super::*;
use crate::{
    conformance::{RACERS, all},
    metadata::{QuotaBound, Unfinished},
};

/// The bytes bound holds exactly under a race of commits; what was declared is not counted twice.
pub async fn quota_is_exact_on_commit(store: Store) {
    let (one, two) = (created(&store, 1).await, created(&store, 2).await);
    let bounded = within(100);
    let tasks = (0..RACERS).map(|number| {
        let (store, guard) = (store.clone(), bounded.clone());
        let id = if number % 2 == 0 { one.id } else { two.id };
        tokio::spawn(async move { store.commit(id, &guard, &[part(number, 30)]).await })
    });
    let answers: Vec<Committed> = all(tasks.collect()).await.into_iter().map(answered).collect();
    let done = answers
        .iter()
        .filter(|answer| matches!(answer, Committed::Done(_)))
        .count();
    let over = Committed::OverQuota(QuotaBound::Bytes(100));
    assert_eq!(
        done, 3,
        "Of parts of 30 bytes exactly 3 fit into an owner's 100 bytes, however many come at once: {answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|answer| **answer == over).count(),
        5,
        "The others must be told the bound, got {answers:?}"
    );
    let stored = load(&store, one.id).await.tally.parts + load(&store, two.id).await.tally.parts;
    assert_eq!(stored, 3, "A part that is over the quota must not be stored");

    let mut whole = draft(3);
    whole.owner = Owner::new("declared");
    whole.plan.size = Some(90);
    let whole = create(&store, &whole).await;
    for number in 0..3 {
        let answer = answered(store.commit(whole.id, &bounded, &[part(number, 30)]).await);
        assert!(
            matches!(answer, Committed::Done(_)),
            "Parts of a declared size are not counted on top of it, got {answer:?}"
        );
    }
    let answer = answered(store.commit(whole.id, &bounded, &[part(2, 30)]).await);
    assert_eq!(
        answer,
        Committed::Present(part(2, 30)),
        "Parts that are there are told before the quota is looked at"
    );
    assert_eq!(
        answered(store.commit(whole.id, &bounded, &[part(3, 11)]).await),
        over,
        "Bytes past the declared size count"
    );
}

/// What ends, shrinks or goes is not counted any more.
pub async fn quota_is_given_back(store: Store) {
    let mut record = created(&store, 1).await;
    let bounded = within(100);
    let over = Committed::OverQuota(QuotaBound::Bytes(100));
    commit(&store, record.id, &[part(0, 60), part(1, 40)]).await;
    let beside = created(&store, 2).await;
    let full = async |why: &str| {
        assert_eq!(
            answered(store.commit(beside.id, &bounded, &[part(0, 1)]).await),
            over,
            "{why}"
        );
    };
    full("Two parts of 60 and 40 bytes fill 100").await;
    record = update(&store, &record, PartsEdit::Remove(vec![1]), Wake::Keep).await;
    let answer = answered(store.commit(beside.id, &bounded, &[part(0, 40)]).await);
    assert!(
        matches!(answer, Committed::Done(_)),
        "Removed parts must be given back to the quota, got {answer:?}"
    );
    record = into_state(&store, &record, State::Assembling).await;
    let answer = answered(store.commit(beside.id, &bounded, &[part(1, 1)]).await);
    assert_eq!(answer, over, "An upload that is being assembled still counts");
    into_state(&store, &record, State::Assembled).await;
    let answer = answered(store.commit(beside.id, &bounded, &[part(1, 60)]).await);
    assert!(
        matches!(answer, Committed::Done(_)),
        "An assembled upload must not count any more, got {answer:?}"
    );

    let slots = Quota {
        uploads: Some(2),
        bytes: None,
    };
    let one_more = async |number: u32| answered(store.create(&draft(number), &[], &slots, Wake::AtExpiry).await);
    let Created::New(third) = one_more(3).await else {
        panic!("An assembled upload must not count as unfinished any more");
    };
    assert_eq!(
        one_more(4).await,
        Created::OverQuota(QuotaBound::Uploads(2)),
        "Two unfinished uploads fill a bound of 2"
    );
    assert!(
        answered(store.remove(third.id, third.version).await),
        "A removal at the present version must be done"
    );
    let Created::New(fourth) = one_more(4).await else {
        panic!("A removed upload must be given back to the quota");
    };
    into_state(&store, &fourth, State::Aborted).await;
    assert!(
        matches!(one_more(5).await, Created::New(_)),
        "An aborted upload must be given back to the quota"
    );
}

/// A store that tells what is unfinished counts as quotas do, over all owners.
pub async fn what_is_unfinished_is_counted(store: Store) {
    if answered(store.unfinished().await).is_none() {
        return;
    }
    let now = async |uploads: u64, bytes: u64, why: &str| {
        let told = answered(store.unfinished().await);
        assert_eq!(told, Some(Unfinished::new(uploads, bytes)), "{why}");
    };
    now(0, 0, "Nothing is unfinished in a new store").await;
    let mut other = draft(1);
    other.owner = Owner::new("somebody else");
    other.plan.size = Some(90);
    let other = create(&store, &other).await;
    let record = created(&store, 2).await;
    commit(&store, record.id, &[part(0, 60), part(1, 40)]).await;
    now(2, 190, "Uploads of all owners count, with what they reserve").await;
    let record = into_state(&store, &record, State::Assembling).await;
    now(2, 190, "An upload that is being assembled still counts").await;
    into_state(&store, &record, State::Assembled).await;
    into_state(&store, &other, State::Aborted).await;
    now(0, 0, "What has ended does not count").await;
}

fn within(bytes: u64) -> Guard {
    let mut guard = Guard::new(1);
    guard.quota.bytes = Some(bytes);
    guard
}
