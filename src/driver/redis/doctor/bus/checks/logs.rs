//! Logs: their history, their ends, what they hold, and what the server says of them.

use std::collections::HashMap;

use super::evidence::{Evidence, OnLog, OnPartition};
use super::said::{ago, clipped, finding, redis_cli, several, size};
use crate::delivery::EntryId;
use crate::driver::admin::{Check, STEP_MAX, Severity};
use crate::driver::redis::doctor::Rule;

/// Ids this far ahead of the clock were made by one that jumped; as in `trim.lua`.
const AHEAD_MS: u64 = 5000;
/// No clock gets there: somebody wrote such an id.
const EXHAUSTED_MS: u64 = 1 << 62;
/// A group that was handed something so long ago should have a checkpoint.
const NOTED_WITHIN_MS: u64 = 60 * 1000;

/// A group on a partition, as the subject of a finding.
fn place(on: &OnPartition, group: &OnLog) -> String {
    format!("{} {}", group.name, on.partition)
}

/// A move of a group on one partition.
fn seek(seen: &Evidence, on: &OnPartition, group: &OnLog, to: &str) -> String {
    let partition = on.partition.to_string();
    seen.bus_cli(&["groups", "seek", &group.name, to, "--partition", &partition])
}

/// An id in a checkpoint.
fn noted(checkpoint: &HashMap<String, String>, name: &str) -> Option<EntryId> {
    checkpoint.get(name)?.parse().ok()
}

pub(super) const WENT_BACK: Rule<Evidence> = Rule {
    check: Check {
        id: "log.went-back",
        about: "logs that know less than they did",
        meaning: "a group noted a later entry, or more entries, than the log ever had by its own \
                  account: it was deleted, or the server lost its end at a restart or a failover",
        cost: "with a sync a second 4,840 of 8,917 acknowledged events were lost over 27 power \
               losses; without a file, all",
    },
    look: |seen| {
        let went = seen.owns().filter(|(_, group, _)| group.own.found.went_back);
        let found = went.map(|(on, group, _)| {
            let noted = noted(&group.own.checkpoint, "last").unwrap_or_default();
            let text = format!("noted {noted}, and the log's last id is {}", on.log.last);
            let mend = format!(
                "publish again what was lost; its service, once it runs, reads the log from the \
                 beginning, or: {}",
                seek(seen, on, group, "--beginning")
            );
            finding(Severity::Fault, place(on, group), text, mend)
        });
        seen.verdict(&["HGETALL", "XINFO"], found.collect())
    },
};

pub(super) const BEYOND: Rule<Evidence> = Rule {
    check: Check {
        id: "log.position-beyond",
        about: "groups that stand beyond the end of their log",
        meaning: "the group counts as having read entries that are still to come: it is never \
                  handed those",
        cost: "publishers succeed, the group is idle, and its lag is none",
    },
    look: |seen| {
        let beyond = seen.pairs().filter(|(on, group)| group.position > on.log.last);
        let found = beyond.map(|(on, group)| {
            let text = format!("stands at {}, the log ends at {}", group.position, on.log.last);
            finding(Severity::Fault, place(on, group), text, seek(seen, on, group, "--end"))
        });
        seen.verdict(&["XINFO"], found.collect())
    },
};

pub(super) const NO_CHECKPOINT: Rule<Evidence> = Rule {
    check: Check {
        id: "checkpoint.missing",
        about: "groups without a checkpoint",
        meaning: "nothing is noted of where the group would have to go on if it vanished: it would \
                  begin with the earliest entry, and repeat what is kept",
        cost: "a group that is made again at the end loses what was published meanwhile; at the \
               beginning it repeats everything",
    },
    look: |seen| {
        let is_old = |on: &OnPartition, group: &OnLog| {
            group.position.millis > 0
                && group.position.millis.saturating_add(NOTED_WITHIN_MS) < on.at
        };
        let mut found = Vec::new();
        for (on, group, keys) in seen.owns().filter(|(on, group, _)| is_old(on, group)) {
            let is_usable = noted(&group.own.checkpoint, "safe").is_some();
            if !is_usable && !seen.is_foreign(group) && !seen.unusable.contains(&keys.checkpoint) {
                let text = format!("{}: nothing that can be used", keys.checkpoint);
                let mend = "run a member of the group: it writes one every ten seconds";
                found.push(finding(Severity::Note, place(on, group), text, mend));
            }
        }
        seen.verdict(&["HGETALL"], found)
    },
};

