//! The event bus for Rust services on the Redis they already run.
//!
//! A service links this library, says which events it handles, and is done: every event reaches
//! every service that wants it, at least once, across restarts, crashes and deploys; events of one
//! key are handled in order. The same code runs in one process on the memory driver.
//!
//! ```
//! use rumormill::{Bus, Context, Event};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Event)]
//! #[event(type = "user_service.user.created", key = user_id)]
//! struct UserCreated { user_id: String }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::connect("memory:").await?; // or redis://127.0.0.1:6379
//! bus.subscribe("email", |event: UserCreated, _: Context| async move {
//!     println!("welcome, {}", event.user_id);
//!     Ok(())
//! }).await?;
//! bus.publish(&UserCreated { user_id: "alice".into() }).await?;
//! # bus.settled().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The way of an event
//!
//! ```text
//! bus.publish(&UserCreated { .. })            typed: #[derive(Event)] gives type, version, key
//!   -> codec -> Envelope                      header and payload, a checksummed MessagePack array
//!   -> publisher: batches per partition       a lone event at once, what waits goes together
//!   -> Driver::append                         Redis: one XADD, a batch per entry; memory: the log
//!   -> Source::fetch -> consumer              no more than the lanes can take
//!   -> router: exact type, then patterns      on the header, remembered per type
//!   -> filter, as far as the header decides   what does not pass is acked and counted
//!   -> lane, by the hash of the key           a bounded FIFO, one event or one batch at a time
//!   -> middleware -> Handle<E>::handle        of a batch: each event's own, then HandleBatch<E>
//!   -> verdict: ack | retry | dead letter     a pure function
//!   -> settlements, collected per entry -> Settler::settle
//! ```
//!
//! # Code map
//!
//! | | |
//! |---|---|
//! | [`event`], [`event_type`], [`event_id`], [`pattern`], [`envelope`], [`codec`], [`delivery`], [`error`], [`time`] | the vocabulary: values, no I/O |
//! | [`driver`] | the traits, their contracts, and the suite that holds a driver to them |
//! | [`driver::memory`], `driver::redis` | two drivers of the same meaning |
//! | [`service`] | services, handlers, routes, registration, options, the pure backoff, the handler's context |
//! | [`middleware`] | behaviour around handlers; one behaviour, one file |
//! | [`worker`] | consumer (the only reader), dispatcher, lanes, settlements (the only settler), the pure verdict |
//! | [`publisher`] | encoding, partitions, natural batches, limits |
//! | [`bus`] | what most users touch |
//! | `schema` (feature) | JSON Schemas of event types, and the lock file that fails when readers break |
//! | `outbox` (features `outbox`, `sqlite`, `postgres`) | events in the user's own SQL transaction, and the relay that publishes them |
//! | `cloud_events` (feature `cloudevents`) | envelopes as CloudEvents 1.0 and back, nothing lost |
//! | `testing` (feature `testing`) | a bus on paused time, for the tests of services |
//!
//! Arrows go one way: `bus -> worker -> {middleware, service, driver} -> delivery -> envelope ->
//! event`; `tests/tidy.rs` holds them.
//!
//! # Invariants
//!
//! Mostly absences. Only `driver::redis` names the `redis` crate, a key or a field. Only the
//! consumer reads, only the settlements settle. Middleware never sees a driver; a handler cannot
//! acknowledge. Pure modules know no runtime, no clock, no I/O. There is no unbounded channel, no
//! `std::time::Instant` (tests pause time), no `unsafe`.
//!
//! # The rules of the path
//!
//! 1. **Append.** One connection carries a process' appends, each partition's in order. A publish
//!    has three outcomes, as types: stored, certainly not stored, unknown. After a lost connection
//!    the old one is killed and the log is read: what is there is stored, what is not is appended
//!    again, in its old place. What was refused while a later one is stored behind it never is.
//! 2. **Read.** A reader task owns its blocking connection and is never dropped in a command. It
//!    asks for no more than the lanes can take.
//! 3. **Settle.** An entry whose events all end in plain acks costs one unfenced `XACK`: it says
//!    what stays true whoever says it. Everything else goes through one script that first checks
//!    that this consumer still holds the entry at the delivery it was given. Finished events of a
//!    batch are recorded, and not run again by whoever claims the rest.
//! 4. **Outputs** of a handler are added by that same script: with the end of the delivery, or
//!    not at all. Their ids derive from the event, the group and the order of the calls. Where a
//!    service is [`Idempotent`](middleware::Idempotent), the script notes the event's id as well,
//!    and leaves the outputs out where it is noted already.
//! 5. **Retry and dead letter belong to the group**, never to the topic; the copy keeps id, time,
//!    key, attempt and first position. A dead letter may park its key, where the service asks.
//! 6. **Split.** What a consumer hands over becomes an entry of its own in the group's retry
//!    stream, attempt unchanged: a drain wakes the other consumers at once, and slow events
//!    without a key are not hoarded. Of a batch each event is split off at most once for that
//!    reason, so that nothing circles among busy consumers.
//! 7. **Suspects.** A delivery count dead-letters nobody. From the fourth hand-out an entry is
//!    suspect: its events are split off, and each runs with no other suspect beside it in the
//!    process, after a note. What was found running three times by those who took it over kills
//!    its process: it alone is dead-lettered, as `crashed`.
//! 8. **Leases** are renewed for what waits and what runs, by an owner-checked script; abandoned
//!    entries are claimed by a sweep that keeps a cursor and sits out a lease when the server's
//!    clock jumped. What a stranger takes off the books (a deleted consumer) is taken back, where
//!    by this consumer's own clock the lease did not lapse and it said nothing of the end. Dead
//!    consumers are removed by the living, never with something pending.
//! 9. **Routes are the group's.** An event that this instance cannot route or decode, but another
//!    version of the service can, is handed over with a second's delay; what nobody routes is
//!    acked and counted.
//! 10. **Scheduling needs no special process**: who consumes a group moves its due entries, who
//!     touches a topic moves its delayed publishes.
//! 11. **Groups** exist on all partitions when `subscribe` returns; a new one begins with the
//!     earliest event kept; a topic that appears later is read from its beginning. A group that
//!     vanished is made again at its checkpoint, which is written every 10 s, where the log's
//!     history is whole, else from the beginning; never at the end. What was lost below is an
//!     [`Incident`], once, and a counter in [`Losses`].
//!     A **broadcast** ([`Bus::broadcast`]) has no group: its place in every partition is a
//!     concrete id from the start on, known to its instance alone, and the store is only read.
//! 12. **Retention.** What all groups have settled is kept for 24 h or 256 MiB per partition,
//!     whichever is less. Nothing unread or pending goes before the hard cap (a quarter of
//!     `maxmemory`, else 1 GiB, per partition), which counts what it drops, per group. A group
//!     without a live member for 7 days holds nothing any more. At 100,000 dead letters of a group
//!     and partition it reads no further there.
//! 13. **Retries**: 16 attempts, factor 2 from 250 ms, cap 5 min, full jitter.
//!
//! Not yet: Cluster, and strict order per key across all consumers of a group.
//!
//! # Where the design moved
//!
//! - A bus has **one subscription per group**. Two closures in one group would be two members with
//!   different routes, and half of the events would take the detour of rule 9. Several types go
//!   into one subscription ([`Bus::subscribe_routes`]).
//! - [`Source`](driver::Source) has a `close` besides `fetch`: a drain must stop reading and yet
//!   keep the leases of what was read, and only the source knows both.
//! - [`Publish`](driver::Publish) has a `declare` besides `append`: who chooses the partition must
//!   know how many there are, and a topic must be known before its first event.
//! - A handler has a **timeout** by default (5 min): a handler that never returns would hold its
//!   lane, and every key in it, for ever.
//! - **Acks ride with a read, not in it**: they share its write where a reader is about to read,
//!   as a request of their own. A pipeline is answered as a whole, so in that of a blocking read
//!   they would have their answer when the read ends. Else they take the command connection.
//! - **`XTRIM ... ACKED` is not used**: its approximate form deleted nothing on Redis 8.2.3, its
//!   exact form takes no limit, and it never passes a group that is gone. What all groups have
//!   settled is found by the trimming script itself, on every server.
//! - **A batch passes the middleware event by event**: each event has its own list, and they wait
//!   for one another where the handler would stand. A second method on `Middleware` for batches
//!   was rejected: what its author forgets there (a tenant check, say) would not hold for batches.
//!   Who is held up in a middleware longer than the linger comes in a later call, so that a
//!   limiter which lets through fewer than a batch stops nothing.
//! - A **broadcast tries again in its lane**, where a group puts the event aside: what came back
//!   later would overtake newer events of its key, and a cache would keep the older value. The lane
//!   waits meanwhile, so its default is 8 attempts over about 12 s, not 16 over 14 min. What its
//!   handlers publish through the context is refused: there is no end of a delivery to make it one
//!   step with, and every instance would publish it.
//! - A broadcast's **read may be dropped** in the middle, unlike a consumer's, and that is how it
//!   is stopped: the server hands nothing out. What was trimmed before it was read cannot be seen
//!   in the ids; a reader that was away, or whose last read came back full, first compares what the
//!   log was ever given and what it keeps with what it saw, and counts the difference as missed.
//! - **Appends have tickets per partition**, in place of one order for all: after a lost connection
//!   what is in doubt in one partition holds up nobody else. Nothing is repeated where the log was
//!   trimmed past what is known: then nobody can tell what was there.
//! - The **hard cap is per partition**, not per topic: a cap that partitions shared would drop
//!   unread events of one for the size of another.
//! - A **suspect's turn ends when it is settled**, not when its handler ends: until then its note
//!   stands, and the next suspect might abort beside it.
//! - A **drain hands over what waits behind a running handler at once**. Events of that handler's
//!   key may then run elsewhere while it still does: order is promised within a consumer.
//! - Marks of **handled events** are one sorted set per group and partition, not a key for each:
//!   less memory, one look-up per entry, one key to declare. No command of a user's own goes into
//!   that step: one that fails would leave half of it done, and its keys lie in another slot.
//! - The **outbox's relay appends without the publisher**: of two batches of a partition under
//!   way the first could be refused and the second stored. It has one under way per partition,
//!   and deduplication makes a repeat harmless.
//! - A **check of the doctor is a pure function** of evidence that was gathered before, in bounded
//!   steps; what was not looked at is a finding of its own.
//! - The consumer keeps what waits for a full lane aside, within what may be in flight: otherwise
//!   one slow key would stop all others.

