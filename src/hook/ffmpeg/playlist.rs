//! Playlists (RFC 8216): ffmpeg's is read as a list of segments and written anew; the master is written here alone.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use super::{options::SegmentFormat, sink::Rendition};

pub(super) const INIT: &str = "init.mp4";
pub(super) const INDEX: &str = "index.m3u8";

/// A segment: its file's name, seconds, bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) seconds: f64,
    pub(super) bytes: u64,
}

impl SegmentFormat {
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Fmp4 => "m4s",
            Self::MpegTs => "ts",
        }
    }
}

/// The segments that ffmpeg's playlist in `directory` lists, all of which must be there and not empty. `None` if it is not whole or lasts no time;
/// [`FileTooLarge`](io::ErrorKind::FileTooLarge) if it or anything that belongs to it has more than `most` bytes.
pub(super) fn read(directory: &Path, format: SegmentFormat, most: u64) -> io::Result<Option<Vec<Segment>>> {
    let size = |name: &str| match size(&directory.join(name)) {
        Ok(bytes) if bytes > most => Err(io::ErrorKind::FileTooLarge.into()),
        bytes => bytes,
    };
    size(INDEX)?;
    let text = match fs::read_to_string(directory.join(INDEX)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let Some(listed) = parse(&text, format) else {
        return Ok(None);
    };
    let mut segments = Vec::with_capacity(listed.len());
    for (name, seconds) in listed {
        let bytes = size(&name)?;
        if bytes == 0 {
            return Ok(None);
        }
        segments.push(Segment { name, seconds, bytes });
    }
    let begins = format == SegmentFormat::MpegTs || size(INIT)? > 0;
    let lasts = segments.iter().any(|segment| segment.seconds > 0.0);
    Ok((begins && lasts).then_some(segments))
}

fn size(path: &Path) -> io::Result<u64> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(if meta.is_file() { meta.len() } else { 0 }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Names and seconds. `None` if it does not end, or lists anything but the segments that ffmpeg was told to make, in order.
fn parse(text: &str, format: SegmentFormat) -> Option<Vec<(String, f64)>> {
    let mut segments = Vec::new();
    let mut seconds = None;
    let mut ended = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("#EXTINF:") {
            let number: f64 = rest.split(',').next()?.trim().parse().ok()?;
            seconds = Some(number).filter(|number| number.is_finite() && *number >= 0.0);
        } else if line == "#EXT-X-ENDLIST" {
            ended = true;
        } else if !line.starts_with('#') && !line.is_empty() {
            if line != format!("{:05}.{}", segments.len(), format.extension()) {
                return None;
            }
            segments.push((line.to_owned(), seconds.take()?));
        }
    }
    ended.then_some(segments)
}

/// The playlist of one rendition.
pub(super) fn media(segments: &[Segment], format: SegmentFormat) -> String {
    let longest = segments.iter().map(|segment| segment.seconds).fold(1.0, f64::max);
    let version = if format == SegmentFormat::Fmp4 { 7 } else { 6 };
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{:.0}\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n",
        longest.ceil(),
    );
    if format == SegmentFormat::Fmp4 {
        let _infallible = writeln!(text, "#EXT-X-MAP:URI=\"{INIT}\"");
    }
    for segment in segments {
        let _infallible = write!(text, "#EXTINF:{:.6},\n{}\n", segment.seconds, segment.name);
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// The master playlist of these renditions, the lowest bandwidth first: players that begin with the first begin fast.
#[must_use]
pub fn master_playlist(renditions: &[Rendition]) -> String {
    let mut renditions: Vec<_> = renditions.iter().collect();
    renditions.sort_by(|a, b| (a.bandwidth, &a.name).cmp(&(b.bandwidth, &b.name)));
    let mut text = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n".to_owned();
    for rendition in renditions {
        let _infallible = write!(
            text,
            "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\"",
            rendition.bandwidth, rendition.average_bandwidth, rendition.codecs
        );
        if let Some((width, height)) = rendition.resolution {
            let _infallible = write!(text, ",RESOLUTION={width}x{height}");
        }
        if let Some(rate) = rendition.frame_rate {
            let _infallible = write!(text, ",FRAME-RATE={rate:.3}");
        }
        let _infallible = write!(text, "\n{}/{INDEX}\n", rendition.name);
    }
    text
}

/// Bits per second of the largest segment and of all together. Short ones, such as the last, say little of a rate.
pub(super) fn bandwidth(segments: &[Segment]) -> (u64, u64) {
    let seconds: f64 = segments.iter().map(|segment| segment.seconds).sum();
    let longest = segments.iter().map(|segment| segment.seconds).fold(0.0, f64::max);
    let average = rate(total(segments), seconds);
    let peak = segments
        .iter()
        .filter(|segment| segment.seconds >= longest / 2.0)
        .map(|segment| rate(segment.bytes, segment.seconds))
        .fold(average, u64::max);
    (peak, average)
}

pub(super) fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| segment.bytes).sum()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate, not a count"
)]
fn rate(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 * 8.0 / seconds.max(0.04)).ceil() as u64
}

