//! The event, as a struct and as an envelope.

use std::borrow::Cow;
use std::sync::LazyLock;

use rumormill::{Clock, ContentType, Envelope, Event, EventType, SystemClock};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::job::Job;

/// Most keys of a job.
const KEYS_MAX: u64 = 1024;

static KEYS: LazyLock<Vec<String>> =
    LazyLock::new(|| (0..KEYS_MAX).map(|key| format!("key{key}")).collect());

#[derive(Serialize, Deserialize, Event)]
#[event(type = "bench.thing.happened", key = key)]
pub(super) struct Happened {
    #[serde(with = "bytes")]
    data: Vec<u8>,
    /// In the header only.
    #[serde(skip)]
    key: Option<Cow<'static, str>>,
}

impl Happened {
    pub(super) fn new(job: &Job, number: u64, data: Vec<u8>) -> Self {
        let key = job.key(number).and_then(|key| KEYS.get(usize::try_from(key).ok()?));
        Self { data, key: key.map(|key| Cow::Borrowed(key.as_str())) }
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.data
    }
}

/// A payload as a byte string, not as a list of numbers.
mod bytes {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(data: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(data)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

/// The event of a job with several topics, each by turns.
pub(super) fn envelope(job: &Job, number: u64, data: Vec<u8>) -> Result<Envelope, Error> {
    let topic = number % job.topics.max(1) as u64;
    let event_type = EventType::new(format!("bench{topic}.thing.happened"))?;
    let binary = ContentType::new("application/octet-stream")?;
    Ok(Envelope::builder(event_type, binary, data, SystemClock.now()).build()?)
}

/// What a handler of envelopes subscribes to.
pub(super) fn patterns(job: &Job) -> Vec<String> {
    match job.topics {
        0 => vec!["bench.thing.happened".to_owned()],
        topics => (0..topics).map(|topic| format!("bench{topic}.>")).collect(),
    }
}

/// The payload of an event that was not decoded for the handler.
pub(super) fn payload<'a>(job: &Job, envelope: &'a Envelope) -> &'a [u8] {
    let encoded = envelope.payload();
    match job.topics {
        // MessagePack, whose only value ends the payload.
        0 => &encoded[encoded.len() - job.payload.min(encoded.len())..],
        _ => encoded,
    }
}
