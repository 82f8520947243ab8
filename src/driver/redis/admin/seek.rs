//! Moving a group: the plan, and the move.

use std::cmp::Ordering;

use redis::Value;

use super::facts::{self, GroupFacts};
use super::{Look, PARTITIONS_MAX};
use crate::delivery::{EntryId, Partition, Start};
use crate::driver::GroupName;
use crate::driver::admin::{
    Count, STEP_MAX, SeekDone, SeekPlan, SeekReport, SeekStep, has_moved, not_alone, not_on,
    target, unknown_group,
};
use crate::driver::redis::fault::Fault;
use crate::driver::redis::script::{Call, SEEK};
use crate::driver::redis::topics::partitions_of;
use crate::driver::redis::{Shared, reply};
use crate::error::Error;

/// Looks per partition.
const LOOKS: usize = 5;

/// What the script did in one step.
struct Moved {
    from: EntryId,
    direction: String,
    dropped: u64,
    more: bool,
}

impl Shared {
    pub(super) async fn plan_move(
        &self,
        group: &GroupName,
        to: Start,
        wanted: Option<&[Partition]>,
    ) -> Result<SeekPlan, Error> {
        let partitions: Vec<Partition> = match wanted {
            Some(wanted) => wanted.to_vec(),
            None => partitions_of(&self.load_topics().await?).collect(),
        };
        let what = format!("look at group {group}");
        let mut steps = Vec::new();
        for part in partitions.chunks(PARTITIONS_MAX) {
            let looks = part.iter().flat_map(|own| self.looks_for_seek(own, group)).collect();
            let answers = self.look(&what, looks).await?;
            for (partition, answers) in part.iter().zip(answers.chunks(LOOKS)) {
                match self.plan_step(group, partition, to, answers).await? {
                    Some(step) => steps.push(step),
                    None if wanted.is_some() => return Err(not_on(group, partition)),
                    None => {}
                }
            }
        }
        let heartbeats = self.heartbeats().await?;
        if steps.is_empty() && !heartbeats.groups.contains_key(group.as_str()) {
            return Err(unknown_group(group));
        }
        let live_consumers = heartbeats.live(group);
        Ok(SeekPlan { group: group.clone(), live_consumers, partitions: steps })
    }

    fn looks_for_seek(&self, partition: &Partition, group: &GroupName) -> [Look; LOOKS] {
        let keys = self.keys.group(partition, group);
        [
            Look::new(&["XINFO", "STREAM"], &keys.log),
            self.groups_on(partition),
            Look::new(&["XPENDING"], &keys.log).arg(group.as_str()),
            Look::new(&["XLEN"], &keys.retry),
            Look::new(&["ZCARD"], &keys.due),
        ]
    }

    /// Nothing where the group is not on the partition.
    async fn plan_step(
        &self,
        group: &GroupName,
        partition: &Partition,
        to: Start,
        answers: &[Value],
    ) -> Result<Option<SeekStep>, Error> {
        let odd = |fault: Fault| self.odd(&fault);
        let mut answers = answers.iter().cloned();
        let mut next = || answers.next().unwrap_or_default();
        let stream = facts::stream(next()).map_err(odd)?;
        let own = own(facts::groups(next()).map_err(odd)?, group);
        let Some(own) = own else { return Ok(None) };
        let pending = facts::pending(next()).map_err(odd)?;
        let retrying = reply::count(next()).and_then(|retry| Ok(retry + reply::count(next())?));
        let key = self.keys.log(partition);
        let (from, to) = (own.position, target(to, stream.end));
        let (range, all) = match to.cmp(&from) {
            Ordering::Less => {
                let all = pending.first.is_some_and(|first| first > to);
                ((format!("({to}"), "+".to_owned()), all)
            }
            _ => {
                let all = pending.last.is_some_and(|last| last <= to);
                (("-".to_owned(), to.to_string()), all)
            }
        };
        let pending_dropped = match from == to {
            true => Count::ZERO,
            false => self.count_pending(&key, group, &pending, range, all).await?,
        };
        Ok(Some(SeekStep {
            partition: partition.clone(),
            from,
            to,
            repeats: self.count_between(&key, &stream, to, from).await?,
            skips: self.count_between(&key, &stream, from, to).await?,
            pending_dropped,
            retrying: retrying.map_err(odd)?,
        }))
    }

    pub(super) async fn move_group(
        &self,
        plan: &SeekPlan,
        force: bool,
    ) -> Result<SeekReport, Error> {
        let group = &plan.group;
        if !force {
            not_alone(group, &self.heartbeats().await?.live(group))?;
        }
        let mut partitions = Vec::new();
        for step in &plan.partitions {
            partitions.push(self.move_one(group, step, force).await?);
        }
        Ok(SeekReport { group: group.clone(), partitions })
    }

    /// The move, then what is left to drop of it.
    async fn move_one(
        &self,
        group: &GroupName,
        step: &SeekStep,
        force: bool,
    ) -> Result<SeekDone, Error> {
        let mut done = SeekDone {
            partition: step.partition.clone(),
            from: step.from,
            to: step.to,
            pending_dropped: 0,
        };
        let expected = if force { String::new() } else { step.from.to_string() };
        let direction = match step.to.cmp(&step.from) {
            Ordering::Less => "back",
            Ordering::Equal => "none",
            Ordering::Greater => "forward",
        };
        let mut moved = self.seek_step(group, step, &expected, direction, "move").await?;
        // A step that was repeated finds the group there already.
        if moved.from != step.to {
            done.from = moved.from;
        }
        done.pending_dropped = moved.dropped;
        while moved.more {
            let direction = moved.direction.clone();
            moved = self.seek_step(group, step, "", &direction, "rest").await?;
            done.pending_dropped += moved.dropped;
        }
        Ok(done)
    }

    async fn seek_step(
        &self,
        group: &GroupName,
        step: &SeekStep,
        expected: &str,
        direction: &str,
        act: &str,
    ) -> Result<Moved, Error> {
        let keys = self.keys.group(&step.partition, group);
        let what = format!("move group {group} on key {}", keys.log);
        let mut call = Call::new(&SEEK, vec![keys.log, keys.progress, keys.checkpoint]);
        call.arg(group.as_str()).arg(expected).number(&step.to).arg(direction).arg(act);
        call.number(&STEP_MAX);
        let answer = self.commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        match read(answer) {
            Ok(Ok(moved)) => Ok(moved),
            Ok(Err(here)) => Err(has_moved(group, step, here)),
            Err(fault) if fault.code() == "NOGROUP" => Err(not_on(group, &step.partition)),
            Err(fault) => Err(self.commands.error(what, &fault)),
        }
    }
}

pub(super) fn own(groups: Vec<GroupFacts>, group: &GroupName) -> Option<GroupFacts> {
    groups.into_iter().find(|facts| facts.name == group.as_str())
}

/// What was done, or where the group is in place of where it was expected.
fn read(answer: Value) -> Result<Result<Moved, EntryId>, Fault> {
    let mut parts = reply::items(answer)?.into_iter();
    let mut next = || parts.next().unwrap_or_default();
    let (outcome, from) = (reply::text(next())?, reply::id(next())?);
    if outcome == "elsewhere" {
        return Ok(Err(from));
    }
    let direction = reply::text(next())?;
    let (dropped, more) = (reply::count(next())?, reply::count(next())? == 1);
    Ok(Ok(Moved { from, direction, dropped, more }))
}
