//! Time that stands still until it is moved.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use crate::time::{Clock, Timestamp};

/// A wall clock that goes with paused time.
pub(super) struct PausedClock {
    start: Timestamp,
    origin: Instant,
}

impl PausedClock {
    /// Pauses time, unless it is (`start_paused = true`).
    pub(super) fn new(start: Timestamp) -> Self {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        assert!(
            matches!(flavor, Ok(RuntimeFlavor::CurrentThread)),
            "a TestBus pauses time, which needs a current-thread runtime: write `#[tokio::test]` \
             without a flavor",
        );
        if !is_paused() {
            tokio::time::pause();
        }
        Self { start, origin: Instant::now() }
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.origin.elapsed())
    }
}

/// Moves the clock, through all timers on the way, to exactly this moment: a sleep alone ends at
/// the timer's next tick, up to a millisecond late.
pub(super) async fn move_to(moment: Instant) {
    const TICKS: Duration = Duration::from_millis(2);
    if let Some(before) = moment.checked_sub(TICKS).filter(|before| *before > Instant::now()) {
        tokio::time::sleep_until(before).await;
    }
    tokio::time::advance(moment.saturating_duration_since(Instant::now())).await;
}

/// tokio does not tell, and pausing twice panics; but a clock that runs moves within so many looks.
fn is_paused() -> bool {
    const LOOKS: usize = 10_000;
    let first = Instant::now();
    (0..LOOKS).all(|_| Instant::now() == first)
}
