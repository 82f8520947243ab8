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
    events: AtomicUsize,
    bytes: AtomicUsize,
    events_max: usize,
    /// The same while handlers are known to be fast.
    fast_max: usize,
    bytes_max: usize,
    /// Something ended.
    pub(crate) freed: Notify,
    /// Average time of a handler in microseconds, over about the last sixteen.
    handler_micros: AtomicU64,
    /// How many events ended, until the average says something.
    ended: AtomicUsize,
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

impl InFlight {
    pub(crate) fn new(options: &ServiceOptions) -> Self {
        let events_max = (options.lanes + 1) * options.lane_depth;
        let times = if options.lane_depth < FAST_DEPTH_MIN { 1 } else { FAST_TIMES };
        Self {
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            // What the lanes hold, and one lane's worth of read-ahead.
            events_max,
            fast_max: events_max * times,
            bytes_max: options.in_flight_bytes_max,
            freed: Notify::new(),
            handler_micros: AtomicU64::new(0),
            ended: AtomicUsize::new(0),
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
        if self.bytes.load(Ordering::Relaxed) >= self.bytes_max {
            return 0;
        }
        let held = self.events.load(Ordering::Relaxed);
        if self.fast_max == self.events_max || !self.is_fast() {
            return self.events_max.saturating_sub(held);
        }
        // Room is soon there: a read that waits for it brings more, and a read costs the store
        // about the same whatever it brings.
        let room = self.fast_max.saturating_sub(held);
        if room < self.fast_max / 4 { 0 } else { room }
    }

    /// Whether handlers are known to be fast.
    fn is_fast(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > self.events_max && self.handler_micros() < FAST_MICROS
    }

    /// Nothing is held: all that was fetched has ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.load(Ordering::Relaxed) == 0
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
        self.events.fetch_add(events, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn settled(&self, events: usize, bytes: usize) {
        if self.ended.load(Ordering::Relaxed) <= self.events_max {
            self.ended.fetch_add(events, Ordering::Relaxed);
        }
        let held = self.events.fetch_sub(events, Ordering::Relaxed);
        debug_assert!(held >= events, "{events} events are settled of {held} that are held");
        let held = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(held >= bytes, "{bytes} bytes are settled of {held} that are held");
        self.freed.notify_one();
    }

    pub(crate) fn handled(&self, took: std::time::Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let average = self.handler_micros.load(Ordering::Relaxed);
        self.handler_micros.store(average - average / 16 + took / 16, Ordering::Relaxed);
        self.count(&self.finished);
    }

    /// Average time of a handler, in microseconds.
    pub(crate) fn handler_micros(&self) -> u64 {
        self.handler_micros.load(Ordering::Relaxed)
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
