//! The arguments of ffmpeg and ffprobe. Nothing in them comes from a client: the source is `file:source` in the working directory.

use std::time::Duration;

use super::{
    ladder::{Picture, Sound, Step},
    options::{SegmentFormat, TranscodeOptions},
    playlist::{INDEX, INIT},
    probe::{DECODERS, ENTRIES, Rate, Source, rounded},
    sniff::Container,
};

/// What holds for reading the source with either program.
fn source(container: Container, options: &TranscodeOptions) -> Vec<String> {
    let mut args = strings(&[
        "-protocol_whitelist",
        "file",
        "-codec_whitelist",
        DECODERS,
        "-f",
        container.demuxer(),
    ]);
    args.extend([
        "-max_streams".to_owned(),
        // One more, so that the probe can count what is too many.
        options.limits.streams.saturating_add(1).to_string(),
        "-max_pixels".to_owned(),
        options.limits.pixels.min(i32::MAX.unsigned_abs().into()).to_string(),
    ]);
    args
}

pub(super) fn probe(container: Container, options: &TranscodeOptions) -> Vec<String> {
    let mut args = strings(&[
        "-hide_banner",
        "-v",
        "error",
        "-of",
        "json=compact=1",
        "-show_entries",
        ENTRIES,
    ]);
    args.extend(source(container, options));
    args.extend(strings(&["-i", "file:source"]));
    args
}

/// A picture at `at`.
pub(super) fn poster(media: &Source, at: f64, options: &TranscodeOptions) -> Vec<String> {
    let Some(video) = &media.video else { return Vec::new() };
    let mut args = strings(&["-nostdin", "-hide_banner", "-v", "error", "-ss", &format!("{at:.3}")]);
    args.extend(source(media.container, options));
    args.extend(strings(&["-i", "file:source", "-map", &format!("0:{}", video.index)]));
    let factor = (1280.0 / f64::from(video.width.max(video.height))).min(1.0);
    let side = |side: u32| rounded((f64::from(side) * factor).max(1.0));
    let filter = format!(
        "scale={}:{},setsar=1,format=yuvj420p",
        side(video.width),
        side(video.height)
    );
    args.extend(strings(&[
        "-frames:v",
        "1",
        "-vf",
        &filter,
        "-q:v",
        "4",
        "-map_metadata",
        "-1",
    ]));
    args.extend(strings(&["-f", "mjpeg", "-y", "file:out/poster.jpg"]));
    args
}

