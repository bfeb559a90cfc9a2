//! See [`crate::http::fuzzing`].

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Request;
use percent_encoding::percent_decode_str;

use super::{
    concat,
    headers::{self, Concat},
};
use crate::http::settings::Settings;

/// What is taken of a header is what stands in it, and can be written down again.
pub fn tus(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(number) = headers::number("Upload-Offset", &text) {
        assert_eq!(text.trim_start_matches('0'), number.to_string().trim_start_matches('0'));
    }
    if let Ok(pairs) = headers::metadata(&text) {
        for (at, (key, value)) in pairs.iter().enumerate() {
            assert!(!key.is_empty() && !key.contains([' ', ',', '\r', '\n']));
            assert!(!value.contains(char::is_control));
            assert!(pairs.iter().skip(at + 1).all(|(other, _)| other != key));
        }
        let written = pairs
            .iter()
            .map(|(key, value)| format!("{key} {}", STANDARD.encode(value)));
        let written = written.collect::<Vec<_>>().join(",");
        assert_eq!(headers::metadata(&written).ok(), Some(pairs));
    }
    if let Ok(digest) = headers::checksum(&text) {
        assert_eq!(digest.as_bytes().len(), digest.algorithm().len());
        let written = format!("{} {}", digest.algorithm(), STANDARD.encode(digest.as_bytes()));
        assert_eq!(headers::checksum(&written).ok(), Some(digest));
    }
    if let Ok(Concat::Final(urls)) = headers::concat(&text) {
        assert!(!urls.is_empty() && urls.iter().all(|url| !url.is_empty() && !url.contains(' ')));
    }
    let (known, defer) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = headers::length(Some(known), None).is_ok();
    let _ = headers::length(None, Some(defer)).is_ok();
    let Ok(request) = Request::builder().uri("/files").body(()) else {
        return;
    };
    if let Ok(id) = concat::partial(&Settings::default(), &request.into_parts().0, "/files", &text) {
        let decoded = percent_decode_str(&text).decode_utf8_lossy();
        assert!(decoded.contains(&id.to_string()), "{text}");
    }
}
