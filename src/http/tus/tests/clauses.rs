//! One row for each clause of the protocol.

use super::*;
use crate::http::tests::{NOBODY, STRANGER};

/// What is there before a row asks; `{id}` is its id.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Given {
    Nothing,
    /// 10 bytes announced, `0123` stored, metadata sent.
    Begun,
    /// `0123` stored, nobody knows of how many.
    Deferred,
    /// `0123456789`, finished.
    Finished,
    /// A partial upload of 10 bytes with `0123` stored.
    Partial,
    /// Deleted by its client when it was [`Begun`](Given::Begun).
    Deleted,
    /// Of the chunk API, chunk 0 of 3 stored: 4 of 10 bytes.
    Chunked,
}

/// What is there afterwards.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// The same as before.
    Same,
    /// The offset of the upload is this.
    At(u64),
    /// One upload more.
    New,
    /// The upload is gone.
    Gone,
}
use Given::*;
use Then::*;

/// What it says, what is there, METHOD PATH, headers, body (`~`: chunked), status, what the answer has (`name: value`,
/// `name: *` for any value, `!name` for none, `~text` in its body), what is there afterwards.
type Row<'a> = (
    &'a str,
    Given,
    &'a str,
    &'a [(&'a str, &'a str)],
    &'a str,
    u16,
    &'a [&'a str],
    Then,
);

const METADATA: &str = "filename dGFsay5tcDQ=,filetype dmlkZW8vbXA0,is_private";

async fn given(wire: &Wire, given: Given) -> String {
    let metadata = ("upload-metadata", METADATA);
    match given {
        Nothing => UNKNOWN.to_owned(),
        Begun => wire.created(&[("upload-length", "10"), metadata], "0123").await,
        Deferred => wire.created(&[("upload-defer-length", "1")], "0123").await,
        Finished => wire.created(&[("upload-length", "10"), metadata], "0123456789").await,
        Partial => {
            wire.created(&[("upload-length", "10"), ("upload-concat", "partial")], "0123")
                .await
        }
        Deleted => {
            let id = wire.created(&[("upload-length", "10")], "0123").await;
            assert_eq!(
                wire.tus(&format!("DELETE /files/{id}"), &[], whole("")).await.status,
                204
            );
            id
        }
        Chunked => wire.begun().await,
    }
}

