//! A dead letter: its id, and its line of JSON.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rumormill::delivery::{Cause, DeadLetter, EntryId, Partition};
use rumormill::{Error, Position, Timestamp};
use serde::Serialize;

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
        let position: Result<Position, Error> = text.parse();
        let Position { partition, entry, .. } = position.map_err(|_| {
            let text = format!("--id: {text:?} is not like `orders:0/1700000000000-0`");
            Failure::usage(text).with_help(help)
        })?;
        Ok(Self { partition, id: entry })
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.id)
    }
}

/// When a letter was given up: its id tells.
pub(super) fn given_up(letter: &DeadLetter) -> Timestamp {
    Timestamp::from_millis(letter.id.millis)
}

/// What a line says besides the event. `time` is the event's own, where there is one.
#[derive(Serialize)]
struct Why<'a> {
    dead_letter: String,
    given_up: Timestamp,
    cause: Cause,
    errors: &'a [String],
    attempts: u32,
    origin: &'a Position,
    consumer: &'a str,
}

/// What is no event.
#[derive(Serialize)]
struct Shapeless<'a> {
    malformed: &'a str,
    fields: Vec<Field<'a>>,
    #[serde(flatten)]
    why: Why<'a>,
}

/// A raw field: each part as text, or in base64 where it is none.
#[derive(Serialize)]
struct Field<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// The line of a dead letter: the event as `tail` writes it, and why it was given up.
pub(super) fn line(partition: &Partition, letter: &DeadLetter) -> String {
    let why = Why {
        dead_letter: LetterId { partition: partition.clone(), id: letter.id }.to_string(),
        given_up: given_up(letter),
        cause: letter.failure.cause,
        errors: &letter.failure.errors,
        attempts: letter.attempts,
        origin: &letter.origin,
        consumer: &letter.consumer,
    };
    match &letter.record {
        Ok(envelope) => ndjson::write_with(&letter.origin, envelope, why),
        Err(malformed) => {
            let fields = malformed.fields.iter().map(|(name, value)| field(name, value)).collect();
            let line = Shapeless { malformed: &malformed.reason, fields, why };
            serde_json::to_string(&line).expect("text and numbers are always JSON")
        }
    }
}

fn field<'a>(name: &'a [u8], value: &'a [u8]) -> Field<'a> {
    let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
    let base64 = |bytes: &'a [u8]| text(bytes).is_none().then(|| BASE64.encode(bytes));
    Field {
        name: text(name),
        name_base64: base64(name),
        value: text(value),
        value_base64: base64(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn an_id_is_no_position() {
        let id = LetterId::parse("orders:0/170-3").expect("valid");
        assert_eq!(id.to_string(), "orders:0/170-3");
        for bad in ["orders:0/170-3/0", "170-3", "orders/170-3", ""] {
            assert_eq!(LetterId::parse(bad).map_err(|error| error.exit), Err(Exit::Usage), "{bad}");
        }
    }
}
