//! Looking at a group and at a topic.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;
use serde::Deserialize;

use super::facts::{self, ConsumerFacts, GroupFacts, PendingFacts, StreamFacts};
use super::holds::{Log, Standings};
use super::seek::own;
use super::{Heartbeats, Look, PARTITIONS_MAX};
use crate::delivery::{EntryId, Partition};
use crate::driver::GroupName;
use crate::driver::admin::{
    ConsumerPending, ConsumerReport, Dead, GroupOnPartition, GroupPartition, GroupReport, Pending,
    RouteReport, TopicPartition, TopicReport, Waiting, time_of, unknown_group, unknown_topic,
};
use crate::driver::redis::fault::Fault;
use crate::driver::redis::topics::partitions_of;
use crate::driver::redis::{Shared, reply, wire};
use crate::error::Error;
use crate::event_type::Topic;
use crate::time::Timestamp;

/// Looks per partition, for a group and for a topic.
const GROUP_LOOKS: usize = 11;
const TOPIC_LOOKS: usize = 6;

/// A route's value in the hash.
#[derive(Deserialize)]
struct Written {
    version: Option<u32>,
    seen: u64,
}

/// A group on a partition, as the server tells it.
struct Found {
    stream: StreamFacts,
    group: Option<GroupFacts>,
    pending: [PendingFacts; 2],
    consumers: Vec<ConsumerFacts>,
    retry_length: u64,
    due: Waiting,
    dead: StreamFacts,
    parked: u64,
}

impl Found {
    fn read(group: &GroupName, answers: &[Value]) -> Result<Self, Fault> {
        let mut answers = answers.iter().cloned();
        let mut next = || answers.next().unwrap_or_default();
        let stream = facts::stream(next())?;
        let group = own(facts::groups(next())?, group);
        let log = facts::pending(next())?;
        let mut consumers = facts::consumers(next())?;
        let retry_length = reply::count(next())?;
        let retry = facts::pending(next())?;
        consumers.extend(facts::consumers(next())?);
        let due = waiting(next(), next())?;
        let dead = facts::stream(next())?;
        let parked = reply::count(next())?;
        let pending = [log, retry];
        Ok(Self { stream, group, pending, consumers, retry_length, due, dead, parked })
    }

    /// The group was never here, or nothing is left of it.
    fn is_nothing(&self) -> bool {
        self.group.is_none() && (self.retry_length, self.due.count, self.dead.length) == (0, 0, 0)
    }

    /// What is pending on the log and on the retry stream together.
    fn pending(&self) -> Pending {
        let mut held: BTreeMap<&str, u64> = BTreeMap::new();
        for consumer in self.consumers.iter().filter(|consumer| consumer.pending > 0) {
            *held.entry(&consumer.name).or_default() += consumer.pending;
        }
        let holds = |(consumer, pending): (&str, u64)| ConsumerPending {
            consumer: consumer.to_owned(),
            pending,
        };
        Pending {
            count: self.pending.iter().map(|pending| pending.count).sum(),
            oldest: self.pending.iter().filter_map(|own| own.first).min().and_then(time_of),
            by_consumer: held.into_iter().map(holds).collect(),
        }
    }
}

/// How many wait in a sorted set, and until when the first of them does.
fn waiting(count: Value, first: Value) -> Result<Waiting, Fault> {
    let next = facts::scores(first)?.first().map(|(_, due)| Timestamp::from_millis(*due));
    Ok(Waiting { count: reply::count(count)?, next })
}

impl Shared {
    pub(super) async fn look_at_group(&self, group: &GroupName) -> Result<GroupReport, Error> {
        let what = format!("look at group {group}");
        let partitions: Vec<Partition> = partitions_of(&self.load_topics().await?).collect();
        let heartbeats = self.heartbeats().await?;
        let (mut reports, mut consumers) = (Vec::new(), Vec::new());
        for part in partitions.chunks(PARTITIONS_MAX) {
            let looks = part.iter().flat_map(|own| self.looks_at_group(own, group)).collect();
            let answers = self.look(&what, looks).await?;
            for (partition, answers) in part.iter().zip(answers.chunks(GROUP_LOOKS)) {
                let found = Found::read(group, answers).map_err(|fault| self.odd(&fault))?;
                if !found.is_nothing() {
                    reports.push(self.report(partition, &found).await?);
                    consumers.extend(found.consumers);
                }
            }
        }
        let routes = self.look_at_routes(group).await?;
        let consumers = merge(group, &heartbeats, consumers);
        if reports.is_empty() && routes.is_empty() && consumers.is_empty() {
            return Err(unknown_group(group));
        }
        Ok(GroupReport { group: group.clone(), partitions: reports, routes, consumers })
    }

