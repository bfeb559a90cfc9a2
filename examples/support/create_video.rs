//! The body of `create-video/`: JSON, or a form with a `thumbnail`.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use super::{
    BoxError,
    catalogue::{NewVideo, Thumbnail},
    envelope::Refusal,
};

const MAX_JSON: usize = 64 << 10;
const MAX_THUMBNAIL: usize = 5 << 20;
const MAX_FORM: usize = MAX_THUMBNAIL + (64 << 10);
const MAX_TIME: Duration = Duration::from_secs(30);

pub async fn read<B>(parts: &Parts, body: B) -> Result<NewVideo, Refusal>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    let media = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match media
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "application/json" => from_json(&collect(body, MAX_JSON).await?),
        "multipart/form-data" => {
            let boundary =
                multer::parse_boundary(media).map_err(|_| Refusal::field("Content-Type", "The boundary is missing"))?;
            from_form(collect(body, MAX_FORM).await?, boundary).await
        }
        _ => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Send application/json, or multipart/form-data with a thumbnail",
        )),
    }
}

async fn collect<B>(body: B, limit: usize) -> Result<Bytes, Refusal>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    match tokio::time::timeout(MAX_TIME, Limited::new(body, limit).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body may have {limit} bytes at most"),
        )),
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "The body could not be read to its end",
        )),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "The body came too slowly")),
    }
}

fn from_json(body: &[u8]) -> Result<NewVideo, Refusal> {
    let invalid = |_| Refusal::new(StatusCode::BAD_REQUEST, "The body is no JSON object");
    let mut fields: HashMap<String, Value> = serde_json::from_slice(body).map_err(invalid)?;
    fields.retain(|_, value| !value.is_null());
    if fields.contains_key("thumbnail") {
        return Err(Refusal::field(
            "thumbnail",
            "Send the thumbnail as a file in multipart/form-data",
        ));
    }
    let text = |name: &'static str| match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) if name == "category" => Ok(Some(number.to_string())),
        Some(_) => Err(Refusal::field(name, format!("{name} is not what it must be"))),
    };
    new_video(text, None)
}

async fn from_form(body: Bytes, boundary: String) -> Result<NewVideo, Refusal> {
    let malformed = |_| Refusal::new(StatusCode::BAD_REQUEST, "The form is malformed");
    let mut form = multer::Multipart::new(stream::iter([Ok::<_, std::io::Error>(body)]), boundary);
    let mut fields: HashMap<String, String> = HashMap::new();
    let mut picture = None;
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(malformed)?;
        if name == "thumbnail" {
            picture = if bytes.is_empty() {
                None
            } else {
                Some(thumbnail(bytes)?)
            };
        } else {
            let text = String::from_utf8(bytes.into())
                .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "A field is no UTF-8"))?;
            fields.insert(name, text);
        }
    }
    new_video(
        |name| Ok(fields.get(name).filter(|text| !text.is_empty()).cloned()),
        picture,
    )
}

fn new_video(
    text: impl Fn(&'static str) -> Result<Option<String>, Refusal>,
    thumbnail: Option<Thumbnail>,
) -> Result<NewVideo, Refusal> {
    let title = text("title")?
        .map(|title| title.trim().to_owned())
        .filter(|title| !title.is_empty());
    let title = title.ok_or_else(|| Refusal::missing(&["title"]))?;
    let description = text("description")?.unwrap_or_default();
    for (name, value, most) in [("title", &title, 200), ("description", &description, 5000)] {
        if value.chars().count() > most {
            return Err(Refusal::field(name, format!("{name} has {most} characters at most")));
        }
    }
    let category = text("category")?.map(|number| number.trim().parse());
    let category = category
        .transpose()
        .map_err(|_| Refusal::field("category", "category is a whole number"))?;
    if text("processing_status")?.is_some_and(|status| status != "pending") {
        return Err(Refusal::field("processing_status", "A new video is pending"));
    }
    Ok(NewVideo {
        title,
        description,
        category,
        thumbnail,
    })
}

/// What the file is, its first bytes say; its name and declared type are not believed.
fn thumbnail(bytes: Bytes) -> Result<Thumbnail, Refusal> {
    if bytes.len() > MAX_THUMBNAIL {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("A thumbnail may have {MAX_THUMBNAIL} bytes at most"),
        ));
    }
    let extension = match &*bytes {
        [0xff, 0xd8, 0xff, ..] => "jpg",
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "png",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "webp",
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => "gif",
        _ => return Err(Refusal::field("thumbnail", "A thumbnail is a JPEG, PNG, WebP or GIF")),
    };
    Ok(Thumbnail { extension, bytes })
}
