//! What the doctor finds wrong with a server: each fault is brought about on a real one.

mod access;
mod kit;
mod limits;
mod load;
mod memory;
mod persistence;
mod refusing;
mod replication;
#[path = "../server/mod.rs"]
mod server;
mod version;

use std::collections::BTreeSet;

use rumormill::driver::redis::checks;

/// A test for each check: it is told the id that it has to bring about.
macro_rules! cases {
    ($($theme:ident: $($name:ident = $id:literal),+;)+) => {
        const TESTED: &[&str] = &[$($($id),+),+];
        $(mod $theme {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::super::$theme::$name($id).await;
            })+
        })+
    };
}

mod case {
    cases! {
        persistence:
            off = "persistence.off",
            snapshots_only = "persistence.snapshots_only",
            never_synced = "persistence.never_synced",
            everysec = "persistence.everysec",
            rewrite_unsynced = "persistence.rewrite_unsynced",
            append_fails = "persistence.append_fails",
            rewrite_fails = "persistence.rewrite_fails",
            snapshot_fails = "persistence.snapshot_fails";
        memory:
            evicts = "memory.evicts",
            evicted = "memory.evicted",
            no_limit = "memory.no_limit",
            nearly_full = "memory.nearly_full",
            beyond_host = "memory.beyond_host";
        replication:
            replica = "replication.replica",
            missing = "replication.missing",
            lagging = "replication.lagging",
            unguarded = "replication.unguarded",
            refuses = "replication.refuses",
            empty_restart = "replication.empty_restart";
        access:
            missing = "access.missing",
            excess = "access.excess",
            open = "access.open",
            plaintext = "access.plaintext",
            denied = "access.denied";
        limits:
            clients = "limits.clients",
            clients_refused = "limits.clients_refused",
            idle_timeout = "limits.idle_timeout",
            entry = "limits.entry",
            answers = "limits.answers",
            stream_nodes = "limits.stream_nodes",
            database = "limits.database";
        load:
            slow = "load.slow_commands",
            refusals = "load.refusals",
            clock = "clock.apart";
        version:
            holes = "version.holes",
            unmaintained = "version.unmaintained",
            commands = "version.commands";
    }

    pub(crate) fn tested() -> &'static [&'static str] {
        TESTED
    }
}

/// No server can be brought to it in a test: it is a unit test beside the check.
const BESIDE_THE_CHECK: [&str; 1] = ["persistence.slow_disk"];

/// The other checks are of what lies on the bus, and tested elsewhere.
fn is_of_server(id: &&str) -> bool {
    let theme = id.split('.').next().unwrap_or_default();
    case::tested().iter().any(|tested| tested.split('.').next() == Some(theme))
}

#[test]
fn every_check_of_the_server_has_its_test() {
    let known: BTreeSet<&str> =
        checks().iter().map(|check| check.id).filter(is_of_server).collect();
    let tested: BTreeSet<&str> = case::tested().iter().copied().chain(BESIDE_THE_CHECK).collect();
    assert_eq!(known, tested);
    assert_eq!(tested.len(), case::tested().len() + BESIDE_THE_CHECK.len(), "one is there twice");
}

#[test]
fn every_check_says_what_it_means() {
    let mut ids = BTreeSet::new();
    for check in checks() {
        assert!(ids.insert(check.id), "{} is there twice", check.id);
        let (theme, name) = check.id.split_once('.').expect("a theme and a name");
        let plain = |text: &str| text.chars().all(|sign| sign.is_ascii_lowercase() || sign == '_');
        assert!(plain(theme) && plain(name), "{}", check.id);
        assert!(!check.about.is_empty() && !check.about.ends_with('.'), "{}", check.id);
        for text in [check.meaning, check.cost] {
            let is_one = !text.is_empty() && !text.ends_with('.') && !text.contains("  ");
            assert!(is_one, "{}: {text:?}", check.id);
        }
    }
}
