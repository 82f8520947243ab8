//! What this process knows to have been in the logs. A log that knows less is another one: it was
//! deleted, or the server lost the end of it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::reply::LogFacts;
use crate::delivery::{EntryId, Partition};

/// What is known of each log.
#[derive(Default)]
pub(super) struct History(Mutex<HashMap<Partition, Known>>);

/// What is known of one log. A copy that was made before the log was looked at may be compared
/// with what was found; what came since must not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The last entry that was read or appended here, or told by the server.
    last: EntryId,
    /// How many entries it had ever had.
    added: u64,
    /// How often it became another one.
    age: u64,
}

impl History {
    fn table(&self) -> MutexGuard<'_, HashMap<Partition, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This entry was there.
    pub(super) fn note(&self, partition: &Partition, id: EntryId) {
        let mut table = self.table();
        match table.get_mut(partition) {
            Some(known) => known.last = known.last.max(id),
            None => {
                table.insert(partition.clone(), Known { last: id, ..Known::default() });
            }
        }
    }

    /// What is known now.
    pub(super) fn known(&self, partition: &Partition) -> Known {
        self.table().get(partition).copied().unwrap_or_default()
    }

    /// All logs of which something is known.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.table().keys().cloned().collect()
    }

    /// Compares what was known before a look with what was found; gives the last entry that was
    /// known of a log that is another one now, once. `elsewhere` is one that was written down and
    /// is missing.
    pub(super) fn compare(
        &self,
        partition: &Partition,
        before: Known,
        found: &LogFacts,
        elsewhere: Option<EntryId>,
    ) -> Option<EntryId> {
        let mut table = self.table();
        let known = table.entry(partition.clone()).or_default();
        if known.age != before.age {
            // Somebody else here has seen and said it.
            return None;
        }
        if before.is_of(found) && elsewhere.is_none() {
            known.last = known.last.max(found.last);
            known.added = known.added.max(found.added);
            return None;
        }
        *known = Known { last: found.last, added: found.added, age: known.age + 1 };
        Some(elsewhere.unwrap_or_default().max(before.last))
    }
}

impl Known {
    /// Whether it may be of this log.
    fn is_of(&self, log: &LogFacts) -> bool {
        // Where nothing was ever deleted, the first entry is the first that there ever was.
        let began_later = log.added == log.length && log.first.is_some_and(|id| id > self.last);
        let knows_some = self.last != EntryId::ZERO;
        log.last >= self.last && log.added >= self.added && !(knows_some && began_later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> EntryId {
        EntryId { millis, seq: 0 }
    }

    fn log(first: u64, last: u64, length: u64, added: u64) -> LogFacts {
        let first = (length > 0).then(|| id(first));
        LogFacts { last: id(last), added, length, first }
    }

    #[test]
    fn a_log_that_knows_less_is_another_one() {
        let partition: Partition = "t:0".parse().expect("valid");
        let history = History::default();
        history.note(&partition, id(5));
        let before = history.known(&partition);
        assert_eq!(history.compare(&partition, before, &log(1, 7, 3, 9), None), None);
        // The end is missing; there are fewer; there are as many, but all are new.
        for found in [log(1, 6, 3, 9), log(1, 8, 3, 8), log(8, 9, 9, 9), log(0, 0, 0, 0)] {
            let history = History::default();
            history.note(&partition, id(5));
            history.compare(&partition, history.known(&partition), &log(1, 7, 3, 9), None);
            let before = history.known(&partition);
            assert_eq!(history.compare(&partition, before, &found, None), Some(id(7)), "{found:?}");
            assert_eq!(history.compare(&partition, before, &found, None), None, "said once");
            let before = history.known(&partition);
            assert_eq!(history.compare(&partition, before, &found, None), None, "known again");
        }
    }

    #[test]
    fn what_was_appended_since_the_look_is_not_missed() {
        let partition: Partition = "t:0".parse().expect("valid");
        let history = History::default();
        history.note(&partition, id(5));
        let before = history.known(&partition);
        history.note(&partition, id(9));
        assert_eq!(history.compare(&partition, before, &log(5, 5, 1, 1), None), None);
        assert_eq!(history.known(&partition).last, id(9));
    }

    #[test]
    fn trimming_and_first_sight_lose_no_history() {
        let partition: Partition = "t:0".parse().expect("valid");
        let history = History::default();
        let unknown = history.known(&partition);
        assert_eq!(history.compare(&partition, unknown, &log(3, 4, 2, 2), None), None);
        let before = history.known(&partition);
        assert_eq!(history.compare(&partition, before, &log(0, 4, 0, 2), None), None);
        assert_eq!(history.compare(&partition, before, &log(8, 9, 1, 3), None), None);
        let before = history.known(&partition);
        let elsewhere = history.compare(&partition, before, &log(8, 9, 1, 3), Some(id(11)));
        assert_eq!(elsewhere, Some(id(11)));
    }
}
