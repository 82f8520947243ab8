//! Dead letters as tools page through them.

use serde::Serialize;

use crate::delivery::{Cause, DeadLetter, EntryId, Position};
use crate::envelope::Envelope;
use crate::event_id::EventId;
use crate::event_type::EventType;
use crate::time::Timestamp;

/// Some dead letters, whole, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterPage {
    /// The letters, oldest first.
    pub letters: Vec<DeadLetter>,
    /// Ask for what comes after this id; nothing where this was the last page.
    pub next: Option<EntryId>,
}

impl DeadLetterPage {
    /// A page that was to hold `count` letters.
    pub(crate) fn new(letters: Vec<DeadLetter>, count: usize) -> Self {
        let full = count > 0 && letters.len() >= count;
        let next = if full { letters.last().map(|letter| letter.id) } else { None };
        Self { letters, next }
    }
}

/// What a redrive did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Redriven {
    /// Given to the group again.
    pub moved: u64,
    /// Not there: redriven or purged before.
    pub missing: u64,
    /// Hold no event and stay where they are.
    pub malformed: u64,
}

/// A dead letter without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetterSummary {
    /// Its id in the group's dead letters of the partition.
    pub id: EntryId,
    /// When it was given up.
    pub time: Timestamp,
    /// Where the event lay first.
    pub origin: Position,
    /// Why it was given up.
    pub cause: Cause,
    /// The error and its causes, outermost first.
    pub errors: Vec<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// The consumer that gave it up.
    pub consumer: String,
    /// The event's header; nothing where it is none.
    pub event: Option<EventSummary>,
    /// What is wrong with what is no event.
    pub malformed: Option<String>,
}

/// An event's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventSummary {
    /// The id.
    pub id: EventId,
    /// The type.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// The type's version.
    pub version: u32,
    /// When it happened.
    pub time: Timestamp,
    /// The key.
    pub key: Option<String>,
    /// Bytes of the payload.
    pub payload_bytes: usize,
}

impl From<&Envelope> for EventSummary {
    fn from(envelope: &Envelope) -> Self {
        Self {
            id: envelope.id(),
            event_type: envelope.event_type().clone(),
            version: envelope.version(),
            time: envelope.time(),
            key: envelope.key().map(str::to_owned),
            payload_bytes: envelope.payload().len(),
        }
    }
}

impl From<&DeadLetter> for DeadLetterSummary {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            id: letter.id,
            time: Timestamp::from_millis(letter.id.millis),
            origin: letter.origin.clone(),
            cause: letter.failure.cause,
            errors: letter.failure.errors.clone(),
            attempts: letter.attempts,
            consumer: letter.consumer.clone(),
            event: letter.record.as_ref().ok().map(EventSummary::from),
            malformed: letter.record.as_ref().err().map(|malformed| malformed.reason.clone()),
        }
    }
}
