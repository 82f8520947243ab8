//! Which events a group has handled on a partition, by their ids, and until when that is known.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use crate::event_id::EventId;

/// The marks of one group on one partition.
#[derive(Debug, Default)]
pub(super) struct Handled {
    ends: HashMap<EventId, Instant>,
    /// The same by when they end; the number breaks ties.
    by_end: BTreeMap<(Instant, u64), EventId>,
    count: u64,
}

impl Handled {
    /// Whether an event of this id was handled within its window.
    pub(super) fn contains(&self, id: EventId, now: Instant) -> bool {
        self.ends.get(&id).is_some_and(|end| *end > now)
    }

    /// Notes an event until `end`; false where it was handled before.
    pub(super) fn insert(&mut self, id: EventId, now: Instant, end: Instant) -> bool {
        self.forget(now);
        if self.ends.contains_key(&id) {
            return false;
        }
        self.count += 1;
        self.ends.insert(id, end);
        self.by_end.insert((end, self.count), id);
        true
    }

    /// Forgets what has ended.
    fn forget(&mut self, now: Instant) {
        while let Some(first) = self.by_end.first_entry().filter(|first| first.key().0 <= now) {
            self.ends.remove(&first.remove());
        }
    }
}
