//! Structured mode: everything in one JSON object.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{AttributeValue, CloudEvent, SPEC_VERSION, check};
use crate::error::Error;

impl CloudEvent {
    /// The event as JSON, for a message of the type [`STRUCTURED_JSON`](super::STRUCTURED_JSON).
    ///
    /// Data that says it is JSON and is stays as it was written, byte for byte; text of another
    /// type becomes a string, everything else base64.
    pub fn to_json(&self) -> String {
        let mut members = vec![format!("\"specversion\":\"{SPEC_VERSION}\"")];
        for (name, value) in self.attributes() {
            members.push(match value {
                AttributeValue::Text(text) => format!("\"{name}\":{}", quoted(text)),
                other => format!("\"{name}\":{other}"),
            });
        }
        members.extend(self.data_member());
        format!("{{{}}}", members.join(","))
    }

    fn data_member(&self) -> Option<String> {
        if self.data().is_empty() {
            return None;
        }
        let text = std::str::from_utf8(self.data()).ok();
        let member = match text {
            Some(text) if is_json(self.content_type()) => {
                is_one_value(text).then(|| format!("\"data\":{text}"))
            }
            Some(text) if is_text(self.content_type()) => {
                Some(format!("\"data\":{}", quoted(text)))
            }
            _ => None,
        };
        Some(
            member
                .unwrap_or_else(|| format!("\"data_base64\":\"{}\"", STANDARD.encode(self.data()))),
        )
    }

    /// Reads an event of structured mode.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) where it is no JSON object, a member comes
    /// twice, a required attribute is missing, or a name or value is not allowed: each named.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let refuse = |error| Error::invalid(format!("cloud event is not valid JSON: {error}"));
        let Members(mut members) = serde_json::from_slice(json).map_err(refuse)?;
        match members.remove("specversion") {
            Some(version) if is_spec_version(&version) => {}
            Some(other) => return Err(spec_version(other.get())),
            None => return Err(Error::invalid("cloud event has no specversion")),
        }
        let data = members.remove("data");
        let base64 = members.remove("data_base64").filter(|value| value.get() != "null");
        let mut attributes = BTreeMap::new();
        for (name, value) in members {
            if let Some(value) = attribute(&name, &value)? {
                attributes.insert(name, value);
            }
        }
        let event = Self::assembled(attributes, Vec::new())?;
        let data = match (data, base64) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("cloud event has both data and data_base64"));
            }
            (Some(data), None) => event.read_data(&data)?,
            (None, Some(base64)) => decoded(&base64)?,
            (None, None) => Vec::new(),
        };
        Ok(Self { data: data.into(), ..event })
    }

    /// The bytes that `data` stands for.
    fn read_data(&self, data: &RawValue) -> Result<Vec<u8>, Error> {
        if is_json(self.content_type()) {
            return Ok(data.get().as_bytes().to_vec());
        }
        serde_json::from_str::<String>(data.get()).map(String::into_bytes).map_err(|_| {
            let kind = self.content_type().unwrap_or_default();
            Error::invalid(format!("cloud event: data of type {kind:?} is no string"))
                .with_help("write text as a string, and bytes as data_base64")
        })
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Whether the data is one JSON value and nothing around it, so that it comes back unchanged.
fn is_one_value(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok_and(|value| value.get().len() == text.len())
}

fn is_spec_version(value: &RawValue) -> bool {
    serde_json::from_str::<String>(value.get()).is_ok_and(|version| version == SPEC_VERSION)
}

pub(super) fn spec_version(found: &str) -> Error {
    let shown: String = found.chars().take(80).collect();
    Error::invalid(format!("cloud event of specversion {shown}, this program knows {SPEC_VERSION}"))
}

/// Absent means JSON.
fn is_json(content_type: Option<&str>) -> bool {
    content_type.is_none_or(|name| {
        let essence = essence(name);
        essence.ends_with("/json") || essence.ends_with("+json")
    })
}

fn is_text(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|name| {
        let essence = essence(name);
        essence.starts_with("text/") || essence.ends_with("/xml") || essence.ends_with("+xml")
    })
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// An attribute; `None` where it is `null`, which is to say absent.
fn attribute(name: &str, value: &RawValue) -> Result<Option<AttributeValue>, Error> {
    let refuse = |what: &str| Error::invalid(format!("cloud event: {name} {what}"));
    let parsed = serde_json::from_str(value.get()).map_err(|_| refuse("cannot be read"))?;
    let value = match parsed {
        Value::Null => return Ok(None),
        Value::String(text) => AttributeValue::Text(text),
        Value::Bool(truth) => AttributeValue::Boolean(truth),
        Value::Number(number) => {
            let whole = number.as_i64().and_then(|number| i32::try_from(number).ok());
            whole.map(AttributeValue::Integer).ok_or_else(|| {
                refuse(&format!("{number} is no whole number from -2147483648 to 2147483647"))
            })?
        }
        Value::Array(_) => return Err(refuse("is a list, which no attribute may be")),
        Value::Object(_) => return Err(refuse("is an object, which no attribute may be")),
    };
    check(name, &value)?;
    Ok(Some(value))
}

fn decoded(base64: &RawValue) -> Result<Vec<u8>, Error> {
    let text = serde_json::from_str::<String>(base64.get());
    let bytes = text.ok().and_then(|text| STANDARD.decode(text).ok());
    bytes.ok_or_else(|| Error::invalid("cloud event: data_base64 is not base64"))
}

/// The members of an object, each once, their values as they were written.
struct Members(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("{name:?} comes twice")));
            }
            members.insert(name, value);
        }
        Ok(Members(members))
    }
}
