//! Who may do what, and who can listen.

use std::net::IpAddr;

use super::rights::{ROLES, Role};
use super::{Evidence, Looked, finding, named, nothing, one, set, verdict};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

/// What was denied longer ago is of the past.
const DENIED_WITHIN_SECONDS: u64 = 60 * 60;
/// What this driver and its doctor ask for, and do without where it is denied.
const OPTIONAL: [&str; 13] = [
    "info",
    "client|id",
    "client|setinfo",
    "acl|log",
    "acl|getuser",
    "acl|dryrun",
    "slowlog|get",
    "config|get",
    "client|info",
    "command|info",
    "role",
    "xackdel",
    "memory|usage",
];

pub(super) const RULES: &[Rule<Evidence>] = &[
    Rule {
        check: Check {
            id: "access.missing",
            about: "whether this user may send every command of its role, to every key",
            meaning: "what needs the missing right fails with NOPERM, some of it only when \
                      something else goes wrong: a claim, a retry, a dead letter",
            cost: "a user that may publish and not read back leaves every publish over a lost \
                   connection unknown; one that may not claim leaves a dead worker's events \
                   pending for ever",
        },
        look: |evidence| verdict(missing(evidence)),
    },
    Rule {
        check: Check {
            id: "access.excess",
            about: "whether this user may do much harm that the bus never needs",
            meaning: "a mistake or a leak in any service that logs in as this user may empty or \
                      end the server",
            cost: "FLUSHALL sent to the wrong server is how streams vanish with their groups \
                   (svix #1844, open-wearables #1188)",
        },
        look: |evidence| verdict(excess(evidence)),
    },
    Rule {
        check: Check {
            id: "access.open",
            about: "whether somebody may log in from elsewhere without a password",
            meaning: "whoever reaches the port reads every event, and may write, delete and run \
                      scripts",
            cost: "open servers are found within minutes and used for mining or ransom; with a \
                   script hole (version.holes) the machine is lost, too",
        },
        look: |evidence| verdict(open(evidence)),
    },
    Rule {
        check: Check {
            id: "access.plaintext",
            about: "whether what is sent to another machine is encrypted",
            meaning: "passwords and events can be read and changed on the way",
            cost: "a password that was read once opens the server until it is changed",
        },
        look: |evidence| verdict(plaintext(evidence)),
    },
    Rule {
        check: Check {
            id: "access.denied",
            about: "whether somebody was denied a command, a key or the login in the last hour",
            meaning: "a service may stand still on a missing right, or somebody is trying \
                      passwords",
            cost: "a reader whose right was taken away in the middle of a read still gets one \
                   event, and then nothing",
        },
        look: |evidence| verdict(denied(evidence)),
    },
];

fn missing(evidence: &Evidence) -> Looked {
    let rights = evidence.rights.as_ref().map_err(Clone::clone)?;
    let mut found = Vec::new();
    let meant: Vec<Role> = ROLES.into_iter().filter(|role| rights.is_for(*role)).collect();
    for role in &meant {
        let rules = rights.missing(*role);
        // What one role lacks the next one lacks as well.
        if rules.is_empty() || !found.is_empty() {
            continue;
        }
        // Nothing stands still without an operator.
        let severity = if *role == Role::Operator { Severity::Note } else { Severity::Risk };
        let text = format!("as {} it lacks {}", role.name(), named(&rules));
        let mend = setuser(&rights.user, &rules);
        found.push(finding(severity, rights.user.clone(), text, mend));
    }
    if meant.is_empty() {
        let rules = rights.missing(Role::Consumer);
        let text = "it may neither publish nor read by a group";
        let mend = setuser(&rights.user, &rules);
        found.push(finding(Severity::Fault, rights.user.clone(), text, mend));
    }
    Ok(found)
}

/// The command that gives a user rights.
fn setuser(user: &str, rules: &[String]) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| quoted(rule)).collect();
    let rules = rules.join(" ");
    format!("redis-cli ACL SETUSER {} {rules}; ACL SAVE or CONFIG REWRITE keeps it", quoted(user))
}

/// One word of a shell's line. Names are the data of strangers.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn excess(evidence: &Evidence) -> Looked {
    let rights = evidence.rights.as_ref().map_err(Clone::clone)?;
    if rights.excess.is_empty() {
        return nothing();
    }
    let text = format!("it may also send {}", named(&rights.excess));
    let mend = format!(
        "redis-cli ACL SETUSER bus on '>PASSWORD' '~{}' +@all -@admin -@dangerous +info +role \
         '+client|kill' '+client|unblock' '+config|get' '+acl|dryrun', and log in as that",
        rights.keys()
    );
    one(Severity::Note, rights.user.clone(), text, mend)
}

