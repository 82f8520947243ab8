//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Breaks what rumormill stands on, by seed, and checks that its promises held.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the bus under faults and check what came of it.
    Run(RunArgs),
    /// Run again what a seed made.
    Replay(ReplayArgs),
    /// Add up runs.
    Report(ReportArgs),
    /// List the kinds of faults.
    Kinds,
    /// List the known bugs that can be switched on.
    Plants,
    /// A process that publishes.
    #[command(hide = true)]
    Publisher(ProcessArgs),
    /// A process that handles.
    #[command(hide = true)]
    Worker(ProcessArgs),
}

/// What the servers are, and what is asked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// One server that syncs each write before it answers.
    Always,
    /// One server that syncs each second.
    Everysec,
    /// One server that keeps nothing on disk; what is in it may be destroyed.
    None,
    /// A server and its replica, which confirms each publish.
    Replica,
    /// A server, two replicas and three sentinels; one replica confirms each publish.
    Sentinel,
}

impl Mode {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether a log survives its server.
    pub(crate) fn has_file(self) -> bool {
        self != Self::None
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// Makes the faults and the events; another one each time where it is not given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) shape: Shape,
    /// Go on where a run in the same folder ended.
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The seed of the run.
    #[arg(long)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) shape: Shape,
}

/// What a run is like, beside its seed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Shape {
    /// How long faults are injected, such as 30s, 20m or 2h. Rounds of a minute each.
    #[arg(long = "for", value_name = "TIME", value_parser = duration, conflicts_with = "faults")]
    pub(crate) time: Option<Duration>,
    /// How many faults are to count.
    #[arg(long, value_name = "N")]
    pub(crate) faults: Option<u32>,
    /// What the servers are; always where it is not given.
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,
    /// Only these kinds of faults.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) kinds: Vec<String>,
    /// A known bug to switch on.
    #[arg(long, value_name = "NAME")]
    pub(crate) plant: Option<String>,
    /// Events per second and publisher; 120 where it is not given, and half of that with a known
    /// bug, so that what is left in the end is handled soon.
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u32>,
    /// Where histories and reports go; target/chaos where it is not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

impl Shape {
    pub(crate) fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::Always)
    }

    pub(crate) fn rate(&self) -> u32 {
        self.rate.unwrap_or(if self.plant.is_some() { 60 } else { 120 })
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    /// As lines and a table for a page.
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Folders of runs.
    #[arg(required = true)]
    pub(crate) folders: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ProcessArgs {
    #[arg(long)]
    pub(crate) url: String,
    #[arg(long)]
    pub(crate) name: String,
    #[arg(long)]
    pub(crate) history: String,
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[arg(long, default_value_t = 120)]
    pub(crate) rate: u32,
    /// How long a silent worker keeps its events, in milliseconds.
    #[arg(long, default_value_t = 3_000)]
    pub(crate) lease_ms: u32,
    /// Replicas that confirm a publish.
    #[arg(long, default_value_t = 0)]
    pub(crate) replicas: u32,
}

/// `90s`, `20m`, `2h`; a bare number is seconds.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.trim_end_matches(|sign: char| !sign.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| "write 30s, 20m or 2h".to_owned())?;
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        other => return Err(format!("unit {other:?} is not known: write 30s, 20m or 2h")),
    };
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("2x").is_err() && duration("s").is_err());
    }
}
