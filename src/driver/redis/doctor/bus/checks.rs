//! The checks: pure functions of the evidence.

mod consumers;
mod dead_letters;
mod entries;
mod groups;
mod keys;
mod logs;
mod parked;
mod pending;
mod routes;
mod schedule;
mod topics;

use super::evidence::{self, Evidence};
use super::{follow_up, keyspace, said};
use crate::driver::admin::{Check, Finding, Severity};
use crate::driver::redis::doctor::Rule;

/// The checks, in the order in which they are told.
pub(in crate::driver::redis::doctor) const RULES: &[Rule<Evidence>] = &[
    CUT,
    topics::MALFORMED,
    topics::PARTITIONS,
    topics::UNDECLARED,
    topics::BEYOND,
    topics::UNREAD,
    topics::NOBODY,
    groups::NO_CONSUMER,
    groups::GONE,
    groups::BEHIND,
    groups::FOREIGN,
    groups::UNROUTED,
    routes::MALFORMED,
    routes::UNSAID,
    routes::STALE,
    consumers::DEAD,
    consumers::AHEAD,
    consumers::LEFT_OVER,
    pending::ABANDONED,
    pending::STUCK,
    pending::HANDED_OUT,
    pending::GONE,
    pending::MANY,
    pending::PROGRESS,
    pending::NOTES,
    pending::NO_RETRY_GROUP,
    schedule::RETRIES,
    schedule::MANY,
    schedule::PUBLISHES,
    dead_letters::DEPTH,
    dead_letters::OLD,
    dead_letters::GROWING,
    parked::ORPHANED,
    parked::WAITING,
    logs::WENT_BACK,
    logs::BEYOND,
    logs::NO_CHECKPOINT,
    logs::CHECKPOINT_BEYOND,
    logs::AHEAD,
    logs::EXHAUSTED,
    logs::NEAR_CAP,
    logs::HELD,
    logs::UNTRIMMED,
    logs::TRIMMED,
    logs::DROPPED,
    logs::LAG_WRONG,
    logs::LAG_UNKNOWN,
    entries::BIG,
    entries::MALFORMED,
    entries::STRAY,
    keys::FOREIGN,
    keys::TYPE,
    keys::EXPIRING,
    keys::LASTING,
    keys::LEFT_OVER,
];

const CUT: Rule<Evidence> = Rule {
    check: Check {
        id: "look.cut",
        about: "whether all of the bus was looked at",
        meaning: "there is more than one look may cost the server: what is named here was left out",
        cost: "what nobody looks at is found last",
    },
    look: |seen| {
        let found = seen.cut.iter().map(|what| Finding {
            severity: Severity::Note,
            subject: None,
            text: format!("not looked at: {what}"),
            mend: format!("look at single topics and groups: {}", {
                seen.bus_cli(&["topics", "list"])
            }),
        });
        seen.verdict(&[], found.collect())
    },
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What the tests on a real server hold, as text.
    fn tests() -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doctor_bus");
        let files = std::fs::read_dir(folder).expect("a folder of tests");
        let read = |file: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(file.expect("a file").path()).expect("text")
        };
        files.map(read).collect()
    }

    #[test]
    fn every_check_has_a_test_that_brings_its_fault_about() {
        let tests = tests();
        for rule in RULES {
            let id = rule.check.id;
            let finds = |verb| tests.contains(&format!("{verb}(\"{id}\""));
            assert!(finds("only") || finds("only_beside"), "no test finds only {id}");
        }
    }

    #[test]
    fn names_are_unique_and_words_are_said() {
        let ids: BTreeSet<&str> = RULES.iter().map(|rule| rule.check.id).collect();
        assert_eq!(ids.len(), RULES.len());
        for Check { id, about, meaning, cost } in RULES.iter().map(|rule| &rule.check) {
            assert!(id.contains('.') && !about.is_empty(), "{id}");
            assert!(!meaning.is_empty() && !cost.is_empty(), "{id}");
        }
    }
}
