//! Which events were stored lately, by their ids: only those for which deduplication was asked.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::delivery::EntryId;
use crate::event_id::EventId;

/// Where events of one store lie, by place of the partition and id, until they are forgotten.
#[derive(Debug, Default)]
pub(super) struct Marks {
    places: HashMap<(usize, EventId), (EntryId, u32)>,
    /// The same in the order in which they are forgotten: the window is the same for all.
    ends: VecDeque<(Instant, usize, EventId)>,
}

impl Marks {
    /// Where an event lies that was stored within the window.
    pub(super) fn find(&self, part: usize, id: EventId) -> Option<(EntryId, u32)> {
        self.places.get(&(part, id)).copied()
    }

    /// Remembers one that is not known.
    pub(super) fn set(&mut self, part: usize, id: EventId, place: (EntryId, u32), end: Instant) {
        self.places.insert((part, id), place);
        self.ends.push_back((end, part, id));
    }

    /// Forgets what has gone by.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((end, part, id)) = self.ends.front().copied()
            && end <= now
        {
            self.ends.pop_front();
            self.places.remove(&(part, id));
        }
    }
}
