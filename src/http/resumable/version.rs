//! What differs between the drafts of the protocol: one row for each `Upload-Draft-Interop-Version`.

use http::{HeaderMap, StatusCode};

use crate::http::structured::field_integer;

/// How one draft wants it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// `Upload-Draft-Interop-Version`; none in the final form, which has no such field.
    pub(super) interop: Option<u64>,
    /// -01: the field is `Upload-Incomplete`, with the inverse sense. Since -02 it is `Upload-Complete`.
    pub(super) is_inverted: bool,
    /// Since -03 there are interim answers with the progress.
    pub(super) has_progress: bool,
    /// Since -04 the body of an append is `application/partial-upload`.
    pub(super) has_media_type: bool,
    /// The member of `Upload-Limit` that tells the time left, in seconds. The field is there since -04, with `expires`; since
    /// -06 it is `max-age`.
    pub(super) lifetime: Option<&'static str>,
    /// Up to -05 an append that does not say whether it is the last one is; since -06 it must say.
    pub(super) must_say_complete: bool,
    /// The answer to an append that is not the last: 201 up to -05, since -06 any success, so 204.
    pub(super) appended: StatusCode,
    /// -04 to -11 have a problem type for an append to a completed upload.
    pub(super) has_completed_problem: bool,
    /// Since -12 an append that is valid but comes after the completion is given the final answer once more; before, it is
    /// refused with 400.
    pub(super) replays: bool,
    /// Since -12 GET asks for the offset as HEAD does.
    pub(super) has_get: bool,
}

/// The final form, as -13 to -15 have it.
const FINAL: Rules = Rules {
    interop: None,
    is_inverted: false,
    has_progress: true,
    has_media_type: true,
    lifetime: Some("max-age"),
    must_say_complete: true,
    appended: StatusCode::NO_CONTENT,
    has_completed_problem: false,
    replays: true,
    has_get: true,
};

/// -13.
const V10: Rules = Rules {
    interop: Some(10),
    ..FINAL
};

/// -12.
const V9: Rules = Rules {
    interop: Some(9),
    ..V10
};

/// -09 to -11.
const V8: Rules = Rules {
    interop: Some(8),
    has_completed_problem: true,
    replays: false,
    has_get: false,
    ..V9
};

/// -06 to -08.
const V7: Rules = Rules { interop: Some(7), ..V8 };

/// -04 and -05.
const V6: Rules = Rules {
    interop: Some(6),
    lifetime: Some("expires"),
    must_say_complete: false,
    appended: StatusCode::CREATED,
    ..V7
};

/// -03.
const V5: Rules = Rules {
    interop: Some(5),
    has_media_type: false,
    lifetime: None,
    has_completed_problem: false,
    ..V6
};

/// -02.
const V4: Rules = Rules {
    interop: Some(4),
    has_progress: false,
    ..V5
};

/// -01.
const V3: Rules = Rules {
    interop: Some(3),
    is_inverted: true,
    ..V4
};

static KNOWN: [Rules; 8] = [V10, V9, V8, V7, V6, V5, V4, V3];
static UNVERSIONED: Rules = FINAL;

pub(super) const FIELD: &str = "upload-draft-interop-version";

impl Rules {
    /// Those a request names; those of the final form for a version that is not known.
    pub(super) fn of(headers: &HeaderMap) -> &'static Self {
        field_integer(headers, FIELD).map_or(&UNVERSIONED, Self::named)
    }

    fn named(version: u64) -> &'static Self {
        let mut known = KNOWN.iter();
        known
            .find(|rules| rules.interop == Some(version))
            .unwrap_or(&UNVERSIONED)
    }

    /// The field that tells whether an upload is complete.
    pub(super) const fn complete_field(&self) -> &'static str {
        if self.is_inverted {
            "upload-incomplete"
        } else {
            "upload-complete"
        }
    }

    /// What that field is called in other drafts, where it has the inverse sense.
    pub(super) const fn other_complete_field(&self) -> &'static str {
        if self.is_inverted {
            "upload-complete"
        } else {
            "upload-incomplete"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_row() {
        for version in 3..=10 {
            assert_eq!(Rules::named(version).interop, Some(version));
        }
        for version in [0, 2, 11, 999_999_999_999_999] {
            assert_eq!(*Rules::named(version), FINAL, "{version}");
        }
    }
}
