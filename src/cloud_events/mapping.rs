//! Between an envelope and a CloudEvent.
//!
//! [`rendered`] says an envelope as plainly as can be. What a CloudEvent says otherwise is kept in
//! a header of the envelope; on the way back it is used only if it leads to the same envelope
//! again. So neither way can lose anything, whatever headers an envelope has.

use std::collections::BTreeMap;

use super::percent::{decode, decode_list, encode, encode_list, is_unreserved};
use super::{AttributeValue, CloudEvent, check, is_allowed, is_name, is_uri};
use crate::codec::ContentType;
use crate::envelope::{Envelope, EnvelopeBuilder, PAYLOAD_BYTES_MAX};
use crate::error::Error;
use crate::event_id::EventId;
use crate::event_type::EventType;
use crate::time::Timestamp;

/// The header that keeps what a CloudEvent said and an envelope has no place for.
pub const KEPT: &str = "ce-kept";

const VERSION: &str = "rumormillversion";
const FIELDS: &str = "rumormillfields";
const HEADERS: &str = "rumormillheaders";
/// Stands before a source that is no URI reference.
const SOURCE: &str = "rumormill:";

/// The attributes that are no headers.
const RESERVED: [&str; 15] = [
    "id",
    "source",
    "type",
    "specversion",
    "time",
    "data",
    "datacontenttype",
    "partitionkey",
    "expirytime",
    "traceparent",
    "correlationid",
    "causationid",
    VERSION,
    FIELDS,
    HEADERS,
];

impl From<&Envelope> for CloudEvent {
    fn from(envelope: &Envelope) -> Self {
        let restored = restored(envelope).filter(|event| {
            let back = event.to_envelope_within(envelope.time(), usize::MAX);
            back.is_ok_and(|back| back == *envelope)
        });
        restored.unwrap_or_else(|| rendered(envelope, |_| true))
    }
}

impl CloudEvent {
    /// The envelope that says the same. An absent `time` becomes `now`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) where the type is no event type, the
    /// content type no media type, or an extension of this library is not what it writes;
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) beyond the limits of an envelope.
    pub fn to_envelope(&self, now: Timestamp) -> Result<Envelope, Error> {
        self.to_envelope_within(now, PAYLOAD_BYTES_MAX)
    }

    /// [`to_envelope`](CloudEvent::to_envelope) with another limit of the payload's bytes.
    ///
    /// # Errors
    /// As [`to_envelope`](CloudEvent::to_envelope).
    pub fn to_envelope_within(&self, now: Timestamp, bytes_max: usize) -> Result<Envelope, Error> {
        let builder = self.fields(now)?;
        let plain = rendered(&builder.clone().build_within(bytes_max)?, |_| true);
        let mut kept = Vec::new();
        for (name, value) in self.attributes() {
            if plain.attribute(name) != Some(value) {
                kept.push((name.to_owned(), Some(typed(value))));
            }
        }
        // The time that is filled in stays: nobody could tell it from the event alone.
        let added = plain.attributes().map(|(name, _)| name).filter(|name| *name != "time");
        kept.extend(
            added.filter(|name| self.attribute(name).is_none()).map(|name| (name.into(), None)),
        );
        if kept.is_empty() {
            return builder.build_within(bytes_max);
        }
        let list = kept.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        builder.header(KEPT, encode_list(list)).build_within(bytes_max)
    }

    /// All that an envelope has a place for.
    fn fields(&self, now: Timestamp) -> Result<EnvelopeBuilder, Error> {
        let event_type = EventType::new(self.event_type().to_owned()).map_err(|error| {
            error.with_help("events are routed by type: segments of A-Z a-z 0-9 _ -, and dots")
        })?;
        let content_type = match self.content_type() {
            Some(name) => ContentType::new(name.to_owned())?,
            None => ContentType::JSON,
        };
        let time = self.text("time").map_or(now, moment);
        let odd = self.odd_fields()?;
        let own = |field: &str, name: &str| {
            odd.get(field).cloned().or_else(|| self.attribute(name).map(ToString::to_string))
        };
        let mut builder = Envelope::builder(event_type, content_type, self.data().clone(), time)
            .id(self.event_id())
            .version(self.version()?)
            .source(named(self.source()))
            .expires(self.text("expirytime").map(moment))
            .key(own("key", "partitionkey"))
            .traceparent(own("traceparent", "traceparent"))
            .correlation_id(own("correlationid", "correlationid"))
            .causation_id(own("causationid", "causationid"));
        for (name, value) in self.headers()? {
            builder = builder.header(name, value);
        }
        Ok(builder)
    }

    /// The UUID that `id` is, else one that always is the same for this id of this source.
    fn event_id(&self) -> EventId {
        let own = self.id().parse::<EventId>().ok().filter(|id| id.to_string() == self.id());
        own.unwrap_or_else(|| {
            EventId::derived(&[self.source().as_bytes(), b"\0", self.id().as_bytes()].concat())
        })
    }

    fn version(&self) -> Result<u32, Error> {
        let Some(version) = self.attribute(VERSION) else { return Ok(1) };
        version.to_string().parse().map_err(|_| {
            Error::invalid(format!("cloud event: {VERSION} {version:?} is no version of an event"))
        })
    }

    fn list(&self, name: &str) -> Result<Vec<(String, Option<String>)>, Error> {
        let Some(text) = self.attribute(name) else { return Ok(Vec::new()) };
        decode_list(&text.to_string()).ok_or_else(|| {
            Error::invalid(format!("cloud event: {name} is not what this library writes"))
        })
    }

    fn odd_fields(&self) -> Result<BTreeMap<String, String>, Error> {
        let fields = self.list(FIELDS)?;
        Ok(fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
    }

    /// The headers in their order: those that the list names, then every other extension.
    fn headers(&self) -> Result<Vec<(String, String)>, Error> {
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in self.list(HEADERS)? {
            let value = value.or_else(|| self.attribute(&name).map(ToString::to_string));
            headers.extend(value.map(|value| (name, value)));
        }
        let listed = headers.len();
        for (name, value) in self.attributes().filter(|(name, _)| !RESERVED.contains(name)) {
            if !headers[..listed].iter().any(|(own, _)| own == name) {
                headers.push((name.to_owned(), value.to_string()));
            }
        }
        Ok(headers)
    }
}

