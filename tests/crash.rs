//! The process is killed (SIGKILL), time and again, while clients send; whatever was acknowledged must be there afterwards.
//!
//! `CRASH_ROUNDS` kills (12 unless said otherwise); `CRASH_SEED` repeats the choices of a run, though not its timing.
#![cfg(all(unix, feature = "http", feature = "disk", feature = "redb"))]
#![allow(clippy::unwrap_used, missing_docs)]

mod history;
mod server;
mod wire;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use history::{Deletion, Film, View, files};
use server::{Server, Settings};
use tower_upload::{Caller, ErrorKind, State, Uploads, access::OwnerOnly, metadata::Page};
use wire::{Connection, Cut, Numbers, Reply, Request};

const CLIENTS: usize = 4;
/// Published films that stay; older ones are deleted, so that 10,000 rounds fit on a disk.
const KEPT: usize = 24;
const SIGKILL: i32 = 9;

#[test]
fn server() {
    server::serve_if_asked();
}

/// What a whole run did.
#[derive(Debug, Default)]
struct Figures {
    rounds: usize,
    /// Kills that cut a request between its first byte and its acknowledgement.
    in_flight: usize,
    cut: usize,
    acknowledged: usize,
    bytes: usize,
    published: usize,
    given_up: usize,
    violations: Vec<String>,
}

/// What the clients of one round share.
#[derive(Debug, Default)]
struct Round {
    killed: AtomicBool,
    cut: AtomicUsize,
    acknowledged: AtomicUsize,
    bytes: AtomicUsize,
    violations: Mutex<Vec<String>>,
}

impl Round {
    fn violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }
}

/// How a round ended, for the proof that there was a crash.
#[derive(Debug)]
struct End {
    signal: Option<i32>,
    cut: usize,
}

impl End {
    /// # Errors
    /// Why it is no proof.
    fn is_crash(&self) -> Result<(), String> {
        match (self.signal, self.cut) {
            (Some(SIGKILL), 1..) => Ok(()),
            (Some(SIGKILL), 0) => Err("nothing was under way when the process died".into()),
            (signal, _) => Err(format!("the process died of {signal:?}")),
        }
    }
}

/// A client and its films, which outlive the server.
#[derive(Debug)]
struct Client {
    user: String,
    numbers: Numbers,
    invented: usize,
    unfinished: Vec<Film>,
    published: Vec<Film>,
    given_up: usize,
    published_ever: usize,
}

impl Client {
    fn new(n: usize, seed: u64) -> Self {
        Self {
            user: format!("user-{n}"),
            numbers: Numbers::new(seed.wrapping_mul(31).wrapping_add(n as u64)),
            invented: n,
            unfinished: Vec::new(),
            published: Vec::new(),
            given_up: 0,
            published_ever: 0,
        }
    }

    fn invent(&mut self) -> Film {
        let numbers = &mut self.numbers;
        let chunk = numbers.between(1..=192) << 10;
        let len = chunk * numbers.between(0..=7) + numbers.between(1..=chunk);
        let film = Film::new(&self.user, self.invented, len, chunk, numbers.one_in(2), numbers.next());
        self.invented += CLIENTS;
        film
    }

    /// What the server says after a restart must fit what it said before.
    async fn survey(&mut self, address: SocketAddr, directory: &Path, round: &Round) {
        let mut connection = Connection::open(address).await.unwrap();
        for mut film in std::mem::take(&mut self.unfinished) {
            let reply = connection.ask(&film.status()).await.unwrap();
            match film.check_status(&reply) {
                Err(what) => round.violation(what),
                Ok(View::Ended) => self.given_up += 1,
                Ok(View::Unknown) if film.deletion != Deletion::No => self.given_up += 1,
                Ok(View::Published) => self.publish(film, directory, round),
                Ok(_) => self.unfinished.push(film),
            }
        }
        while self.published.len() > KEPT / CLIENTS {
            let film = self.published.remove(0);
            if let Err(what) = film.check_published(directory) {
                round.violation(what);
            }
            let reply = connection.ask(&film.deletion().unwrap()).await.unwrap();
            let path = directory.join("blobs").join(film.published.as_ref().unwrap());
            if reply.status != 204 || path.exists() {
                round.violation(format!("a published film is not deleted: {reply:?}, {film:?}"));
            }
            self.given_up += 1;
        }
    }

