//! How much processor time this process uses.

use std::time::Duration;

/// Processor time at a moment. What is told of the difference of two.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// Of the whole process.
    pub(super) process: Duration,
    /// Of the thread that asks: the one that publishes and handles.
    pub(super) thread: Duration,
}

impl Used {
    /// Until now; nothing where the system does not say.
    #[cfg(unix)]
    pub(super) fn now() -> Option<Self> {
        use rustix::time::{ClockId, clock_gettime};
        let read = |clock| Duration::try_from(clock_gettime(clock)).ok();
        let process = read(ClockId::ProcessCPUTime)?;
        Some(Self { process, thread: read(ClockId::ThreadCPUTime)? })
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
        }
    }

    /// The busier of this thread and of the others together, which are all but one: the driver's
    /// own.
    pub(super) fn busiest(self) -> Duration {
        self.thread.max(self.process.saturating_sub(self.thread))
    }
}
