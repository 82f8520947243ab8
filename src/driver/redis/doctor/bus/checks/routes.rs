//! Routes: what groups say that they can take.

use super::evidence::Evidence;
use super::said::{ago, clipped, finding, redis_cli};
use crate::driver::GroupName;
use crate::driver::admin::{Check, Finding, Severity};
use crate::driver::redis::doctor::Rule;

/// A pattern counts for so long after the last member that has it was heard of; as in
/// `routes.lua`.
const KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// Live members say their patterns every few seconds.
const SAID_WITHIN_MS: u64 = 5 * 60 * 1000;

/// Takes a pattern out, and tells the members.
fn forget(seen: &Evidence, group: &str, pattern: &str) -> String {
    let key = GroupName::new(group.to_owned()).map(|group| seen.keys.routes(&group));
    let key = key.unwrap_or_default();
    let delete = redis_cli(&["HDEL", &key, pattern]);
    let tell = redis_cli(&["HINCRBY", &key, crate::driver::redis::wire::EPOCH, "1"]);
    format!("{delete}; {tell}")
}

pub(super) const MALFORMED: Rule<Evidence> = Rule {
    check: Check {
        id: "routes.malformed",
        about: "routes that cannot be read",
        meaning: "a field of a group's routes is no pattern or has no readable value: no member \
                  knows it, and what it stood for may be acknowledged unhandled",
        cost: "an event that nobody routes is acknowledged, and only counted",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (group, routes) in &seen.routes {
            for route in routes.iter().filter(|route| route.read.is_none()) {
                let text = format!("route {:?} cannot be read", clipped(&route.pattern));
                let mend = forget(seen, group, &route.pattern);
                found.push(finding(Severity::Risk, group, text, mend));
            }
        }
        seen.verdict(&["HGETALL"], found)
    },
};

/// Patterns that were said last so long ago, of groups of which `is_so`.
fn silent(
    seen: &Evidence,
    ages: std::ops::Range<u64>,
    is_so: impl Fn(&str) -> bool,
    tell: impl Fn(&str, &str, u64) -> Finding,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (group, routes) in seen.routes.iter().filter(|(group, _)| is_so(group)) {
        for (pattern, said) in routes.iter().filter_map(|route| route.read.as_ref()) {
            let age = seen.now.saturating_sub(*said);
            if ages.contains(&age) {
                found.push(tell(group, pattern.as_str(), age));
            }
        }
    }
    found
}

pub(super) const UNSAID: Rule<Evidence> = Rule {
    check: Check {
        id: "routes.unsaid",
        about: "routes that no live member has, or only in an older version",
        meaning: "a group is live, and no member has said this pattern lately: its events, or the \
                  newer versions of them, are handed from member to member until a day has passed, \
                  and are acknowledged unhandled then",
        cost: "what a rollback leaves behind: events go round for a day, each time at the cost of \
               a settlement",
    },
    look: |seen| {
        let found = silent(seen, SAID_WITHIN_MS..KEPT_MS, |group| seen.is_live(group), {
            |group, pattern, age| {
                let text = format!("{pattern} was said {} ago, by nobody live", ago(age));
                let forget = forget(seen, group, pattern);
                let mend = format!("deploy what handles it; to give its events up: {forget}");
                finding(Severity::Risk, group, text, mend)
            }
        });
        seen.verdict(&["HGETALL", "ZREVRANGE"], found)
    },
};

pub(super) const STALE: Rule<Evidence> = Rule {
    check: Check {
        id: "routes.stale",
        about: "routes that nobody has said for a day",
        meaning: "a pattern of a live group counts no more: a version that is gone had it. Its \
                  events are acknowledged unhandled",
        cost: "a handler that was dropped by mistake is missed only when its effects are",
    },
    look: |seen| {
        let found = silent(seen, KEPT_MS..u64::MAX, |group| seen.is_live(group), {
            |group, pattern, age| {
                let text = format!("{pattern} was last said {} ago", ago(age));
                finding(Severity::Note, group, text, forget(seen, group, pattern))
            }
        });
        seen.verdict(&["HGETALL", "ZREVRANGE"], found)
    },
};
