//! What the groups made of the log.

use std::collections::HashMap;

use super::book::{GroupStory, Story};
use super::log::{Place, place};
use super::{Book, Found};
use crate::history::How;
use crate::load::{Act, GROUPS, ONCE};

/// As often an event may be tried.
const ATTEMPTS_MAX: u32 = 16;
/// As often an event may run that takes its process along: as one of a batch, as a suspect, and
/// where the group or what it remembers was taken away meanwhile.
const RUNS_MAX: usize = 16;

fn each(book: &Book) -> impl Iterator<Item = (&String, &Story, &'static str, &GroupStory)> {
    book.events.iter().flat_map(|(event, story)| {
        let groups = GROUPS.iter().zip(&story.groups);
        groups.map(move |(group, own)| (event, story, *group, own))
    })
}

/// Whether a loss that may have taken the event, or what a group knew of it, excuses it.
fn is_excused(book: &Book, story: &Story) -> bool {
    story.invoked.is_some_and(|invoked| book.is_excused_whole(invoked))
}

/// C4: the group has nothing before it, and the event has no end in it.
pub(super) fn without_effect(book: &Book) -> Found {
    let mut found = Found::new("C4", "in the log, and neither handled nor dead in a group");
    let mut spoiled = spoiled_retries(book);
    for (event, story, group, own) in each(book) {
        let is_settled = book.left.get(group).is_some_and(|left| *left == (0, 0, 0));
        let has_end = own.effects > 0 || !own.dead.is_empty();
        if is_settled && !story.stored.is_empty() && !has_end && !is_excused(book, story) {
            let runs = own.deliveries.len();
            let was_put_aside = matches!(own.deliveries.last(), Some(last)
                if matches!(last.end, Some((_, How::Retry))));
            let letters = spoiled.entry(group).or_default();
            if was_put_aside && *letters > 0 {
                *letters -= 1;
                continue;
            }
            found.add(|| format!("{event} in {group}, run {runs} times, {:?}", story.act));
        }
    }
    found
}

/// Letters of each group about what was spoiled on its way from a retry stream: they tell a place
/// there, and cannot tell which event it was.
fn spoiled_retries(book: &Book) -> HashMap<&str, u32> {
    let mut letters = HashMap::new();
    if !book.has_fault("event-bits-flipped") {
        return letters;
    }
    for letter in &book.strange_letters {
        if !book.foreign.contains(&letter.at) {
            *letters.entry(letter.group.as_str()).or_default() += 1;
        }
    }
    // The ids of a retry stream may be those of the log.
    for (_, _, group, own) in each(book) {
        let spoiled = own.dead.iter().any(|letter| letter.cause == "malformed");
        if spoiled && own.effects > 0 {
            *letters.entry(group).or_default() += 1;
        }
    }
    letters
}

/// C5: what an idempotent handler publishes is there once, however often it ran.
pub(super) fn outputs_twice(book: &Book) -> Found {
    let mut found = Found::new("C5", "handled once, and published twice");
    for (event, story) in &book.events {
        if story.outputs.len() > 1 && !is_excused(book, story) {
            found.add(|| format!("{event} at {}", story.outputs.join(" and ")));
        }
    }
    found
}

/// C4: what an idempotent handler publishes goes with the end of its delivery.
pub(super) fn without_output(book: &Book) -> Found {
    let mut found = Found::new("C4", "handled, and nothing published of it");
    for (event, story, _, own) in each(book).filter(|(.., group, _)| *group == ONCE) {
        let is_settled = book.left.get(ONCE).is_some_and(|left| *left == (0, 0, 0));
        let is_done = own.effects > 0 && own.dead.is_empty() && !story.stored.is_empty();
        if is_settled && is_done && story.outputs.is_empty() && !is_excused(book, story) {
            found.add(|| event.clone());
        }
    }
    found
}

/// C9: run again, after it was done or while it runs, and nothing had happened that explains it.
pub(super) fn twice_without_reason(book: &Book) -> Found {
    let mut found = Found::new("C9", "run again without a reason");
    for (event, _, group, own) in each(book) {
        for pair in own.deliveries.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            let failed = matches!(first.end, Some((t, How::Retry)) if t <= second.t);
            // Panics end without a word; the next attempt has another number.
            if failed || second.attempt > first.attempt || !book.is_quiet(first.t, second.t) {
                continue;
            }
            found.add(|| {
                let how = if first.end.is_some() { "done" } else { "running" };
                format!("{event} in {group} at {}, {how} since {}", second.t, first.t)
            });
        }
    }
    found
}

