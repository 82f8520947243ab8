//! The publishing half: encodes, chooses the partition, batches by itself, bounds what is under
//! way, and gives every event its own answer.

mod encoder;
mod enqueue;
mod flight;
mod queue;
mod room;
mod tell;
mod topics;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;

pub(crate) use encoder::Encoder;
pub use encoder::PublishOptions;
use enqueue::Known;
use room::{Line, Room};
use tell::{Answer, Many, Tell};
use topics::{Last, Topics};

use crate::delivery::{Partition, Position, Receipt};
use crate::driver::{Append, Appended, Driver};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, PublishError};
use crate::event::Event;

/// The longest deadline.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The limits of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishLimits {
    /// Most events of a batch. Default 50: what one consumer takes at a time. 1 turns batches off.
    pub batch_events_max: usize,
    /// Most bytes of a batch; a larger event goes alone. Default 64 KiB.
    pub batch_bytes_max: usize,
    /// Most calls to the store under way for one partition. Default 2: while they are, what arrives
    /// waits and goes together in the next one, in as many batches as it takes.
    pub inflight_appends_max: usize,
    /// How long a batch that is not full waits for more, from its first event. Default zero: what
    /// can go goes at once. Half a millisecond costs that much latency and, at some thousand events
    /// a second, saves most of what a call of its own for each costs. Timers count in
    /// milliseconds: it may last up to one longer. A bus that closes waits for it.
    pub linger: Duration,
    /// Most events without an answer, over all partitions; then `publish` waits. Default 4,096.
    pub unconfirmed_max: usize,
    /// Most bytes of events without an answer, over all partitions; then `publish` waits. Default
    /// 64 MiB. A larger event goes when nothing else is under way.
    pub unconfirmed_bytes_max: usize,
    /// How long `publish` takes at most. Default 5 s. Kept on the runtime that published first of
    /// those that did at once, or beside the driver's connections. Where a runtime stands still
    /// that publishes, others' events of the same partition wait with its own; with the Redis
    /// driver they are told at most two seconds later than that.
    pub deadline: Duration,
    /// Most bytes of a payload. Default 1 MiB.
    pub payload_bytes_max: usize,
}

impl Default for PublishLimits {
    fn default() -> Self {
        Self {
            batch_events_max: 50,
            batch_bytes_max: 64 << 10,
            inflight_appends_max: 2,
            linger: Duration::ZERO,
            unconfirmed_max: 4_096,
            unconfirmed_bytes_max: 64 << 20,
            deadline: Duration::from_secs(5),
            payload_bytes_max: crate::envelope::PAYLOAD_BYTES_MAX,
        }
    }
}

impl PublishLimits {
    /// Checks the values.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming the value.
    pub fn check(&self) -> Result<(), Error> {
        let counts = [
            ("batch_events_max", self.batch_events_max),
            ("batch_bytes_max", self.batch_bytes_max),
            ("inflight_appends_max", self.inflight_appends_max),
            ("unconfirmed_max", self.unconfirmed_max),
            ("unconfirmed_bytes_max", self.unconfirmed_bytes_max),
        ];
        for (name, value) in counts {
            if value == 0 || value > Semaphore::MAX_PERMITS {
                return Err(Error::invalid(format!("{name} is {value}, 1 at least")));
            }
        }
        if self.deadline > DEADLINE_MAX {
            return Err(Error::invalid(format!("deadline is {:?}, a day at most", self.deadline)));
        }
        if !self.linger.is_zero() && self.linger >= self.deadline {
            let (linger, deadline) = (self.linger, self.deadline);
            let text =
                format!("linger is {linger:?}, less than the deadline ({deadline:?}) at most");
            return Err(Error::invalid(text));
        }
        Ok(())
    }
}

/// The publishing half of a bus. Cloning shares it.
#[derive(Clone)]
pub struct Publisher(Arc<Shared>);

struct Shared {
    driver: Arc<dyn Driver>,
    limits: PublishLimits,
    encoder: Arc<Encoder>,
    /// For events without an answer.
    room: Arc<Room>,
    /// Whose turn it is to wait for room.
    line: Line,
    /// What is known of topics, and what waits for them.
    topics: Topics,
    /// Where the next event without a key goes.
    turn: AtomicU64,
    closed: AtomicBool,
    /// The tasks that write; they outlive the futures of their callers.
    writers: TaskTracker,
}

impl Publisher {
    pub(crate) fn new(
        driver: Arc<dyn Driver>,
        limits: PublishLimits,
        encoder: Arc<Encoder>,
    ) -> Self {
        let shared = Arc::new(Shared {
            driver,
            limits,
            encoder,
            room: Room::new(&limits),
            line: Line::default(),
            topics: Topics::default(),
            turn: AtomicU64::new(fastrand::u64(..)),
            closed: AtomicBool::new(false),
            writers: TaskTracker::new(),
        });
        if let Some(runtime) = shared.driver.runtime() {
            runtime.spawn(watch(Arc::downgrade(&shared)));
        }
        Self(shared)
    }

