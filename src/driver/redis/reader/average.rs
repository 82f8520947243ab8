//! How many entries to ask for, by what they held so far.

use crate::driver::redis::reply::Fields;

/// Most entries that one read asks for, over all streams.
const ENTRIES_MAX: usize = 1024;
/// Bytes that one read asks for, by the average: what the server has to hold for a slow client.
const BYTES_MAX: f64 = (4 << 20) as f64;
/// Events and bytes of an entry before any was seen: a guess, and a fear.
const FIRST_EVENTS: f64 = 50.0;
const FIRST_BYTES: f64 = (512 << 10) as f64;

/// The running averages of events and bytes per entry: they rise at once and fall slowly, so that
/// a change to larger batches does not flood the consumer twice.
pub(in crate::driver::redis) struct Average {
    events: f64,
    bytes: f64,
    /// Bytes and entries that were seen since the last count.
    seen: (usize, usize),
    /// The bytes are a fear no longer.
    knows: bool,
}

impl Average {
    pub(in crate::driver::redis) const fn new() -> Self {
        Self { events: FIRST_EVENTS, bytes: FIRST_BYTES, seen: (0, 0), knows: false }
    }

    /// Takes note of the events of some entries.
    pub(in crate::driver::redis) fn note_events(&mut self, events: usize, entries: usize) {
        let seen = ratio(events, entries);
        self.events = next(self.events, seen.max(1.0));
    }

    /// Takes note of the size of one entry.
    pub(in crate::driver::redis) fn note_bytes(&mut self, fields: &Fields) {
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.seen = (self.seen.0 + bytes, self.seen.1 + 1);
    }

    fn take_bytes(&mut self) {
        let (bytes, entries) = std::mem::take(&mut self.seen);
        if entries == 0 {
            return;
        }
        let seen = ratio(bytes, entries).max(1.0);
        self.bytes = if self.knows { next(self.bytes, seen) } else { seen };
        self.knows = true;
    }

    /// Entries to ask for per stream.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small positive numbers, an estimate"
    )]
    pub(in crate::driver::redis) fn count(&mut self, budget: usize, streams: usize) -> usize {
        self.take_bytes();
        let entries = (budget.min(ENTRIES_MAX) as f64 / self.events).min(BYTES_MAX / self.bytes);
        (entries as usize / streams.max(1)).max(1)
    }
}

fn next(average: f64, seen: f64) -> f64 {
    if seen > average { seen } else { (average * 3.0 + seen) / 4.0 }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers, an estimate")]
fn ratio(sum: usize, entries: usize) -> f64 {
    sum as f64 / entries.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn of(bytes: usize) -> Fields {
        vec![(Bytes::new(), Bytes::from(vec![0; bytes]))]
    }

    #[test]
    fn the_budget_is_divided() {
        let mut average = Average { events: 1.0, bytes: 1.0, ..Average::new() };
        assert_eq!(average.count(100, 4), 25);
        assert_eq!(average.count(1, 4), 1);
        assert_eq!(average.count(1_000_000, 1), ENTRIES_MAX);
        average.note_events(100, 2);
        assert_eq!(average.count(100, 1), 2);
        average.note_events(2, 2);
        assert!(average.events > 30.0, "falls slowly");
    }

    #[test]
    fn a_read_is_bounded_by_bytes() {
        let mut average = Average { events: 1.0, ..Average::new() };
        assert_eq!(average.count(1000, 1), 8, "nothing is known yet");
        average.note_bytes(&of(4096));
        assert_eq!(average.count(10_000, 1), 1024, "the fear was for nothing");
        average.note_bytes(&of(500_000));
        average.note_bytes(&of(500_000));
        assert_eq!(average.count(1000, 1), 8, "rises at once");
        average.note_bytes(&of(10));
        assert_eq!(average.count(1000, 2), 5, "falls slowly");
        average.note_bytes(&of(64 << 20));
        assert_eq!(average.count(1000, 1), 1, "one at least");
    }
}
