//! Giving a topic more partitions.

use std::collections::BTreeSet;

use redis::Pipeline;

use super::facts;
use crate::delivery::Partition;
use crate::driver::admin::{TopicChange, check_partitions, shrinking};
use crate::driver::redis::script::{Call, TOPIC};
use crate::driver::redis::{Shared, groups, reply, topics, wire};
use crate::driver::{GroupName, TopicShape};
use crate::error::{Error, ErrorKind};
use crate::event_type::Topic;

/// How often the change is tried where others change the topic at the same time.
pub(super) const TRIES_MAX: usize = 5;

impl Shared {
    /// Groups come first: whoever can learn of a new partition finds them there.
    pub(super) async fn grow_topic(
        &self,
        topic: &Topic,
        partitions: u32,
    ) -> Result<TopicChange, Error> {
        check_partitions(topic, partitions)?;
        for _ in 0..TRIES_MAX {
            let written = self.read_topic(topic).await?;
            let before = match &written {
                Some(json) => Some(topics::read(topic, json)?.partitions),
                None => None,
            };
            shrinking(topic, before.unwrap_or(0), partitions)?;
            let mut change =
                TopicChange { topic: topic.clone(), before, partitions, groups: Vec::new() };
            if before == Some(partitions) {
                return Ok(change);
            }
            let fields = [("partitions", Some(u64::from(partitions)))];
            change.groups = self.extend_groups(topic, before.unwrap_or(0), partitions).await?;
            if self.write_topic(topic, written.as_deref(), &fields).await? {
                self.topics().remove(topic);
                self.tell_groups(&change.groups).await?;
                return Ok(change);
            }
        }
        Err(contended(topic))
    }

    pub(super) async fn read_topic(&self, topic: &Topic) -> Result<Option<String>, Error> {
        let key = self.keys.topics();
        let mut get = redis::cmd("HGET");
        get.arg(&key).arg(topic.as_str());
        let what = format!("read topic {topic} in key {key}");
        let answer = self.commands.ask_one(&what, get).await?;
        let json = reply::text(answer).map_err(|fault| self.commands.error(what, &fault))?;
        Ok(Some(json).filter(|json| !json.is_empty()))
    }

    /// Puts the groups of the partitions that are there on those that are to come, before their
    /// first entry.
    async fn extend_groups(
        &self,
        topic: &Topic,
        before: u32,
        partitions: u32,
    ) -> Result<Vec<GroupName>, Error> {
        let what = format!("put the groups of topic {topic} on new partitions");
        let shape = |partitions| TopicShape { topic: topic.clone(), partitions };
        let looks = shape(before).partitions().map(|own| self.groups_on(&own)).collect();
        let mut names = BTreeSet::new();
        for answer in self.look(&what, looks).await? {
            let groups = facts::groups(answer).map_err(|fault| self.odd(&fault))?;
            names.extend(groups.into_iter().map(|group| group.name));
        }
        let names: Vec<GroupName> =
            names.iter().filter_map(|name| super::group_name(name)).collect();
        let partitions = shape(partitions);
        for partition in partitions.partitions().skip(before as usize) {
            for part in names.chunks(super::PARTITIONS_MAX) {
                self.make_groups(&what, &partition, part).await?;
            }
        }
        Ok(names)
    }

    async fn make_groups(
        &self,
        what: &str,
        partition: &Partition,
        names: &[GroupName],
    ) -> Result<(), Error> {
        let mut pipeline = Pipeline::new();
        for group in names {
            let keys = self.keys.group(partition, group);
            for key in [&keys.log, &keys.retry] {
                groups::create_one(&mut pipeline, key, group.as_str(), "0");
            }
        }
        for answer in self.commands.ask(what, &pipeline).await? {
            groups::is_made(answer)
                .map_err(|fault| self.commands.error(format!("{what}, on {partition}"), &fault))?;
        }
        Ok(())
    }

    /// Writes fields, or takes them away; whatever else is written about the topic stays. False
    /// where it changed meanwhile.
    pub(super) async fn write_topic(
        &self,
        topic: &Topic,
        written: Option<&str>,
        changes: &[(&str, Option<u64>)],
    ) -> Result<bool, Error> {
        let key = self.keys.topics();
        let what = format!("write topic {topic} in key {key}");
        let known = written.and_then(|json| serde_json::from_str(json).ok());
        let mut fields: serde_json::Map<String, serde_json::Value> = known.unwrap_or_default();
        for (name, value) in changes {
            match value {
                Some(value) => drop(fields.insert((*name).to_owned(), (*value).into())),
                None => drop(fields.remove(*name)),
            }
        }
        let json = serde_json::Value::Object(fields).to_string();
        let mut call = Call::new(&TOPIC, vec![key]);
        call.arg(topic.as_str()).arg(written.unwrap_or_default()).arg(json);
        let answer = self.commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        let done = reply::count(answer).map_err(|fault| self.commands.error(what, &fault))?;
        Ok(done == 1)
    }

    /// Readers that see a new epoch look at the topics again, too.
    async fn tell_groups(&self, names: &[GroupName]) -> Result<(), Error> {
        let mut pipeline = Pipeline::new();
        for group in names {
            pipeline.cmd("HINCRBY").arg(self.keys.routes(group)).arg(wire::EPOCH).arg(1);
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        // Where this fails they find out by themselves, within ten seconds.
        for answer in self.commands.ask("tell the groups of new partitions", &pipeline).await? {
            if let Err(fault) = reply::count(answer) {
                tracing::warn!("a group was not told of new partitions: {fault}");
            }
        }
        Ok(())
    }
}

/// The error for a topic that never stays as it was read.
pub(super) fn contended(topic: &Topic) -> Error {
    let text = format!("topic {topic} is being changed by others all the time");
    Error::new(ErrorKind::Conflict, text).with_help("try again")
}
