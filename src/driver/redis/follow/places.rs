//! How far each log was read, and how much of it was gone before it was. Pure.

use std::collections::BTreeMap;

use crate::delivery::{EntryId, Partition};
use crate::driver::Extent;

/// A place in one log.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    after: EntryId,
    /// How many entries there were up to here, those that were missed among them.
    seen: u64,
}

/// The places in all logs.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<Partition, Place>);

impl Places {
    /// Begins at the end of a log.
    pub(super) fn anchor(&mut self, partition: &Partition, extent: Extent) {
        self.0.insert(partition.clone(), Place { after: extent.last, seen: extent.added });
    }

    /// Begins at the beginning, where the log is not followed yet.
    pub(super) fn cover(&mut self, partition: Partition) -> bool {
        let fresh = !self.0.contains_key(&partition);
        self.0.entry(partition).or_default();
        fresh
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each partition with the id after which it is read.
    pub(super) fn list(&self) -> Vec<(Partition, EntryId)> {
        self.0.iter().map(|(partition, place)| (partition.clone(), place.after)).collect()
    }

    /// These entries were read.
    pub(super) fn took(&mut self, partition: &Partition, entries: u64, last: EntryId) {
        if let Some(place) = self.0.get_mut(partition) {
            *place = Place { after: last, seen: place.seen + entries };
        }
    }

    /// Compares a place with its log, before the log is read on: how many entries were gone in
    /// between. Ids alone do not tell. More entries gone than were seen here: the difference was
    /// ahead.
    pub(super) fn missed(&mut self, partition: &Partition, extent: Extent) -> u64 {
        let Some(place) = self.0.get_mut(partition) else { return 0 };
        let Extent { last, added, .. } = extent;
        let gone = extent.gone();
        if last < place.after {
            // The server has lost the end of its log, or all of it: all that is there is older
            // than what was seen here.
            *place = Place { after: last, seen: added };
            return 0;
        }
        if added < place.seen {
            // The log was deleted and made anew; what was in it meanwhile, nobody knows.
            place.seen = gone;
        }
        let missed = gone.saturating_sub(place.seen);
        place.seen += missed;
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> EntryId {
        EntryId { millis, seq: 0 }
    }

    fn extent(last: u64, added: u64, kept: u64) -> Extent {
        Extent { first: None, last: id(last), added, kept }
    }

    fn anchored(last: u64, added: u64) -> (Partition, Places) {
        let (partition, mut places) = ("a:0".parse().expect("valid"), Places::default());
        places.anchor(&partition, extent(last, added, added));
        (partition, places)
    }

    #[test]
    fn what_was_trimmed_ahead_is_counted_once() {
        let (own, mut places) = anchored(10, 10);
        assert_eq!(places.missed(&own, extent(10, 10, 0)), 0, "trimmed behind the place");
        assert_eq!(places.missed(&own, extent(16, 16, 4)), 2, "12 gone, 10 seen");
        assert_eq!(places.missed(&own, extent(16, 16, 4)), 0);
        places.took(&own, 4, id(16));
        assert_eq!(places.missed(&own, extent(20, 20, 0)), 4, "all of it gone");
        assert_eq!(places.list(), [(own, id(16))]);
    }

    #[test]
    fn a_log_that_went_back_is_read_on_from_its_end() {
        let (own, mut places) = anchored(10, 10);
        assert_eq!(places.missed(&own, extent(7, 7, 7)), 0);
        assert_eq!(places.list(), [(own.clone(), id(7))]);
        assert_eq!(places.missed(&own, extent(9, 9, 1)), 1);
    }

    #[test]
    fn a_log_made_anew_counts_from_there() {
        let (own, mut places) = anchored(10, 10);
        assert_eq!(places.missed(&own, extent(20, 3, 3)), 0);
        assert_eq!(places.missed(&own, extent(21, 4, 2)), 2);
    }

    #[test]
    fn what_appears_later_is_covered_once() {
        let (own, mut places) = anchored(10, 10);
        assert!(!places.cover(own.clone()));
        let later: Partition = "b:0".parse().expect("valid");
        assert!(places.cover(later.clone()));
        assert_eq!(places.list(), [(own, id(10)), (later.clone(), EntryId::ZERO)]);
        assert_eq!(places.missed(&later, extent(5, 5, 3)), 2, "trimmed before the first read");
    }
}
