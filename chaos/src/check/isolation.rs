//! C8: what others must not see, nobody sees.

use super::{Book, Found};
use crate::aside::Scope;

/// So many events of a scope, and somebody has seen one; or nothing was looked at.
const ENOUGH: usize = 50;

/// C8: an event in the hands of somebody it is not for, or in a log that is not its own.
pub(super) fn seen_by_others(book: &Book) -> Found {
    let mut found = Found::new("C8", "seen by somebody it is not for");
    for (event, by) in &book.seen {
        let scope = book.asides.get(event);
        if scope != Some(by) {
            found.add(|| format!("{event} of {scope:?} by {by:?}"));
        }
    }
    for event in book.asides.keys() {
        let Some(story) = book.events.get(event) else { continue };
        let is_handled = story.groups.iter().any(|group| !group.deliveries.is_empty());
        if is_handled || !story.stored.is_empty() {
            found.add(|| format!("{event} by the groups of the load"));
        }
    }
    found
}

/// C8: those it is for see it, or the other half of it would say nothing.
pub(super) fn seen_by_nobody(book: &Book) -> Found {
    let mut found = Found::new("C8", "seen by nobody");
    for scope in [Scope::Beside, Scope::Open] {
        let published = book.asides.values().filter(|own| **own == scope).count();
        if published >= ENOUGH && !book.seen.iter().any(|(_, by)| *by == scope) {
            found.add(|| format!("{published} of {scope:?}"));
        }
    }
    found
}
