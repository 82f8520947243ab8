//! Looking before an append is repeated, so that it is in its log once or not at all.
//!
//! An append is in doubt when its connection was lost before its answer came. What decides is the
//! log: every entry carries in `p` who appended it and which of the appends it was. Why what is
//! found there may be relied upon:
//!
//! - **Nothing comes later.** A server goes on with what lies in a socket whose client is long
//!   gone. So the supervisor kills the connections before it, and says with `is_alone` that
//!   whatever was sent over them has been done or never will be. Where it may not, the outcome is
//!   `Unknown` and nothing is sent again.
//! - **Nothing is overlooked.** The log is read from an entry on that lies before everything in
//!   doubt: the first in the line says it with its answer (`line`), and before the first append
//!   of a partition its last entry is asked for. The ids of another server come from another
//!   clock: after a change of the server, or of its life, reading begins [`CLOCKS_APART_MS`]
//!   earlier. Where entries were deleted or trimmed since, what is missing may have been among
//!   them: `Unknown`.
//! - **Nothing is overtaken.** What is missing is appended again with its old number, in the old
//!   order, before anything new of the partition (`line`). Where a later append of this publisher
//!   is there, the missing one was refused when that one was stored; it is not sent again.
//! - **A server that went back in time**, by a restart without its files or a failover, has lost
//!   what is missing or never had it, and so has a log that was deleted or evicted. Appending it
//!   again is right either way. Where that is refused, the outcome is `Unknown`: somebody may have
//!   read what was lost.
//!
//! A log is read once per partition and connection, whatever the number of calls in doubt.
//!
//! Delayed events lie in no log yet. Their script adds what is not there, so it may be repeated
//! for as long as what was added first cannot have moved on to the log: until the delay has passed
//! since the first sending. The script is told that moment by the server's clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, timeout_at};

use super::line::Bound;
use super::{Appending, Stop, dedup};
use crate::delivery::{EntryId, Partition};
use crate::driver::redis::connection::Live;
use crate::driver::redis::fault::{Fault, accept};
use crate::driver::redis::reply::{self, RawEntry};
use crate::driver::redis::wire;
use crate::error::PublishError;

/// How far the clocks of two servers may be apart.
const CLOCKS_APART_MS: u64 = 60_000;
/// Entries of a page, the first one's and the most. Between them a page holds about `PAGE_BYTES`,
/// going by the one before: an entry may be a lone event or a batch of 64 KiB.
const PAGE_MIN: usize = 16;
const PAGE_MAX: usize = 256;
const PAGE_BYTES: usize = 1 << 20;

pub(super) const TOO_LATE: &str = "it is too late to repeat it without a second event";
const NOT_ALONE: &str = "the connection was lost, and the server does not let the old one be \
                         killed (CLIENT KILL), so that it may still be done";
const TRIMMED: &str = "the connection was lost, and it cannot be seen any more: the log was \
                       trimmed since";
const BLIND: &str = "the connection was lost, and the log may not be read";
const OVERTAKEN: &str = "it was refused, and a later one is stored behind it";

/// What was found in a log, and over the connection of which generation.
pub(super) type Looked = Arc<tokio::sync::Mutex<Option<(u64, Arc<Found>)>>>;

/// Own appends in a log behind the bound, by their numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    entries: BTreeMap<u64, EntryId>,
    /// Entries behind the bound may be gone.
    trimmed: bool,
    /// It is not the log of then: that was lost as a whole.
    is_new: bool,
}

/// What became of an append that was in doubt.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stored(EntryId),
    /// Not there, while one that was sent after it is.
    Overtaken,
    Absent,
    /// Nobody can tell.
    Hidden,
}

impl Found {
    fn fate(&self, number: u64) -> Fate {
        match self.entries.range(number..).next() {
            Some((found, id)) if *found == number => Fate::Stored(*id),
            _ if self.trimmed => Fate::Hidden,
            Some(_) => Fate::Overtaken,
            None => Fate::Absent,
        }
    }
}

/// The server's clock, and how long ago a delayed append was sent first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    server_ms: u64,
    since: Duration,
}

