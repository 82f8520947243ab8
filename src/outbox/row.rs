//! A row of an outbox, as columns that people can read, and the event that they make.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::codec::ContentType;
use crate::envelope::Envelope;
use crate::error::Error;
use crate::event_type::EventType;
use crate::time::Timestamp;

/// A row that waits.
#[derive(Debug)]
pub struct Row {
    /// Its number: rows are published in this order.
    pub number: i64,
    /// The event, or why the row holds none: then it is set aside.
    pub event: Result<Envelope, Error>,
}

/// An event as columns. Rows may be written without this library, by a trigger say: `type` and
/// `payload` are enough, everything else has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// `id`: a UUID.
    pub id: String,
    /// `type`.
    pub event_type: String,
    /// `version`: of the payload's shape.
    pub version: i64,
    /// `time`: milliseconds since 1970.
    pub time: i64,
    /// `content_type`.
    pub content_type: String,
    /// `payload`.
    pub payload: Vec<u8>,
    /// `key`.
    pub key: Option<String>,
    /// `source`.
    pub source: String,
    /// `expires`: milliseconds since 1970.
    pub expires: Option<i64>,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// `correlation_id`.
    pub correlation_id: Option<String>,
    /// `causation_id`.
    pub causation_id: Option<String>,
    /// `headers`: a JSON object of texts.
    pub headers: String,
}

impl Columns {
    /// The columns of an event.
    pub fn new(envelope: &Envelope) -> Self {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let pairs = envelope.headers().map(|(name, value)| (name.into(), value.into()));
        let headers = serde_json::to_string(&Headers(pairs.collect()));
        Self {
            id: envelope.id().to_string(),
            event_type: envelope.event_type().as_str().to_owned(),
            version: i64::from(envelope.version()),
            time: signed(envelope.time()),
            content_type: envelope.content_type().as_str().to_owned(),
            payload: envelope.payload().to_vec(),
            key: text(envelope.key()),
            source: envelope.source().to_owned(),
            expires: envelope.expires().map(signed),
            traceparent: text(envelope.traceparent()),
            correlation_id: text(envelope.correlation_id()),
            causation_id: text(envelope.causation_id()),
            headers: headers.expect("a map of texts is always JSON"),
        }
    }

    /// The event, within all limits but that of the payload, which is the bus's.
    ///
    /// # Errors
    /// Where the columns make no event, naming the one that is wrong.
    pub fn envelope(self) -> Result<Envelope, Error> {
        let event_type: EventType = self.event_type.parse()?;
        let version = u32::try_from(self.version)
            .map_err(|_| Error::invalid(format!("version is {}", self.version)))?;
        let headers: Headers = serde_json::from_str(&self.headers).map_err(|error| {
            Error::invalid("headers are no JSON object of texts").with_source(error)
        })?;
        let content_type = ContentType::new(self.content_type)?;
        let payload = Bytes::from(self.payload);
        let mut builder = Envelope::builder(event_type, content_type, payload, moment(self.time)?)
            .id(self.id.parse()?)
            .version(version)
            .key(self.key)
            .source(self.source)
            .expires(self.expires.map(moment).transpose()?)
            .traceparent(self.traceparent)
            .correlation_id(self.correlation_id)
            .causation_id(self.causation_id);
        for (name, value) in headers.0 {
            builder = builder.header(name, value);
        }
        builder.build_within(usize::MAX)
    }
}

fn signed(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The end of 9999: what one database can write, and the other cannot.
const MILLIS_MAX: u64 = 253_402_300_799_999;

fn moment(millis: i64) -> Result<Timestamp, Error> {
    let millis = u64::try_from(millis).ok().filter(|millis| *millis <= MILLIS_MAX);
    let text = "a time is none, or lies before 1970 or after 9999";
    millis.map(Timestamp::from_millis).ok_or_else(|| Error::invalid(text))
}

/// Headers in the order in which they were set, as a JSON object.
struct Headers(Vec<(ByteString, ByteString)>);

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (&**name, &**value)))
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            headers.push((name.into(), value.into()));
        }
        Ok(Headers(headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Envelope {
        let now = Timestamp::from_millis(1_767_323_045_678);
        Envelope::builder(EventType::from_static("a.b.c"), ContentType::JSON, "{}", now)
            .version(7)
            .key(Some("k"))
            .source("shop")
            .expires(Some(Timestamp::from_millis(1_767_323_045_999)))
            .traceparent(Some("00-1-2-01"))
            .correlation_id(Some("c"))
            .causation_id(Some("d"))
            .header("z", "1")
            .header("a", "ä\"\\")
            .build()
            .expect("within limits")
    }

    #[test]
    fn an_event_comes_back_from_its_columns_as_it_was() {
        let bare = Envelope::builder(
            EventType::from_static("a.b"),
            ContentType::MESSAGE_PACK,
            vec![0, 159, 255],
            Timestamp::from_millis(0),
        );
        for envelope in [full(), bare.build().expect("within limits")] {
            assert_eq!(Columns::new(&envelope).envelope().expect("an event"), envelope);
        }
    }

    #[test]
    fn columns_that_are_no_event_say_which_one_is_wrong() {
        let columns = || Columns::new(&full());
        let cases = [
            (Columns { id: "7".into(), ..columns() }, "event id \"7\""),
            (Columns { event_type: "A b".into(), ..columns() }, "event type \"A b\""),
            (Columns { version: -1, ..columns() }, "version is -1"),
            (Columns { time: -1, ..columns() }, "or lies before 1970"),
            (Columns { expires: Some(i64::MAX), ..columns() }, "or after 9999"),
            (Columns { headers: "[1]".into(), ..columns() }, "headers"),
            (Columns { key: Some("k".repeat(2_000)), ..columns() }, "key of a.b.c"),
        ];
        for (columns, part) in cases {
            let error = columns.envelope().expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
