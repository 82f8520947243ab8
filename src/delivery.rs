//! Where an event lies, how it is handed to a group, and how that ends. Values only: no clock, no
//! I/O.

mod confirm;
mod dead_letter;
mod position;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use confirm::Confirm;
pub use dead_letter::{DeadLetter, Fingerprint, LetterIdentity, Site};
pub use position::{EntryId, Partition, Position};

use crate::envelope::Envelope;
use crate::event_id::EventId;
use crate::time::Timestamp;

/// A set of indexes into an entry's batch: bit `i % 8` of byte `i / 8`. Trailing zero bytes do not
/// count.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u8>);

impl Bits {
    /// No index.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The set with these bytes.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, as they stand in a progress record.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds an index; false where it was there.
    pub fn insert(&mut self, index: u32) -> bool {
        let (byte, bit) = (index as usize / 8, 1 << (index % 8));
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        let fresh = self.0[byte] & bit == 0;
        self.0[byte] |= bit;
        fresh
    }

    /// Whether an index is in the set.
    pub fn contains(&self, index: u32) -> bool {
        self.0.get(index as usize / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// How many indexes are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Whether no index is in the set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for Bits {
    fn eq(&self, other: &Self) -> bool {
        let trimmed =
            |bits: &Self| bits.0.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let (own, others) = (trimmed(self), trimmed(other));
        self.0[..own] == other.0[..others]
    }
}

impl Eq for Bits {}

/// What an entry holds in one place: an event, or bytes that are none.
pub type Record = Result<Envelope, Malformed>;

/// Something in a stream that is no event: kept as it is, dead-lettered as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong with it.
    pub reason: String,
    /// The raw fields and values.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// Which of a group's two streams an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// The topic's log, which all groups read.
    Log,
    /// The group's own retry stream; its entries hold one event each.
    Retry,
}

/// What a driver wants to know again when a delivery ends: opaque to everyone else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// One stream entry as handed to one consumer: a batch of 1..n events under one lease.
#[derive(Debug)]
pub struct Entry {
    /// The partition it belongs to.
    pub partition: Partition,
    /// Which stream of the partition.
    pub queue: Queue,
    /// Its id in that stream.
    pub id: EntryId,
    /// The events. A driver may share them between groups.
    pub records: Arc<[Record]>,
    /// Which of them were settled by an earlier holder; they are not run again.
    pub settled: Bits,
    /// The attempt that a delivery of its events is, from 1.
    pub attempt: u32,
    /// Where a retried event lay first.
    pub origin: Option<Position>,
    /// The driver's fence.
    pub token: Token,
    /// It was there each time a consumer died: handed out four times or more, or split off such
    /// an entry. One of its events may be what kills its process; see
    /// [`Settler::begin`](crate::driver::Settler::begin).
    pub suspect: bool,
    /// Cancelled when another consumer took the entry over.
    pub lease: CancellationToken,
}

impl Entry {
    /// The events that are still to be settled, as deliveries.
    pub fn deliveries(self: &Arc<Self>) -> impl Iterator<Item = Delivery> {
        let count = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        let open = (0..count).filter(|index| !self.settled.contains(*index));
        open.map(|index| Delivery { entry: Arc::clone(self), index })
    }

    /// Whether it has one event, and that is not settled.
    pub(crate) fn is_one_event(&self) -> bool {
        self.records.len() == 1 && self.settled.is_empty()
    }

    /// What it costs to hold the entry. Bytes.
    pub fn weight(&self) -> usize {
        self.records.iter().map(weigh).sum()
    }
}

/// What it costs to hold a record. Bytes.
pub(crate) fn weigh(record: &Record) -> usize {
    match record {
        Ok(envelope) => envelope.weight(),
        Err(malformed) => {
            malformed.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
        }
    }
}

/// One event handed to one group.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The entry that holds it.
    pub entry: Arc<Entry>,
    /// Its place in the entry's batch.
    pub index: u32,
}

impl Delivery {
    /// The event, or what is there in its place.
    pub fn record(&self) -> &Record {
        &self.entry.records[self.index as usize]
    }

    /// The event, where it is one.
    pub fn envelope(&self) -> Option<&Envelope> {
        self.record().as_ref().ok()
    }

    /// The attempt that this delivery is, from 1.
    pub fn attempt(&self) -> u32 {
        self.entry.attempt
    }

    /// What it costs to hold the event. Bytes.
    pub fn weight(&self) -> usize {
        weigh(self.record())
    }

    /// Where the event lay first: the same for every retry.
    pub fn origin(&self) -> Position {
        self.entry.origin.clone().unwrap_or_else(|| Position {
            partition: self.entry.partition.clone(),
            entry: self.entry.id,
            index: self.index,
        })
    }

    /// This delivery with its end.
    pub fn settle(self, outcome: Outcome) -> Settlement {
        Settlement { delivery: self, outcome }
    }
}

