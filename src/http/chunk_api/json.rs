//! JSON bodies: small, flat, no key twice.

use std::fmt;

use futures_util::StreamExt as _;
use http::{HeaderMap, header::CONTENT_TYPE};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{
    error::{Error, ErrorKind, Result},
    http::{body::RequestBody, number::out_of_range},
    upload::{Digest, Target},
};

/// The longest body, in bytes.
const MAX_LEN: u64 = 64 << 10;
/// The deepest nesting, the outermost object being the first.
const MAX_DEPTH: u8 = 16;

/// Type and subtype of the body, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads a JSON object; no body at all is an empty one.
pub(super) async fn read(headers: &HeaderMap, body: RequestBody) -> Result<Fields> {
    if media_type(headers).is_some_and(|media| media != "application/json") {
        let message = "The body must be JSON; send it as application/json";
        return Err(Error::new(ErrorKind::UnsupportedMediaType, message));
    }
    let too_long = || Error::invalid("body", format!("A JSON body has at most {MAX_LEN} bytes"));
    if body.announced().is_some_and(|len| len > MAX_LEN) {
        return Err(too_long());
    }
    let mut body = body.limited(MAX_LEN);
    let mut bytes = Vec::new();
    while let Some(frame) = body.next().await {
        match frame {
            Err(error) if error.kind() == ErrorKind::TooLarge => return Err(too_long()),
            frame => bytes.extend_from_slice(&frame?),
        }
    }
    Fields::parse(&bytes)
}

/// The members of a JSON object. `null` is as good as absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(Map<String, Value>);

/// A `videoId`, and how the client wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VideoId {
    pub(super) target: Target,
    pub(super) sent: Value,
}

impl Fields {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let value = Strict { depth: 0 }
            .deserialize(&mut json)
            .and_then(|value| json.end().map(|()| value));
        match value {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(_) => Err(Error::invalid("body", "The JSON body must be an object")),
            Err(error) => Err(Error::invalid("body", format!("The JSON body cannot be read: {error}"))),
        }
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(super) const fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>> {
        match self.get(name) {
            Some(value) if !value.is_string() => Err(Error::invalid(name, format!("{name} must be a string"))),
            value => Ok(value.and_then(Value::as_str)),
        }
    }

    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>> {
        let number = |value: &Value| value.as_u64().ok_or_else(|| out_of_range(name, u64::MAX));
        self.get(name).map(number).transpose()
    }

    pub(super) fn digest(&self, name: &'static str) -> Result<Option<Digest>> {
        self.text(name)?.map(str::parse).transpose()
    }

    pub(super) fn video_id(&self) -> Result<Option<VideoId>> {
        let Some(sent) = self.get("videoId") else {
            return Ok(None);
        };
        let target = match sent {
            Value::String(text) => Target::parse(text)?,
            Value::Number(number) if number.is_u64() || number.is_i64() => Target::parse(&number.to_string())?,
            _ => return Err(Error::invalid("videoId", "videoId must be a string or a whole number")),
        };
        let sent = sent.clone();
        Ok(Some(VideoId { target, sent }))
    }

    pub(super) fn metadata(&self) -> Result<Vec<(&str, &str)>> {
        let strings = || Error::invalid("metadata", "metadata must be an object of strings");
        let Some(value) = self.get("metadata") else {
            return Ok(Vec::new());
        };
        let pairs = value.as_object().ok_or_else(strings)?.iter();
        pairs
            .map(|(key, value)| Ok((key.as_str(), value.as_str().ok_or_else(strings)?)))
            .collect()
    }
}

/// Any JSON value, with the nesting bounded and no key of an object given twice.
#[derive(Clone, Copy)]
struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("it is nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if members.insert(key, map.next_value_seed(inner)?).is_some() {
                return Err(A::Error::custom("a key is given more than once"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn members_have_their_types() {
        let fields = parse(
            r#"{"fileName":"a.mp4","fileSize":18446744073709551615,"videoId":123,"nothing":null,"metadata":{"a":"b"}}"#,
        );
        assert_eq!(fields.text("fileName").unwrap(), Some("a.mp4"));
        assert_eq!(fields.number("fileSize").unwrap(), Some(u64::MAX));
        assert_eq!(fields.text("nothing").unwrap(), None);
        assert_eq!(fields.number("absent").unwrap(), None);
        assert_eq!(fields.metadata().unwrap(), [("a", "b")]);
        let id = fields.video_id().unwrap().unwrap();
        assert_eq!((id.target.as_str(), id.sent), ("123", Value::from(123)));
        let id = parse(r#"{"videoId":"123"}"#).video_id().unwrap().unwrap();
        assert_eq!((id.target.as_str(), id.sent), ("123", Value::from("123")));
        assert_eq!(parse(" \r\n"), Fields::default());
    }

    #[test]
    fn a_member_of_another_type_is_named() {
        for number in ["-1", "1.5", "1e3", "18446744073709551616", "\"1\"", "true", "[]"] {
            let fields = parse(&format!(r#"{{"fileSize":{number}}}"#));
            assert_eq!(
                fields.number("fileSize").unwrap_err().field(),
                Some("fileSize"),
                "{number}"
            );
        }
        assert_eq!(
            parse(r#"{"fileName":1}"#).text("fileName").unwrap_err().field(),
            Some("fileName")
        );
        for id in ["1.5", "true", "[1]", "{}", "\"\"", "\"a\\u0000\"", "1e400000"] {
            let json = format!(r#"{{"videoId":{id}}}"#);
            let refused = Fields::parse(json.as_bytes()).and_then(|fields| fields.video_id());
            assert!(refused.is_err(), "{id}");
        }
        assert_eq!(
            parse(r#"{"metadata":{"a":1}}"#).metadata().unwrap_err().field(),
            Some("metadata")
        );
        assert_eq!(
            parse(r#"{"metadata":[]}"#).metadata().unwrap_err().field(),
            Some("metadata")
        );
    }

    #[test]
    fn what_is_deep_double_or_no_object_is_refused() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(Fields::parse(nested(16).as_bytes()).is_ok());
        for json in [
            nested(17),
            nested(30_000),
            r#"{"a":1,"a":1}"#.to_owned(),
            r#"{"a":1,"\u0061":1}"#.to_owned(),
            r#"{"metadata":{"a":"1","a":"2"}}"#.to_owned(),
            r#"{"unknown":[{"a":1,"a":2}]}"#.to_owned(),
            "[]".to_owned(),
            "1".to_owned(),
            "{}{}".to_owned(),
            "{".to_owned(),
            "{\"a\":\"\u{fffd}".to_owned(),
        ] {
            assert_eq!(
                Fields::parse(json.as_bytes()).unwrap_err().field(),
                Some("body"),
                "{json:.40}"
            );
        }
        assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_err());
    }
}
