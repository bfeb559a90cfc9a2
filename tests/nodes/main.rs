//! Many nodes on one database and one object store: clients send by every dialect through a proxy that asks the nodes in turn,
//! while nodes are killed, paused and replaced, the database restarts, and requests to both stores fail in all ways. What was
//! acknowledged must be there afterwards, and nothing else.
//!
//! `NODES_ROUNDS` rounds (none unless said), half of them on moto and half on Ceph's gateway; `NODES_SEED` repeats the choices
//! of a run, though not its timing. `NODES_STORE` takes one store, `NODES_PROXY` another proxy than haproxy (nginx), `NODES_LOG`
//! what the nodes log.
//!
//!     cargo build --release --features aws,ffmpeg,postgres --example axum
//!     NODES_ROUNDS=100 cargo test --release --features aws,ffmpeg,postgres --test nodes -- --nocapture --test-threads 1
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod client;
mod cluster;
mod film;
mod harm;
#[path = "../history/mod.rs"]
mod history;
mod inspect;
#[path = "../proxy/mod.rs"]
mod proxy;
#[path = "../services/mod.rs"]
mod services;
#[path = "../stream/mod.rs"]
mod stream;
mod takeover;
mod video;
#[path = "../wire/mod.rs"]
mod wire;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use cluster::{Cluster, EXPIRY, LEASE, Setup};
use film::{CHUNK, DIALECTS, Film, Shared};
use harm::{Done, Harm};
use proxy::{Fault, Kind, Seeded};
use wire::Numbers;

/// Uploads at once.
const FILMS: usize = 6;
/// Published films that stay to the end, so that 2,000 rounds fit into memory.
const KEPT: usize = 20;
/// How long everything may take once there is quiet: a lease, some retries, and a machine that does other things too.
const BOUND: Duration = Duration::from_secs(60);

fn users() -> Vec<String> {
    (0..FILMS).map(|n| format!("user-{n}")).collect()
}

/// What a whole run did.
#[derive(Debug, Default)]
struct Figures {
    done: Done,
    finished: usize,
    left: usize,
    deleted: usize,
    slowest: Duration,
}

struct Run {
    cluster: Cluster,
    shared: Arc<Shared>,
    numbers: Numbers,
    figures: Figures,
    kept: Vec<Film>,
    invented: usize,
}

impl Run {
    fn film(&mut self, place: usize) -> Film {
        let numbers = &mut self.numbers;
        let len = numbers.between(CHUNK..=20 << 20) - numbers.below(CHUNK);
        let n = self.invented;
        self.invented += 1;
        let mut film = Film::new(
            DIALECTS[place % 3],
            n,
            &format!("user-{place}"),
            len,
            numbers.next(),
            &self.shared,
        );
        if numbers.one_in(12) {
            film.leaves_at = Some(numbers.below(len) as u64);
        }
        film
    }

    /// Clients send, harm is done, then there is quiet, and all comes to its end.
    async fn round(&mut self, round: usize) {
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(30) + BOUND;
        let films: Vec<Film> = (0..FILMS).map(|place| self.film(place)).collect();
        let mut running = Vec::new();
        for film in films {
            // One after the other, so that something is on its way whatever happens when.
            let wait = Duration::from_millis(self.numbers.below(1500) as u64);
            running.push(tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                film.run(deadline).await
            }));
        }
        for harm in harm::choose(&mut self.numbers, round, self.cluster.store_restarts()) {
            let (numbers, done) = (&mut self.numbers, &mut self.figures.done);
            harm::inflict(harm, &mut self.cluster, &self.shared, numbers, done).await;
        }
        self.cluster.calm().await;
        let quiet = Instant::now();
        for film in running {
            let mut film = film.await.unwrap();
            if film.is_over {
                continue;
            }
            if film.leaves_at.is_some() && !film.is_done {
                self.figures.left += 1;
                continue;
            }
            if !film.is_done {
                self.shared
                    .violation(format!("it is not done after {BOUND:?} of quiet: {film:?}"));
                continue;
            }
            if !until(quiet + BOUND, async || film.check().await).await {
                self.shared
                    .violation(format!("it cannot be read after {BOUND:?} of quiet: {film:?}"));
            }
            self.figures.finished += 1;
            self.kept.push(film);
        }
        self.figures.slowest = self.figures.slowest.max(quiet.elapsed());
        while self.kept.len() > KEPT {
            let at = self.numbers.below(self.kept.len());
            let mut film = self.kept.swap_remove(at);
            if !until(Instant::now() + BOUND, async || film.delete().await).await {
                self.shared.violation(format!("it cannot be deleted: {film:?}"));
            }
            self.figures.deleted += 1;
        }
    }

    fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.violations.lock().unwrap())
    }

    /// Everything that proves that there was harm.
    fn report(&self, store: &str, rounds: usize) {
        let figures = &self.figures;
        let get = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::SeqCst);
        println!(
            "{store}: {rounds} rounds, {} uploads finished, {} left by their clients, {} deleted; {} requests, {} of them cut, {} told \
             to try again; {} MiB acknowledged; at most {:.1} s from quiet to the last check of a round",
            figures.finished,
            figures.left,
            figures.deleted,
            get(&self.shared.requests),
            get(&self.shared.cut),
            get(&self.shared.troubles),
            self.shared.acknowledged.load(Ordering::SeqCst) >> 20,
            figures.slowest.as_secs_f64()
        );
        let with = |harm| {
            let (count, mid) = figures.done.of(harm);
            format!("{count} ({mid} cut requests)")
        };
        println!(
            "{store}: kills {}, nodes replaced by SIGTERM {}, pauses past the lease of {LEASE:?} {}, databases killed {}, stores killed {}",
            with(Harm::Kill),
            with(Harm::Drain),
            with(Harm::Pause),
            with(Harm::Database),
            with(Harm::Store)
        );
        println!(
            "{store}: faults of the store {:?}; of the database {:?}",
            self.cluster.store_faults.record.injected(),
            self.cluster.database_faults.record.injected()
        );
    }
}