pub(super) const CHECKPOINT_BEYOND: Rule<Evidence> = Rule {
    check: Check {
        id: "checkpoint.beyond",
        about: "checkpoints that lie beyond the end of their log",
        meaning: "if the group vanished it would be made again beyond the end, and miss what \
                  comes: somebody wrote the checkpoint",
        cost: "loss that shows only when the group vanishes, which is when nobody looks for it",
    },
    look: |seen| {
        let beyond = seen.owns().filter(|(_, group, _)| group.own.found.beyond);
        let found = beyond.map(|(on, group, keys)| {
            let safe = noted(&group.own.checkpoint, "safe").unwrap_or_default();
            let text = format!("{} says {safe}, the log ends at {}", keys.checkpoint, on.log.last);
            let mend = redis_cli(&["DEL", &keys.checkpoint]);
            finding(Severity::Risk, place(on, group), text, mend)
        });
        seen.verdict(&["HGETALL", "XINFO"], found.collect())
    },
};

pub(super) const AHEAD: Rule<Evidence> = Rule {
    check: Check {
        id: "log.ahead",
        about: "logs whose last id lies in the server's future",
        meaning: "the clock jumped ahead and back, or somebody wrote the id: until the clock gets \
                  there new entries are dated by that id, and retention by age does nothing",
        cost: "all ids stick to one future millisecond: replay by time is wrong until it is past",
    },
    look: |seen| {
        let ahead = seen.partitions.iter().filter(|on| {
            on.log.last.millis > on.at.saturating_add(AHEAD_MS) && on.log.last.millis < EXHAUSTED_MS
        });
        let found = ahead.map(|on| {
            let by = ago(on.log.last.millis - on.at);
            let text = format!("{} is {by} ahead of the server's clock", on.log.last);
            let mend = format!("mend the server's clock (NTP); what wrote it: {}", {
                redis_cli(&["XREVRANGE", &seen.keys.log(&on.partition), "+", "-", "COUNT", "1"])
            });
            finding(Severity::Risk, on.partition.to_string(), text, mend)
        });
        seen.verdict(&["XINFO", "TIME"], found.collect())
    },
};

pub(super) const EXHAUSTED: Rule<Evidence> = Rule {
    check: Check {
        id: "log.exhausted",
        about: "logs that are at the end of all ids",
        meaning: "an entry has an id so large that few or none can follow: the server refuses, or \
                  soon refuses, every publish to the partition",
        cost: "one XADD of a stranger with the largest id ends a log for everybody",
    },
    look: |seen| {
        let ended = seen.partitions.iter().filter(|on| on.log.last.millis >= EXHAUSTED_MS);
        let found = ended.map(|on| {
            let (key, last) = (seen.keys.log(&on.partition), on.log.last.to_string());
            let delete = redis_cli(&["XDEL", &key, &last]);
            // Newer servers refuse to go below the largest id that was deleted: that is set first.
            let added = on.log.added.to_string();
            let forget = ["ENTRIESADDED", &added, "MAXDELETEDID", "0-1"];
            let forget = redis_cli(&[&["XSETID", &key, &last], &forget[..]].concat());
            let end = redis_cli(&["XSETID", &key, &format!("{}-0", on.at)]);
            let high = on.groups.iter().filter(|group| group.position.millis >= EXHAUSTED_MS);
            let moves = high.flat_map(|group| {
                let to = format!("{}-0", on.at);
                let back = redis_cli(&["XGROUP", "SETID", &key, &group.name, &to]);
                let checkpoint = group.group.as_ref().map(|own| {
                    redis_cli(&["DEL", &seen.keys.group(&on.partition, own).checkpoint])
                });
                [Some(back), checkpoint].into_iter().flatten()
            });
            let all: Vec<String> = [delete, forget, end].into_iter().chain(moves).collect();
            let text = format!("the last id is {last}");
            finding(Severity::Fault, on.partition.to_string(), text, all.join("; "))
        });
        seen.verdict(&["XINFO"], found.collect())
    },
};

