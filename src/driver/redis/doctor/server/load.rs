//! What holds the server up, and what it refused.

use std::collections::BTreeMap;

use super::{Evidence, Looked, finding, named, nothing, one, verdict};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

/// A command that held the server for this long is told; our own scripts take a few milliseconds.
const SLOW_MICROS: u64 = 100_000;
/// Held for this long, answers are late for every client at once.
const VERY_SLOW_MICROS: u64 = 1_000_000;
/// Older ones are of the past.
const SLOW_WITHIN_SECONDS: u64 = 24 * 60 * 60;
/// Refusals that stop a bus.
const REFUSALS: [&str; 7] =
    ["OOM", "MISCONF", "NOREPLICAS", "READONLY", "BUSY", "NOPERM", "LOADING"];

pub(super) const RULES: &[Rule<Evidence>] = &[
    Rule {
        check: Check {
            id: "load.slow_commands",
            about: "commands of the last day that held the server",
            meaning: "the server does one thing at a time: while one of these ran, nothing was \
                      published, read or renewed. Beyond 2.5 s answers count as lost, and \
                      connections are made anew",
            cost: "XAUTOCLAIM with a COUNT of 10,000 held a server for 256 ms; KEYS on a large one \
                   for seconds. bullmq and others moved to SCAN for that",
        },
        look: |evidence| verdict(slow(evidence)),
    },
    Rule {
        check: Check {
            id: "load.refusals",
            about: "refusals that the server counted",
            meaning: "clients, ours or others', were refused for want of memory, disk, replicas or \
                      rights since the server started",
            cost: "a publisher that takes a refusal for success loses the event; these counts are \
                   where it shows",
        },
        look: |evidence| verdict(refusals(evidence)),
    },
];

fn slow(evidence: &Evidence) -> Looked {
    let now = evidence.clocks.server / 1000;
    let recent = |at: u64| now.saturating_sub(at) <= SLOW_WITHIN_SECONDS;
    let slow = evidence.slow.as_ref().map_err(Clone::clone)?;
    let mut commands: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for one in slow.iter().filter(|one| one.micros >= SLOW_MICROS && recent(one.at)) {
        let (times, longest) = commands.entry(&one.command).or_default();
        *times += 1;
        *longest = (*longest).max(one.micros);
    }
    let told = commands.into_iter().take(super::NAMED_MAX).map(|(command, (times, longest))| {
        let severity = if longest >= VERY_SLOW_MICROS { Severity::Risk } else { Severity::Note };
        let text = format!(
            "{times} times in a day; the longest held the server for {} ms",
            longest / 1000
        );
        let mend = "redis-cli SLOWLOG GET 20 shows who sent it; then: redis-cli SLOWLOG RESET";
        finding(severity, command, text, mend)
    });
    Ok(told.collect())
}

fn refusals(evidence: &Evidence) -> Looked {
    // The section is empty on a server that never refused anything.
    evidence.line("total_error_replies")?;
    let count = |code: &&str| {
        let times = evidence.maybe(&format!("errorstat_{code}"))?.strip_prefix("count=")?;
        Some(format!("{code} {times} times"))
    };
    let counted: Vec<String> = REFUSALS.iter().filter_map(count).collect();
    if counted.is_empty() {
        return nothing();
    }
    let text = format!("since the server started or was reset: {}", named(&counted));
    let mend = "mend what the other findings name, then: redis-cli CONFIG RESETSTAT";
    one(Severity::Note, "INFO errorstats", text, mend)
}
