//! How many entries to ask for, by what they held so far.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::driver::redis::reply::RawEntry;

/// Most entries that one read asks for, over all streams.
const ENTRIES_MAX: usize = 1024;
/// Bytes that one answer may have, by the average: the server holds them for a slow client.
const BYTES_MAX: f64 = (4 << 20) as f64;
/// Events and bytes of an entry before any was seen: a guess, and a fear.
const FIRST_EVENTS: f64 = 50.0;
const FIRST_BYTES: f64 = (512 << 10) as f64;

/// The running average of events per entry: rises at once and falls slowly, so that a change to
/// larger batches does not flood the consumer twice.
pub(in crate::driver::redis) struct Average(f64);

impl Average {
    pub(in crate::driver::redis) const fn new() -> Self {
        Self(FIRST_EVENTS)
    }

    /// Takes note of the events of some entries.
    pub(in crate::driver::redis) fn note(&mut self, events: usize, entries: usize) {
        self.0 = next(self.0, ratio(events, entries));
    }

    /// Entries to ask for per stream, `most` of them at most over all streams.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small positive numbers, an estimate"
    )]
    pub(in crate::driver::redis) fn count(
        &self,
        budget: usize,
        streams: usize,
        most: usize,
    ) -> usize {
        let entries = (budget as f64 / self.0) as usize;
        (entries.min(ENTRIES_MAX).min(most) / streams.max(1)).max(1)
    }
}

/// The running average of bytes per entry, of all that a consumer reads and takes over.
#[derive(Default)]
pub(in crate::driver::redis) struct Sizes(Mutex<Option<f64>>);

impl Sizes {
    fn average(&self) -> MutexGuard<'_, Option<f64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of the sizes of entries.
    pub(in crate::driver::redis) fn note(&self, entries: &[RawEntry]) {
        // What was deleted has no size.
        let there = entries.iter().filter_map(|(_, fields)| fields.as_ref());
        let count = there.clone().count();
        if count == 0 {
            return;
        }
        let bytes: usize = there.flatten().map(|(name, value)| name.len() + value.len()).sum();
        let seen = ratio(bytes, count);
        let mut average = self.average();
        *average = Some(average.map_or(seen, |average| next(average, seen)));
    }

    /// Most entries to ask for at once, over all streams.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small positive numbers, an estimate"
    )]
    pub(in crate::driver::redis) fn most(&self) -> usize {
        let average = self.average().unwrap_or(FIRST_BYTES);
        ((BYTES_MAX / average) as usize).max(1)
    }
}

fn next(average: f64, seen: f64) -> f64 {
    if seen > average { seen } else { (average * 3.0 + seen) / 4.0 }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers, an estimate")]
fn ratio(sum: usize, entries: usize) -> f64 {
    sum.max(1) as f64 / entries.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::EntryId;
    use bytes::Bytes;

    fn of(bytes: usize) -> RawEntry {
        (EntryId::ZERO, Some(vec![(Bytes::new(), Bytes::from(vec![0; bytes]))]))
    }

    #[test]
    fn the_budget_is_divided() {
        let mut average = Average(1.0);
        assert_eq!(average.count(100, 4, 1000), 25);
        assert_eq!(average.count(100, 4, 40), 10);
        assert_eq!(average.count(1, 4, 1000), 1);
        assert_eq!(average.count(1_000_000, 1, usize::MAX), ENTRIES_MAX);
        assert_eq!(Average(50.0).count(5_000, 2, 1000), 50, "the budget is one of events");
        average.note(100, 2);
        assert_eq!(average.count(100, 1, 1000), 2);
        average.note(2, 2);
        assert!(average.0 > 30.0, "falls slowly");
    }

    #[test]
    fn an_answer_is_bounded_by_bytes() {
        let sizes = Sizes::default();
        sizes.note(&[(EntryId::ZERO, None)]);
        assert_eq!(sizes.most(), 8, "nothing is known yet");
        sizes.note(&[of(4096)]);
        assert_eq!(sizes.most(), 1024, "the fear was for nothing");
        sizes.note(&[of(500_000), of(500_000)]);
        assert_eq!(sizes.most(), 8, "rises at once");
        sizes.note(&[of(10)]);
        assert_eq!(sizes.most(), 11, "falls slowly");
        sizes.note(&[of(64 << 20)]);
        assert_eq!(sizes.most(), 1, "one at least");
    }
}
