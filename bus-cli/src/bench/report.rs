//! What a measurement found, with stable names.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Bench;
use super::clocks::Used;
use super::limit::{Busy, Limit};
use super::load::{Even, Fast};

/// A rate counts as kept where so much of it came through in its time.
const KEPT_UP: f64 = 0.95;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) payload_bytes: usize,
    pub(super) window: usize,
    pub(super) groups: u32,
    pub(super) lanes: usize,
    /// Published, stored, handled and acknowledged by every group.
    pub(super) events_per_second: u64,
    /// The same times the groups.
    pub(super) deliveries_per_second: u64,
    pub(super) events: u64,
    pub(super) measured_ms: u64,
    pub(super) limit: Limit,
    pub(super) limit_meaning: &'static str,
    /// The share of the time in which publishing waited for the groups.
    pub(super) groups_behind: f64,
    /// The share of the time in which this program was ready and had no core.
    pub(super) kept_waiting: f64,
    /// At full speed; nothing where there is no server, or it does not tell.
    pub(super) server: Option<Processor>,
    /// At full speed; nothing where the system does not tell.
    pub(super) client: Option<Processor>,
    /// Of a PING on an idle connection; nothing where there is no server.
    pub(super) round_trip: Option<RoundTrip>,
    pub(super) latency: Latency,
}

/// How much processor time somebody used.
#[derive(Debug, Serialize)]
pub(super) struct Processor {
    /// The share of the time in which the busiest thread was at work.
    pub(super) busy: f64,
    /// Of all threads that were looked at.
    pub(super) us_per_event: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct RoundTrip {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// From the moment an event was due until a handler had it, of every group.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    /// Events a second, as they were due.
    pub(super) rate: u32,
    /// Whether so many came through.
    pub(super) kept_up: bool,
    pub(super) events: u64,
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
    pub(super) mean_us: f64,
    /// How late the schedule itself was: it is part of the latencies.
    pub(super) schedule_late_p50_us: f64,
    pub(super) schedule_late_p99_us: f64,
    pub(super) server_us_per_event: Option<f64>,
    pub(super) client_us_per_event: Option<f64>,
    pub(super) histogram: Vec<Bucket>,
}

/// Latencies up to a bound, and above that of the bucket before.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Bucket {
    pub(super) up_to_us: u64,
    pub(super) count: u64,
}

impl Report {
    pub(super) fn new(
        task: &Bench,
        is_local: bool,
        round_trip: &[u64],
        fast: &Fast,
        even: &Even,
    ) -> Self {
        let busy = busy(fast, is_local);
        let limit = busy.limit();
        let per_second = fast.per_second();
        Self {
            payload_bytes: task.payload_bytes,
            window: task.window,
            groups: task.groups,
            lanes: task.lanes,
            events_per_second: per_second.round() as u64,
            deliveries_per_second: (per_second * f64::from(task.groups)).round() as u64,
            events: fast.events,
            measured_ms: u64::try_from(fast.time.as_millis()).unwrap_or(u64::MAX),
            limit,
            limit_meaning: limit.meaning(),
            groups_behind: rounded(fast.behind),
            kept_waiting: rounded(busy.kept_waiting),
            server: fast.server.map(|used| Processor::of(used, used, fast)),
            client: fast.client.map(|used| Processor::of(used.busiest(), used.process, fast)),
            round_trip: RoundTrip::of(round_trip),
            latency: Latency::of(even),
        }
    }
}

fn busy(fast: &Fast, is_local: bool) -> Busy {
    let share = |used: Duration| used.as_secs_f64() / fast.time.as_secs_f64().max(f64::EPSILON);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Busy {
        server: fast.server.map(share),
        thread: fast.client.map(|used| share(used.busiest())),
        process: fast.client.map(|used| share(used.process)),
        kept_waiting: fast.client.map(|used| share(used.kept_waiting)).unwrap_or_default(),
        is_local,
        has_server: fast.has_server,
        cores: cores as f64,
    }
}

impl Processor {
    fn of(busiest: Duration, used: Duration, fast: &Fast) -> Self {
        let busy = busiest.as_secs_f64() / fast.time.as_secs_f64().max(f64::EPSILON);
        Self { busy: rounded(busy), us_per_event: per_event(used, fast.events) }
    }
}

impl RoundTrip {
    /// Of durations in order.
    fn of(took: &[u64]) -> Option<Self> {
        let at = |share: f64| {
            let index = ((took.len() as f64 * share) as usize).min(took.len().checked_sub(1)?);
            Some(micros(took[index]))
        };
        Some(Self { p50_us: at(0.5)?, p99_us: at(0.99)? })
    }
}

impl Latency {
    fn of(even: &Even) -> Self {
        let Even { rate, time, events, latencies, late, client, server } = even;
        let at = |share| micros(latencies.value_at_quantile(share));
        let through = *events as f64 / time.as_secs_f64().max(f64::EPSILON);
        Self {
            rate: *rate,
            kept_up: through >= f64::from(*rate) * KEPT_UP,
            events: *events,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(latencies.max()),
            mean_us: rounded(latencies.mean() / 1000.0),
            schedule_late_p50_us: micros(late.value_at_quantile(0.5)),
            schedule_late_p99_us: micros(late.value_at_quantile(0.99)),
            server_us_per_event: server.map(|used| per_event(used, *events)),
            client_us_per_event: client.map(|Used { process, .. }| per_event(process, *events)),
            histogram: buckets(latencies),
        }
    }
}

/// One for each power of two of microseconds between the least and the most.
fn buckets(latencies: &Histogram<u64>) -> Vec<Bucket> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let mut buckets = Vec::new();
    let (mut from, mut up_to_us) = (0, 1);
    while from <= latencies.max() {
        let up_to = up_to_us * 1000;
        let count = latencies.count_between(from, up_to);
        if count > 0 || !buckets.is_empty() {
            buckets.push(Bucket { up_to_us, count });
        }
        (from, up_to_us) = (latencies.highest_equivalent(up_to) + 1, up_to_us * 2);
    }
    buckets
}

fn per_event(used: Duration, events: u64) -> f64 {
    rounded(used.as_secs_f64() * 1e6 / events.max(1) as f64)
}

fn micros(nanos: u64) -> f64 {
    rounded(nanos as f64 / 1000.0)
}

/// To three places: more would be noise.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::tally::histogram;
    use super::*;

    #[test]
    fn every_latency_is_in_one_bucket() {
        let mut latencies = histogram();
        assert_eq!(buckets(&latencies), []);
        for nanos in [100_000, 127_000, 128_000, 129_000, 900_000, 900_000, 5_000_000_000] {
            latencies.saturating_record(nanos);
        }
        let buckets = buckets(&latencies);
        assert_eq!(buckets[0], Bucket { up_to_us: 128, count: 3 });
        assert_eq!(buckets[1], Bucket { up_to_us: 256, count: 1 });
        assert_eq!(buckets[3], Bucket { up_to_us: 1024, count: 2 });
        assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 7);
        assert_eq!(buckets.last().map(|bucket| bucket.count), Some(1));
    }

    #[test]
    fn a_round_trip_is_told_where_there_was_one() {
        assert!(RoundTrip::of(&[]).is_none());
        let took: Vec<u64> = (1..=100).map(|micros| micros * 1000).collect();
        let told = RoundTrip::of(&took).expect("there were some");
        assert_eq!((told.p50_us, told.p99_us), (51.0, 100.0));
    }
}
