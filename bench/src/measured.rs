//! Rounds of cases, interleaved.

use std::io::{Write, stderr};
use std::time::Duration;

use crate::case::{Case, Series};
use crate::job::Job;
use crate::peers::{entry_of, is_there};
use crate::round::{self, Servers};

/// Events of a round whose speed is not known.
const EVENTS_FIRST: u64 = 20_000;
const EVENTS_MIN: u64 = 500;
const EVENTS_MAX: u64 = 20_000_000;
/// Most bytes of payloads in a round: no peer drops any of them unread.
const BYTES_MAX: u64 = 768 << 20;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// How long a round should take.
    pub(crate) time: Duration,
}

/// A case at work.
struct Running {
    series: Series,
    /// The case says how many events there are.
    is_fixed: bool,
    /// Events a second in the last round.
    speed: Option<f64>,
}

impl Running {
    fn new(case: Case) -> Self {
        let is_fixed = case.job.events > 0;
        let series = Series { case, rounds: Vec::new(), void: Vec::new() };
        Self { series, is_fixed, speed: None }
    }

    /// Whether a round is needed that only shows how many events fill the time.
    fn needs_trial(&self) -> bool {
        !self.is_fixed && self.series.case.job.rate == 0
    }

    fn round(&mut self, time: Duration, counts: bool, servers: &mut Servers) {
        if !self.is_fixed {
            self.series.case.job.events = events(&self.series.case.job, self.speed, time);
        }
        match round::run(&self.series.case, servers) {
            Ok(round) => {
                self.speed = Some(round.events_per_second);
                if counts {
                    self.series.rounds.push(round);
                }
            }
            Err(error) => {
                let _ = writeln!(stderr(), "\nvoid: {}: {error}", self.series.case.title());
                if counts {
                    self.series.void.push(error.to_string());
                }
            }
        }
    }
}

/// Runs every case as often, one after another, so that what disturbs the machine for a while
/// disturbs all of them.
pub(crate) fn measure(
    name: &str,
    cases: Vec<Case>,
    effort: Effort,
    servers: &mut Servers,
) -> Vec<Series> {
    let there = cases.into_iter().filter(|case| case_can_run(case, name));
    let mut all: Vec<Running> = there.map(Running::new).collect();
    for number in 0..=effort.rounds {
        let is_trial = number == 0;
        for running in all.iter_mut().filter(|running| !is_trial || running.needs_trial()) {
            let (title, rounds) = (running.series.case.title(), effort.rounds);
            let _ = write!(stderr(), "\r\x1b[2K{name}: round {number} of {rounds}: {title}");
            running.round(effort.time, !is_trial, servers);
        }
    }
    let _ = write!(stderr(), "\r\x1b[2K");
    all.into_iter().map(|running| running.series).collect()
}

fn case_can_run(case: &Case, section: &str) -> bool {
    let there = entry_of(&case.peer).is_some_and(is_there);
    if !there {
        let _ = writeln!(stderr(), "{section}: skipped: {}: not found", case.title());
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