/// Profile, constraints and level of the H.264 stream as RFC 6381 writes them: from the `avcC` box, or from the sequence parameter
/// set of a transport stream.
pub(super) fn avc1(directory: &Path, segments: &[Segment], format: SegmentFormat) -> io::Result<Option<String>> {
    let (file, magic): (&str, &[u8]) = match (format, segments.first()) {
        (SegmentFormat::Fmp4, _) => (INIT, b"avcC\x01"),
        (SegmentFormat::MpegTs, Some(first)) => (&first.name, b"\0\0\x01\x67"),
        (SegmentFormat::MpegTs, None) => return Ok(None),
    };
    let mut head = Vec::new();
    File::open(directory.join(file))?
        .take(64 << 10)
        .read_to_end(&mut head)?;
    let mut found = head.windows(magic.len() + 3).filter(|window| window.starts_with(magic));
    Ok(found.next().map(|window| {
        let [.., profile, constraints, level] = *window else {
            return String::new();
        };
        format!("avc1.{profile:02x}{constraints:02x}{level:02x}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_playlist_counts_only_when_it_is_whole_and_lists_what_was_made() {
        let good = "#EXTM3U\n#EXTINF:4.000000,\n00000.m4s\n#EXTINF:1.5,\n00001.m4s\n#EXT-X-ENDLIST\n";
        let read = |text: &str| parse(text, SegmentFormat::Fmp4);
        assert_eq!(
            read(good),
            Some(vec![("00000.m4s".into(), 4.0), ("00001.m4s".into(), 1.5)])
        );
        assert_eq!(read(&good.replace("#EXT-X-ENDLIST\n", "")), None);
        assert_eq!(read(&good.replace("00001.m4s", "../../etc/passwd")), None);
        assert_eq!(read(&good.replace("00001.m4s", "00002.m4s")), None);
        assert_eq!(read(&good.replace("1.5", "NaN")), None);
    }

    #[test]
    fn the_master_begins_with_the_lowest_bandwidth() {
        let of = |name: &str, bandwidth| Rendition {
            name: name.into(),
            resolution: Some((640, 360)),
            frame_rate: Some(29.97),
            codecs: "avc1.64001e,mp4a.40.2".into(),
            bandwidth,
            average_bandwidth: bandwidth,
            duration: 4.0,
            segments: 1,
            bytes: 1,
            copied: false,
            recipe: String::new(),
        };
        let text = master_playlist(&[of("720p", 9), of("360p", 5)]);
        assert_eq!(
            text.lines().skip(3).take(2).collect::<Vec<_>>(),
            [
                "#EXT-X-STREAM-INF:BANDWIDTH=5,AVERAGE-BANDWIDTH=5,CODECS=\"avc1.64001e,mp4a.40.2\",RESOLUTION=640x360,FRAME-RATE=29.970",
                "360p/index.m3u8"
            ]
        );
    }
}
