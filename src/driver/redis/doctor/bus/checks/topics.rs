//! Topics and partitions: whether they can be read, and by whom.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Evidence, OnPartition};
use super::said::{clipped, finding, redis_cli, several};
use crate::delivery::Partition;
use crate::driver::admin::{Check, PARTITIONS_MAX, Severity};
use crate::driver::redis::doctor::Rule;

/// A group that is live finds a new partition within ten seconds.
const FOUND_WITHIN_MS: u64 = 60 * 1000;

pub(super) const MALFORMED: Rule<Evidence> = Rule {
    check: Check {
        id: "topics.malformed",
        about: "what is written down about topics",
        meaning: "a topic cannot be read, and so is seen by no group; or one of its limits cannot \
                  be, and the default holds",
        cost: "a publisher succeeds and nobody reads: found by customers, not by alarms",
    },
    look: |seen| {
        let key = seen.keys.topics();
        let found = seen.topics.iter().filter_map(|topic| match (&topic.shape, &topic.flaw) {
            (Err(flaw), _) => {
                let (good, mend) = (topic.name.parse::<crate::event_type::Topic>().is_ok(), &key);
                let mend = match good {
                    true => redis_cli(&["HSET", mend, &topic.name, "{\"partitions\":1}"]),
                    false => redis_cli(&["HDEL", mend, &topic.name]),
                };
                Some(finding(Severity::Fault, &topic.name, clipped(flaw), mend))
            }
            (Ok(_), Some(flaw)) => {
                let limits = ["--keep", "default", "--keep-bytes", "default"];
                let words = [&["topics", "set", &topic.name][..], &limits].concat();
                let mend = seen.bus_cli(&[&words[..], &["--cap-bytes", "default"]].concat());
                Some(finding(Severity::Risk, &topic.name, clipped(flaw), mend))
            }
            (Ok(_), None) => None,
        });
        seen.verdict(&["HGETALL"], found.collect())
    },
};

pub(super) const PARTITIONS: Rule<Evidence> = Rule {
    check: Check {
        id: "topics.partitions",
        about: "how many partitions topics have",
        meaning: "a topic has more partitions than a topic may have: each costs every group two \
                  streams, and every read of it a little",
        cost: "a blocked read of a thousand streams costs the server twenty times as much per \
               event as one of a few (a wake-up 545 to 790 us in place of 25)",
    },
    look: |seen| {
        let shapes = seen.topics.iter().filter_map(|topic| topic.shape.as_ref().ok());
        let found = shapes.filter(|shape| shape.partitions > PARTITIONS_MAX).map(|shape| {
            let text = format!("{} partitions, {PARTITIONS_MAX} at most", shape.partitions);
            let mend = "publish to a new topic with fewer, and end this one when it is read out";
            finding(Severity::Risk, shape.topic.as_str(), text, mend)
        });
        seen.verdict(&["HGETALL"], found.collect())
    },
};

/// The logs that there are, by topic.
fn logs(seen: &Evidence) -> BTreeMap<String, Vec<Partition>> {
    let mut logs: BTreeMap<String, Vec<Partition>> = BTreeMap::new();
    for key in &seen.keyspace.keys {
        let named = seen.keys.parse(&key.name).filter(|named| named.name == "log");
        if let Some(partition) = named.and_then(|named| named.partition) {
            logs.entry(partition.topic.as_str().to_owned()).or_default().push(partition);
        }
    }
    logs
}

pub(super) const UNDECLARED: Rule<Evidence> = Rule {
    check: Check {
        id: "topics.undeclared",
        about: "logs of topics that are not written down",
        meaning: "a log is there, and its topic is not: groups with a pattern over all topics do \
                  not see it, and nobody trims it",
        cost: "after a flush or an eviction publishers went on and nobody read: twice in one \
               project alone; the log then grew until the server refused",
    },
    look: |seen| {
        let declared: BTreeSet<&str> = seen.topics.iter().map(|own| own.name.as_str()).collect();
        let logs = logs(seen).into_iter();
        let unknown = logs.filter(|(topic, _)| !declared.contains(topic.as_str()));
        let found = unknown.map(|(topic, partitions)| {
            let count = partitions.iter().map(|own| u64::from(own.index) + 1).max().unwrap_or(1);
            let written = format!("{{\"partitions\":{count}}}");
            let text = format!("{} and no topic", several(count, "log"));
            let mend = redis_cli(&["HSETNX", &seen.keys.topics(), &topic, &written]);
            finding(Severity::Fault, topic, text, mend)
        });
        seen.verdict(&["SCAN", "HGETALL"], found.collect())
    },
};