/// An event that a handler publishes with the end of its delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it goes.
    pub partition: Partition,
    /// The event.
    pub envelope: Envelope,
}

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Handled; the outputs are published in the same step.
    Ack {
        /// What the handler published.
        outputs: Vec<Output>,
    },
    /// Handled, once per group and event id: in the same step the id is noted for `window`. Where
    /// it is noted already, the outputs are left out, and the answer is [`Settled::Duplicate`].
    AckOnce {
        /// What the handler published.
        outputs: Vec<Output>,
        /// How long the id is known, by the store's clock.
        window: Duration,
    },
    /// Tried again as the next attempt, `after` from now.
    Retry {
        /// The delay.
        after: Duration,
        /// Why.
        failure: Failure,
    },
    /// Given up.
    DeadLetter {
        /// Why.
        failure: Failure,
    },
    /// Kept behind a dead letter of its key, attempt unchanged, until that is redriven and handled,
    /// or deleted; at once run again where nothing holds the key any more.
    Park,
    /// Handed to whichever consumer of the group is free, attempt unchanged, `after` from now.
    Split {
        /// The delay; zero wakes another consumer at once.
        after: Duration,
    },
}

impl Outcome {
    /// Handled, nothing published.
    pub const fn ack() -> Self {
        Self::Ack { outputs: Vec::new() }
    }

    /// Whether it is an ack without outputs, which is true whoever says it.
    pub fn is_plain_ack(&self) -> bool {
        matches!(self, Self::Ack { outputs } if outputs.is_empty())
    }

    /// What is published with this end.
    pub fn outputs(&self) -> &[Output] {
        match self {
            Self::Ack { outputs } | Self::AckOnce { outputs, .. } => outputs,
            Self::Retry { .. } | Self::DeadLetter { .. } | Self::Park | Self::Split { .. } => &[],
        }
    }

    /// Whether nobody waits for it: an ack that publishes nothing.
    pub(crate) fn may_wait(&self) -> bool {
        matches!(self, Self::Ack { .. } | Self::AckOnce { .. }) && self.outputs().is_empty()
    }
}

/// A delivery and its end.
#[derive(Clone, Debug)]
#[must_use = "a settlement does nothing until a settler takes it"]
pub struct Settlement {
    /// The delivery.
    pub delivery: Delivery,
    /// Its end.
    pub outcome: Outcome,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was applied now.
    Done,
    /// The event was settled before; nothing was changed.
    Already,
    /// It was applied now, without its outputs: the group had handled an event of this id, which
    /// an [`Outcome::AckOnce`] asks about.
    Duplicate,
    /// Another consumer holds the entry; nothing was changed.
    LeaseLost,
}

/// Why an event was retried or dead-lettered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class.
    pub cause: Cause,
    /// The error and its causes, outermost first.
    pub errors: Vec<String>,
    /// Who failed at it.
    #[serde(default)]
    pub site: Site,
}

impl Failure {
    /// A failure with one line of text.
    pub fn new(cause: Cause, error: impl Into<String>) -> Self {
        Self { cause, errors: vec![error.into()], site: Site::default() }
    }
}

/// The class of a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The handler failed and will be called again.
    Failed,
    /// The handler rejected it.
    Rejected,
    /// Its attempts are spent.
    AttemptsSpent,
    /// The entry holds no event that can be read.
    Malformed,
    /// The payload is not what the handler's type asks for.
    Undecodable,
    /// It expired before it was run.
    Expired,
    /// Its version is newer than any instance of the group knows.
    NewerVersion,
    /// It kills its process: those who took it over found it running three times.
    Crashed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::AttemptsSpent => "attempts_spent",
            Self::Malformed => "malformed",
            Self::Undecodable => "undecodable",
            Self::Expired => "expired",
            Self::NewerVersion => "newer_version",
            Self::Crashed => "crashed",
        })
    }
}

/// What stands behind the durability in a receipt, by the server's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The server does not tell its settings.
    Unknown,
    /// This process' memory.
    Memory,
    /// A server without an append-only file.
    Volatile,
    /// An append-only file, synced about once a second.
    Everysec,
    /// An append-only file, synced before the answer.
    Fsync,
    /// Confirmed by as many replicas as were asked for ([`Confirm`]).
    Replicated,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Memory => "memory",
            Self::Volatile => "volatile",
            Self::Everysec => "everysec",
            Self::Fsync => "fsync",
            Self::Replicated => "replicated",
        })
    }
}

/// The proof that an event is stored: it is *acknowledged*.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The event.
    pub id: EventId,
    /// Where it lies. `None` for a delayed event, which gets its place when it is due.
    pub position: Option<Position>,
    /// What the server does to keep it.
    pub durability: Durability,
    /// The event was there before, and was not stored again: the position is that of the first.
    /// Only where deduplication was asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deduplicated: bool,
}

/// Where a group begins that did not exist before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the earliest event kept.
    #[default]
    Earliest,
    /// With what is published from now on.
    New,
    /// With the first entry after this id, in each partition.
    After(EntryId),
    /// With the first entry stored at or after this moment of the server's clock.
    At(Timestamp),
}

#[cfg(test)]
mod tests;