impl Repeat {
    /// The server's milliseconds from which on what was added first may have moved on. Not 0.
    pub(super) fn until(self, delay: Duration) -> u64 {
        let left = delay.saturating_sub(self.since).as_millis();
        self.server_ms.saturating_add(u64::try_from(left).unwrap_or(u64::MAX)).max(1)
    }
}

impl Appending<'_> {
    /// Asks for the last entries of logs that nothing was appended to from here. A server that
    /// does not let them be read takes appends all the same.
    pub(super) async fn find_bounds(&mut self, live: &Live) -> Result<(), Stop> {
        let mut asked: Vec<&Partition> = Vec::new();
        for append in self.appends {
            let partition = &append.partition;
            if asked.contains(&partition) || self.ticket.bound(partition).is_some() {
                continue;
            }
            asked.push(partition);
            let mut last = redis::cmd("XREVRANGE");
            last.arg(self.shared.keys.log(&append.partition)).arg("+").arg("-");
            last.arg("COUNT").arg(1);
            let [last] = self.ask(live, [last]).await?;
            if let Ok(entries) = reply::entries(last) {
                let id = entries.first().map_or(EntryId::ZERO, |(id, _)| *id);
                self.ticket.learn(&append.partition, id, &live.run_id);
            }
        }
        Ok(())
    }

    /// Decides what is in doubt; what is to be sent again stays without an answer.
    pub(super) async fn resolve(&mut self, live: &Live) -> Result<(), Stop> {
        for at in self.open() {
            if self.appends[at].deduplicate {
                if !self.is_marked() {
                    self.give_up(at, self.error(at, dedup::TOO_LATE));
                }
            } else if !live.is_alone {
                self.give_up(at, self.error(at, NOT_ALONE));
            } else if self.appends[at].delay.is_zero() {
                self.look(at, live).await?;
            } else if self.repeat.is_none() {
                self.ask_time(live).await?;
            }
        }
        Ok(())
    }

    async fn look(&mut self, at: usize, live: &Live) -> Result<(), Stop> {
        if planted!(RepeatUnseen) {
            return Ok(());
        }
        let partition = &self.appends[at].partition;
        let Some(bound) = self.ticket.bound(partition) else {
            self.give_up(at, self.error(at, BLIND));
            return Ok(());
        };
        let found = self.found(partition, &bound, live).await?;
        match found.fate(self.ticket.number(at)) {
            Fate::Stored(id) => self.found.push((at, id)),
            Fate::Overtaken => {
                self.answers[at] = Some(Err(PublishError::NotStored(self.error(at, OVERTAKEN))));
            }
            Fate::Hidden => self.give_up(at, self.error(at, TRIMMED)),
            Fate::Absent if found.is_new || self.sent_to != live.run_id => self.unsure.push(at),
            Fate::Absent => {}
        }
        Ok(())
    }

    /// Reads a log once per connection, whoever comes first.
    async fn found(
        &self,
        partition: &Partition,
        bound: &Bound,
        live: &Live,
    ) -> Result<Arc<Found>, Stop> {
        let looked = self.ticket.looked(partition);
        let reading = async {
            let mut looked = looked.lock().await;
            match &*looked {
                Some((generation, found)) if *generation == live.generation => {
                    Ok(Arc::clone(found))
                }
                _ => {
                    let found = Arc::new(self.read_log(partition, bound, live).await?);
                    *looked = Some((live.generation, Arc::clone(&found)));
                    Ok(found)
                }
            }
        };
        match timeout_at(self.until, reading).await {
            Ok(found) => found,
            Err(_) => Err(self.late()),
        }
    }

    async fn read_log(
        &self,
        partition: &Partition,
        bound: &Bound,
        live: &Live,
    ) -> Result<Found, Stop> {
        let key = self.shared.keys.log(partition);
        let mut info = redis::cmd("XINFO");
        info.arg("STREAM").arg(&key);
        let [before] = self.ask(live, [info.clone()]).await?;
        let Some(log) = self.allowed(Log::read(before))? else {
            return Ok(Found { is_new: true, ..Found::default() });
        };
        let mut begin = bound.id;
        if bound.run_id != live.run_id {
            begin = EntryId { millis: begin.millis.saturating_sub(CLOCKS_APART_MS), seq: 0 };
        }
        let (trimmed, is_new) = (log.lost_after(begin), log.begins_after(bound.id));
        let mut found = Found { trimmed, is_new, ..Found::default() };
        let mut after = begin;
        let mut count = PAGE_MIN;
        while after < log.last {
            let mut range = redis::cmd("XRANGE");
            range.arg(&key).arg(format!("({after}")).arg(log.last.to_string());
            range.arg("COUNT").arg(count);
            let [page] = self.ask(live, [range]).await?;
            let page = self.allowed(reply::entries(page))?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            count = next_count(&page);
            found.entries.extend(page.iter().filter_map(|entry| self.own(entry)));
        }
        // It may have been trimmed between the pages.
        let [info] = self.ask(live, [info]).await?;
        let log = self.allowed(Log::read(info))?;
        found.trimmed |= log.is_none_or(|log| log.lost_after(begin));
        Ok(found)
    }

    /// The number of an append of this publisher, with where it lies.
    fn own(&self, (id, fields): &RawEntry) -> Option<(u64, EntryId)> {
        let mut fields = fields.iter().flatten();
        let (_, name) = fields.find(|(field, _)| field == wire::PUBLISHER)?;
        let name = std::str::from_utf8(name).ok()?;
        let number = name.strip_prefix(&self.shared.publisher)?.strip_prefix('-')?;
        Some((number.parse().ok()?, *id))
    }

    async fn ask_time(&mut self, live: &Live) -> Result<(), Stop> {
        let [time] = self.ask(live, [redis::cmd("TIME")]).await?;
        let server_ms = self.allowed(reply::time(time))?;
        let mut since = self.sent.map_or(Duration::ZERO, |sent| Instant::now() - sent);
        if self.sent_to != live.run_id {
            since += Duration::from_millis(CLOCKS_APART_MS);
        }
        self.repeat = Some(Repeat { server_ms, since });
        Ok(())
    }

    async fn ask<const N: usize>(
        &self,
        live: &Live,
        commands: [Cmd; N],
    ) -> Result<[Value; N], Stop> {
        let mut pipeline = Pipeline::with_capacity(N);
        for command in commands {
            pipeline.add_command(command);
        }
        match timeout_at(self.until, live.connection.send(&pipeline)).await {
            Ok(Ok(values)) => {
                Ok(values.try_into().expect("as many answers as commands, or an error"))
            }
            Ok(Err(fault)) => Err(Stop::Broken(fault)),
            Err(_) => Err(self.late()),
        }
    }

    /// What was read, or that no connection will be allowed to.
    fn allowed<T>(&self, read: Result<T, Fault>) -> Result<T, Stop> {
        read.map_err(|fault| match fault {
            Fault::Refused { .. } => Stop::Final(self.failed(&fault)),
            fault => Stop::Broken(fault),
        })
    }
}

