//! Without a server: publisher and handlers in one process.

use std::time::Duration;

use super::{Kind, Section};
use crate::case::Case;
use crate::job::Job;
use crate::measured::Effort;
use crate::peers::{Needs, PEERS};
use crate::results::Measured;
use crate::table;

/// The peers of a kind, of which the better counts.
pub(crate) const MEMORY_TYPED: [&str; 2] = ["memory-typed", "memory-typed-many"];
pub(crate) const MEMORY_ENVELOPE: [&str; 2] = ["memory-envelope", "memory-envelope-many"];
/// Keys whose order is checked.
const KEYS: u64 = 64;

pub(super) fn section() -> Section {
    Section { name: "memory", kind: Kind::Compared { cases, effort, markdown } }
}

fn effort(quick: bool) -> Effort {
    let (rounds, millis) = if quick { (2, 300) } else { (5, 1000) };
    Effort { rounds, time: Duration::from_millis(millis) }
}

fn cases(_quick: bool) -> Vec<Case> {
    let peers = || PEERS.iter().filter(|entry| entry.needs == Needs::Nothing);
    let job = |groups| Job { payload: 100, groups, window: 4096, keys: KEYS, ..Job::default() };
    [1, 3]
        .into_iter()
        .flat_map(|groups| peers().map(move |entry| Case::new(entry.name, job(groups))))
        .collect()
}

fn markdown(measured: &Measured) -> String {
    let mut text = String::new();
    for groups in [1, 3] {
        let handlers = if groups == 1 { "One handler" } else { "Three handlers" };
        text += &table::title(&format!("{handlers}, 100 bytes, {KEYS} keys"));
        text += &table::memory(&measured.series, groups);
    }
    text
}
