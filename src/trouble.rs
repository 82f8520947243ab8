//! What fails again and again, said once: a store that is down for an hour fills no disk.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::error::Error;

/// While it goes on, it is said again this often at most.
const SUMMARY_EVERY: Duration = Duration::from_secs(60);
/// What comes and goes is said this often in [`SUMMARY_EVERY`] at most, with its end each time.
const BEGINNINGS_MAX: u32 = 5;

/// Things that are told apart; beyond that, those that work are forgotten.
const THINGS_MAX: usize = 1_000;

/// One thing that may fail. Its owner logs what this says is to be logged.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// Since it works no more.
    since: Option<Instant>,
    /// Failures since then.
    times: u64,
    /// When a line was last written about the present trouble.
    said: Option<Instant>,
    /// When the beginnings were last counted from zero.
    window: Option<Instant>,
    beginnings: u32,
}

/// How often something failed, to be put at the end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    times: u64,
    since: Duration,
}

impl Trouble {
    /// It failed. Something where that is to be said.
    pub(crate) fn failed(&mut self) -> Option<Times> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        self.times += 1;
        let is_due = match self.said {
            Some(said) => now - said >= SUMMARY_EVERY,
            None => self.may_begin(now),
        };
        is_due.then(|| {
            self.said = Some(now);
            Times { times: self.times, since: now - since }
        })
    }

    /// It works. Something where its failing was said.
    pub(crate) fn over(&mut self) -> Option<Times> {
        let since = self.since.take()?;
        let times = std::mem::take(&mut self.times);
        self.said.take().map(|_| Times { times, since: since.elapsed() })
    }

    fn may_begin(&mut self, now: Instant) -> bool {
        if self.window.is_none_or(|window| now - window >= SUMMARY_EVERY) {
            self.window = Some(now);
            self.beginnings = 0;
        }
        self.beginnings += 1;
        self.beginnings <= BEGINNINGS_MAX
    }
}

/// Many things that may fail, by name: what was attempted, and for whom.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<HashMap<String, Trouble>>);

impl Troubles {
    /// Something failed, which is logged where it is to be said. That a driver is closed never is.
    pub(crate) fn failed(&self, what: impl fmt::Display, error: &Error) {
        if error.is_closed() {
            return;
        }
        let mut things = self.things();
        if things.len() >= THINGS_MAX {
            things.retain(|_, trouble| trouble.since.is_some());
        }
        if let Some(times) = things.entry(what.to_string()).or_default().failed() {
            tracing::warn!("{error:?}{times}");
        }
    }

    /// Something works.
    pub(crate) fn over(&self, what: impl fmt::Display) {
        let mut things = self.things();
        // Nothing fails: the name is not even written.
        if things.values().all(|trouble| trouble.since.is_none()) {
            return;
        }
        let what = what.to_string();
        if let Some(times) = things.get_mut(&what).and_then(Trouble::over) {
            tracing::info!("it works again to {what}{times}");
        }
    }

    /// One step of a task that must not end without a word. A panic in it is logged, and gives
    /// nothing.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only Redis has such tasks"))]
    pub(crate) async fn guard<T>(&self, what: &str, step: impl Future<Output = T>) -> Option<T> {
        let panic = match AssertUnwindSafe(step).catch_unwind().await {
            Ok(done) => return Some(done),
            Err(panic) => panic,
        };
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        if let Some(times) = self.things().entry(format!("panic: {what}")).or_default().failed() {
            tracing::error!("a panic when it was to {what}, which goes on: {text}{times}");
        }
        None
    }

    fn things(&self) -> MutexGuard<'_, HashMap<String, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Times {
    /// Nothing for the first time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { times, since } = *self;
        if times <= 1 && since.is_zero() {
            return Ok(());
        }
        let since = Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let word = if times == 1 { "time" } else { "times" };
        write!(f, " (failed {times} {word} in {since:?})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn an_hour_of_failures_is_a_line_a_minute() {
        let mut trouble = Trouble::default();
        let mut lines = Vec::new();
        for _ in 0..36_000 {
            lines.extend(trouble.failed().map(|times| times.to_string()));
            advance(Duration::from_millis(100)).await;
        }
        assert_eq!(lines.len(), 60);
        assert_eq!(lines[..2], ["", " (failed 601 times in 60s)"]);
        let over = trouble.over().expect("it was said").to_string();
        assert_eq!(over, " (failed 36000 times in 3600s)");
        assert_eq!(trouble.over(), None);
    }

    #[tokio::test]
    async fn a_step_that_panics_ends_nothing() {
        let troubles = Troubles::default();
        assert_eq!(troubles.guard("count", async { 1 }).await, Some(1));
        assert_eq!(troubles.guard("count", async { panic!("no number") }).await, None::<u32>);
        assert!(troubles.things()["panic: count"].since.is_some(), "it was said");
        assert_eq!(troubles.guard("count", async { 2 }).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_is_bounded_as_well() {
        let mut trouble = Trouble::default();
        let (mut begun, mut ended) = (0, 0);
        for _ in 0..600 {
            begun += u32::from(trouble.failed().is_some());
            ended += u32::from(trouble.over().is_some());
            advance(Duration::from_millis(100)).await;
        }
        assert_eq!((begun, ended), (BEGINNINGS_MAX, BEGINNINGS_MAX));
        assert!(trouble.failed().is_some(), "a minute later it is said again");
    }

    #[test]
    fn once_is_said_without_a_number() {
        let text =
            |times, seconds| Times { times, since: Duration::from_secs(seconds) }.to_string();
        assert_eq!(text(1, 0), "");
        assert_eq!(text(2, 0), " (failed 2 times in 0ns)");
        assert_eq!(text(1, 3), " (failed 1 time in 3s)");
    }

    #[tokio::test(start_paused = true)]
    async fn troubles_are_told_apart_and_those_that_are_over_are_forgotten() {
        let troubles = Troubles::default();
        let error = |kind| Error::new(kind, "no");
        let failing = || {
            let things = troubles.things();
            things.values().filter(|trouble| trouble.since.is_some()).count()
        };
        troubles.failed("end", &error(ErrorKind::Closed));
        assert_eq!(troubles.things().len(), 0, "that a driver is closed is no trouble");
        for number in 0..THINGS_MAX {
            troubles.failed(number, &error(ErrorKind::Server));
        }
        assert_eq!(failing(), THINGS_MAX);
        troubles.over("something else");
        (1..THINGS_MAX).for_each(|number| troubles.over(number));
        assert_eq!((failing(), troubles.things().len()), (1, THINGS_MAX));
        troubles.failed("one more", &error(ErrorKind::Server));
        assert_eq!((failing(), troubles.things().len()), (2, 2));
    }
}
