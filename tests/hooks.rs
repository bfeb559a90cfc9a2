//! Hooks are told each for themselves, in order, until they have heard it or are given up.
#![allow(clippy::unwrap_used, missing_docs)]

#[cfg(feature = "redb")]
mod told;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use tower_upload::{
    Builder, Caller, Clock, Error, ErrorKind, Event, EventKind, Hook, NewUpload, Ready, Upload, Uploads,
    access::OwnerOnly,
    blob::MemoryBlobs,
    hook::{Channel, Telling},
    metadata::MemoryMetadata,
    upload::{Outcome, Progress, Timestamp, UploadId},
};

#[derive(Debug)]
struct Paused(tokio::time::Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000).after(self.0.elapsed())
    }
}

fn stores() -> (Arc<MemoryBlobs>, Arc<MemoryMetadata>) {
    let clock = Paused(tokio::time::Instant::now());
    (
        Arc::new(MemoryBlobs::new()),
        Arc::new(MemoryMetadata::with_clock(Arc::new(clock))),
    )
}

fn builder() -> Builder<Ready> {
    let (blobs, metadata) = stores();
    Uploads::with(blobs, metadata).authorizer(OwnerOnly)
}

fn alice() -> Caller {
    Caller::new("alice")
}

async fn finished(uploads: &Uploads) -> Upload {
    let up = uploads.create(&alice(), NewUpload::new("a").size(3)).await.unwrap();
    let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
    uploads.append(&alice(), up.id(), 0, body).await.unwrap();
    uploads.assemble(&alice(), up.id(), None).await.unwrap()
}

async fn look(uploads: &Uploads, id: UploadId) -> Upload {
    uploads.status(&alice(), id).await.unwrap()
}

type Heard = Arc<Mutex<Vec<String>>>;

/// Says what it is told by `say`.
struct Says<F> {
    name: &'static str,
    works: bool,
    heard: Heard,
    say: F,
}

#[async_trait]
impl<F> Hook for Says<F>
where
    F: AsyncSay,
{
    fn name(&self) -> &str {
        self.name
    }
    fn wants(&self, kind: EventKind) -> bool {
        !self.works || kind == EventKind::Assembled
    }
    fn works(&self) -> bool {
        self.works
    }
    fn time_limit(&self) -> Duration {
        Duration::from_secs(3600)
    }
    async fn on_event(&self, event: &Event, telling: &Telling) -> tower_upload::Result<()> {
        self.heard.lock().unwrap().push(match &event.hook {
            Some(hook) => format!("{} {hook}", event.kind()),
            None => event.kind().to_string(),
        });
        self.say.say(event, telling).await
    }
}

#[async_trait]
trait AsyncSay: Send + Sync + 'static {
    async fn say(&self, event: &Event, telling: &Telling) -> tower_upload::Result<()>;
}

/// Hears it.
struct Well;

#[async_trait]
impl AsyncSay for Well {
    async fn say(&self, _: &Event, _: &Telling) -> tower_upload::Result<()> {
        Ok(())
    }
}

/// Fails every time, or panics.
struct Fails(Option<ErrorKind>);

#[async_trait]
impl AsyncSay for Fails {
    async fn say(&self, _: &Event, _: &Telling) -> tower_upload::Result<()> {
        Err(Error::new(self.0.expect("planned"), "no such luck"))
    }
}

/// Works for a while.
struct Works(Duration);

#[async_trait]
impl AsyncSay for Works {
    async fn say(&self, event: &Event, telling: &Telling) -> tower_upload::Result<()> {
        if event.kind() == EventKind::Assembled {
            for percent in [25, 50, 75, 100] {
                tokio::time::sleep(self.0 / 4).await;
                telling.progress(Progress::new(percent, Some(self.0)));
            }
            telling.note("playlist", "hls/master.m3u8").await?;
        }
        Ok(())
    }
}

fn hook<F: AsyncSay>(name: &'static str, works: bool, say: F) -> (Says<F>, Heard) {
    let heard = Heard::default();
    let hook = Says {
        name,
        works,
        heard: heard.clone(),
        say,
    };
    (hook, heard)
}

