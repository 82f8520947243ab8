//! What is known of topics: how many partitions they have, and the queue of each.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::xxh3_64;

use super::queue::Queue;
use super::{Publisher, late};
use crate::delivery::Partition;
use crate::driver::TopicShape;
use crate::envelope::Envelope;
use crate::error::{Error, PublishError};
use crate::event_type::{EventType, Topic};

/// How long a topic's partitions are taken as known; then they are asked for again. With what a
/// driver keeps, a change is known everywhere within ten seconds.
pub(super) const SHAPE_KEPT: Duration = Duration::from_secs(5);

/// What is known of every topic that was published to.
#[derive(Default)]
pub(super) struct Topics(RwLock<HashMap<Topic, Arc<Known>>>);

/// What is known of a topic.
struct Known {
    partitions: u32,
    since: Instant,
    /// By partition, as far as any was used: `partitions` at least.
    queues: Vec<Arc<Queue>>,
}

impl Topics {
    /// Every queue that there is.
    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        self.read().values().flat_map(|known| known.queues.iter().cloned()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Topic, Arc<Known>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how many partitions a topic has; those that had a queue keep it.
    pub(super) fn learn(&self, topic: &Topic, partitions: u32) -> Result<u32, Error> {
        let partitions = partitions.max(1);
        // The name is copied: the event's own shares the bytes of its envelope.
        let topic = Topic::new(topic.as_str().to_owned())?;
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = topics.get(&topic);
        let mut queues = before.map_or_else(Vec::new, |known| known.queues.clone());
        let count = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        let partition = |index| Partition { topic: topic.clone(), index };
        queues.extend((count..partitions).map(|index| Queue::new(partition(index))));
        let known = Known { partitions, since: Instant::now(), queues };
        topics.insert(topic, Arc::new(known));
        Ok(partitions)
    }
}

/// What its caller knows of the topic of the last event: who publishes many looks once. Not to be
/// kept over a wait.
#[derive(Default)]
pub(super) struct Last(Option<(EventType, Arc<Known>)>);

impl Last {
    /// What is known, where the event is of the same type: a look at its topic takes longer.
    fn of(&self, own: &EventType) -> Option<&Arc<Known>> {
        let (last, known) = self.0.as_ref()?;
        (std::ptr::eq(last.as_str(), own.as_str()) || last == own).then_some(known)
    }
}

/// Where an event without a key goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Next,
    /// Where the same id went before.
    OfId,
}

impl Publisher {
    /// The queue of an event whose topic is known, and not to be asked for again.
    pub(super) fn known_queue<'a>(
        &self,
        envelope: &Envelope,
        turn: Turn,
        now: Instant,
        last: &'a mut Last,
    ) -> Option<&'a Arc<Queue>> {
        let own = envelope.event_type();
        if last.of(own).is_none() {
            let known = self.0.topics.read().get(own.topic_name()).cloned();
            last.0 = known.map(|known| (own.clone(), known));
        }
        let (_, known) = last.0.as_ref()?;
        if now.duration_since(known.since) >= SHAPE_KEPT {
            return None;
        }
        known.queues.get(self.index(envelope, turn, known.partitions) as usize)
    }

    /// The queue of a partition of a known topic.
    pub(super) fn queue(&self, partition: &Partition) -> Arc<Queue> {
        let topics = self.0.topics.read();
        let known = topics.get(&partition.topic);
        let queue = known.and_then(|known| known.queues.get(partition.index as usize));
        Arc::clone(queue.expect("a partition is chosen among those that are known"))
    }

    /// The partition, where the store tells in time; nothing was sent before.
    pub(super) async fn partition_until(
        &self,
        envelope: &Envelope,
        deduplicate: bool,
        until: Instant,
    ) -> Result<Partition, PublishError> {
        let turn = if deduplicate { Turn::OfId } else { Turn::Next };
        let known = timeout_at(until, self.partition_by(envelope, turn)).await;
        known.unwrap_or_else(|_| Err(late(&self.0.limits))).map_err(PublishError::NotStored)
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
        Ok(Partition { topic, index: self.index(envelope, turn, partitions) })
    }

    fn index(&self, envelope: &Envelope, turn: Turn, partitions: u32) -> u32 {
        let hash = match envelope.key() {
            _ if partitions == 1 => 0,
            Some(key) => xxh3_64(key.as_bytes()),
            None if turn == Turn::OfId => xxh3_64(envelope.id().as_bytes()),
            None => self.0.turn.fetch_add(1, Ordering::Relaxed),
        };
        u32::try_from(hash % u64::from(partitions)).unwrap_or_default()
    }

    async fn partitions(&self, topic: &Topic) -> Result<u32, Error> {
        let known = self.0.topics.read().get(topic).map(|known| (known.partitions, known.since));
        if let Some((partitions, since)) = known {
            if since.elapsed() >= SHAPE_KEPT {
                self.refresh(topic, partitions);
            }
            return Ok(partitions);
        }
        let TopicShape { partitions, .. } = self.0.driver.declare(topic).await?;
        self.0.topics.learn(topic, partitions)
    }

    /// Asks again, in the background: nobody waits for it, so events of one key stay in order.
    /// Where that fails the topic stays as it is known.
    fn refresh(&self, topic: &Topic, partitions: u32) {
        // Known until then: others do not ask beside it.
        if self.0.topics.learn(topic, partitions).is_err() {
            return;
        }
        let (shared, topic) = (Arc::downgrade(&self.0), topic.clone());
        let driver = Arc::clone(&self.0.driver);
        self.0.writers.spawn(async move {
            let declared = driver.declare(&topic).await;
            if let (Some(shared), Ok(shape)) = (shared.upgrade(), declared) {
                // A valid topic is valid still.
                let _learned = shared.topics.learn(&topic, shape.partitions);
            }
        });
    }

    pub(super) fn knows(&self, envelope: &Envelope) -> bool {
        self.0.topics.read().contains_key(envelope.event_type().topic_name())
    }
}
