//! What is in a file, as ffprobe tells it, parsed into types.

use std::time::Duration;

use serde::Deserialize;

use super::{TranscodeErrorKind, error::TranscodeError, options::TranscodeLimits, sniff::Container};

/// Decoders that a source may make ffmpeg open.
pub(super) const DECODERS: &str = "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,libaom-av1,mpeg4,mpeg2video,mpeg1video,h263,flv,\
    vp6f,vp6,theora,mjpeg,prores,dnxhd,dvvideo,wmv3,vc1,msmpeg4,msmpeg4v2,rawvideo,\
    aac,aac_fixed,aac_latm,mp3,mp3float,mp2,mp2float,ac3,ac3_fixed,eac3,opus,libopus,vorbis,libvorbis,flac,alac,\
    amrnb,amrwb,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_f32le,pcm_u8,pcm_s8,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav,\
    adpcm_ima_qt,adpcm_swf,nellymoser,speex,wmav2";

/// Names of codecs as ffprobe gives them. Those that are in [`DECODERS`] under another name are in here too.
fn is_decoded(codec: &str) -> bool {
    DECODERS.split(',').any(|name| name == codec) || matches!(codec, "flv1" | "msmpeg4v3" | "amr_nb" | "amr_wb")
}

/// A source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    pub(super) container: Container,
    /// In seconds; not all containers tell.
    pub(super) duration: Option<f64>,
    /// Of the picture alone, in seconds, if the container tells.
    pub(super) shown: Option<f64>,
    /// Of the whole file, in bits per second.
    pub(super) bitrate: Option<u64>,
    pub(super) video: Option<Video>,
    pub(super) audio: Option<Audio>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Video {
    pub(super) index: u32,
    pub(super) codec: String,
    pub(super) profile: String,
    pub(super) pixels: String,
    /// As it is shown: with square pixels, and upright.
    pub(super) width: u32,
    pub(super) height: u32,
    /// Nothing has to be done to show it as it is stored.
    pub(super) plain: bool,
    pub(super) interlaced: bool,
    pub(super) frame_rate: Rate,
    /// When it begins, counted from when the first stream does, in seconds.
    pub(super) start: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Audio {
    pub(super) index: u32,
    pub(super) codec: String,
    pub(super) profile: String,
    pub(super) channels: u32,
    pub(super) sample_rate: u32,
}

/// Frames per second, as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) frames: u32,
    pub(super) seconds: u32,
}

impl Rate {
    pub(super) fn value(self) -> f64 {
        f64::from(self.frames) / f64::from(self.seconds)
    }

    /// From `30000/1001`.
    fn parse(text: &str) -> Option<Self> {
        let (frames, seconds) = text.split_once('/')?;
        let rate = Self {
            frames: frames.parse().ok()?,
            seconds: seconds.parse().ok()?,
        };
        (rate.frames > 0 && rate.seconds > 0).then_some(rate)
    }
}

#[derive(Debug, Deserialize)]
struct Report {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    format: Format,
}

