//! What was handed out and is not settled, and what is kept beside it.

use super::evidence::{Evidence, Held, OnLog, OnPartition};
use super::said::{ago, clipped, finding, redis_cli};
use crate::delivery::EntryId;
use crate::driver::admin::{Check, Severity, Verdict};
use crate::driver::redis::doctor::Rule;
use crate::driver::redis::keys::GroupKeys;

/// What a dead consumer held is taken over within a lease and a sweep, a minute at most.
const TAKEN_OVER_MS: u64 = 2 * 60 * 1000;
/// A group that has read everything should have settled what is older than this.
const STUCK_MS: u64 = 60 * 60 * 1000;
/// From the fourth hand-out on an entry is a suspect: this is far beyond.
const HANDED_OUT_MAX: u64 = 10;

/// Our consumers hold no more than their lanes take: this is far beyond.
const PENDING_MAX: u64 = 100_000;

/// The oldest pending entries of both streams, with the stream's key.
fn rows<'a>(group: &'a OnLog, keys: &'a GroupKeys) -> impl Iterator<Item = (&'a str, &'a Held)> {
    let keys = [keys.log.as_str(), keys.retry.as_str()].into_iter();
    keys.zip(&group.own.pending).flat_map(|(key, rows)| rows.iter().map(move |row| (key, row)))
}

pub(super) const ABANDONED: Rule<Evidence> = Rule {
    check: Check {
        id: "pending.abandoned",
        about: "entries that dead consumers hold, in groups that have live ones",
        meaning: "a consumer that was not heard of holds entries, and the live members of its \
                  group have not taken them over in two minutes",
        cost: "pending entries that nobody reclaims are reported of most libraries: the events \
               are neither handled nor lost, and nobody sees them",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, keys) in seen.owns().filter(|(_, group, _)| seen.is_live(&group.name)) {
            let left = rows(group, &keys).find(|(_, held)| {
                held.idle_ms > TAKEN_OVER_MS && !seen.is_consumer_live(&group.name, &held.consumer)
            });
            if let Some((key, held)) = left {
                let text = format!(
                    "{} is held by {}, silent for {}",
                    held.id,
                    clipped(&held.consumer),
                    ago(held.idle_ms)
                );
                let name = group.name.as_str();
                let live = seen.heartbeats.groups.get(name).into_iter().flatten();
                let mut live = live.filter(|(own, _)| seen.is_consumer_live(name, own));
                let to = live.next().map(|(own, _)| own.as_str()).unwrap_or("CONSUMER");
                let idle = TAKEN_OVER_MS.to_string();
                let mend = redis_cli(&["XAUTOCLAIM", key, name, to, &idle, "0", "JUSTID"]);
                let mend = format!("see what the members log; to give them to one of them: {mend}");
                let subject = format!("{name} {}", on.partition);
                found.push(finding(Severity::Fault, subject, text, mend));
            }
        }
        seen.verdict(&["XPENDING", "ZREVRANGE"], found)
    },
};

pub(super) const STUCK: Rule<Evidence> = Rule {
    check: Check {
        id: "pending.stuck",
        about: "entries that a live consumer has held for very long",
        meaning: "the group has read everything, and holds an entry that is more than an hour \
                  old: a handler hangs, or the entry comes back again and again",
        cost: "a handler without a timeout waits for ever; its lease is renewed for ever, too",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, keys) in seen.owns().filter(|(on, group, _)| is_read(on, group)) {
            let old = group.own.pending[0].iter().find(|held| {
                let age = on.at.saturating_sub(held.id.millis);
                age > STUCK_MS && seen.is_consumer_live(&group.name, &held.consumer)
            });
            if let Some(held) = old {
                let age = ago(on.at.saturating_sub(held.id.millis));
                let text =
                    format!("{} of {age} ago is held by {}", held.id, clipped(&held.consumer));
                let id = held.id.to_string();
                let look = redis_cli(&["XRANGE", &keys.log, &id, &id]);
                let mend = format!("restart that consumer; the entry: {look}");
                let subject = format!("{} {}", group.name, on.partition);
                found.push(finding(Severity::Risk, subject, text, mend));
            }
        }
        seen.verdict(&["XPENDING", "XINFO", "ZREVRANGE"], found)
    },
};

fn is_read(on: &OnPartition, group: &OnLog) -> bool {
    on.log.last_kept() <= Some(group.position)
}

pub(super) const HANDED_OUT: Rule<Evidence> = Rule {
    check: Check {
        id: "pending.handed-out",
        about: "entries that were handed out very often",
        meaning: "an entry was handed out ten times or more and is not settled: its consumers \
                  die, or lose their leases, before they are done",
        cost: "an event that kills its process, again and again, takes what runs beside it along",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, keys) in seen.owns() {
            let often = rows(group, &keys).find(|(_, held)| held.deliveries >= HANDED_OUT_MAX);
            if let Some((key, held)) = often {
                let text = format!("{} was handed out {} times", held.id, held.deliveries);
                let id = held.id.to_string();
                let look = redis_cli(&["XRANGE", key, &id, &id]);
                let mend = format!("see why its consumers end; the entry: {look}");
                let subject = format!("{} {}", group.name, on.partition);
                found.push(finding(Severity::Risk, subject, text, mend));
            }
        }
        seen.verdict(&["XPENDING"], found)
    },
};

