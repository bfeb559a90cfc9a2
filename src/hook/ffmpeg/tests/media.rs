use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use super::{Bench, Shelf, ffmpeg, run};
use crate::hook::ffmpeg::{
    Job, MediaSource, Outcome, Rung, SegmentFormat, Shortfall, TranscodeErrorKind, TranscodeOptions,
};

const SOUND: &str = "-f lavfi -i sine=frequency=440:sample_rate=48000:duration=";

fn picture(size: &str, seconds: u32) -> String {
    format!("-f lavfi -i testsrc2=size={size}:rate=25:duration={seconds} {SOUND}{seconds}")
}

/// Two small rungs, so that tests are quick.
fn small(options: TranscodeOptions) -> TranscodeOptions {
    options
        .with_ladder([Rung::new(180, 400_000), Rung::new(90, 200_000)])
        .with_segment(std::time::Duration::from_secs(2))
}

fn ffprobe(args: &str, file: &Path) -> String {
    let out = Command::new("ffprobe")
        .args(["-v", "error"])
        .args(args.split_whitespace())
        .arg(file)
        .output()
        .unwrap();
    assert!(
        out.stderr.is_empty(),
        "{}: {}",
        file.display(),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// Decodes every rendition and compares it with what was told of it. Returns where its keyframes are.
fn check(directory: &Path, outcome: &Outcome) -> Vec<Vec<f64>> {
    let mut keyframes = Vec::new();
    for rendition in &outcome.renditions {
        let playlist = directory.join(&rendition.name).join("index.m3u8");
        let decoded = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-xerror", "-i"])
            .arg(&playlist)
            .args(["-f", "null", "-"])
            .output()
            .unwrap();
        assert!(
            decoded.status.success() && decoded.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&decoded.stderr)
        );
        if let Some((width, height)) = rendition.resolution {
            let size = ffprobe(
                "-select_streams v -show_entries stream=width,height,sample_aspect_ratio -of csv=p=0",
                &playlist,
            );
            assert_eq!(size.lines().next().unwrap(), format!("{width},{height},1:1"));
            let packets = ffprobe(
                "-select_streams v -show_entries packet=pts_time,flags -of csv=p=0",
                &playlist,
            );
            let times: Vec<f64> = packets
                .lines()
                .filter_map(|line| line.split_once(",K")?.0.parse().ok())
                .collect();
            keyframes.push(times);
        }
        let sum: f64 = std::fs::read_to_string(&playlist)
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("#EXTINF:")?.strip_suffix(',')?.parse::<f64>().ok())
            .sum();
        assert!((sum - rendition.duration).abs() < 0.01);
    }
    keyframes
}

async fn convert(bench: &Bench, options: TranscodeOptions, source: &Path) -> (Arc<Shelf>, Outcome) {
    let shelf = Arc::new(Shelf::default());
    let transcoder = options.open().await.unwrap();
    let outcome = run(&transcoder, source, &shelf).await.unwrap();
    bench.nothing_left();
    shelf.lay_out(&bench.path("out"));
    (shelf, outcome)
}

fn names(outcome: &Outcome) -> Vec<&str> {
    outcome.renditions.iter().map(|rendition| &*rendition.name).collect()
}

fn aligned(keyframes: &[Vec<f64>]) {
    assert!(keyframes.len() > 1 && keyframes[0].len() > 1, "{keyframes:?}");
    for other in &keyframes[1..] {
        assert_eq!(other.len(), keyframes[0].len(), "{keyframes:?}");
        let near = other.iter().zip(&keyframes[0]).all(|(a, b)| (a - b).abs() < 0.002);
        assert!(near, "{keyframes:?}");
    }
}

