//! What came to the handlers: how many, which, how late and in which order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::job::Job;
use crate::measure::now_ns;

/// Events are spread over so many stripes by their numbers, each with cache lines of its own:
/// handlers that run side by side mostly touch different ones.
const STRIPES: u64 = 64;
/// Words of a cache line.
const LINE: u64 = 8;

/// Counts what the handlers of all groups got, each event of a group once.
pub(crate) struct Tally {
    job: Job,
    /// A bit for each event of each group.
    seen: Vec<Box<[AtomicU64]>>,
    words_expected: u64,
    /// Words of which every event has come.
    words_full: AtomicU64,
    again: AtomicU64,
    /// The number after the last one of each key, for each group, a cache line apart.
    next: Vec<Box<[AtomicU64]>>,
    disorder: AtomicU64,
    done: Notify,
    /// Only where there is a schedule to be late for.
    latencies: Option<Mutex<Histogram<u64>>>,
}

/// Where the bit of an event is, and what its word is when it is full.
struct Place {
    word: u64,
    bit: u64,
    full: u64,
}

/// Words of a stripe, up to the end of a cache line.
fn words_of_stripe(events: u64) -> u64 {
    events.div_ceil(STRIPES).div_ceil(64).next_multiple_of(LINE)
}

fn place(events: u64, number: u64) -> Place {
    let (stripe, index) = (number % STRIPES, number / STRIPES);
    let own = events / STRIPES + u64::from(stripe < events % STRIPES);
    let full = match (own - index / 64 * 64).min(64) {
        64 => u64::MAX,
        some => (1 << some) - 1,
    };
    Place { word: stripe * words_of_stripe(events) + index / 64, bit: 1 << (index % 64), full }
}

/// Words that have an event.
fn words_in_use(events: u64) -> u64 {
    let own = |stripe| events / STRIPES + u64::from(stripe < events % STRIPES);
    (0..STRIPES).map(|stripe| own(stripe).div_ceil(64)).sum()
}

impl Tally {
    pub(crate) fn new(job: &Job) -> Self {
        // Up to a minute, in microseconds, to three digits.
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Self {
            job: job.clone(),
            seen: for_each_group(job, words_of_stripe(job.events) * STRIPES),
            words_expected: words_in_use(job.events) * job.groups as u64,
            words_full: AtomicU64::new(0),
            again: AtomicU64::new(0),
            next: for_each_group(job, job.keys * LINE),
            disorder: AtomicU64::new(0),
            done: Notify::new(),
            latencies: (job.rate > 0).then(|| Mutex::new(histogram)),
        }
    }

    /// An event came to the handler of a group.
    pub(crate) fn handled(&self, group: usize, payload: &[u8]) {
        let number = Job::number(payload);
        if number >= self.job.events {
            // None of the job's: the round lacks an event.
            return;
        }
        let place = place(self.job.events, number);
        let Some(word) = usize::try_from(place.word).ok().and_then(|at| self.seen[group].get(at))
        else {
            return;
        };
        let before = word.fetch_or(place.bit, Ordering::Relaxed);
        if before & place.bit != 0 {
            self.again.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.check_order(group, number);
        self.record_latency(number, payload);
        if before | place.bit == place.full
            && self.words_full.fetch_add(1, Ordering::Relaxed) + 1 == self.words_expected
        {
            self.done.notify_one();
        }
    }

    fn check_order(&self, group: usize, number: u64) {
        let Some(key) = self.job.key(number) else { return };
        let Some(next) = usize::try_from(key * LINE).ok().and_then(|at| self.next[group].get(at))
        else {
            return;
        };
        if next.swap(number + 1, Ordering::Relaxed) > number {
            self.disorder.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn record_latency(&self, number: u64, payload: &[u8]) {
        let Some(latencies) = &self.latencies else { return };
        if self.job.is_slow(number) {
            return;
        }
        let late_us = now_ns().saturating_sub(Job::due(payload)) / 1000;
        let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.saturating_record(late_us.max(1));
    }

    pub(crate) fn is_done(&self) -> bool {
        self.words_full.load(Ordering::Relaxed) >= self.words_expected
    }

    /// How many did not come.
    pub(crate) fn missing(&self) -> u64 {
        let words = self.seen.iter().flatten();
        let came = words.map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()));
        self.job.events * self.job.groups as u64 - came.sum::<u64>()
    }

    /// How many came more than once.
    pub(crate) fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    /// How many came after a later one of their key.
    pub(crate) fn disorder(&self) -> u64 {
        self.disorder.load(Ordering::Relaxed)
    }

    /// Returns when everything was handled.
    pub(crate) async fn done(&self) {
        self.done.notified().await;
    }

    /// Microseconds from due to handled, at p50, p90, p99, p99.9 and in all.
    pub(crate) fn latency_us(&self) -> [u64; 5] {
        let Some(latencies) = &self.latencies else { return [0; 5] };
        let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| latencies.value_at_quantile(quantile);
        [at(0.5), at(0.9), at(0.99), at(0.999), latencies.max()]
    }
}

fn for_each_group(job: &Job, count: u64) -> Vec<Box<[AtomicU64]>> {
    (0..job.groups).map(|_| (0..count).map(|_| AtomicU64::new(0)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job { payload: 16, groups: 2, events: 4, keys: 2, ..Job::default() }
    }

    #[test]
    fn all_has_come_when_every_group_had_every_event_once() {
        let (job, tally) = (job(), Tally::new(&job()));
        for number in [0, 0, 1, 2, 3] {
            tally.handled(0, &job.payload(number, 0));
        }
        assert_eq!((tally.missing(), tally.again()), (4, 1));
        (0..4).for_each(|number| tally.handled(1, &job.payload(number, 0)));
        assert!(tally.is_done());
        assert_eq!(tally.disorder(), 0);
    }

    #[test]
    fn every_number_has_a_bit_of_its_own() {
        for events in [1, 63, 64, 65, 4_096, 4_097, 100_000] {
            let job = Job { payload: 16, groups: 1, events, ..Job::default() };
            let tally = Tally::new(&job);
            for number in 0..events {
                assert!(!tally.is_done(), "{number} of {events}");
                tally.handled(0, &job.payload(number, 0));
            }
            assert!(tally.is_done(), "{events}");
            assert_eq!((tally.missing(), tally.again()), (0, 0));
        }
    }

    #[test]
    fn an_event_behind_a_later_one_of_its_key_is_told() {
        let (job, tally) = (job(), Tally::new(&job()));
        for number in [1, 2, 0, 3] {
            tally.handled(0, &job.payload(number, 0));
        }
        assert_eq!(tally.disorder(), 1);
    }
}
