//! Programs that misbehave in ffmpeg's place. None of it needs an ffmpeg.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Bench, Shelf, processes_with, run};
use crate::hook::ffmpeg::{
    Job, Limit, MediaSource, Outcome, TranscodeError, TranscodeErrorKind, TranscodeLimits, TranscodeOptions,
    Transcoder, contain,
};

const ENCODERS: &str = "case \"$*\" in *-encoders*) echo ' V..... libx264 x'; echo ' A..... aac y'; exit 0;; esac\n";

const PROBED: &str = r#"cat <<'END'
{"streams":[{"index":0,"codec_name":"mpeg4","codec_type":"video","width":320,"height":180,"r_frame_rate":"25/1","avg_frame_rate":"25/1"}],
"format":{"duration":"10.0"}}
END
"#;

/// A tempting stage: an ffmpeg that is the shell script `acts`, and a source that looks like a video.
struct Stage {
    bench: Bench,
    /// Part of the arguments of what the script starts: seconds to sleep that nobody else sleeps.
    long: String,
    source: PathBuf,
}

impl Stage {
    fn new(acts: &str) -> Self {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let bench = Bench::new();
        let long = format!(
            "98765.{:07}{:03}",
            std::process::id(),
            STAGES.fetch_add(1, Ordering::Relaxed)
        );
        let source = bench.path("source.mp4");
        fs::write(&source, b"\0\0\0\x20ftypisom").unwrap();
        let stage = Self { bench, long, source };
        stage.script("ffprobe", PROBED);
        stage.script("ffmpeg", &format!("{ENCODERS}{}", acts.replace("LONG", &stage.long)));
        stage
    }

