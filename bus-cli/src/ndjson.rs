//! Events as NDJSON, one JSON object a line, both ways: what `tail --output json` writes and
//! `publish --from` reads. An event that was written reads back equal, position apart. A recording
//! says besides when each event was stored.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rumormill::envelope::EnvelopeBuilder;
use rumormill::{Codec, ContentType, Envelope, EventId, EventType, Position, Timestamp};
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{SOURCE, msgpack};

/// The line of an event, without its end.
pub(crate) fn write(position: &Position, envelope: &Envelope) -> String {
    write_with(position, envelope, None)
}

/// The line of an event that was stored so many milliseconds after the first of a recording.
pub(crate) fn write_recorded(position: &Position, envelope: &Envelope, offset_ms: u64) -> String {
    write_with(position, envelope, Some(offset_ms))
}

fn write_with(position: &Position, envelope: &Envelope, offset_ms: Option<u64>) -> String {
    let json = payload_json(envelope).filter(|json| !json.contains(['\n', '\r']));
    let data = json.as_deref().and_then(|json| serde_json::from_str(json).ok());
    let line = Written {
        id: envelope.id(),
        event_type: envelope.event_type(),
        version: envelope.version(),
        source: envelope.source(),
        time: envelope.time(),
        expires: envelope.expires(),
        key: envelope.key(),
        headers: Headers(envelope.headers().collect()),
        content_type: envelope.content_type().as_str(),
        traceparent: envelope.traceparent(),
        correlation_id: envelope.correlation_id(),
        causation_id: envelope.causation_id(),
        topic: position.partition.topic.as_str(),
        partition: position.partition.index,
        position,
        offset_ms,
        data_base64: data.is_none().then(|| BASE64.encode(envelope.payload())),
        data,
    };
    serde_json::to_string(&line).expect("text and numbers are always JSON")
}

/// The payload as JSON text, byte for byte where it is JSON; `None` where JSON cannot show it
/// without loss.
pub(crate) fn payload_json(envelope: &Envelope) -> Option<Cow<'_, str>> {
    payload_as_json(envelope.content_type(), envelope.payload())
}

/// As [`payload_json`], for bytes of a content type.
pub(crate) fn payload_as_json<'a>(
    content_type: &ContentType,
    payload: &'a [u8],
) -> Option<Cow<'a, str>> {
    match content_type.codec()? {
        Codec::Json => {
            let text = std::str::from_utf8(payload).ok()?;
            let value: &RawValue = serde_json::from_str(text).ok()?;
            // Blanks around the value would not come back.
            (value.get().len() == payload.len()).then_some(Cow::Borrowed(text))
        }
        Codec::MessagePack => msgpack::to_json(payload).map(Cow::Owned),
        _ => None,
    }
}

#[derive(Serialize)]
struct Written<'a> {
    id: EventId,
    #[serde(rename = "type")]
    event_type: &'a EventType,
    version: u32,
    source: &'a str,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Headers::is_empty")]
    headers: Headers<&'a str>,
    content_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<&'a str>,
    topic: &'a str,
    partition: u32,
    position: &'a Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Reads a line; what it does not say is a new id, version 1, the time `now`.
///
/// # Errors
/// A line of text that says what is wrong and where.
pub(crate) fn read(line: &str, now: Timestamp) -> Result<Envelope, String> {
    read_recorded(line, now).map(|recorded| recorded.envelope)
}

/// As [`read`], with what the line says of when it was stored.
pub(crate) fn read_recorded(line: &str, now: Timestamp) -> Result<Recorded, String> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| explain(&error))?;
    let content_type = match &line.content_type {
        Some(text) => ContentType::new(text.clone()).map_err(|error| error.to_string())?,
        None => ContentType::JSON,
    };
    if line.version == Some(0) {
        return Err("version is 0, the first one is 1".to_owned());
    }
    let payload = line.payload(&content_type)?;
    let time = line.time.unwrap_or(now);
    let builder = Envelope::builder(line.event_type, content_type, payload, time)
        .id(line.id.unwrap_or_else(|| EventId::new(now)))
        .version(line.version.unwrap_or(1))
        .source(line.source.as_deref().unwrap_or(SOURCE).to_owned())
        .expires(line.expires)
        .key(line.key)
        .traceparent(line.traceparent)
        .correlation_id(line.correlation_id)
        .causation_id(line.causation_id);
    let add =
        |builder: EnvelopeBuilder, (name, value): (String, String)| builder.header(name, value);
    let envelope = line.headers.0.into_iter().fold(builder, add).build();
    let envelope = envelope.map_err(|error| error.to_string())?;
    // Where it lay is of use to those only who know what it means.
    let position = line.position.and_then(|position| position.as_str()?.parse::<Position>().ok());
    let stored = position.map(|position| Timestamp::from_millis(position.entry.millis));
    Ok(Recorded { envelope, offset_ms: line.offset_ms, stored })
}

/// An event as a line tells it.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) envelope: Envelope,
    /// Milliseconds after the first event of its recording.
    pub(crate) offset_ms: Option<u64>,
    /// When the store of that time got it.
    pub(crate) stored: Option<Timestamp>,
}

/// A line as it was written by someone. Unknown fields are refused: they would be lost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    id: Option<EventId>,
    #[serde(rename = "type")]
    event_type: EventType,
    version: Option<u32>,
    source: Option<String>,
    time: Option<Timestamp>,
    expires: Option<Timestamp>,
    key: Option<String>,
    #[serde(default)]
    headers: Headers<String>,
    content_type: Option<String>,
    traceparent: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    // Where the event lay; it will lie elsewhere.
    #[serde(rename = "topic")]
    _topic: Option<IgnoredAny>,
    #[serde(rename = "partition")]
    _partition: Option<IgnoredAny>,
    position: Option<serde_json::Value>,
    offset_ms: Option<u64>,
}

impl Line<'_> {
    fn payload(&self, content_type: &ContentType) -> Result<Vec<u8>, String> {
        match (self.data, &self.data_base64) {
            (Some(_), Some(_)) => Err("both `data` and `data_base64` are given".to_owned()),
            (None, Some(text)) => {
                BASE64.decode(text).map_err(|error| format!("data_base64 is not valid: {error}"))
            }
            (data, None) => payload_of_json(content_type, data.map_or("null", RawValue::get)),
        }
    }
}

/// The payload of a content type that a JSON text stands for.
pub(crate) fn payload_of_json(content_type: &ContentType, json: &str) -> Result<Vec<u8>, String> {
    match content_type.codec() {
        Some(Codec::Json) => Ok(json.as_bytes().to_vec()),
        Some(Codec::MessagePack) => msgpack::from_json(json),
        _ => Err(format!("`data` cannot be {content_type}; use `data_base64`")),
    }
}

/// Tells `null`, which is a payload, from nothing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The line is one line: only the column tells where.
pub(crate) fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what} (column {})", error.column())
}

/// Names and values in the order they were set.
struct Headers<T>(Vec<(T, T)>);

impl<T> Default for Headers<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Headers<T> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Serialize> Serialize for Headers<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Headers<String> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut headers: Vec<(String, String)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if headers.iter().any(|(own, _)| *own == name) {
                return Err(de::Error::custom(format!("header {name:?} is given twice")));
            }
            headers.push((name, value));
        }
        Ok(Headers(headers))
    }
}

#[cfg(test)]
mod tests;
