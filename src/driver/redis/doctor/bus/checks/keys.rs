//! Keys: what is there under our prefix that should not be, or not so.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Evidence, Key};
use super::keyspace::KEYS_MAX;
use super::said::{ago, clipped, finding, redis_cli, several};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;
use crate::driver::redis::keys::Named;

/// Keys that one command takes.
const WORDS_MAX: usize = 20;
/// The keys of a group that hold events.
const WORK: [&str; 4] = ["retry", "due", "dead", "parked"];

/// The keys that are ours by their names.
fn ours(seen: &Evidence) -> impl Iterator<Item = (&Key, Named)> {
    seen.keyspace.keys.iter().filter_map(|key| Some((key, seen.keys.parse(&key.name)?)))
}

pub(super) const FOREIGN: Rule<Evidence> = Rule {
    check: Check {
        id: "keys.foreign",
        about: "keys under our prefix that are none of ours",
        meaning: "another program, or another tenant whose namespace begins like ours, writes \
                  under our prefix",
        cost: "two programs that share names delete each other's keys one day",
    },
    look: |seen| {
        let others = seen.keyspace.keys.iter().filter(|key| seen.keys.parse(&key.name).is_none());
        let found = others.map(|key| {
            let name = clipped(&key.name);
            let text = format!("a {} that is none of ours", key.kind);
            let mend = format!("see what it is: {}", redis_cli(&["OBJECT", "IDLETIME", &name]));
            finding(Severity::Note, name, text, mend)
        });
        seen.verdict(&["SCAN"], found.collect())
    },
};

pub(super) const TYPE: Rule<Evidence> = Rule {
    check: Check {
        id: "keys.type",
        about: "whether our keys hold what they should",
        meaning: "a key of ours holds another type: whatever needs it fails, and a log so written \
                  over stops its groups on the partition",
        cost: "one such key fails a read of many streams whole, for all of them",
    },
    look: |seen| {
        let scanned = ours(seen).filter(|(key, named)| key.kind != named.kind);
        let mut wrong: BTreeSet<&str> = scanned.map(|(key, _)| key.name.as_str()).collect();
        wrong.extend(seen.unusable.iter().map(String::as_str));
        let found = wrong.into_iter().filter_map(|key| {
            let needed = seen.keys.parse(key)?.kind;
            let there = seen.keyspace.keys.iter().find(|own| own.name == key);
            let there = there.map_or("another type", |own| own.kind.as_str());
            let text = format!("{there}, where a {needed} belongs");
            let mend = format!("keep it elsewhere, or delete it: {}", {
                redis_cli(&["RENAMENX", key, &format!("was-{key}")])
            });
            Some(finding(Severity::Fault, key, text, mend))
        });
        seen.verdict(&["SCAN", "TYPE"], found.collect())
    },
};

pub(super) const EXPIRING: Rule<Evidence> = Rule {
    check: Check {
        id: "keys.expiring",
        about: "whether our keys are there to stay",
        meaning: "somebody set a time to live on a key of ours: with it go the events or the \
                  places of groups that it holds",
        cost: "a log that expires takes its groups along: publishers go on, nobody reads",
    },
    look: |seen| {
        let going = ours(seen).filter(|(_, named)| !named.expires);
        let found = going.filter_map(|(key, _)| {
            let text = format!("expires in {}", ago(key.expires?));
            Some(finding(Severity::Risk, &key.name, text, redis_cli(&["PERSIST", &key.name])))
        });
        seen.verdict(&["SCAN", "PTTL"], found.collect())
    },
};

pub(super) const LASTING: Rule<Evidence> = Rule {
    check: Check {
        id: "keys.lasting",
        about: "whether marks expire",
        meaning: "a mark that is there for a while lost its time to live: an event id counts as \
                  published for ever, or nobody gets the turn to trim any more",
        cost: "a restore or a PERSIST over all keys does it; what is not trimmed grows to its cap \
               and beyond",
    },
    look: |seen| {
        let marks = ours(seen).filter(|(_, named)| named.expires);
        let mut found = Vec::new();
        for (key, named) in marks.filter(|(key, _)| key.expires.is_none()) {
            let (severity, text) = match named.name {
                "trim" => (Severity::Fault, "never expires: nobody trims the partition any more"),
                "seen" => (Severity::Risk, "never expires: the event is never published again"),
                _ => (Severity::Note, "never expires"),
            };
            let mend = redis_cli(&["DEL", &key.name]);
            found.push(finding(severity, &key.name, text, mend));
        }
        seen.verdict(&["SCAN", "PTTL"], found)
    },
};

pub(super) const LEFT_OVER: Rule<Evidence> = Rule {
    check: Check {
        id: "keys.left-over",
        about: "keys of groups that are no more",
        meaning: "a group is on no log and has no routes, and keys of it are left: they may hold \
                  events that it gave up or was to try again",
        cost: "XGROUP DESTROY ends a group on a log and leaves what it had beside it, for ever",
    },
    look: |seen| {
        // Where not everything was looked at, the group may be elsewhere.
        let is_whole = seen.cut.is_empty() && seen.keyspace.keys.len() < KEYS_MAX;
        let known: BTreeSet<&str> = seen.pairs().map(|(_, group)| group.name.as_str()).collect();
        let lives = |group: &str| {
            known.contains(group) || seen.last_said(group).is_some() || seen.is_live(group)
        };
        let mut groups: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
        for (key, named) in ours(seen).filter(|_| is_whole) {
            if let Some(group) = named.group.filter(|group| !lives(group)) {
                groups.entry(group).or_default().push((&key.name, named.name));
            }
        }
        let found = groups.into_iter().map(|(group, keys)| {
            let holds = keys.iter().any(|(_, name)| WORK.contains(name));
            let severity = if holds { Severity::Risk } else { Severity::Note };
            let text = format!("{} of a group that is no more", several(keys.len() as u64, "key"));
            let mut words = vec!["UNLINK"];
            words.extend(keys.iter().map(|(key, _)| *key).take(WORDS_MAX));
            let mend = format!("when nothing in them is wanted: {}", redis_cli(&words));
            finding(severity, group, text, mend)
        });
        seen.verdict(&["SCAN", "XINFO"], found.collect())
    },
};
