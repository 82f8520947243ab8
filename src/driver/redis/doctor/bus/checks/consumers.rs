//! Consumers: what dead ones left behind, and heartbeats that cannot be right.

use std::collections::BTreeSet;

use super::evidence::Evidence;
use super::said::{finding, redis_cli, several};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

/// Heartbeats of dead consumers from which on they are worth a word.
const DEAD_MAX: u64 = 200;
/// Consumers without a heartbeat, of one group on one stream, from which on they are.
const LEFT_MAX: usize = 100;
/// A heartbeat is dated by the server's clock: further ahead of it than this is none.
const AHEAD_MS: u64 = 5000;
/// A heartbeat that is so old is of a dead consumer, as it is counted.
const OLD_MS: u64 = 60 * 60 * 1000;

pub(super) const DEAD: Rule<Evidence> = Rule {
    check: Check {
        id: "consumers.dead",
        about: "heartbeats of consumers that are dead",
        meaning: "hundreds of consumers were not heard of for an hour and nobody cleared them \
                  away: their groups have no live member, or cannot delete them",
        cost: "one name per start of a process piles up, and every sweep looks through them",
    },
    look: |seen| {
        let old = seen.heartbeats.old;
        let mut found = Vec::new();
        if old >= DEAD_MAX {
            let key = seen.keys.consumers();
            let until = seen.now.saturating_sub(OLD_MS).to_string();
            let text = format!("{old} heartbeats are more than an hour old");
            let mend = format!(
                "start a member of each group, which clears them away; those of groups that are \
                 no more: {}",
                redis_cli(&["ZREMRANGEBYSCORE", &key, "-inf", &until])
            );
            found.push(finding(Severity::Note, key, text, mend));
        }
        seen.verdict(&["ZCOUNT"], found)
    },
};

pub(super) const AHEAD: Rule<Evidence> = Rule {
    check: Check {
        id: "consumers.ahead",
        about: "heartbeats that lie in the future",
        meaning: "a consumer counts as live until the server's clock gets there, dead or not: the \
                  clock went back, or somebody else wrote the heartbeat",
        cost: "a dead member that counts as live hides that nobody works, and a move of its group \
               is refused",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (group, consumers) in &seen.heartbeats.groups {
            for (consumer, heard) in consumers {
                let ahead = heard.saturating_sub(seen.now);
                if ahead > AHEAD_MS {
                    let name = format!("{group} {consumer}");
                    let text = format!("{consumer} was heard of {} s from now", ahead / 1000);
                    let mend = redis_cli(&["ZREM", &seen.keys.consumers(), &name]);
                    found.push(finding(Severity::Risk, group, text, mend));
                }
            }
        }
        seen.verdict(&["ZREVRANGE", "TIME"], found)
    },
};

pub(super) const LEFT_OVER: Rule<Evidence> = Rule {
    check: Check {
        id: "consumers.left-over",
        about: "consumers on streams that no heartbeat tells of",
        meaning: "a group has a hundred or more consumers on a stream that hold nothing and were \
                  not heard of: nobody will delete them",
        cost: "the list of consumers grows with every start elsewhere, and with it the time of \
               every look at it",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group) in seen.pairs() {
            let (Some(name), consumers) = (&group.group, &group.own.consumers) else { continue };
            let keys = seen.keys.group(&on.partition, name);
            let known = seen.heartbeats.groups.get(&group.name);
            let is_known = |name: &str| known.is_some_and(|all| all.contains_key(name));
            for (key, consumers) in [keys.log, keys.retry].iter().zip(consumers) {
                let left: BTreeSet<&str> = consumers
                    .iter()
                    .filter(|own| own.pending == 0 && !is_known(&own.name))
                    .map(|own| own.name.as_str())
                    .collect();
                if let (Some(first), true) = (left.first(), left.len() >= LEFT_MAX) {
                    let count = several(left.len() as u64, "consumer");
                    let text = format!("{count} of group {} hold nothing", group.name);
                    let one = redis_cli(&["XGROUP", "DELCONSUMER", key, &group.name, first]);
                    let mend = format!("delete them, one by one: {one}");
                    found.push(finding(Severity::Note, key, text, mend));
                }
            }
        }
        seen.verdict(&["XINFO", "ZREVRANGE"], found)
    },
};
