//! Rounds of cases, interleaved.

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::time::Duration;

use crate::case::{Case, Series};
use crate::job::Job;
use crate::peers::{Needs, entry_of};
use crate::round::{self, Servers};
use crate::server;

/// Events of a round whose speed is not known.
const EVENTS_FIRST: u64 = 20_000;
const EVENTS_MIN: u64 = 500;
const EVENTS_MAX: u64 = 20_000_000;
/// Most bytes of payloads in a round: the server holds all of them for each.
const BYTES_MAX: u64 = 1 << 30;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// How long a round should take.
    pub(crate) time: Duration,
}

/// Runs every case as often, one after another, so that what disturbs the machine for a while
/// disturbs all of them.
pub(crate) fn measure(
    name: &str,
    cases: Vec<Case>,
    effort: Effort,
    servers: &mut Servers,
) -> Vec<Series> {
    let there = |case: &Case| case_can_run(case, name);
    let fixed: Vec<bool> = cases.iter().map(|case| case.job.events > 0).collect();
    let new = |case| Series { case, rounds: Vec::new(), void: Vec::new() };
    let mut all: Vec<(bool, Series)> = fixed
        .into_iter()
        .zip(cases)
        .filter(|(_, case)| there(case))
        .map(|(fixed, case)| (fixed, new(case)))
        .collect();
    let mut speeds = BTreeMap::new();
    // The first round only shows how many events fill the time.
    for number in 0..=effort.rounds {
        for (at, (fixed, series)) in all.iter_mut().enumerate() {
            if number == 0 && (*fixed || series.case.job.rate > 0) {
                continue;
            }
            let title = series.case.title();
            let _ =
                write!(stderr(), "\r\x1b[2K{name}: round {number} of {}: {title}", effort.rounds);
            if !*fixed {
                series.case.job.events =
                    events(&series.case.job, speeds.get(&at).copied(), effort.time);
            }
            match round::run(&series.case, servers) {
                Ok(round) => {
                    speeds.insert(at, round.events_per_second);
                    if number > 0 {
                        series.rounds.push(round);
                    }
                }
                Err(error) => {
                    let _ = writeln!(stderr(), "\nvoid: {title}: {error}");
                    if number > 0 {
                        series.void.push(error.to_string());
                    }
                }
            }
        }
    }
    let _ = write!(stderr(), "\r\x1b[2K");
    all.into_iter().map(|(_, series)| series).collect()
}

fn case_can_run(case: &Case, section: &str) -> bool {
    let Some(entry) = entry_of(&case.peer) else { return false };
    let there = entry.needs == Needs::Nothing || server::program(entry.needs).is_some();
    if !there {
        let _ = writeln!(stderr(), "{section}: skipped: {}: no server is found", case.title());
    }
    there
}

/// So many that a round takes as long as it should, by the one before.
fn events(job: &Job, speed: Option<f64>, time: Duration) -> u64 {
    let most = (BYTES_MAX / job.payload.max(1) as u64).clamp(EVENTS_MIN, EVENTS_MAX);
    let per_second = if job.rate > 0 { job.rate as f64 } else { speed.unwrap_or(f64::NAN) };
    if per_second.is_nan() {
        return EVENTS_FIRST.min(most).min(most_in_first(job));
    }
    ((per_second * time.as_secs_f64()) as u64).clamp(EVENTS_MIN, most)
}

/// Handlers that wait, and many groups, take longer.
fn most_in_first(job: &Job) -> u64 {
    let slow = if job.handler_us > 0 { 20 } else { 1 };
    (EVENTS_FIRST / slow / (job.groups as u64).max(1)).max(EVENTS_MIN)
}
