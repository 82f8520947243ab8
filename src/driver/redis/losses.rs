//! Rounds that look for what was lost without a word: entries that were trimmed unread or pending,
//! groups and logs that vanished, histories that went back. In the same look each group's
//! checkpoint is written.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::history::Known;
use super::member::Member;
use super::reply::{self, LogFacts};
use super::script::{CHECKPOINT, Call, LOG};
use super::{Shared, groups};
use crate::delivery::{EntryId, Partition};
use crate::driver::GroupName;
use crate::driver::monitor::Incident;
use crate::error::Error;

/// Partitions per pipeline.
const PARTITIONS_MAX: usize = 50;
/// Pending entries that one look counts; it looks again where there are more.
const COUNTED_MAX: u64 = 1000;

/// What a round does, for those who read that it failed.
const WHAT: &str = "look for what was lost";

/// The rounds of one driver.
pub(super) struct Rounds {
    shared: Weak<Shared>,
    every: Duration,
    generation: u64,
}

/// What a look at a group on a log found.
pub(super) struct Found {
    is_there: bool,
    log: LogFacts,
    trimmed: u64,
    gone: u64,
    more: bool,
    /// The last entry that the checkpoint knew of another history.
    missing: Option<EntryId>,
}

impl Rounds {
    pub(super) fn new(shared: &Arc<Shared>, every: Duration) -> Self {
        let generation = shared.commands.generation();
        Self { shared: Arc::downgrade(shared), every, generation }
    }

    /// One round now and then, and after each reconnect, until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let work = async {
            loop {
                let Some(shared) = self.shared.upgrade() else { return };
                let commands = Arc::clone(&shared.commands);
                drop(shared);
                // Not at one moment for all processes that start together.
                let pause = self.every.mul_f64(0.9 + 0.1 * fastrand::f64());
                tokio::select! {
                    () = sleep(pause) => {}
                    generation = commands.next_generation(self.generation) => {
                        self.generation = generation;
                    }
                }
                let Some(shared) = self.shared.upgrade() else { return };
                match shared.troubles.guard(WHAT, round(&shared)).await {
                    Some(Ok(())) => shared.troubles.over(WHAT),
                    Some(Err(error)) => shared.troubles.failed(WHAT, &error),
                    None => {}
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }
}

async fn round(shared: &Arc<Shared>) -> Result<(), Error> {
    let members: Vec<Arc<Member>> = shared.members().iter().filter_map(Weak::upgrade).collect();
    let mut covered = BTreeSet::new();
    for member in members.iter().filter(|member| !member.dropped.is_cancelled()) {
        let partitions = member.coverage.lock().await.partitions();
        for part in partitions.chunks(PARTITIONS_MAX) {
            look(member, part).await?;
        }
        covered.extend(partitions);
    }
    let published: Vec<Partition> = shared.history.partitions();
    let rest: Vec<Partition> =
        published.into_iter().filter(|partition| !covered.contains(partition)).collect();
    for part in rest.chunks(PARTITIONS_MAX) {
        look_at_logs(shared, part).await?;
    }
    Ok(())
}

/// Looks at a member's group on partitions, and writes its checkpoints.
async fn look(member: &Arc<Member>, partitions: &[Partition]) -> Result<(), Error> {
    let shared = &member.shared;
    let (mut left, mut vanished) = (partitions.to_vec(), Vec::new());
    while !left.is_empty() {
        let before: Vec<Known> = left.iter().map(|own| shared.history.known(own)).collect();
        let what = format!("look after group {}", member.group);
        let run_id = shared.commands.live(&what, shared.commands.deadline()).await?.run_id;
        let call = |partition| call(member, partition, &run_id);
        let calls: Vec<Call> = left.iter().map(call).collect();
        let answers = shared.commands.call(&what, &calls).await?;
        let mut again = Vec::new();
        for ((partition, before), answer) in left.into_iter().zip(before).zip(answers) {
            match read(answer) {
                Ok(found) if !found.is_there => vanished.push(partition),
                Ok(found) => {
                    tell(member, &partition, before, &found);
                    shared.find_usable(Finder::Round, &member.group, &partition);
                    if found.more {
                        again.push(partition);
                    }
                }
                Err(fault) => member.find_unusable(&partition, &fault),
            }
        }
        left = again;
    }
    if !vanished.is_empty() {
        for (partition, fault) in groups::again(member, &vanished).await? {
            member.find_unusable(&partition, &fault);
        }
    }
    Ok(())
}

fn call(member: &Member, partition: &Partition, run_id: &str) -> Call {
    let keys = member.keys(partition);
    let mut call = Call::new(&CHECKPOINT, vec![keys.log, keys.checkpoint]);
    call.arg(member.group.as_str()).number(&COUNTED_MAX).arg(run_id);
    call
}

pub(super) fn read(answer: Value) -> Result<Found, Fault> {
    let mut parts = reply::items(answer)?.into_iter();
    let is_there = reply::count(parts.next().unwrap_or_default())? == 1;
    let log = reply::log_facts(&mut parts)?;
    let mut next = || parts.next().unwrap_or_default();
    let (trimmed, gone) = (reply::count(next())?, reply::count(next())?);
    let more = reply::count(next())? == 1;
    Ok(Found { is_there, log, trimmed, gone, more, missing: reply::maybe_id(next())? })
}

fn tell(member: &Member, partition: &Partition, before: Known, found: &Found) {
    let shared = &member.shared;
    shared.tell_history(partition, before, &found.log, found.missing);
    member.tell_trimmed(partition, found.trimmed);
    if found.gone > 0 {
        let (group, partition, entries) = (member.group.clone(), partition.clone(), found.gone);
        shared.monitor.raise(Incident::PendingGone { group, partition, entries });
    }
}

/// Looks at logs that this process only publishes to.
async fn look_at_logs(shared: &Shared, partitions: &[Partition]) -> Result<(), Error> {
    let before: Vec<Known> = partitions.iter().map(|own| shared.history.known(own)).collect();
    let call = |partition| Call::new(&LOG, vec![shared.keys.log(partition)]);
    let calls: Vec<Call> = partitions.iter().map(call).collect();
    let answers = shared.commands.call("look after logs", &calls).await?;
    let mut lost = Vec::new();
    for ((partition, before), answer) in partitions.iter().zip(before).zip(answers) {
        let found = reply::items(answer).and_then(|parts| reply::log_facts(&mut parts.into_iter()));
        match found {
            Ok(found) => {
                if shared.tell_history(partition, before, &found, None) {
                    lost.push(partition.clone());
                }
            }
            // Appending to it says so, too.
            Err(fault) => tracing::debug!(%partition, "not looked after: {fault}"),
        }
    }
    shared.declare_again(&lost).await
}

impl Member {
    /// Says that entries were trimmed before the group read them.
    pub(super) fn tell_trimmed(&self, partition: &Partition, entries: u64) {
        if entries > 0 {
            let (group, partition) = (self.group.clone(), partition.clone());
            self.shared.monitor.raise(Incident::RetentionLost { group, partition, entries });
        }
    }
}

/// Partitions that a group cannot read, by who found out.
#[derive(Default)]
pub(super) struct Unusable(Mutex<HashMap<(GroupName, Partition), Finder>>);

/// Who finds that a partition cannot be read, and so has to find that it can again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finder {
    Round,
    /// It knows better: it reads both streams.
    Reader,
}