#[tokio::test]
async fn a_video_that_fits_is_copied_first_and_the_others_have_their_keyframes_where_it_has() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    // Keyframes that no clock would give.
    let args = format!(
        "{} -c:v libx264 -preset veryfast -bf 3 -force_key_frames 0,2.6,5.04,7.4 -g 1000 -sc_threshold 0 -c:a aac",
        picture("320x180", 9)
    );
    let source = bench.make("a.mp4", &args);
    let (shelf, outcome) = convert(&bench, small(bench.options()), &source).await;
    assert_eq!(names(&outcome), ["180p", "90p"]);
    assert!(outcome.renditions[0].copied && !outcome.renditions[1].copied);
    assert!(outcome.poster && outcome.shortfall.is_none());
    let keyframes = check(&bench.path("out"), &outcome);
    aligned(&keyframes);
    assert_eq!(keyframes[0].len(), 4);
    assert_eq!(outcome.renditions[1].segments, 4);
    let (copy, encoded) = (&outcome.renditions[0], &outcome.renditions[1]);
    assert!(
        (copy.duration - 9.0).abs() < 0.05 && (encoded.duration - 9.0).abs() < 0.05,
        "{outcome:?}"
    );
    assert!(
        copy.codecs.starts_with("avc1.64") && copy.codecs.ends_with(",mp4a.40.2"),
        "{}",
        copy.codecs
    );
    // The first rendition is listed before the second one is made, and before the picture.
    let order = shelf.state().names;
    let first = order.iter().position(|name| name == "master.m3u8").unwrap();
    assert!(order[..first].iter().all(|name| name.starts_with("180p/")));
    assert_eq!(order.last().unwrap(), "master.m3u8");
    let poster = ffprobe(
        "-show_entries stream=codec_name,width,height -of csv=p=0",
        &bench.path("out/poster.jpg"),
    );
    assert_eq!(poster.trim(), "mjpeg,320,180");
    let master = ffprobe(
        "-show_entries stream=codec_name -of csv=p=0",
        &bench.path("out/master.m3u8"),
    );
    assert!(
        master.matches("h264").count() >= 2 && master.contains("aac"),
        "{master}"
    );
}

#[tokio::test]
async fn other_codecs_are_encoded_with_aligned_segments() {
    if !ffmpeg() {
        return;
    }
    let cases = [
        (
            "a.mkv",
            "-c:v libx265 -preset ultrafast -x265-params log-level=error -c:a libmp3lame",
        ),
        ("b.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus"),
        ("c.avi", "-c:v mpeg4 -c:a mp2"),
        ("d.ts", "-c:v libx264 -preset ultrafast -c:a aac"),
        ("e.mpg", "-c:v mpeg2video -c:a mp2"),
        ("f.flv", "-c:v flv1 -c:a libmp3lame -ar 44100"),
        ("g.ogv", "-c:v libtheora -c:a libvorbis"),
        ("h.3gp", "-c:v mpeg4 -c:a aac"),
    ];
    for (name, codecs) in cases {
        let bench = Bench::new();
        let source = bench.make(name, &format!("{} {codecs}", picture("320x180", 5)));
        let (_, outcome) = convert(&bench, small(bench.options()), &source).await;
        assert_eq!(names(&outcome), ["90p", "180p"], "{name}");
        let keyframes = check(&bench.path("out"), &outcome);
        aligned(&keyframes);
        assert_eq!(keyframes[0].len(), 3, "{name}: {keyframes:?}");
        for rendition in &outcome.renditions {
            assert!((rendition.duration - 5.0).abs() < 0.2, "{name}: {rendition:?}");
            assert!(rendition.codecs.starts_with("avc1.42c0") && rendition.codecs.ends_with(",mp4a.40.2"));
        }
    }
}

#[tokio::test]
async fn transport_streams_are_as_good() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    let source = bench.make(
        "a.mp4",
        &format!("{} -c:v libx264 -preset veryfast -g 50 -c:a aac", picture("320x180", 5)),
    );
    let (_, outcome) = convert(
        &bench,
        small(bench.options()).with_format(SegmentFormat::MpegTs),
        &source,
    )
    .await;
    assert_eq!(names(&outcome), ["180p", "90p"]);
    assert!(outcome.renditions[0].copied);
    aligned(&check(&bench.path("out"), &outcome));
    assert!(outcome.renditions[0].codecs.starts_with("avc1.6400"), "{outcome:?}");
    assert!(outcome.renditions[1].codecs.starts_with("avc1.42c0"), "{outcome:?}");
}

