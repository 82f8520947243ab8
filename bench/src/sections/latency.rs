//! By schedule: how late events are handled, at rates that all can bear and at one that not all
//! can.

use std::time::Duration;

use super::{Kind, Section};
use crate::case::Case;
use crate::job::Job;
use crate::measured::Effort;
use crate::peers::{Entry, MANY, Needs, PEERS};
use crate::results::Measured;
use crate::table;

const RATES: [u64; 3] = [1_000, 10_000, 50_000];

pub(super) fn section() -> Section {
    Section { name: "latency", kind: Kind::Compared { cases, effort, markdown } }
}

fn effort(quick: bool) -> Effort {
    let (rounds, millis) = if quick { (2, 500) } else { (9, 1500) };
    Effort { rounds, time: Duration::from_millis(millis) }
}

fn cases(_quick: bool) -> Vec<Case> {
    // By a schedule nobody publishes many at once.
    let keeps = |entry: &&Entry| entry.needs != Needs::Nothing && !entry.name.ends_with(MANY);
    let peers = || PEERS.iter().filter(keeps);
    let job = |rate| Job { payload: 100, groups: 1, window: 4096, rate, ..Job::default() };
    RATES
        .iter()
        .flat_map(|&rate| peers().map(move |entry| Case::new(entry.name, job(rate))))
        .collect()
}

fn markdown(measured: &Measured) -> String {
    let mut text = String::new();
    for rate in RATES {
        text += &table::title(&format!("{} events a second", crate::stats::short(rate as f64)));
        text += &table::latency(&measured.series, rate);
    }
    text
}
