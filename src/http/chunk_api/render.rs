//! Answers: `{"success": true, "data": {…}}` and `{"success": false, "error": {…}}`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::Fault;
use crate::{
    engine::{StoredChunk, Upload},
    error::{Error, ErrorKind},
    http::{body::UploadBody, number::digits, problem},
    upload::{Outcome, State},
};

type Ranges = Vec<(u32, u32)>;

#[derive(Serialize)]
struct Success<T> {
    success: bool,
    data: T,
}

#[derive(Serialize)]
struct Failure<'a> {
    success: bool,
    error: Problem<'a>,
}

#[derive(Default, Serialize)]
struct Problem<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    required: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    missing: &'a [(u32, u32)],
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Stored {
    message: String,
    chunk_index: u32,
    total_chunks: u32,
    uploaded_chunks: u32,
    is_complete: bool,
}

/// Where an upload that was created is reached.
#[derive(Serialize)]
pub(super) struct Location {
    pub(super) upload: String,
    /// With `{index}` in the place of the index.
    pub(super) chunks: String,
    pub(super) assemble: String,
    pub(super) events: String,
}

#[derive(Serialize)]
struct Session {
    upload_id: String,
    chunk_size: Option<u64>,
    total_chunks: Option<u32>,
    expires_at: Option<String>,
    urls: Location,
}

#[derive(Serialize)]
struct Assembled<'a> {
    message: Cow<'static, str>,
    video_id: &'a Value,
    video_path: &'a str,
    chunks_assembled: u32,
    #[serde(flatten)]
    file: Option<File>,
}

#[derive(Serialize)]
struct File {
    size: Option<u64>,
    checksum: Option<String>,
}

#[derive(Serialize)]
struct Status<'a> {
    upload_id: String,
    state: State,
    protocol: String,
    file_name: &'a str,
    file_size: Option<u64>,
    chunk_size: Option<u64>,
    total_chunks: Option<u32>,
    uploaded_chunks: u32,
    bytes: u64,
    #[serde(flatten)]
    ranges: Option<StatusRanges>,
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    hooks: Vec<HookStatus<'a>>,
}

/// How a hook is getting on whose work is the client's business.
#[derive(Serialize)]
struct HookStatus<'a> {
    name: &'a str,
    /// `running`, `finished` or `failed`.
    state: Outcome,
    /// 0 to 100.
    progress: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<u64>,
    /// What it said the last time it failed. It may be tried again.
    error: Option<&'a str>,
}

impl<'a> HookStatus<'a> {
    fn of(upload: &'a Upload) -> Vec<Self> {
        let deliveries = upload.record().deliveries.iter();
        let shown = deliveries.filter_map(|(name, delivery)| {
            let state = delivery.outcome?;
            let progress = delivery.progress.filter(|_| state == Outcome::Running);
            Some(Self {
                name,
                state,
                progress: match state {
                    Outcome::Finished => Some(100),
                    _ => progress.map(|progress| progress.percent),
                },
                seconds_left: progress.and_then(|progress| progress.left).map(|left| left.as_secs()),
                error: delivery.error.as_deref(),
            })
        });
        shown.collect()
    }
}

/// What only an upload that was read with its parts can tell.
#[derive(Serialize)]
struct StatusRanges {
    received: Ranges,
    missing: Ranges,
    offset: u64,
}

#[derive(Serialize)]
struct List<'a> {
    uploads: Vec<Status<'a>>,
    skip: u64,
    limit: u64,
}

impl<'a> Status<'a> {
    fn of(upload: &'a Upload) -> Self {
        let ranges = if upload.state() == State::Assembled {
            let last = upload.plan().chunks.map(|chunks| chunks.saturating_sub(1));
            StatusRanges {
                received: last.map(|last| (0, last)).into_iter().collect(),
                missing: Vec::new(),
                offset: upload.size().unwrap_or_else(|| upload.offset()),
            }
        } else {
            StatusRanges {
                received: upload.received(),
                missing: upload.missing(),
                offset: upload.offset(),
            }
        };
        Self {
            ranges: Some(ranges),
            ..Self::summary(upload)
        }
    }

    fn summary(upload: &'a Upload) -> Self {
        let plan = upload.plan();
        let assembled = upload.state() == State::Assembled;
        Self {
            upload_id: upload.id().to_string(),
            state: upload.state(),
            protocol: upload.protocol().to_string(),
            file_name: upload.file_name().as_str(),
            file_size: upload.size(),
            chunk_size: plan.chunk_size,
            total_chunks: plan.chunks,
            uploaded_chunks: upload.tally().parts,
            bytes: upload.tally().bytes,
            ranges: None,
            expires_at: upload.expires_at().map(|moment| moment.to_string()),
            video_path: assembled.then(|| upload.key().as_str()),
            checksum: upload.checksum().map(|digest| digest.to_string()),
            error: upload.failure(),
            hooks: HookStatus::of(upload),
        }
    }
}

