//! Moving a group on a partition.

use std::ops::Bound;

use super::group_part::GroupPart;
use super::state::State;
use crate::delivery::{EntryId, Start};
use crate::driver::admin::{Count, SeekDone, SeekStep, target};

impl State {
    /// What moving a group would do on a partition; nothing where it is not there.
    pub(super) fn plan_seek(&self, place: usize, group: usize, to: Start) -> Option<SeekStep> {
        let part = &self.parts[place];
        let own = part.groups.get(&group)?;
        let (from, to) = (own.cursor, target(to, part.log.ids.last));
        let between =
            |low, high| if low < high { count(self.between(place, low, high)) } else { 0 };
        let backlog = own.backlog();
        Some(SeekStep {
            partition: part.partition.clone(),
            from,
            to,
            repeats: Count::exact(between(to, from)),
            skips: Count::exact(between(from, to)),
            pending_dropped: Count::exact(count(dropped(own, to))),
            retrying: backlog.due + u64::try_from(own.retry.len()).unwrap_or(u64::MAX),
        })
    }

    /// Moves a group on a partition.
    pub(super) fn seek(&mut self, place: usize, group: usize, to: EntryId) -> Option<SeekDone> {
        let own = self.parts[place].groups.get(&group)?;
        let from = own.cursor;
        let dropped = dropped(own, to);
        if to < from {
            self.go_back(place, group, to, &dropped);
        } else {
            self.go_forward(place, group, to, &dropped);
        }
        let partition = self.parts[place].partition.clone();
        let pending_dropped = count(dropped);
        Some(SeekDone { partition, from, to, pending_dropped })
    }

    /// What was pending is still to be settled, and unread; what was settled is so again.
    fn go_back(&mut self, place: usize, group: usize, to: EntryId, dropped: &[EntryId]) {
        let part = &mut self.parts[place];
        let Some(own) = part.groups.get_mut(&group) else { return };
        own.drop_pending(dropped);
        let range = (Bound::Excluded(to), Bound::Included(own.cursor));
        for (id, stored) in part.log.entries.range_mut(range) {
            own.unread += 1;
            if !dropped.contains(id) {
                stored.open += 1;
                if stored.open == 1 {
                    self.unsettled_bytes += stored.weight;
                }
            }
        }
        own.cursor = to;
        let topic = part.topic;
        self.recount_history(topic);
    }

    fn go_forward(&mut self, place: usize, group: usize, to: EntryId, dropped: &[EntryId]) {
        let Some(own) = self.parts[place].groups.get(&group) else { return };
        let skipped = self.between(place, own.cursor, to);
        let Some(own) = self.parts[place].groups.get_mut(&group) else { return };
        own.drop_pending(dropped);
        own.unread -= count(skipped.iter());
        own.cursor = to;
        for id in dropped.iter().chain(&skipped) {
            self.settled(place, *id);
        }
    }

    /// The entries of a log after one id, up to another.
    fn between(&self, place: usize, after: EntryId, last: EntryId) -> Vec<EntryId> {
        if after >= last {
            return Vec::new();
        }
        let range = (Bound::Excluded(after), Bound::Included(last));
        self.parts[place].log.entries.range(range).map(|(id, _)| *id).collect()
    }
}

/// What is no longer pending after a move: with a move back what is unread again, with one
/// forward what is skipped.
fn dropped(own: &GroupPart, to: EntryId) -> Vec<EntryId> {
    let mut ids = match to.cmp(&own.cursor) {
        std::cmp::Ordering::Less => own.pending_of_log(|id| id > to),
        std::cmp::Ordering::Equal => Vec::new(),
        std::cmp::Ordering::Greater => own.pending_of_log(|id| id <= to),
    };
    ids.sort();
    ids
}

fn count<T>(items: impl IntoIterator<Item = T>) -> u64 {
    u64::try_from(items.into_iter().count()).unwrap_or(u64::MAX)
}
