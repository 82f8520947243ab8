//! Parked keys: what waits behind dead letters.

use super::evidence::Evidence;
use super::said::{ago, finding, redis_cli, several};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;
use crate::driver::redis::wire;

/// What waits for longer than this, or beside so many, is a risk.
const OLD_MS: u64 = 24 * 60 * 60 * 1000;
const MANY: u64 = 10_000;

pub(super) const ORPHANED: Rule<Evidence> = Rule {
    check: Check {
        id: "parked.orphaned",
        about: "parked keys whose dead letter is gone",
        meaning: "a key is held back by a letter that is not there any more: somebody deleted it \
                  with a bare XDEL. Every later event of the key waits, for ever",
        cost: "nothing fails: the events of one customer stop, and those of all others go on",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, keys) in seen.owns() {
            for (key, origin) in &group.own.found.orphans {
                let text = format!("key {key} waits for a letter that is gone ({origin})");
                // What waits goes to the retry stream in its order, and nothing holds the key.
                let script = format!(
                    "for _, one in ipairs(redis.call(\"ZRANGEBYLEX\", KEYS[2], \"[\" .. ARGV[1] .. \
                     \"/\", \"(\" .. ARGV[1] .. \"0\")) do redis.call(\"ZREM\", KEYS[2], one) \
                     redis.call(\"XADD\", KEYS[3], \"*\", \"{}\", string.sub(one, 87)) end \
                     return redis.call(\"HDEL\", KEYS[1], ARGV[1])",
                    wire::RETRY
                );
                let (parking, parked) = (&keys.parking, &keys.parked);
                let mend = redis_cli(&["EVAL", &script, "3", parking, parked, &keys.retry, key]);
                let subject = format!("{} {}", group.name, on.partition);
                found.push(finding(Severity::Fault, subject, text, mend));
            }
        }
        seen.verdict(&["HSCAN", "XRANGE"], found)
    },
};

pub(super) const WAITING: Rule<Evidence> = Rule {
    check: Check {
        id: "parked.waiting",
        about: "events that wait behind a dead letter of their key",
        meaning: "the group keeps the order of a key: until the letter is redriven or purged, its \
                  later events wait",
        cost: "one bad event stops its customer, not the others; that one notices first",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, _) in seen.owns().filter(|(_, group, _)| group.own.parked > 0) {
            let (count, oldest) = (group.own.parked, group.own.found.parked);
            let age = oldest.map(|first| on.at.saturating_sub(first.millis)).unwrap_or(0);
            let text =
                format!("{} on {}, one for {}", several(count, "event"), on.partition, ago(age));
            let severity =
                if age > OLD_MS || count > MANY { Severity::Risk } else { Severity::Note };
            let mend = seen.bus_cli(&["dead-letters", "list", "--group", &group.name]);
            found.push(finding(severity, &group.name, text, mend));
        }
        seen.verdict(&["ZCARD", "ZRANGE"], found)
    },
};
