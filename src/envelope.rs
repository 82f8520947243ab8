//! An event's header and its encoded payload: what travels.
//!
//! `wire` (below) is the byte format; `docs/wire.md` describes it for other languages.

mod rare;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::DeserializeOwned;

pub(crate) use rare::{Rare, Said};

use crate::codec::{Codec, ContentType};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::event_id::EventId;
use crate::event_type::EventType;
use crate::time::Timestamp;

/// Most bytes of a payload, unless the bus is built with another limit: 1 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Most headers of an event.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of all header names and values together: 8 KiB.
pub const HEADER_BYTES_MAX: usize = 8 << 10;
/// Most bytes of a key: 1 KiB.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Most bytes of the source, the trace, the correlation and the causation, each.
pub const TEXT_BYTES_MAX: usize = 255;

/// An event as it travels: header fields and the payload, still encoded.
///
/// Cloning is a reference count. Made with [`Envelope::builder`], which checks every limit. Those
/// that were read together share one allocation, and the bytes they were read from, as do those of
/// one `publish_many`, 32 at a time: one that is kept for long keeps the others.
#[derive(Clone)]
pub struct Envelope {
    batch: Arc<[Fields]>,
    place: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) id: EventId,
    pub(crate) event_type: EventType,
    pub(crate) version: u32,
    pub(crate) time: Timestamp,
    pub(crate) content_type: ContentType,
    pub(crate) payload: Bytes,
    pub(crate) key: Option<ByteString>,
    pub(crate) source: ByteString,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) rare: Rare,
}

impl Envelope {
    fn alone(fields: Fields) -> Self {
        Self { batch: Arc::new([fields]), place: 0 }
    }

    /// As many envelopes in one allocation.
    pub(crate) fn together(batch: Vec<Fields>) -> impl ExactSizeIterator<Item = Self> + use<> {
        let batch: Arc<[Fields]> = batch.into();
        (0..batch.len()).map(move |place| Self { batch: Arc::clone(&batch), place })
    }

    fn fields(&self) -> &Fields {
        &self.batch[self.place]
    }

    /// Starts an envelope of `event_type` with an encoded payload, made at `now`.
    ///
    /// Defaults: a new id, version 1, no key, an empty source, no expiry, no headers.
    pub fn builder(
        event_type: EventType,
        content_type: ContentType,
        payload: impl Into<Bytes>,
        now: Timestamp,
    ) -> EnvelopeBuilder {
        EnvelopeBuilder(Fields {
            id: EventId::new(now),
            event_type,
            version: 1,
            time: now,
            content_type,
            payload: payload.into(),
            key: None,
            source: ByteString::new(),
            expires: None,
            rare: Rare::default(),
        })
    }

    /// The id: the same for every delivery and retry.
    pub fn id(&self) -> EventId {
        self.fields().id
    }

    /// The type.
    pub fn event_type(&self) -> &EventType {
        &self.fields().event_type
    }

    /// The version of the payload's shape, from 1.
    pub fn version(&self) -> u32 {
        self.fields().version
    }

    /// When the publisher made the event, by its clock.
    pub fn time(&self) -> Timestamp {
        self.fields().time
    }

    /// How the payload is encoded.
    pub fn content_type(&self) -> &ContentType {
        &self.fields().content_type
    }

    /// The encoded payload.
    pub fn payload(&self) -> &Bytes {
        &self.fields().payload
    }

    /// Events of one key are handled in order.
    pub fn key(&self) -> Option<&str> {
        self.fields().key.as_deref()
    }

    /// Who published it: the bus's `source`; empty where nobody said.
    pub fn source(&self) -> &str {
        &self.fields().source
    }

    /// From this moment on the event is not run any more.
    pub fn expires(&self) -> Option<Timestamp> {
        self.fields().expires
    }

    /// The W3C trace context of the publisher.
    pub fn traceparent(&self) -> Option<&str> {
        self.fields().rare.get().traceparent.as_deref()
    }

    /// The id of the conversation that the event belongs to.
    pub fn correlation_id(&self) -> Option<&str> {
        self.fields().rare.get().correlation_id.as_deref()
    }

