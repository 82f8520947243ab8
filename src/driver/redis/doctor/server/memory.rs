//! Room: how much there is, and what the server does when there is none.

use super::{Evidence, Looked, bytes, nothing, one, set, verdict};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

/// Beyond this share of `maxmemory` writes may soon be refused. Tenths.
const FULL_TENTHS: u64 = 9;
/// Beyond this share of the host's memory the system may end the server, which needs room for the
/// copies that a fork makes. Tenths.
const HOST_TENTHS: u64 = 8;

pub(super) const RULES: &[Rule<Evidence>] = &[
    Rule {
        check: Check {
            id: "memory.evicts",
            about: "what the server does when its memory is full",
            meaning: "it deletes whole keys to make room: logs, with every event in them that \
                      nobody has read, and the groups on them",
            cost: "asynq #799: queues emptied by `volatile-lru`; bull #2606: 38 million evicted \
                   keys. Tried here: one or two of five logs deleted, without a word",
        },
        look: |evidence| verdict(evicts(evidence)),
    },
    Rule {
        check: Check {
            id: "memory.evicted",
            about: "whether keys were deleted to make room",
            meaning: "logs, groups or dead letters may be among what is gone; nobody can tell \
                      which",
            cost: "asynq #1144: jobs gone from one structure and left in another, for good",
        },
        look: |evidence| verdict(evicted(evidence)),
    },
    Rule {
        check: Check {
            id: "memory.no_limit",
            about: "whether the server's memory has a limit",
            meaning: "it grows until the system ends it, in place of refusing writes while reads \
                      and acknowledgements go on. The hard cap of a log is 1 GiB then, whatever \
                      the machine has",
            cost: "open-wearables #1111: the system ended the server, and NOGROUP followed",
        },
        look: |evidence| verdict(no_limit(evidence)),
    },
    Rule {
        check: Check {
            id: "memory.nearly_full",
            about: "how much of maxmemory is used",
            meaning: "at the limit every publish, retry and dead letter is refused with OOM; plain \
                      acknowledgements and reads go on",
            cost: "mediforce PR#1371: 226 of 256 MB held by side data, then lock renewals failed",
        },
        look: |evidence| verdict(nearly_full(evidence)),
    },
    Rule {
        check: Check {
            id: "memory.beyond_host",
            about: "whether the limit, and what is used, fit into the machine",
            meaning: "the system ends the server, or swaps it, before the server's own limit is \
                      reached. A snapshot or a rewrite may double what is used for a while",
            cost: "a server that was ended starts by reading its file: LOADING for every client, a \
                   minute for some gigabytes",
        },
        look: |evidence| verdict(beyond_host(evidence)),
    },
];

/// The command that limits the memory to so many bytes, or a little less.
fn limit(bytes: u64) -> String {
    set("maxmemory", format_args!("{}mb", bytes >> 20))
}

fn evicts(evidence: &Evidence) -> Looked {
    let policy = evidence.line("maxmemory_policy")?;
    if policy == "noeviction" {
        return nothing();
    }
    let (severity, when) = match evidence.facts.maxmemory {
        0 => (Severity::Note, "it does nothing while maxmemory is 0".to_owned()),
        most => (Severity::Risk, format!("it begins at {}", bytes(most))),
    };
    let text = format!("maxmemory-policy is {policy}; {when}");
    one(severity, "maxmemory-policy", text, set("maxmemory-policy", "noeviction"))
}

fn evicted(evidence: &Evidence) -> Looked {
    let keys = evidence.number("evicted_keys")?;
    if keys == 0 {
        return nothing();
    }
    let text = format!("{keys} keys were evicted since the server started or was reset");
    let mend = format!(
        "{}; then look for what is missing, and: redis-cli CONFIG RESETSTAT",
        set("maxmemory-policy", "noeviction")
    );
    one(Severity::Fault, "evicted_keys", text, mend)
}

fn no_limit(evidence: &Evidence) -> Looked {
    if evidence.number("maxmemory")? > 0 {
        return nothing();
    }
    let used = bytes(evidence.number("used_memory")?);
    let host = evidence.number("total_system_memory").unwrap_or(0);
    let text = format!("maxmemory is 0; {used} are used, the machine has {}", bytes(host));
    // Room for forks and for the rest of the machine.
    let most = if host > 0 { host / 10 * 6 } else { 1 << 30 };
    one(Severity::Note, "maxmemory", text, limit(most))
}

fn nearly_full(evidence: &Evidence) -> Looked {
    let (used, most) = (evidence.number("used_memory")?, evidence.number("maxmemory")?);
    if most == 0 || used <= most / 10 * FULL_TENTHS {
        return nothing();
    }
    let text = format!("{} of {} are used", bytes(used), bytes(most));
    let severity = if used >= most { Severity::Fault } else { Severity::Risk };
    let mend = format!("bus-cli topics list shows who holds what; {}", limit(most * 2));
    one(severity, "maxmemory", text, mend)
}

fn beyond_host(evidence: &Evidence) -> Looked {
    let host = evidence.number("total_system_memory")?;
    let most_here = host / 10 * HOST_TENTHS;
    let most = evidence.number("maxmemory")?;
    let held = evidence.number("used_memory_rss")?;
    let host = bytes(host);
    let text = if most > most_here {
        format!("maxmemory is {}, the machine has {host}", bytes(most))
    } else if held > most_here {
        format!("the server holds {} of the machine's {host}", bytes(held))
    } else {
        return nothing();
    };
    one(Severity::Risk, "maxmemory", text, limit(most_here / 4 * 3))
}
