//! A server that speaks as much S3 as an upload needs, keeps no bytes unless told to, and counts what it is sent.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use md5::{Digest as _, Md5};

use crate::support::served::{self, Served};

/// What is as short as this is kept and hashed in any case: probes, notes of the store's own.
const SHORT: usize = 1 << 20;

/// A running sink; ended when dropped.
pub(crate) struct Sink {
    served: Served,
    pub(crate) url: String,
}

/// How many requests of a kind, and how many bytes in their bodies.
pub(crate) type Counts = BTreeMap<String, (u64, u64)>;

impl Sink {
    /// `keep`: bytes can be read again. `hash`: every part's ETag is its MD5, as that of S3; else each is a number that no
    /// other part has, and costs nothing. `delay`: how long each part takes besides.
    pub(crate) fn start(keep: bool, hash: bool, delay: Duration) -> Self {
        let served = Served::start(&format!("sink {keep} {hash} {}", delay.as_millis()));
        Self {
            url: format!("http://{}", served.address),
            served,
        }
    }

    /// What came since it was asked last.
    pub(crate) async fn take_counts(&self) -> Counts {
        let text = crate::ask(&self.served.address, "GET /-/counts").await;
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let kind = words.next()?.to_owned();
            Some((kind, (words.next()?.parse().ok()?, words.next()?.parse().ok()?)))
        });
        lines.collect()
    }
}

#[derive(Default)]
struct State {
    keep: bool,
    hash: bool,
    delay: Duration,
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, (String, BTreeMap<u32, Object>)>,
    counts: Counts,
    numbers: u64,
}

#[derive(Clone)]
struct Object {
    len: u64,
    etag: String,
    /// None: thrown away; zeros are read.
    bytes: Option<Bytes>,
}

/// Serves in this role until standard input ends.
pub(crate) fn play(role: &str) {
    let words: Vec<&str> = role.split(' ').collect();
    let state = Arc::new(Mutex::new(State {
        keep: words[0] == "true",
        hash: words[1] == "true",
        delay: Duration::from_millis(words[2].parse().unwrap()),
        ..State::default()
    }));
    served::run(served::serve(None, move |request| answer(Arc::clone(&state), request)));
}

type Answer = Response<Full<Bytes>>;

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (head, mut body) = request.into_parts();
    let (keep, hash, delay) = {
        let state = state.lock().unwrap();
        (state.keep, state.hash, state.delay)
    };
    let announced = body.size_hint().exact().unwrap_or(u64::MAX);
    let is_short = announced <= SHORT as u64;
    let is_data = head.method == Method::PUT;
    let keeps = !is_data || keep || is_short;
    let (mut kept, mut len, mut md5) = (BytesMut::new(), 0, Md5::new());
    while let Some(frame) = body.frame().await {
        // Half of a part is no part.
        let Ok(frame) = frame else { return Ok(status(400)) };
        let Ok(data) = frame.into_data() else { continue };
        len += data.len() as u64;
        if hash || is_short {
            md5.update(&data);
        }
        if keeps {
            kept.extend_from_slice(&data);
        }
    }
    if is_data && !is_short {
        tokio::time::sleep(delay).await;
    }
    let query: BTreeMap<String, String> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect();
    let path = decoded(head.uri.path().trim_start_matches('/'));
    let mut state = state.lock().unwrap();
    if path == "-/counts" {
        let mut text = String::new();
        for (kind, (count, bytes)) in std::mem::take(&mut state.counts) {
            writeln!(text, "{kind} {count} {bytes}").unwrap();
        }
        return Ok(xml(200, text));
    }
    state.numbers += 1;
    let etag = match hash || is_short {
        true => hex(&md5.finalize()),
        false => format!("{:032x}", state.numbers),
    };
    let object = Object {
        len,
        etag,
        bytes: keeps.then(|| kept.freeze()),
    };
    Ok(state.answer(
        &head.method,
        path.split_once('/').unwrap_or((&path, "")).1,
        &query,
        &head.headers,
        object,
    ))
}

