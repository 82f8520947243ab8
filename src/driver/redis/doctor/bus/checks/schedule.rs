//! What is due: delayed events and later attempts.

use super::evidence::Evidence;
use super::said::{ago, finding};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

/// Everybody who has to do with a partition looks once a second.
const GRACE_MS: u64 = 5000;

/// Events of a group on a partition that wait to be tried again, from which on that is a flood.
const MANY_RETRIES: u64 = 10_000;

/// For how long something has been due, beyond the grace.
fn overdue(due: Option<u64>, now: u64) -> Option<u64> {
    due.map(|due| now.saturating_sub(due)).filter(|late| *late > GRACE_MS)
}

pub(super) const RETRIES: Rule<Evidence> = Rule {
    check: Check {
        id: "schedule.retries",
        about: "later attempts that are overdue",
        meaning: "events wait for their next attempt and its time has come: nobody of the group \
                  moves them, since none is there",
        cost: "half of the reports about delayed work elsewhere are of a mover that was not \
               running",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, keys) in seen.owns() {
            if let Some(late) = overdue(group.own.due, group.own.at) {
                let text = format!("{}: overdue by {}", keys.due, ago(late));
                let mend = seen.bus_cli(&["daemon", "--maintenance"]);
                let mend = format!("start the service of group {}, or {mend}", group.name);
                let subject = format!("{} {}", group.name, on.partition);
                found.push(finding(Severity::Fault, subject, text, mend));
            }
        }
        seen.verdict(&["ZRANGE", "TIME"], found)
    },
};

pub(super) const MANY: Rule<Evidence> = Rule {
    check: Check {
        id: "schedule.many",
        about: "how many events wait to be tried again",
        meaning: "ten thousand events of a group or more failed and will be tried again: what \
                  they need is down, and each of them takes its attempts",
        cost: "when the attempts are spent all of them are dead letters; on average that is \
               14 minutes after the first failure",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, _) in seen.owns() {
            let count = group.own.later + group.own.retry_length;
            if count >= MANY_RETRIES {
                let text = format!("{count} to be tried again on {}", on.partition);
                let mend = format!("mend what they need, or put a breaker before it: {}", {
                    seen.bus_cli(&["groups", "show", &group.name])
                });
                found.push(finding(Severity::Risk, &group.name, text, mend));
            }
        }
        seen.verdict(&["ZCARD", "XLEN"], found)
    },
};

pub(super) const PUBLISHES: Rule<Evidence> = Rule {
    check: Check {
        id: "schedule.publishes",
        about: "delayed events that are overdue",
        meaning: "events were published for later, and later is past: nobody publishes to or \
                  consumes the topic, so nobody moves them",
        cost: "an event that is published for the night, by a process that ends at once, never \
               comes",
    },
    look: |seen| {
        let mut found = Vec::new();
        for on in &seen.partitions {
            if let Some(late) = overdue(on.delayed, on.at) {
                let text =
                    format!("{}: overdue by {}", seen.keys.delayed(&on.partition), { ago(late) });
                let mend = seen.bus_cli(&["daemon", "--maintenance"]);
                found.push(finding(Severity::Fault, on.partition.to_string(), text, mend));
            }
        }
        seen.verdict(&["ZRANGE", "TIME"], found)
    },
};