    fn script(&self, name: &str, acts: &str) {
        let path = self.bench.path(name);
        fs::write(&path, format!("#!/bin/sh\n{acts}")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn options(&self) -> TranscodeOptions {
        let limits = TranscodeLimits::default()
            .with_stall(Duration::from_millis(700))
            .with_output(8 << 20);
        self.bench
            .options()
            .with_programs(self.bench.path("ffmpeg"), self.bench.path("ffprobe"))
            .with_limits(limits)
    }

    async fn ends(&self, options: TranscodeOptions) -> TranscodeError {
        self.ends_with(options.open().await.unwrap()).await
    }

    /// Runs it to the end. Whatever happened, nothing is left.
    async fn ends_with(&self, transcoder: Transcoder) -> TranscodeError {
        let shelf = Arc::new(Shelf::default());
        let result: Result<Outcome, _> = run(&transcoder, &self.source, &shelf).await;
        let error = result.unwrap_err();
        self.nobody_left();
        self.bench.nothing_left();
        assert_eq!(shelf.state().names, Vec::<String>::new(), "nothing half-made is shown");
        assert!(error.detail().len() <= 3 * (4 << 10), "{}", error.detail().len());
        assert!(!error.message().contains('/'), "{error}");
        error
    }

    /// No process of the script's is alive; the kernel may take a moment to clear away what was killed.
    fn nobody_left(&self) {
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            let left: Vec<u32> = [&*self.long, self.bench.dir.path().to_str().unwrap()]
                .into_iter()
                .flat_map(processes_with)
                .collect();
            if left.is_empty() && zombies().is_empty() {
                return;
            }
            assert!(Instant::now() < patience, "alive: {left:?}, dead: {:?}", zombies());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn somebody_sleeps(&self) {
        while processes_with(&self.long).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Children of ours that nobody waited for.
fn zombies() -> Vec<String> {
    let ours = format!(" Z {} ", std::process::id());
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| stat.contains(&ours))
        .collect()
}

#[tokio::test]
async fn each_way_to_fail_has_its_name() {
    use TranscodeErrorKind::{Broken, Crashed, LimitReached, Refused};
    let cases = [
        ("exit 1", Refused),
        ("echo 'Cannot allocate memory' >&2; exit 1", LimitReached(Limit::Memory)),
        ("echo 'No space left on device' >&2; exit 1", TranscodeErrorKind::Io),
        (
            "echo \"Unknown encoder 'libx264'\" >&2; exit 1",
            TranscodeErrorKind::Missing,
        ),
        ("exit 0", Broken),
        ("sleep LONG", LimitReached(Limit::Stall)),
        ("exec sleep LONG", LimitReached(Limit::Stall)),
        (
            "sleep LONG & sleep LONG & (sleep LONG; sleep LONG) & wait",
            LimitReached(Limit::Stall),
        ),
        ("sleep LONG & exit 0", Broken),
        ("sleep LONG & exit 1", Refused),
        ("sleep LONG & kill -ABRT $$", Crashed),
        (
            "trap '' TERM INT HUP XCPU PIPE; while :; do sleep LONG; done",
            LimitReached(Limit::Stall),
        ),
        (
            "echo half > out/00000.m4s; echo '#EXTM3U' > out/index.m3u8; kill -SEGV $$",
            Crashed,
        ),
        ("kill -KILL $$", LimitReached(Limit::Killed)),
        ("kill -TERM $$", Crashed),
        ("yes error | head -c 30000000 >&2; exit 1", Refused),
        ("yes error >&2", LimitReached(Limit::Stall)),
        (
            "while :; do head -c 500000 /dev/zero; done > out/00000.m4s",
            LimitReached(Limit::Output),
        ),
        (
            "i=0; while :; do i=$((i+1)); head -c 500000 /dev/zero > out/$i.m4s; done",
            LimitReached(Limit::Output),
        ),
        (
            "mkdir out/deep; while :; do i=$((i+1)); head -c 500000 /dev/zero > out/deep/$i; done",
            LimitReached(Limit::Output),
        ),
        ("yes out_time_us=nonsense", LimitReached(Limit::Stall)),
        ("cat /dev/urandom", LimitReached(Limit::Stall)),
        ("tr -d '\\n' < /dev/zero", LimitReached(Limit::Stall)),
        // Playlists that list what was not made, or something else.
        (
            "printf '#EXTM3U\\n#EXTINF:4,\\n00000.m4s\\n#EXT-X-ENDLIST\\n' > out/index.m3u8",
            Broken,
        ),
        (
            "cd out; echo x > init.mp4; echo x > 00000.m4s; printf '#EXTM3U\\n#EXTINF:4,\\n00000.m4s\\n' > index.m3u8",
            Broken,
        ),
        (
            "cd out; echo x > init.mp4; printf '#EXTM3U\\n#EXTINF:4,\\n../source\\n#EXT-X-ENDLIST\\n' > index.m3u8",
            Broken,
        ),
        (
            "cd out; echo x > init.mp4; ln -s /etc/passwd 00000.m4s; printf '#EXTM3U\\n#EXTINF:4,\\n00000.m4s\\n#EXT-X-ENDLIST\\n' > index.m3u8",
            Broken,
        ),
    ];
    for (acts, kind) in cases {
        // As well as the machine can, and with nothing but the process group.
        for wrapper in [contain::Wrapper::detect().await, contain::Wrapper::default()] {
            let stage = Stage::new(acts);
            let transcoder = Transcoder::contained(stage.options(), wrapper).await.unwrap();
            let error = stage.ends_with(transcoder).await;
            assert_eq!(error.kind(), kind, "{acts}: {error:?}");
            let is_final = matches!(kind, Broken | Refused | LimitReached(Limit::Memory | Limit::Output));
            assert_eq!(error.is_retryable(), !is_final, "{acts}");
        }
    }
}

#[tokio::test]
async fn time_and_processor_time_are_limited() {
    let busy = "while :; do i=$((i+1)); echo out_time_us=$i; done";
    let stage = Stage::new(busy);
    let limits = TranscodeLimits::default();
    let error = stage
        .ends(
            stage
                .options()
                .with_limits(limits.with_time(Duration::from_millis(500))),
        )
        .await;
    assert_eq!(error.kind(), TranscodeErrorKind::LimitReached(Limit::Time));
    let stage = Stage::new(busy);
    let options = stage.options().with_limits(limits.with_cpu(Duration::from_millis(100)));
    if options.clone().open().await.unwrap().containment().resources {
        assert_eq!(
            stage.ends(options).await.kind(),
            TranscodeErrorKind::LimitReached(Limit::Cpu)
        );
    }
}

/// A probe and an ffmpeg that make a stream of sound out of anything.
const HEARD: &str = r#"echo '{"streams":[{"index":0,"codec_name":"mp3","codec_type":"audio","sample_rate":"48000","channels":2}],
"format":{"duration":"4.0"}}'
"#;
const MAKES: &str = "cd out; echo x > init.mp4; echo x > 00000.m4s; printf '#EXTM3U\\n#EXTINF:4,\\n00000.m4s\\n#EXT-X-ENDLIST\\n' > index.m3u8";

#[tokio::test]
async fn a_file_too_large_to_be_held_in_memory_reaches_no_sink() {
    // Sparse: it takes no room here.
    for (file, rest) in [
        ("00000.m4s", "echo x > init.mp4"),
        ("init.mp4", "echo x > 00000.m4s"),
        ("index.m3u8", "echo x > init.mp4; echo x > 00000.m4s"),
    ] {
        let list = "printf '#EXTM3U\\n#EXTINF:4,\\n00000.m4s\\n#EXT-X-ENDLIST\\n' > index.m3u8";
        let stage = Stage::new(&format!("cd out; {rest}; {list}; truncate -s 200M {file}"));
        stage.script("ffprobe", HEARD);
        let options = stage.options().with_limits(TranscodeLimits::default());
        let error = stage.ends(options).await;
        assert_eq!(error.kind(), TranscodeErrorKind::LimitReached(Limit::Segment), "{file}");
        assert!(!error.is_retryable(), "it would be as large again");
    }
}

#[tokio::test]
async fn a_source_with_one_huge_segment_among_others_is_encoded_and_not_copied() {
    // The huge one is short, and says nothing of the rate: the others are as even as they can be.
    let stage = Stage::new(
        "cd out; printf 'avcC\\001\\144\\000\\037' > init.mp4; echo '#EXTM3U' > index.m3u8
        for i in 0 1 2 3 4 5 6 7; do
            head -c 100000 /dev/zero > 0000$i.m4s; printf \"#EXTINF:4,\\n0000$i.m4s\\n\" >> index.m3u8
        done
        case \"$*\" in *'-c:v copy'*)
            truncate -s 200M 00008.m4s; printf '#EXTINF:1,\\n00008.m4s\\n' >> index.m3u8;;
        esac
        echo '#EXT-X-ENDLIST' >> index.m3u8",
    );
    stage.script(
        "ffprobe",
        r#"echo '{"streams":[{"index":0,"codec_name":"h264","profile":"High","pix_fmt":"yuv420p","codec_type":"video","width":640,"height":360,
"field_order":"progressive","r_frame_rate":"25/1","avg_frame_rate":"25/1","start_time":"0.0"}],
"format":{"duration":"33.0","bit_rate":"400000","start_time":"0.0"}}'
"#,
    );
    let made = async |limits: TranscodeLimits| {
        let transcoder = stage.options().with_limits(limits).open().await.unwrap();
        let shelf = Arc::new(Shelf::default());
        let outcome = run(&transcoder, &stage.source, &shelf).await.unwrap();
        let largest = shelf.state().files.values().map(Vec::len).max().unwrap();
        let copied: Vec<_> = outcome.renditions.iter().map(|made| made.copied).collect();
        (copied, largest)
    };
    assert_eq!(made(TranscodeLimits::default()).await, (vec![false], 100_000));
    // It is that limit, and nothing else of this source.
    let (copied, largest) = made(TranscodeLimits::default().with_segment(1 << 30)).await;
    assert_eq!((copied, largest), (vec![true], 200 << 20));
}