#[tokio::test]
async fn sound_alone_and_picture_alone_are_streams_too() {
    if !ffmpeg() {
        return;
    }
    for (name, codec) in [
        ("a.m4a", "aac"),
        ("b.mp3", "libmp3lame"),
        ("c.flac", "flac"),
        ("d.wav", "pcm_s16le"),
        ("e.aac", "aac"),
        ("f.ogg", "libopus"),
    ] {
        let bench = Bench::new();
        let source = bench.make(name, &format!("{SOUND}5 -c:a {codec}"));
        let (shelf, outcome) = convert(&bench, small(bench.options()), &source).await;
        assert_eq!(names(&outcome), ["audio"], "{name}");
        check(&bench.path("out"), &outcome);
        assert_eq!(outcome.renditions[0].codecs, "mp4a.40.2");
        assert!(!outcome.poster && !shelf.state().files.contains_key("poster.jpg"));
        assert!(
            (outcome.renditions[0].duration - 5.0).abs() < 0.2,
            "{name}: {outcome:?}"
        );
    }
    let bench = Bench::new();
    let source = bench.make(
        "a.mp4",
        "-f lavfi -i testsrc2=size=320x180:rate=25:duration=5 -c:v mpeg4",
    );
    let (_, outcome) = convert(&bench, small(bench.options()), &source).await;
    aligned(&check(&bench.path("out"), &outcome));
    assert!(!outcome.renditions[0].codecs.contains("mp4a"));
}

#[tokio::test]
async fn a_picture_that_was_turned_or_has_odd_sides_is_upright_and_even() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    let flat = bench.make(
        "flat.mp4",
        &format!("{} -c:v libx264 -preset ultrafast -c:a aac", picture("320x180", 3)),
    );
    let turned = bench.make(
        "turned.mp4",
        &format!("-i {} -c copy -metadata:s:v rotate=90", flat.display()),
    );
    let (_, outcome) = convert(&bench, small(bench.options()), &turned).await;
    assert_eq!(
        outcome
            .renditions
            .iter()
            .filter_map(|r| r.resolution)
            .collect::<Vec<_>>(),
        [(90, 160), (180, 320)]
    );
    check(&bench.path("out"), &outcome);

    let bench = Bench::new();
    let odd = bench.make(
        "odd.webm",
        &format!(
            "{} -pix_fmt yuv444p -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -an",
            picture("161x121", 3)
        ),
    );
    let (_, outcome) = convert(&bench, small(bench.options()), &odd).await;
    assert_eq!(outcome.renditions[0].resolution, Some((120, 90)));
    check(&bench.path("out"), &outcome);
}

#[tokio::test]
async fn of_a_file_that_was_cut_off_what_is_there_is_shown_and_without_its_index_nothing() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    let args = format!("{} -c:v mpeg4 -b:v 300k -c:a aac", picture("320x180", 10));
    let whole = bench.make("whole.mp4", &format!("{args} -movflags +faststart"));
    let bytes = std::fs::read(&whole).unwrap();
    let half = bench.path("half.mp4");
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let (_, outcome) = convert(&bench, small(bench.options()), &half).await;
    let Some(Shortfall { expected, made, .. }) = outcome.shortfall else {
        panic!("{outcome:?}")
    };
    assert!(
        (expected - 10.0).abs() < 0.2 && (3.0..7.0).contains(&made),
        "{expected} {made}"
    );
    check(&bench.path("out"), &outcome);

    let index_last = bench.make("last.mp4", &args);
    let bytes = std::fs::read(&index_last).unwrap();
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let transcoder = small(bench.options()).open().await.unwrap();
    let error = run(&transcoder, &half, &Arc::default()).await.unwrap_err();
    assert_eq!(error.kind(), TranscodeErrorKind::Broken);
    assert!(!error.is_retryable());
    let shown = format!("{error}");
    assert!(!shown.contains("half") && !shown.contains('/'), "{shown}");
    assert!(
        !error.detail().contains(bench.dir.path().to_str().unwrap()),
        "{}",
        error.detail()
    );
    bench.nothing_left();
}