    fn looks_at_group(&self, partition: &Partition, group: &GroupName) -> [Look; GROUP_LOOKS] {
        let keys = self.keys.group(partition, group);
        let name = group.as_str();
        [
            Look::new(&["XINFO", "STREAM"], &keys.log),
            self.groups_on(partition),
            Look::new(&["XPENDING"], &keys.log).arg(name),
            Look::new(&["XINFO", "CONSUMERS"], &keys.log).arg(name),
            Look::new(&["XLEN"], &keys.retry),
            Look::new(&["XPENDING"], &keys.retry).arg(name),
            Look::new(&["XINFO", "CONSUMERS"], &keys.retry).arg(name),
            Look::new(&["ZCARD"], &keys.due),
            first_of(&keys.due),
            Look::new(&["XINFO", "STREAM"], &keys.dead),
            Look::new(&["ZCARD"], &keys.parked),
        ]
    }

    async fn report(&self, partition: &Partition, found: &Found) -> Result<GroupPartition, Error> {
        // A group that vanished is made again from the beginning.
        let gone = GroupFacts::default();
        let group = found.group.as_ref().unwrap_or(&gone);
        let key = self.keys.log(partition);
        let Found { dead, .. } = found;
        Ok(GroupPartition {
            partition: partition.clone(),
            position: group.position,
            position_time: time_of(group.position),
            unread: self.count_unread_of(&key, &found.stream, group).await?,
            pending: found.pending(),
            due: found.due,
            retry_length: found.retry_length,
            dead: Dead::new(dead.length, dead.first, dead.last),
            parked: found.parked,
        })
    }

    async fn look_at_routes(&self, group: &GroupName) -> Result<Vec<RouteReport>, Error> {
        let what = format!("read the routes of group {group}");
        let look = Look::new(&["HGETALL"], &self.keys.routes(group));
        let answer = self.look(&what, vec![look]).await?.pop().unwrap_or_default();
        let mut routes = Vec::new();
        for (name, value) in reply::pairs(answer).map_err(|fault| self.odd(&fault))? {
            let both = reply::text(name).and_then(|name| Ok((name, reply::text(value)?)));
            let (name, value) = both.map_err(|fault| self.odd(&fault))?;
            let written: Option<Written> = serde_json::from_str(&value).ok();
            match (name.parse(), written) {
                _ if name == wire::EPOCH => {}
                (Ok(pattern), Some(Written { version, seen })) => {
                    let last_seen = Some(Timestamp::from_millis(seen));
                    routes.push(RouteReport { pattern, version, last_seen });
                }
                _ => tracing::warn!(name, value, "left out of the group's routes"),
            }
        }
        routes.sort_by(|one, other| one.pattern.cmp(&other.pattern));
        Ok(routes)
    }

    pub(super) async fn look_at_topic(&self, topic: &Topic) -> Result<TopicReport, Error> {
        let what = format!("look at topic {topic}");
        let shapes = self.load_topics().await?;
        let shape = shapes.into_iter().find(|shape| shape.topic == *topic);
        let shape = shape.ok_or_else(|| unknown_topic(topic))?;
        let partitions: Vec<Partition> = shape.partitions().collect();
        let retention = self.limits_of(&partitions, &mut BTreeSet::new()).await?.remove(topic);
        let heartbeats = self.heartbeats().await?;
        let mut reports = Vec::new();
        for part in partitions.chunks(PARTITIONS_MAX) {
            let looks = part.iter().flat_map(|own| self.looks_at_topic(own)).collect();
            let answers = self.look(&what, looks).await?;
            let standings = self.standings(part).await?;
            for ((partition, answers), standings) in
                part.iter().zip(answers.chunks(TOPIC_LOOKS)).zip(standings)
            {
                let standing = Standings { standings: standings?, heartbeats: &heartbeats };
                reports.push(self.partition_report(partition, answers, &standing).await?);
            }
        }
        Ok(TopicReport { topic: topic.clone(), retention, partitions: reports })
    }

