//! How much a worker holds, and what it did while draining.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::{BroadcastCounts, DrainReport, GroupCounts};
use crate::delivery::Cause;
use crate::service::Skip;
use crate::service::{Distribution, ServiceOptions};

/// While handlers take less than this on average, more is read ahead: what is read is soon run.
const FAST_MICROS: u64 = 50;
/// How many times as much, unless the lanes are less deep than this: that is asked for.
const FAST_TIMES: usize = 4;
const FAST_DEPTH_MIN: usize = 64;

/// Counts events and bytes between `fetch` and the settler's answer, so that no more is read than
/// can be held.
pub(crate) struct InFlight {
    held: Apart<Held>,
    events_max: usize,
    /// The same while handlers are known to be fast.
    fast_max: usize,
    bytes_max: usize,
    /// Something ended.
    pub(crate) freed: Notify,
    timed: Apart<Timed>,
    unrouted: AtomicU64,
    filtered: AtomicU64,
    duplicates: AtomicU64,
    /// Nobody else gets what is not handled here.
    is_broadcast: bool,
    given_up: AtomicU64,
    malformed: AtomicU64,
    expired: AtomicU64,
    draining: AtomicBool,
    finished: AtomicU64,
    handed_over: AtomicU64,
    forced: AtomicU64,
}

/// On a cache line of its own: what one thread counts for each event is not to be taken away from
/// another that counts something else.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Default)]
struct Held {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Timed {
    /// Average time of a handler in microseconds, over about the last sixteen.
    micros: AtomicU64,
    /// How many handlers it is of, until it says something.
    handlers: AtomicUsize,
}

impl InFlight {
    pub(crate) fn new(options: &ServiceOptions) -> Self {
        let events_max = (options.lanes + 1) * options.lane_depth;
        let times = if options.lane_depth < FAST_DEPTH_MIN { 1 } else { FAST_TIMES };
        Self {
            held: Apart::default(),
            // What the lanes hold, and one lane's worth of read-ahead.
            events_max,
            fast_max: events_max * times,
            bytes_max: options.in_flight_bytes_max,
            freed: Notify::new(),
            timed: Apart::default(),
            unrouted: AtomicU64::new(0),
            filtered: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            is_broadcast: options.distribution == Distribution::Broadcast,
            given_up: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            finished: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            forced: AtomicU64::new(0),
        }
    }

    /// How many more events may be read now.
    pub(crate) fn budget(&self) -> usize {
        if self.held.0.bytes.load(Ordering::Relaxed) >= self.bytes_max {
            return 0;
        }
        let held = self.held.0.events.load(Ordering::Relaxed);
        if self.fast_max == self.events_max || !self.is_fast() {
            return self.events_max.saturating_sub(held);
        }
        // Room is soon there: a read that waits for it brings more, and a read costs the store
        // about the same whatever it brings.
        let room = self.fast_max.saturating_sub(held);
        if room < self.fast_max / 4 { 0 } else { room }
    }

    /// Whether a budget is so small that more room is worth a fetch begun anew.
    pub(crate) fn is_tight(&self, budget: usize) -> bool {
        budget <= self.events_max / 2
    }

    /// Whether handlers are known to be fast.
    fn is_fast(&self) -> bool {
        self.timed.0.handlers.load(Ordering::Relaxed) > self.events_max
            && self.handler_micros() < FAST_MICROS
    }

    /// Nothing is held: all that was fetched has ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.0.events.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn is_broadcast(&self) -> bool {
        self.is_broadcast
    }

