//! A line on stderr that says how far something long is. Only a terminal sees it.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use tokio::time::Instant;

use crate::operate;

const SHOWN_EVERY: Duration = Duration::from_millis(200);
/// Columns of the bar, its ends included.
const BAR: usize = 22;

/// How far something is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    /// What is done, in pieces.
    pub(crate) done: u64,
    /// What was tried and did not work.
    pub(crate) failed: u64,
    /// How much of all that is, 0 to 1; nothing where nobody knows.
    pub(crate) share: Option<f64>,
    /// How many bytes that is, where they are counted.
    pub(crate) size: Option<u64>,
}

impl State {
    /// So many pieces of a known number.
    pub(crate) fn of(done: u64, failed: u64, all: u64) -> Self {
        let share = if all == 0 { 1.0 } else { (done + failed) as f64 / all as f64 };
        Self { done, failed, share: Some(share), size: None }
    }
}

/// The line, and when it was written.
pub(crate) struct Progress {
    /// Nothing where stderr is no terminal.
    shown: Option<Instant>,
    started: Instant,
    verb: &'static str,
}

impl Progress {
    /// `verb` says what was done with a piece, as in "stored".
    pub(crate) fn new(verb: &'static str) -> Self {
        let now = Instant::now();
        Self { shown: stderr().is_terminal().then_some(now), started: now, verb }
    }

    /// Shows how far it is, not too often.
    pub(crate) fn show(&mut self, state: State) {
        let now = Instant::now();
        if self.shown.is_some_and(|shown| now - shown >= SHOWN_EVERY) {
            self.shown = Some(now);
            let size = terminal_size::terminal_size_of(stderr());
            let columns = size.map_or(80, |(width, _)| usize::from(width.0));
            let line = line(self.verb, state, now - self.started, columns);
            let _ = write!(stderr(), "\r\x1b[K{line}");
        }
    }

    /// Takes the line away, before something else is written.
    pub(crate) fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// `[#####     ] 25 %  1200 stored, 3 refused  400/s  9s left`, as far as it fits.
fn line(verb: &str, state: State, elapsed: Duration, columns: usize) -> String {
    let State { done, failed, share, size } = state;
    let mut parts = vec![format!("{done} {verb}")];
    if failed > 0 {
        parts[0] += &format!(", {failed} refused");
    }
    parts.extend(size.map(operate::bytes));
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 {
        parts.push(format!("{:.0}/s", (done + failed) as f64 / seconds));
    }
    if let Some(share) = share.map(|share| share.clamp(0.0, 1.0)) {
        let filled = ((BAR - 2) as f64 * share) as usize;
        let bar = format!("[{}{}]", "#".repeat(filled), " ".repeat(BAR - 2 - filled));
        parts.insert(0, format!("{bar} {:.0} %", (share * 100.0).floor()));
        if share > 0.0 {
            let left = Duration::from_secs_f64(seconds * (1.0 - share) / share);
            parts.push(format!("{} left", human(left)));
        }
    }
    let line = parts.join("  ");
    line.chars().take(columns.saturating_sub(1)).collect()
}

/// A duration in its two largest units.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_rate_share_and_what_is_left() {
        let second = Duration::from_secs(1);
        let state = State::of(1000, 0, 4000);
        let expected = "[#####               ] 25 %  1000 stored  500/s  6s left";
        assert_eq!(line("stored", state, 2 * second, 80), expected);
        assert_eq!(line("stored", state, 2 * second, 30), &expected[..29]);
        let state = State { done: 7, failed: 1, share: None, size: Some(2048) };
        assert_eq!(line("moved", state, second, 80), "7 moved, 1 refused  2.0 KiB  8/s");
        let line = line("moved", State::of(0, 0, 0), Duration::ZERO, 80);
        assert_eq!(line, "[####################] 100 %  0 moved  0s left");
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        let shown = |seconds| human(Duration::from_secs(seconds));
        assert_eq!(shown(59), "59s");
        assert_eq!(shown(61), "1m 1s");
        assert_eq!(shown(7260), "2h 1m");
        assert_eq!(shown(90_000), "1d 1h");
    }
}
