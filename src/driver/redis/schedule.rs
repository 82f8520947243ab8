//! Moves what is due: delayed events into their logs, later attempts into the groups' retry
//! streams. Every process does so for the topics it publishes to and the groups it is in, on the
//! server's clock; a special process is not needed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::Commands;
use super::fault::{Fault, accept};
use super::keys::Keys;
use super::script::{Call, SCHEDULE};
use super::topics::partitions_of;
use super::{Shared, reply, wire};
use crate::delivery::Partition;
use crate::driver::{GroupName, Maintained};
use crate::error::Error;
use crate::trouble::Troubles;

/// The longest sleep between two rounds: somebody else may have added something that is due
/// sooner than anything known here.
const ROUND_EVERY: Duration = Duration::from_secs(1);
/// Members moved by one script.
const MOVED_MAX: u64 = 100;
/// Scripts per pipeline.
const CALLS_MAX: usize = 100;

/// What is moved, and when next.
#[derive(Default)]
pub(super) struct Schedule {
    moves: Mutex<BTreeSet<Move>>,
    /// Where something is moved: what this process has to do with.
    partitions: Mutex<BTreeSet<Partition>>,
    /// The earliest moment that somebody here knows something to be due.
    hint: Mutex<Option<Instant>>,
    woken: Notify,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    from: String,
    to: String,
    field: &'static str,
}

/// What a round found.
pub(super) struct Round {
    /// There is more that is due now.
    more: bool,
    next: Option<Duration>,
}

impl Shared {
    /// From now on this process moves the delayed events of every topic there is, and the later
    /// attempts of every group on them. For groups that have no live member.
    pub(super) async fn watch_everything(&self) -> Result<Maintained, Error> {
        let what = "look for the groups of all topics";
        let shapes = self.load_topics().await?;
        let mut all = BTreeSet::new();
        let partitions: Vec<Partition> = partitions_of(&shapes).collect();
        for part in partitions.chunks(CALLS_MAX) {
            let mut pipeline = redis::pipe();
            for partition in part {
                pipeline.cmd("XINFO").arg("GROUPS").arg(self.keys.log(partition));
            }
            let answers = self.commands.ask(what, &pipeline).await?;
            for (partition, answer) in part.iter().zip(answers) {
                self.schedule.watch_topic(&self.keys, partition);
                let log = || format!("{what} in key {}", self.keys.log(partition));
                let groups = groups(answer).map_err(|fault| self.commands.error(log(), &fault))?;
                for group in groups {
                    self.schedule.watch_group(&self.keys, partition, &group);
                    all.insert(group);
                }
            }
        }
        Ok(Maintained { topics: shapes.len(), groups: all.len() })
    }
}

/// The groups of a stream; none where there is no stream. Those of other programs are left out:
/// their names may be anything.
fn groups(answer: Value) -> Result<Vec<GroupName>, Fault> {
    let rows = match accept(answer) {
        Err(fault) if fault.to_string().contains("no such key") => return Ok(Vec::new()),
        rows => reply::items(rows?)?,
    };
    let mut groups = Vec::new();
    for row in rows {
        for (name, value) in reply::pairs(row)? {
            if reply::text(name)? == "name" {
                groups.extend(GroupName::new(reply::text(value)?).ok());
            }
        }
    }
    Ok(groups)
}

impl Schedule {
    /// From now on this process moves the delayed events of a partition.
    pub(super) fn watch_topic(&self, keys: &Keys, partition: &Partition) {
        self.watched().insert(partition.clone());
        let (from, to) = (keys.delayed(partition), keys.log(partition));
        self.add(Move { from, to, field: wire::BATCH });
    }

    /// From now on this process moves a group's later attempts, and the delayed events too.
    pub(super) fn watch_group(&self, keys: &Keys, partition: &Partition, group: &GroupName) {
        let names = keys.group(partition, group);
        self.add(Move { from: names.due, to: names.retry, field: wire::RETRY });
        self.watch_topic(keys, partition);
    }

    fn add(&self, one: Move) {
        if self.moves().insert(one) {
            self.woken.notify_one();
        }
    }

    /// The partitions that this process publishes to or consumes.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.watched().iter().cloned().collect()
    }

    fn watched(&self) -> MutexGuard<'_, BTreeSet<Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moves(&self) -> MutexGuard<'_, BTreeSet<Move>> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was added here that is due after `delay`.
    pub(super) fn hint(&self, delay: Duration) {
        let due = Instant::now() + delay;
        let mut hint = self.hint.lock().unwrap_or_else(PoisonError::into_inner);
        if hint.is_none_or(|known| due < known) {
            *hint = Some(due);
            self.woken.notify_one();
        }
    }

    /// Moves what is due until `stop`.
    pub(super) async fn run(self: Arc<Self>, commands: Arc<Commands>, stop: CancellationToken) {
        let work = async {
            let troubles = Troubles::default();
            let what = "move what is due";
            let mut next = Instant::now();
            loop {
                self.sleep(next).await;
                let round = troubles.guard(what, self.tick(&commands)).await;
                next = match round.unwrap_or(Ok(Round { more: false, next: None })) {
                    Ok(round) => {
                        troubles.over(what);
                        let pause = if round.more { Duration::ZERO } else { round.pause() };
                        Instant::now() + pause
                    }
                    Err(error) => {
                        troubles.failed(what, &error);
                        Instant::now() + ROUND_EVERY
                    }
                };
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Sleeps until `next`, or an earlier hint.
    async fn sleep(&self, next: Instant) {
        loop {
            let hint = *self.hint.lock().unwrap_or_else(PoisonError::into_inner);
            let until = hint.map_or(next, |hint| hint.min(next));
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.woken.notified() => {}
            }
        }
    }

    /// One round over everything that is watched.
    async fn tick(&self, commands: &Commands) -> Result<Round, Error> {
        *self.hint.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let moves: Vec<Move> = self.moves().iter().cloned().collect();
        let mut all = Round { more: false, next: None };
        if moves.is_empty() {
            // The command connection is tried all the same: a dead one is noticed before an
            // append has to find out.
            commands.ask_one("ask the server for a sign of life", redis::cmd("PING")).await?;
        }
        for part in moves.chunks(CALLS_MAX) {
            let calls: Vec<Call> = part.iter().map(Move::call).collect();
            let answers = commands.call("move what is due", &calls).await?;
            for (one, answer) in part.iter().zip(answers) {
                let what = format!("move what is due from key {}", one.from);
                let round = read(answer).map_err(|fault| commands.error(what, &fault))?;
                all.add(&round);
            }
        }
        Ok(all)
    }
}

impl Move {
    fn call(&self) -> Call {
        let mut call = Call::new(&SCHEDULE, vec![self.from.clone(), self.to.clone()]);
        call.arg(self.field).number(&MOVED_MAX);
        call
    }
}

impl Round {
    fn add(&mut self, other: &Self) {
        self.more |= other.more;
        self.next = [self.next, other.next].into_iter().flatten().min();
    }

    fn pause(&self) -> Duration {
        self.next.map_or(ROUND_EVERY, |next| next.min(ROUND_EVERY))
    }
}

pub(super) fn read(answer: Value) -> Result<Round, Fault> {
    let mut parts = reply::items(answer)?.into_iter();
    let moved = reply::count(parts.next().unwrap_or_default())?;
    let next = reply::int(parts.next().unwrap_or_default())?;
    let next = next.and_then(|next| u64::try_from(next).ok()).map(Duration::from_millis);
    Ok(Round { more: moved >= MOVED_MAX, next })
}
