//! Joining and leaving: members, their groups, and where a group begins.

use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::group::Group;
use super::group_part::GroupPart;
use super::state::{Member, State};
use crate::delivery::{EntryId, Start};
use crate::driver::{GroupRoutes, Subscription};
use crate::pattern::Covered;

impl State {
    /// Adds a member, and its group where that is new.
    pub(super) fn subscribe(
        &mut self,
        subscription: &Subscription,
        now: Instant,
    ) -> (Member, Arc<GroupRoutes>) {
        self.advance(now);
        let places = self.group_places.len();
        let group = *self.group_places.entry(subscription.group.clone()).or_insert(places);
        if group == self.groups.len() {
            self.groups.push(Group::default());
        }
        let topics = Covered::by(subscription.routes.iter().map(|(pattern, _)| pattern));
        for part in self.parts_of(&topics) {
            self.join(part, group, subscription.start);
        }
        let consumer = self.number();
        self.groups[group].join(consumer, subscription.routes.clone(), now);
        (Member { group, consumer }, Arc::clone(&self.groups[group].routes))
    }

    /// Puts a group on a partition, where it is not there yet. History that it begins with is
    /// unsettled again.
    fn join(&mut self, place: usize, group: usize, start: Start) {
        let part = &mut self.parts[place];
        if part.groups.contains_key(&group) {
            return;
        }
        let cursor = match start {
            Start::Earliest => EntryId::ZERO,
            Start::New => part.log.ids.last,
            Start::After(id) => id,
            Start::At(time) => EntryId { millis: time.as_millis(), seq: 0 }.previous(),
        };
        let mut unread = 0;
        let after = (Bound::Excluded(cursor), Bound::Unbounded);
        for (_, stored) in part.log.entries.range_mut(after) {
            unread += 1;
            stored.open += 1;
            if stored.open == 1 {
                self.unsettled_bytes += stored.weight;
            }
        }
        part.groups.insert(group, GroupPart::at(cursor, unread));
        let topic = part.topic;
        self.recount_history(topic);
    }

    /// Takes out of the history what a group has to settle again.
    pub(super) fn recount_history(&mut self, topic: usize) {
        let (topic, parts) = (&mut self.topics[topic], &self.parts);
        topic.history.retain(|(part, id)| parts[*part].log.entries[id].open == 0);
        let events = |(part, id): &(usize, EntryId)| parts[*part].log.entries[id].records.len();
        topic.history_events = topic.history.iter().map(events).sum();
    }

    /// A member is gone: what it holds becomes anyone's at `until`.
    pub(super) fn leave(&mut self, member: Member, until: Instant, now: Instant) {
        for part in &mut self.parts {
            if let Some(own) = part.groups.get_mut(&member.group) {
                own.abandon(member.consumer, until);
            }
        }
        self.groups[member.group].leave(member.consumer, now);
    }

    /// Forgets routes of a group whose time is over.
    pub(super) fn expire_routes(&mut self, group: usize, now: Instant) {
        self.groups[group].expire(now);
    }
}
