//! The powers that operate the store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::MemoryDriver;
use super::group_part::GroupPart;
use super::state::{Part, State};
use crate::delivery::{Partition, Queue, Start};
use crate::driver::GroupName;
use crate::driver::admin::{
    Admin, ConsumerPending, ConsumerReport, Count, Dead, GroupOnPartition, GroupPartition,
    GroupReport, Holds, Pending, RouteReport, SeekPlan, SeekReport, TopicChange, TopicPartition,
    TopicReport, Waiting, Why, check_partitions, has_moved, not_alone, not_on, shrinking, time_of,
    unknown_group, unknown_topic,
};
use crate::error::Error;
use crate::event_type::Topic;
use crate::time::Timestamp;

#[async_trait]
impl Admin for MemoryDriver {
    async fn groups(&self) -> Result<Vec<GroupName>, Error> {
        self.check_open()?;
        Ok(self.store.state().group_places.keys().cloned().collect())
    }

    async fn group(&self, name: &GroupName) -> Result<GroupReport, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        let now = Instant::now();
        state.advance(now);
        let group = place_of(&state, name)?;
        let look = Look { state: &state, name, group, now, wall: state.now() };
        Ok(look.report())
    }

    async fn topic(&self, topic: &Topic) -> Result<TopicReport, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        let now = Instant::now();
        state.advance(now);
        let place = state.topic(topic).ok_or_else(|| unknown_topic(topic))?;
        let places = state.parts_of_topic(place).iter();
        let partitions = places.map(|place| look_at_partition(&state, *place, now)).collect();
        Ok(TopicReport { topic: topic.clone(), retention: None, partitions })
    }

    async fn set_partitions(&self, topic: &Topic, partitions: u32) -> Result<TopicChange, Error> {
        self.check_open()?;
        check_partitions(topic, partitions)?;
        let mut state = self.store.state();
        let known = state.topic(topic);
        let before = known.map(|place| state.parts_of_topic(place).len());
        let before = before.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        shrinking(topic, before.unwrap_or(0), partitions)?;
        let mut groups = Vec::new();
        match known {
            Some(_) if before == Some(partitions) => {}
            Some(place) => groups = state.grow(place, partitions),
            None => drop(state.declare(topic, partitions)),
        }
        let mut groups: Vec<GroupName> =
            groups.into_iter().filter_map(|group| state.group_name(group).cloned()).collect();
        groups.sort();
        drop(state);
        self.store.changed.notify_waiters();
        Ok(TopicChange { topic: topic.clone(), before, partitions, groups })
    }

    async fn plan_seek(
        &self,
        name: &GroupName,
        to: Start,
        partitions: Option<&[Partition]>,
    ) -> Result<SeekPlan, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        state.advance(Instant::now());
        let group = place_of(&state, name)?;
        let places: Vec<usize> = match partitions {
            Some(some) => some.iter().map(|one| state.part(one)).collect::<Result<_, _>>()?,
            None => {
                let on = |place: &usize| state.parts[*place].groups.contains_key(&group);
                (0..state.parts.len()).filter(on).collect()
            }
        };
        let mut steps = Vec::new();
        for place in places {
            let partition = &state.parts[place].partition;
            let step = state.plan_seek(place, group, to);
            steps.push(step.ok_or_else(|| not_on(name, partition))?);
        }
        steps.sort_by(|one, other| one.partition.cmp(&other.partition));
        let live_consumers = live(&state, name, group);
        Ok(SeekPlan { group: name.clone(), live_consumers, partitions: steps })
    }

    async fn seek(&self, plan: &SeekPlan, force: bool) -> Result<SeekReport, Error> {
        self.check_open()?;
        let name = &plan.group;
        let mut state = self.store.state();
        let group = place_of(&state, name)?;
        if !force {
            not_alone(name, &live(&state, name, group))?;
        }
        let mut partitions = Vec::new();
        for step in &plan.partitions {
            let place = state.part(&step.partition)?;
            let own = state.parts[place].groups.get(&group);
            let here = own.ok_or_else(|| not_on(name, &step.partition))?.cursor;
            if !force && here != step.from && here != step.to {
                return Err(has_moved(name, step, here));
            }
            partitions.extend(state.seek(place, group, step.to));
        }
        drop(state);
        self.store.changed.notify_waiters();
        self.store.room.notify_waiters();
        Ok(SeekReport { group: name.clone(), partitions })
    }
}

fn place_of(state: &State, name: &GroupName) -> Result<usize, Error> {
    state.group_places.get(name).copied().ok_or_else(|| unknown_group(name))
}

fn consumer_name(group: &GroupName, consumer: u64) -> String {
    format!("{group}.memory.{consumer}")
}

fn live(state: &State, name: &GroupName, group: usize) -> Vec<String> {
    state.groups[group].members().map(|consumer| consumer_name(name, consumer)).collect()
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// One look at a group.
struct Look<'a> {
    state: &'a State,
    name: &'a GroupName,
    group: usize,
    now: Instant,
    wall: Timestamp,
}

