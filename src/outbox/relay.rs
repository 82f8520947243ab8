//! The relay: takes rows from a store and publishes them, for as long as it has the lease.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::holds::Holds;
use super::round::{Publishing, Round};
use super::{End, RelayOptions, Row, Skip, Store};
use crate::bus::Bus;
use crate::driver::Driver;
use crate::error::{Error, ErrorKind};
use crate::event_id::EventId;
use crate::publisher::Publisher;
use crate::service::RetryPolicy;
use crate::time::Timestamp;
use crate::trouble::Troubles;

/// How long a relay waits after its database failed.
const DATABASE: RetryPolicy = RetryPolicy {
    attempts_max: u32::MAX,
    first: Duration::from_millis(100),
    factor: 2.0,
    cap: Duration::from_secs(2),
};

/// How long a relay that is told to end may take for what is under way.
const END: Duration = Duration::from_secs(5);

/// Publishes what is in an outbox. Any number of them may run beside each other, in one process or
/// many: one works, and another one goes on when it ends or dies.
///
/// ```
/// # use rumormill::{Bus, Event, outbox::{MemoryOutbox, Relay}};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event(type = "orders.order.placed")]
/// # struct Placed { number: u64 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), rumormill::Error> {
/// let bus = Bus::connect("memory:").await?;
/// let outbox = MemoryOutbox::default(); // in earnest: SqliteOutbox or PostgresOutbox
/// outbox.publish(&Placed { number: 7 })?;
/// let mut relay = Relay::new(&bus, outbox);
/// let round = relay.tick().await?; // in earnest: relay.run(shutdown)
/// assert_eq!((round.sent, round.left), (1, 0));
/// # Ok(())
/// # }
/// ```
pub struct Relay<S> {
    store: S,
    publisher: Publisher,
    driver: Arc<dyn Driver>,
    options: RelayOptions,
    /// Who has the lease.
    name: EventId,
    lead: Option<Lead>,
    holds: Holds,
    /// What became of rows, and is not written down yet.
    ends: Vec<(i64, End)>,
    /// Of the events that were left, while any of them waits.
    oldest_left: Option<Timestamp>,
    troubles: Troubles,
    shared: Arc<Shared>,
    stopping: CancellationToken,
}

/// A lease, by this process' clock.
#[derive(Clone, Copy)]
struct Lead {
    renew: Instant,
    until: Instant,
    /// The same by the wall clock, which goes on while a machine is suspended.
    wall: Timestamp,
}

impl Lead {
    fn lasts(&self, wall: Timestamp) -> bool {
        Instant::now() < self.until && wall < self.wall
    }
}

#[derive(Default)]
struct Shared {
    wake: Notify,
    counts: Mutex<RelayCounts>,
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, RelayCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a relay did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayCounts {
    /// It is the one that works.
    pub leads: bool,
    /// Events that the bus has.
    pub sent: u64,
    /// Those of them that it had before: a relay repeated itself.
    pub deduplicated: u64,
    /// Events that were set aside.
    pub set_aside: u64,
    /// Tries that stored nothing: each of an event, of a batch, or of asking for a topic.
    pub failed: u64,
    /// Rounds that the database failed.
    pub database_failed: u64,
    /// Rows that the last round took. What failed a moment ago waits and is not among them.
    pub taken: u64,
    /// How old the oldest event was that the last round took, or that an earlier one left, by the
    /// clock of the bus. Nothing where another relay works. For an alarm ask the outbox itself for
    /// its depth: that holds while no relay runs, too.
    pub oldest: Option<Duration>,
}

/// A relay seen from outside. Cloning shares it.
#[derive(Clone)]
pub struct RelayHandle(Arc<Shared>);

impl RelayHandle {
    /// Says that something was committed: the relay looks at once.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// What the relay did.
    pub fn counts(&self) -> RelayCounts {
        *self.0.counts()
    }
}

impl fmt::Debug for RelayHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RelayHandle").field(&self.counts()).finish()
    }
}

