use super::*;
use crate::{
    conformance::{RACERS, all},
    metadata::QuotaBound,
    upload::{Digest, EventKind, HashState, Intent, Protocol, Version},
};

/// Every field survives; version, revision and times are the store's.
pub async fn a_new_upload_is_as_it_was_given(store: Store) {
    let mut new = draft(1);
    new.target = Some(target("video-7"));
    new.protocol = Protocol::Chunk;
    new.intent = Some(Intent::Abort);
    new.metadata.insert("naïve \"key\"".into(), "välue\n\u{1F3AC}".into());
    new.plan = Plan::indexed(3, Some(5 << 20), Some(11 << 20));
    // Drawn from all 64 bits.
    new.epoch = u64::MAX - 4;
    new.checksum = Some(Digest::crc64(u64::MAX - 1));
    new.hash = Some(HashState::new(17, vec![0, 255, 10]));
    new.expire_after = Some(Duration::from_secs(3600));
    new.push_event(EventKind::Created, Vec::new());
    let made = create(&store, &new).await;
    let mut given = new.clone();
    given.version = Version::default().next();
    (given.created_at, given.expires_at, given.due_at) = (made.created_at, made.expires_at, made.due_at);
    assert_eq!(
        made, given,
        "A new record must be stored with every field as given and version 1"
    );
    assert_eq!(
        made.expires_at,
        Some(made.created_at.after(Duration::from_secs(3600))),
        "A new upload expires `expire_after` after its creation, by the store's clock"
    );
    let stored = load(&store, new.id).await;
    assert_eq!(
        stored.record, made,
        "`load` must give the record that `create` answered"
    );
    assert_eq!(stored.tally.revision, 1, "A new upload has revision 1");

    let mut soon = draft(2);
    soon.expire_after = Some(Duration::from_secs(3600));
    let wake = Wake::After(Duration::from_secs(60));
    let Created::New(soon) = answered(store.create(&soon, &[], &Quota::UNLIMITED, wake).await) else {
        panic!("A second upload with another name and key must be created");
    };
    assert_eq!(
        soon.due_at,
        Some(soon.created_at.after(Duration::from_secs(60))),
        "`create` with `Wake::After` makes the record due after that time"
    );
    assert_eq!(
        created(&store, 3).await.due_at,
        None,
        "An upload that never expires is not due by itself"
    );
}

/// Of many creations of one name exactly one is new, the others are told which.
pub async fn names_are_unique_under_a_race(store: Store) {
    for round in 0..20 {
        let first = round * RACERS;
        let answers = race(&store, first, |new| {
            new.file_name = file_name(&format!("round-{round}"));
            new.key = key(&format!("round/{round}"));
        })
        .await;
        let winners = new_ones(&answers);
        assert_eq!(
            winners.len(),
            1,
            "Exactly one of several creations of one name at once must be new"
        );
        for answer in &answers {
            match answer {
                Created::New(_) => {}
                Created::NameTaken(record) => assert_eq!(
                    record, &winners[0],
                    "`NameTaken` must carry the record of the live upload with that name"
                ),
                other => panic!(
                    "Who creates a taken name must be told `NameTaken`, also where the key is taken too, got {other:?}"
                ),
            }
        }
        only_the_winner_is_stored(&store, first, winners[0].id).await;
    }
}

/// Of many creations with one key exactly one is new.
pub async fn keys_are_unique_under_a_race(store: Store) {
    for round in 0..20 {
        let first = round * RACERS;
        let answers = race(&store, first, |new| {
            new.named = false;
            new.key = key(&format!("round/{round}"));
        })
        .await;
        let winners = new_ones(&answers);
        assert_eq!(
            winners.len(),
            1,
            "Exactly one of several creations with one key at once must be new"
        );
        let told = answers.iter().filter(|answer| **answer == Created::KeyTaken).count();
        assert_eq!(
            told + 1,
            answers.len(),
            "Who creates with a held key must be told `KeyTaken`, got {answers:?}"
        );
        only_the_winner_is_stored(&store, first, winners[0].id).await;
    }
    let mut free = nameless(1_000_000);
    free.key = key("round/0");
    free.key_held = false;
    create(&store, &free).await;
}