#[tokio::test]
async fn a_store_that_hangs_gives_the_turn_back_in_time() {
    let stage = Stage::new(MAKES);
    stage.script("ffprobe", HEARD);
    let fifo = stage.bench.path("fifo.mp4");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Time enough for the runs that are well, on any machine.
    let limits = TranscodeLimits::default().with_time(Duration::from_secs(6));
    let options = stage.options().with_runs_at_once(1).with_limits(limits);
    let transcoder = options.open().await.unwrap();
    let stuck = || Shelf {
        slow: Some(Duration::from_secs(86_400)),
        ..Shelf::default()
    };
    for (source, shelf, kind) in [
        (
            MediaSource::Bytes(Box::pin(futures_util::stream::pending())),
            Shelf::default(),
            TranscodeErrorKind::Io,
        ),
        (
            MediaSource::File(fifo.clone()),
            Shelf::default(),
            TranscodeErrorKind::Io,
        ),
        (
            MediaSource::File(stage.source.clone()),
            stuck(),
            TranscodeErrorKind::Sink,
        ),
    ] {
        let what = format!("{source:?}");
        let job = Job::new(source, Arc::new(shelf));
        let ended = tokio::time::timeout(Duration::from_secs(60), transcoder.run(job)).await;
        // Lets the thread go that opens it, or the runtime would wait for it.
        let _freed = fs::OpenOptions::new().read(true).write(true).open(&fifo);
        let error = ended.unwrap_or_else(|_| panic!("{what} goes on")).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error:?}");
        assert!(error.is_retryable(), "the file is not to blame");
        stage.bench.nothing_left();
        stage.nobody_left();
        let next = run(&transcoder, &stage.source, &Arc::default()).await.unwrap();
        assert_eq!(next.renditions.len(), 1, "{what}");
    }
}