/// Who that is, in words.
fn held_by(on: &OnPartition) -> String {
    match on.holder() {
        Some((id, group)) => {
            let age = ago(on.at.saturating_sub(id.millis));
            format!("group {} needs what is {age} old", clipped(&group.name))
        }
        None => "no group needs it".to_owned(),
    }
}

fn is_near_cap(on: &OnPartition) -> bool {
    on.log.bytes() >= on.kept.cap_bytes / 10 * 8
}

pub(super) const NEAR_CAP: Rule<Evidence> = Rule {
    check: Check {
        id: "log.near-cap",
        about: "logs that are near their hard cap",
        meaning: "beyond the cap the oldest entries go, whether every group has settled them or \
                  not",
        cost: "trimming by size asks no group: the slow one loses, and finds out from others",
    },
    look: |seen| {
        let near = seen.partitions.iter().filter(|on| on.log.length > 0 && is_near_cap(on));
        let found = near.map(|on| {
            let (bytes, cap) = (on.log.bytes(), on.kept.cap_bytes);
            let text = format!("{} of {} at most: {}", size(bytes), size(cap), held_by(on));
            let topic = on.partition.topic.as_str();
            let more = size(cap.saturating_mul(2)).replace(' ', "").replace("bytes", "B");
            let mend = seen.bus_cli(&["topics", "set", topic, "--cap-bytes", &more]);
            let mend = format!("let that group catch up; or raise the cap: {mend}");
            finding(Severity::Risk, on.partition.to_string(), text, mend)
        });
        seen.verdict(&["XINFO"], found.collect())
    },
};

pub(super) const HELD: Rule<Evidence> = Rule {
    check: Check {
        id: "log.held",
        about: "logs that are larger than they are meant to be, since a group holds them",
        meaning: "a group has not settled what all others have: the log grows beyond the size at \
                  which settled entries go, towards its cap",
        cost: "one slow or dead group fills the memory of everybody: it is reported of most \
               brokers",
    },
    look: |seen| {
        let mut found = Vec::new();
        for on in seen.partitions.iter().filter(|on| !is_near_cap(on)) {
            let keep = on.kept.keep_bytes;
            if let (Some((_, group)), true) = (on.holder(), on.log.bytes() / 5 * 4 > keep) {
                let text = format!("{}, meant for {}: {}", size(on.log.bytes()), size(keep), {
                    held_by(on)
                });
                let show = seen.bus_cli(&["groups", "show", &group.name]);
                let mend = format!("let it catch up, or skip what it need not have: {show}");
                found.push(finding(Severity::Risk, on.partition.to_string(), text, mend));
            }
        }
        seen.verdict(&["XINFO", "XPENDING", "EVALSHA"], found)
    },
};

pub(super) const UNTRIMMED: Rule<Evidence> = Rule {
    check: Check {
        id: "log.untrimmed",
        about: "whether what nobody needs any more goes",
        meaning: "a hundred entries or more are kept an hour longer than they are to be, and no \
                  group needs them: no process that publishes to or consumes the topic trims it",
        cost: "an acknowledged entry is not deleted by Redis: memory grows for ever, the most \
               frequent of all reports about streams",
    },
    look: |seen| {
        let long = seen.partitions.iter().filter(|on| on.untrimmed >= STEP_MAX as u64);
        let found = long.map(|on| {
            let age = on.log.first_kept().map_or(0, |first| on.at.saturating_sub(first.millis));
            let text = format!("{STEP_MAX} or more are due to go, the oldest is {}", ago(age));
            let limit = format!("{}-0", on.at.saturating_sub(on.kept.keep_ms));
            let trim = redis_cli(&["XTRIM", &seen.keys.log(&on.partition), "MINID", "~", &limit]);
            let mend = format!("run a process of the topic; where no group needs them: {trim}");
            finding(Severity::Risk, on.partition.to_string(), text, mend)
        });
        seen.verdict(&["XINFO", "EVALSHA"], found.collect())
    },
};