    /// Publishes an event and waits for its receipt: then it is stored, as durably as the receipt
    /// says, and every group will get it.
    ///
    /// Waits while [`PublishLimits::unconfirmed_max`] events are without an answer. Events of one
    /// key are stored in the order in which their calls were first polled.
    ///
    /// # Errors
    /// [`PublishError::NotStored`] is certain; [`PublishError::Unknown`] means that the answer was
    /// lost.
    ///
    /// # Cancel safety
    /// Dropped after its first poll, the event may or may not be stored, once.
    pub async fn publish<E: Event>(&self, event: &E) -> Result<Receipt, PublishError> {
        self.publish_one(|| self.encode(event, PublishOptions::default()), false).await
    }

    /// [`publish`](Publisher::publish) with a key, headers, an expiry or an id of the caller's.
    ///
    /// # Errors
    /// As [`publish`](Publisher::publish).
    pub async fn publish_with<E: Event>(
        &self,
        event: &E,
        options: PublishOptions,
    ) -> Result<Receipt, PublishError> {
        let deduplicate = options.deduplicate;
        self.publish_one(|| self.encode(event, options), deduplicate).await
    }

    /// Publishes an event that no group gets before `delay` has passed.
    ///
    /// # Errors
    /// As [`publish`](Publisher::publish).
    pub async fn publish_after<E: Event>(
        &self,
        event: &E,
        delay: Duration,
    ) -> Result<Receipt, PublishError> {
        self.publish_later(|| self.encode(event, PublishOptions::default()), delay).await
    }

    /// Publishes many events of one type: as many answers, in their order. They share batches with
    /// each other and with everything else that is published; one may fail and the next not.
    ///
    /// The deadline is that of each event, from when there was room for the one before it: where
    /// nothing goes on for so long, all that is left is not stored.
    ///
    /// # Cancel safety
    /// Dropped after its first poll, each event may or may not be stored, once.
    pub async fn publish_many<E: Event>(&self, events: &[E]) -> Vec<Result<Receipt, PublishError>> {
        let encoded = self.0.encoder.encode_each(events);
        let encoded = encoded.map(|own| move || own.map_err(PublishError::NotStored));
        self.publish_all(encoded, false).await
    }

    /// Publishes one event that is already an envelope.
    ///
    /// # Errors
    /// As [`publish`](Publisher::publish).
    pub async fn publish_envelope(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        self.publish_one(|| Ok(envelope), false).await
    }

    /// [`publish_after`](Publisher::publish_after) for an event that is already an envelope. Not
    /// batched: each waits for its own moment.
    ///
    /// # Errors
    /// As [`publish`](Publisher::publish).
    pub async fn publish_envelope_after(
        &self,
        envelope: Envelope,
        delay: Duration,
    ) -> Result<Receipt, PublishError> {
        self.publish_later(|| Ok(envelope), delay).await
    }

    async fn publish_later(
        &self,
        encode: impl FnOnce() -> Result<Envelope, PublishError>,
        delay: Duration,
    ) -> Result<Receipt, PublishError> {
        if delay.is_zero() {
            return self.publish_one(encode, false).await;
        }
        let until = self.until();
        let in_line = self.line(until).await?;
        let envelope = encode()?;
        let _permit = self.permit(&envelope, until).await?;
        drop(in_line);
        let partition = self.partition_until(&envelope, false, until).await?;
        let id = envelope.id();
        let envelopes = vec![envelope];
        let append = Append { partition, envelopes, delay, deduplicate: false };
        let appending = self.0.driver.append(vec![append]);
        let Ok(mut appended) = timeout_at(until, appending).await else {
            return Err(PublishError::Unknown(late(&self.0.limits)));
        };
        let Appended { durability, .. } =
            appended.pop().unwrap_or_else(|| Err(queue::no_answer()))?;
        Ok(Receipt { id, position: None, durability, deduplicated: false })
    }

    /// Publishes many events that are already envelopes: as many answers, in their order.
    pub async fn publish_envelopes(
        &self,
        envelopes: Vec<Envelope>,
    ) -> Vec<Result<Receipt, PublishError>> {
        self.publish_all(envelopes.into_iter().map(|own| move || Ok(own)), false).await
    }

    /// [`publish_envelopes`](Publisher::publish_envelopes), each with
    /// [`PublishOptions::deduplicate`]: for relays, which repeat themselves after a failure.
    pub async fn publish_envelopes_deduplicated(
        &self,
        envelopes: Vec<Envelope>,
    ) -> Vec<Result<Receipt, PublishError>> {
        self.publish_all(envelopes.into_iter().map(|own| move || Ok(own)), true).await
    }