#[tokio::test]
async fn what_is_contained_in_full_has_no_more_processes_than_it_may() {
    let stage = Stage::new(
        "i=0; while [ $i -lt 60 ]; do i=$((i+1)); sleep LONG & done; echo 'as many as it likes' >&2; exit 1",
    );
    let options = stage.options();
    let limits = TranscodeLimits::default().with_processes(16);
    let transcoder = options.with_limits(limits).open().await.unwrap();
    let containment = transcoder.containment();
    let is_bounded = !stage
        .ends_with(transcoder)
        .await
        .detail()
        .contains("as many as it likes");
    eprintln!("{containment:?}, bounded: {is_bounded}");
    assert_eq!(containment.process_count, is_bounded, "{containment:?}");
    assert!(is_bounded || !containment.is_full(), "{containment:?}");
}

#[tokio::test]
async fn what_leaves_the_process_group_ends_too() {
    let stage = Stage::new("setsid sleep LONG & setsid setsid sh -c 'sleep LONG; sleep LONG' & sleep 0.2; exit 1");
    let options = stage.options();
    if options.clone().open().await.unwrap().containment().processes {
        assert_eq!(stage.ends(options).await.kind(), TranscodeErrorKind::Refused);
    } else {
        eprintln!("skipped: no process namespaces here");
    }
}

#[tokio::test]
async fn a_probe_that_misbehaves_is_held_as_well() {
    use TranscodeErrorKind::{Broken, Crashed, LimitReached};
    for (acts, kind) in [
        ("exit 1", Broken),
        ("echo '{\"streams\":'", Broken),
        ("kill -SEGV $$", Crashed),
        ("sleep 98765", LimitReached(Limit::Stall)),
        ("cat /dev/zero", LimitReached(Limit::Output)),
        ("cat /dev/zero >&2", LimitReached(Limit::Stall)),
    ] {
        let stage = Stage::new("exit 1");
        stage.script("ffprobe", acts);
        assert_eq!(stage.ends(stage.options()).await.kind(), kind, "{acts}");
    }
}

