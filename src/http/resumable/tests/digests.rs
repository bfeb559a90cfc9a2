use super::*;

// Of "56789", of "01234" and of "0123456789".
const TAIL: &str = "sha-256=:92BDp07DO2rvuyiQUPr3qo1IIJVHc5fj5jNFEl1J9Sc=:";
const HEAD: &str = "sha-256=:xWX+A8qbYkLgHf3e/pu6PZiycOGc0C/YXOr3XislvxI=:";
const MD5: &str = "md5=:eB5eJF1ptWaXm4bijSPyxw==:";
const WHOLE: &str = "sha-256=:hNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=:";

#[tokio::test]
#[rustfmt::skip]
async fn digests() {
    let (tail, head, whole) = (("content-digest", TAIL), ("content-digest", HEAD), ("repr-digest", WHOLE));
    let want = ("want-repr-digest", "sha-256=5, sha-512=1");
    rows(&[
        ("12: an append that is what it says", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5, tail], "56789", 200, &[], "10 ?1"),
        ("12: an append that is not counts for nothing", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5, tail], "5678X", 400,
            &["upload-complete: ?0", "\"expected-digest\":\"sha256:", "\"actual-digest\":\"sha256:"], "5 ?0"),
        ("12: an algorithm that is not known", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5, ("content-digest", "unixsum=:AAAA:")], "56789", 200, &[], "10 ?1"),
        ("12: what is no digest", ALL, "PATCH {open}", &[MEDIA, LAST, AT_5, ("content-digest", "sha-256=0")], "56789", 400, &["\"field\":\"Content-Digest\""], "5 ?0"),
        ("12: a creation that is what it says", ALL, "POST /files", &[MORE, head], "01234", 201, &["upload-offset: 5"], "#1"),
        ("12: a creation that is not", ALL, "POST /files", &[MORE, head], "0123X", 400, &["upload-complete: ?0", "!location"], "#0"),
        ("12: a whole file that is not", ALL, "POST /files", &[LAST, head], "0123X", 400, &["upload-complete: ?0", "!location"], "#0"),
        ("12: the whole is what was said", ALL, "POST /files", &[LAST, whole], "0123456789", 200, &["upload-complete: ?1", "!repr-digest"], "#1"),
        ("12: the whole is not", ALL, "POST /files", &[LAST, whole], "012345678X", 422, &["upload-complete: ?1"], "#0"),
        ("12: what is no digest of the whole", ALL, "POST /files", &[LAST, ("repr-digest", "x")], "0123456789", 400, &["\"field\":\"Repr-Digest\""], "#0"),
        ("12: a digest of the whole that is wanted", ALL, "POST /files", &[LAST, want], "0123456789", 200, &[&format!("repr-digest: {WHOLE}")], "#1"),
        ("12: and is known already", ALL, "POST /files", &[LAST, want, whole], "0123456789", 200, &[&format!("repr-digest: {WHOLE}")], "#1"),
        ("12: of another algorithm than the one that is verified", ALL, "POST /files", &[LAST, want, ("repr-digest", MD5)], "0123456789", 200, &[&format!("repr-digest: {MD5}")], "#1"),
        ("12: who speaks no such protocol may want it too", &[FINAL], "POST /files", &[want], "0123456789", 200, &[&format!("repr-digest: {WHOLE}"), "!upload-complete"], "#1"),
    ])
    .await;
}

#[tokio::test]
async fn a_digest_of_the_whole_runs_along_from_request_to_request() {
    for draft in FULL {
        for digest in [WHOLE, HEAD] {
            let wire = Wire::new().await;
            let headers = [MORE, ("repr-digest", digest), ("want-repr-digest", "sha-256=1")];
            let begun = wire.ask(*draft, "POST /files", &headers, "01234").await;
            let path = begun.header("location");
            let last = wire
                .ask(*draft, &format!("PATCH {path}"), &[MEDIA, LAST, AT_5], "56789")
                .await;
            if digest == WHOLE {
                assert_eq!((last.status, last.header("repr-digest")), (200, WHOLE), "{}", last.text);
                assert_eq!(wire.file(path).await, "0123456789");
            } else {
                assert_eq!(
                    (last.status, last.header("upload-complete")),
                    (422, "?1"),
                    "{}",
                    last.text
                );
            }
        }
    }
}