    fn publish(&mut self, film: Film, directory: &Path, round: &Round) {
        match film.check_published(directory) {
            Ok(_) => self.published_ever += 1,
            Err(what) => round.violation(what),
        }
        self.published.push(film);
    }

    /// Sends until the server is gone.
    async fn run(mut self, address: SocketAddr, directory: Arc<Path>, round: Arc<Round>) -> Self {
        while !round.killed.load(Ordering::SeqCst) {
            let resumes = self.unfinished.len() >= 4 || (!self.unfinished.is_empty() && self.numbers.one_in(2));
            let mut film = match resumes {
                true => {
                    let at = self.numbers.below(self.unfinished.len());
                    self.unfinished.swap_remove(at)
                }
                false => self.invent(),
            };
            let result = go_on(&mut film, &mut self.numbers, address, &round, false).await;
            let is_published = film.published.is_some() && film.deletion == Deletion::No;
            match film.deletion {
                Deletion::Done => self.given_up += 1,
                _ if is_published => self.publish(film, &directory, &round),
                _ => self.unfinished.push(film),
            }
            match result {
                Ok(()) => {}
                Err(Trouble::Gone) => break,
                Err(Trouble::Wrong(what)) => {
                    round.violation(what);
                    break;
                }
            }
        }
        self
    }
}

enum Trouble {
    /// The server is.
    Gone,
    Wrong(String),
}

/// Resumes a film, or begins it: status, creation, chunks two at a time, assembly. Leaves some of it undone now
/// and then, unless it shall `finish`.
async fn go_on(
    film: &mut Film,
    numbers: &mut Numbers,
    address: SocketAddr,
    round: &Round,
    finish: bool,
) -> Result<(), Trouble> {
    let gone = |_| Trouble::Gone;
    let mut first = Connection::open(address).await.map_err(gone)?;
    let mut second = Connection::open(address).await.map_err(gone)?;

    let reply = ask(&mut first, &film.status(), round, &mut false).await?;
    let missing = match film.check_status(&reply).map_err(Trouble::Wrong)? {
        View::Unknown if film.as_forms => (0..film.total()).collect(),
        View::Unknown => {
            let reply = ask(&mut first, &film.creation(), round, &mut false).await?;
            expect(&reply, &[200, 201])?;
            film.created(&reply);
            (0..film.total()).collect()
        }
        View::Unfinished { missing, .. } => missing,
        View::Published => return Ok(()),
        View::Ended => {
            film.deletion = Deletion::Done;
            return Ok(());
        }
    };
    let mut missing: Vec<u32> = missing;
    for at in (1..missing.len()).rev() {
        missing.swap(at, numbers.below(at + 1));
    }
    if !finish && numbers.one_in(4) {
        missing.truncate(numbers.below(missing.len() + 1));
    }
    // Also what was stored already is sent again now and then.
    if let Some(again) = film.acknowledged.first().filter(|_| numbers.one_in(4)) {
        missing.push(*again);
    }
    let content = film.content();
    for pair in missing.chunks(2) {
        let mut requests = Vec::new();
        for index in pair {
            let mut request = film.piece(&content, *index);
            if numbers.one_in(2) {
                request = request.pace(film.chunk / 4, Duration::from_micros(numbers.next() % 4000));
            }
            requests.push(request);
        }
        let (mut one, mut two, mut trouble) = (false, false, None);
        let other = async {
            match requests.get(1) {
                Some(request) => Some(ask(&mut second, request, round, &mut two).await),
                None => None,
            }
        };
        let answers = tokio::join!(ask(&mut first, &requests[0], round, &mut one), other);
        for ((index, all_sent), answer) in pair.iter().zip([one, two]).zip([Some(answers.0), answers.1]) {
            if all_sent {
                film.sent.insert(*index);
            }
            let reply = match answer {
                None => continue,
                Some(Err(why)) => {
                    trouble = Some(why);
                    continue;
                }
                Some(Ok(reply)) => reply,
            };
            if is_given_up(film, &reply) {
                continue;
            }
            expect(&reply, &[200])?;
            film.acknowledged.insert(*index);
            round.acknowledged.fetch_add(1, Ordering::Relaxed);
            round.bytes.fetch_add(film.chunk_len(*index), Ordering::Relaxed);
        }
        if let Some(why) = trouble {
            return Err(why);
        }
    }
    let reply = ask(&mut first, &film.status(), round, &mut false).await?;
    let view = film.check_status(&reply).map_err(Trouble::Wrong)?;
    if !finish && numbers.one_in(12) {
        if let Some(request) = film.deletion() {
            film.deletion = Deletion::Asked;
            let reply = ask(&mut first, &request, round, &mut false).await?;
            expect(&reply, &[204])?;
            film.deletion = Deletion::Done;
        }
        return Ok(());
    }
    if view == View::Ended {
        film.deletion = Deletion::Done;
        return Ok(());
    }
    let is_whole = matches!(view, View::Unfinished { missing, .. } if missing.is_empty());
    if is_whole && (finish || !numbers.one_in(8)) {
        let reply = ask(&mut first, &film.assembly(), round, &mut false).await?;
        if is_given_up(film, &reply) {
            return Ok(());
        }
        expect(&reply, &[200])?;
        film.assembled(&reply);
    }
    Ok(())
}