#[tokio::test]
async fn programs_that_are_not_there_or_not_good_enough_are_found_at_once() {
    let stage = Stage::new("exit 1");
    let kind = |options: TranscodeOptions| async { options.open().await.unwrap_err().kind() };
    let missing = stage
        .options()
        .with_programs("/nowhere/ffmpeg", stage.bench.path("ffprobe"));
    assert_eq!(kind(missing).await, TranscodeErrorKind::Missing);
    stage.script("old", "echo ' A..... aac'");
    let old = stage
        .options()
        .with_programs(stage.bench.path("old"), stage.bench.path("ffprobe"));
    assert_eq!(kind(old).await, TranscodeErrorKind::Missing);
    fs::write(stage.bench.path("garbage"), "\x7fELF").unwrap();
    fs::set_permissions(stage.bench.path("garbage"), fs::Permissions::from_mode(0o755)).unwrap();
    let garbage = stage
        .options()
        .with_programs(stage.bench.path("garbage"), stage.bench.path("ffprobe"));
    assert_eq!(kind(garbage).await, TranscodeErrorKind::Missing);
}

#[tokio::test]
async fn nothing_of_the_server_reaches_the_program() {
    let stage = Stage::new(
        "{ env; ls -d /proc/self/fd/*; readlink /proc/self/ns/net; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; ulimit -v; pwd; } >&2; exit 1",
    );
    let options = stage.options();
    let containment = options.clone().open().await.unwrap().containment();
    eprintln!("{containment:?}");
    let detail = stage.ends(options).await.detail().to_owned();
    assert!(!detail.contains("CARGO") && !detail.contains("HOME="), "{detail}");
    assert!(!detail.contains(stage.bench.dir.path().to_str().unwrap()), "{detail}");
    // Standard input, output and error; the shell's own script; the directory that is listed.
    assert!(
        detail.lines().filter(|line| line.starts_with("/proc/self/fd/")).count() <= 5,
        "{detail}"
    );
    if containment.network {
        let ours = fs::read_link("/proc/self/ns/net").unwrap();
        assert!(
            detail.contains("net:[") && !detail.contains(ours.to_str().unwrap()),
            "{detail}"
        );
    }
    if containment.privileges {
        assert!(
            detail.contains("CapEff:\t0000000000000000") || detail.contains("CapEff: 0000000000000000"),
            "{detail}"
        );
        assert!(
            detail.contains("NoNewPrivs:\t1") || detail.contains("NoNewPrivs: 1"),
            "{detail}"
        );
    }
    if containment.resources {
        assert!(
            detail.contains(&(TranscodeLimits::default().memory >> 10).to_string()),
            "{detail}"
        );
    }
}

const BUSY: &str = "sleep LONG & (sleep LONG; sleep LONG) & while :; do i=$((i+1)); echo out_time_us=$i; echo half > out/$i.m4s; sleep 0.01; done";

#[tokio::test]
async fn a_run_that_is_dropped_at_any_moment_leaves_nothing() {
    let stage = Stage::new(BUSY);
    let transcoder = stage.options().open().await.unwrap();
    for wait in [0, 1, 2, 4, 8, 15, 20, 30, 50, 80, 120, 200, 300] {
        let shelf = Arc::default();
        let run = run(&transcoder, &stage.source, &shelf);
        let ended = tokio::time::timeout(Duration::from_millis(wait), run).await;
        assert!(ended.is_err());
    }
    {
        let shelf = Arc::default();
        tokio::select! {
            biased;
            _ = run(&transcoder, &stage.source, &shelf) => panic!("it never ends"),
            () = stage.somebody_sleeps() => {}
        }
    }
    // Nobody waits for them: they end by themselves.
    stage.nobody_left_soon().await;
    stage.bench.nothing_left();
    transcoder.shutdown().await;
}

