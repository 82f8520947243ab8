//! What a run tells while it runs: one line that changes on a terminal, else a line every ten
//! seconds.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use tokio::time::Instant;

use crate::watch::Watch;

/// How far a run is.
pub(crate) struct Progress {
    title: String,
    begun: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
    pub(crate) faults: u32,
    pub(crate) now: String,
}

impl Progress {
    pub(crate) fn new(title: String) -> Self {
        Self {
            title,
            begun: Instant::now(),
            shown: None,
            is_terminal: stderr().is_terminal(),
            faults: 0,
            now: String::new(),
        }
    }

    /// Tells where it is, where that was not told a moment ago.
    pub(crate) fn show(&mut self, watch: &Watch) {
        let every = if self.is_terminal { Duration::from_millis(200) } else { TEN };
        if self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = format!(
            "{}: {} s, {} faults, {} acknowledged, {} not stored, {} unknown, {} delivered; {}",
            self.title,
            self.begun.elapsed().as_secs(),
            self.faults,
            watch.acknowledged,
            watch.not_stored,
            watch.unknown,
            watch.delivered,
            self.now,
        );
        let (head, end) = if self.is_terminal { ("\r\x1b[2K", "") } else { ("", "\n") };
        // Who does not read it misses nothing.
        let _closed = write!(stderr(), "{head}{line}{end}").and_then(|()| stderr().flush());
    }

    /// Leaves the line.
    pub(crate) fn end(&self) {
        if self.is_terminal {
            eprintln!();
        }
    }
}

const TEN: Duration = Duration::from_secs(10);
