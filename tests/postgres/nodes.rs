//! Two nodes on one database, doing the same at once.

use std::time::Duration;

use futures_util::future::join_all;
use tower_upload::{
    State,
    metadata::{PartsEdit, QuotaBound, Updated},
};

use super::*;

struct Nodes(Arc<[PostgresMetadata; 2]>);

impl Nodes {
    async fn new(server: &Server) -> Self {
        let schema = server.fresh_name();
        Self(Arc::new([open(server, &schema).await, open(server, &schema).await]))
    }

    /// `work` 16 times at once, on each node in turn.
    async fn race<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        work: impl Fn(Arc<[PostgresMetadata; 2]>, usize, u32) -> F,
    ) -> Vec<T> {
        let tasks = (0..16).map(|n| tokio::spawn(work(Arc::clone(&self.0), n as usize % 2, n)));
        join_all(tasks).await.into_iter().map(Result::unwrap).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_name_is_created_once() {
    let server = server!();
    let nodes = Nodes::new(&server).await;
    for round in 0..20 {
        let answers = nodes
            .race(move |nodes, at, n| async move {
                let mut new = record(round);
                new.id = id(100 + n as u8);
                new.key = Key::parse(&format!("{round}-{n}")).unwrap();
                if round > 0 {
                    new.id = UploadId::from_bytes([round, n as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                }
                nodes[at]
                    .create(&new, &[part(n)], &Quota::UNLIMITED, Wake::AtExpiry)
                    .await
                    .unwrap()
            })
            .await;
        let new: Vec<_> = answers
            .iter()
            .filter(|answer| matches!(answer, Created::New(_)))
            .collect();
        assert_eq!(new.len(), 1, "{answers:?}");
        let Created::New(winner) = new[0] else { unreachable!() };
        for answer in &answers {
            assert!(
                matches!(answer, Created::New(record) | Created::NameTaken(record) if record.id == winner.id),
                "{answer:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn quotas_hold_for_all_nodes_together() {
    let server = server!();
    let nodes = Nodes::new(&server).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(create(&nodes.0[0], n).await.id);
    }
    let mut quota = Quota::UNLIMITED;
    quota.bytes = Some(95);
    // Creations and commits of one owner, bounded and unbounded: 16 bounded ones of 10 bytes each, and others that take
    // and give back without asking.
    let answers = nodes
        .race(move |nodes, at, n| {
            let id = ids[n as usize % 4];
            async move {
                let mut other = record(200 + n as u8);
                other.owner = Owner::new("bob");
                nodes[at]
                    .create(&other, &[part(1)], &Quota::UNLIMITED, Wake::Never)
                    .await
                    .unwrap();
                let mut guard = Guard::new(1);
                guard.quota = quota;
                nodes[at].commit(id, &guard, &[part(n)]).await.unwrap()
            }
        })
        .await;
    let done = answers
        .iter()
        .filter(|answer| matches!(answer, Committed::Done(_)))
        .count();
    assert_eq!(done, 9, "{answers:?}");
    let over = Committed::OverQuota(QuotaBound::Bytes(95));
    assert_eq!(
        answers.iter().filter(|answer| **answer == over).count(),
        7,
        "{answers:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_part_is_committed_once_and_none_after_the_seal() {
    let server = server!();
    let nodes = Nodes::new(&server).await;
    for round in 0..10 {
        let upload = create(&nodes.0[0], round).await.id;
        let answers = nodes
            .race(move |nodes, at, _| async move { put(&nodes[at], upload, 0).await.unwrap() })
            .await;
        let done = answers
            .iter()
            .filter(|answer| matches!(answer, Committed::Done(_)))
            .count();
        assert_eq!(done, 1, "{answers:?}");

        // Node 1 seals while both commit: what was answered `Done` is there, and nothing else.
        let answers = nodes
            .race(move |nodes, at, n| async move {
                if n == 7 {
                    loop {
                        let mut next = load(&nodes[1], upload).await.unwrap().record;
                        next.state = State::Assembling;
                        if matches!(
                            nodes[1].update(&next, PartsEdit::Keep, Wake::Never).await.unwrap(),
                            Updated::Done(_)
                        ) {
                            return Vec::new();
                        }
                    }
                }
                let mut mine = Vec::new();
                for k in 0..50 {
                    match put(&nodes[at], upload, 1 + n * 50 + k).await.unwrap() {
                        Committed::Done(_) => mine.push(1 + n * 50 + k),
                        Committed::Refused(record, _) if record.state == State::Assembling => break,
                        other => panic!("{other:?}"),
                    }
                }
                mine
            })
            .await;
        let mut done = answers.concat();
        done.push(0);
        done.sort_unstable();
        let stored = load(&nodes.0[0], upload).await.unwrap();
        let there: Vec<u32> = stored.parts.iter().map(|part| part.number).collect();
        assert_eq!(there, done);
        assert_eq!(stored.tally.parts as usize, done.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_due_goes_to_one_node() {
    let server = server!();
    let nodes = Nodes::new(&server).await;
    for n in 0..60 {
        let created = nodes.0[0]
            .create(&record(n), &[], &Quota::UNLIMITED, Wake::After(Duration::ZERO))
            .await;
        assert!(matches!(created.unwrap(), Created::New(_)));
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut taken = nodes
        .race(|nodes, at, _| async move {
            let mut mine = Vec::new();
            loop {
                let due = nodes[at].due(Duration::from_secs(3600), 3).await.unwrap();
                if due.is_empty() {
                    return mine;
                }
                mine.extend(due.into_iter().map(|record| record.id));
            }
        })
        .await
        .concat();
    taken.sort();
    assert_eq!(taken, (0..60).map(id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn names_and_keys_that_change_hands_crosswise_end_without_an_error() {
    let server = server!();
    let nodes = Nodes::new(&server).await;
    let (ann, bob) = (create(&nodes.0[0], 1).await, create(&nodes.0[0], 2).await);
    for _ in 0..5 {
        let answers = nodes
            .race({
                let (ann, bob) = (ann.clone(), bob.clone());
                move |nodes, at, n| {
                    let (mine, other) = if n % 2 == 0 { (&ann, &bob) } else { (&bob, &ann) };
                    let (mine, other) = (mine.id, other.clone());
                    async move {
                        let mut next = load(&nodes[at], mine).await.unwrap().record;
                        match n % 3 {
                            0 => next.file_name = other.file_name,
                            1 => next.key = other.key,
                            _ => next.owner = Owner::new(format!("o{n}")),
                        }
                        nodes[at].update(&next, PartsEdit::Keep, Wake::Keep).await
                    }
                }
            })
            .await;
        for answer in answers {
            answer.unwrap();
        }
    }
}
