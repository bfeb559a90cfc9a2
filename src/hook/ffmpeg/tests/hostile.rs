//! Files that are made to do harm, and the real ffmpeg.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, process::Command, sync::Arc, time::Duration};

use super::{Bench, ffmpeg, run};
use crate::hook::ffmpeg::{
    Limit, Rung, TranscodeErrorKind, TranscodeLimits, TranscodeOptions, command, contain, sniff::Container,
};

fn tiny(bench: &Bench) -> TranscodeOptions {
    bench.options().with_ladder([Rung::new(90, 200_000)])
}

/// Playlists and scripts that name `canary` and `address`.
fn scripts(canary: &str, address: &str) -> Vec<String> {
    vec![
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ncanary.ts\n#EXT-X-ENDLIST\n".to_owned(),
        "ffconcat version 1.0\nfile canary.ts\n".to_owned(),
        format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{canary}\n#EXTINF:1,\nhttp://{address}/a.ts\n#EXT-X-ENDLIST\n"
        ),
        format!(
            "#EXTM3U\n#EXT-X-MAP:URI=\"{canary}\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"http://{address}/k\"\n#EXTINF:1,\nconcat:{canary}|{canary}\n#EXT-X-ENDLIST\n"
        ),
        format!("ffconcat version 1.0\nfile '{canary}'\nfile 'http://{address}/a.mp4'\n"),
        format!(
            "<?xml version=\"1.0\"?><MPD><Period><AdaptationSet><BaseURL>http://{address}/</BaseURL></AdaptationSet></Period></MPD>"
        ),
        format!(
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video {} RTP/AVP 96\r\n",
            address.rsplit(':').next().unwrap()
        ),
    ]
}

#[tokio::test]
async fn a_playlist_that_poses_as_a_video_is_refused_before_any_program_sees_it() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    let started = bench.path("started");
    let probe = bench.path("ffprobe");
    fs::write(&probe, format!("#!/bin/sh\ntouch {}\nexit 1\n", started.display())).unwrap();
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o755)).unwrap();
    let transcoder = tiny(&bench).with_programs("ffmpeg", &probe).open().await.unwrap();
    let canary = bench.path("canary.ts");
    fs::write(&canary, "secret").unwrap();
    for script in scripts(canary.to_str().unwrap(), "127.0.0.1:9") {
        let video = bench.path("video.mp4");
        fs::write(&video, &script).unwrap();
        let error = run(&transcoder, &video, &Arc::default()).await.unwrap_err();
        assert_eq!(error.kind(), TranscodeErrorKind::Unsupported, "{script}");
        assert!(!started.exists(), "{script}");
        bench.nothing_left();
    }
    // The canary sings when something is started at all.
    let video = bench.path("video.mp4");
    fs::write(&video, b"\0\0\0\x20ftypisom").unwrap();
    assert_eq!(
        run(&transcoder, &video, &Arc::default()).await.unwrap_err().kind(),
        TranscodeErrorKind::Broken
    );
    assert!(started.exists());
}

/// If the first bytes did not give it away: with the demuxer forced and files as the only protocol, ffprobe still opens
/// nothing that the file names.
#[test]
fn even_past_the_first_look_a_playlist_opens_nothing() {
    let Some(strace) = contain::find("strace".as_ref()).filter(|_| ffmpeg()) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "strace is missing: apt install strace"
        );
        eprintln!("skipped: there is no strace");
        return;
    };
    let bench = Bench::new();
    let canary = bench.path("canary.ts");
    fs::write(&canary, "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let log = bench.path("log");
    let opened = |args: &[String]| {
        let traced = Command::new(&strace)
            .args(["-f", "-qq", "-e", "trace=open,openat,connect", "-o"])
            .arg(&log)
            .arg("ffprobe")
            .args(args)
            .current_dir(bench.dir.path())
            .output()
            .unwrap();
        let log = fs::read_to_string(&log).unwrap();
        assert!(log.contains("\"source\""), "it read the source: {log}");
        (
            traced.status.success(),
            log.contains("canary") || log.contains("connect("),
        )
    };
    let options = tiny(&bench);
    for script in scripts(canary.to_str().unwrap(), &address) {
        fs::write(bench.path("source"), &script).unwrap();
        for container in [
            Container::Mp4,
            Container::Matroska,
            Container::MpegTs,
            Container::MpegPs,
            Container::Avi,
            Container::Ogg,
            Container::Flv,
            Container::Wav,
            Container::Mp3,
            Container::Adts,
            Container::Flac,
        ] {
            let (_, other_files) = opened(&command::probe(container, &options));
            assert!(!other_files, "{container:?}: {script}");
        }
    }
    assert!(listener.accept().is_err(), "nobody called");
    // Without what protects, the same file is opened: the test would see it.
    fs::write(
        bench.path("source"),
        format!("ffconcat version 1.0\nfile '{}'\n", canary.display()),
    )
    .unwrap();
    let (_, other_files) = opened(&["-safe", "0", "-f", "concat", "-i", "file:source"].map(str::to_owned));
    assert!(other_files);
}

