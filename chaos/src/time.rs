//! One clock for all processes of a run: nanoseconds of the machine's monotonic clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine started.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).expect("a monotonic clock is past zero");
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// Microseconds since 1970, by this machine's clock on the wall.
pub(crate) fn wall_micros() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

/// A duration as nanoseconds.
pub(crate) const fn nanos(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + time.subsec_nanos() as u64
}