/// Asks until the answer is no longer that the server is busy.
async fn ask(
    connection: &mut Connection,
    request: &Request,
    round: &Round,
    all_sent: &mut bool,
) -> Result<Reply, Trouble> {
    for _ in 0..100 {
        let mut began_before = false;
        let began = || began_before = !round.killed.load(Ordering::SeqCst);
        match connection.ask_with(request, began).await {
            Ok(reply) if reply.status == 503 => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(reply) => {
                *all_sent = true;
                return Ok(reply);
            }
            Err(Cut { sent, of, .. }) => {
                *all_sent |= sent == of;
                if began_before {
                    round.cut.fetch_add(1, Ordering::Relaxed);
                }
                return Err(Trouble::Gone);
            }
        }
    }
    Err(Trouble::Wrong("the server was busy all the time".into()))
}

/// Whether the answer is that a deletion, which was asked for and never answered, was carried out after all: one that
/// came while the upload was sealed is noted, and done when its assembly goes on.
fn is_given_up(film: &mut Film, reply: &Reply) -> bool {
    let given_up = film.deletion == Deletion::Asked && reply.status == 410;
    if given_up {
        film.deletion = Deletion::Done;
    }
    given_up
}

fn expect(reply: &Reply, expected: &[u16]) -> Result<(), Trouble> {
    if expected.contains(&reply.status) {
        Ok(())
    } else {
        Err(Trouble::Wrong(format!("an answer that nobody expected: {reply:?}")))
    }
}

/// One life of a server; `kill` says whether it ends by SIGKILL while the clients send.
async fn live(
    clients: Vec<Client>,
    directory: &Path,
    numbers: &mut Numbers,
    kill: bool,
    figures: &mut Figures,
) -> (Vec<Client>, End) {
    let server = Server::start(directory, &Settings::default());
    let round = Arc::new(Round::default());
    let address = server.address;
    let mut running = Vec::new();
    for mut client in clients {
        client.survey(address, directory, &round).await;
        running.push(tokio::spawn(client.run(address, directory.into(), Arc::clone(&round))));
    }
    tokio::time::sleep(Duration::from_millis(numbers.between(3..=300) as u64)).await;
    round.killed.store(true, Ordering::SeqCst);
    let mut server = Some(server);
    let mut signal = None;
    if kill {
        signal = server.take().and_then(Server::kill);
    }
    let mut clients = Vec::new();
    for client in running {
        clients.push(client.await.unwrap());
    }
    drop(server);
    figures.rounds += 1;
    figures.cut += round.cut.load(Ordering::Relaxed);
    figures.acknowledged += round.acknowledged.load(Ordering::Relaxed);
    figures.bytes += round.bytes.load(Ordering::Relaxed);
    figures.violations.append(&mut round.violations.lock().unwrap());
    let end = End {
        signal,
        cut: round.cut.load(Ordering::Relaxed),
    };
    (clients, end)
}