impl Stage {
    async fn nobody_left_soon(&self) {
        let mut left = None;
        for _ in 0..500 {
            let home = fs::read_dir(self.bench.path("work"))
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path();
            left = fs::read_dir(home).unwrap().next();
            if processes_with(&self.long).is_empty() && left.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}, {left:?}", processes_with(&self.long));
    }
}

#[tokio::test]
async fn a_shutdown_ends_what_runs_and_what_waits_and_returns_after_it() {
    let stage = Stage::new(BUSY);
    let transcoder = stage.options().open().await.unwrap();
    let runs: Vec<_> = (0..3)
        .map(|_| {
            let (transcoder, source) = (transcoder.clone(), stage.source.clone());
            tokio::spawn(async move { run(&transcoder, &source, &Arc::default()).await })
        })
        .collect();
    stage.somebody_sleeps().await;
    transcoder.shutdown().await;
    assert_eq!(processes_with(&stage.long), Vec::<u32>::new());
    stage.bench.nothing_left();
    for run in runs {
        assert_eq!(run.await.unwrap().unwrap_err().kind(), TranscodeErrorKind::Cancelled);
    }
    let late = run(&transcoder, &stage.source, &Arc::default()).await;
    assert_eq!(late.unwrap_err().kind(), TranscodeErrorKind::Cancelled);
}

#[test]
fn a_runtime_that_is_dropped_takes_everything_with_it() {
    let stage = Stage::new(BUSY);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let transcoder = runtime.block_on(stage.options().open()).unwrap();
    let (in_run, source) = (transcoder.clone(), stage.source.clone());
    runtime.spawn(async move { run(&in_run, &source, &Arc::default()).await.map(drop) });
    runtime.block_on(stage.somebody_sleeps());
    drop(runtime);
    drop(transcoder);
    stage.nobody_left();
    assert_eq!(fs::read_dir(stage.bench.path("work")).unwrap().count(), 0);
}

#[tokio::test]
async fn runs_wait_for_their_turn() {
    let stage = Stage::new("mkdir ../turn || exit 0; sleep 0.2; rmdir ../turn; exit 1");
    let transcoder = stage.options().open().await.unwrap();
    let shelf = Arc::default();
    let one = || run(&transcoder, &stage.source, &shelf);
    let ended = futures_util::future::join_all([one(), one(), one()]).await;
    for error in ended.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.kind(), TranscodeErrorKind::Refused, "two at once");
    }
}

/// What the next test kills: it runs the transcoder of the directory in the environment.
#[test]
#[ignore = "a part of the next one"]
fn victim() {
    let dir = PathBuf::from(std::env::var_os("VICTIM").unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = TranscodeOptions::new(dir.join("work")).with_programs(dir.join("ffmpeg"), dir.join("ffprobe"));
        let transcoder: Transcoder = options.open().await.unwrap();
        let _ = run(&transcoder, &dir.join("source.mp4"), &Arc::default()).await;
    });
}

#[tokio::test]
async fn a_server_that_is_killed_takes_ffmpeg_with_it_and_the_next_one_tidies_up() {
    let stage = Stage::new(BUSY);
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hook::ffmpeg::tests::fake::victim", "--ignored"])
        .env("VICTIM", stage.bench.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    stage.somebody_sleeps().await;
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(fs::read_dir(stage.bench.path("work")).unwrap().count(), 1);
    let transcoder = stage.options().open().await.unwrap();
    assert_eq!(
        fs::read_dir(stage.bench.path("work")).unwrap().count(),
        1,
        "its own alone"
    );
    stage.bench.nothing_left();
    if transcoder.containment().orphans {
        stage.nobody_left();
    } else {
        for pid in processes_with(&stage.long) {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }
}

#[test]
fn programs_are_looked_up_in_the_path_and_nowhere_else() {
    assert!(contain::find(Path::new("sh")).is_some_and(|path| path.is_absolute()));
    assert_eq!(contain::find(Path::new("no-such-program")), None);
    assert_eq!(contain::find(Path::new("/etc/passwd")), None);
}
