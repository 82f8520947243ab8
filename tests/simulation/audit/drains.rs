//! What a drain leaves behind: nothing, where nothing failed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rumormill::DrainReport;
use rumormill::delivery::Position;
use rumormill::driver::fault::Fault;

use super::{line, process_of};
use crate::history::{End, Fact, Process};

/// So long a fault may show: the longest stall.
const AFTERMATH: Duration = Duration::from_secs(8);

#[derive(Default)]
struct Life {
    /// What was handed to it and is not settled, by group.
    held: BTreeSet<(&'static str, Position)>,
    /// Something went wrong that a drain does not mend.
    troubled: bool,
    draining: bool,
    /// It gives a group up.
    leaving: bool,
    last_fault: Option<Duration>,
    splits: u64,
}

#[derive(Default)]
pub struct Drains {
    lives: BTreeMap<Process, Life>,
    pub found: Vec<String>,
}

impl Drains {
    pub fn see(&mut self, at: Duration, fact: &Fact) {
        let Some(process) = process_of(fact) else { return };
        let life = self.lives.entry(process).or_default();
        match fact {
            Fact::Handed(_, handed) => {
                let events = handed.events.iter();
                let events: Vec<_> =
                    events.map(|(_, origin)| (handed.group, origin.clone())).collect();
                for (other, life) in &mut self.lives {
                    if *other == process {
                        life.held.extend(events.iter().cloned());
                    } else {
                        // It was taken over.
                        life.held.retain(|held| !events.contains(held));
                    }
                }
            }
            Fact::Settled(_, ended) => {
                life.held.remove(&(ended.group, ended.origin.clone()));
                let done = ended.is_applied();
                life.splits +=
                    u64::from(life.draining && done && matches!(ended.end, End::Split { .. }));
            }
            Fact::Fault(_, Fault::Delay) => {}
            Fact::Fault(_, fault) => {
                let of_leases = matches!(fault, Fault::Lapse | Fault::LapseNoticed);
                life.troubled |= life.draining || life.leaving || of_leases;
                life.last_fault = Some(at);
            }
            Fact::Unsubscribing(..) => life.leaving = true,
            Fact::Unsubscribed(..) => life.leaving = false,
            Fact::Draining(_) => {
                life.draining = true;
                // Nobody waits for the end of what was dropped.
                life.troubled |= life.leaving;
                // What failed just before may be under way still.
                life.troubled |= life.last_fault.is_some_and(|last| at - last < AFTERMATH);
            }
            Fact::Drained(_, report) => {
                let wrong = life.judge(report);
                self.found.extend(wrong.into_iter().map(|text| line(at, process, text)));
            }
            _ => {}
        }
    }
}

impl Life {
    fn judge(&self, report: &DrainReport) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.troubled {
            return wrong;
        }
        if !self.held.is_empty() {
            wrong.push(format!("drained, and still holds {:?}", self.held));
        }
        if report.handed_over + report.forced > self.splits {
            let splits = self.splits;
            wrong.push(format!("{report:?}, and {splits} were handed over"));
        }
        wrong
    }
}