/// A last life without a crash: half of what is unfinished is finished.
async fn settle(mut clients: Vec<Client>, directory: &Path, figures: &mut Figures) -> Vec<Client> {
    let server = Server::start(directory, &Settings::default());
    let round = Round::default();
    for client in &mut clients {
        client.survey(server.address, directory, &round).await;
        let half = client.unfinished.len() / 2;
        for mut film in client.unfinished.split_off(half) {
            match go_on(&mut film, &mut client.numbers, server.address, &round, true).await {
                Ok(()) if film.deletion == Deletion::Done => client.given_up += 1,
                Ok(()) if film.published.is_some() => client.publish(film, directory, &round),
                Ok(()) => round.violation(format!("it does not come to its end: {film:?}")),
                Err(Trouble::Gone) => round.violation(format!("the server went away: {film:?}")),
                Err(Trouble::Wrong(what)) => round.violation(what),
            }
        }
    }
    figures.acknowledged += round.acknowledged.load(Ordering::Relaxed);
    figures.bytes += round.bytes.load(Ordering::Relaxed);
    figures.violations.append(&mut round.violations.lock().unwrap());
    assert_eq!(server.kill(), Some(SIGKILL));
    clients
}

/// Gives up what is unfinished, sweeps, and answers what is left beneath `partial` and what is published.
async fn clean_up(directory: &Path, users: &[String]) -> (BTreeSet<String>, BTreeSet<String>, Vec<String>) {
    let uploads = Uploads::open(directory)
        .authorizer(OwnerOnly)
        .orphan_grace(Duration::ZERO)
        .without_driver()
        .build()
        .await
        .unwrap();
    let mut problems = Vec::new();
    let audit = uploads.audit(true).await.unwrap();
    problems.extend(audit.findings.iter().map(|finding| format!("audit: {finding:?}")));
    let mut assembled = BTreeSet::new();
    for user in users {
        let caller = Caller::new(user.as_str());
        for page in 0.. {
            let found = uploads.list(&caller, Page::new(page * 100, 100)).await.unwrap();
            for upload in &found {
                match upload.state() {
                    State::Open => uploads.abort(&caller, upload.id()).await.unwrap(),
                    // With a deletion noted this ends it.
                    State::Assembling => match uploads.assemble(&caller, upload.id(), None).await {
                        Err(error) if error.kind() != ErrorKind::Gone => panic!("{error}"),
                        _ => {}
                    },
                    _ => {}
                }
                let state = uploads.status(&caller, upload.id()).await.unwrap().state();
                if state == State::Assembled {
                    assembled.insert(upload.key().to_string());
                }
            }
            if found.len() < 100 {
                break;
            }
        }
    }
    uploads.sweep().await.unwrap();
    uploads.shutdown(Duration::from_secs(10)).await;
    let (left, published) = (files(&directory.join("partial")), files(&directory.join("blobs")));
    if published != assembled {
        problems.push(format!("published {published:?}, assembled {assembled:?}"));
    }
    (left, published, problems)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    let rounds = std::env::var("CRASH_ROUNDS").map_or(12, |rounds| rounds.parse().unwrap());
    let seed = Numbers::seed("CRASH_SEED");
    println!("CRASH_SEED={seed}");
    runtime().block_on(async {
        let directory = temporary();
        let mut numbers = Numbers::new(seed);
        let mut figures = Figures::default();
        let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(n, seed)).collect();
        let mut weak = Vec::new();
        for round in 0..rounds {
            let end;
            (clients, end) = live(clients, directory.path(), &mut numbers, true, &mut figures).await;
            match end.is_crash() {
                Ok(()) => figures.in_flight += 1,
                Err(why) => weak.push(format!("round {round}: {why}")),
            }
            assert_eq!(end.signal, Some(SIGKILL), "CRASH_SEED={seed}, round {round}");
            let lost = &figures.violations;
            assert!(lost.is_empty(), "CRASH_SEED={seed}, round {round}: {lost:#?}");
        }
        clients = settle(clients, directory.path(), &mut figures).await;
        let users: Vec<String> = clients.iter().map(|client| client.user.clone()).collect();
        let (left, on_disk, problems) = clean_up(directory.path(), &users).await;
        figures.violations.extend(problems);
        let mut still_there = BTreeSet::new();
        for client in &clients {
            figures.published += client.published_ever;
            figures.given_up += client.given_up;
            for film in &client.published {
                figures.violations.extend(film.check_published(directory.path()).err());
                still_there.extend(film.published.clone());
            }
        }
        if !still_there.is_subset(&on_disk) {
            figures
                .violations
                .push(format!("of {still_there:?} there are {on_disk:?}"));
        }
        println!(
            "{} kills, {} of them with a request between its first byte and its acknowledgement ({} requests cut); {} \
             chunks acknowledged, {} bytes; {} films published, {} given up; {} lost; {} left over",
            figures.rounds,
            figures.in_flight,
            figures.cut,
            figures.acknowledged,
            figures.bytes,
            figures.published,
            figures.given_up,
            figures.violations.len(),
            left.len()
        );
        assert!(
            figures.violations.is_empty(),
            "CRASH_SEED={seed}: {:#?}",
            figures.violations
        );
        assert!(left.is_empty(), "CRASH_SEED={seed}: {left:?}");
        assert!(figures.published > 0 && figures.acknowledged > rounds, "{figures:?}");
        assert!(
            figures.in_flight * 5 >= rounds * 4,
            "CRASH_SEED={seed}: only {} of {rounds} kills prove something: {weak:#?}",
            figures.in_flight
        );
    });
}

