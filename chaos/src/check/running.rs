//! How the system ran: whether it came back, came to an end, and counted right.

use std::time::Duration;

use super::book::Moment;
use super::{Book, Fault, Found};
use crate::time::nanos;

/// How long it may take until both halves work again.
const RECOVERY_MAX: u64 = nanos(Duration::from_secs(20));

/// How long after a fault was healed something was acknowledged, and something delivered, that was
/// not under way before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recovery {
    pub(crate) publish: u64,
    pub(crate) delivery: u64,
}

/// Nothing where either did not come back.
pub(crate) fn recovery(book: &Book, fault: &Fault) -> Option<Recovery> {
    let after = |moments: &[Moment]| {
        let first = moments.partition_point(|moment| moment.0 < fault.to);
        let fresh = moments[first..].iter().find(|(_, made)| *made >= fault.to);
        fresh.map(|(t, _)| t - fault.to)
    };
    Some(Recovery { publish: after(&book.acknowledged)?, delivery: after(&book.delivered)? })
}

/// C11: it works again after each fault.
pub(super) fn not_recovered(book: &Book) -> Found {
    let mut found = Found::new("C11", "did not recover");
    for fault in book.faults.iter().filter(|fault| fault.to != u64::MAX) {
        let back =
            recovery(book, fault).filter(|back| back.publish.max(back.delivery) <= RECOVERY_MAX);
        if back.is_none() {
            found.add(|| format!("{} at {}", fault.name, fault.to));
        }
    }
    for (t, text) in book.notes.iter().filter(|(_, text)| text.contains("does not work")) {
        found.add(|| format!("{text} at {t}"));
    }
    found
}

/// C12: in the end the groups have nothing before them.
pub(super) fn not_settled(book: &Book) -> Found {
    let mut found = Found::new("C12", "left in the end");
    for (group, (unread, pending, due)) in &book.left {
        if unread + pending + due > 0 {
            found.add(|| format!("{group}: {unread} unread, {pending} pending, {due} due"));
        }
    }
    for (t, text) in book.notes.iter().filter(|(_, text)| text.contains("did not end")) {
        found.add(|| format!("{text} at {t}"));
    }
    found
}

/// C14: what a process counted is what it told of, and it lost no event for want of a route.
pub(super) fn miscounted(book: &Book) -> Found {
    let mut found = Found::new("C14", "counters that are not what happened");
    for process in &book.processes {
        let Some(counts) = process.counts.filter(|_| process.missed == 0) else { continue };
        let counters = [
            ("group_lost", counts.group_lost),
            ("history_lost", counts.history_lost),
            ("retention_lost", counts.retention_lost),
            ("pending_gone", counts.pending_gone),
            ("settle_missed", counts.settle_missed),
        ];
        for (name, counter) in counters {
            let told = process.incidents.get(name).copied().unwrap_or(0);
            if told != counter {
                found.add(|| format!("{}: {name} is {counter}, told {told}", process.name));
            }
        }
        if counts.unrouted > 0 {
            found.add(|| format!("{}: {} unrouted", process.name, counts.unrouted));
        }
    }
    found
}
