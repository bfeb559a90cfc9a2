//! What a file is, by its first bytes. Only what is in this list is ever given to ffmpeg, with the demuxer named: a playlist
//! or a script that makes ffmpeg open other files is not in it, and is not taken for one by ffmpeg either.

use std::io::{Read, Result, Seek, SeekFrom};

/// A container that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Container {
    /// MP4, QuickTime, 3GP (ISO/IEC 14496-12).
    Mp4,
    /// Matroska and `WebM` (RFC 9559).
    Matroska,
    /// MPEG-2 transport stream (ISO/IEC 13818-1), also with the four-byte prefix of `.m2ts`.
    MpegTs,
    /// MPEG program stream.
    MpegPs,
    Avi,
    /// RFC 3533.
    Ogg,
    Flv,
    Wav,
    Mp3,
    /// AAC in ADTS frames.
    Adts,
    /// RFC 9639.
    Flac,
}

impl Container {
    /// The name of ffmpeg's demuxer.
    pub(super) const fn demuxer(self) -> &'static str {
        match self {
            Self::Mp4 => "mov",
            Self::Matroska => "matroska",
            Self::MpegTs => "mpegts",
            Self::MpegPs => "mpeg",
            Self::Avi => "avi",
            Self::Ogg => "ogg",
            Self::Flv => "flv",
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::Adts => "aac",
            Self::Flac => "flac",
        }
    }
}

/// How much of the beginning is looked at: three packets of a transport stream fit.
const HEAD: usize = 1024;

/// The container of `file`, or `None` if it is not one that is taken.
pub(super) fn sniff(file: &mut (impl Read + Seek)) -> Result<Option<Container>> {
    let head = read_at(file, 0)?;
    // Some encoders put an ID3 tag before AAC or FLAC; its length is in four bytes of seven bits.
    if let [b'I', b'D', b'3', _, _, _, a, b, c, d, ..] = head[..] {
        let length = [a, b, c, d]
            .iter()
            .fold(0, |sum, byte| (sum << 7) | u64::from(byte & 0x7f));
        let behind = read_at(file, 10 + length)?;
        return Ok(Some(match frames(&behind) {
            Some(container) => container,
            None if behind.starts_with(b"fLaC") => Container::Flac,
            // Padding may follow the tag; the demuxer of MP3 looks further.
            None => Container::Mp3,
        }));
    }
    Ok(by_magic(&head).or_else(|| frames(&head)))
}

fn read_at(file: &mut (impl Read + Seek), offset: u64) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn by_magic(head: &[u8]) -> Option<Container> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if at(4, b"ftyp") {
        // Pictures share the container: they are no video.
        let pictures: [&[u8]; 6] = [b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"];
        return (!pictures.iter().any(|brand| at(8, brand))).then_some(Container::Mp4);
    }
    let mp4: [&[u8]; 5] = [b"moov", b"mdat", b"wide", b"free", b"skip"];
    if mp4.iter().any(|kind| at(4, kind)) {
        return Some(Container::Mp4);
    }
    if at(0, b"\x1a\x45\xdf\xa3") {
        return Some(Container::Matroska);
    }
    if at(0, b"RIFF") && at(8, b"AVI ") {
        return Some(Container::Avi);
    }
    if (at(0, b"RIFF") || at(0, b"RF64")) && at(8, b"WAVE") {
        return Some(Container::Wav);
    }
    if at(0, b"OggS") {
        return Some(Container::Ogg);
    }
    if at(0, b"FLV\x01") {
        return Some(Container::Flv);
    }
    if at(0, b"fLaC") {
        return Some(Container::Flac);
    }
    if at(0, b"\x00\x00\x01\xba") {
        return Some(Container::MpegPs);
    }
    let synced = |first: usize, packet: usize| (0..3).all(|n| head.get(first + n * packet) == Some(&0x47));
    (synced(0, 188) || synced(4, 192)).then_some(Container::MpegTs)
}

/// MPEG audio frames begin with eleven (ADTS: twelve) set bits; layer 0 is AAC.
fn frames(head: &[u8]) -> Option<Container> {
    let [0xff, second, third, ..] = *head else { return None };
    if second & 0xf6 == 0xf0 {
        return Some(Container::Adts);
    }
    let layer = (second >> 1) & 3;
    let plausible = second & 0xe0 == 0xe0 && (second >> 3) & 3 != 1 && third >> 4 != 15 && (third >> 2) & 3 != 3;
    (plausible && layer != 0).then_some(Container::Mp3)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn of(bytes: &[u8]) -> Option<Container> {
        sniff(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn containers_are_known_by_their_first_bytes() {
        assert_eq!(of(b"\0\0\0\x20ftypisom"), Some(Container::Mp4));
        assert_eq!(of(b"\0\0\0\x08wide\0\0\0\0mdat"), Some(Container::Mp4));
        assert_eq!(of(b"\x1a\x45\xdf\xa3\x01"), Some(Container::Matroska));
        assert_eq!(of(b"RIFF\0\0\0\0AVI LIST"), Some(Container::Avi));
        assert_eq!(of(b"RIFF\0\0\0\0WAVEfmt "), Some(Container::Wav));
        assert_eq!(of(b"\xff\xf1\x50\x80"), Some(Container::Adts));
        assert_eq!(of(b"\xff\xfb\x90\x00"), Some(Container::Mp3));
        assert_eq!(of(b"ID3\x04\0\0\0\0\0\x04abcdfLaC"), Some(Container::Flac));
        assert_eq!(of(b"ID3\x04\0\0\0\0\0\x04abcd\xff\xf1\x50\x80"), Some(Container::Adts));
        let mut ts = vec![0; 600];
        for packet in 0..3 {
            ts[packet * 188] = 0x47;
        }
        assert_eq!(of(&ts), Some(Container::MpegTs));
        ts[188] = 0;
        assert_eq!(of(&ts), None);
    }

    #[test]
    fn what_makes_ffmpeg_open_other_files_or_is_no_media_is_not_known() {
        for bytes in [
            &b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"[..],
            b"ffconcat version 1.0\nfile /etc/passwd\n",
            b"<?xml version=\"1.0\"?><MPD/>",
            b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
            b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
            b"[Script Info]\n",
            b"RIFF\0\0\0\0WEBPVP8 ",
            b"\0\0\0\x20ftypheic",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe0",
            b"GIF89a",
            b"\x7fELF",
            b"",
            b"\xff",
        ] {
            assert_eq!(of(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
