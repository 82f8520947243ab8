//! Dead letters: paging, redriving, deleting.

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Pipeline, Value};

use super::count::count_of;
use crate::delivery::{DeadLetter, EntryId, Partition, Position};
use crate::driver::GroupName;
use crate::driver::admin::{DeadLetterPage, DeadLetters, Redriven, STEP_MAX, check_step, not_on};
use crate::driver::redis::fault::Fault;
use crate::driver::redis::script::{Call, EDIT, PURGE, REDRIVE, RESTORE};
use crate::driver::redis::{Shared, reply, wire};
use crate::error::Error;

#[async_trait]
impl DeadLetters for Shared {
    async fn page(
        &self,
        group: &GroupName,
        partition: &Partition,
        after: EntryId,
        count: usize,
    ) -> Result<DeadLetterPage, Error> {
        let count = count.min(STEP_MAX);
        let key = self.keys.group(partition, group).dead;
        let what = format!("read the dead letters in key {key}");
        let mut range = redis::cmd("XRANGE");
        range.arg(&key).arg(format!("({after}")).arg("+").arg("COUNT").arg(count);
        let answer = self.commands.ask_one(&what, range).await?;
        let letters = self.read_letters(&what, partition, answer)?;
        Ok(DeadLetterPage::new(letters, count))
    }

    async fn redrive(
        &self,
        group: &GroupName,
        partition: &Partition,
        ids: &[EntryId],
    ) -> Result<Redriven, Error> {
        check_step(ids)?;
        let letters = self.letters(group, partition, ids).await?;
        let (events, malformed): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|letter| letter.record.is_ok());
        let moved = self.move_letters(group, partition, &events).await?;
        let malformed = count_of(malformed.len());
        let missing = count_of(ids.len()) - moved - malformed;
        Ok(Redriven { moved, missing, malformed })
    }

    async fn edit(
        &self,
        group: &GroupName,
        partition: &Partition,
        id: EntryId,
        payload: Bytes,
    ) -> Result<Option<EntryId>, Error> {
        let Some(letter) = self.letters(group, partition, &[id]).await?.pop() else {
            return Ok(None);
        };
        let (field, value, description) = wire::encode_letter(&letter.edited(payload)?);
        let key = self.keys.group(partition, group).dead;
        let what = format!("edit dead letter {id} in key {key}");
        let mut call = Call::new(&EDIT, vec![key]);
        call.number(&id).arg(wire::PARKED).arg(field).arg(value).arg(wire::DEATH).arg(description);
        let answer = self.commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        id_of(answer).map_err(|fault| self.commands.error(what, &fault))
    }

    async fn restore(
        &self,
        group: &GroupName,
        partition: &Partition,
        letters: &[DeadLetter],
        last: EntryId,
    ) -> Result<Option<EntryId>, Error> {
        check_step(letters)?;
        let keys = self.keys.group(partition, group);
        let what = format!("restore dead letters to key {}", keys.dead);
        let mut call = Call::new(&RESTORE, vec![keys.dead, keys.log]);
        call.arg(group.as_str()).number(&last).arg(wire::DEATH);
        for (field, value, description) in letters.iter().map(wire::encode_letter) {
            call.arg(field).arg(value).arg(description);
        }
        let answer = self.commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        if matches!(answer, Value::Int(_)) {
            return Err(not_on(group, partition));
        }
        id_of(answer).map_err(|fault| self.commands.error(what, &fault))
    }

    async fn purge(
        &self,
        group: &GroupName,
        partition: &Partition,
        ids: &[EntryId],
    ) -> Result<u64, Error> {
        check_step(ids)?;
        if ids.is_empty() {
            return Ok(0);
        }
        let mut call = self.purging(group, partition);
        call.arg(*b"ids");
        for id in ids {
            call.number(id);
        }
        self.purge_by(call, partition).await
    }

    async fn purge_until(
        &self,
        group: &GroupName,
        partition: &Partition,
        last: EntryId,
    ) -> Result<u64, Error> {
        let mut call = self.purging(group, partition);
        call.arg(*b"until").number(&last).number(&STEP_MAX);
        self.purge_by(call, partition).await
    }
}

/// The id that a script answered, or nothing.
fn id_of(answer: Value) -> Result<Option<EntryId>, Fault> {
    if answer == Value::Nil {
        return Ok(None);
    }
    let text = reply::text(answer)?;
    text.parse().map(Some).map_err(|_| Fault::Odd(format!("{text:?} where an id is due")))
}

impl Shared {
    /// A call of the script, without what is to be deleted.
    fn purging(&self, group: &GroupName, partition: &Partition) -> Call {
        let keys = self.keys.group(partition, group);
        let mut call = Call::new(&PURGE, vec![keys.dead, keys.retry, keys.parking, keys.parked]);
        call.arg(wire::RETRY).arg(wire::PARKED);
        call
    }

    async fn purge_by(&self, call: Call, partition: &Partition) -> Result<u64, Error> {
        let what = format!("delete dead letters of {partition}");
        let answer = self.commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        reply::count(answer).map_err(|fault| self.commands.error(what, &fault))
    }

    fn read_letters(
        &self,
        what: &str,
        partition: &Partition,
        answer: Value,
    ) -> Result<Vec<DeadLetter>, Error> {
        let raw = reply::entries(answer).map_err(|fault| self.commands.error(what, &fault))?;
        let letter = |(entry, fields): reply::RawEntry| {
            let here = Position { partition: partition.clone(), entry, index: 0 };
            Some(wire::decode_dead(here, &fields?))
        };
        Ok(raw.into_iter().filter_map(letter).collect())
    }

    /// Those of the letters that are there.
    async fn letters(
        &self,
        group: &GroupName,
        partition: &Partition,
        ids: &[EntryId],
    ) -> Result<Vec<DeadLetter>, Error> {
        let key = self.keys.group(partition, group).dead;
        let what = format!("read dead letters in key {key}");
        let mut pipeline = Pipeline::with_capacity(ids.len());
        for id in ids.iter().map(ToString::to_string) {
            pipeline.cmd("XRANGE").arg(&key).arg(&id).arg(&id);
        }
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let mut letters = Vec::new();
        for answer in self.commands.ask(&what, &pipeline).await? {
            letters.extend(self.read_letters(&what, partition, answer)?);
        }
        Ok(letters)
    }

    /// The script's one step; tells how many were still there.
    async fn move_letters(
        &self,
        group: &GroupName,
        partition: &Partition,
        letters: &[DeadLetter],
    ) -> Result<u64, Error> {
        if letters.is_empty() {
            return Ok(0);
        }
        let keys = self.keys.group(partition, group);
        let what = format!("redrive dead letters from key {}", keys.dead);
        let mut call = Call::new(&REDRIVE, vec![keys.dead, keys.retry]);
        call.arg(wire::RETRY);
        for letter in letters {
            call.number(&letter.id);
            let again = wire::Again { attempt: 1, failure: None, suspect: false };
            call.arg(wire::encode_retry(&letter.record, &letter.origin, again));
        }
        let answer = self.commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        reply::count(answer).map_err(|fault| self.commands.error(what, &fault))
    }
}
