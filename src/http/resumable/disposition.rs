//! The file name of a `Content-Disposition` (RFC 6266, with RFC 8187 for `filename*`).

use percent_encoding::percent_decode_str;

use super::representation::is_token;
use crate::upload::FileName;

/// The name that the field gives, without folders before it. `filename*` comes before `filename`. `None` where there is
/// none, or what there is cannot be a name: it is the sender's wish, nothing more.
pub(super) fn file_name(value: &[u8]) -> Option<FileName> {
    let text = std::str::from_utf8(value).ok()?;
    let (_, mut rest) = text.split_once(';')?;
    let (mut plain, mut extended) = (None, None);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            break;
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = parameter(after.trim_start())?;
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = plain.or(Some(value)),
            "filename*" => extended = extended.or_else(|| decoded(&value)),
            _ => {}
        }
        let after = after.trim_start_matches([' ', '\t']);
        if !(after.is_empty() || after.starts_with(';')) {
            return None;
        }
        rest = after;
    }
    [extended, plain]
        .into_iter()
        .flatten()
        .find_map(|name| FileName::parse(last_segment(&name)).ok())
}

/// A token or a quoted string, and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        return is_token(token).then(|| (token.to_owned(), rest));
    };
    let (mut value, mut chars) = (String::new(), quoted.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            // Browsers send paths and quotes unescaped or escaped in their own ways: only these two are escapes.
            '\\' => match chars.next()? {
                (_, c @ ('"' | '\\')) => value.push(c),
                (_, c) => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

/// RFC 8187: `UTF-8'LANGUAGE'PERCENT-ENCODED`, or ISO-8859-1.
fn decoded(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = percent_decode_str(encoded);
    if charset.eq_ignore_ascii_case("utf-8") {
        Some(bytes.decode_utf8().ok()?.into_owned())
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(bytes.map(char::from).collect())
    } else {
        None
    }
}

fn last_segment(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_in_rfc_6266() {
        for (value, name) in [
            ("inline; filename=\"talk.mp4\"", Some("talk.mp4")),
            ("attachment;FileName=talk.mp4", Some("talk.mp4")),
            ("attachment; filename = \"a b.mp4\" ; size=7", Some("a b.mp4")),
            ("attachment; size=7; filename=a", Some("a")),
            ("inline; filename=\"a\\\"b\\\\c;d.mp4\"", Some("c;d.mp4")),
            (
                "inline; filename=\"b.mp4\"; filename*=UTF-8''%c3%bcber%20b.mp4",
                Some("über b.mp4"),
            ),
            ("inline; filename*=utf-8'de'%C3%BC; filename=b", Some("ü")),
            ("inline; filename*=ISO-8859-1''%fc", Some("ü")),
            ("inline; filename*=UTF-8''%ff; filename=b", Some("b")),
            ("inline; filename*=UTF-16''b; filename=c", Some("c")),
            ("inline; filename*=UTF-8''..%2f; filename=c", Some("c")),
            ("inline; filename=\"ü.mp4\"", Some("ü.mp4")),
            ("inline; filename=\"../../etc/passwd\"", Some("passwd")),
            ("inline; filename=\"C:\\\\dir\\\\a.mp4\"", Some("a.mp4")),
            ("inline; filename=\"C:\\dir\\a.mp4\"", Some("a.mp4")),
            ("inline; filename*=UTF-8''..%2F..%2Fx", Some("x")),
            ("inline; filename=\"..\"", None),
            ("inline; filename=\"a/\"", None),
            ("inline; filename=\"\"", None),
            ("inline; filename*=UTF-8''a%00b", None),
            ("inline; filename*=UTF-8''a%0d%0ab", None),
            ("inline; filename*=UTF-8''%e2%80%aegpm.exe", None),
            ("inline; filename=\"unended", None),
            ("inline; filename=a b", None),
            ("inline; filename", None),
            ("inline", None),
            ("", None),
        ] {
            let found = file_name(value.as_bytes());
            assert_eq!(found.as_ref().map(FileName::as_str), name, "{value}");
        }
        assert_eq!(
            file_name(format!("inline; filename={}", "a".repeat(256)).as_bytes()),
            None
        );
        assert_eq!(file_name(b"inline; filename=\"\xfc\""), None);
    }
}
