//! The bus in one process' memory: the same meaning as the Redis Streams driver, for tests, for
//! programs of one process, and as the plainest statement of what a driver does.
//!
//! One lock guards the whole state and is held for lines; nothing is awaited under it. Delays and
//! leases are measured on `tokio::time`, so paused time works; only entry ids use the wall clock.
//!
//! Memory is bounded: what groups have still to settle by [`MemoryOptions::unsettled_bytes_max`]
//! (then appends wait), what all have settled by [`MemoryOptions::history_events_max`] (then the
//! oldest goes), dead letters by [`MemoryOptions::dead_letters_max`] (then the group pauses there),
//! marks of what was handled by the window that each of them was asked for.

mod admin;
mod append;
mod follow;
mod group;
mod group_part;
mod handled;
#[cfg(feature = "testing")]
mod inspect;
mod letters;
mod log;
mod marks;
mod membership;
mod parking;
mod seek;
mod settle;
mod source;
mod state;
#[cfg(test)]
mod tests;
mod tools;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "testing")]
pub(crate) use self::inspect::Held;
use self::settle::MemorySettler;
use self::source::MemorySource;
use self::state::State;
use crate::driver::admin::Admin;
use crate::driver::{Driver, Feed, Follow, Subscribe, Subscription, Tools};
use crate::error::{Error, ErrorKind};
use crate::event_type::Topic;
use crate::time::{Clock, SystemClock};

/// How a [`MemoryDriver`] is set up.
#[derive(Clone)]
pub struct MemoryOptions {
    /// Most bytes of events that a group has still to settle, delayed ones and retries among
    /// them; then appends wait. Default 64 MiB.
    pub unsettled_bytes_max: usize,
    /// Most events per topic that are kept after every group has settled them, for groups that
    /// come later. Default 10,000.
    pub history_events_max: usize,
    /// Dead letters per partition and group at which the group reads no further there. Default
    /// 100,000.
    pub dead_letters_max: usize,
    /// Partitions of a topic. Default 1.
    pub partitions: u32,
    /// Partitions of single topics, in place of `partitions`.
    pub partitions_of: BTreeMap<Topic, u32>,
    /// How long an append waits for room. Default 5 s.
    pub append_deadline: Duration,
    /// How long an event that was published with deduplication is known by its id. Default 15 min.
    pub dedup_window: Duration,
    /// Where entry ids take their milliseconds from.
    pub clock: Arc<dyn Clock>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            unsettled_bytes_max: 64 << 20,
            history_events_max: 10_000,
            dead_letters_max: 100_000,
            partitions: 1,
            partitions_of: BTreeMap::new(),
            append_deadline: Duration::from_secs(5),
            dedup_window: Duration::from_secs(15 * 60),
            clock: Arc::new(SystemClock),
        }
    }
}

impl MemoryOptions {
    fn partitions_of(&self, topic: &Topic) -> u32 {
        self.partitions_of.get(topic).copied().unwrap_or(self.partitions).max(1)
    }
}

impl fmt::Debug for MemoryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOptions")
            .field("unsettled_bytes_max", &self.unsettled_bytes_max)
            .field("history_events_max", &self.history_events_max)
            .field("dead_letters_max", &self.dead_letters_max)
            .field("partitions", &self.partitions)
            .field("partitions_of", &self.partitions_of)
            .field("append_deadline", &self.append_deadline)
            .field("dedup_window", &self.dedup_window)
            .finish_non_exhaustive()
    }
}

/// A client of a store in this process' memory.
///
/// What is published stays for as long as a group has still to settle it, also when the group's
/// last consumer is gone: a group that never comes back fills the store in the end, and the
/// appends that then find no room say which group it is.
///
/// ```
/// use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
/// use rumormill::driver::{Publish, Tools};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), rumormill::Error> {
/// let driver = MemoryDriver::new(MemoryOptions { partitions: 2, ..MemoryOptions::default() });
/// let shape = driver.declare(&"user_service".parse()?).await?;
/// assert_eq!(shape.partitions().count(), 2);
/// assert_eq!(driver.client().topics().await?, [shape]);
/// # Ok(())
/// # }
/// ```
pub struct MemoryDriver {
    store: Arc<Store>,
    closed: CancellationToken,
}

/// What all clients of one store share.
struct Store {
    options: MemoryOptions,
    state: Mutex<State>,
    /// Wakes sources and readers: an entry came, or the next due moment changed.
    changed: Notify,
    /// Wakes appends that wait for room or for their turn.
    room: Notify,
}

impl Store {
    /// A panic under the lock is a bug in this driver; its state is still the best there is.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryDriver {
    /// A client of a new, empty store.
    pub fn new(options: MemoryOptions) -> Arc<Self> {
        let state = Mutex::new(State::new(&options));
        let store = Store { options, state, changed: Notify::new(), room: Notify::new() };
        Arc::new(Self { store: Arc::new(store), closed: CancellationToken::new() })
    }

    /// Another client of the same store, as a second process is of a server: closing one leaves
    /// the other open.
    #[must_use]
    pub fn client(&self) -> Arc<Self> {
        let (store, closed) = (Arc::clone(&self.store), CancellationToken::new());
        Arc::new(Self { store, closed })
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() { Err(closed()) } else { Ok(()) }
    }
}

impl fmt::Debug for MemoryDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDriver")
            .field("options", &self.store.options)
            .field("closed", &self.closed.is_cancelled())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Driver for MemoryDriver {
    fn parks_keys(&self) -> bool {
        true
    }

    fn marks_handled(&self) -> bool {
        true
    }

    fn tools(&self) -> Option<&dyn Tools> {
        Some(self)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn broadcasts(&self) -> Option<&dyn Follow> {
        Some(self)
    }

    async fn close(&self) {
        self.closed.cancel();
        self.store.changed.notify_waiters();
        self.store.room.notify_waiters();
    }
}

#[async_trait]
impl Subscribe for MemoryDriver {
    async fn subscribe(&self, subscription: Subscription) -> Result<Feed, Error> {
        self.check_open()?;
        subscription.lease.check()?;
        let (member, routes) = self.store.state().subscribe(&subscription, Instant::now());
        let consumer = format!("{}.memory.{}", subscription.group, member.consumer);
        let store = || Arc::clone(&self.store);
        let source = MemorySource::new(store(), &self.closed, member, &subscription);
        let park_keys = subscription.park_keys;
        let settler =
            MemorySettler::new(store(), self.closed.clone(), member, consumer.clone(), park_keys);
        Ok(Feed { source: Box::new(source), settler: Arc::new(settler), routes, consumer })
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the memory driver is closed")
}

/// The moment `delay` after `now`; delays beyond what a clock holds end in thirty years.
fn after(now: Instant, delay: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    now + delay.min(FAR)
}
