//! A transactional outbox: events are written in the transaction of what they tell, and a relay
//! publishes them afterwards.
//!
//! A program that writes to its database and then publishes may die between the two, and one of
//! them never happens. With an outbox the event is a row, written in the same transaction as the
//! effect: both happen or neither. A [`Relay`] takes the rows to the bus, oldest first, and deletes
//! those that are stored.
//!
//! # What is promised
//! - **Nothing is lost** on the way: a row goes when the bus has stored its event, or never. That
//!   is as durable as the receipt of a publish: see [`Durability`](crate::Durability), and
//!   `min_durability` and `confirm` of the bus. An event that the bus will not take is *set aside*
//!   in the table with the reason and its causes; each round logs how many, and the first number.
//! - **Nothing is stored twice**, as long as no more than the driver's deduplication window (15
//!   min) lies between an event's storing and the end of its row. Events are published with
//!   deduplication by id, so a relay that dies after storing and before deleting repeats itself
//!   without harm; widen the window beyond the longest time that the database or the bus may be
//!   away.
//! - **Order per key**: an event added after another one of its key was committed is stored behind
//!   it, and so are those that one transaction adds. Transactions that overlap have an order where
//!   they exclude each other: change the row that the key stands for first, then add the event.
//! - **One relay works at a time**, however many run: they share a lease. When one dies, another
//!   goes on within [`RelayOptions::lease`] and [`RelayOptions::poll`].
//!
//! # Numbers do not order commits
//! A database hands out a row's number when the row is written, not when it is committed. So the
//! relay never asks for "all after the last one": it asks for all rows that are there, every time,
//! and what is done is deleted.

mod holds;
mod memory;
mod options;
#[cfg(feature = "postgres")]
mod postgres;
mod relay;
mod round;
mod row;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use bytestring::ByteString;

pub use memory::MemoryOutbox;
pub use options::{OutboxOptions, RelayOptions};
#[cfg(feature = "postgres")]
pub use postgres::{POSTGRES_SCHEMA, PostgresOutbox};
pub use relay::{Relay, RelayCounts, RelayHandle};
pub use round::Round;
pub use row::{Columns, Row};
#[cfg(feature = "sqlite")]
pub use sqlite::{SQLITE_SCHEMA, SqliteOutbox};

use crate::error::Error;
use crate::event_id::EventId;
use crate::event_type::{EventType, Topic};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::time::Timestamp;

/// Where the rows of an outbox are: what a [`Relay`] needs of a database.
///
/// A store is shared: every method takes `&self`. It has no say in what is published when; it
/// tells what is there, and writes down what became of it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes `relay` the one that works, or lets it go on, for `lease` from now; false where
    /// another one is. One step: of two that ask at a time one gets it.
    ///
    /// A lease of zero gives the work up, where `relay` has it: the next who asks gets it. Who has
    /// a lease when it ends may find that another took over.
    ///
    /// # Errors
    /// Where the database cannot be reached or refuses; then nobody knows, and it is asked again.
    async fn lead(&self, relay: EventId, lease: Duration) -> Result<bool, Error>;

    /// The oldest rows that wait, in the order in which they were written: those that are
    /// committed and neither ended nor set aside, without those that `skip` names.
    ///
    /// All of them from the first on, as one look at the database: a row may appear with a lower
    /// number than one that was seen before. At most `most.events`, and at most `most.bytes` of
    /// payloads; but always one, where there is one. A row that holds no event is among them.
    ///
    /// # Errors
    /// Where the database cannot be reached or refuses.
    async fn pending(&self, most: Most, skip: &Skip) -> Result<Vec<Row>, Error>;

    /// Writes down what became of rows. A repeat changes nothing, nor does a row that is gone.
    ///
    /// Whoever says it: that an event is stored stays true when the lease is lost.
    ///
    /// # Errors
    /// Where the database cannot be reached or refuses: each may or may not be written down, and
    /// is repeated.
    async fn end(&self, ends: &[(i64, End)]) -> Result<(), Error>;
}

/// How much a relay takes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Rows.
    pub events: usize,
    /// Bytes of payloads.
    pub bytes: usize,
}

/// Rows that a relay does not want now: their events failed, and are tried again later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skip {
    /// All of these topics.
    pub topics: Vec<Topic>,
    /// All of these keys.
    pub keys: Vec<(Topic, ByteString)>,
    /// These rows.
    pub rows: Vec<i64>,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The bus has its event: the row goes.
    Sent,
    /// The bus will never take it, and why: the row stays and waits no more.
    SetAside(String),
}

/// How full an outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Rows that wait.
    pub waiting: u64,
    /// Rows that were set aside.
    pub set_aside: u64,
    /// How old the oldest event is that waits, by the clock of the outbox.
    pub oldest: Option<Duration>,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl Depth {
    /// As a database counts: `since` is the time of the oldest event that waits, in milliseconds.
    fn new(waiting: Option<i64>, aside: Option<i64>, since: Option<i64>, now: Timestamp) -> Self {
        let count = |number: Option<i64>| u64::try_from(number.unwrap_or(0)).unwrap_or(0);
        let oldest = since.map(|since| now.since(Timestamp::from_millis(count(Some(since)))));
        Self { waiting: count(waiting), set_aside: count(aside), oldest }
    }
}

/// A row that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The row's number.
    pub number: i64,
    /// The event's id, as it stands in the row.
    pub id: String,
    /// The event's type, as it stands in the row.
    pub event_type: String,
    /// The event's key.
    pub key: Option<String>,
    /// Why.
    pub error: String,
}

/// What events have to be stored in order with: those of one key, or nobody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Key(Topic, ByteString),
    Row(i64),
}

impl Lane {
    fn new(number: i64, event_type: &EventType, key: Option<&str>) -> Self {
        match key {
            Some(key) => Self::Key(event_type.topic(), key.into()),
            None => Self::Row(number),
        }
    }
}
