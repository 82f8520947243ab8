//! Servers that are well, and servers that do not tell.

use rumormill::Durability;
use rumormill::driver::admin::{Severity, Verdict};

use crate::kit::Ward;

const HEALTHY: [&str; 6] =
    ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory", "256mb"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_server_is_found_healthy() {
    let ward = Ward::with(&HEALTHY).await;
    let diagnosis = ward.look().await;
    assert_eq!(diagnosis.store.role, "master");
    assert_eq!(diagnosis.store.durability, Durability::Fsync);
    assert!(diagnosis.checks.len() >= 30, "{}", diagnosis.checks.len());
    for checked in &diagnosis.checks {
        let id = checked.check.id;
        assert!(!matches!(checked.verdict, Verdict::Unknown(_)), "{id}: {:?}", checked.verdict);
        // The server to test with may well be an old one.
        let worst = checked.verdict.findings().iter().map(|finding| finding.severity).max();
        let is_well = worst.is_none_or(|worst| worst == Severity::Note);
        assert!(is_well || id == "version.holes", "{id}: {:?}", checked.verdict);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_asked_is_unknown_and_names_the_rule() {
    let mut ward = Ward::with(&HEALTHY).await;
    ward.say("ACL SETUSER weak on >pw ~rm:* &* +@all -@admin -info -client|info -command");
    ward.enter("weak").await;
    let diagnosis = ward.look().await;
    let why = |id: &str| {
        let checked = diagnosis.checks.iter().find(|checked| checked.check.id == id);
        match &checked.unwrap_or_else(|| panic!("no check is {id}")).verdict {
            Verdict::Unknown(why) => why.clone(),
            verdict => panic!("{id}: {verdict:?}"),
        }
    };
    for (id, rule) in [
        ("persistence.off", "`+info`"),
        ("memory.evicts", "`+info`"),
        ("limits.idle_timeout", "`+config|get`"),
        ("access.open", "`+acl|getuser`"),
        ("access.missing", "`+client|info`"),
        ("access.denied", "`+acl|log`"),
        ("load.slow_commands", "`+slowlog|get`"),
        ("version.commands", "`+command|info`"),
        ("version.holes", "of which nothing is known"),
    ] {
        assert!(why(id).contains(rule), "{id}: {}", why(id));
    }
    ward.say("ACL SETUSER weak +client|info");
    let verdict = ward.verdict("access.missing").await;
    assert!(matches!(&verdict, Verdict::Unknown(why) if why.contains("acl|dryrun")), "{verdict:?}");
}

/// What the bus keeps may be closed to this user; the server can be looked at nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_may_not_be_read_hide_nothing_of_the_server() {
    let mut ward = Ward::with(&["--appendonly", "no"]).await;
    ward.say("ACL SETUSER other on >pw ~other:* &* +@all");
    ward.enter("other").await;
    ward.finds("persistence.off", Severity::Risk, "appendonly is no").await;
    ward.finds("access.missing", Severity::Fault, "neither publish nor read").await;
}