    /// The id of the event whose handler published this one.
    pub fn causation_id(&self) -> Option<&str> {
        self.fields().rare.get().causation_id.as_deref()
    }

    /// The payload as a value of the caller's type, decoded by its content type.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] where the payload is no such value, or no codec knows its type.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.codec()?.decode(&self.fields().payload)
    }

    /// The event itself, upcast from the version that it was published as.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] as [`payload_as`](Envelope::payload_as), and where `E` does not know
    /// the version; [`ErrorKind::Invalid`] where this is an event of another type.
    pub fn event<E: Event>(&self) -> Result<E, Error> {
        if self.fields().event_type != E::TYPE {
            return Err(Error::invalid(format!("{} is no {}", self.fields().event_type, E::TYPE)));
        }
        E::from_payload(self.fields().version, self.codec()?, &self.fields().payload)
    }

    fn codec(&self) -> Result<Codec, Error> {
        self.fields().content_type.codec().ok_or_else(|| {
            let (kind, name) = (&self.fields().content_type, &self.fields().event_type);
            let text = format!("payload of {name} has content type {kind}, which no codec reads");
            Error::new(ErrorKind::Codec, text)
        })
    }

    /// The headers, in the order they were set.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.fields().rare.get().headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// Whether the event is past its expiry at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.fields().expires.is_some_and(|expires| expires <= now)
    }

    /// The same event with another payload, of the same content type.
    pub(crate) fn with_payload(&self, payload: Bytes) -> Result<Self, Error> {
        // What was published within a larger limit may be edited within it.
        let most = PAYLOAD_BYTES_MAX.max(self.fields().payload.len());
        Fields { payload, ..self.fields().clone() }.build_within(most)
    }

    /// About what it costs to hold: payload, key and headers plus a fixed part. Bytes.
    pub fn weight(&self) -> usize {
        self.fields().weight()
    }

    #[cfg(feature = "outbox")]
    pub(crate) fn check(&self, payload_bytes_max: usize) -> Result<(), Error> {
        self.fields().check(payload_bytes_max)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields().fmt(f)
    }
}

impl PartialEq for Envelope {
    fn eq(&self, other: &Self) -> bool {
        self.fields() == other.fields()
    }
}

impl Eq for Envelope {}

impl Fields {
    /// As [`EnvelopeBuilder::build_within`].
    pub(crate) fn build_within(self, payload_bytes_max: usize) -> Result<Envelope, Error> {
        self.check(payload_bytes_max)?;
        Ok(Envelope::alone(self))
    }

    fn weight(&self) -> usize {
        let rare = self.rare.weight();
        // The struct and the two allocations that nearly every event has.
        const FIXED: usize = size_of::<Fields>() + 96;
        FIXED + self.payload.len() + self.key.as_ref().map_or(0, |key| key.len()) + rare
    }

    pub(crate) fn check(&self, payload_bytes_max: usize) -> Result<(), Error> {
        let within = |what: &str, length: usize, max: usize| {
            if length <= max {
                return Ok(());
            }
            let text = format!("{what} of {} has {length} bytes, {max} at most", self.event_type);
            Err(Error::new(ErrorKind::TooLarge, text))
        };
        within("payload", self.payload.len(), payload_bytes_max)
            .map_err(|error| error.with_help("store the data elsewhere and publish its address"))?;
        within("key", self.key.as_ref().map_or(0, |key| key.len()), KEY_BYTES_MAX)?;
        within("source", self.source.len(), TEXT_BYTES_MAX)?;
        if !self.rare.is_said() {
            return Ok(());
        }
        let said = self.rare.get();
        let texts = [
            ("traceparent", &said.traceparent),
            ("correlation id", &said.correlation_id),
            ("causation id", &said.causation_id),
        ];
        for (what, text) in texts {
            within(what, text.as_ref().map_or(0, |text| text.len()), TEXT_BYTES_MAX)?;
        }
        if said.headers.len() > HEADERS_MAX {
            let (count, name) = (said.headers.len(), &self.event_type);
            let text = format!("{name} has {count} headers, {HEADERS_MAX} at most");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        within("header block", said.header_bytes(), HEADER_BYTES_MAX)
    }
}

/// An [`Envelope`] in the making.
#[derive(Clone, Debug)]
#[must_use = "an envelope is made by `build`"]
pub struct EnvelopeBuilder(Fields);

impl EnvelopeBuilder {
    /// Sets the id, in place of a new one.
    pub fn id(mut self, id: EventId) -> Self {
        self.0.id = id;
        self
    }

