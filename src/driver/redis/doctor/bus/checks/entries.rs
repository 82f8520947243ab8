//! Entries: of each log the oldest and the newest.

use super::evidence::{Evidence, OnPartition, Sample};
use super::said::{clipped, finding, redis_cli, size};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

/// An entry beyond this is large: half of the largest payload.
const LARGE_BYTES: u64 = 512 * 1024;
/// No payload of ours is as large, its headers included.
const TOO_LARGE_BYTES: u64 = 1024 * 1024 + 64 * 1024;
/// A batch of ours stays below this: entries of such an average are single large events.
const AVERAGE_BYTES: u64 = 64 * 1024;

/// The command that shows an entry.
fn show(seen: &Evidence, on: &OnPartition, sample: &Sample) -> String {
    let id = sample.id.to_string();
    redis_cli(&["XRANGE", &seen.keys.log(&on.partition), &id, &id])
}

pub(super) const BIG: Rule<Evidence> = Rule {
    check: Check {
        id: "entries.big",
        about: "how large entries are",
        meaning: "entries are near the limit of a payload, or beyond it, which only another \
                  program's are: each is copied to every group, and held in memory until all have \
                  it",
        cost: "payloads of megabytes filled a 256 MB server with 40 of them, and locks could not \
               be renewed any more",
    },
    look: |seen| {
        let mut found = Vec::new();
        for on in &seen.partitions {
            let Some(largest) = on.log.samples.iter().max_by_key(|sample| sample.bytes) else {
                continue;
            };
            let average = on.log.bytes() / on.log.length.max(1);
            if largest.bytes < LARGE_BYTES && average < AVERAGE_BYTES {
                continue;
            }
            let too_large = largest.bytes > TOO_LARGE_BYTES;
            let severity = if too_large { Severity::Risk } else { Severity::Note };
            let text =
                format!("{} has {}, {} on average", largest.id, size(largest.bytes), size(average));
            let mend = format!("put the data elsewhere and its place into the event: {}", {
                redis_cli(&["XLEN", &seen.keys.log(&on.partition)])
            });
            found.push(finding(severity, on.partition.to_string(), text, mend));
        }
        seen.verdict(&["XINFO"], found)
    },
};

pub(super) const MALFORMED: Rule<Evidence> = Rule {
    check: Check {
        id: "entries.malformed",
        about: "whether the oldest and the newest entry of each log are events",
        meaning: "somebody writes entries that are no events: they end in the dead letters of \
                  every group",
        cost: "one such writer fills the dead letters to their cap, and all groups pause",
    },
    look: |seen| {
        let mut found = Vec::new();
        for on in &seen.partitions {
            let bad = on.log.samples.iter().find_map(|own| Some((own, own.flaw.as_ref()?)));
            if let Some((sample, flaw)) = bad {
                let text = format!("{}: {}", sample.id, clipped(flaw));
                let mend = format!("find who writes it: {}", show(seen, on, sample));
                found.push(finding(Severity::Risk, on.partition.to_string(), text, mend));
            }
        }
        seen.verdict(&["XINFO"], found)
    },
};

pub(super) const STRAY: Rule<Evidence> = Rule {
    check: Check {
        id: "entries.stray",
        about: "whether the oldest and the newest entry of each log belong to its topic",
        meaning: "an event lies in the log of another topic than the first segment of its type: \
                  groups that want it read elsewhere, and those that read here have no route for \
                  it",
        cost: "it is acknowledged by everybody and handled by nobody",
    },
    look: |seen| {
        let mut found = Vec::new();
        for on in &seen.partitions {
            let stray = on.log.samples.iter().find_map(|own| Some((own, own.stray.as_ref()?)));
            if let Some((sample, event_type)) = stray {
                let text = format!("{} is a {event_type}", sample.id);
                let mend = format!("find who writes it: {}", show(seen, on, sample));
                found.push(finding(Severity::Risk, on.partition.to_string(), text, mend));
            }
        }
        seen.verdict(&["XINFO"], found)
    },
};