/// How many entries the next page may have, by the sizes of this one's.
fn next_count(page: &[RawEntry]) -> usize {
    let fields = page.iter().flat_map(|(_, fields)| fields.iter().flatten());
    let bytes: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
    (PAGE_BYTES * page.len() / bytes.max(1)).clamp(PAGE_MIN, PAGE_MAX)
}

/// What is known of a log before it is read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    first: Option<EntryId>,
    last: EntryId,
    length: u64,
    added: u64,
    deleted: EntryId,
}

impl Log {
    /// Nothing where there is no such log.
    fn read(info: Value) -> Result<Option<Self>, Fault> {
        let info = match accept(info) {
            Err(Fault::Refused { text, .. }) if text.contains("no such key") => return Ok(None),
            info => reply::pairs(info?)?,
        };
        let mut log = Self::default();
        for (name, value) in info {
            match reply::text(name)?.as_str() {
                "length" => log.length = reply::count(value)?,
                "entries-added" => log.added = reply::count(value)?,
                "last-generated-id" => log.last = reply::id(value)?,
                "max-deleted-entry-id" => log.deleted = reply::id(value)?,
                "first-entry" if !matches!(value, Value::Nil) => {
                    let entry = reply::entries(Value::Array(vec![value]))?;
                    log.first = entry.first().map(|(id, _)| *id);
                }
                _ => {}
            }
        }
        Ok(Some(log))
    }

