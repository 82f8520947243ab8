//! From a typed event to its envelope.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;

use crate::codec::Codec;
use crate::envelope::Envelope;
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
        let mut builder =
            Envelope::builder(E::TYPE, codec.content_type(), payload, self.clock.now())
                .version(E::VERSION)
                .source(self.source.clone())
                .key(key)
                .traceparent(options.traceparent)
                .correlation_id(options.correlation_id)
                .causation_id(options.causation_id);
        if let Some(id) = options.id {
            builder = builder.id(id);
        }
        if let Some(delay) = options.expires_after {
            builder = builder.expires_after(delay);
        }
        for (name, value) in options.headers {
            builder = builder.header(name, value);
        }
        builder.build_within(self.payload_bytes_max)
    }
}
