//! When events are due: a thread of its own keeps a rate, whatever happens to the events. A timer
//! of the runtime would be a millisecond late.

use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use crate::failure::Failure;

/// Moments that may wait to be taken; then those that follow are late, and are counted from when
/// they were due all the same.
const AHEAD_MAX: usize = 4096;
/// It ends so soon after nobody listens any more.
const NAP_MAX: Duration = Duration::from_millis(100);

/// Starts the thread: `rate` moments a second for so long.
pub(super) fn start(rate: u32, time: Duration) -> Result<Receiver<Instant>, Failure> {
    let (due, taken) = channel(AHEAD_MAX);
    let thread = thread::Builder::new().name("schedule".to_owned());
    let spawned = thread.spawn(move || keep(rate, time, &due));
    spawned.map_err(|error| Failure::failed("cannot start a thread").because(&error))?;
    Ok(taken)
}

fn keep(rate: u32, time: Duration, due: &Sender<Instant>) {
    let begun = Instant::now();
    for number in 0..count(rate, time) {
        let moment = begun + offset(number, rate);
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if due.is_closed() {
                return;
            }
            thread::sleep(left.min(NAP_MAX));
        }
        if due.blocking_send(moment).is_err() {
            return;
        }
    }
}

/// How many events are due in all.
pub(super) fn count(rate: u32, time: Duration) -> u64 {
    let count = u128::from(rate) * time.as_nanos() / 1_000_000_000;
    u64::try_from(count).unwrap_or(u64::MAX).max(1)
}

fn offset(number: u64, rate: u32) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_even_and_do_not_drift() {
        assert_eq!(offset(0, 3), Duration::ZERO);
        assert_eq!(offset(3_000_000, 3), Duration::from_secs(1_000_000));
        assert_eq!(offset(1, 10_000), Duration::from_micros(100));
        assert_eq!(count(1000, Duration::from_millis(2500)), 2500);
        assert_eq!(count(1, Duration::from_millis(500)), 1);
    }

    #[test]
    fn every_moment_comes_however_late_it_is_taken() {
        let mut taken = start(1000, Duration::from_millis(50)).expect("a thread");
        let mut moments = Vec::new();
        while let Some(moment) = taken.blocking_recv() {
            moments.push(moment);
        }
        assert_eq!(moments.len(), 50);
        assert_eq!(moments[49] - moments[0], Duration::from_millis(49));
    }
}
