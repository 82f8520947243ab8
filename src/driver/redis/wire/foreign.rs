//! Entries that any Redis client may write: `type`, `data`, and optional fields.

use bytes::Bytes;
use bytestring::ByteString;

use crate::codec::ContentType;
use crate::delivery::{EntryId, Malformed, Partition, Record};
use crate::driver::redis::reply::Fields;
use crate::envelope::Envelope;
use crate::event_id::EventId;
use crate::event_type::EventType;
use crate::time::Timestamp;

/// What a foreign entry may hold, each once.
#[derive(Default)]
struct Foreign {
    event_type: Option<Bytes>,
    data: Option<Bytes>,
    key: Option<Bytes>,
    id: Option<Bytes>,
    time: Option<Bytes>,
    content_type: Option<Bytes>,
}

pub(super) fn decode(partition: &Partition, id: EntryId, fields: Fields) -> Record {
    let foreign = Foreign::sort(&fields).and_then(|foreign| foreign.envelope(partition, id));
    foreign.map_err(|reason| Malformed { reason, fields })
}

impl Foreign {
    fn sort(fields: &Fields) -> Result<Self, String> {
        let mut foreign = Self::default();
        for (name, value) in fields {
            let place = match &**name {
                b"type" => &mut foreign.event_type,
                b"data" => &mut foreign.data,
                b"key" => &mut foreign.key,
                b"id" => &mut foreign.id,
                b"time" => &mut foreign.time,
                b"content_type" => &mut foreign.content_type,
                other => {
                    let shown: String = String::from_utf8_lossy(other).chars().take(80).collect();
                    return Err(format!("field {shown:?} is not known"));
                }
            };
            if place.replace(value.clone()).is_some() {
                return Err(format!("field {:?} is doubled", String::from_utf8_lossy(name)));
            }
        }
        Ok(foreign)
    }

    fn envelope(self, partition: &Partition, id: EntryId) -> Result<Envelope, String> {
        let event_type = self.event_type.ok_or("field \"type\" is missing")?;
        let data = self.data.ok_or("field \"data\" is missing")?;
        let event_type = EventType::new(text("type", event_type)?).map_err(|e| e.to_string())?;
        let content_type = match self.content_type {
            Some(value) => {
                ContentType::new(text("content_type", value)?).map_err(|e| e.to_string())?
            }
            None => ContentType::JSON,
        };
        let time = match self.time {
            Some(value) => moment(&text("time", value)?)?,
            None => Timestamp::from_millis(id.millis),
        };
        let key = self.key.map(|key| text("key", key)).transpose()?;
        Envelope::builder(event_type, content_type, data, time)
            .id(event_id(self.id, partition, id))
            .key(key)
            .build_within(usize::MAX)
            .map_err(|error| error.to_string())
    }
}

fn text(name: &str, value: Bytes) -> Result<ByteString, String> {
    ByteString::try_from(value).map_err(|_| format!("field {name:?} is not UTF-8"))
}

/// RFC 3339, or milliseconds since 1970.
fn moment(text: &str) -> Result<Timestamp, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let millis = text.parse().map_err(|_| format!("time {text:?} is too large"))?;
        return Ok(Timestamp::from_millis(millis));
    }
    text.parse().map_err(|error: crate::Error| error.to_string())
}

/// The id given, an id made of what is given where that is no UUID, else one made of the place.
fn event_id(given: Option<Bytes>, partition: &Partition, id: EntryId) -> EventId {
    match given {
        Some(given) => std::str::from_utf8(&given)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| EventId::derived(&given)),
        None => EventId::derived(format!("{partition}/{id}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&'static str, &'static str)]) -> Record {
        let partition = "user_service:0".parse().expect("valid");
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        decode(&partition, EntryId { millis: 7, seq: 1 }, fields)
    }

    #[test]
    fn type_and_data_are_enough() {
        let data = r#"{"user_id": "user_carol"}"#;
        let envelope =
            read(&[("type", "user_service.user.created"), ("data", data)]).expect("an event");
        assert_eq!(envelope.payload(), data.as_bytes());
        assert_eq!(envelope.content_type(), &ContentType::JSON);
        assert_eq!(envelope.time().as_millis(), 7);
        assert_eq!(envelope.id(), EventId::derived(b"user_service:0/7-1"));
        assert_eq!(envelope.key(), None);
    }

    #[test]
    fn optional_fields_count() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let common = [("type", "a.b"), ("data", "x"), ("content_type", "text/plain")];
        let given = [("key", "k"), ("id", id), ("time", "2026-01-02T03:04:05Z")];
        let envelope = read(&[common, given].concat()).expect("an event");
        assert_eq!((envelope.key(), envelope.id().to_string()), (Some("k"), id.to_owned()));
        assert_eq!(envelope.time().to_string(), "2026-01-02T03:04:05Z");
        let envelope =
            read(&[("type", "a.b"), ("data", "x"), ("id", "order-7"), ("time", "1700000000000")])
                .expect("an event");
        assert_eq!(envelope.id(), EventId::derived(b"order-7"));
        assert_eq!(envelope.time().as_millis(), 1_700_000_000_000);
    }

    #[test]
    fn anything_else_is_malformed_and_kept() {
        let bad: [&[(&str, &str)]; 7] = [
            &[("foo", "bar")],
            &[("type", "a.b")],
            &[("data", "1")],
            &[("type", "a..b"), ("data", "1")],
            &[("type", "a.b"), ("data", "1"), ("data", "2")],
            &[("type", "a.b"), ("data", "1"), ("time", "yesterday")],
            &[("type", "a.b"), ("data", "1"), ("version", "2")],
        ];
        for fields in bad {
            let malformed = read(fields).expect_err("malformed");
            assert_eq!(malformed.fields.len(), fields.len(), "{}", malformed.reason);
        }
    }
}