impl<S: Store> Relay<S> {
    /// A relay from a store to a bus, with default options.
    pub fn new(bus: &Bus, store: S) -> Self {
        let options = RelayOptions::default();
        let publisher = bus.publisher().clone();
        Self {
            store,
            name: EventId::new(publisher.encoder().clock.now()),
            publisher,
            driver: Arc::clone(bus.driver()),
            holds: Holds::new(options.retry),
            options,
            lead: None,
            ends: Vec::new(),
            oldest_left: None,
            troubles: Troubles::default(),
            shared: Arc::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// The same relay with other options.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming the value.
    pub fn options(mut self, options: RelayOptions) -> Result<Self, Error> {
        options.check()?;
        self.holds = Holds::new(options.retry);
        self.options = options;
        Ok(self)
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// To wake the relay, and to see what it does.
    pub fn handle(&self) -> RelayHandle {
        RelayHandle(Arc::clone(&self.shared))
    }

    /// Works until `shutdown` is ready or the bus is closed, whatever the database does meanwhile.
    /// Ends after the batch under way, and gives the lease up; within 5 s, even where neither bus
    /// nor database answers. What is left under way then is as if the relay had died.
    ///
    /// # Cancel safety
    /// Dropped at any time, what was published and not written down yet is published again by the
    /// next relay, and deduplicated. The lease ends by itself.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> RelayCounts {
        let (handle, stopping) = (self.handle(), self.stopping.clone());
        let deadline = {
            let mut rounds = pin!(self.rounds());
            tokio::select! {
                () = &mut rounds => Instant::now() + END,
                () = shutdown => {
                    let deadline = Instant::now() + END;
                    stopping.cancel();
                    log_late(&timeout_at(deadline, rounds).await);
                    deadline
                }
            }
        };
        log_late(&timeout_at(deadline, self.resign()).await);
        let mut counts = handle.0.counts();
        (counts.leads, counts.oldest) = (false, None);
        *counts
    }

    async fn rounds(&mut self) {
        let mut failures = 0_u32;
        while !self.stopping.is_cancelled() {
            let wait = match self.tick().await {
                Ok(round) => {
                    self.troubles.over(WORK);
                    failures = 0;
                    self.wait_after(round)
                }
                Err(error) => {
                    self.troubles.failed(WORK, &error);
                    failures = failures.saturating_add(1);
                    DATABASE.delay(failures, 0.5 + fastrand::f64() / 2.0)
                }
            };
            let stopping = self.stopping.clone();
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.shared.wake.notified(), if failures == 0 => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// There may be more at once where something was done; else with the next poll, or when what
    /// is held may be tried again.
    fn wait_after(&self, round: Round) -> Duration {
        if round.sent + round.set_aside > 0 {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let next = self.holds.next(now).map_or(self.options.poll, |next| next - now);
        next.min(self.options.poll)
    }

    /// One round: takes the lease or keeps it, reads the oldest rows, publishes them, and writes
    /// down what became of them. What does not get through is left and tried in a later round.
    ///
    /// # Errors
    /// Where the database fails or does not answer. What was published by then is remembered, and
    /// written down first thing in the next round.
    ///
    /// # Cancel safety
    /// As [`run`](Relay::run).
    pub async fn tick(&mut self) -> Result<Round, Error> {
        let round = self.work().await;
        let mut counts = self.shared.counts();
        match &round {
            Ok(round) => counts.add(round),
            Err(_) => counts.database_failed += 1,
        }
        counts.leads = self.leads();
        drop(counts);
        round
    }

    async fn work(&mut self) -> Result<Round, Error> {
        // What is stored is stored, whoever works now; and the lease goes on where that fails.
        let written = self.write_down().await;
        if !self.lead().await? {
            self.oldest_left = None;
            self.shared.counts().oldest = None;
            return written.map(|()| Round::default());
        }
        written?;
        let skip = self.holds.skip(Instant::now());
        let most = self.options.most();
        let rows = self.call("read", self.store.pending(most, &skip)).await?;
        let times = times(&rows);
        self.see(&times, skip == Skip::default());
        let round = self.publish(rows).await;
        self.leave(times);
        self.write_down().await?;
        Ok(round)
    }

    /// Takes in how old the rows are that were read; `all` where none was passed over.
    fn see(&mut self, times: &[(i64, Timestamp)], all: bool) {
        if all {
            self.oldest_left = None;
        }
        let read = times.iter().map(|(_, time)| *time);
        let oldest = read.chain(self.oldest_left).min();
        self.shared.counts().oldest = oldest.map(|time| self.wall().since(time));
    }

    /// Keeps in mind how old those are that were left.
    fn leave(&mut self, times: Vec<(i64, Timestamp)>) {
        let ended: HashSet<_> = self.ends.iter().map(|(number, _)| *number).collect();
        let left = times.into_iter().filter(|(number, _)| !ended.contains(number));
        self.oldest_left = left.map(|(_, time)| time).chain(self.oldest_left).min();
    }

    fn wall(&self) -> Timestamp {
        self.publisher.encoder().clock.now()
    }

    /// This relay has the lease, as far as its clocks tell.
    fn leads(&self) -> bool {
        self.lead.is_some_and(|lead| lead.lasts(self.wall()))
    }

    /// Whether this relay is the one that works.
    async fn lead(&mut self) -> Result<bool, Error> {
        let (now, wall) = (Instant::now(), self.wall());
        if self.lead.is_some_and(|lead| now < lead.renew && lead.lasts(wall)) {
            return Ok(true);
        }
        let lease = self.options.lease;
        let leads = self.call("lease", self.store.lead(self.name, lease)).await?;
        // From before the question on: the database's lease ends later than ours.
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let wall = Timestamp::from_millis(wall.as_millis().saturating_add(millis));
        let lead = Lead { renew: now + lease / 3, until: now + lease, wall };
        self.lead = leads.then_some(lead);
        Ok(leads)
    }

    async fn publish(&mut self, rows: Vec<Row>) -> Round {
        let (lead, clock) = (self.lead, &self.publisher.encoder().clock);
        let stopping = &self.stopping;
        let goes_on =
            || !stopping.is_cancelled() && lead.is_some_and(|lead| lead.lasts(clock.now()));
        let mut publishing = Publishing {
            driver: &*self.driver,
            publisher: &self.publisher,
            options: &self.options,
            holds: &mut self.holds,
            troubles: &self.troubles,
            ends: &mut self.ends,
            round: Round { leads: true, ..Round::default() },
            closed: false,
            full: false,
            aside: None,
        };
        publishing.run(rows, goes_on).await;
        let (round, closed) = (publishing.round, publishing.closed);
        if closed {
            stopping.cancel();
        }
        round
    }

    /// Who has the lease no more says what is stored, and sets nothing aside: another relay may
    /// have put it through.
    async fn write_down(&mut self) -> Result<(), Error> {
        if !self.leads() {
            self.ends.retain(|(_, end)| *end == End::Sent);
        }
        if self.ends.is_empty() {
            return Ok(());
        }
        self.call("end", self.store.end(&self.ends)).await?;
        self.ends.clear();
        Ok(())
    }

    /// What can be said in time; the lease ends by itself.
    async fn resign(&mut self) {
        if let Err(error) = self.write_down().await {
            self.troubles.failed(WORK, &error);
        }
        if self.lead.take().is_some()
            && let Err(error) = self.call("lease", self.store.lead(self.name, Duration::ZERO)).await
        {
            self.troubles.failed(WORK, &error);
        }
    }

    /// A call of the store, which takes no longer than the lease.
    async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let lease = self.options.lease;
        timeout(lease, call).await.unwrap_or_else(|_| {
            let text = format!("the outbox's database did not {what} within {lease:?}");
            Err(Error::new(ErrorKind::Timeout, text))
        })
    }
}

fn log_late(ended: &Result<(), Elapsed>) {
    if ended.is_err() {
        tracing::warn!("the relay of an outbox ended in the middle: no answer within {END:?}");
    }
}

/// When each event was published, by its row's number.
fn times(rows: &[Row]) -> Vec<(i64, Timestamp)> {
    let time = |row: &Row| Some((row.number, row.event.as_ref().ok()?.time()));
    rows.iter().filter_map(time).collect()
}

/// What a relay is there for, as its log lines say.
const WORK: &str = "use the outbox's database";

impl RelayCounts {
    fn add(&mut self, round: &Round) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.sent += count(round.sent);
        self.deduplicated += count(round.deduplicated);
        self.set_aside += count(round.set_aside);
        self.failed += count(round.failed);
        self.taken = count(round.taken);
    }
}

impl<S> fmt::Debug for Relay<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("name", &self.name)
            .field("options", &self.options)
            .field("counts", &*self.shared.counts())
            .finish_non_exhaustive()
    }
}
