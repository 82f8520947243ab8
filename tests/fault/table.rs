//! A fault's row in the table of `docs/reliability.md`, and whether it keeps the promise.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rumormill::EventId;

use super::ledger::{Recovery, Story};

/// Names the folder that rows are written to.
const FOLDER: &str = "RUMORMILL_FAULT_TABLE";

/// How soon both halves work again.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// Of ninety-nine in a hundred.
    pub p99: Duration,
    pub max: Duration,
}

impl Promise {
    pub const AFTER_HEAL: Self = Self { p99: Duration::from_secs(2), max: Duration::from_secs(5) };

    pub const fn within(time: Duration) -> Self {
        Self { p99: time, max: time }
    }
}

/// What the rounds of one fault showed.
pub struct Row {
    pub place: u32,
    pub name: &'static str,
    pub promise: Promise,
    /// Of each round; none where it did not recover.
    pub recoveries: Vec<Option<Recovery>>,
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub lost: Vec<(EventId, Story)>,
    pub refused_and_stored: Vec<(EventId, Story)>,
    pub twice: Vec<(EventId, Story)>,
    pub overtaken: Vec<(EventId, Story)>,
}

impl Row {
    /// Writes the row where `RUMORMILL_FAULT_TABLE` says, and to the test's output.
    pub fn write(&self) {
        println!("{self}");
        keep(&format!("{:02}.row", self.place), &self.to_string());
    }

    /// What must hold on any machine. How soon is for the table to say.
    pub fn check(&self) {
        let Self { name, lost, refused_and_stored, twice, overtaken, .. } = self;
        let recovered = self.recoveries.iter().all(Option::is_some);
        assert!(recovered, "{name}: did not recover: {self}");
        assert!(lost.is_empty(), "{name}: acknowledged and lost: {}", list(lost));
        let refused = list(refused_and_stored);
        assert!(refused_and_stored.is_empty(), "{name}: not stored, and in the log: {refused}");
        assert!(twice.is_empty(), "{name}: twice in the log: {}", list(twice));
        assert!(overtaken.is_empty(), "{name}: behind later ones: {}", list(overtaken));
    }

    fn is_kept(&self) -> bool {
        let Promise { p99, max } = self.promise;
        let keeps = |times: Vec<Duration>| rank(&times, 0.99) <= p99 && rank(&times, 1.0) <= max;
        self.recoveries.iter().all(Option::is_some)
            && keeps(self.times(|recovery| recovery.publish))
            && keeps(self.times(|recovery| recovery.delivery))
            && self.lost.is_empty()
            && self.wrong() == 0
    }

    /// Events that stand in the log as they must not.
    fn wrong(&self) -> usize {
        self.refused_and_stored.len() + self.twice.len() + self.overtaken.len()
    }

    fn times(&self, of: fn(&Recovery) -> Duration) -> Vec<Duration> {
        let mut times: Vec<Duration> = self.recoveries.iter().flatten().map(of).collect();
        times.sort_unstable();
        times
    }
}

/// Writes the row of a fault whose rounds never come to an end, for the time until they have.
pub fn begin(place: u32, name: &str) {
    keep(&format!("{place:02}.row"), &format!("| {name} | | | | | | | | | **did not finish** |"));
}

/// Writes a line below the table.
pub fn line(name: &str, text: &str) {
    println!("{text}");
    keep(&format!("{name}.line"), text);
}

fn keep(file: &str, text: &str) {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    std::fs::write(PathBuf::from(folder).join(file), format!("{text}\n")).expect("a folder");
}

/// Median, 99th percentile and longest, in seconds.
pub fn ranks(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let of = |part| match rank(&times, part) {
        Duration::MAX => "never".to_owned(),
        time => format!("{:.2}", time.as_secs_f64()),
    };
    format!("{} / {} / {}", of(0.5), of(0.99), of(1.0))
}

/// By nearest rank; nothing recovered is the longest time there is.
fn rank(sorted: &[Duration], part: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and positive"
    )]
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(Duration::MAX)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, acknowledged, refused, unknown, .. } = self;
        let rounds = self.recoveries.len();
        write!(f, "| {name} | {rounds} ")?;
        for times in [self.times(|of| of.publish), self.times(|of| of.delivery)] {
            write!(f, "| {} ", ranks(times))?;
        }
        write!(f, "| {acknowledged} | {refused} | {unknown} | {} ", self.lost.len())?;
        write!(f, "| {} ", self.wrong())?;
        write!(f, "| {} |", if self.is_kept() { "kept" } else { "**broken**" })
    }
}

/// The first of them, to look for.
fn list(events: &[(EventId, Story)]) -> String {
    let mut sorted: Vec<_> = events.iter().collect();
    sorted.sort_by_key(|(_, story)| story.number);
    let shown: Vec<String> =
        sorted.iter().take(5).map(|(id, story)| format!("{id} {story:?}")).collect();
    format!("{} events, such as {}", events.len(), shown.join("; "))
}