#[cfg(not(feature = "plant"))]
#[macro_use]
mod plant;
#[cfg(feature = "plant")]
#[doc(hidden)]
#[macro_use]
pub mod plant;

mod alarm;
pub mod bus;
#[cfg(feature = "cloudevents")]
pub mod cloud_events;
pub mod codec;
pub mod delivery;
#[cfg(doctest)]
mod doc_tests;
pub mod driver;
pub mod envelope;
pub mod error;
pub mod event;
pub mod event_id;
pub mod event_type;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod middleware;
#[cfg(feature = "outbox")]
pub mod outbox;
pub mod pattern;
pub mod publisher;
#[cfg(feature = "schema")]
pub mod schema;
pub mod service;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
mod trouble;
pub mod worker;

pub use crate::bus::{
    BatchDescription, Bus, BusBuilder, DRAIN_DEADLINE, GroupSubscription, OptionsDescription,
    RouteDescription, ServiceDescription,
};
pub use crate::codec::{Codec, ContentType};
pub use crate::delivery::{Confirm, Durability, Position, Receipt, Start};
pub use crate::driver::monitor::{Health, HealthChanges, Incident, Incidents, Losses};
pub use crate::envelope::Envelope;
pub use crate::error::{Error, ErrorKind, HandlerError, PublishError};
pub use crate::event::Event;
pub use crate::event_id::EventId;
pub use crate::event_type::{EventType, Topic};
pub use crate::pattern::{Matcher, Pattern};
pub use crate::publisher::{PublishLimits, PublishOptions, Publisher};
pub use crate::service::{
    Batch, BatchItem, BatchOptions, Context, Filter, Handle, HandleAny, HandleBatch, Init,
    Registration, Routes, Service, Services,
};
pub use crate::service::{Distribution, RetryPolicy, ServiceOptions};
pub use crate::time::{Clock, SystemClock, Timestamp};
pub use crate::worker::{BroadcastCounts, DrainReport, GroupCounts};
pub use rumormill_macros::Event;

/// The attribute that [`Middleware`](middleware::Middleware) and the driver traits are written
/// with.
pub use async_trait::async_trait;

#[doc(hidden)]
pub mod __private {
    pub use crate::event::unknown_version;
    pub use crate::service::{Instance, construction_failed};
    pub use inventory;
}
