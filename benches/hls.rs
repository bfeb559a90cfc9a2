//! From the last chunk to the first rendition that can be played, against the same ffmpeg with the same arguments by hand:
//! `cargo bench --features ffmpeg --bench hls`, on a machine that does nothing else.
//!
//! `HLS_ROUNDS` (5), `HLS_SECONDS` of video (60). Both are measured in turns; the medians count.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tower_upload::{
    Caller, ErrorKind, NewUpload, Uploads,
    blob::ByteRange,
    hook::ffmpeg::{FfmpegHls, TranscodeOptions},
    upload::UploadId,
};

/// The bar.
const MOST: f64 = 1.1;

fn main() {
    let number = |name: &str, usual: u32| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (rounds, seconds) = (number("HLS_ROUNDS", 5), number("HLS_SECONDS", 60));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let source = film(dir.path(), seconds);
    let (mut by_engine, mut by_hand) = (Vec::new(), Vec::new());
    let mut args = Vec::new();
    for round in 0..=rounds {
        let (time, seen) = runtime.block_on(by_the_engine(&dir.path().join(format!("data-{round}")), &source));
        args = seen;
        let alone = hand(&dir.path().join(format!("hand-{round}")), &source, &args);
        println!(
            "round {round}: engine {:.3} s, by hand {:.3} s",
            time.as_secs_f64(),
            alone.as_secs_f64()
        );
        // The first one warms up.
        if round > 0 {
            by_engine.push(time);
            by_hand.push(alone);
        }
    }
    let (engine, alone) = (median(&mut by_engine), median(&mut by_hand));
    let ratio = engine / alone;
    println!("ffmpeg {}", args.join(" "));
    println!(
        "{seconds} s of 1280x720, {rounds} rounds: {engine:.3} s to the first playable rendition, {alone:.3} s by hand, {ratio:.3} x (bar {MOST})"
    );
    if ratio > MOST {
        std::process::exit(1);
    }
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn film(dir: &Path, seconds: u32) -> PathBuf {
    let path = dir.join("film.mkv");
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i"])
        .arg(format!("testsrc2=size=1280x720:rate=25:duration={seconds}"))
        .args(["-f", "lavfi", "-i"])
        .arg(format!("sine=frequency=440:sample_rate=48000:duration={seconds}"))
        .args(["-c:v", "mpeg4", "-b:v", "4M", "-c:a", "aac"])
        .arg(&path)
        .status();
    assert!(made.unwrap().success(), "apt install ffmpeg");
    path
}

/// The time, and the arguments that ffmpeg was started with.
async fn by_the_engine(data: &Path, source: &Path) -> (Duration, Vec<String>) {
    let work = data.join("work");
    let uploads = Uploads::open(data)
        .allow_anonymous()
        .hook(FfmpegHls::new(TranscodeOptions::new(&work)))
        .build()
        .await
        .unwrap();
    let who = Caller::anonymous();
    let bytes = Bytes::from(std::fs::read(source).unwrap());
    let new = NewUpload::new("film.mkv").size(bytes.len() as u64);
    let id = uploads.create(&who, new).await.unwrap().id();
    let last = bytes.len() - (1 << 20);
    for (at, part) in [(0, bytes.slice(..last)), (last, bytes.slice(last..))] {
        let body = futures_util::stream::iter([Ok::<_, std::io::Error>(part)]);
        uploads.append(&who, id, at as u64, body).await.unwrap();
    }
    let began = Instant::now();
    uploads.assemble(&who, id, None).await.unwrap();
    let mut args = Vec::new();
    while !is_playable(&uploads, &who, id).await {
        if args.is_empty() {
            args = arguments(&work);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let time = began.elapsed();
    uploads.delete(&who, id).await.unwrap();
    uploads.shutdown(Duration::from_secs(10)).await;
    (time, args)
}

async fn is_playable(uploads: &Uploads, who: &Caller, id: UploadId) -> bool {
    match uploads.read_derived(who, id, "master.m3u8", ByteRange::ALL).await {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => panic!("{error}"),
    }
}

/// Those of the ffmpeg that works below `work`.
fn arguments(work: &Path) -> Vec<String> {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let is_there = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(work));
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if is_there && name.trim() == "ffmpeg" {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned());
            let mut words: Vec<String> = words.skip(1).collect();
            words.pop();
            return words;
        }
    }
    Vec::new()
}

/// The same in an empty directory, without anything that holds it in.
fn hand(dir: &Path, source: &Path, args: &[String]) -> Duration {
    assert!(!args.is_empty(), "ffmpeg was not seen at work");
    std::fs::create_dir_all(dir.join("out")).unwrap();
    std::os::unix::fs::symlink(source, dir.join("source")).unwrap();
    let began = Instant::now();
    let ran = Command::new("ffmpeg").args(args).current_dir(dir).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    began.elapsed()
}
