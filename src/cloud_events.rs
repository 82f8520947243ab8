//! CloudEvents 1.0: the same events for programs that know nothing of this library (feature
//! `cloudevents`).
//!
//! ```
//! use rumormill::cloud_events::CloudEvent;
//! use rumormill::{Clock, Envelope, SystemClock};
//!
//! let json = br#"{"specversion":"1.0","id":"1","source":"/shop","type":"orders.placed",
//!     "data":{"total":7}}"#;
//! let envelope = CloudEvent::from_json(json)?.to_envelope(SystemClock.now())?;
//! assert_eq!(envelope.event_type().as_str(), "orders.placed");
//! assert_eq!(envelope.payload(), r#"{"total":7}"#);
//! // It goes out as it came.
//! assert_eq!(CloudEvent::from(&envelope).id(), "1");
//! # Ok::<(), rumormill::Error>(())
//! ```
//!
//! # What becomes what
//!
//! | Envelope | attribute |
//! |---|---|
//! | id | `id`; one that is no UUID gives an id derived from it and from `source` |
//! | type | `type`; one that is no [`EventType`](crate::EventType) is refused |
//! | source | `source`; a text that is no URI reference is encoded, see below |
//! | time | `time`; where it is absent, the receiver's clock |
//! | content type | `datacontenttype`; where it is absent, JSON |
//! | payload | the data; empty where there is none |
//! | version, where it is not 1 | `rumormillversion` |
//! | key | `partitionkey` |
//! | expiry | `expirytime` |
//! | trace, correlation, causation | `traceparent`, `correlationid`, `causationid` |
//! | headers | an extension attribute each; `subject` and `dataschema` are headers too |
//!
//! A source must be a URI reference and not be empty: other texts, and the empty one, become
//! `rumormill:` and the text, percent-encoded.
//!
//! Nothing is lost either way. Headers whose name or value is no attribute, and the order of
//! headers where it is not that of their names, travel in the extension `rumormillheaders`; keys
//! and ids that no attribute can show, in `rumormillfields`. What an envelope has no place for (an
//! id that is no UUID, a time with another offset, the type of a number) is kept in the header
//! [`KEPT`] and comes back from there. Only two things are added: an absent `time`, and in binary
//! mode numbers and booleans become text, as the specification has it.
//!
//! An attribute's name is lower-case letters and digits; what else an event may hold is what an
//! [`Envelope`](crate::Envelope) may.

mod binary;
mod json;
mod mapping;
mod percent;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::error::Error;

pub use mapping::KEPT;

/// The media type of structured JSON.
pub const STRUCTURED_JSON: &str = "application/cloudevents+json";

/// The only version of the specification that is read and written.
const SPEC_VERSION: &str = "1.0";

/// A CloudEvent: its attributes, checked, and its data.
///
/// Two are equal when they say the same: `data` and `data_base64` are two spellings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    /// All but `specversion`.
    attributes: BTreeMap<String, AttributeValue>,
    data: Bytes,
}

/// The value of an attribute. URIs, times and bytes are texts, as in every format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A text without control characters.
    Text(String),
    /// A whole number.
    Integer(i32),
    /// A truth value.
    Boolean(bool),
}

impl CloudEvent {
    /// An event without data, with the attributes that each must have.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the attribute.
    pub fn new(id: &str, source: &str, event_type: &str) -> Result<Self, Error> {
        Self { attributes: BTreeMap::new(), data: Bytes::new() }
            .with_attribute("id", id)?
            .with_attribute("source", source)?
            .with_attribute("type", event_type)
    }

    /// Sets an attribute.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), where the name or the value is not what
    /// the specification allows.
    pub fn with_attribute(
        mut self,
        name: &str,
        value: impl Into<AttributeValue>,
    ) -> Result<Self, Error> {
        let value = value.into();
        check(name, &value)?;
        self.attributes.insert(name.to_owned(), value);
        Ok(self)
    }

