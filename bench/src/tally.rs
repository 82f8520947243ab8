//! What came to the handlers: how many, which, how late and in which order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::job::Job;
use crate::measure::now_ns;

/// Counts what the handlers of all groups got, each event of a group once.
pub(crate) struct Tally {
    job: Job,
    expected: u64,
    /// A bit for each event of each group.
    seen: Vec<Box<[AtomicU64]>>,
    handled: AtomicU64,
    again: AtomicU64,
    /// The number after the last one of each key, for each group.
    next: Vec<Box<[AtomicU64]>>,
    disorder: AtomicU64,
    done: Notify,
    /// Only where there is a schedule to be late for.
    latencies: Option<Mutex<Histogram<u64>>>,
}

impl Tally {
    pub(crate) fn new(job: &Job) -> Self {
        // Up to a minute, in microseconds, to three digits.
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Self {
            job: job.clone(),
            expected: job.events * job.groups as u64,
            seen: for_each_group(job, job.events.div_ceil(64)),
            handled: AtomicU64::new(0),
            again: AtomicU64::new(0),
            next: for_each_group(job, job.keys),
            disorder: AtomicU64::new(0),
            done: Notify::new(),
            latencies: (job.rate > 0).then(|| Mutex::new(histogram)),
        }
    }

    /// An event came to the handler of a group.
    pub(crate) fn handled(&self, group: usize, payload: &[u8]) {
        let number = Job::number(payload);
        let (word, bit) = (number / 64, 1 << (number % 64));
        // A payload that is none of the job's is seen by nobody: the round lacks an event.
        let Some(word) = usize::try_from(word).ok().and_then(|at| self.seen[group].get(at)) else {
            return;
        };
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            self.again.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.check_order(group, number);
        self.record_latency(number, payload);
        if self.handled.fetch_add(1, Ordering::Relaxed) + 1 == self.expected {
            self.done.notify_one();
        }
    }

    fn check_order(&self, group: usize, number: u64) {
        let Some(key) = self.job.key(number).and_then(|key| usize::try_from(key).ok()) else {
            return;
        };
        if self.next[group][key].swap(number + 1, Ordering::Relaxed) > number {
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
        self.missing() == 0
    }

    /// How many did not come.
    pub(crate) fn missing(&self) -> u64 {
        self.expected - self.handled.load(Ordering::Relaxed).min(self.expected)
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
    fn an_event_behind_a_later_one_of_its_key_is_told() {
        let (job, tally) = (job(), Tally::new(&job()));
        for number in [1, 2, 0, 3] {
            tally.handled(0, &job.payload(number, 0));
        }
        assert_eq!(tally.disorder(), 1);
    }
}
