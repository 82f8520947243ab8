//! How much processor time this process uses.

use std::time::Duration;

/// Processor time at a moment. What is told of the difference of two.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// Of the whole process.
    pub(super) process: Duration,
    /// Of the thread that asks: the one that publishes and handles.
    pub(super) thread: Duration,
    /// How long that thread was ready to run and had no core; zero where that is not told.
    pub(super) kept_waiting: Duration,
}

/// Linux alone tells it: nanoseconds at work, nanoseconds without a core, turns.
const TURNS: &str = "/proc/thread-self/schedstat";

fn kept_waiting() -> Duration {
    let turns = std::fs::read_to_string(TURNS).unwrap_or_default();
    let nanos = turns.split(' ').nth(1).and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

impl Used {
    /// Until now; nothing where the system does not say.
    #[cfg(unix)]
    pub(super) fn now() -> Option<Self> {
        use rustix::time::{ClockId, clock_gettime};
        let read = |clock| Duration::try_from(clock_gettime(clock)).ok();
        let process = read(ClockId::ProcessCPUTime)?;
        let thread = read(ClockId::ThreadCPUTime)?;
        Some(Self { process, thread, kept_waiting: kept_waiting() })
    }

    #[cfg(not(unix))]
    pub(super) fn now() -> Option<Self> {
        None
    }

    /// Since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            process: self.process.saturating_sub(earlier.process),
            thread: self.thread.saturating_sub(earlier.thread),
            kept_waiting: self.kept_waiting.saturating_sub(earlier.kept_waiting),
        }
    }

    /// The busier of this thread and of the others together, which are all but one: the driver's
    /// own.
    pub(super) fn busiest(self) -> Duration {
        self.thread.max(self.process.saturating_sub(self.thread))
    }
}