/// The envelope as plainly as can be, with the headers that `wanted` names.
fn rendered(envelope: &Envelope, wanted: impl Fn(&str) -> bool) -> CloudEvent {
    let mut attributes = BTreeMap::new();
    let mut set = |name: &str, value: AttributeValue| {
        attributes.insert(name.to_owned(), value);
    };
    set("id", envelope.id().to_string().into());
    set("source", uri(envelope.source()).into());
    set("type", envelope.event_type().as_str().into());
    set("time", envelope.time().to_string().into());
    set("datacontenttype", envelope.content_type().as_str().into());
    if let Some(expires) = envelope.expires() {
        set("expirytime", expires.to_string().into());
    }
    if envelope.version() != 1 {
        let version = envelope.version();
        let number = i32::try_from(version).map(AttributeValue::Integer);
        set(VERSION, number.unwrap_or_else(|_| version.to_string().into()));
    }
    let texts = [
        ("key", "partitionkey", envelope.key()),
        ("traceparent", "traceparent", envelope.traceparent()),
        ("correlationid", "correlationid", envelope.correlation_id()),
        ("causationid", "causationid", envelope.causation_id()),
    ];
    let mut odd = Vec::new();
    for (field, name, text) in texts {
        match text {
            Some(text) if !text.is_empty() && text.chars().all(is_allowed) => {
                set(name, text.into());
            }
            text => odd.extend(text.map(|text| (field, Some(text)))),
        }
    }
    if !odd.is_empty() {
        set(FIELDS, encode_list(odd.into_iter()).into());
    }
    let mut headers: Vec<(&str, &str)> = Vec::new();
    for (name, value) in envelope.headers().filter(|(name, _)| wanted(name)) {
        // Of two values of one name, which only a foreign writer can make, the first counts.
        if !headers.iter().any(|(own, _)| *own == name) {
            headers.push((name, value));
        }
    }
    for (name, value) in headers.iter().filter(|(name, value)| is_attribute(name, value)) {
        set(name, (*value).into());
    }
    if let Some(list) = header_list(&headers) {
        set(HEADERS, list.into());
    }
    CloudEvent { attributes, data: envelope.payload().clone() }
}

/// The headers in one text, where attributes alone would not give them back.
fn header_list(headers: &[(&str, &str)]) -> Option<String> {
    let sorted = headers.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if sorted && headers.iter().all(|(name, value)| is_attribute(name, value)) {
        return None;
    }
    let part = |(name, value): &(&str, &str)| -> (String, Option<String>) {
        ((*name).to_owned(), (!is_attribute(name, value)).then(|| (*value).to_owned()))
    };
    let parts: Vec<_> = headers.iter().map(part).collect();
    Some(encode_list(parts.iter().map(|(name, value)| (name.as_str(), value.as_deref()))))
}

fn is_attribute(name: &str, value: &str) -> bool {
    is_name(name) && !RESERVED.contains(&name) && check(name, &value.into()).is_ok()
}

/// The envelope with what its header [`KEPT`] says, if that is to be understood.
fn restored(envelope: &Envelope) -> Option<CloudEvent> {
    let kept = decode_list(envelope.header(KEPT)?)?;
    let mut event = rendered(envelope, |name| name != KEPT);
    for (name, value) in kept {
        match value {
            Some(value) => {
                let value = untyped(&value)?;
                check(&name, &value).ok()?;
                event.attributes.insert(name, value);
            }
            None if super::REQUIRED.contains(&name.as_str()) => return None,
            None => drop(event.attributes.remove(&name)),
        }
    }
    Some(event)
}

/// A value with its type, in one text.
fn typed(value: &AttributeValue) -> String {
    let kind = match value {
        AttributeValue::Text(_) => 't',
        AttributeValue::Integer(_) => 'i',
        AttributeValue::Boolean(_) => 'b',
    };
    format!("{kind}:{value}")
}

fn untyped(text: &str) -> Option<AttributeValue> {
    match text.split_once(':')? {
        ("t", text) => Some(text.into()),
        ("i", number) => number.parse().ok().map(AttributeValue::Integer),
        ("b", truth) => truth.parse().ok().map(AttributeValue::Boolean),
        _ => None,
    }
}

/// A source as a URI reference.
fn uri(source: &str) -> String {
    let plain = !source.is_empty() && source.bytes().all(is_uri) && source.chars().all(is_allowed);
    if plain && !source.starts_with(SOURCE) {
        return source.to_owned();
    }
    format!("{SOURCE}{}", encode(source, |byte| is_unreserved(byte) || byte == b'/'))
}

/// The source that [`uri`] wrote; any other is as it is.
fn named(uri: &str) -> String {
    let own = uri.strip_prefix(SOURCE).and_then(decode);
    own.filter(|source| self::uri(source) == uri).unwrap_or_else(|| uri.to_owned())
}

/// A time that was checked, to the millisecond; one before 1970 becomes 1970.
fn moment(text: &str) -> Timestamp {
    let millis = text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond);
    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
}