fn open(evidence: &Evidence) -> Looked {
    let flags = evidence.default_user.as_ref().map_err(Clone::clone)?;
    let has = |flag: &str| flags.iter().any(|known| known == flag);
    if !has("on") || !has("nopass") {
        return nothing();
    }
    let is_off = |port: &str| port.parse::<u16>() == Ok(0);
    if is_off(evidence.setting("port")?) && is_off(evidence.setting("tls-port")?) {
        return nothing();
    }
    // A server in this mode turns others away by itself.
    if evidence.setting("protected-mode")? == "yes" {
        return nothing();
    }
    let bound = evidence.setting("bind")?;
    let here = |address: &str| is_loopback(address.trim_start_matches('-'));
    if !bound.is_empty() && bound.split_whitespace().all(here) {
        return nothing();
    }
    let text = format!("user default needs no password, and the server listens on \"{bound}\"");
    let mend = format!(
        "redis-cli ACL SETUSER default resetpass '>PASSWORD' && redis-cli CONFIG REWRITE; or: {}",
        set("bind", "\"127.0.0.1 -::1\"")
    );
    one(Severity::Fault, "default", text, mend)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn plaintext(evidence: &Evidence) -> Looked {
    let Some(host) = &evidence.peer.plain_host else { return nothing() };
    if is_loopback(host) {
        return nothing();
    }
    // `10.0.0.1:5000` or `[::1]:5000`: a name may well be this machine's own.
    let seen = evidence.peer.seen_at.rsplit_once(':').map_or("", |(host, _)| host);
    let seen = seen.trim_start_matches('[').trim_end_matches(']');
    if is_loopback(seen) {
        return nothing();
    }
    let from = if seen.is_empty() { String::new() } else { format!(", which sees us at {seen}") };
    let text = format!("the connection goes to {host}{from}, and is not encrypted");
    let mend = "set tls-port, tls-cert-file, tls-key-file and tls-ca-cert-file on the server, and \
                connect to rediss://";
    one(Severity::Risk, host.clone(), text, mend)
}

fn denied(evidence: &Evidence) -> Looked {
    let denials = evidence.denied.as_ref().map_err(Clone::clone)?;
    let recent = denials.iter().filter(|denial| {
        let optional = OPTIONAL.contains(&denial.object.as_str()) && denial.reason == "command";
        denial.age_seconds <= DENIED_WITHIN_SECONDS && !optional
    });
    let told = recent.take(super::NAMED_MAX).map(|denial| {
        let (times, ago) = (denial.times, denial.age_seconds / 60);
        let what = match denial.reason.as_str() {
            "auth" => "a login".to_owned(),
            reason => format!("{reason} {}", denial.object),
        };
        let text = format!("{what} was denied {times} times, last {ago} minutes ago");
        let mend = match denial.reason.as_str() {
            "command" => setuser(&denial.user, &[format!("+{}", denial.object)]),
            "key" => setuser(&denial.user, &[format!("~{}", denial.object)]),
            _ => "redis-cli ACL LOG shows from where; correct the password there".to_owned(),
        };
        let mend = format!("{mend}; afterwards: redis-cli ACL LOG RESET");
        finding(Severity::Risk, denial.user.clone(), text, mend)
    });
    Ok(told.collect())
}

#[cfg(test)]
mod tests {
    use super::super::evidence::Peer;
    use super::*;

    fn is_found(host: Option<&str>, seen_at: &str) -> bool {
        let (plain_host, seen_at) = (host.map(str::to_owned), seen_at.to_owned());
        let peer = Peer { plain_host, seen_at, ..Peer::default() };
        !verdict(plaintext(&Evidence::of("", &[], peer))).findings().is_empty()
    }

    #[test]
    fn what_stays_on_this_machine_needs_no_encryption() {
        assert!(is_found(Some("10.0.0.1"), "10.0.0.2:5000"));
        assert!(is_found(Some("redis.internal"), ""));
        assert!(is_found(Some("redis.internal"), "[fd00::2]:5000"));
        assert!(!is_found(Some("127.0.0.1"), "127.0.0.1:5000"));
        assert!(!is_found(Some("localhost"), ""));
        assert!(!is_found(Some("this-machine"), "[::1]:5000"));
        assert!(!is_found(None, "10.0.0.2:5000"), "a socket, or encrypted");
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quoted("a'; reboot; '"), r"'a'\''; reboot; '\'''");
    }
}
