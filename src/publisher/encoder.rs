//! From a typed event to its envelope.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use crate::codec::Codec;
use crate::envelope::{Envelope, Fields, Rare, Said};
use crate::error::Error;
use crate::event::Event;
use crate::event_id::EventId;
use crate::time::Clock;

/// What one publish may say beyond the event itself. The default says nothing.
///
/// ```
/// use rumormill::PublishOptions;
/// use std::time::Duration;
/// let options = PublishOptions::default()
///     .key("order-7")
///     .header("tenant", "acme")
///     .expires_after(Duration::from_secs(60));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PublishOptions {
    id: Option<EventId>,
    key: Option<ByteString>,
    headers: Vec<(ByteString, ByteString)>,
    expires_after: Option<Duration>,
    codec: Option<Codec>,
    traceparent: Option<ByteString>,
    correlation_id: Option<ByteString>,
    causation_id: Option<ByteString>,
    pub(crate) deduplicate: bool,
}

impl PublishOptions {
    /// An id of the caller's, in place of a new one.
    pub fn id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }

    /// A key, in place of the one that the event's type names.
    pub fn key(mut self, key: impl Into<ByteString>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// A header.
    pub fn header(mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The event is not run any more this long after it was published.
    pub fn expires_after(mut self, delay: Duration) -> Self {
        self.expires_after = Some(delay);
        self
    }

    /// A codec, in place of the bus's.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// The W3C trace context.
    pub fn traceparent(mut self, traceparent: impl Into<ByteString>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// The id of the conversation.
    pub fn correlation_id(mut self, id: impl Into<ByteString>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// The id of the event that caused this one.
    pub fn causation_id(mut self, id: impl Into<ByteString>) -> Self {
        self.causation_id = Some(id.into());
        self
    }

    /// An event whose id was published with this option before, within the driver's window (15
    /// min), is not stored again: its receipt says so, and where the first one lies.
    ///
    /// For a relay or a caller that repeats itself, and for ids that the caller gives
    /// ([`id`](PublishOptions::id)): the id is all that is compared. It holds within a partition,
    /// so a repeat has to have the same key; without a key the id chooses the partition. What is
    /// published without this option is not compared with.
    pub fn deduplicate(mut self) -> Self {
        self.deduplicate = true;
        self
    }

    pub(crate) fn default_id(mut self, id: EventId) -> Self {
        self.id.get_or_insert(id);
        self
    }

    pub(crate) fn default_correlation_id(mut self, id: String) -> Self {
        self.correlation_id.get_or_insert_with(|| id.into());
        self
    }

    pub(crate) fn default_traceparent(mut self, traceparent: Option<&str>) -> Self {
        self.traceparent = self.traceparent.or_else(|| traceparent.map(ByteString::from));
        self
    }
}

/// Makes envelopes for one bus.
pub(crate) struct Encoder {
    pub(crate) codec: Codec,
    pub(crate) source: ByteString,
    pub(crate) payload_bytes_max: usize,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Encoder {
    pub(crate) fn encode<E: Event>(
        &self,
        event: &E,
        options: PublishOptions,
    ) -> Result<Envelope, Error> {
        let codec = options.codec.unwrap_or(self.codec);
        let payload = codec.encode(event)?;
        let key = options.key.or_else(|| event.key().map(|key| ByteString::from(key.into_owned())));
        let now = self.clock.now();
        let PublishOptions { traceparent, correlation_id, causation_id, .. } = options;
        let headers = once_each(options.headers);
        let fields = Fields {
            id: options.id.unwrap_or_else(|| EventId::new(now)),
            event_type: E::TYPE,
            version: E::VERSION,
            time: now,
            content_type: codec.content_type(),
            payload: payload.into(),
            key,
            source: self.source.clone(),
            expires: options.expires_after.map(|delay| now.plus(delay)),
            rare: Said { traceparent, correlation_id, causation_id, headers }.into(),
        };
        fields.build_within(self.payload_bytes_max)
    }

    /// Envelopes of events of which nothing else is said, in their order. They are encoded some
    /// ahead of their turn, and those share their allocations.
    pub(crate) fn encode_each<'a, E: Event>(&'a self, events: &'a [E]) -> Each<'a, E> {
        Each { encoder: self, events, ahead: Vec::new().into_iter(), failed: None }
    }

    /// Encodes from the head of `events`; gives the first failure beside what was encoded before.
    fn encode_ahead<E: Event>(&self, events: &[E]) -> (Vec<Envelope>, Option<Error>) {
        let (mut payloads, mut ends) = (Vec::new(), Vec::with_capacity(events.len()));
        let mut failed = None;
        for event in events {
            if let Err(error) = self.codec.encode_into(event, &mut payloads) {
                failed = Some(error);
                break;
            }
            if ends.is_empty() {
                // They are mostly of one size.
                payloads.reserve((payloads.len() * (events.len() - 1)).min(AHEAD_BYTES));
            }
            ends.push(payloads.len());
            if payloads.len() >= AHEAD_BYTES {
                break;
            }
        }
        let (payloads, now, mut from) = (Bytes::from(payloads), self.clock.now(), 0);
        let mut all = Vec::with_capacity(ends.len());
        for (event, end) in events.iter().zip(ends) {
            let fields = Fields {
                id: EventId::new(now),
                event_type: E::TYPE,
                version: E::VERSION,
                time: now,
                content_type: self.codec.content_type(),
                payload: payloads.slice(std::mem::replace(&mut from, end)..end),
                key: event.key().map(|key| ByteString::from(key.into_owned())),
                source: self.source.clone(),
                expires: None,
                rare: Rare::default(),
            };
            if let Err(error) = fields.check(self.payload_bytes_max) {
                failed = Some(error);
                break;
            }
            all.push(fields);
        }
        (Envelope::together(all).collect(), failed)
    }
}

/// Most events that are encoded ahead of their turn, and bytes of payload that end that.
const AHEAD_EVENTS: usize = 32;
const AHEAD_BYTES: usize = 16 << 10;

/// The envelopes of many events.
pub(crate) struct Each<'a, E> {
    encoder: &'a Encoder,
    /// Not encoded yet.
    events: &'a [E],
    ahead: std::vec::IntoIter<Envelope>,
    /// What comes behind those.
    failed: Option<Error>,
}

impl<E: Event> Iterator for Each<'_, E> {
    type Item = Result<Envelope, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(envelope) = self.ahead.next() {
                return Some(Ok(envelope));
            }
            if let Some(error) = self.failed.take() {
                return Some(Err(error));
            }
            if self.events.is_empty() {
                return None;
            }
            let most = self.events.len().min(AHEAD_EVENTS);
            let (envelopes, failed) = self.encoder.encode_ahead(&self.events[..most]);
            self.events = &self.events[envelopes.len() + usize::from(failed.is_some())..];
            (self.ahead, self.failed) = (envelopes.into_iter(), failed);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.ahead.len() + usize::from(self.failed.is_some()) + self.events.len();
        (left, Some(left))
    }
}

impl<E: Event> ExactSizeIterator for Each<'_, E> {}

/// Of headers of one name the last.
fn once_each(headers: Vec<(ByteString, ByteString)>) -> Vec<(ByteString, ByteString)> {
    let mut each: Vec<(ByteString, ByteString)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        match each.iter_mut().find(|(own, _)| *own == name) {
            Some((_, own)) => *own = value,
            None => each.push((name, value)),
        }
    }
    each
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_type::EventType;
    use crate::time::Timestamp;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Placed(u32);

    impl Event for Placed {
        const TYPE: EventType = EventType::from_static("orders.placed");
        const VERSION: u32 = 2;

        fn key(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some("own".into())
        }
    }

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1_000)
        }
    }

    fn encoder() -> Encoder {
        let (codec, source, clock) = (Codec::Json, "tests".into(), Arc::new(Stopped));
        Encoder { codec, source, payload_bytes_max: 4, clock }
    }

    #[test]
    fn an_event_says_what_its_publisher_does_not() {
        let options = PublishOptions::default();
        assert!(!options.deduplicate);
        let envelope = encoder().encode(&Placed(7), options).expect("within limits");
        assert_eq!(envelope.event_type(), &Placed::TYPE);
        assert_eq!((envelope.version(), envelope.key()), (2, Some("own")));
        assert_eq!((envelope.source(), envelope.payload().as_ref()), ("tests", &b"7"[..]));
        assert_eq!((envelope.time().as_millis(), envelope.expires()), (1_000, None));
    }

    #[test]
    fn what_the_publisher_says_counts() {
        let id = EventId::derived(b"a");
        let options = PublishOptions::default().id(id).key("k").header("h", "1").deduplicate();
        let options = options.expires_after(Duration::from_secs(1)).codec(Codec::MessagePack);
        let options = options.traceparent("t").correlation_id("c").causation_id("b");
        assert!(options.deduplicate);
        let envelope = encoder().encode(&Placed(7), options).expect("within limits");
        assert_eq!((envelope.id(), envelope.key()), (id, Some("k")));
        assert_eq!(envelope.header("h"), Some("1"));
        assert_eq!(envelope.expires(), Some(Timestamp::from_millis(2_000)));
        assert_eq!(envelope.content_type().codec(), Some(Codec::MessagePack));
        assert_eq!(envelope.traceparent(), Some("t"));
        assert_eq!((envelope.correlation_id(), envelope.causation_id()), (Some("c"), Some("b")));
        assert!(encoder().encode(&Placed(12_345), PublishOptions::default()).is_err());
    }

    #[test]
    fn many_events_are_as_if_each_was_encoded_alone() {
        let encoder = Encoder { payload_bytes_max: 1 << 20, ..encoder() };
        let events: Vec<Placed> = (0..100).map(Placed).collect();
        let each = encoder.encode_each(&events);
        assert_eq!(each.len(), 100);
        let many: Vec<Envelope> = each.map(|own| own.expect("within limits")).collect();
        let ids: std::collections::HashSet<EventId> = many.iter().map(Envelope::id).collect();
        assert_eq!(ids.len(), 100);
        for (event, own) in events.iter().zip(&many) {
            let options = PublishOptions::default().id(own.id());
            assert_eq!(*own, encoder.encode(event, options).expect("within limits"));
        }
        assert_eq!(encoder.encode_each::<Placed>(&[]).count(), 0);
    }

    #[test]
    fn what_fails_among_many_fails_alone() {
        // Five digits are one too many.
        let events: Vec<Placed> = [1, 12_345, 2, 12_345, 12_345, 3].map(Placed).into();
        let encoder = encoder();
        let mut each = encoder.encode_each(&events);
        let mut payloads = Vec::new();
        for left in (0..events.len()).rev() {
            payloads.push(each.next().expect("as many").map(|own| own.payload().to_vec()).ok());
            assert_eq!(each.len(), left);
        }
        let some = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(payloads, [some("1"), None, some("2"), None, None, some("3")]);
        assert!(each.next().is_none());
    }

    #[test]
    fn large_events_are_not_encoded_far_ahead() {
        struct Large;

        impl Serialize for Large {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&"x".repeat(AHEAD_BYTES))
            }
        }

        impl<'de> Deserialize<'de> for Large {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Ok(Self)
            }
        }

        impl Event for Large {
            const TYPE: EventType = EventType::from_static("orders.large");
        }

        let encoder = Encoder { payload_bytes_max: 1 << 20, ..encoder() };
        let (ahead, failed) = encoder.encode_ahead(&[Large, Large]);
        assert!(ahead.len() == 1 && failed.is_none());
        assert_eq!(encoder.encode_each(&[Large, Large, Large]).filter(Result::is_ok).count(), 3);
    }

    #[test]
    fn a_default_stands_where_the_publisher_says_nothing() {
        let (own, other) = (EventId::derived(b"a"), EventId::derived(b"b"));
        let with_defaults = |options: PublishOptions| {
            let options = options.default_id(other).default_correlation_id("other".to_owned());
            let options = options.default_traceparent(Some("other"));
            let envelope = encoder().encode(&Placed(7), options).expect("within limits");
            let texts = [envelope.correlation_id(), envelope.traceparent()];
            (envelope.id(), texts.map(|text| text.unwrap_or("").to_owned()))
        };
        let said = PublishOptions::default().id(own).correlation_id("c").traceparent("t");
        assert_eq!(with_defaults(said), (own, ["c".to_owned(), "t".to_owned()]));
        let others = ["other".to_owned(), "other".to_owned()];
        assert_eq!(with_defaults(PublishOptions::default()), (other, others));
    }
}