    /// Whether the log in which `id` lay is gone, and this one was made since.
    fn begins_after(&self, id: EntryId) -> bool {
        let is_whole = self.added == self.length;
        let begins_later = self.first.is_none_or(|first| first > id);
        id != EntryId::ZERO && (self.last < id || is_whole && begins_later)
    }

    /// Whether entries after `id` may have been taken away.
    fn lost_after(&self, id: EntryId) -> bool {
        let whole = self.added == self.length;
        let begins_later = self.first.is_none_or(|first| first > id);
        self.deleted > id || (!whole && begins_later && self.last > id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> EntryId {
        EntryId { millis, seq: 0 }
    }

    #[test]
    fn what_is_missing_before_what_is_there_was_refused() {
        let entries = BTreeMap::from([(3, id(30)), (5, id(50))]);
        let found = Found { entries: entries.clone(), ..Found::default() };
        assert_eq!(found.fate(3), Fate::Stored(id(30)));
        assert_eq!((found.fate(2), found.fate(4)), (Fate::Overtaken, Fate::Overtaken));
        assert_eq!(found.fate(6), Fate::Absent);
        let trimmed = Found { entries, trimmed: true, is_new: false };
        assert_eq!(trimmed.fate(5), Fate::Stored(id(50)));
        assert_eq!((trimmed.fate(4), trimmed.fate(6)), (Fate::Hidden, Fate::Hidden));
    }

    #[test]
    fn a_log_that_was_trimmed_past_the_bound_tells_nothing() {
        let log = |first: u64, last, length, deleted| Log {
            first: (first > 0).then_some(id(first)),
            last: id(last),
            length,
            added: 10,
            deleted: id(deleted),
        };
        assert!(!log(10, 100, 10, 0).lost_after(EntryId::ZERO), "nothing is gone");
        assert!(log(20, 100, 9, 0).lost_after(EntryId::ZERO));
        assert!(!log(20, 100, 9, 0).lost_after(id(20)), "the bound itself is there");
        assert!(!log(20, 100, 9, 0).lost_after(id(90)));
        assert!(log(95, 100, 1, 0).lost_after(id(90)));
        assert!(log(0, 100, 0, 0).lost_after(id(90)), "all is gone");
        assert!(!log(0, 100, 0, 0).lost_after(id(100)), "nothing came since");
        assert!(log(10, 100, 9, 95).lost_after(id(90)), "deleted in the middle");
    }

    #[test]
    fn a_log_that_was_made_anew_is_told_from_one_that_was_trimmed() {
        let log = |first: u64, last, length, added| Log {
            first: (first > 0).then_some(id(first)),
            last: id(last),
            length,
            added,
            deleted: EntryId::ZERO,
        };
        assert!(log(60, 80, 2, 2).begins_after(id(50)));
        assert!(log(0, 40, 0, 1).begins_after(id(50)));
        assert!(!log(50, 80, 2, 2).begins_after(id(50)), "the bound itself is there");
        assert!(!log(60, 80, 2, 9).begins_after(id(50)), "it was trimmed");
        assert!(!log(60, 80, 2, 2).begins_after(EntryId::ZERO), "nothing lay in it before");
    }

    #[test]
    fn pages_hold_more_of_what_is_small() {
        let page = |length: usize, bytes: usize| {
            let fields = Some(vec![("b".into(), vec![0; bytes - 1].into())]);
            vec![(id(1), fields); length]
        };
        assert_eq!(next_count(&page(16, 100)), PAGE_MAX);
        assert_eq!(next_count(&page(16, 16 << 10)), 64);
        assert_eq!(next_count(&page(256, 1 << 20)), PAGE_MIN);
        assert_eq!(next_count(&[(id(1), None)]), PAGE_MAX);
    }

    #[test]
    fn a_delayed_event_may_be_repeated_for_what_is_left_of_its_delay() {
        let repeat = |millis| Repeat { server_ms: 5_000, since: Duration::from_millis(millis) };
        assert_eq!(repeat(300).until(Duration::from_millis(1_000)), 5_700);
        assert_eq!(repeat(2_000).until(Duration::from_millis(1_000)), 5_000);
    }
}