    async fn publish_one(
        &self,
        encode: impl FnOnce() -> Result<Envelope, PublishError>,
        deduplicate: bool,
    ) -> Result<Receipt, PublishError> {
        let now = Instant::now();
        let (tell, answered) = Tell::one();
        let known = Known { deduplicate, now, last: &mut Last::default() };
        if let Err(left) = self.enqueue_at_once(encode, known, tell) {
            // Boxed: what rarely waits is to make no publish larger that does not.
            Box::pin(self.enqueue(left, deduplicate, now + self.0.limits.deadline)).await;
        }
        answer(answered).await
    }

    async fn publish_all<Encode>(
        &self,
        events: impl ExactSizeIterator<Item = Encode>,
        deduplicate: bool,
    ) -> Vec<Result<Receipt, PublishError>>
    where
        Encode: FnOnce() -> Result<Envelope, PublishError>,
    {
        let many = Many::of(events.len());
        // When there was room last, and when the clock was read last.
        let (mut room_at, mut last) = (Instant::now(), Last::default());
        let (mut now, mut read) = (room_at, 0);
        for (place, encode) in events.enumerate() {
            if place - read >= CLOCK_EVERY {
                (now, read) = (Instant::now(), place);
            }
            let tell = Tell::one_of(&many, place);
            let known = Known { deduplicate, now, last: &mut last };
            let Err(left) = self.enqueue_at_once(encode, known, tell) else {
                room_at = now;
                continue;
            };
            // Who waits may find another number of partitions afterwards.
            last = Last::default();
            let until = room_at + self.0.limits.deadline;
            let is_enqueued = self.enqueue(left, deduplicate, until).await;
            (now, read) = (Instant::now(), place);
            if is_enqueued {
                room_at = now;
            }
        }
        many.all().await
    }

    fn encode<E: Event>(
        &self,
        event: &E,
        options: PublishOptions,
    ) -> Result<Envelope, PublishError> {
        self.0.encoder.encode(event, options).map_err(PublishError::NotStored)
    }

    /// An event that was made elsewhere, within this publisher's limits.
    #[cfg(feature = "outbox")]
    pub(crate) fn check(&self, envelope: Envelope) -> Result<Envelope, Error> {
        envelope.check(self.0.limits.payload_bytes_max).map(|()| envelope)
    }

    /// What encodes for this publisher.
    pub(crate) fn encoder(&self) -> &Arc<Encoder> {
        &self.0.encoder
    }

    fn until(&self) -> Instant {
        Instant::now() + self.0.limits.deadline
    }

    /// Takes no more events and waits until every accepted one has its answer.
    pub(crate) async fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        self.0.room.close();
        self.0.writers.close();
        self.0.writers.wait().await;
    }
}

/// How often the deadlines are looked at that their writers should have kept, as a part of one.
const WATCHES: u32 = 4;
const WATCH_MIN: Duration = Duration::from_millis(50);
const WATCH_MAX: Duration = Duration::from_secs(1);

/// Keeps the deadlines where a writer does not, since its runtime stands still, until there is no
/// publisher any more.
async fn watch(publisher: Weak<Shared>) {
    let deadline = publisher.upgrade().map_or(WATCH_MAX, |shared| shared.limits.deadline);
    let every = (deadline / WATCHES).clamp(WATCH_MIN, WATCH_MAX);
    loop {
        sleep(every).await;
        let Some(shared) = publisher.upgrade() else { return };
        if shared.writers.is_empty() {
            continue;
        }
        for queue in shared.topics.queues() {
            queue.tell_overdue(every, &shared.limits, &shared.room);
        }
    }
}

/// For how many events that find room at once the clock is read once.
const CLOCK_EVERY: usize = 16;

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the bus is closed")
}

/// What a writer says; it keeps the deadline.
///
/// Unconstrained: of hundreds of publishes in one task, as of a `FuturesUnordered`, tokio's budget
/// would let 128 see their answer at a time, and have all the others polled in vain.
async fn answer(answered: oneshot::Receiver<Answer>) -> Answer {
    unconstrained(answered).await.unwrap_or_else(|_| Err(queue::no_answer()))
}

fn late(limits: &PublishLimits) -> Error {
    let text = format!("no answer of the store within {:?}", limits.deadline);
    Error::new(ErrorKind::Timeout, text)
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

fn receipt(
    id: crate::EventId,
    partition: &Partition,
    index: usize,
    appended: &Appended,
) -> Receipt {
    let index_in_entry = u32::try_from(index).unwrap_or(u32::MAX);
    let place = match appended.places.get(index) {
        Some(place) => Some((place.entry, place.index)),
        None => appended.entry.map(|entry| (entry, index_in_entry)),
    };
    let partition = || partition.clone();
    let position = place.map(|(entry, index)| Position { partition: partition(), entry, index });
    let deduplicated = appended.places.get(index).is_some_and(|place| place.repeated);
    Receipt { id, position, durability: appended.durability, deduplicated }
}

#[cfg(test)]
mod tests;