async fn rows(tus: Tus, rows: &[Row<'_>]) {
    for (says, before, ask, headers, sent, status, expected, then) in rows {
        let wire = serve(engine().await, tus.clone());
        let id = given(&wire, *before).await;
        let there = wire.all().await;
        let reply = wire.tus(&ask.replace("{id}", &id), headers, body(sent)).await;
        let about = format!("{says}\n{ask} {headers:?} {sent}\n{reply:?}");
        assert_eq!(reply.status, *status, "{about}");
        for expected in *expected {
            let holds = if let Some(name) = expected.strip_prefix('!') {
                !reply.headers.contains_key(name)
            } else if let Some(text) = expected.strip_prefix('~') {
                reply.text.contains(text)
            } else {
                let (name, value) = expected.split_once(": ").unwrap();
                reply.headers.contains_key(name) && (value == "*" || reply.header(name) == value.replace("{id}", &id))
            };
            assert!(holds, "{expected} does not hold: {about}");
        }
        let now = wire.all().await;
        match then {
            Same => assert_eq!(now, there, "{about}"),
            New => assert_eq!(now.len(), there.len() + 1, "{about}"),
            At(offset) => assert_eq!((now[0].2, now.len()), (*offset, there.len()), "{about}"),
            Gone => assert!(matches!(now[0].1, State::Aborted | State::Deleted), "{about}"),
        }
    }
}

const LENGTH: (&str, &str) = ("upload-length", "10");
const FOUR: (&str, &str) = ("upload-offset", "4");

#[tokio::test]
#[rustfmt::skip]
async fn versions() {
    const OLD: (&str, &str) = ("tus-resumable", "0.2.2");
    const WHICH: &[&str] = &["tus-version: 1.0.0", "~1.0.0"];
    rows(Tus::new(), &[
        ("an unsupported version creates nothing", Nothing, "POST /files", &[OLD, LENGTH], "", 412, WHICH, Same),
        ("an unsupported version stores nothing", Begun, "PATCH /files/{id}", &[OLD, BYTES, FOUR], "4567", 412, WHICH, Same),
        ("an unsupported version deletes nothing", Begun, "DELETE /files/{id}", &[OLD], "", 412, WHICH, Same),
        ("an unsupported version is told nothing", Begun, "HEAD /files/{id}", &[OLD], "", 412, &["tus-version: 1.0.0", "!upload-offset"], Same),
        ("no version creates nothing", Nothing, "POST /files", &[NO_VERSION, LENGTH], "", 412, WHICH, Same),
        ("no version stores nothing", Begun, "PATCH /files/{id}", &[NO_VERSION, BYTES, FOUR], "4567", 412, WHICH, Same),
        ("no version deletes nothing", Begun, "DELETE /files/{id}", &[NO_VERSION], "", 412, WHICH, Same),
        ("no version is told nothing", Begun, "HEAD /files/{id}", &[NO_VERSION], "", 412, &["tus-version: 1.0.0", "!upload-offset"], Same),
        ("two versions are none", Begun, "PATCH /files/{id}", &[("tus-resumable", "1.0.0"), ("tus-resumable", "1.0.0"), BYTES, FOUR], "4567", 412, WHICH, Same),
        ("the version is asked for before who asks", Begun, "PATCH /files/{id}", &[OLD, NOBODY, BYTES, FOUR], "4567", 412, WHICH, Same),
        ("a download names no version", Finished, "GET /files/{id}", &[NO_VERSION], "", 200, &["~0123456789"], Same),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn options() {
    let all = "tus-extension: creation,creation-with-upload,creation-defer-length,expiration,checksum,checksum-trailer,termination,concatenation";
    rows(Tus::new(), &[
        ("OPTIONS is 200 and tells the versions", Nothing, "OPTIONS /files", &[NO_VERSION], "", 200, &["tus-version: 1.0.0"], Same),
        ("OPTIONS tells the extensions", Nothing, "OPTIONS /files", &[NO_VERSION], "", 200, &[all], Same),
        ("OPTIONS tells the largest file", Nothing, "OPTIONS /files", &[NO_VERSION], "", 200, &["tus-max-size: 1099511627776"], Same),
        ("OPTIONS tells the algorithms, sha1 among them", Nothing, "OPTIONS /files", &[NO_VERSION], "", 200, &["tus-checksum-algorithm: sha1,sha256,sha512,md5,crc32,crc32c,blake3"], Same),
        ("OPTIONS ignores the client's version", Nothing, "OPTIONS /files", &[("tus-resumable", "0.2.2")], "", 200, &["tus-version: 1.0.0"], Same),
        ("OPTIONS is answered at an upload too", Begun, "OPTIONS /files/{id}", &[NO_VERSION], "", 200, &["tus-version: 1.0.0"], Same),
        ("OPTIONS needs nobody to sign in", Nothing, "OPTIONS /files", &[NOBODY], "", 200, &[all], Same),
    ])
    .await;
    let unfinished = format!("{all},concatenation-unfinished");
    rows(Tus::new().unfinished_concatenation(), &[
        ("concatenation of unfinished uploads is told where it is on", Nothing, "OPTIONS /files", &[], "", 200, &[&unfinished], Same),
    ])
    .await;
}

#[tokio::test]
async fn the_extensions_are_those_of_the_engine() {
    let stores = Uploads::with(crate::blob::MemoryBlobs::new(), crate::metadata::MemoryMetadata::new());
    let uploads = stores
        .allow_anonymous()
        .never_expire()
        .max_size(1234)
        .build()
        .await
        .unwrap();
    let wire = serve(uploads, Tus::new());
    let reply = wire.tus("OPTIONS /files", &[], whole("")).await;
    assert!(!reply.header("tus-extension").contains("expiration"), "{reply:?}");
    assert_eq!(reply.header("tus-max-size"), "1234");
    let id = wire.created(&[LENGTH], "").await;
    assert!(!wire.head(&id).await.headers.contains_key("upload-expires"));
}

#[tokio::test]
#[rustfmt::skip]
async fn head() {
    rows(Tus::new(), &[
        ("HEAD is 200 with the offset and the length", Begun, "HEAD /files/{id}", &[], "", 200, &["upload-offset: 4", "upload-length: 10", "!upload-defer-length"], Same),
        ("HEAD has the offset of a finished upload", Finished, "HEAD /files/{id}", &[], "", 200, &["upload-offset: 10", "upload-length: 10", "!upload-expires"], Same),
        ("HEAD is never stored", Begun, "HEAD /files/{id}", &[], "", 200, &["cache-control: no-store"], Same),
        ("HEAD of an unknown upload is 404 without an offset", Nothing, "HEAD /files/{id}", &[], "", 404, &["!upload-offset"], Same),
        ("HEAD of what is no id is 404", Nothing, "HEAD /files/x", &[], "", 404, &["!upload-offset"], Same),
        ("HEAD of a deleted upload is 410 without an offset", Deleted, "HEAD /files/{id}", &[], "", 410, &["!upload-offset"], Same),
        ("HEAD echoes the metadata as they came", Begun, "HEAD /files/{id}", &[], "", 200, &[&format!("upload-metadata: {METADATA}")], Same),
        ("HEAD has no metadata where none came", Deferred, "HEAD /files/{id}", &[], "", 200, &["!upload-metadata", "!upload-concat"], Same),
        ("HEAD says that the length is not known yet", Deferred, "HEAD /files/{id}", &[], "", 200, &["upload-defer-length: 1", "!upload-length", "upload-offset: 4"], Same),
        ("HEAD echoes that an upload is partial", Partial, "HEAD /files/{id}", &[], "", 200, &["upload-concat: partial", "upload-offset: 4", "upload-length: 10"], Same),
        ("HEAD tells when the upload expires", Begun, "HEAD /files/{id}", &[], "", 200, &["upload-expires: *"], Same),
        ("HEAD has no body", Begun, "HEAD /files/{id}", &[], "", 200, &["content-length: 0"], Same),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn patch() {
    const PATCH: &str = "PATCH /files/{id}";
    let offset = |value: &'static str| [BYTES, ("upload-offset", value)];
    rows(Tus::new(), &[
        ("PATCH writes at the offset: 204 with the new one", Begun, PATCH, &[BYTES, FOUR], "4567", 204, &["upload-offset: 8", "upload-expires: *", "!content-type"], At(8)),
        ("PATCH of which nobody said how long it is", Begun, PATCH, &[BYTES, FOUR], "~4567", 204, &["upload-offset: 8"], At(8)),
        ("PATCH with the last byte finishes", Begun, PATCH, &[BYTES, FOUR], "456789", 204, &["upload-offset: 10", "!upload-expires"], At(10)),
        ("another type is 415", Begun, PATCH, &[("content-type", "application/octet-stream"), FOUR], "4567", 415, &["~application/offset+octet-stream"], Same),
        ("no type is 415", Begun, PATCH, &[FOUR], "4567", 415, &[], Same),
        ("parameters and case of the type do not count", Begun, PATCH, &[("content-type", "Application/Offset+Octet-Stream;x=y"), FOUR], "45", 204, &["upload-offset: 6"], At(6)),
        ("a lower offset is 409 with the true one", Begun, PATCH, &offset("0"), "0123", 409, &["upload-offset: 4", "upload-expires: *"], Same),
        ("a higher offset is 409 with the true one", Begun, PATCH, &offset("5"), "5678", 409, &["upload-offset: 4"], Same),
        ("the highest offset is 409", Begun, PATCH, &offset("18446744073709551615"), "5", 409, &["upload-offset: 4"], Same),
        ("no offset is 400", Begun, PATCH, &[BYTES], "4567", 400, &["~Upload-Offset"], Same),
        ("a negative offset is 400", Begun, PATCH, &offset("-1"), "4567", 400, &[], Same),
        ("a signed offset is 400", Begun, PATCH, &offset("+4"), "4567", 400, &[], Same),
        ("a fraction of an offset is 400", Begun, PATCH, &offset("4.0"), "4567", 400, &[], Same),
        ("an offset in hex is 400", Begun, PATCH, &offset("0x4"), "4567", 400, &[], Same),
        ("an offset that overflows is 400", Begun, PATCH, &offset("18446744073709551616"), "4567", 400, &[], Same),
        ("leading zeros change no number", Begun, PATCH, &offset("004"), "4567", 204, &["upload-offset: 8"], At(8)),
        ("two offsets are 400", Begun, PATCH, &[BYTES, FOUR, FOUR], "4567", 400, &[], Same),
        ("PATCH of an unknown upload is 404", Nothing, PATCH, &[BYTES, FOUR], "4567", 404, &["!upload-offset"], Same),
        ("PATCH of a deleted upload is 410", Deleted, PATCH, &[BYTES, FOUR], "4567", 410, &["!upload-offset"], Same),
        ("a body past the length is 413 before it is read", Begun, PATCH, &[BYTES, FOUR], "4567890", 413, &["upload-offset: 4"], Same),
        ("a chunked body past the length is 413, what is legal of it counts", Begun, PATCH, &[BYTES, FOUR], "~4567890", 413, &["upload-offset: 10"], At(10)),
        ("nothing at the end of a finished upload is 204", Finished, PATCH, &offset("10"), "", 204, &["upload-offset: 10"], Same),
        ("nothing, chunked, at the end of a finished upload is 204", Finished, PATCH, &offset("10"), "~", 204, &["upload-offset: 10"], Same),
        ("a finished upload does not grow", Finished, PATCH, &offset("10"), "x", 413, &["upload-offset: 10"], Same),
        ("a finished upload does not grow by a chunked body either", Finished, PATCH, &offset("10"), "~x", 413, &["upload-offset: 10"], Same),
        ("a finished upload is not written over", Finished, PATCH, &offset("4"), "xxxx", 409, &["upload-offset: 10"], Same),
        ("nothing, at the right offset, is 204", Begun, PATCH, &[BYTES, FOUR], "", 204, &["upload-offset: 4"], At(4)),
        ("nothing, at a wrong offset, is 409", Begun, PATCH, &offset("3"), "", 409, &["upload-offset: 4"], Same),
        ("a coding is refused, never undone", Begun, PATCH, &[BYTES, FOUR, ("content-encoding", "gzip")], "4567", 415, &[], Same),
        ("an announced length that is none is 400", Begun, PATCH, &[BYTES, FOUR, ("content-length", "+4")], "4567", 400, &[], Same),
        ("two announced lengths are 400", Begun, PATCH, &[BYTES, FOUR, ("content-length", "4"), ("content-length", "4")], "4567", 400, &[], Same),
        ("a body shorter than announced counts as far as it came", Begun, PATCH, &[BYTES, FOUR, ("content-length", "6")], "4567", 400, &["upload-offset: 8"], At(8)),
        ("a length that is known may be said again", Begun, PATCH, &[BYTES, FOUR, LENGTH], "4567", 204, &["upload-offset: 8"], At(8)),
        ("a length that is known changes no more", Begun, PATCH, &[BYTES, FOUR, ("upload-length", "11")], "4567", 400, &["upload-offset: 4"], Same),
        ("a length that is no number is 400", Begun, PATCH, &[BYTES, FOUR, ("upload-length", "-1")], "4567", 400, &[], Same),
        ("a partial upload takes bytes as any", Partial, PATCH, &[BYTES, FOUR], "456789", 204, &["upload-offset: 10", "upload-expires: *"], At(10)),
        ("a partial upload does not grow past its end", Partial, PATCH, &[BYTES, FOUR], "456789x", 413, &["upload-offset: 4"], Same),
        ("a path beneath an upload names nothing", Begun, "PATCH /files/{id}/x", &[BYTES, FOUR], "4567", 404, &[], Same),
        ("an upload takes no POST", Begun, "POST /files/{id}", &[BYTES, FOUR], "4567", 405, &["allow: GET, HEAD, PATCH, DELETE, OPTIONS"], Same),
        ("an upload takes no PUT", Begun, "PUT /files/{id}", &[BYTES, FOUR], "4567", 405, &["allow: *"], Same),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn creation() {
    const POST: &str = "POST /files";
    let length = |value: &'static str| [("upload-length", value)];
    let metadata = |value: &'static str| [LENGTH, ("upload-metadata", value)];
    let long = format!("a {}", "YWFh".repeat(6000));
    rows(Tus::new(), &[
        ("a creation is 201 with its place", Nothing, POST, &[LENGTH], "", 201, &["location: *", "!upload-offset"], New),
        ("the slash at the end does not count", Nothing, "POST /files/", &[LENGTH], "", 201, &["location: *"], New),
        ("a creation tells when the upload expires", Nothing, POST, &[LENGTH], "", 201, &["upload-expires: *"], New),
        ("neither length is 400", Nothing, POST, &[], "", 400, &["~Upload-Defer-Length"], Same),
        ("both lengths are 400", Nothing, POST, &[LENGTH, ("upload-defer-length", "1")], "", 400, &[], Same),
        ("a deferred length is 1", Nothing, POST, &[("upload-defer-length", "1")], "", 201, &["location: *"], New),
        ("a deferred length is nothing but 1", Nothing, POST, &[("upload-defer-length", "0")], "", 400, &[], Same),
        ("a deferred length is no other number", Nothing, POST, &[("upload-defer-length", "2")], "", 400, &[], Same),
        ("a negative length is 400", Nothing, POST, &length("-1"), "", 400, &[], Same),
        ("a length with a sign is 400", Nothing, POST, &length("+10"), "", 400, &[], Same),
        ("a length in words is 400", Nothing, POST, &length("ten"), "", 400, &[], Same),
        ("a length that overflows is 400", Nothing, POST, &length("18446744073709551616"), "", 400, &[], Same),
        ("a length over the maximum is 413", Nothing, POST, &length("1099511627777"), "", 413, &["~1099511627776"], Same),
        ("the greatest length is 413", Nothing, POST, &length("18446744073709551615"), "", 413, &[], Same),
        ("an empty file is finished at once", Nothing, POST, &length("0"), "", 201, &["location: *", "!upload-expires"], New),
        ("metadata are pairs in Base64", Nothing, POST, &metadata("filename YS5tcDQ=,other"), "", 201, &[], New),
        ("metadata that are no Base64 are 400", Nothing, POST, &metadata("filename !"), "", 400, &["~filename"], Same),
        ("a key twice is 400", Nothing, POST, &metadata("a YQ==,a YQ=="), "", 400, &["~more than once"], Same),
        ("a key that is empty is 400", Nothing, POST, &metadata("a YQ==,,b Yg=="), "", 400, &[], Same),
        ("metadata that would break out of a header are 400", Nothing, POST, &metadata("a DQpTZXQtQ29va2llOiB4"), "", 400, &["~control"], Same),
        ("metadata that are no text are 400", Nothing, POST, &metadata("a gIGC"), "", 400, &["~UTF-8"], Same),
        ("a file name that climbs is 400", Nothing, POST, &metadata("filename Li4vLi4vZXRjL3Bhc3N3ZA=="), "", 400, &["~separator"], Same),
        ("a file name of dots is 400", Nothing, POST, &metadata("name Li4="), "", 400, &[], Same),
        ("a file without a name gets one", Nothing, POST, &metadata("filename"), "", 201, &[], New),
        ("too many metadata are 400", Nothing, POST, &[LENGTH, ("upload-metadata", &long)], "", 400, &["~16384"], Same),
        ("a creation takes no other method", Nothing, "PATCH /files", &[BYTES, FOUR], "", 405, &["allow: POST, OPTIONS"], Same),
        ("a coding is refused, never undone", Nothing, POST, &[LENGTH, BYTES, ("content-encoding", "gzip")], "0123", 415, &[], Same),
        ("one must sign in to create", Nothing, POST, &[LENGTH, NOBODY], "", 401, &["www-authenticate: Bearer", "!location"], Same),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn creation_with_upload() {
    const POST: &str = "POST /files";
    rows(Tus::new(), &[
        ("bytes may come with the creation", Nothing, POST, &[LENGTH, BYTES], "0123", 201, &["location: *", "upload-offset: 4", "upload-expires: *"], New),
        ("all of them, too", Nothing, POST, &[LENGTH, BYTES], "0123456789", 201, &["upload-offset: 10", "!upload-expires"], New),
        ("of which nobody said how many they are", Nothing, POST, &[LENGTH, BYTES], "~0123", 201, &["upload-offset: 4"], New),
        ("or none", Nothing, POST, &[LENGTH, BYTES], "", 201, &["upload-offset: 0"], New),
        ("of a file whose length is not known", Nothing, POST, &[("upload-defer-length", "1"), BYTES], "0123", 201, &["upload-offset: 4"], New),
        ("bytes of another type are 415", Nothing, POST, &[LENGTH, ("content-type", "text/plain")], "0123", 415, &[], Same),
        ("bytes without a type are 415", Nothing, POST, &[LENGTH], "0123", 415, &[], Same),
        ("bytes without a type are 415, chunked as well", Nothing, POST, &[LENGTH], "~0123", 415, &[], Same),
        ("no bytes need no type", Nothing, POST, &[LENGTH], "~", 201, &["!upload-offset"], New),
        ("more than the length is 413", Nothing, POST, &[LENGTH, BYTES], "0123456789x", 413, &["!location"], Same),
        ("a checksum counts", Nothing, POST, &[LENGTH, BYTES, ("upload-checksum", "crc32c ksgKMQ==")], "abcd", 201, &["upload-offset: 4"], New),
        ("an unknown algorithm is 400", Nothing, POST, &[LENGTH, BYTES, ("upload-checksum", "crc33 AAAAAA==")], "abcd", 400, &[], Same),
    ])
    .await;
    // What was created for bytes that are refused is deleted: nobody knows where it is.
    rows(Tus::new(), &[
        ("more than the length is 413, chunked as well", Nothing, POST, &[LENGTH, BYTES], "~0123456789x", 413, &["!location", "!upload-offset"], New),
        ("another checksum is 460", Nothing, POST, &[LENGTH, BYTES, ("upload-checksum", "crc32c AAAAAA==")], "abcd", 460, &["!location"], New),
    ])
    .await;
    for (headers, sent) in [
        (vec![LENGTH, BYTES], "~0123456789x"),
        (vec![LENGTH, BYTES, ("upload-checksum", "crc32c AAAAAA==")], "abcd"),
    ] {
        let wire = wire().await;
        wire.tus(POST, &headers, body(sent)).await;
        let all = wire.all().await;
        assert!(all.iter().all(|upload| matches!(upload.1, State::Aborted | State::Deleted)), "{all:?}");
    }
}

#[tokio::test]
#[rustfmt::skip]
async fn deferred_lengths() {
    const PATCH: &str = "PATCH /files/{id}";
    let length = |value: &'static str| [BYTES, FOUR, ("upload-length", value)];
    rows(Tus::new(), &[
        ("bytes may come before the length", Deferred, PATCH, &[BYTES, FOUR], "4567", 204, &["upload-offset: 8", "upload-expires: *"], At(8)),
        ("the length may come with bytes", Deferred, PATCH, &length("10"), "4567", 204, &["upload-offset: 8"], At(8)),
        ("the length may come with the last bytes", Deferred, PATCH, &length("10"), "456789", 204, &["upload-offset: 10", "!upload-expires"], At(10)),
        ("the length may come alone", Deferred, PATCH, &length("10"), "", 204, &["upload-offset: 4"], At(4)),
        ("the length that is reached finishes", Deferred, PATCH, &length("4"), "", 204, &["upload-offset: 4", "!upload-expires"], At(4)),
        ("the length that is reached finishes, chunked as well", Deferred, PATCH, &length("4"), "~", 204, &["upload-offset: 4"], At(4)),
        ("a length that is passed already is 400", Deferred, PATCH, &length("3"), "", 400, &["upload-offset: 4"], Same),
        ("a length over the maximum is 413", Deferred, PATCH, &length("1099511627777"), "", 413, &["upload-offset: 4"], Same),
        ("bytes past the length that comes with them are 413", Deferred, PATCH, &length("6"), "4567", 413, &["upload-offset: 4"], Same),
        ("bytes past the length that is reached are 413", Deferred, PATCH, &length("4"), "~4", 413, &["upload-offset: 4"], Same),
        ("a length at a wrong offset is not taken", Deferred, PATCH, &[BYTES, ("upload-offset", "5"), LENGTH], "5", 409, &["upload-offset: 4"], Same),
        ("a length with a checksum that is unknown is not taken", Deferred, PATCH, &[BYTES, FOUR, LENGTH, ("upload-checksum", "x AA==")], "4", 400, &[], Same),
        ("a length that is reached, with a checksum that is wrong, is not taken", Deferred, PATCH, &[BYTES, FOUR, ("upload-length", "4"), ("upload-checksum", "crc32 AAAAAQ==")], "", 460, &["upload-offset: 4"], Same),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn checksums() {
    const PATCH: &str = "PATCH /files/{id}";
    let with = |value: &'static str| [BYTES, FOUR, ("upload-checksum", value)];
    // Of "4567".
    rows(Tus::new(), &[
        ("sha1 that is right is 204", Begun, PATCH, &with("sha1 g3h/BgpZSTrv3NSyNpmQ5zA+GG4="), "4567", 204, &["upload-offset: 8"], At(8)),
        ("sha256 that is right is 204", Begun, PATCH, &with("sha256 2y5/G9WrmWiudhmbfMdHlcp0BNWgjXhWdxXOUy+dJmk="), "4567", 204, &["upload-offset: 8"], At(8)),
        ("md5 that is right is 204, chunked as well", Begun, PATCH, &with("md5 ZWLFwfM9tuBaCCqIzdq16g=="), "~4567", 204, &["upload-offset: 8"], At(8)),
        ("sha1 that is wrong is 460 and nothing counts", Begun, PATCH, &with("sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA="), "4567", 460, &["upload-offset: 4", "~checksum"], Same),
        ("crc32 that is wrong is 460 and nothing counts, chunked as well", Begun, PATCH, &with("crc32 AAAAAA=="), "~4567", 460, &["upload-offset: 4"], Same),
        ("a wrong checksum of the last bytes finishes nothing", Begun, PATCH, &with("crc32 AAAAAA=="), "456789", 460, &["upload-offset: 4", "upload-expires: *"], Same),
        ("an unknown algorithm is 400", Begun, PATCH, &with("sha3 AAAA"), "4567", 400, &["~sha1"], Same),
        ("an algorithm in capitals is unknown", Begun, PATCH, &with("SHA1 g3h/BgpZSTrv3NSyNpmQ5zA+GG4="), "4567", 400, &[], Same),
        ("a checksum without an algorithm is 400", Begun, PATCH, &with("AAAA"), "4567", 400, &[], Same),
        ("a checksum that is no Base64 is 400", Begun, PATCH, &with("sha1 ????"), "4567", 400, &[], Same),
        ("a checksum of another length is 400", Begun, PATCH, &with("sha1 AAAA"), "4567", 400, &[], Same),
        ("two checksums are 400", Begun, PATCH, &[BYTES, FOUR, ("upload-checksum", "crc32 AAAAAA=="), ("upload-checksum", "crc32 AAAAAA==")], "4567", 400, &[], Same),
        ("with a checksum a body past the length stores nothing", Begun, PATCH, &with("crc32 AAAAAA=="), "~4567890", 413, &["upload-offset: 4"], Same),
        ("with a checksum a body that is cut stores nothing", Begun, PATCH, &[BYTES, FOUR, ("content-length", "6"), ("upload-checksum", "crc32 AAAAAA==")], "4567", 400, &["upload-offset: 4"], Same),
    ])
    .await;
}

#[tokio::test]
async fn checksums_as_trailers() {
    const RIGHT: (&str, &str) = ("upload-checksum", "sha1 g3h/BgpZSTrv3NSyNpmQ5zA+GG4=");
    const ANNOUNCED: (&str, &str) = ("trailer", "Upload-Checksum");
    for (says, headers, trailers, status, offset) in [
        ("one that is right counts", &[ANNOUNCED][..], &[RIGHT][..], 204, "8"),
        (
            "of any algorithm",
            &[ANNOUNCED],
            &[("upload-checksum", "md5 ZWLFwfM9tuBaCCqIzdq16g==")],
            204,
            "8",
        ),
        (
            "announced among others",
            &[("trailer", "x-a, upload-checksum")],
            &[("x-a", "b"), RIGHT],
            204,
            "8",
        ),
        (
            "one that is wrong is 460",
            &[ANNOUNCED],
            &[("upload-checksum", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
            460,
            "4",
        ),
        (
            "one of an unknown algorithm is 400",
            &[ANNOUNCED],
            &[("upload-checksum", "sha3 AAAA")],
            400,
            "4",
        ),
        (
            "one that is malformed is 400",
            &[ANNOUNCED],
            &[("upload-checksum", "sha1")],
            400,
            "4",
        ),
        (
            "one that is announced must come",
            &[ANNOUNCED],
            &[("x-a", "b")],
            400,
            "4",
        ),
        ("or else trailers do not matter", &[], &[("x-a", "b")], 204, "8"),
        (
            "a header goes before it",
            &[ANNOUNCED, RIGHT],
            &[("upload-checksum", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
            204,
            "8",
        ),
        // It comes too late to be compared, and is not passed over in silence.
        ("one that was not announced is 400", &[], &[RIGHT], 400, "8"),
    ] {
        let wire = wire().await;
        let id = given(&wire, Begun).await;
        let headers = [&[BYTES, FOUR], headers].concat();
        let reply = wire
            .tus(&format!("PATCH /files/{id}"), &headers, trailed("4567", trailers))
            .await;
        assert_eq!(
            (reply.status, reply.header("upload-offset")),
            (status, offset),
            "{says} {reply:?}"
        );
        assert_eq!(wire.head(&id).await.header("upload-offset"), offset, "{says}");
    }
    // And on a creation.
    for (trailer, status) in [(RIGHT, 201), (("upload-checksum", "crc32 AAAAAA=="), 460)] {
        let wire = wire().await;
        let reply = wire
            .tus("POST /files", &[LENGTH, BYTES, ANNOUNCED], trailed("4567", &[trailer]))
            .await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
}

#[tokio::test]
#[rustfmt::skip]
async fn termination() {
    rows(Tus::new(), &[
        ("DELETE of an unfinished upload is 204", Begun, "DELETE /files/{id}", &[], "", 204, &["!upload-offset"], Gone),
        ("DELETE of a finished upload is 204", Finished, "DELETE /files/{id}", &[], "", 204, &[], Gone),
        ("DELETE of a partial upload is 204", Partial, "DELETE /files/{id}", &[], "", 204, &[], Gone),
        ("DELETE of a deleted upload is 410", Deleted, "DELETE /files/{id}", &[], "", 410, &[], Same),
        ("DELETE of an unknown upload is 404", Nothing, "DELETE /files/{id}", &[], "", 404, &[], Same),
        ("DELETE of all uploads is none", Nothing, "DELETE /files", &[], "", 405, &[], Same),
        ("a deleted upload has no content", Deleted, "GET /files/{id}", &[NO_VERSION], "", 404, &[], Same),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip]
async fn method_override() {
    let to = |method: &'static str| ("x-http-method-override", method);
    rows(Tus::new().method_override(), &[
        ("a POST may be a PATCH", Begun, "POST /files/{id}", &[to("PATCH"), BYTES, FOUR], "4567", 204, &["upload-offset: 8"], At(8)),
        ("a POST may be a DELETE", Begun, "POST /files/{id}", &[to("DELETE")], "", 204, &[], Gone),
        ("a POST may be a HEAD, and has no body then", Begun, "POST /files/{id}", &[to("HEAD")], "", 200, &["upload-offset: 4", "content-length: 0"], Same),
        ("of an error neither", Nothing, "POST /files/AAAAAAAAAAAAAAAAAAAAAA", &[to("HEAD")], "", 404, &["content-length: 0"], Same),
        ("a POST that is a PATCH is no creation", Nothing, "POST /files", &[to("PATCH"), LENGTH], "", 405, &[], Same),
        ("a POST may be nothing else", Begun, "POST /files", &[to("PUT"), LENGTH], "", 400, &[], Same),
        ("nor a download", Finished, "POST /files/{id}", &[to("GET")], "", 400, &[], Same),
        ("nor two at once", Begun, "POST /files/{id}", &[to("HEAD"), to("DELETE")], "", 400, &[], Same),
        ("a GET may be nothing but a GET", Begun, "GET /files/{id}", &[to("DELETE")], "", 400, &[], Same),
        ("without it a POST is a POST", Nothing, "POST /files", &[LENGTH], "", 201, &[], New),
    ])
    .await;
    rows(Tus::new(), &[
        ("where it is off a POST is a POST", Begun, "POST /files/{id}", &[to("DELETE")], "", 405, &[], Same),
        ("where it is off a creation is a creation", Nothing, "POST /files", &[to("PATCH"), LENGTH], "", 201, &[], New),
    ])
    .await;
    let wire = serve(engine().await, Tus::new().method_override());
    let id = wire.begun().await;
    let reply = wire.ask(&format!("POST /uploads/{id}"), &[to("DELETE")], "").await;
    assert_eq!(reply.status, 405, "the chunk API has no such header: {reply:?}");
}

#[tokio::test]
#[rustfmt::skip]
async fn partial_uploads() {
    const POST: &str = "POST /files";
    let concat = |value: &'static str| ("upload-concat", value);
    rows(Tus::new(), &[
        ("a partial upload is created as any", Nothing, POST, &[LENGTH, concat("partial")], "", 201, &["location: *"], New),
        ("with bytes", Nothing, POST, &[LENGTH, BYTES, concat("partial")], "0123456789", 201, &["upload-offset: 10", "upload-expires: *"], New),
        ("its length may be deferred", Nothing, POST, &[("upload-defer-length", "1"), concat("partial")], "", 201, &[], New),
        ("it has a length", Nothing, POST, &[concat("partial")], "", 400, &[], Same),
        ("it has no content of its own", Partial, "GET /files/{id}", &[NO_VERSION], "", 409, &[], Same),
        ("Upload-Concat is partial or final", Nothing, POST, &[LENGTH, concat("half")], "", 400, &[], Same),
        ("a final upload is made of something", Nothing, POST, &[concat("final;")], "", 400, &[], Same),
        ("a final upload has no length of its own", Partial, POST, &[LENGTH, concat("final;/api/files/AAAAAAAAAAAAAAAAAAAAAA")], "", 400, &["~sum"], Same),
        ("nor a deferred one", Partial, POST, &[("upload-defer-length", "1"), concat("final;/api/files/AAAAAAAAAAAAAAAAAAAAAA")], "", 400, &["~sum"], Same),
        ("a final upload takes no bytes", Partial, POST, &[BYTES, concat("final;/api/files/AAAAAAAAAAAAAAAAAAAAAA")], "x", 400, &[], Same),
        ("nor chunked ones", Partial, POST, &[BYTES, concat("final;/api/files/AAAAAAAAAAAAAAAAAAAAAA")], "~x", 400, &[], Same),
        ("it is made of uploads of this server", Partial, POST, &[concat("final;/other/AAAAAAAAAAAAAAAAAAAAAA")], "", 400, &["~no upload of this server"], Same),
        ("not of what is no URL of an upload", Partial, POST, &[concat("final;/api/files/x")], "", 400, &[], Same),
        ("one must sign in", Partial, POST, &[NOBODY, concat("final;/api/files/AAAAAAAAAAAAAAAAAAAAAA")], "", 401, &[], Same),
    ])
    .await;
}

/// Every verb, asked by a stranger and by nobody, of an upload that exists and of one that does not.
#[tokio::test]
async fn nobody_learns_of_uploads_of_others() {
    let upload: &[(&str, &str)] = &[BYTES, FOUR];
    for state in [Begun, Deferred, Finished, Partial, Deleted, Chunked] {
        for (ask, headers) in [
            ("HEAD /files/{id}", &[][..]),
            ("PATCH /files/{id}", upload),
            ("PATCH /files/{id}", &[BYTES, FOUR, LENGTH]),
            ("DELETE /files/{id}", &[]),
            ("GET /files/{id}", &[NO_VERSION]),
            ("GET /uploads/{id}/content", &[NO_VERSION]),
        ] {
            let wire = wire().await;
            let id = given(&wire, state).await;
            let before = wire.all().await;
            for (who, status) in [(STRANGER, 404), (NOBODY, 401)] {
                let headers = [headers, &[who]].concat();
                let mut answers = Vec::new();
                for id in [id.as_str(), UNKNOWN] {
                    let request = request(
                        &ask.replace("{id}", id),
                        &[&headers[..], &[("tus-resumable", "1.0.0")]].concat(),
                        whole("45"),
                    );
                    let reply = wire.call(request).await;
                    assert_eq!(reply.status, status, "{state:?} {ask} {who:?} {reply:?}");
                    assert_eq!(
                        reply.headers.contains_key("www-authenticate"),
                        status == 401,
                        "{reply:?}"
                    );
                    answers.push((reply.headers, reply.text));
                }
                assert_eq!(answers[0], answers[1], "{state:?} {ask}");
            }
            assert_eq!(wire.all().await, before, "{state:?} {ask}");
        }
    }
}

/// All that can be refused by its head is, so that a client that waits for `100 Continue` sends nothing in vain.
#[tokio::test]
async fn the_body_of_a_refused_request_is_not_read() {
    use crate::http::tests::watched;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let offset = |value| ("upload-offset", value);
    for (state, ask, headers, status) in [
        (Nothing, "POST /files", &[BYTES][..], 400),
        (Nothing, "POST /files", &[BYTES, LENGTH, NO_VERSION], 412),
        (Nothing, "POST /files", &[BYTES, LENGTH, NOBODY], 401),
        (Nothing, "POST /files", &[LENGTH, NOBODY], 401),
        (
            Nothing,
            "POST /files",
            &[BYTES, ("upload-length", "1099511627777")],
            413,
        ),
        (Nothing, "POST /files", &[BYTES, LENGTH, ("content-length", "11")], 413),
        (Nothing, "POST /files", &[LENGTH, ("content-length", "4")], 415),
        (
            Nothing,
            "POST /files",
            &[BYTES, LENGTH, ("content-encoding", "gzip")],
            415,
        ),
        (
            Nothing,
            "POST /files",
            &[BYTES, LENGTH, ("upload-metadata", "a !")],
            400,
        ),
        (
            Nothing,
            "POST /files",
            &[BYTES, LENGTH, ("upload-checksum", "x AA==")],
            400,
        ),
        (Begun, "PATCH /files/{id}", &[FOUR], 415),
        (Begun, "PATCH /files/{id}", &[BYTES], 400),
        (Begun, "PATCH /files/{id}", &[BYTES, offset("3")], 409),
        (Begun, "PATCH /files/{id}", &[BYTES, FOUR, NO_VERSION], 412),
        (Begun, "PATCH /files/{id}", &[BYTES, FOUR, NOBODY], 401),
        (Begun, "PATCH /files/{id}", &[BYTES, FOUR, STRANGER], 404),
        (Begun, "PATCH /files/{id}", &[BYTES, FOUR, ("content-length", "7")], 413),
        (
            Begun,
            "PATCH /files/{id}",
            &[BYTES, FOUR, ("content-encoding", "br")],
            415,
        ),
        (
            Begun,
            "PATCH /files/{id}",
            &[BYTES, FOUR, ("transfer-encoding", "gzip, chunked")],
            415,
        ),
        (
            Begun,
            "PATCH /files/{id}",
            &[BYTES, FOUR, ("upload-checksum", "x AA==")],
            400,
        ),
        (Begun, "PATCH /files/{id}", &[BYTES, FOUR, ("upload-length", "11")], 400),
        (Finished, "PATCH /files/{id}", &[BYTES, FOUR], 409),
        (
            Finished,
            "PATCH /files/{id}",
            &[BYTES, offset("10"), ("content-length", "1")],
            413,
        ),
        (Chunked, "PATCH /files/{id}", &[BYTES, FOUR], 403),
        (Deleted, "PATCH /files/{id}", &[BYTES, FOUR], 410),
        (Nothing, "PATCH /files/{id}", &[BYTES, FOUR], 404),
    ] {
        let wire = wire().await;
        let id = given(&wire, state).await;
        let polled = Arc::new(AtomicBool::new(false));
        let reply = wire.tus(&ask.replace("{id}", &id), headers, watched(&polled)).await;
        assert_eq!(reply.status, status, "{state:?} {ask} {headers:?} {reply:?}");
        if state == Chunked {
            assert!(!reply.headers.contains_key("upload-offset"), "{reply:?}");
        }
        assert!(!polled.load(Ordering::Relaxed), "{state:?} {ask} {headers:?}");
    }
}

#[tokio::test]
async fn the_largest_file_is_a_limit_while_the_length_is_not_known() {
    let stores = Uploads::with(crate::blob::MemoryBlobs::new(), crate::metadata::MemoryMetadata::new());
    let uploads = stores.allow_anonymous().max_size(8).build().await.unwrap();
    let wire = serve(uploads, Tus::new());
    for sent in ["45678", "~45678"] {
        let id = given(&wire, Deferred).await;
        let reply = wire
            .tus(&format!("PATCH /files/{id}"), &[BYTES, FOUR], body(sent))
            .await;
        let kept = if sent.starts_with('~') { "8" } else { "4" };
        assert_eq!((reply.status, reply.header("upload-offset")), (413, kept), "{reply:?}");
    }
    let reply = wire
        .tus(
            "POST /files",
            &[("upload-defer-length", "1"), BYTES],
            body("~012345678"),
        )
        .await;
    assert_eq!(reply.status, 413, "{reply:?}");
}

/// Where nobody need sign in, nobody is asked to.
#[tokio::test]
async fn everybody_may_upload_where_that_is_allowed() {
    let stores = Uploads::with(crate::blob::MemoryBlobs::new(), crate::metadata::MemoryMetadata::new());
    let wire = serve(stores.allow_anonymous().build().await.unwrap(), Tus::new());
    let reply = wire
        .tus("POST /files", &[LENGTH, BYTES, NOBODY], whole("0123456789"))
        .await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let id = reply.header("location").strip_prefix("/api/files/").unwrap();
    for (id, who, status) in [(id, NOBODY, 200), (UNKNOWN, NOBODY, 404), (id, STRANGER, 404)] {
        let reply = wire.tus(&format!("HEAD /files/{id}"), &[who], whole("")).await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
}

#[tokio::test]
async fn an_empty_file_needs_no_patch() {
    for headers in [&[("upload-length", "0")][..], &[("upload-length", "0"), BYTES]] {
        let wire = wire().await;
        let id = wire.created(headers, "").await;
        assert_eq!(wire.all().await[0].1, State::Assembled);
        let head = wire.head(&id).await;
        assert_eq!((head.header("upload-offset"), head.header("upload-length")), ("0", "0"));
        assert_eq!(wire.get(&id).await.text, "");
    }
}

#[tokio::test]
async fn what_the_client_says_of_its_file_is_kept() {
    let wire = wire().await;
    let id = wire.created(&[LENGTH, ("upload-metadata", METADATA)], "").await;
    let upload = wire
        .uploads
        .status(&ann(), id.parse::<UploadId>().unwrap())
        .await
        .unwrap();
    assert_eq!(upload.file_name().as_str(), "talk.mp4");
    assert_eq!(upload.metadata()["filetype"], "video/mp4");
    assert_eq!(upload.metadata()["is_private"], "");
    assert_eq!(upload.protocol(), crate::upload::Protocol::Tus);
    // What another dialect would say goes into no header of ours.
    let named = wire
        .created(&[LENGTH, ("upload-metadata", "name bmFtZS5tcDQ=")], "")
        .await;
    let named = wire
        .uploads
        .status(&ann(), named.parse::<UploadId>().unwrap())
        .await
        .unwrap();
    assert_eq!(named.file_name().as_str(), "name.mp4");
}

#[tokio::test]
async fn places_are_as_absolute_as_the_host_allows() {
    let wire = wire().await;
    for (service, expected) in [
        (wire.service.clone(), "/api/files/"),
        (
            wire.service.clone().trust_forwarded(true),
            "http://a.example/api/files/",
        ),
        (
            wire.service.clone().public_url("https://media.example/"),
            "https://media.example/api/files/",
        ),
        (wire.service.clone().files("/"), "/api/"),
    ] {
        let wire = Wire {
            uploads: wire.uploads.clone(),
            service,
        };
        let path = if expected == "/api/" { "POST /" } else { "POST /files" };
        let reply = wire.tus(path, &[LENGTH, ("host", "a.example")], whole("")).await;
        assert!(reply.header("location").starts_with(expected), "{reply:?}");
    }
}

/// The host may refuse a file by what the client says of it.
#[tokio::test]
async fn metadata_may_say_what_an_upload_is_for() {
    let wire = serve(engine().await, Tus::new().target("videoId"));
    for (metadata, target) in [
        ("videoId NDI=,filename YQ==", Some("42")),
        ("filename YQ==", None),
        ("videoId,filename YQ==", None),
    ] {
        let id = wire
            .created(&[("upload-length", "1"), ("upload-metadata", metadata)], "")
            .await;
        let upload = wire
            .uploads
            .status(&Caller::new("ann"), id.parse::<UploadId>().unwrap())
            .await
            .unwrap();
        assert_eq!(upload.target().map(crate::Target::as_str), target, "{metadata}");
    }
    // Four kilobytes of "a".
    let long = format!("videoId {}", "YWFh".repeat(1400));
    let reply = wire
        .tus(
            "POST /files/",
            &[("upload-length", "1"), ("upload-metadata", &long)],
            whole(""),
        )
        .await;
    assert_eq!(reply.status, 400, "{reply:?}");
}

#[tokio::test]
async fn the_host_may_refuse() {
    struct Veto;
    #[async_trait::async_trait]
    impl crate::Hook for Veto {
        fn wants(&self, _: crate::upload::EventKind) -> bool {
            false
        }
        async fn before_create(&self, record: &mut crate::upload::Record) -> crate::Result<()> {
            match record.metadata.get("filetype").map(String::as_str) {
                Some("text/html") => Err(crate::Error::new(crate::ErrorKind::Forbidden, "No pages, please")),
                _ => Ok(()),
            }
        }
        async fn before_publish(
            &self,
            record: &crate::upload::Record,
            _: Option<crate::blob::BlobBody>,
        ) -> crate::Result<()> {
            match record.metadata.get("filetype").map(String::as_str) {
                Some("text/virus") => Err(crate::Error::new(crate::ErrorKind::Invalid, "It is infected")),
                _ => Ok(()),
            }
        }
    }
    let stores = Uploads::with(crate::blob::MemoryBlobs::new(), crate::metadata::MemoryMetadata::new());
    let uploads = stores
        .authorizer(crate::access::OwnerOnly)
        .hook(Veto)
        .build()
        .await
        .unwrap();
    let wire = serve(uploads, Tus::new());
    let page = ("upload-metadata", "filetype dGV4dC9odG1s");
    let reply = wire.tus("POST /files", &[LENGTH, page], whole("")).await;
    assert_eq!((reply.status, reply.text.as_str()), (403, "No pages, please\n"));
    assert_eq!(wire.all().await, []);

    // A definite refusal of the whole is an error of the request that completed it, and of all that follow.
    let virus = ("upload-metadata", "filetype dGV4dC92aXJ1cw==");
    let id = wire.created(&[LENGTH, virus], "0123").await;
    let reply = wire.patch(&id, 4, "456789").await;
    assert_eq!(reply.status, 410, "{reply:?}");
    assert!(reply.text.contains("It is infected"), "{reply:?}");
    assert_eq!(wire.head(&id).await.status, 410);
    assert_eq!(wire.get(&id).await.status, 404);
    let reply = wire
        .tus("POST /files", &[LENGTH, BYTES, virus], whole("0123456789"))
        .await;
    assert_eq!(reply.status, 410, "{reply:?}");
}
