//! Making a group on its streams, and again where it vanished.

use std::collections::BTreeMap;

use redis::{Pipeline, Value};

use super::fault::{Fault, accept};
use super::history::Known;
use super::member::Member;
use super::reply::{self, LogFacts};
use super::script::{Call, GROUP};
use super::{Shared, topics};
use crate::delivery::{EntryId, Partition, Start};
use crate::driver::monitor::Incident;
use crate::error::Error;
use crate::event_type::Topic;

/// Partitions per pipeline.
const PARTITIONS_MAX: usize = 50;

/// The id after which a group begins, as XGROUP CREATE wants it.
fn position(start: Start) -> String {
    match start {
        Start::Earliest => EntryId::ZERO.to_string(),
        Start::New => "$".to_owned(),
        Start::After(id) => id.to_string(),
        Start::At(time) => EntryId { millis: time.as_millis(), seq: 0 }.previous().to_string(),
    }
}

/// What was done about a group on one partition, and what was found before.
pub(super) struct Ensured {
    /// It was made on the log.
    made: bool,
    /// It was made on the retry stream.
    made_retry: bool,
    /// It had been there before: it vanished.
    had: bool,
    after: EntryId,
    log: LogFacts,
    /// The last entry that its checkpoint knows of another history.
    missing: Option<EntryId>,
}

/// Makes the group on partitions where it is not: on the log at its start, or where it vanished
/// at its checkpoint; on the retry stream from the first entry. Says aloud what it begins with, and
/// gives the partitions on which it could not.
pub(super) async fn create(
    member: &Member,
    starts: &[(Partition, Start)],
) -> Result<Vec<(Partition, Fault)>, Error> {
    let before = known(member, starts);
    let mut refused = Vec::new();
    for (at, ensured) in ensure(member, starts).await?.into_iter().enumerate() {
        let (partition, start) = &starts[at];
        match ensured {
            Err(fault) => refused.push((partition.clone(), fault)),
            Ok(ensured) => {
                tell_history(member, partition, before[at], &ensured);
                if ensured.made && ensured.had {
                    tell_lost(member, partition, ensured.after);
                } else if ensured.made {
                    announce(member, partition, *start, ensured.log.length);
                }
            }
        }
    }
    Ok(refused)
}

/// Looks after groups that may have vanished, and makes them again: at their checkpoints, or from
/// the beginning where that is of another history, never from the end. Says what was lost, and
/// that the group and its topics are there, in case everything is gone. Gives the partitions on
/// which it could not.
pub(super) async fn again(
    member: &Member,
    partitions: &[Partition],
) -> Result<Vec<(Partition, Fault)>, Error> {
    let starts: Vec<(Partition, Start)> =
        partitions.iter().map(|partition| (partition.clone(), Start::Earliest)).collect();
    let before = known(member, &starts);
    let (mut refused, mut lost) = (Vec::new(), false);
    for (at, ensured) in ensure(member, &starts).await?.into_iter().enumerate() {
        let partition = &partitions[at];
        match ensured {
            Ok(ensured) => {
                lost |= tell_history(member, partition, before[at], &ensured);
                if ensured.made || ensured.made_retry {
                    lost = true;
                    let after = if ensured.made { ensured.after } else { EntryId::ZERO };
                    tell_lost(member, partition, after);
                }
            }
            Err(fault) => refused.push((partition.clone(), fault)),
        }
    }
    if lost {
        member.shared.declare_again(partitions).await?;
        member.beat().await?;
    }
    Ok(refused)
}

/// Adds the making of a group to a pipeline.
pub(super) fn create_one(pipeline: &mut Pipeline, key: &str, group: &str, id: &str) {
    pipeline.cmd("XGROUP").arg("CREATE").arg(key).arg(group).arg(id).arg("MKSTREAM");
}

/// Whether the group was made now; false where it was there.
pub(super) fn is_made(value: Value) -> Result<bool, Fault> {
    match accept(value) {
        Ok(_) => Ok(true),
        Err(fault) if fault.code() == "BUSYGROUP" => Ok(false),
        Err(fault) => Err(fault),
    }
}

fn known(member: &Member, starts: &[(Partition, Start)]) -> Vec<Known> {
    starts.iter().map(|(partition, _)| member.shared.history.known(partition)).collect()
}

