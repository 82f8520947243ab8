//! When each event goes out. Pure: offsets in, times since the start out.

use std::time::Duration;

use crate::failure::Failure;

/// How fast a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Speed {
    /// So many times as fast as it was recorded.
    Times(f64),
    /// As fast as it goes.
    Max,
}

/// The slowest and the fastest: beyond them it is a slip of the finger, or `max`.
const TIMES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

/// 10,000 days: no recording is longer.
const OFFSET_MS_MAX: u64 = 10_000 * 24 * 60 * 60 * 1000;

impl Speed {
    /// Reads the value of `--speed`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(times) if TIMES.contains(&times) => Ok(Self::Times(times)),
            _ => Err(Failure::usage(format!("--speed: {text:?} is not valid")).with_help(
                "write max, or how many times as fast: 1 as recorded, 10, 0.5; 0.001 at least, \
                 1000000 at most",
            )),
        }
    }
}

/// The times at which events are due; they never go back, so that the order is that of the file.
#[derive(Debug)]
pub(super) struct Schedule {
    speed: Speed,
    /// The offset of the first event.
    first_ms: Option<u64>,
    last: Duration,
}

impl Schedule {
    pub(super) fn new(speed: Speed) -> Self {
        Self { speed, first_ms: None, last: Duration::ZERO }
    }

    /// When the next event is due, after the first. One without an offset goes with the one
    /// before it.
    pub(super) fn due(&mut self, offset_ms: Option<u64>) -> Duration {
        if let (Speed::Times(times), Some(offset)) = (self.speed, offset_ms) {
            let since = offset.saturating_sub(*self.first_ms.get_or_insert(offset));
            let due = Duration::from_millis(since.min(OFFSET_MS_MAX)).div_f64(times);
            self.last = self.last.max(due);
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(speed: &str, offsets: &[Option<u64>]) -> Vec<u128> {
        let mut schedule = Schedule::new(Speed::parse(speed).expect("valid"));
        offsets.iter().map(|offset| schedule.due(*offset).as_millis()).collect()
    }

    #[test]
    fn the_spacing_is_kept_or_scaled() {
        let offsets = [Some(0), Some(10), Some(1000), Some(3_600_000)];
        assert_eq!(due("1", &offsets), [0, 10, 1000, 3_600_000]);
        assert_eq!(due("10", &offsets), [0, 1, 100, 360_000]);
        assert_eq!(due("0.5", &offsets), [0, 20, 2000, 7_200_000]);
        assert_eq!(due("max", &offsets), [0; 4]);
    }

    #[test]
    fn a_file_that_is_entered_in_the_middle_begins_at_once() {
        assert_eq!(due("1", &[Some(5000), Some(5007)]), [0, 7]);
    }

    #[test]
    fn time_never_goes_back() {
        assert_eq!(due("1", &[Some(5), Some(2), None, Some(9), Some(8)]), [0, 0, 0, 4, 4]);
        assert_eq!(due("2", &[None, Some(100), Some(200), None]), [0, 0, 50, 50]);
        assert_eq!(due("0.001", &[Some(0), Some(u64::MAX)]).len(), 2, "no overflow");
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "0", "-1", "fast", "NaN", "inf", "2x", "1e9"] {
            assert!(Speed::parse(bad).is_err(), "{bad}");
        }
    }
}