#[derive(Debug, Default, Deserialize)]
struct Format {
    duration: Option<String>,
    bit_rate: Option<String>,
    start_time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stream {
    index: u32,
    codec_type: String,
    codec_name: String,
    profile: String,
    pix_fmt: String,
    width: u32,
    height: u32,
    sample_aspect_ratio: Option<String>,
    field_order: Option<String>,
    avg_frame_rate: String,
    r_frame_rate: String,
    start_time: Option<String>,
    duration: Option<String>,
    channels: u32,
    sample_rate: Option<String>,
    disposition: Disposition,
    side_data_list: Vec<SideData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Disposition {
    default: u8,
    attached_pic: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SideData {
    rotation: Option<f64>,
}

/// The fields that ffprobe is asked for: no tags, whose contents are the client's.
pub(super) const ENTRIES: &str = "format=duration,bit_rate,start_time\
    :stream=index,codec_type,codec_name,profile,pix_fmt,width,height,sample_aspect_ratio,field_order,avg_frame_rate,r_frame_rate,\
    start_time,duration,channels,sample_rate\
    :stream_disposition=default,attached_pic:stream_side_data=rotation";

/// Reads ffprobe's JSON and compares it with the limits.
pub(super) fn parse(json: &[u8], container: Container, limits: &TranscodeLimits) -> Result<Source, TranscodeError> {
    let report: Report = serde_json::from_slice(json).map_err(|error| broken().with_source(error))?;
    let too_large = |message: String| TranscodeError::new(TranscodeErrorKind::TooLarge, message);
    if report.streams.len() > limits.streams as usize {
        return Err(too_large(format!("The file has more than {} streams", limits.streams)));
    }
    let seconds = |text: &Option<String>| {
        text.as_deref()
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|n| n.is_finite())
    };
    let duration = seconds(&report.format.duration)
        .into_iter()
        .chain(report.streams.iter().filter_map(|stream| seconds(&stream.duration)))
        .fold(None, |longest: Option<f64>, next| {
            Some(longest.map_or(next, |longest| longest.max(next)))
        })
        .filter(|duration| *duration > 0.0);
    if duration.is_some_and(|duration| duration > limits.duration.as_secs_f64()) {
        return Err(too_long(limits.duration));
    }
    let known = |kind: &str| {
        let mut streams: Vec<&Stream> = report
            .streams
            .iter()
            .filter(|stream| stream.codec_type == kind && stream.disposition.attached_pic == 0)
            .filter(|stream| is_decoded(&stream.codec_name))
            .collect();
        streams.sort_by_key(|stream| (std::cmp::Reverse(stream.disposition.default), stream.index));
        streams.into_iter()
    };
    let origin = seconds(&report.format.start_time).unwrap_or(0.0);
    let shown = known("video").find(|stream| stream.width > 0 && stream.height > 0);
    let video = shown.map(|stream| {
        let pixels = u64::from(stream.width) * u64::from(stream.height);
        if pixels > limits.pixels {
            return Err(too_large(format!("The picture has more than {} pixels", limits.pixels)));
        }
        let start = seconds(&stream.start_time).map_or(0.0, |start| start - origin);
        video(stream, start)
    });
    let heard = known("audio").find(|stream| stream.channels > 0);
    let audio = heard.map(|stream| Audio {
        index: stream.index,
        codec: stream.codec_name.clone(),
        profile: stream.profile.clone(),
        channels: stream.channels,
        sample_rate: stream
            .sample_rate
            .as_deref()
            .and_then(|rate| rate.parse().ok())
            .unwrap_or(0),
    });
    let source = Source {
        container,
        duration,
        shown: known("video").find_map(|stream| seconds(&stream.duration)),
        bitrate: report.format.bit_rate.as_deref().and_then(|rate| rate.parse().ok()),
        video: video.transpose()?,
        audio,
    };
    if source.video.is_none() && source.audio.is_none() {
        return Err(TranscodeError::unsupported(
            "The file has no video or sound that can be decoded",
        ));
    }
    Ok(source)
}

fn video(stream: &Stream, start: f64) -> Result<Video, TranscodeError> {
    let (across, down) = (f64::from(stream.width), f64::from(stream.height));
    let aspect = stream.sample_aspect_ratio.as_deref().and_then(aspect).unwrap_or(1.0);
    let rotation = stream
        .side_data_list
        .iter()
        .find_map(|data| data.rotation)
        .unwrap_or(0.0);
    // Pixels that are not square are stretched, never squeezed: nothing gets lost.
    let (across, down) = if aspect >= 1.0 {
        (across * aspect, down)
    } else {
        (across, down / aspect)
    };
    let lies = (rotation.rem_euclid(180.0) - 90.0).abs() < 45.0;
    let (across, down) = if lies { (down, across) } else { (across, down) };
    if across.min(down) < 16.0 || across.max(down) > 16384.0 || across.max(down) / across.min(down) > 20.0 {
        return Err(TranscodeError::unsupported(
            "The picture is too small, or too narrow, to be shown",
        ));
    }
    let interlaced = matches!(stream.field_order.as_deref(), Some("tt" | "bb" | "tb" | "bt"));
    Ok(Video {
        index: stream.index,
        codec: stream.codec_name.clone(),
        profile: stream.profile.clone(),
        pixels: stream.pix_fmt.clone(),
        width: rounded(across),
        height: rounded(down),
        plain: (aspect - 1.0).abs() < 1e-6
            && stream
                .side_data_list
                .iter()
                .all(|data| data.rotation.unwrap_or(0.0) == 0.0),
        interlaced,
        frame_rate: frame_rate(stream),
        start,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the caller checked the bounds"
)]
pub(super) fn rounded(number: f64) -> u32 {
    number.round() as u32
}

fn aspect(text: &str) -> Option<f64> {
    let (across, down) = text.split_once(':')?;
    let (across, down): (u32, u32) = (across.parse().ok()?, down.parse().ok()?);
    (across > 0 && down > 0).then(|| f64::from(across) / f64::from(down))
}

/// The rate that frames are shown at. What stands for "unknown" (thousands) or for a screen that seldom changes is replaced.
fn frame_rate(stream: &Stream) -> Rate {
    let fits = |rate: &Rate| (1.0..=300.0).contains(&rate.value());
    let average = Rate::parse(&stream.avg_frame_rate).filter(fits);
    let base = Rate::parse(&stream.r_frame_rate).filter(fits);
    match (average, base) {
        // A variable rate: the base rate keeps every frame, if it does not make many more of them.
        (Some(average), Some(base)) if base.value() <= 2.0 * average.value() => base,
        (Some(average), _) => average,
        (None, Some(base)) => base,
        (None, None) => Rate { frames: 30, seconds: 1 },
    }
}

pub(super) fn broken() -> TranscodeError {
    TranscodeError::new(
        TranscodeErrorKind::Broken,
        "The file cannot be read: it is broken, or its end is missing",
    )
}

pub(super) fn too_long(limit: Duration) -> TranscodeError {
    let message = format!("The video is longer than {} seconds", limit.as_secs());
    TranscodeError::new(TranscodeErrorKind::TooLarge, message)
}