/// A second upload with an id that exists is refused, and the first is as it was.
pub async fn ids_are_unique(store: Store) {
    let made = created(&store, 1).await;
    let mut again = draft(2);
    again.id = made.id;
    let answer = answered(
        store
            .create(&again, &[part(0, 1)], &Quota::UNLIMITED, Wake::AtExpiry)
            .await,
    );
    assert_eq!(answer, Created::KeyTaken, "An id that exists cannot be created again");
    let stored = load(&store, made.id).await;
    assert_eq!(
        (stored.record, stored.parts),
        (made, vec![]),
        "A refused creation must change nothing"
    );
    assert_eq!(
        by_name(&store, &again).await,
        None,
        "A refused creation must not take its name"
    );
}

/// The name is all of owner, target and file name, and only of who asked for one.
pub async fn names_are_of_owner_target_and_file(store: Store) {
    let mut made = Vec::new();
    let mut number = 0;
    for owner in ["ann", "bob", ""] {
        for goal in [None, Some("video"), Some("other")] {
            for file in ["a.mp4", "b.mp4"] {
                number += 1;
                let mut new = draft(number);
                new.owner = Owner::new(owner);
                new.target = goal.map(target);
                new.file_name = file_name(file);
                made.push(create(&store, &new).await);
            }
        }
    }
    for record in &made {
        assert_eq!(
            by_name(&store, record).await,
            Some(record.id),
            "Owner, target (or none) and file name together must find the one upload with that name"
        );
        let answer = answered(
            store
                .create(&as_another(record), &[], &Quota::UNLIMITED, Wake::AtExpiry)
                .await,
        );
        assert_eq!(
            answer,
            Created::NameTaken(record.clone()),
            "A live upload's name is taken"
        );
    }
    let mut unnamed = as_another(&made[0]);
    unnamed.named = false;
    create(&store, &unnamed).await;
    assert_eq!(
        by_name(&store, &made[0]).await,
        Some(made[0].id),
        "An upload without `named` never has the name"
    );
}

/// Long, foreign and look-alike names are kept as they are and apart.
pub async fn odd_names_are_kept_apart(store: Store) {
    let long = "x".repeat(255);
    let wide = "ü".repeat(127);
    let files = [
        "a",
        "A",
        "a ",
        " a",
        "a%",
        "a_",
        "a'b",
        "a\"b",
        "a;--",
        "é",
        "e\u{301}",
        "日本語.mp4",
        "\u{1F3AC}",
        "ß",
        "ss",
        &long,
        &wide,
    ];
    let owners = ["o", "O", "o/o", "o|o", "o:o", "\u{1F600}", "o\u{1f}o"];
    let goal = "t".repeat(128);
    let goals = [None, Some("o"), Some("t"), Some("T"), Some(goal.as_str())];
    let mut made = Vec::new();
    for (file, owner, goal) in files
        .iter()
        .map(|file| (*file, owners[0], goals[0]))
        .chain(owners[1..].iter().map(|owner| (files[0], *owner, goals[0])))
        .chain(goals[1..].iter().map(|goal| (files[0], owners[0], *goal)))
    {
        let mut new = draft(u32::try_from(made.len()).unwrap_or(u32::MAX));
        new.file_name = file_name(file);
        new.owner = Owner::new(owner);
        new.target = goal.map(target);
        let seg = format!("{}{}", "k".repeat(250), made.len() % 10);
        new.key = key(&format!("{}/{seg}/{seg}/{seg}", made.len()));
        made.push(create(&store, &new).await);
    }
    for record in &made {
        assert_eq!(
            by_name(&store, record).await,
            Some(record.id),
            "Names are compared byte by byte: case, spaces, accents and wildcards all count"
        );
        assert_eq!(
            load(&store, record.id).await.record,
            *record,
            "Names must be stored byte by byte"
        );
    }
}

/// Record and first parts are one step: whoever is refused leaves none of them.
pub async fn first_parts_come_with_the_upload(store: Store) {
    let first = [part(4, 10), part(0, 7)];
    let Created::New(made) = answered(store.create(&draft(1), &first, &Quota::UNLIMITED, Wake::AtExpiry).await) else {
        panic!("An upload with first parts must be created");
    };
    let stored = load(&store, made.id).await;
    assert_eq!(
        (stored.tally.parts, stored.tally.bytes, stored.tally.revision),
        (2, 17, 1),
        "First parts are counted in the creation's own step: revision 1"
    );
    assert_eq!(
        stored.parts,
        vec![part(0, 7), part(4, 10)],
        "First parts must be stored as given"
    );
    let loser = as_another(&made);
    let other = [part_by(9, 3, "loser")];
    let answer = answered(store.create(&loser, &other, &Quota::UNLIMITED, Wake::AtExpiry).await);
    assert_eq!(
        answer,
        Created::NameTaken(made.clone()),
        "The loser of a first-chunk race is told the winner's record"
    );
    assert_eq!(
        load(&store, made.id).await,
        stored,
        "The loser's first parts must not get into the winner's upload"
    );
    assert_eq!(find(&store, loser.id).await, None, "A refused upload must not exist");
}

