//! Which renditions a source gets.
//!
//! Sound lies in the segments of each rendition, the same in all: each is whole by itself, and playable as soon as it is there.

use super::{
    options::{Rung, TranscodeOptions},
    probe::{Audio, Rate, Source, Video, rounded},
    sniff::Container,
};

/// One rendition to be made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// `720p`, or `audio`: the directory of its files.
    pub(super) name: String,
    pub(super) picture: Picture,
    pub(super) sound: Sound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Picture {
    None,
    /// As it is in the source.
    Copy {
        width: u32,
        height: u32,
        frame_rate: Rate,
    },
    Encode {
        width: u32,
        height: u32,
        frame_rate: Rate,
        max_bitrate: u32,
    },
}

impl Picture {
    pub(super) const fn size(self) -> Option<(u32, u32)> {
        match self {
            Self::None => None,
            Self::Copy { width, height, .. } | Self::Encode { width, height, .. } => Some((width, height)),
        }
    }

    pub(super) const fn frame_rate(self) -> Option<Rate> {
        match self {
            Self::None => None,
            Self::Copy { frame_rate, .. } | Self::Encode { frame_rate, .. } => Some(frame_rate),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sound {
    None,
    Copy,
    Encode { channels: u32, sample_rate: u32 },
}

impl Sound {
    /// Bits per second.
    pub(super) const fn bitrate(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Encode { channels: 1, .. } => 96_000,
            Self::Copy | Self::Encode { .. } => 128_000,
        }
    }
}

impl Step {
    pub(super) const fn is_copy(&self) -> bool {
        matches!(self.picture, Picture::Copy { .. })
    }

    /// How much work it is, in no particular unit: decoding costs something too.
    pub(super) fn weight(&self, source: &Source) -> f64 {
        let area = |(width, height)| f64::from(width) * f64::from(height);
        let decoding = source
            .video
            .as_ref()
            .map_or(0.0, |video| 0.2 * area((video.width, video.height)));
        match self.picture {
            Picture::Encode { width, height, .. } => decoding + area((width, height)),
            Picture::None | Picture::Copy { .. } => 10_000.0,
        }
    }
}

/// The renditions in the order they are made in: a copy, which costs next to nothing, then from the smallest on, for the
/// first is what people wait for.
pub(super) fn plan(source: &Source, options: &TranscodeOptions, copy: bool) -> Vec<Step> {
    let sound = source.audio.as_ref().map_or(Sound::None, |audio| sound(source, audio));
    let Some(video) = &source.video else {
        return vec![Step {
            name: "audio".to_owned(),
            picture: Picture::None,
            sound,
        }];
    };
    let short = video.width.min(video.height);
    let frame_rate = capped(video.frame_rate, options.max_frame_rate);
    let mut ladder = options.ladder.clone();
    ladder.retain(|rung| rung.short_side >= 16);
    ladder.sort_by_key(|rung| rung.short_side);
    ladder.dedup_by_key(|rung| rung.short_side);
    let mut steps = Vec::new();
    let above = ladder.iter().find(|rung| rung.short_side >= short).copied();
    if copy && above.is_some_and(|rung| copies(source, video, &rung, frame_rate)) {
        // A rendition that is hardly smaller is not worth its space.
        ladder.retain(|lower| lower.short_side * 5 <= short * 4);
        steps.push(Step {
            name: format!("{short}p"),
            picture: Picture::Copy {
                width: video.width,
                height: video.height,
                frame_rate,
            },
            sound,
        });
    } else {
        let smallest = ladder.first().copied().unwrap_or(Rung::new(short, 5_000_000));
        ladder.retain(|rung| rung.short_side <= short);
        if ladder.is_empty() {
            ladder.push(Rung::new(short, smallest.max_bitrate));
        }
    }
    steps.extend(ladder.iter().map(|rung| {
        let (width, height) = scaled(video, rung.short_side);
        Step {
            name: format!("{}p", rung.short_side),
            picture: Picture::Encode {
                width,
                height,
                frame_rate,
                max_bitrate: share(rung, width, height),
            },
            sound,
        }
    }));
    steps
}

/// Whether every player shows the stream as it is, and it is not much larger than this rung allows. Only in MP4: there a sync sample is
/// one that decoding can begin at, which Matroska and transport streams do not promise.
fn copies(source: &Source, video: &Video, rung: &Rung, frame_rate: Rate) -> bool {
    let profile = matches!(&*video.profile, "Constrained Baseline" | "Baseline" | "Main" | "High");
    let most = u64::from(share(rung, video.width, video.height)) * 3 / 2 + 320_000;
    source.container == Container::Mp4
        && video.codec == "h264"
        && profile
        && matches!(&*video.pixels, "yuv420p" | "yuvj420p")
        && video.plain
        && !video.interlaced
        && video.width.is_multiple_of(2)
        && video.height.is_multiple_of(2)
        && frame_rate == video.frame_rate
        && video.start.abs() < 0.001
        && source.bitrate.is_some_and(|bitrate| bitrate <= most)
}

fn sound(source: &Source, audio: &Audio) -> Sound {
    let standard = matches!(audio.sample_rate, 44_100 | 48_000);
    let plain = audio.codec == "aac" && audio.profile == "LC" && audio.channels <= 2;
    if plain && standard && source.container == Container::Mp4 {
        return Sound::Copy;
    }
    Sound::Encode {
        channels: audio.channels.min(2),
        sample_rate: if standard { audio.sample_rate } else { 48_000 },
    }
}

/// The size at which the shorter side is `short` pixels, or as large as the source if that is smaller; both even.
fn scaled(video: &Video, short: u32) -> (u32, u32) {
    let source = f64::from(video.width.min(video.height));
    let factor = (f64::from(short) / source).min(1.0);
    let even = |side: u32| {
        let exact = f64::from(side) * factor;
        // Not rounded up over the size of the source.
        let nearest = rounded(exact / 2.0) * 2;
        if nearest > side { nearest - 2 } else { nearest }.max(2)
    };
    (even(video.width), even(video.height))
}

/// The rung's bits for this area.
fn share(rung: &Rung, width: u32, height: u32) -> u32 {
    let wide = f64::from(rung.short_side) * f64::from(rung.short_side) * 16.0 / 9.0;
    let factor = (f64::from(width) * f64::from(height) / wide).clamp(0.2, 3.0);
    rounded((f64::from(rung.max_bitrate) * factor).min(1e9))
}

/// Halved until it fits, so that frames are dropped evenly.
fn capped(rate: Rate, most: u32) -> Rate {
    let mut rate = rate;
    while rate.value() > f64::from(most) * 1.01 {
        rate.seconds = rate.seconds.saturating_mul(2);
    }
    rate
}