impl Look<'_> {
    fn report(&self) -> GroupReport {
        let parts = self.state.parts.iter();
        let own = parts.filter_map(|part| Some((part, part.groups.get(&self.group)?)));
        let mut partitions: Vec<GroupPartition> =
            own.map(|(part, own)| self.partition(part, own)).collect();
        partitions.sort_by(|one, other| one.partition.cmp(&other.partition));
        let consumers = self.consumers(&partitions);
        GroupReport { group: self.name.clone(), partitions, routes: self.routes(), consumers }
    }

    fn partition(&self, part: &Part, own: &GroupPart) -> GroupPartition {
        let backlog = own.backlog();
        let next = own.next_due().map(|at| self.wall.plus(at.saturating_duration_since(self.now)));
        let (first, last) = (own.dead.front(), own.dead.back());
        GroupPartition {
            partition: part.partition.clone(),
            position: own.cursor,
            position_time: time_of(own.cursor),
            unread: Count::exact(own.unread),
            pending: self.pending(own),
            due: Waiting { count: backlog.due, next },
            retry_length: number(own.retry.len()),
            parked: number(own.parking.waiting()),
            dead: Dead::new(backlog.dead, first.map(|dead| dead.id), last.map(|dead| dead.id)),
        }
    }

    fn pending(&self, own: &GroupPart) -> Pending {
        let mut holders: BTreeMap<u64, u64> = BTreeMap::new();
        for pending in own.pending.values() {
            *holders.entry(pending.consumer).or_default() += 1;
        }
        let holds = |(consumer, pending)| ConsumerPending {
            consumer: consumer_name(self.name, consumer),
            pending,
        };
        Pending {
            count: number(own.pending.len()),
            oldest: own.pending.keys().map(|(_, id)| *id).min().and_then(time_of),
            by_consumer: holders.into_iter().map(holds).collect(),
        }
    }

    fn routes(&self) -> Vec<RouteReport> {
        let report = |((pattern, version), ago): (_, Duration)| RouteReport {
            pattern,
            version,
            last_seen: Some(Timestamp::from_millis(
                self.wall.as_millis().saturating_sub(millis(ago)),
            )),
        };
        self.state.groups[self.group].routes_seen(self.now).into_iter().map(report).collect()
    }

    /// Those that live, and those that are gone and hold something.
    fn consumers(&self, partitions: &[GroupPartition]) -> Vec<ConsumerReport> {
        let mut held: BTreeMap<String, u64> = BTreeMap::new();
        for held_here in partitions.iter().flat_map(|own| &own.pending.by_consumer) {
            *held.entry(held_here.consumer.clone()).or_default() += held_here.pending;
        }
        let members = live(self.state, self.name, self.group);
        for name in &members {
            held.entry(name.clone()).or_default();
        }
        let report = |(name, pending): (String, u64)| {
            let live = members.contains(&name);
            let last_heartbeat = live.then_some(self.wall);
            ConsumerReport { name, last_heartbeat, idle_ms: live.then_some(0), pending, live }
        };
        held.into_iter().map(report).collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Nothing that a group needs goes here, whether somebody lives in it or not: appends wait.
fn holds(state: &State, place: usize, name: &GroupName, part: &Part, own: &GroupPart) -> Holds {
    let pending = own.pending.iter().filter(|((queue, _), _)| *queue == Queue::Log);
    let first = pending.min_by_key(|((_, id), _)| *id);
    let unread = part.log.entries.range((Bound::Excluded(own.cursor), Bound::Unbounded)).next();
    let (oldest, why) = match (first, unread) {
        // After a move back, what is pending may be unread again.
        (Some(((_, id), pending)), next) if next.is_none_or(|(next, _)| id < next) => {
            (Some(*id), Why::Pending { consumer: consumer_name(name, pending.consumer) })
        }
        (_, Some((id, _))) => (Some(*id), Why::Unread),
        (_, None) => (None, Why::Settled),
    };
    let held = oldest.map(|oldest| part.log.entries.range(oldest..));
    let weights: Vec<usize> = held.into_iter().flatten().map(|(_, own)| own.weight).collect();
    Holds {
        entries: Count::exact(number(weights.len())),
        bytes_estimate: Some(number(weights.iter().sum())),
        oldest,
        oldest_time: oldest.and_then(time_of),
        why,
        foreign: false,
        last_seen: state.groups[place].members().next().map(|_| state.now()),
        until: None,
    }
}

fn look_at_partition(state: &State, place: usize, now: Instant) -> TopicPartition {
    let part = &state.parts[place];
    let entries = &part.log.entries;
    let first = entries.first_key_value().map(|(id, _)| *id);
    let last = entries.last_key_value().map(|(id, _)| *id);
    let (delayed, next) = state.delayed_of(place);
    let next = next.map(|at| state.now().plus(at.saturating_duration_since(now)));
    let group = |(group, own): (&usize, &GroupPart)| {
        let pending = number(own.pending_of_log(|_| true).len());
        let unread = Count::exact(own.unread);
        let place = *group;
        let group = state.group_name(place)?.clone();
        let holds = holds(state, place, &group, part, own);
        Some(GroupOnPartition { group, position: own.cursor, unread, pending, holds, dropped: 0 })
    };
    let mut groups: Vec<GroupOnPartition> = part.groups.iter().filter_map(group).collect();
    groups.sort_by(|one, other| one.group.cmp(&other.group));
    TopicPartition {
        partition: part.partition.clone(),
        entries: number(entries.len()),
        first,
        first_time: first.and_then(time_of),
        last,
        last_time: last.and_then(time_of),
        bytes_estimate: Some(number(entries.values().map(|stored| stored.weight).sum())),
        delayed: Waiting { count: number(delayed), next },
        groups,
    }
}