    fn looks_at_topic(&self, partition: &Partition) -> [Look; TOPIC_LOOKS] {
        let (log, delayed) = (self.keys.log(partition), self.keys.delayed(partition));
        // The size is worth no permission of its own.
        let mut usage = Look::new(&["MEMORY", "USAGE"], &log).arg("SAMPLES").arg(10);
        usage.optional = true;
        [
            Look::new(&["XINFO", "STREAM"], &log),
            self.groups_on(partition),
            usage,
            Look::new(&["ZCARD"], &delayed),
            first_of(&delayed),
            Look::new(&["HGETALL"], &self.keys.dropped(partition)),
        ]
    }

    async fn partition_report(
        &self,
        partition: &Partition,
        answers: &[Value],
        standings: &Standings<'_>,
    ) -> Result<TopicPartition, Error> {
        let odd = |fault: Fault| self.odd(&fault);
        let mut answers = answers.iter().cloned();
        let mut next = || answers.next().unwrap_or_default();
        let stream = facts::stream(next()).map_err(odd)?;
        let found = facts::groups(next()).map_err(odd)?;
        let bytes = reply::int(next()).map_err(odd)?;
        let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
        let delayed = waiting(next(), next()).map_err(odd)?;
        let dropped = facts::numbers(next()).map_err(odd)?;
        let log = Log { key: &self.keys.log(partition), stream: &stream, bytes };
        let mut groups = Vec::new();
        for facts in found {
            let unread = self.count_unread_of(log.key, &stream, &facts).await?;
            let holds = self.holds(&log, &facts, unread, standings.of(&facts.name)).await?;
            let GroupFacts { name, position, pending, .. } = facts;
            let dropped = dropped.get(&name).copied().unwrap_or(0);
            if let Some(group) = super::group_name(&name) {
                groups.push(GroupOnPartition { group, position, unread, pending, holds, dropped });
            }
        }
        groups.sort_by(|one, other| one.group.cmp(&other.group));
        let time = |id: Option<EntryId>| id.and_then(time_of);
        Ok(TopicPartition {
            partition: partition.clone(),
            entries: stream.length,
            first: stream.first,
            first_time: time(stream.first),
            last: stream.last,
            last_time: time(stream.last),
            bytes_estimate: bytes,
            delayed,
            groups,
        })
    }
}

/// The first member of a sorted set.
fn first_of(key: &str) -> Look {
    Look::new(&["ZRANGE"], key).arg(0).arg(0).arg("WITHSCORES")
}

/// Those that were heard of and those that the streams know, each once.
fn merge(
    group: &GroupName,
    heartbeats: &Heartbeats,
    found: Vec<ConsumerFacts>,
) -> Vec<ConsumerReport> {
    let mut all: BTreeMap<String, ConsumerReport> = BTreeMap::new();
    for (name, heard) in heartbeats.groups.get(group.as_str()).into_iter().flatten() {
        let report = ConsumerReport {
            name: name.clone(),
            last_heartbeat: Some(Timestamp::from_millis(*heard)),
            idle_ms: None,
            pending: 0,
            live: heartbeats.is_live(*heard),
        };
        all.insert(name.clone(), report);
    }
    for ConsumerFacts { name, pending, idle_ms } in found {
        let report = all.entry(name).or_insert_with_key(|name| ConsumerReport {
            name: name.clone(),
            last_heartbeat: None,
            idle_ms: None,
            pending: 0,
            live: false,
        });
        report.pending += pending;
        report.idle_ms = Some(report.idle_ms.map_or(idle_ms, |known| known.min(idle_ms)));
    }
    // A consumer that left in order and holds nothing is history.
    all.into_values().filter(|own| own.last_heartbeat.is_some() || own.pending > 0).collect()
}
