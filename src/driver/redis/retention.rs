//! Retention: what all groups have settled is kept for a while and then goes; what a group has
//! still to read or to settle stays, up to a cap, beyond which the oldest go and are counted.
//!
//! Every process trims the partitions that it publishes to or consumes, at most one process per
//! partition and round: whoever takes the turn (`turn.lua`) does so in bounded steps (`trim.lua`).
//! The guard is of use under full memory, too, when trimming matters most.

mod gone;
mod options;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, sleep};

pub(super) use self::gone::Standing;
pub use self::options::RetentionOptions;
use super::fault::Fault;
use super::script::{Call, TRIM, TURN};
use super::{Shared, reply, topics};
use crate::delivery::Partition;
use crate::driver::admin::{Kept, Retention};
use crate::error::{Error, ErrorKind};
use crate::event_type::Topic;

/// Partitions per pipeline.
const PARTITIONS_MAX: usize = 50;
/// Between two steps on one partition the server is left to others.
const STEP_PAUSE: Duration = Duration::from_millis(5);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Says that a group lost entries to the hard cap. As an incident, and in the counters, it is told
/// by the group's members, who find it in their next round as they find the trim of a stranger:
/// told here as well it would count twice.
fn retention_lost(group: &str, partition: &Partition, entries: u64) {
    tracing::warn!(
        group, %partition, entries,
        "the log reached its hard cap, or the group was gone for too long: the oldest entries \
         were dropped before the group had settled them"
    );
}

/// Trims what the process has to do with.
pub(super) struct Trimmer {
    shared: Arc<Shared>,
    /// Tells this process from others.
    token: String,
    /// What is wrong with the topics' limits; each said once.
    flaws: BTreeSet<String>,
}

/// What one step did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    more: bool,
    /// By group.
    lost: Vec<(String, u64)>,
}

