//! What came back: how many events, and how long they took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Longer latencies count as this one.
const LATENCY_MAX: Duration = Duration::from_secs(60 * 60);
/// Digits that a latency is told by.
const DIGITS: u8 = 3;
/// In place of the moment of an event that has no schedule.
const NOT_DUE: u64 = u64::MAX;

/// Of nanoseconds, with bounded memory.
pub(super) fn histogram() -> Histogram<u64> {
    let max = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, max, DIGITS).expect("the bounds are in order")
}

/// Shared by the handlers of all groups.
pub(super) struct Tally {
    epoch: Instant,
    /// Per group.
    handled: Vec<AtomicU64>,
    latencies: Mutex<Histogram<u64>>,
    /// Something came.
    pub(super) come: Notify,
}

impl Tally {
    pub(super) fn new(groups: u32) -> Self {
        Self {
            epoch: Instant::now(),
            handled: (0..groups).map(|_| AtomicU64::new(0)).collect(),
            latencies: Mutex::new(histogram()),
            come: Notify::new(),
        }
    }

    /// The payload of an event: when it was due, its number, and nothing up to its size.
    pub(super) fn payload(&self, due: Option<Instant>, number: u64, size: usize) -> Vec<u8> {
        let due = due.map_or(NOT_DUE, |due| nanos(due.saturating_duration_since(self.epoch)));
        let mut payload = Vec::with_capacity(size);
        payload.extend(due.to_le_bytes());
        payload.extend(number.to_le_bytes());
        payload.resize(size, b'.');
        payload
    }

    /// Counts an event that `group` was given.
    pub(super) fn note(&self, group: usize, payload: &[u8]) {
        let due = payload.first_chunk().map_or(NOT_DUE, |due| u64::from_le_bytes(*due));
        if due != NOT_DUE {
            let took = nanos(self.epoch.elapsed()).saturating_sub(due);
            let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.saturating_record(took);
        }
        self.handled[group].fetch_add(1, Ordering::Relaxed);
        self.come.notify_one();
    }

    /// How many events every group was given.
    pub(super) fn handled(&self) -> u64 {
        let handled = self.handled.iter().map(|count| count.load(Ordering::Relaxed));
        handled.min().unwrap_or_default()
    }

    /// The latencies so far.
    pub(super) fn latencies(&self) -> Histogram<u64> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_latency_begins_when_the_event_was_due() {
        let tally = Tally::new(2);
        let due = Instant::now();
        let payload = tally.payload(Some(due), 7, 100);
        assert_eq!(payload.len(), 100);
        tokio::time::advance(Duration::from_millis(5)).await;
        tally.note(0, &payload);
        tally.note(0, &tally.payload(None, 8, 16));
        assert_eq!(tally.handled(), 0, "the other group has none yet");
        tally.note(1, &payload);
        assert_eq!(tally.handled(), 1);
        let latencies = tally.latencies();
        assert_eq!(latencies.len(), 2, "what has no schedule has no latency");
        assert_eq!(latencies.min() / 100_000, 49, "with three digits");
    }
}