/// One answer per partition.
async fn ensure(
    member: &Member,
    starts: &[(Partition, Start)],
) -> Result<Vec<Result<Ensured, Fault>>, Error> {
    let what = format!("make group {}", member.group);
    let mut all = Vec::with_capacity(starts.len());
    for part in starts.chunks(PARTITIONS_MAX) {
        let call = |(partition, start): &(Partition, Start)| {
            let keys = member.keys(partition);
            let mut call = Call::new(&GROUP, vec![keys.log, keys.retry, keys.checkpoint]);
            call.arg(member.group.as_str()).arg(position(*start));
            call
        };
        let calls: Vec<Call> = part.iter().map(call).collect();
        let answers = member.shared.commands.call(&what, &calls).await?;
        all.extend(answers.into_iter().map(read));
    }
    Ok(all)
}

pub(super) fn read(answer: Value) -> Result<Ensured, Fault> {
    let mut parts = reply::items(answer)?.into_iter();
    let mut next = || parts.next().unwrap_or_default();
    let made = reply::count(next())? == 1;
    let made_retry = reply::count(next())? == 1;
    let had = reply::count(next())? == 1;
    let after = reply::id(next())?;
    let log = reply::log_facts(&mut parts)?;
    let missing = reply::maybe_id(parts.next().unwrap_or_default())?;
    Ok(Ensured { made, made_retry, had, after, log, missing })
}

pub(super) fn refusal(member: &Member, partition: &Partition, fault: &Fault) -> Error {
    let (group, key) = (&member.group, member.keys(partition).log);
    member.shared.commands.error(format!("make group {group} on key {key}"), fault)
}

fn tell_history(member: &Member, partition: &Partition, before: Known, found: &Ensured) -> bool {
    let shared = &member.shared;
    shared.tell_history(partition, before, &found.log, found.missing)
}

fn tell_lost(member: &Member, partition: &Partition, after: EntryId) {
    let (group, partition) = (member.group.clone(), partition.clone());
    member.shared.monitor.raise(Incident::GroupLost { group, partition, after });
}

fn announce(member: &Member, partition: &Partition, start: Start, kept: u64) {
    let group = &member.group;
    match start {
        Start::Earliest => tracing::info!(
            %group, %partition, entries = kept, "a new group begins with the earliest event kept"
        ),
        start => tracing::info!(%group, %partition, ?start, "a new group begins"),
    }
}

impl Shared {
    /// Says that the log is another one than was known, where it is. True where it was said.
    pub(super) fn tell_history(
        &self,
        partition: &Partition,
        before: Known,
        found: &LogFacts,
        missing: Option<EntryId>,
    ) -> bool {
        let lost = self.history.compare(partition, before, found, missing);
        if let Some(known) = lost {
            let (partition, found) = (partition.clone(), found.last);
            self.monitor.raise(Incident::HistoryLost { partition, known, found });
        }
        lost.is_some()
    }

    /// Declares topics again, where they were lost, with the partitions that are known here.
    pub(super) async fn declare_again(&self, partitions: &[Partition]) -> Result<(), Error> {
        let mut known: BTreeMap<&Topic, u32> = BTreeMap::new();
        for partition in partitions {
            let count = known.entry(&partition.topic).or_default();
            *count = (*count).max(partition.index + 1);
        }
        for (topic, (shape, _)) in self.topics().iter() {
            if let Some(count) = known.get_mut(topic) {
                *count = (*count).max(shape.partitions);
            }
        }
        let mut pipeline = Pipeline::new();
        for (topic, count) in known {
            let json = topics::written(count);
            pipeline.cmd("HSETNX").arg(self.keys.topics()).arg(topic.as_str()).arg(json);
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        self.commands.ask("declare topics again", &pipeline).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_group_begins_right_before_its_first_entry() {
        assert_eq!(position(Start::Earliest), "0-0");
        assert_eq!(position(Start::New), "$");
        assert_eq!(position(Start::After(EntryId { millis: 5, seq: 2 })), "5-2");
        let at = |millis| position(Start::At(Timestamp::from_millis(millis)));
        assert_eq!(at(10), format!("9-{}", u64::MAX));
        assert_eq!(at(0), "0-0");
    }
}