    /// Sets the version of the payload's shape.
    pub fn version(mut self, version: u32) -> Self {
        self.0.version = version;
        self
    }

    /// Sets the time, in place of now.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.0.time = time;
        self
    }

    /// Sets or clears the key.
    pub fn key(mut self, key: Option<impl Into<ByteString>>) -> Self {
        self.0.key = key.map(Into::into);
        self
    }

    /// Sets who publishes.
    pub fn source(mut self, source: impl Into<ByteString>) -> Self {
        self.0.source = source.into();
        self
    }

    /// Lets the event expire this long after its time.
    pub fn expires_after(mut self, delay: Duration) -> Self {
        self.0.expires = Some(self.0.time.plus(delay));
        self
    }

    /// Sets or clears the moment of expiry.
    pub fn expires(mut self, expires: Option<Timestamp>) -> Self {
        self.0.expires = expires;
        self
    }

    /// Sets or clears the W3C trace context.
    pub fn traceparent(mut self, traceparent: Option<impl Into<ByteString>>) -> Self {
        if traceparent.is_some() || self.0.rare.is_said() {
            self.0.rare.set().traceparent = traceparent.map(Into::into);
        }
        self
    }

    /// Sets or clears the id of the conversation.
    pub fn correlation_id(mut self, id: Option<impl Into<ByteString>>) -> Self {
        if id.is_some() || self.0.rare.is_said() {
            self.0.rare.set().correlation_id = id.map(Into::into);
        }
        self
    }

    /// Sets or clears the id of the event that caused this one.
    pub fn causation_id(mut self, id: Option<impl Into<ByteString>>) -> Self {
        if id.is_some() || self.0.rare.is_said() {
            self.0.rare.set().causation_id = id.map(Into::into);
        }
        self
    }

    /// Sets a header; a second value of one name replaces the first.
    pub fn header(mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        let (name, value) = (name.into(), value.into());
        let headers = &mut self.0.rare.set().headers;
        match headers.iter_mut().find(|(own, _)| *own == name) {
            Some((_, own)) => *own = value,
            None => headers.push((name, value)),
        }
        self
    }

