//! What a group keeps from being trimmed, and why.

use redis::Value;

use super::facts::{GroupFacts, StreamFacts};
use super::{Heartbeats, Look};
use crate::delivery::EntryId;
use crate::driver::admin::{Count, Holds, Why, time_of};
use crate::driver::redis::fault::Fault;
use crate::driver::redis::retention::Standing;
use crate::driver::redis::{Shared, reply};
use crate::error::Error;

/// A partition's log.
pub(super) struct Log<'a> {
    pub(super) key: &'a str,
    pub(super) stream: &'a StreamFacts,
    pub(super) bytes: Option<u64>,
}

/// How the groups of a partition stand.
pub(super) struct Standings<'a> {
    pub(super) standings: Vec<(Vec<u8>, Standing)>,
    pub(super) heartbeats: &'a Heartbeats,
}

/// How one of them does.
#[derive(Clone, Copy, Default)]
pub(super) struct Stands {
    standing: Option<Standing>,
    is_live: bool,
}

impl Standings<'_> {
    pub(super) fn of(&self, group: &str) -> Stands {
        let found = self.standings.iter().find(|(name, _)| name == group.as_bytes());
        let consumers = self.heartbeats.groups.get(group).into_iter().flatten();
        let is_live = consumers.into_iter().any(|(_, heard)| self.heartbeats.is_live(*heard));
        Stands { standing: found.map(|(_, standing)| *standing), is_live }
    }
}

/// The first entry that a group needs.
enum First {
    Pending(EntryId, String),
    Unread(EntryId),
    None,
}

impl Shared {
    /// What a group holds of a log that has so much for it to read.
    pub(super) async fn holds(
        &self,
        log: &Log<'_>,
        group: &GroupFacts,
        unread: Count,
        stands: Stands,
    ) -> Result<Holds, Error> {
        let group_kept = self.retention.group_kept;
        let (foreign, last_seen) = match stands.standing {
            Some(standing) => (standing.foreign, standing.last_seen),
            None => (false, None),
        };
        let until = last_seen.filter(|_| !stands.is_live).map(|seen| seen.plus(group_kept));
        let nothing = |why| Holds {
            entries: Count::ZERO,
            bytes_estimate: log.bytes.map(|_| 0),
            oldest: None,
            oldest_time: None,
            why,
            foreign,
            last_seen,
            until,
        };
        if stands.standing.is_some_and(|standing| standing.is_gone(group_kept)) {
            return Ok(nothing(Why::Gone));
        }
        let (oldest, entries, why) = match self.first_needed(log, group).await? {
            First::None => return Ok(nothing(Why::Settled)),
            First::Unread(id) => (id, unread, Why::Unread),
            First::Pending(id, consumer) => {
                let (before, position) = (id.previous(), group.position);
                let read = self.count_between(log.key, log.stream, before, position).await?;
                (id, unread.plus(read), Why::Pending { consumer })
            }
        };
        let bytes_estimate = log.bytes.map(|bytes| part(bytes, entries.count, log.stream.length));
        let oldest_time = time_of(oldest);
        Ok(Holds { entries, bytes_estimate, oldest: Some(oldest), oldest_time, ..nothing(why) })
    }

    async fn first_needed(&self, log: &Log<'_>, group: &GroupFacts) -> Result<First, Error> {
        let what = format!("look for what group {} holds of key {}", group.name, log.key);
        let after = format!("({}", group.position);
        let looks = vec![
            Look::new(&["XPENDING"], log.key).arg(&group.name).arg("-").arg("+").arg(1),
            Look::new(&["XRANGE"], log.key).arg(after).arg("+").arg("COUNT").arg(1),
        ];
        let mut answers = self.look(&what, looks).await?.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        let odd = |fault: Fault| self.odd(&fault);
        let pending = pending(next()).map_err(odd)?;
        let unread = reply::entries(next()).map_err(odd)?.into_iter().next().map(|(id, _)| id);
        Ok(match (pending, unread) {
            (Some((id, consumer)), None) => First::Pending(id, consumer),
            (Some((id, consumer)), Some(unread)) if id < unread => First::Pending(id, consumer),
            (_, Some(unread)) => First::Unread(unread),
            (None, None) => First::None,
        })
    }
}

/// The first row of XPENDING: an entry, and who holds it.
fn pending(rows: Value) -> Result<Option<(EntryId, String)>, Fault> {
    let Some(row) = reply::items(rows)?.into_iter().next() else { return Ok(None) };
    let mut parts = reply::items(row)?.into_iter();
    let id = reply::id(parts.next().unwrap_or_default())?;
    Ok(Some((id, reply::text(parts.next().unwrap_or_default())?)))
}

/// The bytes of `entries` of `length` entries that have so many together.
fn part(bytes: u64, entries: u64, length: u64) -> u64 {
    let part = u128::from(bytes) * u128::from(entries.min(length)) / u128::from(length.max(1));
    u64::try_from(part).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_bytes_is_never_more_than_all() {
        assert_eq!(part(1000, 3, 10), 300);
        assert_eq!(part(1000, 30, 10), 1000);
        assert_eq!(part(1000, 3, 0), 0);
        assert_eq!(part(u64::MAX, 1, 1), u64::MAX);
    }
}
