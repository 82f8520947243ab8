//! What a whole group can route.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::event_type::EventType;
use crate::pattern::{Matcher, Pattern};

/// What a whole group can route, as its members registered it: kept by the driver, asked by the
/// consumer about what it cannot route itself.
#[derive(Debug, Default)]
pub struct GroupRoutes(RwLock<Matcher<Option<u32>>>);

impl GroupRoutes {
    /// Replaces what is known.
    pub fn set(&self, routes: impl IntoIterator<Item = (Pattern, Option<u32>)>) {
        let mut matcher = Matcher::new();
        for (pattern, version) in newest(routes) {
            matcher.insert(&pattern, version);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = matcher;
    }

    /// Becomes what another one is.
    #[cfg(feature = "testing")]
    pub(crate) fn copy(&self, other: &Self) {
        let matcher = other.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = matcher;
    }

    /// Whether a member can take an event of this type and version.
    pub fn covers(&self, event_type: &EventType, version: u32) -> bool {
        self.known(event_type).any(|known| known.is_none_or(|newest| version <= newest))
    }

    /// The newest version of an event type that a member decodes, where one says which.
    pub fn newest_version(&self, event_type: &EventType) -> Option<u32> {
        self.known(event_type).flatten().max()
    }

    fn known(&self, event_type: &EventType) -> impl Iterator<Item = Option<u32>> {
        let matcher = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<_> = matcher.all(event_type).into_iter().copied().collect();
        known.into_iter()
    }
}

/// The newest version per pattern; `None` (any) beats them all.
fn newest(
    routes: impl IntoIterator<Item = (Pattern, Option<u32>)>,
) -> BTreeMap<Pattern, Option<u32>> {
    let mut newest = BTreeMap::new();
    for (pattern, version) in routes {
        let known = newest.entry(pattern).or_insert(version);
        *known = match (*known, version) {
            (Some(known), Some(version)) => Some(known.max(version)),
            _ => None,
        };
    }
    newest
}