/// Both bounds hold exactly, under a race, for each owner alone.
pub async fn quota_is_exact_on_create(store: Store) {
    let uploads = Quota {
        uploads: Some(3),
        bytes: None,
    };
    let answers = race_within(&store, 0, uploads, |_| {}).await;
    let bound = Created::OverQuota(QuotaBound::Uploads(3));
    assert_eq!(
        new_ones(&answers).len(),
        3,
        "Exactly as many uploads as the quota allows must be created at once"
    );
    assert_eq!(
        answers.iter().filter(|answer| **answer == bound).count(),
        5,
        "The others must be told the bound, got {answers:?}"
    );
    let mut refused = (0..RACERS)
        .map(upload_id)
        .filter(|id| !new_ones(&answers).iter().any(|record| record.id == *id));
    let refused = refused.next().expect("five of eight were refused");
    assert_eq!(
        find(&store, refused).await,
        None,
        "An upload that is over the quota must not be stored"
    );

    let bytes = Quota {
        uploads: None,
        bytes: Some(100),
    };
    let answers = race_within(&store, 100, bytes, |new| {
        new.owner = Owner::new("bytes");
        new.plan.size = Some(40);
    })
    .await;
    let bound = Created::OverQuota(QuotaBound::Bytes(100));
    assert_eq!(
        new_ones(&answers).len(),
        2,
        "Declared sizes count: two uploads of 40 bytes fit into 100, three do not"
    );
    assert_eq!(
        answers.iter().filter(|answer| **answer == bound).count(),
        6,
        "The others must be told the bound, got {answers:?}"
    );

    let mut fits = draft(200);
    fits.owner = Owner::new("bytes");
    let answer = answered(store.create(&fits, &[part(0, 20)], &bytes, Wake::AtExpiry).await);
    assert!(
        matches!(answer, Created::New(_)),
        "An upload that fits exactly must be created, got {answer:?}"
    );
    let mut over = draft(201);
    over.owner = Owner::new("bytes");
    let answer = answered(store.create(&over, &[part(0, 1)], &bytes, Wake::AtExpiry).await);
    assert_eq!(
        answer, bound,
        "First parts count against the quota where no size is declared"
    );
}

async fn race(store: &Store, first: u32, shape: impl Fn(&mut Record)) -> Vec<Created> {
    race_within(store, first, Quota::UNLIMITED, shape).await
}

async fn race_within(store: &Store, first: u32, quota: Quota, shape: impl Fn(&mut Record)) -> Vec<Created> {
    let tasks = (first..first + RACERS).map(|number| {
        let mut new = draft(number);
        shape(&mut new);
        let store = store.clone();
        tokio::spawn(async move { store.create(&new, &[], &quota, Wake::AtExpiry).await })
    });
    all(tasks.collect()).await.into_iter().map(answered).collect()
}

fn new_ones(answers: &[Created]) -> Vec<Record> {
    let new = answers.iter().filter_map(|answer| match answer {
        Created::New(record) => Some(record.clone()),
        _ => None,
    });
    new.collect()
}

async fn only_the_winner_is_stored(store: &Store, first: u32, winner: UploadId) {
    for id in (first..first + RACERS).map(upload_id) {
        assert_eq!(
            find(store, id).await.is_some(),
            id == winner,
            "Only the upload that was answered `New` may exist"
        );
    }
}

/// Another upload of the same name.
fn as_another(record: &Record) -> Record {
    let mut another = record.clone();
    let mut bytes = *record.id.as_bytes();
    bytes[0] = b'X';
    another.id = UploadId::from_bytes(bytes);
    another.key = key(&format!("another/{}", another.id.to_string().trim_start_matches('-')));
    another.version = Version::default();
    another
}
