//! The server's copies, and what happens when one of them takes over.

use super::{Evidence, Looked, Untold, bytes, finding, nothing, one, set, verdict};
use crate::driver::admin::{Check, Finding, Severity};
use crate::driver::redis::doctor::Rule;

/// A replica that said nothing for so long, or is so far behind, would lose that in a failover.
const LAG_SECONDS_MAX: u64 = 10;
const LAG_BYTES_MAX: u64 = 1 << 20;

pub(super) const RULES: &[Rule<Evidence>] = &[
    Rule {
        check: Check {
            id: "replication.replica",
            about: "whether the server is a primary",
            meaning: "a replica takes no writes: nothing is published, read by a group or \
                      acknowledged there",
            cost: "argo-events and others read with groups from replicas: XREADGROUP is a write. A \
                   client that stays with a demoted primary gets READONLY for ever",
        },
        look: |evidence| verdict(replica(evidence)),
    },
    Rule {
        check: Check {
            id: "replication.missing",
            about: "whether there are the replicas that are to confirm",
            meaning: "publishes that wait for replicas end as unknown, after a second each",
            cost: "without WAIT a failover lost 2,705 of 3,528 acknowledged events; who asks for \
                   it and has no replica has neither",
        },
        look: |evidence| verdict(missing(evidence)),
    },
    Rule {
        check: Check {
            id: "replication.lagging",
            about: "how far the replicas are behind",
            meaning: "if one of them takes over now, what it has not got is lost, \
                      acknowledgements among it: events are gone, and others come again",
            cost: "a link that was down for 3.5 s before a failover cost 2,705 acknowledged \
                   events (redis #5433, asynq #55)",
        },
        look: |evidence| verdict(lagging(evidence)),
    },
    Rule {
        check: Check {
            id: "replication.unguarded",
            about: "whether a primary that lost its replicas stops taking writes",
            meaning: "cut off from its replicas it goes on acknowledging what the failover, on \
                      the other side, will forget",
            cost: "Jepsen's classic. Tried here: 780 events lost with the guard, all that came \
                   after the cut without it",
        },
        look: |evidence| verdict(unguarded(evidence)),
    },
    Rule {
        check: Check {
            id: "replication.refuses",
            about: "whether writes are refused for want of replicas",
            meaning: "the server answers NOREPLICAS to every write, and to reads by a group",
            cost: "the bus stands still until a replica is back, though the primary is healthy",
        },
        look: |evidence| verdict(refuses(evidence)),
    },
    Rule {
        check: Check {
            id: "replication.empty_restart",
            about: "whether a primary without files has replicas",
            meaning: "restarted quickly it comes back empty, and its replicas copy that: \
                      everything is gone on all of them at once",
            cost: "100 of 100 events that a replica had confirmed were wiped off it by a restart \
                   of the primary. The Redis handbook warns of it",
        },
        look: |evidence| verdict(empty_restart(evidence)),
    },
];

fn replica(evidence: &Evidence) -> Looked {
    if evidence.line("role")? != "slave" {
        return nothing();
    }
    let host = evidence.line("master_host")?;
    let port = evidence.line("master_port")?;
    let text = format!("it is a replica of {host}:{port}");
    let mend =
        format!("connect to {host}:{port}, or let sentinels name the primary: redis+sentinel://");
    one(Severity::Fault, "role", text, mend)
}

fn missing(evidence: &Evidence) -> Looked {
    let (wanted, there) = (evidence.replicas_wanted, evidence.number("connected_slaves")?);
    if there >= wanted {
        return nothing();
    }
    let text = format!("{wanted} replicas are to confirm what is published, {there} are connected");
    let mend = "on each replica: redis-cli REPLICAOF <host> <port> of this server";
    one(Severity::Fault, "replicas", text, mend)
}

/// `slave0:ip=10.0.0.2,port=6379,state=online,offset=1234,lag=0`.
struct Replica<'a> {
    line: &'a str,
}

impl Replica<'_> {
    fn field(&self, name: &str) -> &str {
        let mut fields = self.line.split(',');
        let found = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or(0)
    }

    fn name(&self) -> String {
        format!("{}:{}", self.field("ip"), self.field("port"))
    }
}

fn lagging(evidence: &Evidence) -> Looked {
    let replicas = evidence.number("connected_slaves")?;
    let head = evidence.number("master_repl_offset")?;
    let mut found = Vec::new();
    for at in 0..replicas {
        if let Some(line) = evidence.maybe(&format!("slave{at}")) {
            found.extend(behind(&Replica { line }, head));
        }
    }
    Ok(found)
}

fn behind(replica: &Replica<'_>, head: u64) -> Option<Finding> {
    let state = replica.field("state");
    let (lag, behind) = (replica.number("lag"), head.saturating_sub(replica.number("offset")));
    let text = if state != "online" {
        format!("it is not in step yet: its state is {state}")
    } else if lag > LAG_SECONDS_MAX || behind > LAG_BYTES_MAX {
        format!("it is {} behind, and said something {lag} s ago", bytes(behind))
    } else {
        return None;
    };
    let mend = "see its log, its disk and the network between; redis-cli INFO replication there";
    Some(finding(Severity::Risk, replica.name(), text, mend))
}

const GUARD: &str = "min-replicas-to-write";

fn guard(evidence: &Evidence) -> Result<u64, Untold> {
    evidence.setting(GUARD)?.parse().map_err(|_| Untold(format!("{GUARD} is no number")))
}

fn unguarded(evidence: &Evidence) -> Looked {
    let replicas = evidence.number("connected_slaves")?;
    if replicas == 0 || guard(evidence)? > 0 {
        return nothing();
    }
    let text = format!("{replicas} replicas are connected, and {GUARD} is 0");
    one(Severity::Note, GUARD, text, set(GUARD, 1))
}

fn refuses(evidence: &Evidence) -> Looked {
    let wanted = guard(evidence)?;
    if wanted == 0 {
        return nothing();
    }
    let good = evidence.number("min_slaves_good_slaves")?;
    if good >= wanted {
        return nothing();
    }
    let text = format!("{GUARD} is {wanted}, {good} replicas are in step: every write is refused");
    let mend = format!("bring the replicas back; else, and at that risk: {}", set(GUARD, good));
    one(Severity::Fault, GUARD, text, mend)
}

fn empty_restart(evidence: &Evidence) -> Looked {
    let replicas = evidence.number("connected_slaves")?;
    let keeps = evidence.line("aof_enabled")? == "1" || !evidence.setting("save")?.is_empty();
    if replicas == 0 || keeps {
        return nothing();
    }
    let text = format!("{replicas} replicas follow a server that keeps nothing on disk");
    let mend =
        format!("{}; until then it must not be restarted by itself", set("appendonly", "yes"));
    one(Severity::Risk, "appendonly", text, mend)
}
