//! Reading the logs without a group: each follower knows its own place, the store knows nothing.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::source::await_entries;
use super::state::State;
use super::tools::entry;
use super::{MemoryDriver, Store};
use crate::delivery::{Entry, EntryId};
use crate::driver::{Follow, Followed, GroupName, Missed, Source};
use crate::error::Error;
use crate::pattern::{Covered, Pattern};

#[async_trait]
impl Follow for MemoryDriver {
    async fn follow(&self, name: &GroupName, patterns: &[Pattern]) -> Result<Followed, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        state.advance(Instant::now());
        let (mut places, mut anchors) = (BTreeMap::new(), Vec::new());
        let topics = Covered::by(patterns);
        for part in state.parts_of(&topics) {
            let (partition, ids) = (&state.parts[part].partition, &state.parts[part].log.ids);
            anchors.push((partition.clone(), ids.last));
            places.insert(part, Place { after: ids.last, next: ids.given });
        }
        let missed = Missed::default();
        let follower = MemoryFollower {
            store: Arc::clone(&self.store),
            closed: self.closed.child_token(),
            name: name.clone(),
            topics,
            parts_seen: state.part_count(),
            places,
            turn: 0,
            missed: missed.clone(),
        };
        Ok(Followed { source: Box::new(follower), anchors, missed })
    }
}

/// How far a log was read.
#[derive(Clone, Copy, Default)]
struct Place {
    after: EntryId,
    /// The number of the next entry, unless it is gone.
    next: u64,
}

struct MemoryFollower {
    store: Arc<Store>,
    closed: CancellationToken,
    name: GroupName,
    topics: Covered,
    /// By the place of the partition; as of `parts_seen` partitions.
    places: BTreeMap<usize, Place>,
    parts_seen: usize,
    /// Where the next round begins, so that no partition is always last.
    turn: usize,
    missed: Missed,
}

impl MemoryFollower {
    /// Takes what there is, one entry per partition and round; else tells when to look again.
    fn take(&mut self, budget: usize, now: Instant) -> (Vec<Entry>, Option<Instant>) {
        let store = Arc::clone(&self.store);
        let mut state = store.state();
        state.advance(now);
        self.refresh(&state);
        let parts: Vec<usize> = self.places.keys().copied().collect();
        let mut taken = Vec::new();
        let (mut events, mut empty) = (0, 0);
        while events < budget.max(1) && empty < parts.len() {
            let part = parts[self.turn % parts.len()];
            self.turn = self.turn.wrapping_add(1);
            match self.next(&state, part) {
                Some(entry) => {
                    events += entry.records.len();
                    taken.push(entry);
                    empty = 0;
                }
                None => empty += 1,
            }
        }
        let next = if taken.is_empty() { state.next_delayed() } else { None };
        (taken, next)
    }

    /// Topics that appeared are read from their beginning.
    fn refresh(&mut self, state: &State) {
        if self.parts_seen != state.part_count() {
            self.parts_seen = state.part_count();
            for part in state.parts_of(&self.topics) {
                self.places.entry(part).or_default();
            }
        }
    }

    fn next(&mut self, state: &State, part: usize) -> Option<Entry> {
        let place = self.places.get_mut(&part)?;
        let (partition, log) = (&state.parts[part].partition, &state.parts[part].log);
        let later = (Bound::Excluded(place.after), Bound::Unbounded);
        let (id, stored) = log.entries.range(later).next()?;
        self.missed.add(&self.name, partition, stored.number.saturating_sub(place.next));
        *place = Place { after: *id, next: stored.number + 1 };
        Some(entry(partition, *id, stored))
    }
}

#[async_trait]
impl Source for MemoryFollower {
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        let (store, closed) = (Arc::clone(&self.store), self.closed.clone());
        Ok(await_entries(&store, &closed, |now| self.take(budget, now)).await)
    }

    async fn close(&mut self) {
        self.closed.cancel();
    }
}