impl Shared {
    /// A group cannot read a partition: said once, until it can again.
    pub(super) fn find_unusable(
        &self,
        finder: Finder,
        group: &GroupName,
        partition: &Partition,
        reason: String,
    ) {
        let (group, partition) = (group.clone(), partition.clone());
        let news = {
            let mut known = self.unusable.0.lock().unwrap_or_else(PoisonError::into_inner);
            let before = known.get(&(group.clone(), partition.clone())).copied();
            if before != Some(Finder::Reader) {
                known.insert((group.clone(), partition.clone()), finder);
            }
            before.is_none()
        };
        if news {
            self.monitor.raise(Incident::KeyUnusable { group, partition, reason });
        }
    }

    /// A group can read a partition, maybe again.
    pub(super) fn find_usable(&self, finder: Finder, group: &GroupName, partition: &Partition) {
        let key = (group.clone(), partition.clone());
        let news = {
            let mut known = self.unusable.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&key) == Some(&finder) && known.remove(&key).is_some()
        };
        if news {
            tracing::info!(%group, %partition, "the group can read the partition again");
        }
    }
}

impl Member {
    /// A round found that a partition cannot be read.
    pub(super) fn find_unusable(&self, partition: &Partition, fault: &Fault) {
        // Full memory stops the checkpoint, not the reading.
        if !fault.is_passing() && !fault.breaks_connection() && fault.code() != "OOM" {
            let reason = format!("key {}: {fault}", self.keys(partition).log);
            self.shared.find_unusable(Finder::Round, &self.group, partition, reason);
        }
    }
}
