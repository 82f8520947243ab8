//! What a test may look at: everything that is on its way, event by event.

use tokio::time::Instant;

use super::MemoryDriver;
use super::group_part::{GroupPart, Key};
use super::log::Log;
use super::state::Part;
use crate::delivery::{DeadLetter, Queue, Record};
use crate::driver::{Backlog, GroupName};

/// An event that a group has before it, or that is kept back for all.
#[derive(Debug)]
pub(crate) struct Held {
    /// The group; `None` for a delayed publish.
    pub(crate) group: Option<GroupName>,
    /// The attempt that its next, or its running, delivery is.
    pub(crate) attempt: u32,
    /// When it may be handed out; `None` where it was.
    pub(crate) at: Option<Instant>,
    pub(crate) record: Record,
}

impl MemoryDriver {
    /// Events that were handed out and are not settled.
    pub(crate) fn pending(&self) -> Vec<Held> {
        self.of_groups(|group, part, own| {
            let keys = own.pending.keys().map(|key| running(group, &part.log, own, *key));
            keys.flatten().collect()
        })
    }

    /// Events that wait for their moment, the next one first: retries, then delayed publishes of
    /// the same instant.
    pub(crate) fn due(&self) -> Vec<Held> {
        let mut due = self.of_groups(|group, _, own| {
            let held = own.due.iter().map(|((at, _), event)| Held {
                group: Some(group.clone()),
                attempt: event.attempt,
                at: Some(*at),
                record: event.record.clone(),
            });
            held.collect()
        });
        let state = self.store.state();
        for ((at, _), delayed) in &state.delayed {
            let held = |record: &Record| Held {
                group: None,
                attempt: 1,
                at: Some(*at),
                record: record.clone(),
            };
            due.extend(delayed.records.iter().map(held));
        }
        due.sort_by_key(|held| held.at);
        due
    }

    /// What every group gave up.
    pub(crate) fn dead(&self) -> Vec<(GroupName, DeadLetter)> {
        let state = self.store.state();
        let names = state.group_places.keys();
        let of = |name| state.parts_of_group(name).flat_map(|own| &own.dead);
        names.flat_map(|name| of(name).map(|letter| (name.clone(), letter.clone()))).collect()
    }

    /// Entries that groups with a consumer have to handle now.
    pub(crate) fn left(&self) -> u64 {
        let now = Instant::now();
        let mut state = self.store.state();
        state.advance(now);
        let live = state.group_places.iter().filter(|(_, place)| state.groups[**place].is_live());
        let parts = live.flat_map(|(name, _)| state.parts_of_group(name));
        let left = parts.map(|own| {
            let Backlog { unread, pending, .. } = own.backlog();
            unread + pending + u64::from(own.due.keys().next().is_some_and(|(at, _)| *at <= now))
        });
        left.sum()
    }

    /// Entries that were ever appended.
    pub(crate) fn appended(&self) -> u64 {
        self.store.state().parts.iter().map(|part| part.log.ids.given).sum()
    }

    /// Looks at each group on each partition.
    fn of_groups(&self, look: impl Fn(&GroupName, &Part, &GroupPart) -> Vec<Held>) -> Vec<Held> {
        let state = self.store.state();
        let mut all = Vec::new();
        for (name, place) in &state.group_places {
            for part in &state.parts {
                if let Some(own) = part.groups.get(place) {
                    all.extend(look(name, part, own));
                }
            }
        }
        all
    }
}

/// The events of a pending entry that are not settled.
fn running(group: &GroupName, log: &Log, own: &GroupPart, key: Key) -> Vec<Held> {
    let (records, attempt) = match key {
        (Queue::Log, id) => (&log.entries[&id].records[..], 1),
        (Queue::Retry, id) => {
            let event = &own.retry[&id];
            (std::slice::from_ref(&event.record), event.attempt)
        }
    };
    let settled = &own.pending[&key].settled;
    let open = (0..).zip(records).filter(|(index, _)| !settled.contains(*index));
    let held = |record: &Record| Held {
        group: Some(group.clone()),
        attempt,
        at: None,
        record: record.clone(),
    };
    open.map(|(_, record)| held(record)).collect()
}
