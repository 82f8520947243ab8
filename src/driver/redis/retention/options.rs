//! What is kept where a topic has no limits of its own.

use std::time::Duration;

use super::millis;
use crate::driver::admin::{Kept, TopicLimits};
use crate::error::Error;

/// The hard cap where neither the topic nor the server's memory has a limit.
const CAP_BYTES: u64 = 1 << 30;

/// What is kept of the logs, and for how long. What is said of a topic itself, with
/// [`Admin::set_retention`](crate::driver::admin::Admin::set_retention), comes before it.
///
/// All bytes are those of the entries' fields, estimated from a sample, per partition.
#[derive(Clone, Debug)]
pub struct RetentionOptions {
    /// How often a partition is trimmed, by one of all processes. Default 10 s.
    pub trim_every: Duration,
    /// How long entries are kept that all groups have settled, for groups that come later.
    /// Default 24 h.
    pub keep: Duration,
    /// The size of a log beyond which settled entries go earlier than that. Default 256 MiB.
    pub keep_bytes: u64,
    /// The size of a log beyond which the oldest entries go, settled or not; what groups lose by
    /// it is counted and reported. Default: a quarter of the server's `maxmemory`, or 1 GiB where
    /// there is none.
    pub cap_bytes: Option<u64>,
    /// How long a group without a live member holds what it has not settled, 48 h at least.
    /// Default 7 days.
    pub group_kept: Duration,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        Self {
            trim_every: Duration::from_secs(10),
            keep: 24 * HOUR,
            keep_bytes: 256 << 20,
            cap_bytes: None,
            group_kept: 7 * 24 * HOUR,
        }
    }
}

impl RetentionOptions {
    /// Of a pattern that a newer version of a service had, an older one refreshes the sign of
    /// life only a day later.
    const GROUP_KEPT_MIN: Duration = Duration::from_secs(48 * 60 * 60);

    pub(in crate::driver::redis) fn check(&self) -> Result<(), Error> {
        if self.trim_every.as_millis() == 0 {
            return Err(Error::invalid("trim_every must be 1 ms at least"));
        }
        if self.group_kept < Self::GROUP_KEPT_MIN {
            let text = format!("group_kept of {:?} is less than 48 h", self.group_kept);
            return Err(Error::invalid(text)
                .with_help("groups register their routes once a day at least: two days are safe"));
        }
        TopicLimits {
            keep: Some(self.keep),
            keep_bytes: Some(self.keep_bytes),
            cap_bytes: self.cap_bytes,
        }
        .check()
    }

    /// What holds for a topic on a server with so much memory; 0 is without a limit.
    pub(in crate::driver::redis) fn kept(&self, limits: &TopicLimits, maxmemory: u64) -> Kept {
        let by_memory = if maxmemory == 0 { CAP_BYTES } else { (maxmemory / 4).max(1) };
        let cap_bytes = limits.cap_bytes.or(self.cap_bytes).unwrap_or(by_memory);
        let keep_bytes = limits.keep_bytes.unwrap_or(self.keep_bytes).min(cap_bytes);
        let keep = limits.keep.unwrap_or(self.keep);
        Kept { keep_ms: millis(keep), keep_bytes, cap_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_comes_before_the_options_and_the_cap_before_all() {
        let options = RetentionOptions::default();
        let unset = TopicLimits::default();
        let kept = |limits, maxmemory| options.kept(limits, maxmemory);
        let day = 24 * 60 * 60 * 1000;
        let as_is = Kept { keep_ms: day, keep_bytes: 256 << 20, cap_bytes: 1 << 30 };
        assert_eq!(kept(&unset, 0), as_is);
        let small = kept(&unset, 400);
        assert_eq!((small.keep_bytes, small.cap_bytes), (100, 100), "a quarter of the memory");
        let set = TopicLimits {
            keep: Some(Duration::from_secs(1)),
            keep_bytes: Some(7),
            cap_bytes: Some(9),
        };
        assert_eq!(kept(&set, 400), Kept { keep_ms: 1000, keep_bytes: 7, cap_bytes: 9 });
    }

    #[test]
    fn limits_that_cannot_work_are_refused() {
        let options = |group_kept| RetentionOptions { group_kept, ..RetentionOptions::default() };
        assert!(options(Duration::from_secs(48 * 60 * 60)).check().is_ok());
        assert!(options(Duration::from_secs(47 * 60 * 60)).check().is_err());
        let none = RetentionOptions { trim_every: Duration::ZERO, ..RetentionOptions::default() };
        assert!(none.check().is_err());
        let less = RetentionOptions { cap_bytes: Some(1), ..RetentionOptions::default() };
        assert!(less.check().is_err(), "the cap is below what is kept");
    }
}
