//! A group: its members and what they can route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::after;
use crate::driver::GroupRoutes;
use crate::event_type::Topic;
use crate::pattern::{Covered, Pattern};

/// How long a route is kept after its last live member: a deploy may take a day.
const ROUTES_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A pattern and the newest version that is decoded.
pub(super) type Route = (Pattern, Option<u32>);

/// All instances of one service.
#[derive(Debug, Default)]
pub(super) struct Group {
    live: BTreeMap<u64, Vec<Route>>,
    /// Routes of members that are gone, with the moment they are forgotten.
    kept: BTreeMap<Route, Instant>,
    /// What all of them cover.
    topics: Covered,
    pub(super) routes: Arc<GroupRoutes>,
}

impl Group {
    pub(super) fn join(&mut self, consumer: u64, routes: Vec<Route>, now: Instant) {
        self.live.insert(consumer, routes);
        self.refresh(now);
    }

    pub(super) fn leave(&mut self, consumer: u64, now: Instant) {
        for route in self.live.remove(&consumer).unwrap_or_default() {
            self.kept.insert(route, after(now, ROUTES_KEPT));
        }
        self.refresh(now);
    }

    /// Forgets the routes whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.kept.values().any(|until| *until <= now) {
            self.refresh(now);
        }
    }

    pub(super) fn covers_topic(&self, topic: &Topic) -> bool {
        self.topics.covers(topic)
    }

    /// The members that live.
    pub(super) fn members(&self) -> impl Iterator<Item = u64> {
        self.live.keys().copied()
    }

    /// What can be routed, and how long ago a member with it was last there.
    pub(super) fn routes_seen(&self, now: Instant) -> BTreeMap<Route, Duration> {
        let left = |until: &Instant| until.saturating_duration_since(now);
        let kept = self.kept.iter();
        let mut seen: BTreeMap<Route, Duration> = kept
            .map(|(route, until)| (route.clone(), ROUTES_KEPT.saturating_sub(left(until))))
            .collect();
        seen.extend(self.live.values().flatten().map(|route| (route.clone(), Duration::ZERO)));
        seen
    }

    /// Whether the group has a consumer.
    #[cfg(feature = "testing")]
    pub(super) fn is_live(&self) -> bool {
        !self.live.is_empty()
    }

    #[cfg(test)]
    pub(super) fn routes_kept(&self) -> usize {
        self.kept.len()
    }

    fn all_routes(&self) -> impl Iterator<Item = &Route> {
        self.live.values().flatten().chain(self.kept.keys())
    }

    fn refresh(&mut self, now: Instant) {
        self.kept.retain(|_, until| *until > now);
        self.routes.set(self.all_routes().cloned());
        self.topics = Covered::by(self.all_routes().map(|(pattern, _)| pattern));
    }
}
