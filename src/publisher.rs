//! The publishing half: encodes, chooses the partition, batches by itself, bounds what is under
//! way, and gives every event its own answer.

mod encoder;
mod queue;
mod room;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use encoder::Encoder;
pub use encoder::PublishOptions;
use queue::{Queue, Waiting};
use room::Permit;

use crate::delivery::{Partition, Position, Receipt};
use crate::driver::{Append, Appended, Driver, TopicShape};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, PublishError};
use crate::event::Event;
use crate::event_type::Topic;

/// How long a topic's partitions are taken as known; then they are asked for again. With what a
/// driver keeps, a change is known everywhere within ten seconds.
const SHAPE_KEPT: Duration = Duration::from_secs(5);

/// The longest deadline.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The limits of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishLimits {
    /// Most events of a batch. Default 50: what one consumer takes at a time. 1 turns batches off.
    pub batch_events_max: usize,
    /// Most bytes of a batch; a larger event goes alone. Default 64 KiB.
    pub batch_bytes_max: usize,
    /// Most appends of one partition under way. Default 2: while they are, what arrives waits and
    /// goes together.
    pub inflight_appends_max: usize,
    /// Most events without an answer, over all partitions; then `publish` waits. Default 4,096.
    pub unconfirmed_max: usize,
    /// Most bytes of events without an answer, over all partitions; then `publish` waits. Default
    /// 64 MiB. A larger event goes when nothing else is under way.
    pub unconfirmed_bytes_max: usize,
    /// How long `publish` takes at most. Default 5 s.
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
    /// One permit per event that may be without an answer, and one per byte of them.
    unconfirmed: Arc<Semaphore>,
    unconfirmed_bytes: Arc<Semaphore>,
    /// Whose turn it is to wait for room.
    line: tokio::sync::Mutex<()>,
    queues: Mutex<HashMap<Partition, Arc<Queue>>>,
    /// How many partitions topics have, and since when that is known.
    shapes: RwLock<HashMap<Topic, (u32, Instant)>>,
    /// Where the next event without a key goes.
    turn: AtomicU64,
    closed: AtomicBool,
    /// The tasks that write; they outlive the futures of their callers.
    writers: TaskTracker,
}

impl Shared {
    fn learn(&self, topic: &Topic, partitions: u32) -> Result<u32, Error> {
        let partitions = partitions.max(1);
        // The name is copied: the event's own shares the bytes of its envelope.
        let topic = Topic::new(topic.as_str().to_owned())?;
        let mut shapes = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
        shapes.insert(topic, (partitions, Instant::now()));
        Ok(partitions)
    }
}

impl Publisher {
    pub(crate) fn new(
        driver: Arc<dyn Driver>,
        limits: PublishLimits,
        encoder: Arc<Encoder>,
    ) -> Self {
        Self(Arc::new(Shared {
            driver,
            limits,
            encoder,
            unconfirmed: Arc::new(Semaphore::new(limits.unconfirmed_max)),
            unconfirmed_bytes: Arc::new(Semaphore::new(limits.unconfirmed_bytes_max)),
            line: tokio::sync::Mutex::default(),
            queues: Mutex::default(),
            shapes: RwLock::default(),
            turn: AtomicU64::new(fastrand::u64(..)),
            closed: AtomicBool::new(false),
            writers: TaskTracker::new(),
        }))
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
        self.publish_with(event, PublishOptions::default()).await
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
        let encode = |event| move || self.encode(event, PublishOptions::default());
        self.publish_all(events.iter().map(encode), false).await
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
            return Err(PublishError::Unknown(self.late()));
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
        let until = self.until();
        let asked = self.enqueue(encode, deduplicate, until).await?;
        self.answer(asked, until).await
    }