    /// Sets the data and what it is.
    ///
    /// # Errors
    /// As [`with_attribute`](CloudEvent::with_attribute) for `datacontenttype`.
    pub fn with_data(self, content_type: &str, data: impl Into<Bytes>) -> Result<Self, Error> {
        let event = self.with_attribute("datacontenttype", content_type)?;
        Ok(Self { data: data.into(), ..event })
    }

    /// The id, unique within the source.
    pub fn id(&self) -> &str {
        self.required("id")
    }

    /// Where the event came from: a URI reference.
    pub fn source(&self) -> &str {
        self.required("source")
    }

    /// What happened.
    pub fn event_type(&self) -> &str {
        self.required("type")
    }

    /// What the data is; where it is absent, JSON.
    pub fn content_type(&self) -> Option<&str> {
        self.text("datacontenttype")
    }

    /// The data; empty where there is none.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// An attribute, an extension's too.
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.get(name)
    }

    /// All attributes but `specversion`, by name.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &AttributeValue)> {
        self.attributes.iter().map(|(name, value)| (name.as_str(), value))
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(AttributeValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn required(&self, name: &str) -> &str {
        self.text(name).expect("a cloud event is made with id, source and type")
    }

    /// An event of what was read, which may lack something.
    fn assembled(
        attributes: BTreeMap<String, AttributeValue>,
        data: impl Into<Bytes>,
    ) -> Result<Self, Error> {
        let missing = REQUIRED.iter().find(|name| !attributes.contains_key(**name));
        match missing {
            None => Ok(Self { attributes, data: data.into() }),
            Some(name) => Err(Error::invalid(format!("cloud event has no {name}"))
                .with_help("id, source, specversion and type are required")),
        }
    }
}

const REQUIRED: [&str; 3] = ["id", "source", "type"];
/// Attributes that are always text, and never an empty one.
const TEXTS: [&str; 8] =
    ["id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "expirytime"];

fn check(name: &str, value: &AttributeValue) -> Result<(), Error> {
    if !is_name(name) || matches!(name, "data" | "specversion") {
        let shown: String = name.chars().take(80).collect();
        return Err(Error::invalid(format!("{shown:?} is no name of an attribute"))
            .with_help("a name is lower-case letters and digits"));
    }
    let text = match value {
        AttributeValue::Text(text) => text,
        _ if TEXTS.contains(&name) => return Err(refused(name, value, "is no text")),
        _ => return Ok(()),
    };
    if !text.chars().all(is_allowed) {
        return Err(refused(name, value, "holds a control character"));
    }
    let fault = match name {
        _ if text.is_empty() && TEXTS.contains(&name) => "is empty",
        "source" if !text.bytes().all(is_uri) => "is no URI reference",
        "time" | "expirytime" if text.parse::<jiff::Timestamp>().is_err() => {
            "is no time; write RFC 3339, such as 2026-01-02T03:04:05Z"
        }
        _ => return Ok(()),
    };
    Err(refused(name, value, fault))
}

fn refused(name: &str, value: &AttributeValue, fault: &str) -> Error {
    let shown: String = value.to_string().chars().take(80).collect();
    Error::invalid(format!("cloud event: {name} {shown:?} {fault}"))
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(allowed)
}

/// What the specification's type String allows: no control characters, no noncharacters.
fn is_allowed(sign: char) -> bool {
    let code = u32::from(sign);
    !sign.is_control() && !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
}

/// Leaves blanks, quotes and brackets out; whether the rest is a good URI is the source's affair.
fn is_uri(byte: u8) -> bool {
    !byte.is_ascii() || (byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(truth) => write!(f, "{truth}"),
        }
    }
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i32> for AttributeValue {
    fn from(number: i32) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for AttributeValue {
    fn from(truth: bool) -> Self {
        Self::Boolean(truth)
    }
}

#[cfg(test)]
mod tests;
