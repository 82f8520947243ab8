//! What the server does to keep what it acknowledged, and whether it manages to.

use super::{Evidence, Looked, finding, nothing, one, set, verdict};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

pub(super) const RULES: &[Rule<Evidence>] = &[
    Rule {
        check: Check {
            id: "persistence.off",
            about: "whether the server keeps anything on disk",
            meaning: "a restart of the server loses every event, every group and all that was \
                      pending",
            cost: "all 3,134 of 3,134 acknowledged events lost by one kill. Consumers elsewhere \
                   looped on NOGROUP after such a restart: millions of log lines in half an hour \
                   (open-wearables #1188), 8,290 restarts in 5 s (faststream #3106)",
        },
        look: |evidence| verdict(off(evidence)),
    },
    Rule {
        check: Check {
            id: "persistence.snapshots_only",
            about: "whether there is an append-only file besides snapshots",
            meaning: "a crash loses what came after the last snapshot, minutes of it",
            cost: "groups went back to an older position or vanished, and what was acknowledged \
                   came again (open-wearables #1111)",
        },
        look: |evidence| verdict(snapshots_only(evidence)),
    },
    Rule {
        check: Check {
            id: "persistence.never_synced",
            about: "whether the append-only file is synced by the server at all",
            meaning: "the operating system decides when what was acknowledged reaches the disk; a \
                      power failure loses half a minute and more",
            cost: "Linux writes back after 30 s by default: that is how much of the log is at \
                   stake",
        },
        look: |evidence| verdict(never_synced(evidence)),
    },
    Rule {
        check: Check {
            id: "persistence.everysec",
            about: "whether an event is on disk before it is acknowledged",
            meaning: "a power failure loses the last second or two, a kill of the server nothing. \
                      That is the usual choice; `always` loses nothing",
            cost: "445 and 525 acknowledged events lost by cutting the power under load, none of \
                   5,616 with `always`",
        },
        look: |evidence| verdict(everysec(evidence)),
    },
    Rule {
        check: Check {
            id: "persistence.rewrite_unsynced",
            about: "whether syncing goes on while the append-only file is rewritten",
            meaning: "for as long as a rewrite takes, what is acknowledged may be in memory alone",
            cost: "a rewrite of some gigabytes takes minutes: a power failure in it loses minutes, \
                   on a server that looks as if it lost a second at most",
        },
        look: |evidence| verdict(rewrite_unsynced(evidence)),
    },
    Rule {
        check: Check {
            id: "persistence.append_fails",
            about: "whether the append-only file can be written",
            meaning: "the server refuses every write with MISCONF, and what it acknowledged just \
                      before may be in memory alone",
            cost: "with the disk full, one event that was acknowledged before the refusals was \
                   lost by the next kill",
        },
        look: |evidence| verdict(append_fails(evidence)),
    },
    Rule {
        check: Check {
            id: "persistence.rewrite_fails",
            about: "whether the append-only file can be rewritten",
            meaning: "the file grows until the disk is full, and each restart takes longer",
            cost: "a full disk ends in MISCONF for every write, or with `always` in the end of the \
                   server",
        },
        look: |evidence| verdict(rewrite_fails(evidence)),
    },
    Rule {
        check: Check {
            id: "persistence.snapshot_fails",
            about: "whether the last snapshot could be written",
            meaning: "where snapshots are configured to matter, the server refuses every write \
                      with MISCONF; else there is no backup and no new replica",
            cost: "MISCONF is answered even to PING: health checks turn red on every process at \
                   once",
        },
        look: |evidence| verdict(snapshot_fails(evidence)),
    },
    Rule {
        check: Check {
            id: "persistence.slow_disk",
            about: "whether the disk kept syncs of the append-only file waiting",
            meaning: "the window of `everysec` grows to as long as the slowest sync takes, and \
                      writes stand still after two seconds of it",
            cost: "1,460 acknowledged events lost by a kill while one sync took 4 s",
        },
        look: |evidence| verdict(slow_disk(evidence)),
    },
];

fn appends(evidence: &Evidence) -> Result<bool, super::Untold> {
    Ok(evidence.line("aof_enabled")? == "1")
}

fn append() -> String {
    set("appendonly", "yes")
}

fn off(evidence: &Evidence) -> Looked {
    if appends(evidence)? || !evidence.setting("save")?.is_empty() {
        return nothing();
    }
    let text = "appendonly is no, and no snapshot is ever made";
    one(Severity::Risk, "appendonly", text, append())
}