impl State {
    fn answer(
        &mut self,
        method: &Method,
        key: &str,
        query: &BTreeMap<String, String>,
        headers: &HeaderMap,
        object: Object,
    ) -> Answer {
        let upload = query.get("uploadId");
        let kind = match (method.as_str(), upload) {
            ("POST", None) if query.contains_key("uploads") => "create",
            ("POST", None) => "delete",
            ("POST", Some(_)) => "complete",
            ("PUT", Some(_)) if headers.contains_key("x-amz-copy-source") => "copy",
            ("PUT", Some(_)) => "part",
            ("PUT", None) if headers.contains_key("x-amz-copy-source") => "copy",
            ("PUT", None) => "put",
            ("DELETE", Some(_)) => "abort",
            ("DELETE", None) => "delete",
            ("HEAD", _) => "head",
            ("GET", Some(_)) => "list",
            _ if key.is_empty() => "list",
            _ => "get",
        };
        let count = self.counts.entry(kind.to_owned()).or_default();
        *count = (count.0 + 1, count.1 + object.len);
        match kind {
            "create" => {
                self.numbers += 1;
                let id = format!("upload-{}", self.numbers);
                self.uploads.insert(id.clone(), (key.to_owned(), BTreeMap::new()));
                xml(
                    200,
                    format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"),
                )
            }
            "part" => match upload.and_then(|id| self.uploads.get_mut(id)) {
                Some((_, parts)) => {
                    let answer = tagged(status(200), &object.etag);
                    parts.insert(query["partNumber"].parse().unwrap_or(0), object);
                    answer
                }
                None => error(404, "NoSuchUpload"),
            },
            "complete" => self.complete(key, upload.unwrap(), &object),
            "abort" => status(if self.uploads.remove(upload.unwrap()).is_some() {
                204
            } else {
                404
            }),
            "put" => {
                let is_taken = self.objects.contains_key(key);
                if headers.contains_key("if-none-match") && is_taken {
                    return error(412, "PreconditionFailed");
                }
                let answer = tagged(status(200), &object.etag);
                self.objects.insert(key.to_owned(), object);
                answer
            }
            "copy" => self.copy(key, upload, query, headers),
            "delete" if key.is_empty() => {
                let text = object.bytes.unwrap_or_default();
                let mut deleted = String::new();
                for key in between(&String::from_utf8_lossy(&text), "Key") {
                    self.objects.remove(&key);
                    write!(deleted, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
                }
                xml(200, format!("<DeleteResult>{deleted}</DeleteResult>"))
            }
            "delete" => {
                self.objects.remove(key);
                status(204)
            }
            "list" => self.list(query),
            _ => self.read(method, key, headers),
        }
    }

    fn complete(&mut self, key: &str, id: &str, object: &Object) -> Answer {
        let text = String::from_utf8_lossy(object.bytes.as_deref().unwrap_or_default()).into_owned();
        let tags = between(&text, "ETag");
        let Some((_, parts)) = self.uploads.get(id) else {
            return error(404, "NoSuchUpload");
        };
        let (mut md5, mut len, mut bytes) = (Md5::new(), 0, Some(BytesMut::new()));
        for (number, tag) in between(&text, "PartNumber").iter().zip(&tags) {
            let tag = tag.replace("&quot;", "").replace('"', "");
            let part = number.parse().ok().and_then(|number: u32| parts.get(&number));
            let Some(part) = part.filter(|part| part.etag == tag) else {
                return error(400, "InvalidPart");
            };
            md5.update(unhex(&part.etag));
            len += part.len;
            match (&mut bytes, &part.bytes) {
                (Some(all), Some(more)) if self.keep => all.extend_from_slice(more),
                _ => bytes = None,
            }
        }
        let etag = format!("{}-{}", hex(&md5.finalize()), tags.len());
        let answer = xml(
            200,
            format!("<CompleteMultipartUploadResult><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"),
        );
        let bytes = bytes.map(BytesMut::freeze).filter(|bytes| bytes.len() as u64 == len);
        self.objects.insert(key.to_owned(), Object { len, etag, bytes });
        self.uploads.remove(id);
        answer
    }

    fn copy(
        &mut self,
        key: &str,
        upload: Option<&String>,
        query: &BTreeMap<String, String>,
        headers: &HeaderMap,
    ) -> Answer {
        let source = decoded(headers["x-amz-copy-source"].to_str().unwrap_or_default());
        let source = source.trim_start_matches('/').split_once('/').unwrap_or_default().1;
        let Some(mut object) = self.objects.get(source).cloned() else {
            return error(404, "NoSuchKey");
        };
        if let Some((from, to)) = range(headers, "x-amz-copy-source-range", object.len) {
            object.bytes = object.bytes.map(|bytes| bytes.slice(from as usize..to as usize));
            object.len = to - from;
        }
        let tag = object.etag.clone();
        match upload {
            None => drop(self.objects.insert(key.to_owned(), object)),
            Some(id) => match self.uploads.get_mut(id) {
                Some((_, parts)) => drop(parts.insert(query["partNumber"].parse().unwrap_or(0), object)),
                None => return error(404, "NoSuchUpload"),
            },
        }
        xml(200, format!("<CopyResult><ETag>&quot;{tag}&quot;</ETag></CopyResult>"))
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Answer {
        let mut text = String::new();
        if query.contains_key("uploads") {
            for (id, (key, _)) in &self.uploads {
                let began = "2026-01-01T00:00:00.000Z";
                write!(
                    text,
                    "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{began}</Initiated></Upload>"
                )
                .unwrap();
            }
            return xml(
                200,
                format!(
                    "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{text}</ListMultipartUploadsResult>"
                ),
            );
        }
        let prefix = query.get("prefix").map_or("", String::as_str);
        for (key, object) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
            write!(
                text,
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{}&quot;</ETag>\
                 <Size>{}</Size></Contents>",
                object.etag, object.len
            )
            .unwrap();
        }
        xml(
            200,
            format!("<ListBucketResult><IsTruncated>false</IsTruncated>{text}</ListBucketResult>"),
        )
    }

    fn read(&self, method: &Method, key: &str, headers: &HeaderMap) -> Answer {
        let Some(object) = self.objects.get(key) else {
            return error(404, "NoSuchKey");
        };
        let part = range(headers, "range", object.len);
        let (from, to) = part.unwrap_or((0, object.len));
        let bytes = match (&object.bytes, *method == Method::HEAD) {
            (_, true) => Bytes::new(),
            (Some(bytes), _) => bytes.slice(from as usize..to as usize),
            (None, _) => Bytes::from(vec![0; (to - from) as usize]),
        };
        let mut answer = tagged(Response::new(Full::new(bytes)), &object.etag);
        let headers = answer.headers_mut();
        headers.insert("content-length", (to - from).into());
        headers.insert("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT".parse().unwrap());
        if part.is_some() {
            let text = format!("bytes {from}-{}/{}", to.saturating_sub(1), object.len);
            headers.insert("content-range", text.parse().unwrap());
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        answer
    }
}

/// `bytes=FROM-TO`, the end excluded and cut.
fn range(headers: &HeaderMap, name: &str, len: u64) -> Option<(u64, u64)> {
    let (from, to) = headers
        .get(name)?
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to = to.parse().map_or(len, |to: u64| (to + 1).min(len));
    (from < to).then_some((from, to))
}

/// The texts of all elements of a name.
fn between(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let texts = xml.split(&open).skip(1);
    texts
        .filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned()))
        .collect()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len() / 2).filter_map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok());
    pairs.collect()
}

fn status(status: u16) -> Answer {
    xml(status, String::new())
}

fn error(status: u16, code: &str) -> Answer {
    xml(
        status,
        format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"),
    )
}

fn xml(status: u16, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn tagged(mut answer: Answer, etag: &str) -> Answer {
    answer
        .headers_mut()
        .insert("etag", format!("\"{etag}\"").parse().unwrap());
    answer
}