/// Asks again and again until it is so, or too late.
async fn until(late: Instant, mut is_so: impl AsyncFnMut() -> bool) -> bool {
    while Instant::now() < late {
        if is_so().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn setup(store: &str, seed: u64) -> Setup {
    Setup {
        store: store.to_owned(),
        front: std::env::var("NODES_PROXY").unwrap_or_else(|_| "haproxy".to_owned()),
        seed,
        streams: false,
    }
}

/// Whether rounds on this store are asked for, and how many.
fn rounds(store: &str) -> Option<usize> {
    let rounds = std::env::var("NODES_ROUNDS").ok()?.parse::<usize>().unwrap();
    match std::env::var("NODES_STORE") {
        Ok(only) => (only == store).then_some(rounds),
        Err(_) => Some(rounds.div_ceil(2)),
    }
}

fn survives(store: &str) {
    let Some(rounds) = rounds(store) else {
        println!("not asked for: NODES_ROUNDS says how many rounds");
        return;
    };
    let seed = Numbers::seed("NODES_SEED");
    println!("NODES_SEED={seed} NODES_STORE={store}");
    runtime().block_on(async {
        let faults = Seeded {
            seed,
            one_in: 5,
            patience: Duration::from_secs(3),
        };
        let setup = setup(store, seed);
        let Some(cluster) = Cluster::start(&setup, &users(), faults).await else {
            return;
        };
        let shared = Shared::new(cluster.proxy);
        let mut run = Run {
            cluster,
            shared,
            numbers: Numbers::new(seed),
            figures: Figures::default(),
            kept: Vec::new(),
            invented: 0,
        };
        for round in 0..rounds {
            run.round(round).await;
            let violations = run.take_violations();
            let store_log = run.cluster.store_faults.record.take_log();
            let database_log = run.cluster.database_faults.record.take_log();
            if (round + 1) % 100 == 0 {
                println!("{store}: {} rounds", round + 1);
            }
            if !violations.is_empty() {
                run.report(store, round + 1);
                panic!(
                    "NODES_SEED={seed} NODES_STORE={store}, round {round}: {violations:#?}\nfaults of the store: \
                     {store_log:#?}\nfaults of the database: {database_log:#?}\n{}",
                    run.cluster.logs()
                );
            }
        }
        // What clients left expires, and nobody needs to come for that.
        tokio::time::sleep(EXPIRY + EXPIRY / 8 + Duration::from_secs(3)).await;
        run.report(store, rounds);
        let found = inspect::inspect(&run.cluster, &users()).await;
        println!("{store}: {}", found.told);
        assert!(
            found.problems.is_empty(),
            "NODES_SEED={seed} NODES_STORE={store}: {:#?}\n{}",
            found.problems,
            run.cluster.logs()
        );
        prove(&run, rounds);
    });
}

/// A run in which nothing happened proves nothing.
fn prove(run: &Run, rounds: usize) {
    let figures = &run.figures;
    assert!(figures.finished >= rounds * FILMS / 2, "{figures:?}");
    if rounds < 20 {
        return;
    }
    let (kills, mid_request) = figures.done.of(Harm::Kill);
    // About half of them cut a request; how many do is chance.
    assert!(kills > 0 && mid_request > 0, "{figures:?}");
    for harm in [Harm::Pause, Harm::Database, Harm::StoreFaults, Harm::DatabaseFaults] {
        assert!(figures.done.of(harm).0 > 0, "{harm:?} never happened: {figures:?}");
    }
    assert!(run.cluster.store_faults.record.injected().len() >= 6);
    assert!(run.cluster.database_faults.record.injected().len() >= 3);
}

#[test]
fn every_acknowledged_byte_survives_on_moto() {
    survives("moto");
}

#[test]
fn every_acknowledged_byte_survives_on_rgw() {
    survives("rgw");
}

/// The control: a store that acknowledges parts and throws them away is found out.
#[test]
fn a_store_that_loses_parts_is_found_out() {
    if std::env::var("NODES_ROUNDS").is_err() {
        return;
    }
    runtime().block_on(async {
        let forges = |kind: Kind, _: u64| match kind {
            Kind::Part => Fault::Forge,
            _ => Fault::None,
        };
        let Some(cluster) = Cluster::start(&setup("moto", 1), &users(), forges).await else {
            return;
        };
        cluster.store_faults.record.harm(true);
        let deadline = Instant::now() + BOUND;
        // Each has a list of its own, so that what one notices does not stand for another.
        let films = DIALECTS.iter().enumerate().map(|(n, dialect)| {
            let shared = Shared::new(cluster.proxy);
            let film = Film::new(*dialect, n, &format!("user-{n}"), 12 << 20, n as u64, &shared);
            let running = tokio::spawn(film.run(deadline));
            (shared, running)
        });
        let mut found = Vec::new();
        for (shared, running) in films.collect::<Vec<_>>() {
            let mut film = running.await.unwrap();
            if film.is_done {
                until(deadline, async || film.check().await).await;
            }
            let violations = std::mem::take(&mut *shared.violations.lock().unwrap());
            found.push((film.dialect, film.is_done, violations));
        }
        println!("forged: {:?}", cluster.store_faults.record.injected());
        for (dialect, is_done, violations) in &found {
            println!("{dialect:?}: done {is_done}, {violations:.300?}");
        }
        for (dialect, _, violations) in &found {
            assert!(!violations.is_empty(), "{dialect:?}: nobody noticed");
        }
    });
}
