//! Dead letters: how many, how old, how fast.

use std::collections::BTreeMap;

use super::evidence::{Evidence, OnLog, OnPartition};
use super::follow_up::LATELY_MS;
use super::said::{ago, finding, several};
use crate::driver::admin::{Check, STEP_MAX, Severity};
use crate::driver::redis::doctor::Rule;

/// A letter older than this has been forgotten.
const OLD_MS: u64 = 24 * 60 * 60 * 1000;

/// How many letters a group has, and where it has most.
type Depth<'a> = (u64, Option<(&'a OnPartition, &'a OnLog)>);

/// A command about the dead letters of a group.
fn letters(seen: &Evidence, verb: &str, group: &OnLog) -> String {
    seen.bus_cli(&["dead-letters", verb, "--group", &group.name])
}

pub(super) const DEPTH: Rule<Evidence> = Rule {
    check: Check {
        id: "dead-letters.depth",
        about: "how many dead letters there are, and how near their cap",
        meaning: "a group gave events up: they wait to be redriven or purged. Where a partition \
                  has as many as may be, the group reads no further there",
        cost: "dead letters that nobody looks at are events lost with a record of it",
    },
    look: |seen| {
        let mut groups: BTreeMap<&str, Depth<'_>> = BTreeMap::new();
        for (on, group, _) in seen.owns().filter(|(_, group, _)| group.own.dead.length > 0) {
            let (total, most) = groups.entry(&group.name).or_default();
            *total += group.own.dead.length;
            if most.is_none_or(|(_, most)| most.own.dead.length < group.own.dead.length) {
                *most = Some((on, group));
            }
        }
        let max = seen.dead_letters_max;
        let mut found = Vec::new();
        for (total, most) in groups.into_values() {
            let Some((on, group)) = most else { continue };
            let length = group.own.dead.length;
            let here = format!("{length} on {}, of {max} at most", on.partition);
            let (severity, text) = match length {
                _ if length >= max => (Severity::Fault, format!("{here}: it reads no further")),
                _ if length >= max / 5 * 4 => (Severity::Risk, here),
                _ => (Severity::Note, several(total, "dead letter")),
            };
            found.push(finding(severity, &group.name, text, letters(seen, "list", group)));
        }
        seen.verdict(&["XINFO"], found)
    },
};

pub(super) const OLD: Rule<Evidence> = Rule {
    check: Check {
        id: "dead-letters.old",
        about: "dead letters that are more than a day old",
        meaning: "what a group gave up yesterday or before is still there: it may have been \
                  forgotten",
        cost: "the longer a letter lies, the less anybody knows whether it may still be handled",
    },
    look: |seen| {
        let mut groups: BTreeMap<&str, (u64, &OnLog)> = BTreeMap::new();
        for (on, group, _) in seen.owns() {
            let Some(first) = group.own.dead.first else { continue };
            let age = on.at.saturating_sub(first.millis);
            let oldest = groups.entry(&group.name).or_insert((age, group));
            if oldest.0 < age {
                *oldest = (age, group);
            }
        }
        let old = groups.into_values().filter(|(age, _)| *age > OLD_MS);
        let found = old.map(|(age, group)| {
            let text = format!("the oldest is of {} ago", ago(age));
            let chosen = [&letters(seen, "list", group), "--older-than", "1d"].join(" ");
            finding(Severity::Risk, &group.name, text, chosen)
        });
        seen.verdict(&["XINFO"], found.collect())
    },
};

pub(super) const GROWING: Rule<Evidence> = Rule {
    check: Check {
        id: "dead-letters.growing",
        about: "dead letters that come fast",
        meaning: "a group gave up a hundred events or more of one partition within ten minutes: \
                  something is broken now",
        cost: "a bug that is deployed gives up the whole stream until the cap stops the group",
    },
    look: |seen| {
        let step = u64::try_from(STEP_MAX).unwrap_or(u64::MAX);
        let growing = seen.owns().filter(|(_, group, _)| group.own.found.lately >= step);
        let found = growing.map(|(on, group, _)| {
            let text = format!("{step} or more within {} on {}", ago(LATELY_MS), on.partition);
            let mend = format!("find the cause and redrive it when it is mended: {}", {
                letters(seen, "list", group)
            });
            finding(Severity::Risk, &group.name, text, mend)
        });
        seen.verdict(&["XINFO", "EVALSHA"], found.collect())
    },
};