/// C6: what a consumer gets first of a key, it gets in the order of the log. What comes from
/// another consumer, or was disturbed on its way, may be late.
pub(super) fn out_of_order(book: &Book) -> Found {
    let mut found = Found::new("C6", "handled behind a later one of its key");
    type Lane<'a> = (&'static str, usize, &'a str, u32);
    let mut lanes: HashMap<Lane<'_>, Vec<(u64, Place, &str, u64)>> = HashMap::new();
    for (event, story, group, own) in each(book) {
        let Some(first) = own.deliveries.first() else { continue };
        let lane = lanes.entry((group, first.process, &story.publisher, story.key)).or_default();
        lane.push((first.t, place(&first.at), event, story.invoked.unwrap_or(0)));
    }
    for mut lane in lanes.into_values() {
        lane.sort_unstable();
        for pair in lane.windows(2) {
            let ((_, before, earlier, _), (t, at, event, invoked)) = (pair[0], pair[1]);
            if at < before && book.is_quiet(invoked, t) {
                found.add(|| format!("{event} behind {earlier} at {t}"));
            }
        }
    }
    found
}

/// C10: what is to die is in the dead letters, once.
pub(super) fn not_dead(book: &Book) -> Found {
    let mut found = Found::new("C10", "to be given up, and not in the dead letters once");
    for (event, story, group, own) in each(book) {
        let is_settled = book.left.get(group).is_some_and(|left| *left == (0, 0, 0));
        let dies = story.act.is_some_and(Act::dies) && !story.stored.is_empty();
        if dies && is_settled && own.dead.len() != 1 && !is_excused(book, story) {
            // A group that was set back gives up again what it had given up.
            let again = own.dead.len() > 1 && may_repeat(book);
            if !again {
                found.add(|| format!("{event} in {group}: {} letters", own.dead.len()));
            }
        }
    }
    found
}

/// Whether a group was made to begin anew what it had ended.
fn may_repeat(book: &Book) -> bool {
    ["group-destroyed", "group-set-back"].iter().any(|name| book.has_fault(name))
}

/// C10: what is not to die is not there, or its letter says what was done to it.
pub(super) fn dead_without_reason(book: &Book) -> Found {
    let mut found = Found::new("C10", "dead without a reason");
    for (event, story, group, own) in each(book) {
        for letter in &own.dead {
            let right = match (story.act, letter.cause.as_str()) {
                (Some(Act::Reject), "rejected") | (Some(Act::Poison), "crashed") => true,
                // Spoiled on its way to a worker, not in the log.
                (_, "malformed") => book.has_fault("event-bits-flipped"),
                _ => false,
            };
            if !right {
                found.add(|| format!("{event} in {group}: {} ({:?})", letter.cause, story.act));
            }
        }
    }
    found
}

/// C10: attempts and runs have bounds.
pub(super) fn without_bound(book: &Book) -> Found {
    let mut found = Found::new("C10", "run more often than it may be");
    for (event, story, group, own) in each(book) {
        let attempt = own.deliveries.iter().map(|delivery| delivery.attempt).max();
        let runs = own.deliveries.len();
        if attempt.is_some_and(|attempt| attempt > ATTEMPTS_MAX) || runs > RUNS_MAX {
            found.add(|| format!("{event} in {group}: {runs} runs, {:?}", story.act));
        }
    }
    found
}

/// C10: each entry that is no event is in each group's dead letters, and nothing else is.
pub(super) fn strange_letters(book: &Book) -> Found {
    let mut found = Found::new("C10", "entries that are no events, and not dead-lettered as such");
    let mut letters: HashMap<(&str, &str), u32> = HashMap::new();
    for letter in &book.strange_letters {
        *letters.entry((&letter.group, &letter.at)).or_default() += 1;
    }
    for at in &book.foreign {
        for group in GROUPS {
            let is_settled = book.left.get(group).is_some_and(|left| *left == (0, 0, 0));
            let known = letters.remove(&(group, at.as_str())).unwrap_or(0);
            if is_settled && known == 0 && !book.may_lose_everything() {
                found.add(|| format!("{at} in {group}: no letter"));
            }
        }
    }
    for ((group, at), count) in letters {
        if !book.may_lose_everything() && !book.has_fault("event-bits-flipped") {
            found.add(|| format!("{at} in {group}: {count} letters of what is not in the log"));
        }
    }
    found
}