fn heard(heard: &Heard) -> Vec<String> {
    heard.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_holds_up_no_other_and_ends_as_a_dead_letter() {
    let (deaf, told) = hook("deaf", false, Fails(Some(ErrorKind::Unavailable)));
    let (good, good_told) = hook("good", false, Well);
    let uploads = builder().hook(deaf).hook(good).hook_attempts(3).build().await.unwrap();
    let up = finished(&uploads).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(heard(&good_told), ["created", "assembled"]);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(
        heard(&told),
        ["created", "created", "created", "assembled", "assembled", "assembled"]
    );
    assert_eq!(
        heard(&good_told),
        ["created", "assembled", "hook-failed deaf", "hook-failed deaf"]
    );

    let letters = uploads.dead_letters().await.unwrap();
    let kinds: Vec<_> = letters.iter().map(|letter| letter.event.kind()).collect();
    assert_eq!(kinds, [EventKind::Created, EventKind::Assembled]);
    assert_eq!((letters[0].hook.as_str(), letters[0].attempts), ("deaf", 3));
    assert!(letters[0].error.contains("no such luck"), "{}", letters[0].error);
    assert!(look(&uploads, up.id()).await.record().outbox.is_empty());

    // A person has it told again, and forgets the other.
    assert!(uploads.retry_dead_letter(letters[0].event.id, "deaf").await.unwrap());
    assert!(!uploads.retry_dead_letter(letters[0].event.id, "deaf").await.unwrap());
    assert!(uploads.forget_dead_letter(letters[1].event.id, "deaf").await.unwrap());
    assert!(uploads.dead_letters().await.unwrap().is_empty());
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(heard(&told)[6..], ["created", "created", "created"]);
    assert_eq!(uploads.dead_letters().await.unwrap().len(), 1);
}

/// Fails so often at events of one kind, and says when to come again; then hears it. Notes when it was told.
struct Busy {
    at: EventKind,
    wait: Duration,
    times: u32,
    since: tokio::time::Instant,
    told: Arc<Mutex<Vec<(EventKind, u64)>>>,
}

#[async_trait]
impl AsyncSay for Busy {
    async fn say(&self, event: &Event, telling: &Telling) -> tower_upload::Result<()> {
        let at = self.since.elapsed().as_secs();
        if event.hook.is_none() {
            self.told.lock().unwrap().push((event.kind(), at));
        }
        if event.kind() == self.at && telling.attempts() < self.times {
            return Err(Error::unavailable("busy").with_retry_after(self.wait));
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_says_when_to_come_again_is_left_alone_until_then() {
    use EventKind::{Assembled, Created};
    for (seconds, times, expected) in [
        (300, 1, [(Created, 0), (Created, 300), (Assembled, 300)].as_slice()),
        (
            300,
            2,
            &[(Created, 0), (Created, 300), (Created, 600), (Assembled, 600)],
        ),
        // The back-off is never shortened: a second, two, four.
        (
            2,
            3,
            &[(Created, 0), (Created, 2), (Created, 4), (Created, 8), (Assembled, 8)],
        ),
        // An hour at most.
        (u64::MAX, 1, &[(Created, 0), (Created, 3600), (Assembled, 3600)]),
    ] {
        let told = Arc::default();
        let busy = Busy {
            at: Created,
            wait: Duration::from_secs(seconds),
            times,
            since: tokio::time::Instant::now(),
            told: Arc::clone(&told),
        };
        let (busy, _) = hook("busy", false, busy);
        let (other, other_told) = hook("other", false, Well);
        let (fails, fails_told) = hook("fails", false, Fails(Some(ErrorKind::Unavailable)));
        let builder = builder().hook(busy).hook(other).hook(fails).hook_attempts(4);
        let uploads = builder.build().await.unwrap();
        let up = uploads.create(&alice(), NewUpload::new("a").size(0)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        // A new event does not bring it back, and holds up no other.
        uploads.assemble(&alice(), up.id(), None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(heard(&other_told), ["created", "assembled"]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(fails_told.lock().unwrap().len(), 8, "one that fails is told as ever");
        tokio::time::sleep(Duration::from_secs(7200)).await;
        let told: Vec<(EventKind, u64)> = told.lock().unwrap().clone();
        let near = |(a, b): (&(EventKind, u64), &(EventKind, u64))| a.0 == b.0 && a.1 >= b.1 && a.1 <= b.1 + 5;
        assert!(
            told.len() == expected.len() && told.iter().zip(expected).all(near),
            "{seconds} s: {told:?}"
        );
        assert!(look(&uploads, up.id()).await.record().outbox.is_empty());
    }
}

struct Long;

#[async_trait]
impl AsyncSay for Long {
    async fn say(&self, event: &Event, _: &Telling) -> tower_upload::Result<()> {
        if event.kind() == EventKind::Assembled {
            tokio::time::sleep(Duration::from_secs(3000)).await;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_left_alone_waits_for_no_other_that_takes_longer() {
    use EventKind::{Assembled, Created};
    let told = Arc::default();
    let busy = Busy {
        at: Created,
        wait: Duration::from_secs(300),
        times: 1,
        since: tokio::time::Instant::now(),
        told: Arc::clone(&told),
    };
    let (busy, _) = hook("busy", false, busy);
    let (long, _) = hook("long", true, Long);
    let uploads = builder().hook(busy).hook(long).build().await.unwrap();
    let up = uploads.create(&alice(), NewUpload::new("a").size(0)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    uploads.assemble(&alice(), up.id(), None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(310)).await;
    let told: Vec<EventKind> = told.lock().unwrap().iter().map(|(kind, _)| *kind).collect();
    assert_eq!(told, [Created, Created, Assembled]);
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_told_again_while_another_works() {
    use EventKind::{Assembled, Created};
    let busy = |name, seconds| {
        let told = Arc::default();
        let busy = Busy {
            at: Assembled,
            wait: Duration::from_secs(seconds),
            times: 2,
            since: tokio::time::Instant::now(),
            told: Arc::clone(&told),
        };
        (hook(name, false, busy).0, told)
    };
    let (brief, brief_told) = busy("brief", 0);
    let (busy, busy_told) = busy("busy", 300);
    let (deaf, deaf_told) = hook("deaf", false, Fails(Some(ErrorKind::Unavailable)));
    let (long, _) = hook("long", true, Long);
    let builder = builder().hook(brief).hook(busy).hook(deaf).hook(long);
    let uploads = builder.hook_attempts(3).build().await.unwrap();
    let up = uploads.create(&alice(), NewUpload::new("a").size(0)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let at = tokio::time::Instant::now();
    uploads.assemble(&alice(), up.id(), None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(700)).await;
    let outcome = look(&uploads, up.id()).await.record().deliveries["long"].outcome;
    assert_eq!(outcome, Some(Outcome::Running));
    let told = |told: Arc<Mutex<Vec<(EventKind, u64)>>>| told.lock().unwrap().clone();
    assert_eq!(
        told(brief_told),
        [(Created, 0), (Assembled, 100), (Assembled, 101), (Assembled, 103)]
    );
    assert_eq!(
        told(busy_told),
        [(Created, 0), (Assembled, 100), (Assembled, 400), (Assembled, 700)]
    );
    assert_eq!(heard(&deaf_told)[3..], ["assembled"; 3]);
    let letters = uploads.dead_letters().await.unwrap();
    assert_eq!(letters.len(), 2, "given up while another works: {letters:?}");

    // The one that works is told once, to its end.
    tokio::time::sleep(Duration::from_secs(2400)).await;
    assert!(at.elapsed() > Duration::from_secs(3000));
    let record = look(&uploads, up.id()).await.record().clone();
    assert_eq!(record.deliveries["long"].outcome, Some(Outcome::Finished));
    assert!(record.outbox.is_empty(), "{:?}", record.outbox);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_told_once() {
    let (refuses, told) = hook("refuses", false, Fails(Some(ErrorKind::Invalid)));
    let uploads = builder().hook(refuses).build().await.unwrap();
    finished(&uploads).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(heard(&told), ["created", "assembled"]);
    assert_eq!(uploads.dead_letters().await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_is_told_again() {
    let (panics, told) = hook("panics", false, Fails(None));
    let uploads = builder().hook(panics).hook_attempts(2).build().await.unwrap();
    finished(&uploads).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(heard(&told), ["created", "created", "assembled", "assembled"]);
    assert!(uploads.dead_letters().await.unwrap()[0].error.contains("panicked"));
}

#[tokio::test(start_paused = true)]
async fn one_that_works_shows_how_far_it_is_and_what_it_left() {
    let (works, _) = hook("works", true, Works(Duration::from_secs(400)));
    let (other, told) = hook("other", false, Well);
    let uploads = builder().hook(works).hook(other).build().await.unwrap();
    let id = finished(&uploads).await.id();
    tokio::time::sleep(Duration::from_secs(210)).await;
    let delivery = look(&uploads, id).await.record().deliveries["works"].clone();
    assert_eq!(delivery.outcome, Some(Outcome::Running));
    assert_eq!(delivery.progress.map(|progress| progress.percent), Some(50));
    assert_eq!(heard(&told), ["created", "assembled"]);
    tokio::time::sleep(Duration::from_secs(210)).await;
    let delivery = look(&uploads, id).await.record().deliveries["works"].clone();
    assert_eq!(delivery.outcome, Some(Outcome::Finished));
    assert_eq!(delivery.notes["playlist"], "hls/master.m3u8");
    assert_eq!(heard(&told), ["created", "assembled", "hook-finished works"]);
}

#[tokio::test(start_paused = true)]
async fn another_node_keeps_away_while_one_works_and_takes_over_when_it_is_gone() {
    let (blobs, metadata) = stores();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let (works, told) = hook("works", true, Works(Duration::from_secs(300)));
        let uploads = Uploads::with(blobs.clone(), metadata.clone())
            .authorizer(OwnerOnly)
            .hook(works)
            .build()
            .await
            .unwrap();
        nodes.push((uploads, told));
    }
    let (second, second_told) = nodes.pop().unwrap();
    let (first, first_told) = nodes.pop().unwrap();
    let id = finished(&first).await.id();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(heard(&first_told), ["assembled"]);
    assert_eq!(heard(&second_told), [""; 0]);
    // It goes away in the middle, and its hook with it.
    first.shutdown(Duration::from_secs(1)).await;
    drop(first);
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(heard(&second_told), ["assembled"]);
    let delivery = look(&second, id).await.record().deliveries["works"].clone();
    assert_eq!(delivery.outcome, Some(Outcome::Finished));
}

/// A clock that is moved by hand: it goes on from one runtime to the next.
#[derive(Debug, Default)]
struct ByHand(std::sync::atomic::AtomicU64);

impl Clock for ByHand {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000 + self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

/// Never comes to an end, and notes each time something else.
struct Hangs;

#[async_trait]
impl AsyncSay for Hangs {
    async fn say(&self, event: &Event, telling: &Telling) -> tower_upload::Result<()> {
        if event.kind() == EventKind::Assembled {
            let folder = tokio::time::Instant::now();
            telling.note("folder", &format!("{folder:?}")).await?;
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// What is left of one upload after `lives` processes with a hook that hangs, each of which ends `in_order` or at once; and how often
/// it was told.
fn after_lives(lives: usize, in_order: bool) -> (Upload, usize) {
    let clock = Arc::new(ByHand::default());
    let (blobs, metadata) = (
        Arc::new(MemoryBlobs::new()),
        Arc::new(MemoryMetadata::with_clock(Arc::clone(&clock) as Arc<dyn Clock>)),
    );
    let (mut id, mut told) = (None, 0);
    for life in 0.. {
        // What is dropped with its runtime comes to no end at all, as in a process that is killed.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let upload = runtime.block_on(async {
            let (hangs, heard_here) = hook("hangs", true, Hangs);
            let uploads = Uploads::with(blobs.clone(), metadata.clone())
                .authorizer(OwnerOnly)
                .hook(hangs)
                .hook_attempts(6)
                .build()
                .await
                .unwrap();
            let id = match id {
                Some(id) => id,
                None => *id.insert(finished(&uploads).await.id()),
            };
            tokio::time::sleep(Duration::from_secs(100)).await;
            told += heard(&heard_here).len();
            let upload = look(&uploads, id).await;
            if in_order {
                uploads.shutdown(Duration::from_secs(1)).await;
            }
            upload
        });
        if life == lives {
            return (upload, told);
        }
        clock.0.fetch_add(3_600_000, std::sync::atomic::Ordering::SeqCst);
    }
    unreachable!()
}

#[test]
fn one_that_ends_the_process_each_time_is_given_up() {
    let (upload, told) = after_lives(9, false);
    assert_eq!(told, 6, "it goes on for ever");
    let record = upload.record();
    assert!(record.outbox.is_empty(), "{:?}", record.outbox);
    let delivery = &record.deliveries["hangs"];
    assert_eq!((delivery.outcome, delivery.interrupted), (Some(Outcome::Failed), 0));
    assert_eq!(record.dead_letters.len(), 1);
    let letter = &record.dead_letters[0];
    assert_eq!(letter.attempts, 6);
    assert!(letter.error.contains("ended 6 times"), "{letter:?}");
}

#[test]
fn one_that_was_stopped_in_good_order_is_told_again_however_often() {
    let (upload, told) = after_lives(9, true);
    assert_eq!(told, 10);
    let record = upload.record();
    assert!(record.dead_letters.is_empty(), "{:?}", record.dead_letters);
    assert_eq!(record.deliveries["hangs"].interrupted, 1, "this time");
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_to_a_hook_that_is_gone_is_given_up() {
    let (blobs, metadata) = stores();
    let (deaf, _) = hook("old", false, Fails(Some(ErrorKind::Unavailable)));
    let builder = || Uploads::with(blobs.clone(), metadata.clone()).authorizer(OwnerOnly);
    let old = builder().hook(deaf).build().await.unwrap();
    finished(&old).await;
    old.shutdown(Duration::from_secs(1)).await;
    let (good, told) = hook("new", false, Well);
    let new = builder().hook(good).hook_attempts(5).build().await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(heard(&told).is_empty());
    let letters = new.dead_letters().await.unwrap();
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(
        letters[0].error.contains("No hook of this name"),
        "{}",
        letters[0].error
    );
}

#[cfg(feature = "redb")]
#[tokio::test(flavor = "multi_thread")]
async fn all_is_told_in_order_also_by_the_next_process_on_redb() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    told::all_is_told_in_order_also_by_the_next_process(async || {
        tower_upload::metadata::RedbMetadata::open(&path).await.unwrap()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn events_go_into_a_channel() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let uploads = builder().hook(Channel::new("bus", sender)).build().await.unwrap();
    finished(&uploads).await;
    assert_eq!(receiver.recv().await.unwrap().kind(), EventKind::Created);
    assert_eq!(receiver.recv().await.unwrap().kind(), EventKind::Assembled);
}

#[tokio::test]
async fn each_hook_has_its_own_name() {
    let (sender, _) = tokio::sync::mpsc::channel(1);
    let twice = builder()
        .hook(Channel::new("bus", sender.clone()))
        .hook(Channel::new("bus", sender));
    let error = twice.build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("bus"), "{error}");
}

/// So many are told at once that the machine bears it. Whoever waits lies in the outbox, and is told when there is a place.
#[tokio::test(start_paused = true)]
async fn not_all_are_told_at_once() {
    struct Crowd {
        now: AtomicUsize,
        most: AtomicUsize,
    }
    #[async_trait]
    impl AsyncSay for Arc<Crowd> {
        async fn say(&self, _: &Event, _: &Telling) -> tower_upload::Result<()> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(30)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    }
    for (works, bound) in [(true, 32), (false, 256)] {
        let crowd = Arc::new(Crowd {
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let (slow, of_slow) = hook("slow", works, Arc::clone(&crowd));
        let (quick, of_quick) = hook("quick", false, Well);
        let uploads = builder().hook(slow).hook(quick).build().await.unwrap();
        for n in 0..300 {
            let new = NewUpload::new(format!("{n}")).size(1);
            let id = uploads.create(&alice(), new).await.unwrap().id();
            let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"a"))]);
            uploads.append(&alice(), id, 0, body).await.unwrap();
            uploads.assemble(&alice(), id, None).await.unwrap();
        }
        let assembled = |of: &Heard| heard(of).iter().filter(|told| *told == "assembled").count();
        if works {
            tokio::time::sleep(Duration::from_secs(90)).await;
            assert_eq!(assembled(&of_quick), 300, "what works holds up nobody else");
        }
        let late = tokio::time::Instant::now() + Duration::from_secs(3600);
        while assembled(&of_slow) < 300 || assembled(&of_quick) < 300 {
            let told = (assembled(&of_slow), assembled(&of_quick));
            assert!(tokio::time::Instant::now() < late, "{told:?} are told of");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let most = crowd.most.load(Ordering::SeqCst);
        assert!((2..=bound).contains(&most), "{most} at once");
    }
}