/// One rendition, into `out/`. `boundaries`: where the segments of a copy begin, in seconds, to be met.
pub(super) fn rendition(
    media: &Source,
    step: &Step,
    boundaries: Option<&[f64]>,
    options: &TranscodeOptions,
) -> Vec<String> {
    let mut args = strings(&[
        "-nostdin",
        "-hide_banner",
        "-nostats",
        "-v",
        "error",
        "-progress",
        "pipe:1",
        "-stats_period",
        "0.5",
    ]);
    args.extend(source(media.container, options));
    // Whether enough of a damaged file was decoded is judged by what comes out.
    args.extend(strings(&["-max_error_rate", "1", "-i", "file:source"]));
    if options.threads > 0 {
        args.extend(["-threads".to_owned(), options.threads.to_string()]);
    }
    let mut split = options.segment;
    if let Some(video) = &media.video
        && step.picture != Picture::None
    {
        args.extend(strings(&["-map", &format!("0:{}", video.index)]));
        match step.picture {
            Picture::None | Picture::Copy { .. } => args.extend(strings(&["-c:v", "copy"])),
            Picture::Encode {
                width,
                height,
                frame_rate,
                max_bitrate,
            } => {
                let Rate { frames, seconds } = frame_rate;
                let deinterlace = if video.interlaced {
                    "yadif=deint=interlaced,"
                } else {
                    ""
                };
                let filter = format!(
                    "{deinterlace}fps=fps={frames}/{seconds}:start_time=0,scale={width}:{height},setsar=1,format=yuv420p"
                );
                args.extend(strings(&[
                    "-vf",
                    &filter,
                    "-c:v",
                    "libx264",
                    "-preset",
                    options.preset,
                    "-profile:v",
                    "high",
                ]));
                let rate = max_bitrate.to_string();
                args.extend(strings(&[
                    "-crf",
                    "23",
                    "-maxrate",
                    &rate,
                    "-bufsize",
                    &(u64::from(max_bitrate) * 2).to_string(),
                ]));
                args.extend(keyframes(frame_rate, options.segment, boundaries));
                // Every keyframe begins a segment, whatever ffmpeg would think of its length.
                split = Duration::from_millis(1);
            }
        }
    }
    if let Some(audio) = &media.audio {
        match step.sound {
            Sound::None => {}
            Sound::Copy => args.extend(strings(&["-map", &format!("0:{}", audio.index), "-c:a", "copy"])),
            Sound::Encode { channels, sample_rate } => {
                args.extend(strings(&[
                    "-map",
                    &format!("0:{}", audio.index),
                    "-c:a",
                    "aac",
                    "-profile:a",
                    "aac_low",
                ]));
                args.extend(strings(&["-b:a", &step.sound.bitrate().to_string()]));
                args.extend(strings(&[
                    "-ac",
                    &channels.to_string(),
                    "-ar",
                    &sample_rate.to_string(),
                ]));
                // Sound that begins late or has gaps is filled with silence: all renditions begin at 0.
                args.extend(strings(&["-af", "aresample=async=1000:first_pts=0"]));
            }
        }
    }
    args.extend(strings(&[
        "-sn",
        "-dn",
        "-map_metadata",
        "-1",
        "-map_chapters",
        "-1",
        "-fflags",
        "+bitexact",
    ]));
    let longest = options.limits.duration.as_secs_f64() + 1.0;
    args.extend(strings(&[
        "-t",
        &format!("{longest:.3}"),
        "-max_muxing_queue_size",
        "4096",
    ]));
    // Without a shift that depends on how frames are reordered, which differs from one rendition to another.
    args.extend(strings(&["-avoid_negative_ts", "disabled"]));
    args.extend(strings(&[
        "-f",
        "hls",
        "-hls_playlist_type",
        "vod",
        "-hls_flags",
        "+independent_segments",
    ]));
    args.extend(strings(&[
        "-hls_time",
        &format!("{:.3}", split.as_secs_f64()),
        "-hls_list_size",
        "0",
    ]));
    match options.format {
        SegmentFormat::Fmp4 => args.extend(strings(&["-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", INIT])),
        SegmentFormat::MpegTs => args.extend(strings(&[
            "-hls_segment_type",
            "mpegts",
            "-output_ts_offset",
            "2",
            "-hls_segment_options",
            "mpegts_copyts=1",
        ])),
    }
    let segments = format!("out/%05d.{}", options.format.extension());
    args.extend(strings(&[
        "-hls_segment_filename",
        &segments,
        "-y",
        &format!("out/{INDEX}"),
    ]));
    args
}

/// Keyframes where all renditions have them and nowhere else: at the boundaries of a copy, or else every so many frames.
fn keyframes(rate: Rate, segment: Duration, boundaries: Option<&[f64]>) -> Vec<String> {
    let (group, at) = match boundaries {
        // A frame is due at the first time that is not before it: half a frame earlier is safe from rounding.
        Some(boundaries) => {
            let half = 0.5 / rate.value();
            let times: Vec<_> = boundaries
                .iter()
                .map(|at| format!("{:.6}", (at - half).max(0.0)))
                .collect();
            ("100000".to_owned(), times.join(","))
        }
        None => {
            let frames = rounded((rate.value() * segment.as_secs_f64()).clamp(1.0, 100_000.0));
            (frames.to_string(), format!("expr:gte(n,n_forced*{frames})"))
        }
    };
    strings(&[
        "-g",
        &group,
        "-keyint_min",
        &group,
        "-sc_threshold",
        "0",
        "-force_key_frames",
        &at,
    ])
}

/// The most boundaries whose times fit into one argument (128 KiB on Linux).
pub(super) const MOST_BOUNDARIES: usize = 8000;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