    /// An event of a broadcast ended without being handled.
    pub(crate) fn gave_up(&self, cause: Cause) {
        let counter = match cause {
            Cause::Malformed => &self.malformed,
            Cause::Expired => &self.expired,
            _ => &self.given_up,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What became of a broadcast's events; `missed` is the source's to say.
    pub(crate) fn broadcast_counts(&self, missed: u64) -> BroadcastCounts {
        BroadcastCounts {
            given_up: self.given_up.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            missed,
        }
    }

    pub(crate) fn took(&self, events: usize, bytes: usize) {
        self.held.0.events.fetch_add(events, Ordering::Relaxed);
        self.held.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn settled(&self, events: usize, bytes: usize) {
        let held = self.held.0.events.fetch_sub(events, Ordering::Relaxed);
        debug_assert!(held >= events, "{events} events are settled of {held} that are held");
        let held = self.held.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(held >= bytes, "{bytes} bytes are settled of {held} that are held");
        self.freed.notify_one();
    }

    pub(crate) fn handled(&self, took: std::time::Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let micros = &self.timed.0.micros;
        let average = micros.load(Ordering::Relaxed);
        let next = average - average / 16 + took / 16;
        // Mostly the same: what is not written stays with all who read it.
        if next != average {
            micros.store(next, Ordering::Relaxed);
        }
        if self.timed.0.handlers.load(Ordering::Relaxed) <= self.events_max {
            self.timed.0.handlers.fetch_add(1, Ordering::Relaxed);
        }
        self.count(&self.finished);
    }

    /// Average time of a handler, in microseconds.
    pub(crate) fn handler_micros(&self) -> u64 {
        self.timed.0.micros.load(Ordering::Relaxed)
    }

    /// An event came that nobody in the group routes.
    pub(crate) fn unrouted(&self) {
        self.unrouted.fetch_add(1, Ordering::Relaxed);
    }

    /// An event was acknowledged without its handler.
    pub(crate) fn skipped(&self, why: Skip) {
        let counter = match why {
            Skip::Filtered => &self.filtered,
            Skip::Duplicate => &self.duplicates,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> GroupCounts {
        GroupCounts {
            unrouted: self.unrouted.load(Ordering::Relaxed),
            filtered: self.filtered.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn handed_over(&self) {
        self.count(&self.handed_over);
    }

    pub(crate) fn forced(&self) {
        self.count(&self.forced);
    }

    fn count(&self, counter: &AtomicU64) {
        if self.draining.load(Ordering::Relaxed) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn report(&self) -> DrainReport {
        let waiting = self.handed_over.load(Ordering::Relaxed);
        let (handed_over, dropped) = if self.is_broadcast { (0, waiting) } else { (waiting, 0) };
        DrainReport {
            finished: self.finished.load(Ordering::Relaxed),
            handed_over,
            dropped,
            forced: self.forced.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn held(distribution: Distribution) -> InFlight {
        let (lanes, lane_depth, in_flight_bytes_max) = (3, 5, 100);
        let defaults = ServiceOptions::default();
        InFlight::new(&ServiceOptions {
            distribution,
            lanes,
            lane_depth,
            in_flight_bytes_max,
            ..defaults
        })
    }

    #[test]
    fn the_lanes_and_one_more_of_read_ahead_are_the_budget() {
        let in_flight = held(Distribution::Shared);
        assert_eq!(in_flight.budget(), 20);
        assert!(in_flight.is_empty() && !in_flight.is_broadcast());
        in_flight.took(7, 99);
        assert!(!in_flight.is_empty());
        assert_eq!(in_flight.budget(), 13);
        in_flight.took(1, 1);
        assert_eq!(in_flight.budget(), 0, "as many bytes as there may be");
        in_flight.settled(8, 100);
        assert!(in_flight.is_empty());
        in_flight.took(21, 1);
        assert_eq!(in_flight.budget(), 0, "an entry may hold more than the budget");
    }

    #[test]
    fn the_average_follows_the_last_sixteen() {
        let in_flight = held(Distribution::Shared);
        in_flight.handled(Duration::from_micros(1_600));
        assert_eq!(in_flight.handler_micros(), 100);
        in_flight.handled(Duration::from_micros(3_200));
        // 100 - 6 + 200
        assert_eq!(in_flight.handler_micros(), 294);
    }

    #[test]
    fn why_an_event_was_not_handled_is_counted() {
        let in_flight = held(Distribution::Shared);
        in_flight.unrouted();
        (0..2).for_each(|_| in_flight.skipped(Skip::Filtered));
        (0..3).for_each(|_| in_flight.skipped(Skip::Duplicate));
        let GroupCounts { unrouted, filtered, duplicates } = in_flight.counts();
        assert_eq!((unrouted, filtered, duplicates), (1, 2, 3));
    }

    #[test]
    fn a_broadcast_counts_what_nobody_else_gets() {
        let in_flight = held(Distribution::Broadcast);
        assert!(in_flight.is_broadcast());
        in_flight.gave_up(Cause::Malformed);
        (0..2).for_each(|_| in_flight.gave_up(Cause::Expired));
        (0..3).for_each(|_| in_flight.gave_up(Cause::AttemptsSpent));
        let counts = in_flight.broadcast_counts(4);
        let BroadcastCounts { given_up, malformed, expired, missed } = counts;
        assert_eq!((malformed, expired, given_up, missed), (1, 2, 3, 4));
    }

    #[test]
    fn a_drain_reports_what_was_done_since_it_began() {
        for distribution in [Distribution::Shared, Distribution::Broadcast] {
            let in_flight = held(distribution);
            in_flight.handled(Duration::ZERO);
            in_flight.handed_over();
            in_flight.forced();
            in_flight.begin_drain();
            in_flight.handled(Duration::ZERO);
            (0..2).for_each(|_| in_flight.handed_over());
            (0..3).for_each(|_| in_flight.forced());
            let DrainReport { finished, handed_over, dropped, forced } = in_flight.report();
            assert_eq!((finished, forced), (1, 3));
            let away = if in_flight.is_broadcast() { (0, 2) } else { (2, 0) };
            assert_eq!((handed_over, dropped), away);
        }
    }
}