pub(super) const TRIMMED: Rule<Evidence> = Rule {
    check: Check {
        id: "log.trimmed-unread",
        about: "entries that were trimmed before a group read them",
        meaning: "somebody trimmed the log by hand or with a publisher's MAXLEN: the group will \
                  never be handed what went",
        cost: "the trim of Redis asks no group, and the group is not told",
    },
    look: |seen| {
        let lost = seen.owns().filter(|(_, group, _)| group.own.found.trimmed > 0);
        let found = lost.map(|(on, group, _)| {
            let count = several(group.own.found.trimmed, "entry");
            let text = format!("{count} of {} went before they were read", on.partition);
            let mend = "find who trims (XTRIM, or XADD with MAXLEN or MINID), and publish again \
                        what was lost";
            finding(Severity::Fault, place(on, group), text, mend)
        });
        seen.verdict(&["XINFO"], found.collect())
    },
};

pub(super) const DROPPED: Rule<Evidence> = Rule {
    check: Check {
        id: "log.dropped",
        about: "what was dropped of logs before groups had settled it",
        meaning: "a log was beyond its hard cap, or a group gone for too long: so many entries \
                  were dropped so far, counted per group",
        cost: "it is the price of not running out of memory: those events were never handled",
    },
    look: |seen| {
        let mut found = Vec::new();
        for on in &seen.partitions {
            for (group, entries) in &on.dropped {
                let text = format!("group {} lost {}", clipped(group), several(*entries, "entry"));
                let key = seen.keys.dropped(&on.partition);
                let mend = redis_cli(&["HDEL", &key, group]);
                let mend = format!("raise the cap, or speed the group up; to count anew: {mend}");
                found.push(finding(Severity::Risk, on.partition.to_string(), text, mend));
            }
        }
        seen.verdict(&["HGETALL"], found)
    },
};

pub(super) const LAG_WRONG: Rule<Evidence> = Rule {
    check: Check {
        id: "lag.wrong",
        about: "the lag that the server tells, compared with what is unread",
        meaning: "the server's number is not that of the entries that the group has not read: do \
                  not scale or alarm by it",
        cost: "six reports on the server itself: lag is wrong after deletions and trims",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, _) in seen.owns() {
            if let Some((lag, unread)) = group.own.found.lag {
                let text = format!("the server says {lag}, and {unread} are unread");
                let show = seen.bus_cli(&["groups", "show", &group.name]);
                let mend = format!("go by what is counted: {show}");
                found.push(finding(Severity::Note, place(on, group), text, mend));
            }
        }
        seen.verdict(&["XINFO", "EVALSHA"], found)
    },
};

pub(super) const LAG_UNKNOWN: Rule<Evidence> = Rule {
    check: Check {
        id: "lag.unknown",
        about: "groups whose lag the server does not tell",
        meaning: "after a deletion in a log the server tells no lag of a group before it: an alarm \
                  that stands on the number is silent",
        cost: "dashboards read nothing as zero",
    },
    look: |seen| {
        let nil = seen.owns().filter(|(on, group, _)| {
            group.lag.is_none() && on.log.last_kept() > Some(group.position)
        });
        let found = nil.map(|(on, group, _)| {
            let text = format!("XINFO GROUPS gives no lag on {}", on.partition);
            let mend = format!("go by what is counted: {}", {
                seen.bus_cli(&["groups", "show", &group.name])
            });
            finding(Severity::Note, place(on, group), text, mend)
        });
        seen.verdict(&["XINFO"], found.collect())
    },
};
