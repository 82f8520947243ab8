//! Known bugs that can be switched on in the library, to see that a run finds them.

use std::time::Duration;

use crate::Result;
use crate::args::Mode;

/// A bug's name, and what it does.
#[cfg(feature = "plant")]
fn all() -> Vec<(&'static str, &'static str)> {
    rumormill::plant::ALL.iter().map(|plant| (plant.name(), plant.says())).collect()
}

#[cfg(not(feature = "plant"))]
fn all() -> Vec<(&'static str, &'static str)> {
    Vec::new()
}

const MISSING: &str =
    "this program was built without known bugs: cargo run -p chaos --features plant -- ...";

/// The faults that bring a bug out soonest, and the mode. Other faults find most of them as well,
/// but not each within a minute.
pub(crate) fn scene(plant: &str) -> (Mode, &'static [&'static str]) {
    let kinds: &[&str] = match plant {
        "repeat-unseen" | "lost-is-not-stored" => &["append-reply-lost", "connections-cut"],
        "lost-is-stored" => &["server-killed", "connections-reset", "connections-cut"],
        "no-sweep" => &["worker-killed", "read-reply-lost"],
        "no-renewal" => &["handler-outlasts-lease"],
        "no-panic-guard" => &["handler-panics"],
        "no-crash-notes" => &["handler-always-aborts"],
        "drain-drops" => &["worker-drained"],
        "regroup-at-end" | "miscount" => &["group-destroyed"],
        "unfenced" => &["settle-reply-lost", "worker-frozen"],
        "checksum-ignored" => &["event-bits-flipped"],
        // What they do shows where nothing else happens.
        "acks-forgotten" | "namespace-ignored" | "lane-by-chance" | "zero-idle"
        | "schedule-copies" => &["scripts-flushed", "foreign-entries", "handler-panics"],
        "nothing" => &[],
        "silent-losses" => return (Mode::None, &["server-killed", "everything-flushed"]),
        _ => &["connections-cut", "server-killed", "worker-killed"],
    };
    (Mode::Always, kinds)
}

/// How long the groups get in the end, where a bug may have seen to it that they never have
/// nothing left. Without the bug they would be done by then.
pub(crate) fn patience(plant: &str) -> Option<Duration> {
    (plant != "nothing").then_some(Duration::from_secs(15))
}

/// The lease of the workers, where another than the usual one brings a bug out sooner: what always
/// takes its process along is given to six workers in turn, each after a lease.
pub(crate) fn lease(plant: &str) -> Option<Duration> {
    (plant == "no-crash-notes").then_some(Duration::from_secs(1))
}

/// The list, a line each.
pub(crate) fn list() -> String {
    if all().is_empty() {
        return format!("{MISSING}\n");
    }
    all().iter().map(|(name, says)| format!("{name:26} {says}\n")).collect()
}

/// Whether there is such a bug.
pub(crate) fn check(name: &str) -> Result<()> {
    let all = all();
    if all.is_empty() {
        return Err(MISSING.into());
    }
    if all.iter().any(|(own, _)| *own == name) {
        return Ok(());
    }
    Err(format!("there is no plant {name:?}: see `chaos plants`").into())
}
