//! Clocks, CPU and latencies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::job::Job;

/// Nanoseconds of a clock that all processes of a machine share and nobody sets.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = now.tv_sec * 1_000_000_000 + now.tv_nsec;
    u64::try_from(nanos).unwrap_or_default()
}

/// Nanoseconds of CPU that this process took.
pub(crate) fn own_cpu_ns() -> u64 {
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(taken.tv_sec * 1_000_000_000 + taken.tv_nsec).unwrap_or_default()
}

/// Nanoseconds of CPU that another process took, in steps of the kernel's clock tick.
pub(crate) fn cpu_ns_of(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// What one end of a round saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct End {
    /// When it began and when it was done.
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    pub(crate) cpu_ns: u64,
    /// Microseconds from due to handled, at p50, p90, p99, p99.9 and in all.
    pub(crate) latency_us: [u64; 5],
}

/// Counts what the handlers of all groups got.
pub(crate) struct Tally {
    expected: u64,
    handled: AtomicU64,
    done: Notify,
    /// Only where there is a schedule to be late for.
    latencies: Option<Mutex<Histogram<u64>>>,
}

impl Tally {
    pub(crate) fn new(job: &Job) -> Self {
        // Up to a minute, in microseconds, to three digits.
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Self {
            expected: job.events * job.groups as u64,
            handled: AtomicU64::new(0),
            done: Notify::new(),
            latencies: (job.rate > 0).then(|| Mutex::new(histogram)),
        }
    }

    /// An event came to a handler.
    pub(crate) fn handled(&self, payload: &[u8]) {
        if let Some(latencies) = &self.latencies {
            let late_us = now_ns().saturating_sub(Job::stamp(payload)) / 1000;
            let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.saturating_record(late_us.max(1));
        }
        if self.handled.fetch_add(1, Ordering::Relaxed) + 1 == self.expected {
            self.done.notify_one();
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.handled.load(Ordering::Relaxed) >= self.expected
    }

    /// Returns when everything was handled.
    pub(crate) async fn done(&self) {
        self.done.notified().await;
    }

    pub(crate) fn latency_us(&self) -> [u64; 5] {
        let Some(latencies) = &self.latencies else { return [0; 5] };
        let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| latencies.value_at_quantile(quantile);
        [at(0.5), at(0.9), at(0.99), at(0.999), latencies.max()]
    }
}