    /// The envelope, every limit checked; the payload against [`PAYLOAD_BYTES_MAX`].
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`], naming the part, its size and the limit.
    pub fn build(self) -> Result<Envelope, Error> {
        self.build_within(PAYLOAD_BYTES_MAX)
    }

    /// The envelope, its payload checked against a limit of the caller's.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`], naming the part, its size and the limit.
    pub fn build_within(self, payload_bytes_max: usize) -> Result<Envelope, Error> {
        self.0.build_within(payload_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_323_045_000);

    fn empty() -> EnvelopeBuilder {
        Envelope::builder(EventType::from_static("a.b"), ContentType::JSON, "", NOW)
    }

    fn of(length: usize) -> String {
        "x".repeat(length)
    }

    #[test]
    fn an_envelope_gives_back_what_it_was_made_with() {
        let id = EventId::derived(b"a");
        let made = empty().id(id).version(3).time(NOW.plus(Duration::from_secs(1)));
        let made = made.key(Some("k")).source("s").traceparent(Some("t"));
        let made = made.correlation_id(Some("c")).causation_id(Some("b"));
        let made = made.header("one", "1").header("two", "2").header("one", "3");
        let envelope = made.expires_after(Duration::from_secs(2)).build().expect("within limits");
        assert_eq!((envelope.id(), envelope.version()), (id, 3));
        assert_eq!(envelope.event_type().as_str(), "a.b");
        assert_eq!(envelope.content_type(), &ContentType::JSON);
        assert_eq!(envelope.time().since(NOW), Duration::from_secs(1));
        assert_eq!(envelope.expires().expect("set").since(NOW), Duration::from_secs(3));
        assert_eq!((envelope.key(), envelope.source()), (Some("k"), "s"));
        assert_eq!(envelope.traceparent(), Some("t"));
        assert_eq!((envelope.correlation_id(), envelope.causation_id()), (Some("c"), Some("b")));
        assert_eq!(envelope.headers().collect::<Vec<_>>(), [("one", "3"), ("two", "2")]);
        assert_eq!((envelope.header("two"), envelope.header("three")), (Some("2"), None));
    }

    #[test]
    fn an_event_expires_at_its_moment() {
        let later = NOW.plus(Duration::from_millis(1));
        let envelope = empty().expires(Some(later)).build().expect("within limits");
        assert!(!envelope.is_expired(NOW) && envelope.is_expired(later));
        assert!(!empty().build().expect("within limits").is_expired(later));
    }

    #[test]
    fn every_part_has_a_limit_and_may_reach_it() {
        type Part = fn(EnvelopeBuilder, usize) -> EnvelopeBuilder;
        let parts: [(usize, Part); 6] = [
            (KEY_BYTES_MAX, |builder, length| builder.key(Some(of(length)))),
            (TEXT_BYTES_MAX, |builder, length| builder.source(of(length))),
            (TEXT_BYTES_MAX, |builder, length| builder.traceparent(Some(of(length)))),
            (TEXT_BYTES_MAX, |builder, length| builder.correlation_id(Some(of(length)))),
            (TEXT_BYTES_MAX, |builder, length| builder.causation_id(Some(of(length)))),
            (HEADER_BYTES_MAX, |builder, length| builder.header("h", of(length - 1))),
        ];
        for (most, part) in parts {
            part(empty(), most).build().expect("as much as there may be");
            let error = part(empty(), most + 1).build().expect_err("more than there may be");
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        }
    }

    #[test]
    fn headers_have_a_limit_and_may_reach_it() {
        let with = |count: usize| {
            (0..count).fold(empty(), |builder, number| builder.header(number.to_string(), ""))
        };
        with(HEADERS_MAX).build().expect("as many as there may be");
        assert!(with(HEADERS_MAX + 1).build().is_err());
    }

    #[test]
    fn a_payload_has_the_limit_of_who_builds_and_may_reach_it() {
        let build = |length: usize, most: usize| {
            let kind = EventType::from_static("a.b");
            Envelope::builder(kind, ContentType::JSON, of(length), NOW).build_within(most)
        };
        build(5, 5).expect("as much as there may be");
        let error = build(6, 5).expect_err("more than there may be");
        assert!(error.help().is_some(), "{error}");
    }

    #[test]
    fn a_payload_is_replaced_within_the_limit_it_was_published_in() {
        let large = Bytes::from(of(PAYLOAD_BYTES_MAX + 1));
        assert!(empty().build().expect("small").with_payload(large.clone()).is_err());
        let envelope = empty().key(Some("k")).build().expect("small");
        let edited = envelope.with_payload(Bytes::from_static(b"1")).expect("small");
        assert_eq!((edited.payload().as_ref(), edited.key()), (&b"1"[..], Some("k")));
        assert_eq!(edited.payload_as::<u32>().expect("a number"), 1);
        let kind = EventType::from_static("a.b");
        let builder = Envelope::builder(kind, ContentType::JSON, large.clone(), NOW);
        let envelope = builder.build_within(large.len()).expect("its publisher's limit");
        envelope.with_payload(large).expect("no more than it was");
    }

    #[test]
    fn the_weight_counts_payload_key_and_headers() {
        let weight = |builder: EnvelopeBuilder| builder.build().expect("within limits").weight();
        let nothing = weight(empty());
        assert!(nothing > 96, "{nothing}");
        assert_eq!(weight(empty().key(Some("abc"))), nothing + 3);
        let headers = weight(empty().header("ab", "cdef").header("c", ""));
        assert_eq!(headers, nothing + size_of::<Said>() + 7);
        let kind = EventType::from_static("a.b");
        assert_eq!(weight(Envelope::builder(kind, ContentType::JSON, "12345", NOW)), nothing + 5);
    }
}