fn snapshots_only(evidence: &Evidence) -> Looked {
    let save = evidence.setting("save")?;
    if appends(evidence)? || save.is_empty() {
        return nothing();
    }
    let changes = evidence.number("rdb_changes_since_last_save")?;
    let text = format!(
        "appendonly is no; save is \"{save}\", and {changes} changes are in memory alone now"
    );
    one(Severity::Risk, "appendonly", text, append())
}

/// What the append-only file's syncing is called; nothing without one.
fn fsync(evidence: &Evidence) -> Result<Option<&str>, super::Untold> {
    if !appends(evidence)? {
        return Ok(None);
    }
    evidence.setting("appendfsync").map(Some)
}

fn never_synced(evidence: &Evidence) -> Looked {
    if fsync(evidence)? != Some("no") {
        return nothing();
    }
    one(Severity::Risk, "appendfsync", "appendfsync is no", set("appendfsync", "everysec"))
}

fn everysec(evidence: &Evidence) -> Looked {
    if fsync(evidence)? != Some("everysec") {
        return nothing();
    }
    let text = "appendfsync is everysec: up to two seconds are lost by a power failure";
    one(Severity::Note, "appendfsync", text, set("appendfsync", "always"))
}

fn rewrite_unsynced(evidence: &Evidence) -> Looked {
    evidence.setting("no-appendfsync-on-rewrite")?;
    if !evidence.facts.syncs_pause || !appends(evidence)? {
        return nothing();
    }
    let subject = "no-appendfsync-on-rewrite";
    one(Severity::Risk, subject, format!("{subject} is yes"), set(subject, "no"))
}

fn append_fails(evidence: &Evidence) -> Looked {
    evidence.line("aof_last_write_status")?;
    if !evidence.facts.append_fails {
        return nothing();
    }
    let mend =
        "df -h \"$(redis-cli CONFIG GET dir | tail -1)\"; make room, or see the server's log";
    let text = "the last write of the append-only file failed: every write is refused";
    one(Severity::Fault, "append-only file", text, mend)
}

fn rewrite_fails(evidence: &Evidence) -> Looked {
    let failed = evidence.line("aof_last_bgrewrite_status")? == "err";
    if !failed || !appends(evidence)? {
        return nothing();
    }
    let size = evidence.number("aof_current_size").map(super::bytes).unwrap_or_default();
    let text = format!("the last rewrite of the append-only file failed; it has {size}");
    let mend = "see the server's log and its disk, then: redis-cli BGREWRITEAOF";
    one(Severity::Risk, "append-only file", text, mend)
}

fn snapshot_fails(evidence: &Evidence) -> Looked {
    evidence.line("rdb_last_bgsave_status")?;
    if !evidence.facts.snapshot_fails {
        return nothing();
    }
    let refuses = evidence.facts.stops_writes && !evidence.setting("save")?.is_empty();
    let mend = "see the server's log and its disk, then: redis-cli BGSAVE";
    let (severity, text) = if refuses {
        let text = "the last snapshot failed, and stop-writes-on-bgsave-error is yes: every write \
                    is refused";
        (Severity::Fault, text)
    } else {
        (Severity::Risk, "the last snapshot failed")
    };
    one(severity, "snapshot", text, mend)
}

fn slow_disk(evidence: &Evidence) -> Looked {
    if !appends(evidence)? {
        return nothing();
    }
    let times = evidence.facts.delayed;
    if times == 0 {
        return nothing();
    }
    let days = evidence.number("uptime_in_days")?;
    let text = format!("{times} syncs were kept waiting since the server started {days} days ago");
    let mend = "give the append-only file a disk of its own; watch: redis-cli INFO persistence | \
                grep aof_delayed_fsync";
    Ok(vec![finding(Severity::Risk, "aof_delayed_fsync", text, mend)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::admin::Verdict;

    #[test]
    fn a_disk_that_keeps_syncs_waiting_is_found() {
        let look = |delayed: u64| {
            let info =
                format!("aof_enabled:1\r\naof_delayed_fsync:{delayed}\r\nuptime_in_days:3\r\n");
            let peer = Default::default();
            verdict(slow_disk(&Evidence::of(&info, &[("appendfsync", "everysec")], peer)))
        };
        assert_eq!(look(0), Verdict::Passed);
        let found = look(7);
        let finding = &found.findings()[0];
        assert_eq!(finding.severity, Severity::Risk);
        assert!(finding.text.starts_with("7 syncs were kept waiting"), "{finding:?}");
        let silent = Evidence::of("", &[], Default::default());
        assert!(matches!(verdict(slow_disk(&silent)), Verdict::Unknown(_)));
    }
}