pub(super) const BEYOND: Rule<Evidence> = Rule {
    check: Check {
        id: "partitions.beyond",
        about: "logs beyond the partitions of their topic",
        meaning: "somebody took partitions away: what lies in these logs is read by nobody any \
                  more",
        cost: "events that were acknowledged are never handled, and no error says so",
    },
    look: |seen| {
        let mut found = Vec::new();
        let logs = logs(seen);
        for shape in seen.topics.iter().filter_map(|topic| topic.shape.as_ref().ok()) {
            let own = logs.get(shape.topic.as_str()).into_iter().flatten();
            let last = own.map(|log| log.index).max().filter(|last| *last >= shape.partitions);
            if let Some(last) = last {
                let text =
                    format!("a log {}:{last}, of {} partitions", shape.topic, { shape.partitions });
                let count = (u64::from(last) + 1).to_string();
                let topic = shape.topic.as_str();
                let mend = seen.bus_cli(&["topics", "set", topic, "--partitions", &count]);
                found.push(finding(Severity::Fault, topic, text, mend));
            }
        }
        seen.verdict(&["SCAN", "HGETALL"], found)
    },
};

/// The groups that have a route for the topic of a partition.
fn wanted<'a>(seen: &'a Evidence, on: &'a OnPartition) -> impl Iterator<Item = &'a str> {
    let covers = |group: &&String| {
        let routes = seen.routes.get(*group).into_iter().flatten();
        let mut read = routes.filter_map(|route| route.read.as_ref());
        read.any(|(pattern, _)| pattern.covers_topic(&on.partition.topic))
    };
    seen.routes.keys().filter(covers).map(String::as_str)
}

pub(super) const UNREAD: Rule<Evidence> = Rule {
    check: Check {
        id: "partitions.unread",
        about: "partitions that a group has a route for and does not read",
        meaning: "a group is not on the log of a partition whose events it wants: it handles none \
                  of them, and they are kept for it no longer than for nobody",
        cost: "a group that was destroyed or lost by hand is silent: its lag reads as none at all",
    },
    look: |seen| {
        let mut found = Vec::new();
        for on in &seen.partitions {
            let is_old = |first: u64| first.saturating_add(FOUND_WITHIN_MS) < on.at;
            if !on.log.first_kept().is_some_and(|first| is_old(first.millis)) {
                continue;
            }
            for group in wanted(seen, on).filter(|group| !seen.is_gone(group)) {
                if on.groups.iter().any(|own| own.name == group) {
                    continue;
                }
                let entries = several(on.log.length, "entry");
                let text = format!("group {group} is not on {}: {entries}", on.partition);
                let log = seen.keys.log(&on.partition);
                let make = redis_cli(&["XGROUP", "CREATE", &log, group, "0"]);
                let mend = format!("start the service of group {group}, or make the group: {make}");
                found.push(finding(Severity::Fault, on.partition.to_string(), text, mend));
            }
        }
        seen.verdict(&["HGETALL", "XINFO"], found)
    },
};

pub(super) const NOBODY: Rule<Evidence> = Rule {
    check: Check {
        id: "topics.unread",
        about: "topics that nobody reads",
        meaning: "events are stored, and no group is there or has a route for them",
        cost: "often a service that was never deployed, or a topic that was renamed on one side",
    },
    look: |seen| {
        let mut topics: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
        for on in &seen.partitions {
            let topic = topics.entry(on.partition.topic.as_str()).or_default();
            topic.0 += on.log.length;
            topic.1 |= !on.groups.is_empty() || wanted(seen, on).next().is_some();
        }
        let unread = topics.into_iter().filter(|(_, (entries, is_read))| *entries > 0 && !is_read);
        let found = unread.map(|(topic, (entries, _))| {
            let text = format!("{}, no group", several(entries, "entry"));
            let mend = format!("start the service that wants it; to see what it holds: {}", {
                seen.bus_cli(&["tail", &format!("{topic}.>"), "--last", "10", "--until-end"])
            });
            finding(Severity::Note, topic, text, mend)
        });
        seen.verdict(&["HGETALL", "XINFO"], found.collect())
    },
};
