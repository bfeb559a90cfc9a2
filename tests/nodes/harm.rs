//! What happens to the nodes and their stores while clients send.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use super::{
    cluster::{Cluster, LEASE, NODES},
    film::Shared,
    wire::Numbers,
};

/// What a seed may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// SIGKILL, and started again.
    Kill,
    /// SIGTERM while requests are under way, and started again: a new release.
    Drain,
    /// SIGSTOP for longer than a lease, then SIGCONT.
    Pause,
    /// The database is killed and started again.
    Database,
    /// Messages to and from the database are lost.
    DatabaseFaults,
    /// Requests to the store fail in all ways.
    StoreFaults,
    /// The store's gateway is killed and started again.
    Store,
}

const ALL: [Harm; 7] = [
    Harm::Kill,
    Harm::Drain,
    Harm::Pause,
    Harm::Database,
    Harm::DatabaseFaults,
    Harm::StoreFaults,
    Harm::Store,
];

/// How often each happened, and how often with a request under way that had a body and ended without an answer.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) count: BTreeMap<Harm, usize>,
    pub(crate) mid_request: BTreeMap<Harm, usize>,
}

impl Done {
    pub(crate) fn of(&self, harm: Harm) -> (usize, usize) {
        let get = |map: &BTreeMap<Harm, usize>| map.get(&harm).copied().unwrap_or(0);
        (get(&self.count), get(&self.mid_request))
    }
}

/// One or two sorts of harm, one after the other. The first rounds have each once, so that none is left to chance.
pub(crate) fn choose(numbers: &mut Numbers, round: usize, store_restarts: bool) -> Vec<Harm> {
    let count = numbers.between(1..=2);
    let first = ALL.get(round).filter(|harm| store_restarts || **harm != Harm::Store);
    let mut chosen: Vec<Harm> = first.copied().into_iter().collect();
    while chosen.len() < count {
        // Kills and the store's faults are what happens most.
        let harm = match numbers.below(12) {
            n @ 0..7 => ALL[n],
            7..=9 => Harm::Kill,
            _ => Harm::StoreFaults,
        };
        if !chosen.contains(&harm) && (store_restarts || harm != Harm::Store) {
            chosen.push(harm);
        }
    }
    chosen
}

/// Until so many requests with a body are under way, for a while.
async fn busy(shared: &Shared) {
    for _ in 0..400 {
        if shared.under_way.load(Ordering::SeqCst) >= 3 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn inflict(
    harm: Harm,
    cluster: &mut Cluster,
    shared: &Shared,
    numbers: &mut Numbers,
    done: &mut Done,
) {
    tokio::time::sleep(Duration::from_millis(numbers.between(20..=600) as u64)).await;
    busy(shared).await;
    tokio::time::sleep(Duration::from_millis(numbers.between(0..=40) as u64)).await;
    let before = shared.cut.load(Ordering::SeqCst);
    let victim = numbers.below(NODES);
    let away = Duration::from_millis(numbers.between(0..=1200) as u64);
    match harm {
        Harm::Kill => {
            cluster.nodes[victim].kill();
            tokio::time::sleep(away + Duration::from_millis(200)).await;
            cluster.nodes[victim].start();
        }
        Harm::Drain => {
            cluster.nodes[victim].signal("TERM");
            if !cluster.nodes[victim].ended(Duration::from_secs(25)).await {
                shared.violation("a node does not end after SIGTERM");
                cluster.nodes[victim].kill();
            }
            tokio::time::sleep(away).await;
            cluster.nodes[victim].start();
        }
        Harm::Pause => {
            cluster.nodes[victim].signal("STOP");
            tokio::time::sleep(LEASE + Duration::from_millis(500) + away).await;
            cluster.nodes[victim].signal("CONT");
        }
        Harm::Database => cluster.database.restart(),
        Harm::Store => cluster.store.restart(),
        Harm::DatabaseFaults => {
            cluster.database_faults.record.harm(true);
            tokio::time::sleep(Duration::from_millis(800) + away).await;
            cluster.database_faults.cut();
            tokio::time::sleep(away / 2).await;
            cluster.database_faults.record.harm(false);
        }
        Harm::StoreFaults => {
            cluster.store_faults.record.harm(true);
            tokio::time::sleep(Duration::from_millis(1500) + away).await;
            cluster.store_faults.record.harm(false);
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    *done.count.entry(harm).or_default() += 1;
    if shared.cut.load(Ordering::SeqCst) > before {
        *done.mid_request.entry(harm).or_default() += 1;
    }
}