/// The control: a run without a kill proves nothing, and is found out.
#[test]
fn without_a_kill_there_is_no_proof() {
    runtime().block_on(async {
        let directory = temporary();
        let clients = (0..CLIENTS).map(|n| Client::new(n, 1)).collect();
        let mut figures = Figures::default();
        let (_, end) = live(clients, directory.path(), &mut Numbers::new(1), false, &mut figures).await;
        assert!(figures.violations.is_empty(), "{:#?}", figures.violations);
        end.is_crash().unwrap_err();
        assert_eq!(end.cut, 0);
    });
}

/// The control of the checker: one bit of a published file, one acknowledgement too many, one chunk too few.
#[test]
fn the_checker_notices() {
    runtime().block_on(async {
        let directory = temporary();
        let server = Server::start(directory.path(), &Settings::default());
        let round = Round::default();
        let mut numbers = Numbers::new(7);
        let mut film = Film::new("ann", 1, 100_000, 30_000, false, 7);
        let mut connection = Connection::open(server.address).await.unwrap();
        film.created(&connection.ask(&film.creation()).await.unwrap());
        let content = film.content();
        assert_eq!(connection.ask(&film.piece(&content, 1)).await.unwrap().status, 200);
        film.sent.insert(1);
        film.acknowledged.insert(1);
        let reply = connection.ask(&film.status()).await.unwrap();
        film.check_status(&reply).unwrap();

        let mut claimed = film.clone();
        claimed.acknowledged.insert(2);
        assert!(claimed.check_status(&reply).unwrap_err().contains("is lost"));
        let mut unsent = film.clone();
        (unsent.sent, unsent.acknowledged) = Default::default();
        assert!(unsent.check_status(&reply).unwrap_err().contains("was not sent"));
        let mut given_up = film.clone();
        given_up.deletion = Deletion::Done;
        assert!(given_up.check_status(&reply).unwrap_err().contains("given up"));
        let mut published = film.clone();
        published.published = Some("videos/x".into());
        assert!(published.check_status(&reply).unwrap_err().contains("published"));
        let mut gone = reply.clone();
        gone.status = 404;
        assert!(film.check_status(&gone).unwrap_err().contains("unknown"));

        let done = go_on(&mut film, &mut numbers, server.address, &round, true).await;
        assert!(done.is_ok());
        assert_eq!(film.check_published(directory.path()), Ok(100_000));
        let path = directory.path().join("blobs").join(film.published.as_ref().unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[61_234] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let noticed = film.check_published(directory.path()).unwrap_err();
        assert!(noticed.contains("Some(61234)"), "{noticed}");
        bytes.truncate(99_999);
        std::fs::write(&path, &bytes).unwrap();
        film.check_published(directory.path()).unwrap_err();
        // And what lies around is seen.
        std::fs::write(directory.path().join("partial/AAAAAAAAAAAAAAAAAAAAAA.x"), b"").unwrap();
        assert_eq!(server.kill(), Some(SIGKILL));
        std::fs::write(directory.path().join("blobs/stray"), b"").unwrap();
        let (left, _, problems) = clean_up(directory.path(), &["ann".to_owned()]).await;
        assert_eq!((left.len(), problems.is_empty()), (1, false), "{left:?} {problems:?}");
    });
}
