use crate::hook::ffmpeg::{
    Rung, TranscodeErrorKind, TranscodeLimits, TranscodeOptions,
    ladder::{Picture, plan},
    probe::{Source, parse},
    sniff::Container,
};

const STREAM: &str = r#"{"streams":[{"index":0,"codec_name":"h264","profile":"High","codec_type":"video","width":W,"height":H,
    "sample_aspect_ratio":"SAR","pix_fmt":"yuv420p","field_order":"progressive","r_frame_rate":"30/1","avg_frame_rate":"30/1",
    "start_time":"0.000000","duration":"10.0","side_data_list":[SIDE]},
    {"index":1,"codec_name":"aac","profile":"LC","codec_type":"audio","channels":2,"sample_rate":"48000"}],
    "format":{"duration":"10.0","bit_rate":"RATE"}}"#;

fn source(width: u32, height: u32, aspect: &str, side: &str, bitrate: &str) -> Source {
    let json = STREAM
        .replace("W,", &format!("{width},"))
        .replace("H,", &format!("{height},"))
        .replace("SAR", aspect)
        .replace("SIDE", side)
        .replace("RATE", bitrate);
    parse(json.as_bytes(), Container::Mp4, &TranscodeLimits::default()).unwrap()
}

fn steps(source: &Source, copy: bool) -> Vec<(String, bool, (u32, u32))> {
    let options = TranscodeOptions::new("/nowhere");
    plan(source, &options, copy)
        .into_iter()
        .map(|step| (step.name.clone(), step.is_copy(), step.picture.size().unwrap()))
        .collect()
}

fn encoded(names: &[(&str, (u32, u32))]) -> Vec<(String, bool, (u32, u32))> {
    names
        .iter()
        .map(|(name, size)| ((*name).to_owned(), false, *size))
        .collect()
}

#[test]
fn the_ladder_goes_from_the_smallest_up_to_the_source_and_no_further() {
    let hd = source(1920, 1080, "1:1", "", "20000000");
    let all = [
        ("360p", (640, 360)),
        ("480p", (854, 480)),
        ("720p", (1280, 720)),
        ("1080p", (1920, 1080)),
    ];
    assert_eq!(steps(&hd, false), encoded(&all));
    assert_eq!(
        steps(&hd, true),
        encoded(&all),
        "twenty megabits are too much to be copied"
    );
    assert_eq!(
        steps(&source(1279, 719, "1:1", "", "1"), false),
        encoded(&[("360p", (640, 360)), ("480p", (854, 480))])
    );
    assert_eq!(
        steps(&source(161, 121, "1:1", "", "1"), true),
        encoded(&[("121p", (160, 120))])
    );
}

#[test]
fn what_stands_upright_or_has_long_pixels_is_shown_so() {
    let upright = source(1280, 720, "1:1", r#"{"rotation":-90}"#, "1");
    assert_eq!(steps(&upright, true)[2], ("720p".to_owned(), false, (720, 1280)));
    let upside_down = source(1280, 720, "1:1", r#"{"side_data_type":"x"},{"rotation":180}"#, "1");
    assert_eq!(steps(&upside_down, true)[2], ("720p".to_owned(), false, (1280, 720)));
    // PAL, 16:9
    let anamorphic = source(720, 576, "64:45", "", "1");
    assert_eq!(steps(&anamorphic, true)[1], ("480p".to_owned(), false, (854, 480)));
}

#[test]
fn a_copy_comes_first_and_spares_its_own_rung() {
    let small = source(1280, 720, "1:1", "", "2000000");
    let copied: Vec<_> = steps(&small, true)
        .into_iter()
        .map(|(name, copy, _)| (name, copy))
        .collect();
    assert_eq!(
        copied,
        [
            ("720p".to_owned(), true),
            ("360p".to_owned(), false),
            ("480p".to_owned(), false)
        ]
    );
    let between = source(960, 540, "1:1", "", "1000000");
    let names: Vec<_> = steps(&between, true).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["540p", "360p"]);
}

#[test]
fn a_frame_rate_over_the_limit_is_halved() {
    let fast = source(640, 360, "1:1", "", "100000");
    let options = TranscodeOptions::new("/nowhere")
        .with_max_frame_rate(20)
        .with_ladder([Rung::new(360, 800_000)]);
    let steps = plan(&fast, &options, true);
    let Picture::Encode { frame_rate, .. } = steps[0].picture else {
        panic!("{steps:?}")
    };
    assert!((frame_rate.value() - 15.0).abs() < 1e-9);
}

#[test]
fn what_is_over_the_limits_is_refused_by_name() {
    let json = STREAM
        .replace("W,", "8192,")
        .replace("H,", "8192,")
        .replace("SIDE", "")
        .replace("RATE", "1");
    let kind =
        |json: &str, limits: TranscodeLimits| parse(json.as_bytes(), Container::Mp4, &limits).unwrap_err().kind();
    let limits = TranscodeLimits::default();
    assert_eq!(kind(&json, limits), TranscodeErrorKind::TooLarge);
    assert_eq!(
        kind(&json.replace("\"duration\":\"10.0\"", "\"duration\":\"1e9\""), limits),
        TranscodeErrorKind::TooLarge
    );
    let small = json.replace("8192", "640");
    assert_eq!(kind(&small, limits.with_streams(1)), TranscodeErrorKind::TooLarge);
    assert_eq!(kind("{\"streams\":[]}", limits), TranscodeErrorKind::Unsupported);
    assert_eq!(
        kind(
            &small.replace("\"h264\"", "\"ansi\"").replace("\"aac\"", "\"sonic\""),
            limits
        ),
        TranscodeErrorKind::Unsupported
    );
    assert_eq!(
        kind("{\"streams\":[{\"index\":-1}]}", limits),
        TranscodeErrorKind::Broken
    );
    assert_eq!(kind("nonsense", limits), TranscodeErrorKind::Broken);
    assert_eq!(
        kind(&small.replace("640,", "8,"), limits),
        TranscodeErrorKind::Unsupported
    );
}
