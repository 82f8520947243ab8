//! Limits of the server that an event, an answer or a connection may run into.

use super::{Evidence, Looked, Untold, bytes, nothing, one, set, verdict};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;
use crate::envelope::PAYLOAD_BYTES_MAX;

/// An entry is one argument: a lone event of the largest payload with its headers, or a batch.
const ENTRY_BYTES: u64 = 4 * PAYLOAD_BYTES_MAX as u64;
/// What a client may have sent and the server not yet read: some settlements with their outputs.
const QUERY_BYTES: u64 = 16 * PAYLOAD_BYTES_MAX as u64;
/// An answer to a read holds 4 MiB going by the average; large events after small ones make more.
const ANSWER_BYTES: u64 = 64 * PAYLOAD_BYTES_MAX as u64;
/// Of the connections that the server takes, in tenths.
const CLIENTS_TENTHS: u64 = 8;
/// A node of a log goes as a whole, or stays: entries and bytes of one that is still small.
const NODE_ENTRIES_MAX: u64 = 1_000;
const NODE_BYTES_MAX: u64 = 64 << 10;

pub(super) const RULES: &[Rule<Evidence>] = &[
    Rule {
        check: Check {
            id: "limits.clients",
            about: "how many of the connections that the server takes are in use",
            meaning: "at maxclients every further connection is shut: a process that restarts, or \
                      loses its connection, cannot come back",
            cost: "langfuse #17096: 60 connections left behind by each shutdown. A service needs \
                   one for commands and one per 16 partitions that it reads",
        },
        look: |evidence| verdict(clients(evidence)),
    },
    Rule {
        check: Check {
            id: "limits.clients_refused",
            about: "whether connections were refused",
            meaning: "maxclients was reached since the server started",
            cost: "who is shut out sees a connection that ends before its first answer, and cannot \
                   tell that from a server that is down",
        },
        look: |evidence| verdict(clients_refused(evidence)),
    },
    Rule {
        check: Check {
            id: "limits.idle_timeout",
            about: "whether the server ends idle connections",
            meaning: "connections that wait are ended: the one for appends where it confirms by \
                      replicas, those of tools. They are made again, each time after a failed try",
            cost: "bullmq #648 and its kin: consumers that never came back after the server ended \
                   their connection",
        },
        look: |evidence| verdict(idle_timeout(evidence)),
    },
    Rule {
        check: Check {
            id: "limits.entry",
            about: "whether the largest event fits into what the server reads",
            meaning: "a larger entry ends the connection in place of being refused: its publisher \
                      cannot know whether it was stored, and tries again",
            cost: "beyond client-query-buffer-limit the server resets the connection without a \
                   word; beyond proto-max-bulk-len with a protocol error",
        },
        look: |evidence| verdict(entry(evidence)),
    },
    Rule {
        check: Check {
            id: "limits.answers",
            about: "whether an answer to a read fits into what the server buffers",
            meaning: "the server ends a reader's connection in the middle of an answer; what it \
                      was handed is pending until its lease ends, and the next read meets the same",
            cost: "200 entries of 500 KB took 94 MB of buffers for one slow reader",
        },
        look: |evidence| verdict(answers(evidence)),
    },
    Rule {
        check: Check {
            id: "limits.stream_nodes",
            about: "whether logs are cut up finely enough to be trimmed",
            meaning: "retention removes whole nodes of a log. With nodes this large next to \
                      nothing can go, and memory grows until the hard cap",
            cost: "bullmq #2847: `MAXLEN ~` that kept many times what was asked for. Tried here: \
                   `~ 10` left 50 of 50",
        },
        look: |evidence| verdict(stream_nodes(evidence)),
    },
    Rule {
        check: Check {
            id: "limits.database",
            about: "which of the server's databases is used",
            meaning: "who leaves the number out of the address talks to another bus, and no error \
                      says so. A cluster has database 0 alone",
            cost: "two halves of a service on two databases look like a bus that loses events",
        },
        look: |evidence| verdict(database(evidence)),
    },
];

