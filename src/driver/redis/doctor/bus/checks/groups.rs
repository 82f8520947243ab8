//! Groups: whether somebody works for them, and how far behind they are.

use std::collections::BTreeMap;

use super::evidence::{Evidence, OnLog, OnPartition};
use super::said::{ago, finding, redis_cli, several};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

/// A live group whose oldest unread entry is older than this is behind.
const BEHIND_MS: u64 = 15 * 60 * 1000;

/// The groups on logs, each with its partitions.
fn by_name(seen: &Evidence) -> BTreeMap<&str, Vec<(&OnPartition, &OnLog)>> {
    let mut groups: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (on, group) in seen.pairs() {
        groups.entry(&group.name).or_default().push((on, group));
    }
    groups
}

/// What lies before a group on a partition, in words; nothing where nothing does.
fn waits(on: &OnPartition, group: &OnLog) -> Option<String> {
    let unread = on.log.last_kept() > Some(group.position);
    let unread = match group.lag {
        _ if !unread => None,
        Some(lag) if lag > 0 => Some(format!("{lag} unread")),
        _ => Some("some unread".to_owned()),
    };
    let count = |count: u64, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let rest = [count(group.pending, "pending"), count(group.own.retry_length, "to retry")];
    let all: Vec<String> = unread.into_iter().chain(rest.into_iter().flatten()).collect();
    (!all.is_empty()).then(|| format!("{} on {}", all.join(", "), on.partition))
}

pub(super) const NO_CONSUMER: Rule<Evidence> = Rule {
    check: Check {
        id: "groups.no-consumer",
        about: "groups that have work and no live consumer",
        meaning: "nobody of the group was heard of for 30 s, and events wait for it; from seven \
                  days on they are no longer kept for it",
        cost: "the complaint met most often: a consumer that never came back after a disconnect, \
               while its process counted as healthy",
    },
    look: |seen| {
        let groups = by_name(seen).into_iter();
        let silent = groups.filter(|(group, _)| !seen.is_live(group) && !seen.is_gone(group));
        let mut found = Vec::new();
        for (group, places) in silent {
            let ours = places.iter().filter(|(_, own)| own.own.looked && !seen.is_foreign(own));
            let waits: Vec<String> = ours.filter_map(|(on, own)| waits(on, own)).collect();
            let Some(first) = waits.first() else { continue };
            let more = match waits.len() {
                1 => String::new(),
                count => format!(", and on {} more", several(count as u64 - 1, "partition")),
            };
            let mend = format!("start the service; what it has before it: {}", {
                seen.bus_cli(&["groups", "show", group])
            });
            let text = format!("{first}{more}, no live consumer");
            found.push(finding(Severity::Fault, group, text, mend));
        }
        seen.verdict(&["ZREVRANGE", "XINFO"], found)
    },
};

/// Takes a group off a partition.
fn destroy(seen: &Evidence, on: &OnPartition, group: &str) -> String {
    redis_cli(&["XGROUP", "DESTROY", &seen.keys.log(&on.partition), group])
}

pub(super) const GONE: Rule<Evidence> = Rule {
    check: Check {
        id: "groups.gone",
        about: "groups that were gone for so long that nothing is kept for them",
        meaning: "no member was heard of for seven days: what the group has not settled is trimmed \
                  with what everybody has",
        cost: "a dead group that holds memory for ever filled servers elsewhere; one that does not \
               loses its events, which is counted here",
    },
    look: |seen| {
        let gone = by_name(seen).into_iter().filter(|(group, _)| seen.is_gone(group));
        let found = gone.map(|(group, places)| {
            let silent = seen.now.saturating_sub(seen.last_said(group).unwrap_or(seen.now));
            let text = format!(
                "no member for {}, on {}",
                ago(silent),
                several(places.len() as u64, "partition")
            );
            let ends = places.iter().map(|(on, _)| destroy(seen, on, group)).take(3);
            let ends: Vec<String> = ends.collect();
            let mend = format!("start its service; or, where it is no more: {}", ends.join("; "));
            finding(Severity::Risk, group, text, mend)
        });
        seen.verdict(&["HGETALL", "XINFO"], found.collect())
    },
};

pub(super) const BEHIND: Rule<Evidence> = Rule {
    check: Check {
        id: "groups.behind",
        about: "live groups that are behind by more than 15 minutes",
        meaning: "the group has consumers, and the oldest entry that none of them has read is old: \
                  they are too slow, paused, or stuck",
        cost: "a consumer that hangs looks alive: its heartbeat goes on, its events do not",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, _) in seen.owns().filter(|(_, group, _)| seen.is_live(&group.name)) {
            let Some(first) = group.own.found.unread else { continue };
            let age = on.at.saturating_sub(first.millis);
            if age > BEHIND_MS {
                let lag = group.lag.map_or(String::new(), |lag| format!(", {lag} entries"));
                let text = format!("behind by {} on {}{lag}", ago(age), on.partition);
                let mend = format!("give it more consumers, or see what they do: {}", {
                    seen.bus_cli(&["groups", "show", &group.name])
                });
                found.push(finding(Severity::Risk, &group.name, text, mend));
            }
        }
        seen.verdict(&["EVALSHA", "XINFO", "ZREVRANGE"], found)
    },
};

pub(super) const FOREIGN: Rule<Evidence> = Rule {
    check: Check {
        id: "groups.foreign",
        about: "groups of other programs on our logs",
        meaning: "a group is on a log that has registered nothing: another program reads it. What \
                  it has not read and acknowledged is kept for it like for any group",
        cost: "a group that somebody made to have a look held a log until the server was full",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group) in seen.pairs().filter(|(_, group)| seen.is_foreign(group)) {
            let holds = group.pending > 0 || on.log.last_kept() > Some(group.position);
            let (severity, state) = match holds {
                true => (Severity::Risk, "holds what it has not read or acknowledged"),
                false => (Severity::Note, "has read everything"),
            };
            let text = format!("group on {}: it {state}", on.partition);
            let mend = format!("where nobody needs it: {}", destroy(seen, on, &group.name));
            found.push(finding(severity, &group.name, text, mend));
        }
        seen.verdict(&["XINFO", "HGETALL"], found)
    },
};

pub(super) const UNROUTED: Rule<Evidence> = Rule {
    check: Check {
        id: "groups.unrouted",
        about: "groups of ours without a route",
        meaning: "the group has keys of ours and no routes: they were deleted. Until a member \
                  registers them again nobody can tell when it was last there, and it counts as \
                  another program's",
        cost: "members of two versions need the routes to hand over what one of them cannot take",
    },
    look: |seen| {
        let ours = by_name(seen).into_iter().filter(|(group, places)| {
            let looked = places.iter().filter(|(_, own)| own.own.looked).count() > 0;
            let foreign = places.iter().all(|(_, own)| seen.is_foreign(own));
            looked && !foreign && seen.last_said(group).is_none()
        });
        let found = ours.map(|(group, places)| {
            let text = format!("no route, on {}", several(places.len() as u64, "partition"));
            let ends = places.first().map(|(on, _)| destroy(seen, on, group)).unwrap_or_default();
            let mend = format!("start its service, which registers them; or end the group: {ends}");
            finding(Severity::Risk, group, text, mend)
        });
        seen.verdict(&["XINFO", "HGETALL"], found.collect())
    },
};
