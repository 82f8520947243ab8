//! A dead letter: its id, and its line of JSON, both ways. A letter that was written reads back
//! equal.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rumormill::delivery::{
    Cause, DeadLetter, EntryId, Failure as Reason, Fingerprint, Malformed, Partition, Site,
};
use rumormill::{Error, Position, Timestamp};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::ndjson;

/// Where a dead letter lies: `orders:0/1700000000000-0`. Not where its event lay, which has one
/// part more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LetterId {
    pub(super) partition: Partition,
    pub(super) id: EntryId,
}

impl LetterId {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let help = "`bus-cli dead-letters list --output raw` writes the ids";
        if text.matches('/').count() > 1 {
            let text = format!("--id: {text:?} is where an event lay, not the id of a dead letter");
            return Err(Failure::usage(text).with_help(help));
        }
        Self::read(text).ok_or_else(|| {
            let text = format!("--id: {text:?} is not like `orders:0/1700000000000-0`");
            Failure::usage(text).with_help(help)
        })
    }

    fn read(text: &str) -> Option<Self> {
        let position: Result<Position, Error> = text.parse();
        let Position { partition, entry, .. } = position.ok()?;
        Some(Self { partition, id: entry })
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.id)
    }
}

/// What a line says. Of a payload that is no JSON there is the base64 form instead.
#[derive(Serialize)]
struct Written<'a> {
    dead_letter: String,
    fingerprint: Fingerprint,
    cause: Cause,
    errors: &'a [String],
    attempts: u32,
    handler: &'a str,
    service_version: &'a str,
    host: &'a str,
    consumer: &'a str,
    first_seen: Timestamp,
    given_up: Timestamp,
    origin: &'a Position,
    /// Where that is another than it has now.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_id: Option<EntryId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Box<RawValue>>,
    /// The payload as it was published, where it was edited.
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<Field>>,
}

/// A raw field: each part as text, or in base64 where it is none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// The line of a dead letter: why it was given up, and the event as `tail` writes it.
pub(super) fn line(partition: &Partition, letter: &DeadLetter) -> String {
    let Reason { cause, errors, site } = &letter.failure;
    let event = letter.record.as_ref().ok();
    let malformed = letter.record.as_ref().err();
    let original = letter.original.as_ref().zip(event);
    let original_json = original
        .and_then(|(bytes, event)| ndjson::payload_as_json(event.content_type(), bytes))
        .filter(|json| !json.contains(['\n', '\r']));
    let original = original.filter(|_| original_json.is_none());
    let line = Written {
        dead_letter: LetterId { partition: partition.clone(), id: letter.id }.to_string(),
        fingerprint: letter.fingerprint(),
        cause: *cause,
        errors,
        attempts: letter.attempts,
        handler: &site.handler,
        service_version: &site.version,
        host: &site.host,
        consumer: &letter.consumer,
        first_seen: letter.first_seen(),
        given_up: letter.given_up,
        origin: &letter.origin,
        first_id: Some(letter.first_id).filter(|id| *id != letter.id),
        event: event.map(|event| raw(ndjson::write(&letter.origin, event))),
        original: original_json.map(|json| raw(json.into_owned())),
        original_base64: original.map(|(bytes, _)| BASE64.encode(bytes)),
        malformed: malformed.map(|malformed| malformed.reason.as_str()),
        fields: malformed.map(|malformed| {
            malformed.fields.iter().map(|(name, value)| Field::new(name, value)).collect()
        }),
    };
    serde_json::to_string(&line).expect("text and numbers are always JSON")
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("it was written as JSON")
}

impl Field {
    fn new(name: &[u8], value: &[u8]) -> Self {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let base64 = |bytes: &[u8]| text(bytes).is_none().then(|| BASE64.encode(bytes));
        Self {
            name: text(name),
            name_base64: base64(name),
            value: text(value),
            value_base64: base64(value),
        }
    }
}

/// A line as `export` wrote it. Unknown fields are refused: they would be lost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    dead_letter: String,
    cause: Cause,
    errors: Vec<String>,
    attempts: u32,
    #[serde(default)]
    handler: String,
    #[serde(default)]
    service_version: String,
    #[serde(default)]
    host: String,
    consumer: String,
    given_up: Timestamp,
    origin: Position,
    first_id: Option<EntryId>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    original: Option<&'a RawValue>,
    original_base64: Option<String>,
    malformed: Option<String>,
    fields: Option<Vec<Field>>,
    // They follow from the rest.
    #[serde(rename = "fingerprint")]
    _fingerprint: Option<IgnoredAny>,
    #[serde(rename = "first_seen")]
    _first_seen: Option<IgnoredAny>,
}

/// Reads a line that [`line`] wrote.
///
/// # Errors
/// A line of text that says what is wrong.
pub(super) fn read(line: &str) -> Result<(Partition, DeadLetter), String> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| ndjson::explain(&error))?;
    let Some(LetterId { partition, id }) = LetterId::read(&line.dead_letter) else {
        return Err(format!("dead_letter {:?} is no id of one", line.dead_letter));
    };
    let record = match (line.event, line.malformed) {
        (Some(event), None) => Ok(ndjson::read(event.get(), line.given_up)?),
        (None, Some(reason)) => {
            let fields = line.fields.unwrap_or_default().into_iter().map(Field::bytes);
            Err(Malformed { reason, fields: fields.collect::<Result<_, _>>()? })
        }
        _ => return Err("there is one of `event` and `malformed` in a dead letter".to_owned()),
    };
    let original = match (line.original, line.original_base64, &record) {
        (Some(json), None, Ok(event)) => {
            Some(ndjson::payload_of_json(event.content_type(), json.get())?)
        }
        (None, Some(text), _) => Some(decode("original", &text)?),
        (None, None, _) => None,
        _ => return Err("`original` belongs to an event, and is given once".to_owned()),
    };
    let site = Site { handler: line.handler, version: line.service_version, host: line.host };
    let letter = DeadLetter {
        id,
        first_id: line.first_id.unwrap_or(id),
        origin: line.origin,
        record,
        failure: Reason { cause: line.cause, errors: line.errors, site },
        attempts: line.attempts,
        consumer: line.consumer,
        given_up: line.given_up,
        original: original.map(Into::into),
    };
    Ok((partition, letter))
}

type Pair<T> = (T, T);

impl Field {
    fn bytes<T: From<Vec<u8>>>(self) -> Result<Pair<T>, String> {
        let part = |what: &str, text: Option<String>, base64: Option<String>| match (text, base64) {
            (Some(text), None) => Ok(T::from(text.into_bytes())),
            (None, Some(text)) => decode(what, &text).map(T::from),
            _ => Err(format!("a field has one of `{what}` and `{what}_base64`")),
        };
        Ok((
            part("name", self.name, self.name_base64)?,
            part("value", self.value, self.value_base64)?,
        ))
    }
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(text).map_err(|error| format!("{what}_base64 is not valid: {error}"))
}

#[cfg(test)]
mod tests;