fn number(evidence: &Evidence, setting: &str) -> Result<u64, Untold> {
    let value = evidence.setting(setting)?;
    value.parse().map_err(|_| Untold(format!("CONFIG tells of {setting} what is no number")))
}

fn clients(evidence: &Evidence) -> Looked {
    let connected = evidence.number("connected_clients")?;
    let most = number(evidence, "maxclients")?;
    if connected * 10 < most * CLIENTS_TENTHS {
        return nothing();
    }
    let text = format!("{connected} of {most} connections are in use");
    let mend =
        format!("redis-cli CLIENT LIST shows whose they are; {}", set("maxclients", most * 2));
    one(Severity::Risk, "maxclients", text, mend)
}

fn clients_refused(evidence: &Evidence) -> Looked {
    let refused = evidence.number("rejected_connections")?;
    if refused == 0 {
        return nothing();
    }
    let text = format!("{refused} connections were refused since the server started or was reset");
    let most = number(evidence, "maxclients")?;
    let mend = format!("{}; then: redis-cli CONFIG RESETSTAT", set("maxclients", most * 2));
    one(Severity::Note, "rejected_connections", text, mend)
}

fn idle_timeout(evidence: &Evidence) -> Looked {
    let seconds = number(evidence, "timeout")?;
    if seconds == 0 {
        return nothing();
    }
    let text = format!("timeout is {seconds} s");
    one(Severity::Note, "timeout", text, set("timeout", 0))
}

fn entry(evidence: &Evidence) -> Looked {
    let mut found = Vec::new();
    let limits = [("proto-max-bulk-len", ENTRY_BYTES), ("client-query-buffer-limit", QUERY_BYTES)];
    for (setting, needed) in limits {
        let given = number(evidence, setting)?;
        if given < needed {
            let (given, needs) = (bytes(given), bytes(needed));
            let text = format!("{setting} is {given}; the bus may need {needs}");
            found.extend(one(Severity::Risk, setting, text, set(setting, needed))?);
        }
    }
    Ok(found)
}

/// `normal 0 0 0 slave 268435456 67108864 60 ...`: of each class hard, soft, seconds.
fn answers(evidence: &Evidence) -> Looked {
    let setting = "client-output-buffer-limit";
    let mut words = evidence.setting(setting)?.split_whitespace();
    let of_ours = words.by_ref().skip_while(|word| *word != "normal").skip(1).take(2);
    let limits: Vec<u64> = of_ours.filter_map(|word| word.parse().ok()).collect();
    let Some(least) = limits.into_iter().filter(|limit| *limit > 0).min() else {
        return nothing();
    };
    if least >= ANSWER_BYTES {
        return nothing();
    }
    let text = format!("{setting} of normal clients is {}", bytes(least));
    one(Severity::Risk, setting, text, set(setting, "\"normal 0 0 0\""))
}

fn stream_nodes(evidence: &Evidence) -> Looked {
    let (entries, held) = ("stream-node-max-entries", "stream-node-max-bytes");
    let (most, most_bytes) = (number(evidence, entries)?, number(evidence, held)?);
    // 0 is no limit; the one that is reached first ends a node.
    let is_small =
        (1..=NODE_ENTRIES_MAX).contains(&most) || (1..=NODE_BYTES_MAX).contains(&most_bytes);
    if is_small {
        return nothing();
    }
    let text = format!("{entries} is {most} and {held} is {most_bytes}");
    let mend = format!("{}; it is so for nodes made from then on", set(entries, 100));
    one(Severity::Risk, entries, text, mend)
}

fn database(evidence: &Evidence) -> Looked {
    match evidence.peer.database {
        0 => nothing(),
        number => {
            let text = format!("database {number} is used");
            one(Severity::Note, "database", text, "leave the number out of the address, everywhere")
        }
    }
}
