//! Counting entries: by what the server keeps count of, else in bounded steps.

use redis::Value;

use super::Look;
use super::facts::{GroupFacts, PendingFacts, StreamFacts};
use crate::delivery::EntryId;
use crate::driver::GroupName;
use crate::driver::admin::{COUNT_STEPS_MAX, Count, STEP_MAX};
use crate::driver::redis::script::{COUNT, Call};
use crate::driver::redis::{Shared, reply};
use crate::error::Error;

impl Shared {
    /// The entries of a log that a group has not read.
    pub(super) async fn count_unread_of(
        &self,
        key: &str,
        stream: &StreamFacts,
        group: &GroupFacts,
    ) -> Result<Count, Error> {
        if let Some(count) = ends(stream, group.position) {
            return Ok(count);
        }
        match group.lag {
            // Nothing was deleted behind the position, or the server would not tell.
            Some(lag) => Ok(Count::exact(lag.min(stream.length))),
            None => self.count_entries(key, group.position, stream.end).await,
        }
    }

    /// The entries of a log after one id, up to another.
    pub(super) async fn count_between(
        &self,
        key: &str,
        stream: &StreamFacts,
        after: EntryId,
        last: EntryId,
    ) -> Result<Count, Error> {
        if after >= last {
            return Ok(Count::ZERO);
        }
        match (ends(stream, after), ends(stream, last)) {
            (Some(all), Some(rest)) => Ok(Count::exact(all.count.saturating_sub(rest.count))),
            _ => self.count_entries(key, after, last).await,
        }
    }

    async fn count_entries(
        &self,
        key: &str,
        after: EntryId,
        last: EntryId,
    ) -> Result<Count, Error> {
        let what = format!("count the entries of key {key}");
        let (mut total, mut after) = (0, after);
        for _ in 0..COUNT_STEPS_MAX {
            let mut call = Call::new(&COUNT, vec![key.to_owned()]);
            call.number(&after).number(&last).number(&STEP_MAX);
            let answer = self.commands.call(&what, &[call]).await?.pop().unwrap_or_default();
            let refuse = |fault| self.commands.error(&what, &fault);
            let mut parts = reply::items(answer).map_err(refuse)?.into_iter();
            let mut next = || parts.next().unwrap_or_default();
            let found = reply::count(next()).map_err(refuse)?;
            total += found;
            if found < count_of(STEP_MAX) {
                return Ok(Count::exact(total));
            }
            after = reply::id(next()).map_err(refuse)?;
        }
        Ok(Count::at_least(total))
    }

    /// The pending entries of a group from one id to another, as XPENDING wants them.
    pub(super) async fn count_pending(
        &self,
        key: &str,
        group: &GroupName,
        facts: &PendingFacts,
        (first, last): (String, String),
        all: bool,
    ) -> Result<Count, Error> {
        if all || facts.count == 0 {
            return Ok(Count::exact(facts.count));
        }
        let what = format!("count what is pending for group {group}");
        let (mut total, mut first) = (0, first);
        for _ in 0..COUNT_STEPS_MAX {
            let look = Look::new(&["XPENDING"], key).arg(group.as_str());
            let look = look.arg(&first).arg(&last).arg(STEP_MAX);
            let answer = self.look(&what, vec![look]).await?.pop().unwrap_or_default();
            let rows = reply::items(answer).map_err(|fault| self.odd(&fault))?;
            total += count_of(rows.len());
            let Some(row) = rows.into_iter().nth(STEP_MAX - 1) else {
                return Ok(Count::exact(total));
            };
            first = format!("({}", self.first_id(row)?);
        }
        Ok(Count::at_least(total))
    }

    fn first_id(&self, row: Value) -> Result<EntryId, Error> {
        let first = |row| reply::id(reply::items(row)?.into_iter().next().unwrap_or_default());
        first(row).map_err(|fault| self.odd(&fault))
    }
}

/// How many entries come after an id before the first entry, or not before the last.
fn ends(stream: &StreamFacts, id: EntryId) -> Option<Count> {
    match (stream.first, stream.last) {
        (Some(first), Some(last)) if first <= id && id < last => None,
        (Some(first), _) if id < first => Some(Count::exact(stream.length)),
        _ => Some(Count::ZERO),
    }
}

pub(super) fn count_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