pub(super) const GONE: Rule<Evidence> = Rule {
    check: Check {
        id: "pending.gone",
        about: "pending entries whose message is gone",
        meaning: "a stranger trimmed or deleted what a group was handling: those events are lost \
                  to it, unless a consumer still has them in hand",
        cost: "MAXLEN and MINID ask no group: slow ones lose what they had begun, without an error",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, keys) in seen.owns() {
            for (key, gone) in [&keys.log, &keys.retry].into_iter().zip(&group.own.found.gone) {
                let Some(first) = gone.first() else { continue };
                let text = format!("{key}: {} pending, {first} first, no message", gone.len());
                let ids: Vec<String> = gone.iter().map(EntryId::to_string).collect();
                let mut words = vec!["XACK", key, &group.name];
                words.extend(ids.iter().map(String::as_str));
                let mend = format!("find who trims; to stop waiting: {}", redis_cli(&words));
                let subject = format!("{} {}", group.name, on.partition);
                found.push(finding(Severity::Fault, subject, text, mend));
            }
        }
        seen.verdict(&["XPENDING", "EVALSHA"], found)
    },
};

pub(super) const MANY: Rule<Evidence> = Rule {
    check: Check {
        id: "pending.many",
        about: "how many entries are pending",
        meaning: "a group was handed a hundred thousand entries of a partition or more and has not \
                  settled them: something reads and does not acknowledge",
        cost: "148 bytes each, and reads get four times dearer: a client that reads in a loop \
               without XACK takes the server down in the end",
    },
    look: |seen| {
        let many = seen.pairs().filter(|(_, group)| group.pending >= PENDING_MAX);
        let found = many.map(|(on, group)| {
            let key = seen.keys.log(&on.partition);
            let text = format!("{} pending on {}", group.pending, on.partition);
            let mend =
                format!("see who holds them: {}", { redis_cli(&["XPENDING", &key, &group.name]) });
            finding(Severity::Risk, &group.name, text, mend)
        });
        seen.verdict(&["XINFO"], found.collect())
    },
};

/// What is left of entries in a hash that nobody will delete.
fn left(
    seen: &Evidence,
    what: &str,
    of: impl Fn(&OnLog, GroupKeys) -> (Vec<EntryId>, String),
) -> Verdict {
    let mut found = Vec::new();
    for (on, group, keys) in seen.owns() {
        let (ids, hash) = of(group, keys);
        if ids.is_empty() {
            continue;
        }
        let ids: Vec<String> = ids.iter().map(EntryId::to_string).collect();
        let mut words = vec!["HDEL", &hash];
        words.extend(ids.iter().map(String::as_str));
        let text = format!("{hash}: {} {what} of entries that are not pending", ids.len());
        let subject = format!("{} {}", group.name, on.partition);
        found.push(finding(Severity::Note, subject, text, redis_cli(&words)));
    }
    seen.verdict(&["HSCAN", "XPENDING"], found)
}

pub(super) const PROGRESS: Rule<Evidence> = Rule {
    check: Check {
        id: "progress.left-over",
        about: "records of half settled entries that are not pending",
        meaning: "an entry was taken from its group by hand, and the record of its settled events \
                  stayed: where the entry is handed out again, those are not run again",
        cost: "after a bare XGROUP SETID backwards some events are repeated and others are not",
    },
    look: |seen| {
        left(seen, "records", |group, keys| (group.own.found.progress.clone(), keys.progress))
    },
};

pub(super) const NOTES: Rule<Evidence> = Rule {
    check: Check {
        id: "suspects.stale",
        about: "notes of suspects that run no more",
        meaning: "an event that may kill its process was noted as running, and its entry is not \
                  pending any more: the note means nothing",
        cost: "nothing but the memory; it shows that somebody deleted entries by hand",
    },
    look: |seen| left(seen, "notes", |group, keys| (group.own.found.notes.clone(), keys.running)),
};

pub(super) const NO_RETRY_GROUP: Rule<Evidence> = Rule {
    check: Check {
        id: "retry.no-group",
        about: "retry streams that their group does not read",
        meaning: "the group is on the log and not on its retry stream: nothing that failed is \
                  tried again",
        cost: "one missing group makes a read of many streams fail whole, until it is made again",
    },
    look: |seen| {
        let mut found = Vec::new();
        for (on, group, keys) in seen.owns() {
            if !group.own.retries && !seen.is_foreign(group) {
                let waits = group.own.retry_length;
                let text = format!("{}: no group {}, {waits} to retry", keys.retry, group.name);
                let name = &group.name;
                let mend = redis_cli(&["XGROUP", "CREATE", &keys.retry, name, "0", "MKSTREAM"]);
                let subject = format!("{name} {}", on.partition);
                found.push(finding(Severity::Fault, subject, text, mend));
            }
        }
        seen.verdict(&["XINFO"], found)
    },
};
