//! How consumers end: those that leave say so, those that died are removed by the living. Neither
//! is removed while something is pending for it, since that would go with it.

use std::time::Duration;

use redis::Value;

use super::member::Member;
use super::reply;
use super::script::{Call, LEAVE};
use super::topics::partitions_of;
use crate::delivery::Partition;
use crate::error::Error;

/// A consumer that was silent for so long, and for three leases, counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(5 * 60);
/// Heartbeats that one round looks at.
const SILENT_MAX: usize = 100;
/// Dead consumers that one round removes.
const REMOVED_MAX: usize = 10;

/// Where the search for the dead goes on among those who are silent.
#[derive(Default)]
pub(super) struct Graveyard {
    passed: usize,
}

impl Graveyard {
    /// Removes dead consumers of the member's group, a few per round; `now` is the server's time
    /// in milliseconds.
    pub(super) async fn tend(&mut self, member: &Member, now: u64) -> Result<(), Error> {
        let silent = self.silent(member, now).await?;
        let prefix = format!("{} ", member.group);
        let own: Vec<(usize, &str)> = silent
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((at, name.strip_prefix(&prefix)?)))
            .take(REMOVED_MAX)
            .collect();
        let looked_at = match own.last() {
            Some((at, _)) if own.len() == REMOVED_MAX => at + 1,
            _ => silent.len(),
        };
        let removed = bury(member, own.into_iter().map(|(_, consumer)| consumer)).await?;
        let is_end = looked_at == silent.len() && silent.len() < SILENT_MAX;
        self.passed = if is_end { 0 } else { self.passed + looked_at - removed };
        Ok(())
    }

    /// Who was not heard of for long, of all groups.
    async fn silent(&self, member: &Member, now: u64) -> Result<Vec<String>, Error> {
        let what = "look for dead consumers";
        let mut silent = redis::cmd("ZRANGEBYSCORE");
        silent.arg(member.shared.keys.consumers()).arg("-inf");
        silent.arg(now.saturating_sub(silence(member)));
        silent.arg("LIMIT").arg(self.passed).arg(SILENT_MAX);
        let answer = member.shared.commands.ask_one(what, silent).await?;
        let names = |items: Vec<Value>| items.into_iter().map(reply::text).collect();
        let names = reply::items(answer).and_then(names);
        names.map_err(|fault| member.shared.commands.error(what, &fault))
    }
}

/// Removes those of them that are dead and hold nothing; gives how many.
async fn bury(
    member: &Member,
    consumers: impl ExactSizeIterator<Item = &str>,
) -> Result<usize, Error> {
    if consumers.len() == 0 {
        return Ok(0);
    }
    // Nobody knows what a dead consumer read: other versions of a service read other topics.
    let shapes = member.shared.load_topics().await?;
    let partitions: Vec<Partition> = partitions_of(&shapes).collect();
    let mut removed = 0;
    for consumer in consumers {
        let call = leave(member, consumer, &partitions, "dead");
        let what = format!("remove consumer {consumer}");
        let answer = member.shared.commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        let answer = reply::int(answer);
        if answer.map_err(|fault| member.shared.commands.error(&what, &fault))? == Some(1) {
            tracing::info!(group = %member.group, consumer, "removed a dead consumer");
            removed += 1;
        }
    }
    Ok(removed)
}

fn leave(member: &Member, consumer: &str, partitions: &[Partition], how: &str) -> Call {
    let mut keys = vec![member.shared.keys.consumers()];
    for partition in partitions {
        let own = member.keys(partition);
        keys.extend([own.log, own.retry]);
    }
    let mut call = Call::new(&LEAVE, keys);
    call.arg(member.group.as_str()).arg(consumer).arg(how).number(&silence(member));
    call
}

/// Milliseconds of silence after which a consumer counts as dead.
fn silence(member: &Member) -> u64 {
    let silence = DEAD_AFTER.max(member.lease.lease * 3);
    u64::try_from(silence.as_millis()).unwrap_or(u64::MAX)
}

impl Member {
    /// Says that this consumer ends. Where something is pending for it still, it stays, and counts
    /// as dead: the others take it over and then remove it.
    pub(super) async fn leave(&self) -> Result<(), Error> {
        let partitions = self.coverage.lock().await.partitions();
        let call = leave(self, &self.consumer, &partitions, "left");
        let (commands, what) = (&self.shared.commands, "leave the group");
        let answer = commands.call(what, &[call]).await?.pop().unwrap_or_default();
        reply::int(answer).map(drop).map_err(|fault| commands.error(what, &fault))
    }
}
