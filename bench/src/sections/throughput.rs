//! As fast as it goes: payloads, groups and windows, by every peer with a server.

use std::time::Duration;

use super::{Kind, Section};
use crate::case::Case;
use crate::job::Job;
use crate::measured::Effort;
use crate::peers::{Needs, PEERS};
use crate::results::Measured;
use crate::table;

/// Publishes without an answer, of the tables; the others find the best of each peer.
pub(crate) const WINDOW: usize = 512;
const WINDOWS: [usize; 3] = [64, WINDOW, 4096];

pub(super) fn section() -> Section {
    Section { name: "throughput", kind: Kind::Compared { cases, effort, markdown } }
}

fn effort(quick: bool) -> Effort {
    let (rounds, millis) = if quick { (2, 300) } else { (5, 1000) };
    Effort { rounds, time: Duration::from_millis(millis) }
}

fn cases(quick: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for payload in [100, 1024] {
        for groups in [1, 3] {
            for window in WINDOWS {
                if window != WINDOW && (quick || payload != 100) {
                    continue;
                }
                for peer in PEERS.iter().filter(|entry| entry.needs != Needs::Nothing) {
                    let job = Job { payload, groups, window, ..Job::default() };
                    cases.push(Case::new(peer.name, job));
                }
            }
        }
    }
    cases
}

fn markdown(measured: &Measured) -> String {
    let mut text = String::new();
    for payload in [100, 1024] {
        for groups in [1, 3] {
            let is = |job: &Job| (job.payload, job.groups, job.window) == (payload, groups, WINDOW);
            text += &table::title(&format!("{payload} bytes, {}", table::groups(groups)));
            text += &table::throughput(&measured.series, is);
        }
    }
    for groups in [1, 3] {
        let title = format!("Publishes without an answer: 100 bytes, {}", table::groups(groups));
        text += &table::title(&title);
        text += &table::windows(&measured.series, &WINDOWS, groups);
    }
    text
}
