//! The cap of the dead letters: where a group has too many on a partition, it reads no further
//! there, loudly, until a purge or a redrive makes room.
//!
//! What is in flight when the cap is reached may still become dead letters: the cap is exceeded by
//! so many at most, never silently.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::member::Member;
use super::reply;
use crate::delivery::Partition;
use crate::error::Error;

/// How often the dead letters are counted: while a partition is paused, and otherwise, since other
/// members of the group write some as well.
const PAUSED_EVERY: Duration = Duration::from_secs(1);
const OPEN_EVERY: Duration = Duration::from_secs(10);
/// Between two counts, however many dead letters this member writes.
const COUNT_PAUSE: Duration = Duration::from_millis(50);

/// Where a member does not read.
#[derive(Default)]
pub(super) struct DeadCap {
    paused: Mutex<BTreeSet<Partition>>,
    wrote: Notify,
}

impl DeadCap {
    /// This member wrote dead letters.
    pub(super) fn wrote(&self) {
        self.wrote.notify_one();
    }

    /// Those partitions that may be read.
    pub(super) fn open(&self, partitions: &[Partition]) -> Vec<Partition> {
        let paused = self.paused();
        partitions.iter().filter(|partition| !paused.contains(partition)).cloned().collect()
    }

    fn paused(&self) -> MutexGuard<'_, BTreeSet<Partition>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the pauses of a member until it ends.
pub(super) async fn run(member: Arc<Member>) {
    let work = async {
        loop {
            let every = match member.dead_cap.paused().is_empty() {
                true => OPEN_EVERY,
                false => PAUSED_EVERY,
            };
            tokio::select! {
                () = sleep(every) => {}
                () = member.dead_cap.wrote.notified() => {}
            }
            let checked = check(&member).await;
            member.tell("count dead letters", checked);
            sleep(COUNT_PAUSE).await;
        }
    };
    tokio::select! {
        () = member.closed.cancelled() => {}
        () = member.dropped.cancelled() => {}
        () = member.shared.runtime.stop().cancelled() => {}
        () = work => {}
    }
}

/// Counts the group's dead letters on every partition that it reads, and pauses or goes on.
pub(super) async fn check(member: &Member) -> Result<(), Error> {
    let partitions = member.coverage.lock().await.partitions();
    if partitions.is_empty() {
        return Ok(());
    }
    let mut pipeline = redis::pipe();
    for partition in &partitions {
        pipeline.cmd("XLEN").arg(member.keys(partition).dead);
    }
    let commands = &member.shared.commands;
    let what = format!("count the dead letters of group {}", member.group);
    let answers = commands.ask(&what, &pipeline).await?;
    for (partition, answer) in partitions.iter().zip(answers) {
        let what = format!("{what} in key {}", member.keys(partition).dead);
        let count = reply::count(answer).map_err(|fault| commands.error(&what, &fault));
        if let Some(count) = member.tell(&what, count) {
            note(member, partition, count);
        }
    }
    Ok(())
}

fn note(member: &Member, partition: &Partition, count: u64) {
    let (group, max) = (&member.group, member.shared.dead_letters_max);
    let mut paused = member.dead_cap.paused();
    if count >= max {
        if paused.insert(partition.clone()) {
            tracing::error!(
                %group, %partition, count, max,
                "the group has too many dead letters and reads no further on this partition: \
                 redrive or purge them (bus-cli dead-letters)"
            );
        }
    } else if paused.remove(partition) {
        tracing::info!(%group, %partition, count, "there is room for dead letters: reading again");
    }
}