#[tokio::test]
async fn what_would_need_too_much_is_stopped() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    let transcoder = tiny(&bench).open().await.unwrap();
    // A frame of 67 megapixels in a few hundred kilobytes.
    let large = bench.make(
        "large.mp4",
        "-f lavfi -i color=size=8192x8192:rate=1:duration=1 -c:v libx264 -preset ultrafast -threads 1",
    );
    assert!(fs::metadata(&large).unwrap().len() < 1_000_000);
    let error = run(&transcoder, &large, &Arc::default()).await.unwrap_err();
    assert_eq!(error.kind(), TranscodeErrorKind::TooLarge, "{error:?}");
    // Two frames, a hundred hours apart.
    let long = bench.make("long.mp4", "-f lavfi -i color=size=64x64:rate=1:duration=2 -vf setpts=N*360000/TB -vsync vfr -c:v libx264 -preset ultrafast -video_track_timescale 1000");
    let error = run(&transcoder, &long, &Arc::default()).await.unwrap_err();
    assert_eq!(error.kind(), TranscodeErrorKind::TooLarge, "{error:?}");
    // The same where nothing tells how long it is: found out on the way.
    let limits = TranscodeLimits::default();
    let short = tiny(&bench)
        .with_limits(limits.with_duration(Duration::from_secs(3)))
        .open()
        .await
        .unwrap();
    let piped = bench.make(
        "piped.mkv",
        "-f lavfi -i testsrc2=size=64x64:rate=10:duration=8 -c:v mpeg4 -f matroska -live 1",
    );
    let error = run(&short, &piped, &Arc::default()).await.unwrap_err();
    assert_eq!(error.kind(), TranscodeErrorKind::TooLarge, "{error:?}");
    // A million frames out of two: the clock stops it.
    let hours = bench.make("hours.mp4", "-f lavfi -i color=size=320x180:rate=25:duration=0.08 -vf setpts=N*40000/TB -vsync vfr -c:v libx264 -preset ultrafast -video_track_timescale 1000");
    let clock = tiny(&bench)
        .with_limits(limits.with_time(Duration::from_secs(2)))
        .open()
        .await
        .unwrap();
    let error = run(&clock, &hours, &Arc::default()).await.unwrap_err();
    assert_eq!(error.kind(), TranscodeErrorKind::LimitReached(Limit::Time), "{error:?}");
    bench.nothing_left();
}

#[tokio::test]
async fn memory_is_limited() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    // Room for the program, none for sixteen frames of 8192 x 4096.
    let large = bench.make(
        "large.mp4",
        "-f lavfi -i color=size=8192x4096:rate=1:duration=8 -c:v libx264 -preset ultrafast -threads 1",
    );
    let options = tiny(&bench).with_limits(TranscodeLimits::default().with_memory(450 << 20));
    let transcoder = options.open().await.unwrap();
    if !transcoder.containment().resources {
        eprintln!("skipped: no limits here");
        return;
    }
    let error = run(&transcoder, &large, &Arc::default()).await.unwrap_err();
    assert_eq!(
        error.kind(),
        TranscodeErrorKind::LimitReached(Limit::Memory),
        "{error:?}"
    );
    bench.nothing_left();
}
