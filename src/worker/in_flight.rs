//! How much a worker holds, and what it did while draining.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::{BroadcastCounts, DrainReport, GroupCounts};
use crate::delivery::Cause;
use crate::service::Skip;
use crate::service::{Distribution, ServiceOptions};

/// Where handlers are fast, more is read ahead: what they do in so long. It is soon run, and a read
/// costs the store about the same whatever it brings.
const AHEAD_MICROS: u64 = 10_000;
/// At most so many times as much, unless the lanes are less deep than this: that is asked for.
const FAST_TIMES: usize = 16;
const FAST_DEPTH_MIN: usize = 64;
/// The same where entries have fewer events than this: each is to be held, renewed and settled.
const FAST_TIMES_OF_FEW: usize = 4;
const FEW_EACH: usize = 8;

/// Counts events and bytes between `fetch` and the settler's answer, so that no more is read than
/// can be held.
pub(crate) struct InFlight {
    held: Apart<Held>,
    events_max: usize,
    /// How many times as much where handlers are as fast as can be, and entries have many events.
    fast_times: usize,
    /// Those that came last have few.
    few_each: AtomicBool,
    lanes: usize,
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
            fast_times: times,
            few_each: AtomicBool::new(false),
            lanes: options.lanes,
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
        let most = self.most();
        let room = most.saturating_sub(held);
        // Room is soon there: a read that waits for it brings more.
        if most > self.events_max && room < most / 2 { 0 } else { room }
    }

    /// How many events may be held while handlers are as fast as they are.
    fn most(&self) -> usize {
        if self.timed.0.handlers.load(Ordering::Relaxed) <= self.events_max {
            return self.events_max;
        }
        let each = AHEAD_MICROS / self.handler_micros().max(1);
        let ahead = usize::try_from(each).unwrap_or(usize::MAX).saturating_mul(self.lanes);
        let few_each = self.few_each.load(Ordering::Relaxed);
        let times = if few_each { FAST_TIMES_OF_FEW } else { FAST_TIMES }.min(self.fast_times);
        ahead.clamp(self.events_max, self.events_max * times)
    }

    /// Whether a budget is so small that more room is worth a fetch begun anew.
    pub(crate) fn is_tight(&self, budget: usize) -> bool {
        budget <= self.events_max / 2
    }

    /// Whether handlers are known to be fast: more is read ahead than otherwise.
    pub(crate) fn is_fast(&self) -> bool {
        self.most() > self.events_max
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

    /// So many events came, in so many entries.
    pub(crate) fn came(&self, events: usize, entries: usize) {
        self.few_each.store(events < entries * FEW_EACH, Ordering::Relaxed);
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
    fn more_is_read_ahead_of_fast_handlers() {
        let (lanes, lane_depth) = (3, FAST_DEPTH_MIN);
        let of = |lane_depth, micros: u64| {
            let options = ServiceOptions { lanes, lane_depth, ..ServiceOptions::default() };
            let in_flight = InFlight::new(&options);
            for _ in 0..2 * in_flight.events_max {
                in_flight.handled(Duration::from_micros(micros));
            }
            in_flight
        };
        let lanes_and_one = (lanes + 1) * lane_depth;
        assert_eq!(of(lane_depth, 0).budget(), lanes_and_one * FAST_TIMES);
        assert!(of(lane_depth, 0).is_fast());
        let few = of(lane_depth, 0);
        few.came(7 * FEW_EACH, 8);
        assert_eq!(few.budget(), lanes_and_one * FAST_TIMES_OF_FEW);
        few.came(8 * FEW_EACH, 8);
        assert_eq!(few.budget(), lanes_and_one * FAST_TIMES);
        // Ten milliseconds of three lanes, of handlers that take some thirty microseconds.
        let some = of(lane_depth, 32).budget();
        assert!((900..1_100).contains(&some), "{some}");
        assert!(!of(lane_depth, 1_000).is_fast());
        assert_eq!(of(lane_depth, 1_000).budget(), lanes_and_one);
        assert_eq!(of(lane_depth - 1, 0).budget(), (lanes + 1) * (lane_depth - 1), "asked for");
    }

    #[test]
    fn a_read_waits_for_room_where_that_is_soon_there() {
        let options = ServiceOptions { lanes: 1, ..ServiceOptions::default() };
        let in_flight = InFlight::new(&options);
        let all = in_flight.events_max * FAST_TIMES;
        (0..2 * in_flight.events_max).for_each(|_| in_flight.handled(Duration::ZERO));
        in_flight.took(all / 2, 1);
        assert_eq!(in_flight.budget(), all / 2);
        in_flight.took(1, 1);
        assert_eq!(in_flight.budget(), 0);
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
