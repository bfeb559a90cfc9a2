//! What the content is called and what it is told to be.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::engine::Upload;

/// The type that the client named, if browsers play or show it and run nothing in it.
pub(in crate::http) fn media_type(upload: &Upload) -> String {
    let named = ["filetype", "type"].iter().find_map(|key| upload.metadata().get(*key));
    named
        .and_then(|named| safe_media_type(named))
        .unwrap_or_else(|| "application/octet-stream".to_owned())
}

/// `text/html`, `image/svg+xml` and their like run scripts; sound, film and pictures of pixels do not.
pub(in crate::http) fn safe_media_type(named: &str) -> Option<String> {
    let named = named.split(';').next()?.trim().to_ascii_lowercase();
    let (kind, subtype) = named.split_once('/')?;
    let is_token = !subtype.is_empty()
        && subtype.len() <= 64
        && subtype
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.+_".contains(&byte));
    let safe = match kind {
        "video" | "audio" => is_token && !subtype.ends_with("xml"),
        "image" => matches!(subtype, "png" | "jpeg" | "gif" | "webp" | "avif"),
        _ => false,
    };
    safe.then_some(named)
}

/// The type of a file by the extension of its name, in the terms of IANA; HLS in those of RFC 8216 section 4.
pub(in crate::http) fn media_type_by_name(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "mp4" | "m4v" => "video/mp4",
        "m4s" => "video/iso.segment",
        "ts" => "video/mp2t",
        "m3u8" => "application/vnd.apple.mpegurl",
        "webm" => "video/webm",
        "ogv" => "video/ogg",
        "mov" => "video/quicktime",
        "mkv" => "video/x-matroska",
        "avi" => "video/x-msvideo",
        "mpg" | "mpeg" => "video/mpeg",
        "3gp" => "video/3gpp",
        "m4a" => "audio/mp4",
        "mp3" => "audio/mpeg",
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "wav" => "audio/wav",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "vtt" => "text/vtt",
        _ => return None,
    })
}

/// What RFC 8187 section 3.2.1 lets stand in a name as it is.
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// `Content-Disposition` (RFC 6266), `attachment` or `inline`: the name for those who read ASCII alone, and the name itself
/// where it has more.
pub(in crate::http) fn disposition(kind: &str, file_name: &str) -> String {
    let is_plain = |c: char| (c == ' ' || c.is_ascii_graphic()) && !"\"\\%".contains(c);
    let ascii = file_name.replace(|c: char| !is_plain(c), "_");
    if ascii == file_name {
        return format!("{kind}; filename=\"{ascii}\"");
    }
    let whole = utf8_percent_encode(file_name, ATTRIBUTE);
    format!("{kind}; filename=\"{ascii}\"; filename*=UTF-8''{whole}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_nothing_keeps_its_type() {
        for (named, expected) in [
            ("video/mp4", Some("video/mp4")),
            ("Video/MP4; codecs=\"avc1\"", Some("video/mp4")),
            ("audio/x-m4a", Some("audio/x-m4a")),
            ("image/png", Some("image/png")),
            ("image/svg+xml", None),
            ("video/x+xml", None),
            ("text/html", None),
            ("application/pdf", None),
            ("video/", None),
            ("video", None),
            ("video/mp4\r\nx: y", None),
            ("video/a b", None),
            ("", None),
        ] {
            assert_eq!(safe_media_type(named).as_deref(), expected, "{named:?}");
        }
    }

    #[test]
    fn names_are_quoted_and_encoded() {
        for (name, expected) in [
            ("my talk.mp4", "attachment; filename=\"my talk.mp4\""),
            (
                "a\"b\\c.mp4",
                "attachment; filename=\"a_b_c.mp4\"; filename*=UTF-8''a%22b%5Cc.mp4",
            ),
            (
                "100%.mp4",
                "attachment; filename=\"100_.mp4\"; filename*=UTF-8''100%25.mp4",
            ),
            (
                "für €.mp4",
                "attachment; filename=\"f_r _.mp4\"; filename*=UTF-8''f%C3%BCr%20%E2%82%AC.mp4",
            ),
        ] {
            assert_eq!(disposition("attachment", name), expected);
        }
    }
}
