//! Parked keys of a group on a partition: what holds the later events of a key back, and where
//! they wait. The Redis driver's scripts do the same.

use std::collections::{BTreeMap, BTreeSet};

use super::group_part::Retried;
use crate::delivery::{Delivery, EntryId, Position};
use crate::envelope::Envelope;

/// A key, and an event's place in its order.
pub(super) type Spot = (String, (EntryId, u32));

/// Nothing for an event without a key.
pub(super) fn spot_of(delivery: &Delivery) -> Option<Spot> {
    let key = delivery.envelope().and_then(Envelope::key)?;
    let Position { partition: _, entry, index } = delivery.origin();
    Some((key.to_owned(), (entry, index)))
}

#[derive(Debug, Default)]
pub(super) struct Parking {
    /// By key: dead letters, and what is run after having been one or having waited for one.
    holders: BTreeMap<String, BTreeSet<(EntryId, u32)>>,
    /// Each has a holder before it.
    waiting: BTreeMap<Spot, Retried>,
    /// The letters that park their key.
    letters: BTreeMap<EntryId, Spot>,
}

impl Parking {
    /// Whether an earlier event holds the key.
    pub(super) fn holds(&self, (key, place): &Spot) -> bool {
        let first = self.holders.get(key).and_then(BTreeSet::first);
        first.is_some_and(|first| first < place)
    }

    /// Keeps an event back; gives it back where nothing holds it.
    pub(super) fn park(&mut self, spot: Spot, event: Retried) -> Option<Retried> {
        if !self.holds(&spot) {
            // What held it is gone meanwhile. It is the next, and later ones wait for it.
            self.holders.entry(spot.0).or_default().insert(spot.1);
            return Some(event);
        }
        if let Some(holders) = self.holders.get_mut(&spot.0) {
            holders.remove(&spot.1);
        }
        self.waiting.insert(spot, event);
        None
    }

    /// An event became a dead letter.
    pub(super) fn bury(&mut self, id: EntryId, spot: Spot) {
        self.holders.entry(spot.0.clone()).or_default().insert(spot.1);
        self.letters.insert(id, spot);
    }

    /// A letter got another id.
    pub(super) fn renamed(&mut self, before: EntryId, after: EntryId) {
        if let Some(spot) = self.letters.remove(&before) {
            self.letters.insert(after, spot);
        }
    }

    /// A letter's event is run again. It goes on to hold its key until it is handled.
    pub(super) fn redriven(&mut self, id: EntryId) {
        self.letters.remove(&id);
    }

    /// A letter was deleted; what is to be run now.
    pub(super) fn dropped(&mut self, id: EntryId) -> Option<Retried> {
        let spot = self.letters.remove(&id)?;
        self.release(&spot)
    }

    /// An event does not hold its key any more: the next that waits is run, and holds it.
    pub(super) fn release(&mut self, (key, place): &Spot) -> Option<Retried> {
        let holders = self.holders.get_mut(key)?;
        if !holders.remove(place) {
            return None;
        }
        let first = (key.clone(), (EntryId::ZERO, 0));
        let next = self.waiting.range(first..).next().map(|(spot, _)| spot.clone());
        let next = next
            .filter(|spot| spot.0 == *key && holders.first().is_none_or(|holder| spot.1 < *holder));
        if let Some(spot) = &next {
            holders.insert(spot.1);
        }
        if holders.is_empty() {
            self.holders.remove(key);
        }
        self.waiting.remove(&next?)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