    async fn publish_all<Encode>(
        &self,
        events: impl ExactSizeIterator<Item = Encode>,
        deduplicate: bool,
    ) -> Vec<Result<Receipt, PublishError>>
    where
        Encode: FnOnce() -> Result<Envelope, PublishError>,
    {
        let mut until = self.until();
        let mut asked = Vec::with_capacity(events.len());
        for encode in events {
            let one = self.enqueue(encode, deduplicate, until).await;
            if one.is_ok() {
                until = self.until();
            }
            asked.push(one.map(|asked| (asked, until)));
        }
        let mut answers = Vec::with_capacity(asked.len());
        for asked in asked {
            answers.push(match asked {
                Ok((asked, until)) => self.answer(asked, until).await,
                Err(error) => Err(error),
            });
        }
        answers
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

    async fn enqueue(
        &self,
        encode: impl FnOnce() -> Result<Envelope, PublishError>,
        deduplicate: bool,
        until: Instant,
    ) -> Result<Asked, PublishError> {
        let mut in_line = self.line(until).await?;
        let envelope = encode()?;
        if in_line.is_none() && !self.knows(&envelope) {
            // Who asks for a topic first must not be overtaken while the answer is on its way.
            in_line = Some(self.join_line(until).await?);
        }
        let permit = self.permit(&envelope, until).await?;
        let partition = self.partition_until(&envelope, deduplicate, until).await?;
        let queue = self.queue(partition);
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting::new(envelope, deduplicate, answer, permit);
        let number = queue.push(waiting, &self.0);
        drop(in_line);
        Ok(Asked { queue, number, answered })
    }

    async fn answer(&self, mut asked: Asked, until: Instant) -> Result<Receipt, PublishError> {
        if let Ok(answer) = timeout_at(until, &mut asked.answered).await {
            return answer.unwrap_or_else(|_| Err(queue::no_answer()));
        }
        // What still waits here was never sent, which makes the outcome certain.
        let withdrawn = asked.queue.withdraw(asked.number);
        let outcome = if withdrawn { PublishError::NotStored } else { PublishError::Unknown };
        Err(outcome(self.late()))
    }

    fn late(&self) -> Error {
        let text = format!("no answer of the store within {:?}", self.0.limits.deadline);
        Error::new(ErrorKind::Timeout, text)
    }

    /// The partition, where the store tells in time; nothing was sent before.
    async fn partition_until(
        &self,
        envelope: &Envelope,
        deduplicate: bool,
        until: Instant,
    ) -> Result<Partition, PublishError> {
        let turn = if deduplicate { Turn::OfId } else { Turn::Next };
        let known = timeout_at(until, self.partition_by(envelope, turn)).await;
        known.unwrap_or_else(|_| Err(self.late())).map_err(PublishError::NotStored)
    }

    /// The partition of an event: by the hash of its key, else each in turn.
    pub(crate) async fn partition(&self, envelope: &Envelope) -> Result<Partition, Error> {
        self.partition_by(envelope, Turn::Next).await
    }

    /// The partition of an event that may have been published before: the same as then.
    #[cfg(feature = "outbox")]
    pub(crate) async fn partition_of_id(&self, envelope: &Envelope) -> Result<Partition, Error> {
        self.partition_by(envelope, Turn::OfId).await
    }

    async fn partition_by(&self, envelope: &Envelope, turn: Turn) -> Result<Partition, Error> {
        let topic = envelope.event_type().topic();
        let partitions = self.partitions(&topic).await?;
        let hash = match envelope.key() {
            Some(key) => xxh3_64(key.as_bytes()),
            None if partitions == 1 => 0,
            None if turn == Turn::OfId => xxh3_64(envelope.id().as_bytes()),
            None => self.0.turn.fetch_add(1, Ordering::Relaxed),
        };
        let index = u32::try_from(hash % u64::from(partitions)).unwrap_or_default();
        Ok(Partition { topic, index })
    }

    async fn partitions(&self, topic: &Topic) -> Result<u32, Error> {
        let known = self.shapes().get(topic).copied();
        if let Some((partitions, since)) = known {
            if since.elapsed() >= SHAPE_KEPT {
                self.refresh(topic, partitions);
            }
            return Ok(partitions);
        }
        let TopicShape { partitions, .. } = self.0.driver.declare(topic).await?;
        self.0.learn(topic, partitions)
    }

    /// Asks again, in the background: nobody waits for it, so events of one key stay in order.
    /// Where that fails the topic stays as it is known.
    fn refresh(&self, topic: &Topic, partitions: u32) {
        // Known until then: others do not ask beside it.
        if self.0.learn(topic, partitions).is_err() {
            return;
        }
        let (shared, topic) = (Arc::downgrade(&self.0), topic.clone());
        let driver = Arc::clone(&self.0.driver);
        self.0.writers.spawn(async move {
            let declared = driver.declare(&topic).await;
            if let (Some(shared), Ok(shape)) = (shared.upgrade(), declared) {
                // A valid topic is valid still.
                let _learned = shared.learn(&topic, shape.partitions);
            }
        });
    }

    fn knows(&self, envelope: &Envelope) -> bool {
        self.shapes().contains_key(&envelope.event_type().topic())
    }

    fn shapes(&self) -> RwLockReadGuard<'_, HashMap<Topic, (u32, Instant)>> {
        self.0.shapes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, partition: Partition) -> Arc<Queue> {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queues.entry(partition).or_insert_with_key(|key| Queue::new(key.clone())))
    }

    /// Takes no more events and waits until every accepted one has its answer.
    pub(crate) async fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        self.0.unconfirmed.close();
        self.0.unconfirmed_bytes.close();
        self.0.writers.close();
        self.0.writers.wait().await;
    }
}

/// Where an event without a key goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Next,
    /// Where the same id went before.
    OfId,
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the bus is closed")
}

/// A published event whose answer is due.
struct Asked {
    queue: Arc<Queue>,
    number: u64,
    answered: oneshot::Receiver<Result<Receipt, PublishError>>,
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
