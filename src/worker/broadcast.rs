//! What a broadcast has in place of a group: a source that notes how far its entries were taken,
//! a settler with nothing to settle, attempts in place, and counters in place of dead letters.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::lane::LaneShared;
use crate::delivery::{Entry, EntryId, Outcome, Partition, Settled, Settlement};
use crate::driver::{Feed, Followed, GroupName, GroupRoutes, Missed, Settler, Source};
use crate::error::Error;
use crate::event_type::Topic;
use crate::pattern::Pattern;

/// What became of the events of a broadcast that no handler of this instance finished: what a
/// group would have in its dead letters. Since it was subscribed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BroadcastCounts {
    /// Events whose attempts were spent, that the handler rejected or could not decode, or of a
    /// version that this instance does not know.
    pub given_up: u64,
    /// What was no event.
    pub malformed: u64,
    /// Events that had expired before they were run.
    pub expired: u64,
    /// Entries (each 1..n events) that were trimmed or deleted before this instance read them: it
    /// fell behind the log's retention. On Redis a lower bound.
    pub missed: u64,
}

/// How far a broadcast is. Cloning shares.
#[derive(Clone)]
pub(crate) struct Progress {
    patterns: Arc<[Pattern]>,
    taken: Arc<Mutex<BTreeMap<Partition, EntryId>>>,
    missed: Missed,
}

impl Progress {
    pub(crate) fn missed(&self) -> u64 {
        self.missed.entries()
    }

    /// Whether the broadcast reads a topic.
    pub(crate) fn covers(&self, topic: &Topic) -> bool {
        self.patterns.iter().any(|pattern| pattern.covers_topic(topic))
    }

    /// Whether all entries of a partition up to `end` came to the worker.
    pub(crate) fn is_past(&self, partition: &Partition, end: EntryId) -> bool {
        self.taken().get(partition).copied().unwrap_or(EntryId::ZERO) >= end
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, BTreeMap<Partition, EntryId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A feed for a worker, made of what a driver follows.
pub(crate) fn feed(
    name: &GroupName,
    patterns: Vec<Pattern>,
    followed: Followed,
) -> (Feed, Progress) {
    let Followed { source, anchors, missed } = followed;
    let taken = Arc::new(Mutex::new(anchors.into_iter().collect()));
    let progress = Progress { patterns: patterns.into(), taken, missed };
    let source = Noting { source, progress: progress.clone(), returned: Vec::new() };
    let feed = Feed {
        source: Box::new(source),
        settler: Arc::new(Forget),
        // There are no other members, so nothing is handed to one.
        routes: Arc::new(GroupRoutes::default()),
        consumer: format!("{name}.broadcast.{}.{:08x}", std::process::id(), fastrand::u32(..)),
    };
    (feed, progress)
}

/// Notes entries as taken when the worker comes back for more: then it has counted them as held.
struct Noting {
    source: Box<dyn Source>,
    progress: Progress,
    returned: Vec<(Partition, EntryId)>,
}

#[async_trait]
impl Source for Noting {
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        self.progress.taken().extend(self.returned.drain(..));
        let entries = self.source.fetch(budget).await?;
        self.returned = entries.iter().map(|entry| (entry.partition.clone(), entry.id)).collect();
        Ok(entries)
    }

    async fn close(&mut self) {
        self.source.close().await;
    }
}

/// Nothing is kept about a broadcast, so nothing is to be changed when a delivery ends.
struct Forget;

#[async_trait]
impl Settler for Forget {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled, Error>> {
        settlements.iter().map(|_| Ok(Settled::Done)).collect()
    }
}

impl LaneShared {
    /// Whether an attempt may be followed by another one, here and now.
    pub(super) fn is_again(&self, outcome: &Option<Outcome>) -> bool {
        self.in_flight.is_broadcast() && matches!(outcome, Some(Outcome::Retry { .. }))
    }

    /// What follows an attempt: of a broadcast the next one, after its pause, where the handler
    /// failed; else the end. What is behind it in the lane waits, which keeps the order per key.
    pub(super) async fn in_place(
        &self,
        attempt: u32,
        outcome: Option<Outcome>,
    ) -> ControlFlow<Option<Outcome>, u32> {
        let Some(Outcome::Retry { after, failure }) = &outcome else {
            return ControlFlow::Break(outcome);
        };
        // No longer than the policy's cap, whatever the handler asks for.
        let pause = (*after).min(self.retry.cap);
        let (broadcast, error) = (&self.outbox.group, failure.errors.join(": "));
        tracing::debug!(%broadcast, attempt, error, "failed; again in {pause:?}");
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => ControlFlow::Continue(attempt.saturating_add(1)),
            () = self.stop.thrown() => {
                self.in_flight.handed_over();
                ControlFlow::Break(Some(Outcome::Split { after: Duration::ZERO }))
            }
        }
    }
}
