//! What publishers were told, against the log.

use std::collections::HashMap;

use super::{Book, Found};
use crate::history::Costs;
use crate::load::Act;

/// What tells that something is gone.
const LOSSES: &[&str] = &[
    "history_lost",
    "group_lost",
    "retention_lost",
    "pending_gone",
    "settle_missed",
    "evicted",
    "server_changed",
];

/// C1: acknowledged, not in the log, and no loss of the server's covers it.
pub(super) fn lost(book: &Book) -> Found {
    let mut found = Found::new("C1", "acknowledged and not in the log");
    for (event, story) in &book.events {
        if let Some((t, at)) = &story.acknowledged
            && story.stored.is_empty()
            && !book.is_excused(*t)
        {
            found.add(|| format!("{event}, acknowledged at {t} as {at}"));
        }
    }
    found
}

/// C1: what the server may lose is told by the library where it is lost.
pub(super) fn lost_in_silence(book: &Book) -> Found {
    let mut found = Found::new("C1", "lost by the server, and nobody said so");
    let gone = |from: u64, to: u64| {
        let lost = book.events.values().filter(|story| {
            story.stored.is_empty()
                && story.acknowledged.as_ref().is_some_and(|(t, _)| *t > from && *t <= to)
        });
        lost.count()
    };
    let mut from = 0;
    for fault in book.faults.iter().filter(|fault| fault.costs != Costs::Nothing) {
        let count = gone(from, fault.to);
        from = fault.to;
        let told = book
            .incidents
            .iter()
            .any(|incident| incident.t >= fault.from && LOSSES.contains(&incident.name.as_str()));
        if count > 0 && !told {
            found.add(|| format!("{count} by {} at {}", fault.name, fault.from));
        }
    }
    found
}

/// C2: one event, two entries.
pub(super) fn twice(book: &Book) -> Found {
    let mut found = Found::new("C2", "twice in the log");
    for (event, story) in &book.events {
        if story.stored.len() > 1 {
            found.add(|| format!("{event} at {}", story.stored.join(" and ")));
        }
    }
    found
}

/// C3: nobody published it, or it is not what was published.
pub(super) fn phantom(book: &Book) -> Found {
    let mut found = Found::new("C3", "not what was published");
    for (event, story) in &book.events {
        if story.invoked.is_none() {
            found.add(|| format!("{event} was never published"));
        } else if story.spoiled > 0 {
            found.add(|| format!("{event} was changed on its way"));
        }
    }
    found
}

/// C6: acknowledged events of one key stand in the log as they were published.
pub(super) fn out_of_order(book: &Book) -> Found {
    let mut found = Found::new("C6", "behind a later one of its key in the log");
    type Key<'a> = (&'a str, u32);
    let mut keys: HashMap<Key<'_>, Vec<(u64, Place, &str)>> = HashMap::new();
    for (event, story) in &book.events {
        if let (Some(_), Some(at)) = (&story.acknowledged, story.stored.first()) {
            let key = keys.entry((&story.publisher, story.key)).or_default();
            key.push((story.number, place(at), event));
        }
    }
    for mut events in keys.into_values() {
        events.sort_unstable();
        for pair in events.windows(2) {
            if pair[0].1 > pair[1].1 {
                found.add(|| format!("{} behind {}", pair[0].2, pair[1].2));
            }
        }
    }
    found
}

/// Where an event lies, in a form that can be compared: milliseconds, sequence, index.
pub(super) type Place = (u64, u64, u32);

/// Of `chaos:0/1767323045000-0/3`.
pub(super) fn place(at: &str) -> Place {
    let mut parts = at.split('/').skip(1);
    let (id, index) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (millis, seq) = id.split_once('-').unwrap_or_default();
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    (number(millis), number(seq), index.parse().unwrap_or(u32::MAX))
}

/// C7: one place, two events. What was never acknowledged may have been another master's.
pub(super) fn divergent(book: &Book) -> Found {
    let mut found = Found::new("C7", "two events at one place");
    let mut places: HashMap<&str, &str> = HashMap::new();
    let is_acknowledged =
        |event: &str| book.events.get(event).is_some_and(|story| story.acknowledged.is_some());
    for (at, event) in &book.places {
        if at.is_empty() || !is_acknowledged(event) {
            continue;
        }
        let known = *places.entry(at).or_insert(event);
        if known != event {
            found.add(|| format!("{known} and {event} at {at}"));
        }
    }
    found
}

/// C15: answered with "not stored", and there.
pub(super) fn refused_and_stored(book: &Book) -> Found {
    let mut found = Found::new("C15", "answered with \"not stored\", and stored or handled");
    for (event, story) in &book.events {
        let handled = story.groups.iter().any(|group| !group.deliveries.is_empty());
        if let Some(why) = &story.not_stored
            && (!story.stored.is_empty() || handled)
        {
            found.add(|| format!("{event}: {why}"));
        }
        if story.act == Some(Act::Oversize) && story.acknowledged.is_some() {
            found.add(|| format!("{event} is too large, and acknowledged"));
        }
    }
    found
}
