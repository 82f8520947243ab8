//! Wall-clock time as milliseconds, and the clock that gives it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, shown};

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
///
/// `Display` is RFC 3339 in UTC, with the fraction only where there is one.
///
/// ```
/// use rumormill::Timestamp;
/// let time: Timestamp = "2026-01-02T03:04:05Z".parse()?;
/// assert_eq!(time.to_string(), "2026-01-02T03:04:05Z");
/// let later = Timestamp::from_millis(time.as_millis() + 7);
/// assert_eq!(later.to_string(), "2026-01-02T03:04:05.007Z");
/// # Ok::<(), rumormill::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(u64);

/// 9999-12-30T22:00:00Z: what `jiff` can still print.
const MILLIS_MAX: u64 = 253_402_207_200_000;

impl Timestamp {
    /// A moment by its milliseconds; later than the year 9999 becomes the end of that year.
    pub const fn from_millis(millis: u64) -> Self {
        if millis > MILLIS_MAX { Self(MILLIS_MAX) } else { Self(millis) }
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `delay` later.
    #[must_use]
    pub fn plus(self, delay: Duration) -> Self {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// The time from `earlier` to this moment; zero where it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(time) => fmt::Display::fmt(&time, f),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || {
            Error::invalid(format!("time {:?} is not valid", shown(text)))
                .with_help("write RFC 3339, such as 2026-01-02T03:04:05Z")
        };
        let time: jiff::Timestamp = text.parse().map_err(|error| refuse().with_source(error))?;
        u64::try_from(time.as_millisecond()).map(Self::from_millis).map_err(|_| refuse())
    }
}

impl TryFrom<String> for Timestamp {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

/// Where wall-clock time comes from, so that a test can hold it.
///
/// Delays and deadlines never use it: they are measured on `tokio::time`.
pub trait Clock: Send + Sync + 'static {
    /// The current moment.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_times_name_the_mend() {
        for bad in ["", "yesterday", "2026-01-02", "1969-01-01T00:00:00Z"] {
            let error = bad.parse::<Timestamp>().expect_err(bad);
            assert!(error.help().is_some(), "{error}");
        }
    }

    #[test]
    fn the_far_future_is_printed() {
        assert!(Timestamp::from_millis(u64::MAX).to_string().starts_with("9999-12-3"));
    }

    #[test]
    fn a_time_is_a_text_in_data() {
        let time = Timestamp::from_millis(1_767_323_045_007);
        let data = serde_json::to_value(time).expect("a text");
        assert_eq!(data, "2026-01-02T03:04:05.007Z");
        assert_eq!(serde_json::from_value::<Timestamp>(data).expect("the same"), time);
        assert!(serde_json::from_value::<Timestamp>("soon".into()).is_err());
    }
}