pub(super) fn chunk_stored(stored: &StoredChunk) -> Response<UploadBody> {
    let number = u64::from(stored.index) + 1;
    success(Stored {
        message: format!("Chunk {number}/{} uploaded successfully", stored.total),
        chunk_index: stored.index,
        total_chunks: stored.total,
        uploaded_chunks: stored.stored,
        is_complete: stored.is_complete,
    })
}

/// 201 with the place of what was created; 200 if it was there already.
pub(super) fn created(upload: &Upload, urls: Location) -> Response<UploadBody> {
    let location = HeaderValue::from_str(&urls.upload);
    let mut response = success(Session {
        upload_id: upload.id().to_string(),
        chunk_size: upload.plan().chunk_size,
        total_chunks: upload.plan().chunks,
        expires_at: upload.expires_at().map(|moment| moment.to_string()),
        urls,
    });
    if upload.is_new() {
        *response.status_mut() = StatusCode::CREATED;
    }
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

pub(super) fn status(upload: &Upload) -> Response<UploadBody> {
    success(Status::of(upload))
}

pub(super) fn status_json(upload: &Upload) -> String {
    to_json(&Status::of(upload))
}

pub(super) fn list(uploads: &[Upload], skip: u64, limit: u64) -> Response<UploadBody> {
    let uploads = uploads.iter().map(Status::summary).collect();
    success(List { uploads, skip, limit })
}

/// As the client named the video, so it is named.
pub(super) fn assembled_by_name(upload: &Upload, video_id: &Value, announcement: Option<&str>) -> Response<UploadBody> {
    success(assembled(upload, video_id, announcement, None))
}

pub(super) fn assembled_by_id(upload: &Upload, announcement: Option<&str>) -> Response<UploadBody> {
    let video_id = upload.target().map_or(Value::Null, |target| {
        let text = target.as_str();
        let number = digits(text).filter(|number| number.to_string() == text);
        number.map_or_else(|| Value::from(text), Value::from)
    });
    let file = File {
        size: upload.size(),
        checksum: upload.checksum().map(|digest| digest.to_string()),
    };
    success(assembled(upload, &video_id, announcement, Some(file)))
}

/// `announcement` says what goes on with the video now.
fn assembled<'a>(
    upload: &'a Upload,
    video_id: &'a Value,
    announcement: Option<&str>,
    file: Option<File>,
) -> Assembled<'a> {
    const MESSAGE: &str = "Video assembled successfully.";
    Assembled {
        message: announcement.map_or(MESSAGE.into(), |more| format!("{MESSAGE} {more}").into()),
        video_id,
        video_path: upload.key().as_str(),
        chunks_assembled: upload.plan().chunks.unwrap_or(upload.tally().parts),
        file,
    }
}

/// 204.
pub(super) fn nothing() -> Response<UploadBody> {
    let mut response = Response::new(UploadBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    common(response.headers_mut());
    response
}

pub(super) fn fault(fault: &Fault) -> Response<UploadBody> {
    let problem = |error| Problem {
        error,
        ..Problem::default()
    };
    match fault {
        Fault::Missing(required) => {
            let error = "Missing required fields";
            failure(
                StatusCode::BAD_REQUEST,
                Problem {
                    required,
                    ..problem(error)
                },
            )
        }
        Fault::NoRoute => failure(StatusCode::NOT_FOUND, problem("There is nothing at this path")),
        Fault::Method(allowed) => {
            let mut response = failure(
                StatusCode::METHOD_NOT_ALLOWED,
                problem("The method is not allowed at this path"),
            );
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allowed));
            response
        }
        Fault::Error(error) => of_error(error),
    }
}

fn of_error(error: &Error) -> Response<UploadBody> {
    problem::log(error);
    let retry_after = problem::retry_after(error);
    let text = |digest: Option<&crate::Digest>| digest.map(ToString::to_string);
    let mut response = failure(
        problem::status(error.kind()),
        Problem {
            error: error.message(),
            required: &[],
            field: error.field(),
            missing: error.missing(),
            expected: text(error.expected()),
            actual: text(error.actual()),
            limit: error.limit(),
            offset: error.offset(),
            state: error.state(),
            retry_after,
        },
    );
    let headers = response.headers_mut();
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.kind() == ErrorKind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn success(data: impl Serialize) -> Response<UploadBody> {
    json(StatusCode::OK, &Success { success: true, data })
}

fn failure(status: StatusCode, error: Problem<'_>) -> Response<UploadBody> {
    json(status, &Failure { success: false, error })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<UploadBody> {
    let mut response = Response::new(UploadBody::full(to_json(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    common(headers);
    response
}

/// What every answer has.
pub(super) fn common(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() // never fails: string keys, no failing serializer
}
