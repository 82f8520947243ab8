//! What is measured, and what came of it.

use serde::{Deserialize, Serialize};

use crate::job::Job;
use crate::stats;

/// A job for a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) peer: String,
    pub(crate) job: Job,
    /// Which line of a plot it belongs to, and where on it.
    pub(crate) line: String,
    pub(crate) x: f64,
}

/// What a round gave.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) events_per_second: f64,
    /// Microseconds of CPU for each event; where publisher and consumer share a process, all of
    /// it is the consumer's.
    pub(crate) server_us: f64,
    pub(crate) publisher_us: f64,
    pub(crate) consumer_us: f64,
    /// As in `Tally`.
    pub(crate) latency_us: [u64; 5],
    /// The consumer's, at its most.
    pub(crate) memory_kib: u64,
    /// Events that came to a group once more, and behind a later one of their key.
    pub(crate) again: u64,
    pub(crate) disorder: u64,
}

/// A case with its rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) case: Case,
    pub(crate) rounds: Vec<Round>,
    /// Why rounds do not count.
    pub(crate) void: Vec<String>,
}

impl Case {
    pub(crate) fn new(peer: &str, job: Job) -> Self {
        Self { peer: peer.to_owned(), job, line: peer.to_owned(), x: 0.0 }
    }

    /// A point of a plot.
    pub(crate) fn at(peer: &str, line: &str, x: f64, job: Job) -> Self {
        Self { peer: peer.to_owned(), job, line: line.to_owned(), x }
    }

    pub(crate) fn title(&self) -> String {
        let Job { payload, groups, window, rate, .. } = self.job;
        let speed = if rate == 0 { format!("window {window}") } else { format!("{rate}/s") };
        let at = match (self.line == self.peer, self.x > 0.0) {
            (true, false) => String::new(),
            (true, true) => format!(" (at {})", self.x),
            (false, _) => {
                format!(" ({} at {})", self.line.trim_end_matches(':'), self.x).replace("( ", "(")
            }
        };
        format!("{}, {payload} B, {}, {speed}{at}", self.peer, crate::table::groups(groups))
    }
}

impl Series {
    pub(crate) fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        stats::median(self.rounds.iter().map(of))
    }

    pub(crate) fn rate(&self) -> f64 {
        self.median(|round| round.events_per_second)
    }

    pub(crate) fn spread(&self) -> f64 {
        stats::spread(self.rounds.iter().map(|round| round.events_per_second))
    }

    /// The latency at a place of `Round::latency_us`.
    pub(crate) fn latency_us(&self, at: usize) -> f64 {
        self.median(|round| round.latency_us[at] as f64)
    }

    /// All three processes.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.median(|round| round.server_us + round.publisher_us + round.consumer_us)
    }
}