impl Trimmer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let token = uuid::Uuid::new_v4().simple().to_string();
        Self { shared, token, flaws: BTreeSet::new() }
    }

    /// Trims until the driver ends.
    pub(super) async fn run(mut self) {
        let stop = self.shared.runtime.stop().clone();
        let every = self.shared.retention.trim_every;
        let work = async {
            // Not at one moment for all processes that start together.
            sleep(every.mul_f64(fastrand::f64())).await;
            loop {
                match self.tick().await {
                    Ok(()) => self.shared.troubles.over("trim"),
                    // Others may: consumers, or the maintenance daemon.
                    Err(error) if error.kind() == ErrorKind::Denied => {
                        if self.flaws.insert(error.to_string()) {
                            tracing::warn!("trimming is left to others: {error:?}");
                        }
                    }
                    Err(error) => self.shared.troubles.failed("trim", &error),
                }
                sleep(every.mul_f64(1.0 + 0.1 * fastrand::f64())).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// One round over everything that is watched. One partition that fails does not keep the
    /// others from being trimmed; the first error is told.
    async fn tick(&mut self) -> Result<(), Error> {
        let partitions = self.shared.schedule.partitions();
        let mut outcome = Ok(());
        for part in partitions.chunks(PARTITIONS_MAX) {
            let (ours, turns) = self.take_turns(part).await?;
            outcome = outcome.and(turns);
            if ours.is_empty() {
                continue;
            }
            let limits = self.shared.limits_of(&ours, &mut self.flaws).await?;
            let gone = self.shared.gone_groups(&ours).await?;
            for (partition, gone) in ours.iter().zip(gone) {
                let Some(Retention { kept, .. }) = limits.get(&partition.topic) else { continue };
                let mut lost = BTreeMap::new();
                let trimmed = match gone {
                    Ok(gone) => self.trim(partition, kept, &gone, &mut lost).await,
                    Err(error) => Err(error),
                };
                outcome = outcome.and(trimmed);
                for (group, entries) in lost {
                    retention_lost(&group, partition, entries);
                }
            }
        }
        outcome
    }

    /// Takes the turn where nobody else has it. Gives the partitions where it did, and the first
    /// error of one.
    async fn take_turns(
        &self,
        partitions: &[Partition],
    ) -> Result<(Vec<Partition>, Result<(), Error>), Error> {
        let shared = Arc::clone(&self.shared);
        let keys = &shared.keys;
        let mut calls = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let mut call = Call::new(&TURN, vec![keys.trim(partition)]);
            call.arg(self.token.as_str()).number(&millis(shared.retention.trim_every).max(1));
            calls.push(call);
        }
        let what = "take the turn to trim";
        let (mut ours, mut outcome) = (Vec::new(), Ok(()));
        let answers = shared.commands.call(what, &calls).await?;
        for (partition, answer) in partitions.iter().zip(answers) {
            match reply::count(answer) {
                Ok(taken) => ours.extend((taken == 1).then(|| partition.clone())),
                Err(fault) => {
                    let what = format!("{what} by key {}", keys.trim(partition));
                    outcome = outcome.and(Err(shared.commands.error(what, &fault)));
                }
            }
        }
        Ok((ours, outcome))
    }

    /// Steps until nothing is due, or the turn ends.
    async fn trim(
        &self,
        partition: &Partition,
        kept: &Kept,
        gone: &[Vec<u8>],
        lost: &mut BTreeMap<String, u64>,
    ) -> Result<(), Error> {
        let until = Instant::now() + self.shared.retention.trim_every;
        loop {
            let step = self.step(partition, kept, gone).await?;
            for (group, entries) in step.lost {
                *lost.entry(group).or_default() += entries;
            }
            if !step.more || Instant::now() >= until {
                return Ok(());
            }
            sleep(STEP_PAUSE).await;
        }
    }

    async fn step(
        &self,
        partition: &Partition,
        kept: &Kept,
        gone: &[Vec<u8>],
    ) -> Result<Step, Error> {
        let Shared { keys, commands, .. } = &*self.shared;
        let log = keys.log(partition);
        let what = format!("trim key {log}");
        let mut call = Call::new(&TRIM, vec![log, keys.trim(partition), keys.dropped(partition)]);
        call.arg(self.token.as_str());
        call.number(&kept.keep_ms).number(&kept.keep_bytes).number(&kept.cap_bytes);
        for group in gone {
            call.arg(group.as_slice());
        }
        let answer = commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        read_step(answer).map_err(|fault| commands.error(what, &fault))
    }
}

impl Shared {
    /// What holds for the topics of partitions. What is wrong with it is said where it is not
    /// among the known flaws.
    pub(super) async fn limits_of(
        &self,
        partitions: &[Partition],
        flaws: &mut BTreeSet<String>,
    ) -> Result<HashMap<Topic, Retention>, Error> {
        let topics: BTreeSet<&Topic> = partitions.iter().map(|own| &own.topic).collect();
        let key = self.keys.topics();
        let mut pipeline = redis::pipe();
        pipeline.cmd("INFO").arg("memory");
        pipeline.cmd("HMGET").arg(&key);
        for topic in &topics {
            pipeline.arg(topic.as_str());
        }
        let what = format!("read the limits of topics in key {key}");
        let mut answers = self.commands.ask(&what, &pipeline).await?.into_iter();
        // A user who may not ask gets the limit of a server that has none.
        let memory = reply::text(answers.next().unwrap_or_default()).unwrap_or_default();
        let odd = |fault: Fault| self.commands.error(&what, &fault);
        let written = reply::items(answers.next().unwrap_or_default()).map_err(odd)?;
        let mut limits = HashMap::new();
        for (topic, json) in topics.into_iter().zip(written) {
            let json = reply::text(json).map_err(odd)?;
            let (set, flaw) = topics::limits(topic, &json);
            if let Some(flaw) = flaw
                && flaws.insert(flaw.clone())
            {
                tracing::warn!("{flaw}");
            }
            let kept = self.retention.kept(&set, maxmemory(&memory));
            limits.insert(topic.clone(), Retention { set, kept });
        }
        Ok(limits)
    }
}

/// Of INFO's section on memory; 0 is without a limit.
pub(super) fn maxmemory(info: &str) -> u64 {
    let found = info.lines().find_map(|line| line.strip_prefix("maxmemory:"));
    found.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

pub(super) fn read_step(answer: Value) -> Result<Step, Fault> {
    let mut items = reply::items(answer)?.into_iter();
    let mut next = || reply::count(items.next().unwrap_or_default());
    let (_done, _trimmed, more) = (next()?, next()?, next()? == 1);
    let mut lost = Vec::new();
    while let (Some(group), Some(entries)) = (items.next(), items.next()) {
        lost.push((group_text(group)?, reply::count(entries)?));
    }
    Ok(Step { more, lost })
}

/// Another program's group may be named by any bytes: it is shown as far as they are text.
fn group_text(name: Value) -> Result<String, Fault> {
    let name = reply::bytes(name)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_memory_is_found() {
        assert_eq!(maxmemory("used_memory:5\r\nmaxmemory:1048576\r\nx:1\r\n"), 1 << 20);
        assert_eq!(maxmemory("# Memory\r\nmaxmemory:0\r\n"), 0);
        assert_eq!(maxmemory(""), 0);
    }
}
