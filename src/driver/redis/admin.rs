//! What operates the store: one verb, one file. Nothing lists keys: groups are found on the logs
//! of known topics and in the heartbeats.

mod count;
pub(super) mod facts;
mod grow;
mod holds;
mod letters;
mod limits;
mod look;
mod seek;

#[cfg(feature = "fuzzing")]
pub(super) use self::facts::read_any;
use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use redis::{Cmd, Pipeline, Value};

use super::fault::{Fault, accept};
use super::topics::partitions_of;
use super::{Shared, reply};
use crate::delivery::{Partition, Start};
use crate::driver::GroupName;
use crate::driver::admin::{
    Admin, Diagnosis, GroupReport, LIVE_WITHIN, SeekPlan, SeekReport, TopicChange, TopicLimits,
    TopicReport,
};
use crate::error::Error;
use crate::event_type::Topic;

/// Partitions per pipeline.
const PARTITIONS_MAX: usize = 50;
/// The latest heartbeats that are looked at: those of consumers that were killed stay.
const HEARTBEATS_MAX: usize = 10_000;

#[async_trait]
impl Admin for Shared {
    async fn groups(&self) -> Result<Vec<GroupName>, Error> {
        let shapes = self.load_topics().await?;
        let mut names: BTreeSet<String> = self.heartbeats().await?.groups.into_keys().collect();
        let partitions: Vec<Partition> = partitions_of(&shapes).collect();
        for part in partitions.chunks(PARTITIONS_MAX) {
            let looks = part.iter().map(|partition| self.groups_on(partition)).collect();
            for answer in self.look("list the groups", looks).await? {
                let groups = facts::groups(answer).map_err(|fault| self.odd(&fault))?;
                names.extend(groups.into_iter().map(|group| group.name));
            }
        }
        Ok(names.iter().filter_map(|name| group_name(name)).collect())
    }

    async fn group(&self, group: &GroupName) -> Result<GroupReport, Error> {
        self.look_at_group(group).await
    }

    async fn topic(&self, topic: &Topic) -> Result<TopicReport, Error> {
        self.look_at_topic(topic).await
    }

    async fn set_partitions(&self, topic: &Topic, partitions: u32) -> Result<TopicChange, Error> {
        self.grow_topic(topic, partitions).await
    }

    async fn set_retention(&self, topic: &Topic, limits: TopicLimits) -> Result<(), Error> {
        self.limit_topic(topic, limits).await
    }

    async fn plan_seek(
        &self,
        group: &GroupName,
        to: Start,
        partitions: Option<&[Partition]>,
    ) -> Result<SeekPlan, Error> {
        self.plan_move(group, to, partitions).await
    }

    async fn seek(&self, plan: &SeekPlan, force: bool) -> Result<SeekReport, Error> {
        self.move_group(plan, force).await
    }

    async fn diagnose(&self) -> Result<Diagnosis, Error> {
        self.look_from_all_sides().await
    }
}

/// Another program may have put a group of its own on a log.
fn group_name(name: &str) -> Option<GroupName> {
    let parsed = GroupName::new(name.to_owned());
    if let Err(error) = &parsed {
        tracing::warn!("left out of the groups: {error}");
    }
    parsed.ok()
}

/// A command that looks at one key.
pub(super) struct Look {
    pub(super) key: String,
    pub(super) command: Cmd,
    /// A refusal is as good as nothing.
    optional: bool,
}

impl Look {
    pub(super) fn new(command: &[&str], key: &str) -> Self {
        let mut words = command.iter();
        let mut command = redis::cmd(words.next().copied().unwrap_or_default());
        for word in words {
            command.arg(word);
        }
        command.arg(key);
        Self::of(key, command)
    }

    /// A command that has its key, if any, already.
    pub(super) fn of(key: &str, command: Cmd) -> Self {
        Self { key: key.to_owned(), command, optional: false }
    }

    pub(super) fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.command.arg(arg);
        self
    }
}

/// Who was heard of, and when.
struct Heartbeats {
    /// Milliseconds of the server's clock.
    now: u64,
    /// By group and consumer.
    groups: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Heartbeats {
    fn is_live(&self, heard: u64) -> bool {
        let within = u64::try_from(LIVE_WITHIN.as_millis()).unwrap_or(u64::MAX);
        self.now.saturating_sub(heard) < within
    }

    /// The live consumers of a group, by name.
    fn live(&self, group: &GroupName) -> Vec<String> {
        let consumers = self.groups.get(group.as_str()).into_iter().flatten();
        let live = consumers.filter(|(_, heard)| self.is_live(**heard));
        live.map(|(name, _)| name.clone()).collect()
    }
}

impl Shared {
    /// Looks at keys; one answer each. A key or a group that is not there answers nothing.
    async fn look(&self, what: &str, looks: Vec<Look>) -> Result<Vec<Value>, Error> {
        if looks.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(looks.len());
        for look in &looks {
            pipeline.add_command(look.command.clone());
        }
        let answers = self.commands.ask(what, &pipeline).await?;
        let read = |(look, answer): (&Look, Value)| match accept(answer) {
            Ok(answer) => Ok(answer),
            Err(fault) if look.optional || is_absent(&fault) => Ok(Value::Nil),
            Err(fault) => Err(self.commands.error(format!("{what} in key {}", look.key), &fault)),
        };
        looks.iter().zip(answers).map(read).collect()
    }

    /// An answer that is not what it should be.
    fn odd(&self, fault: &Fault) -> Error {
        self.commands.error("read an answer", fault)
    }

    fn groups_on(&self, partition: &Partition) -> Look {
        Look::new(&["XINFO", "GROUPS"], &self.keys.log(partition))
    }

    async fn heartbeats(&self) -> Result<Heartbeats, Error> {
        let key = self.keys.consumers();
        let latest = Look::new(&["ZREVRANGE"], &key).arg(0).arg(HEARTBEATS_MAX - 1);
        let time = Look::of(&key, redis::cmd("TIME"));
        let looks = vec![time, latest.arg("WITHSCORES")];
        let mut answers = self.look("read the heartbeats", looks).await?.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        let now = reply::time(next()).map_err(|fault| self.odd(&fault))?;
        let mut groups: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (name, heard) in facts::scores(next()).map_err(|fault| self.odd(&fault))? {
            if let Some((group, consumer)) = name.split_once(' ') {
                groups.entry(group.to_owned()).or_default().insert(consumer.to_owned(), heard);
            }
        }
        Ok(Heartbeats { now, groups })
    }
}

pub(super) fn is_absent(fault: &Fault) -> bool {
    fault.code() == "NOGROUP" || fault.to_string().contains("no such key")
}