#[tokio::test]
async fn a_run_that_was_interrupted_goes_on_and_gives_the_same() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    let source = bench.make(
        "a.mp4",
        &format!("{} -c:v libx264 -preset veryfast -g 50 -c:a aac", picture("320x180", 5)),
    );
    let options =
        small(bench.options()).with_ladder([Rung::new(180, 400_000), Rung::new(90, 200_000), Rung::new(60, 100_000)]);
    let (whole, outcome) = convert(&bench, options.clone(), &source).await;
    let whole = whole.state();
    for fails_at in [0, 1, 4, 6, 7, 9, 13, whole.names.len() - 1] {
        let shelf = Arc::new(Shelf {
            fails_at: Some(fails_at),
            ..Shelf::default()
        });
        let transcoder = options.clone().open().await.unwrap();
        let error = run(&transcoder, &source, &shelf).await.unwrap_err();
        assert_eq!(error.kind(), TranscodeErrorKind::Sink);
        assert!(error.is_retryable());
        let before = shelf.state();
        let shelf = Arc::new(Shelf {
            state: before.clone().into(),
            ..Shelf::default()
        });
        let again = run(&transcoder, &source, &shelf).await.unwrap();
        assert_eq!(again.renditions, outcome.renditions);
        let after = shelf.state();
        assert!(after.files == whole.files, "{fails_at}: other bytes");
        // What was finished is not given again.
        let new = &after.names[before.names.len()..];
        for done in &before.finished {
            assert!(
                !new.iter().any(|name| name.starts_with(&format!("{}/", done.name))),
                "{fails_at}: {new:?}"
            );
        }
        bench.nothing_left();
    }
}

#[tokio::test]
async fn bytes_that_come_as_a_stream_are_spooled_and_progress_is_told() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    let source = bench.make(
        "a.webm",
        &format!(
            "{} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus",
            picture("320x180", 5)
        ),
    );
    let bytes = bytes::Bytes::from(std::fs::read(source).unwrap());
    let frames: Vec<_> = bytes.chunks(10_000).map(|frame| Ok(bytes.slice_ref(frame))).collect();
    let shelf = Arc::new(Shelf::default());
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    let job = Job::new(
        MediaSource::Bytes(Box::pin(futures_util::stream::iter(frames))),
        Arc::<Shelf>::clone(&shelf),
    )
    .on_progress(move |progress| teller.lock().unwrap().push(progress.clone()));
    let transcoder = small(bench.options()).open().await.unwrap();
    let outcome = transcoder.run(job).await.unwrap();
    assert_eq!(names(&outcome), ["90p", "180p"]);
    bench.nothing_left();
    let told = told.lock().unwrap();
    let percents: Vec<_> = told.iter().map(|progress| progress.percent.unwrap()).collect();
    assert!(percents.is_sorted() && percents.last().unwrap() > &95.0, "{percents:?}");
    assert!(told.iter().all(|progress| progress.total == 2));
}

#[tokio::test]
async fn progress_never_goes_down_whether_a_copy_is_taken_or_not() {
    if !ffmpeg() {
        return;
    }
    let bench = Bench::new();
    for (name, keyframes, renditions) in [
        ("even.mp4", "-g 50", vec!["180p", "90p"]),
        // One segment as long as the film: it is copied in vain, and then encoded.
        ("sparse.mp4", "-g 1000 -sc_threshold 0", vec!["90p", "180p"]),
    ] {
        let args = format!(
            "{} -c:v libx264 -preset veryfast {keyframes} -c:a aac",
            picture("320x180", 9)
        );
        let source = MediaSource::File(bench.make(name, &args));
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let job = Job::new(source, Arc::new(Shelf::default()) as Arc<dyn super::HlsSink>)
            .on_progress(move |now| tell.lock().unwrap().push(now.clone()));
        let transcoder = small(bench.options()).open().await.unwrap();
        let outcome = transcoder.run(job).await.unwrap();
        assert_eq!(names(&outcome), renditions, "{name}");
        let told = told.lock().unwrap();
        let percent: Vec<f64> = told.iter().filter_map(|now| now.percent).collect();
        assert!(percent.len() >= 4 && percent.is_sorted(), "{name}: {percent:?}");
        assert!(told.iter().map(|now| now.finished).is_sorted(), "{name}: {told:?}");
        let (first, last) = (percent[0], *percent.last().unwrap());
        assert!(first < 0.01 && (99.0..=100.0).contains(&last), "{name}: {percent:?}");
        // The copy took next to no time, and does not count for much.
        let encoding = told.iter().position(|now| now.rendition == "90p").unwrap();
        assert!(percent[encoding] < 30.0, "{name}: {percent:?}");
    }
}
