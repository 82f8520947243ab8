//! How long a failed event waits for its next attempt. Pure.

use std::fmt;
use std::time::Duration;

use crate::error::Error;

/// When a failed event is tried again, and when it is given up.
///
/// The wait before attempt `n + 1` is drawn evenly between zero and `first * factor^(n - 1)`,
/// `cap` at most ("full jitter": a crowd that failed together does not come back together; see
/// Brooker, *Exponential Backoff And Jitter*, 2015). `Display` tells the horizon in words.
///
/// ```
/// let policy = rumormill::RetryPolicy::default();
/// assert_eq!(policy.to_string(), "16 attempts over about 14 min");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. Default 16.
    pub attempts_max: u32,
    /// The longest wait before the second attempt. Default 250 ms.
    pub first: Duration,
    /// How much longer each wait may be than the one before. Default 2.
    pub factor: f64,
    /// The longest wait of all. Default 5 min.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 16,
            first: Duration::from_millis(250),
            factor: 2.0,
            cap: Duration::from_secs(300),
        }
    }
}

impl RetryPolicy {
    /// One attempt: what fails is dead-lettered at once.
    pub const fn never() -> Self {
        Self { attempts_max: 1, first: Duration::ZERO, factor: 1.0, cap: Duration::ZERO }
    }

    /// The longest wait after attempt `attempt` (from 1) failed.
    pub fn bound(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let bound = self.first.as_secs_f64() * self.factor.powi(exponent);
        if bound < self.cap.as_secs_f64() { Duration::from_secs_f64(bound) } else { self.cap }
    }

    /// The wait after attempt `attempt` failed; `jitter` is drawn from `0.0..1.0`.
    pub fn delay(&self, attempt: u32, jitter: f64) -> Duration {
        self.bound(attempt).mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// The average time from the first attempt to the last.
    pub fn horizon(&self) -> Duration {
        // Beyond this many attempts each wait is the cap; the sum need not be drawn out.
        const SUMMED_MAX: u32 = 1_000;
        let waits = self.attempts_max.saturating_sub(1);
        let summed: Duration = (1..=waits.min(SUMMED_MAX)).map(|n| self.bound(n)).sum();
        (summed + self.cap * waits.saturating_sub(SUMMED_MAX)) / 2
    }

    /// Checks the values against one another.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the value.
    pub fn check(&self) -> Result<(), Error> {
        if self.attempts_max == 0 {
            return Err(Error::invalid("retry policy has 0 attempts, 1 at least"));
        }
        if !(1.0..=100.0).contains(&self.factor) {
            let text = format!("retry policy has factor {}, 1 to 100 are possible", self.factor);
            return Err(Error::invalid(text));
        }
        Ok(())
    }
}

impl fmt::Display for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.horizon().as_secs();
        match seconds {
            0..120 => write!(f, "{} attempts over about {seconds} s", self.attempts_max),
            _ => write!(f, "{} attempts over about {} min", self.attempts_max, seconds / 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_stay_below_the_cap(attempt in 1..10_000_u32, jitter in 0.0..1.0_f64) {
            let policy = RetryPolicy::default();
            prop_assert!(policy.delay(attempt, jitter) <= policy.cap);
            prop_assert!(policy.bound(attempt) <= policy.bound(attempt + 1));
        }
    }

    #[test]
    fn the_first_bounds_double() {
        let policy = RetryPolicy::default();
        let bounds: Vec<_> = (1..=4).map(|n| policy.bound(n).as_millis()).collect();
        assert_eq!(bounds, [250, 500, 1_000, 2_000]);
        assert_eq!(policy.bound(15), policy.cap);
        assert_eq!(policy.bound(u32::MAX), policy.cap);
    }

    #[test]
    fn the_jitter_draws_from_nothing_to_the_bound() {
        let policy = RetryPolicy::default();
        let drawn = [-1.0, 0.0, 0.5, 1.0, 2.0].map(|jitter| policy.delay(2, jitter).as_millis());
        assert_eq!(drawn, [0, 0, 250, 500, 500]);
    }

    #[test]
    fn the_horizon_is_half_of_all_waits() {
        let second = Duration::from_secs(1);
        let policy = |attempts_max| RetryPolicy {
            attempts_max,
            first: second,
            factor: 2.0,
            cap: 4 * second,
        };
        assert_eq!(policy(1).horizon(), Duration::ZERO);
        assert_eq!(policy(3).horizon(), 3 * second / 2);
        // 1 + 2 + 4 + 4
        assert_eq!(policy(5).horizon(), 11 * second / 2);
        // A thousand waits are summed, and ten more are the cap.
        assert_eq!(policy(1_011).horizon(), policy(1_001).horizon() + 20 * second);
    }

    #[test]
    fn a_policy_reads_as_it_is_meant() {
        let policy = |attempts_max, seconds| RetryPolicy {
            attempts_max,
            first: Duration::from_secs(seconds),
            factor: 1.0,
            cap: Duration::from_secs(seconds),
        };
        assert_eq!(RetryPolicy::never().to_string(), "1 attempts over about 0 s");
        assert_eq!(policy(2, 238).to_string(), "2 attempts over about 119 s");
        assert_eq!(policy(2, 240).to_string(), "2 attempts over about 2 min");
        assert_eq!(RetryPolicy::default().to_string(), "16 attempts over about 14 min");
    }

    #[test]
    fn a_policy_that_cannot_be_kept_is_refused() {
        let policy =
            |attempts_max, factor| RetryPolicy { attempts_max, factor, ..RetryPolicy::default() };
        assert!(policy(1, 1.0).check().is_ok() && policy(1, 100.0).check().is_ok());
        assert!(RetryPolicy::never().check().is_ok());
        for bad in [policy(0, 2.0), policy(1, 0.9), policy(1, 100.1), policy(1, f64::NAN)] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
