//! What was seen of the bus. Values only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::delivery::{EntryId, Partition};
use crate::driver::admin::{Kept, LIVE_WITHIN};
use crate::driver::redis::keys::{GroupKeys, Keys};
use crate::driver::{GroupName, TopicShape};
use crate::pattern::Pattern;

/// The keys, topics and groups.
pub(in crate::driver::redis::doctor) struct Evidence {
    pub(super) keys: Keys,
    /// Milliseconds of the server's clock, when the look began.
    pub(super) now: u64,
    pub(super) dead_letters_max: u64,
    pub(super) group_kept: Duration,
    pub(super) topics: Vec<Declared>,
    pub(super) partitions: Vec<OnPartition>,
    pub(super) routes: BTreeMap<String, Vec<Route>>,
    pub(super) heartbeats: Heartbeats,
    pub(super) keyspace: Keyspace,
    /// Keys that answered that they hold something of another type.
    pub(super) unusable: BTreeSet<String>,
    /// Commands that the server did not let us use, and its words.
    pub(super) refused: BTreeMap<String, String>,
    /// What was not looked at, since there is too much of it.
    pub(super) cut: Vec<String>,
}

/// A topic as it is written down.
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) shape: Result<TopicShape, String>,
    /// What is wrong with its limits.
    pub(super) flaw: Option<String>,
    /// What is kept of it.
    pub(super) kept: Kept,
}

/// Who was heard of, and when.
#[derive(Default)]
pub(super) struct Heartbeats {
    /// By group and consumer.
    pub(super) groups: BTreeMap<String, BTreeMap<String, u64>>,
    /// How many were not heard of for an hour.
    pub(super) old: u64,
}

/// A route of a group, as it is written down.
pub(super) struct Route {
    pub(super) pattern: String,
    /// The pattern and when a member that has it was heard of, where that can be read.
    pub(super) read: Option<(Pattern, u64)>,
}

/// A partition.
pub(super) struct OnPartition {
    pub(super) partition: Partition,
    /// Milliseconds of the server's clock, when it was looked at.
    pub(super) at: u64,
    pub(super) kept: Kept,
    pub(super) log: Log,
    pub(super) groups: Vec<OnLog>,
    /// When the first delayed event is due.
    pub(super) delayed: Option<u64>,
    pub(super) dropped: Vec<(String, u64)>,
    /// Entries that nobody needs and that should have gone an hour ago, up to a limit.
    pub(super) untrimmed: u64,
}

impl OnPartition {
    /// Who needs the oldest entry of the log, and which that is.
    pub(super) fn holder(&self) -> Option<(EntryId, &OnLog)> {
        let needs = |group: &OnLog| {
            let pending = group.own.pending[0].first().map(|held| held.id);
            pending.into_iter().chain(group.own.found.unread).min()
        };
        let held = self.groups.iter().filter_map(|group| Some((needs(group)?, group)));
        held.min_by_key(|(id, _)| *id)
    }
}

/// A log.
#[derive(Default)]
pub(super) struct Log {
    pub(super) length: u64,
    /// The id of the last entry that there ever was.
    pub(super) last: EntryId,
    /// How many entries there ever were.
    pub(super) added: u64,
    /// The oldest and the newest entry.
    pub(super) samples: Vec<Sample>,
}

impl Log {
    pub(super) fn first_kept(&self) -> Option<EntryId> {
        self.samples.first().map(|sample| sample.id)
    }

    pub(super) fn last_kept(&self) -> Option<EntryId> {
        self.samples.last().map(|sample| sample.id)
    }

    /// Estimated as trimming does it, of the two samples.
    pub(super) fn bytes(&self) -> u64 {
        let count = u64::try_from(self.samples.len()).unwrap_or(0).max(1);
        let sampled: u64 = self.samples.iter().map(|sample| sample.bytes).sum();
        self.length.saturating_mul(sampled / count)
    }
}

/// An entry that was looked at.
pub(super) struct Sample {
    pub(super) id: EntryId,
    pub(super) bytes: u64,
    /// Why it is no event, where it is none.
    pub(super) flaw: Option<String>,
    /// The type of an event that belongs to another topic.
    pub(super) stray: Option<String>,
}

/// A group on a log.
pub(super) struct OnLog {
    /// As far as it is text.
    pub(super) name: String,
    /// Nothing where none of ours could be called so.
    pub(super) group: Option<GroupName>,
    pub(super) position: EntryId,
    pub(super) pending: u64,
    /// How many of all entries ever it has read, where the server knows.
    pub(super) read: Option<u64>,
    /// What the server says is unread, where it says so.
    pub(super) lag: Option<u64>,
    pub(super) own: Own,
}

/// What a group has on a partition, beside its place on the log.
#[derive(Default)]
pub(super) struct Own {
    /// It was looked at: everything below is meant.
    pub(super) looked: bool,
    /// Milliseconds of the server's clock, when it was looked at.
    pub(super) at: u64,
    /// The oldest pending entries of the log and of the retry stream.
    pub(super) pending: [Vec<Held>; 2],
    /// The consumers of the log and of the retry stream.
    pub(super) consumers: [Vec<Consumer>; 2],
    pub(super) retry_length: u64,
    /// The group is on its retry stream.
    pub(super) retries: bool,
    /// When the first later attempt is due, and how many there are.
    pub(super) due: Option<u64>,
    pub(super) later: u64,
    pub(super) dead: Dead,
    pub(super) parking: u64,
    pub(super) parked: u64,
    pub(super) progress: u64,
    pub(super) running: u64,
    pub(super) checkpoint: HashMap<String, String>,
    pub(super) found: Found,
}

/// What was found in the second look.
#[derive(Default)]
pub(super) struct Found {
    /// The first entry that the group has not read.
    pub(super) unread: Option<EntryId>,
    /// Pending entries whose message is gone, of the log and of the retry stream.
    pub(super) gone: [Vec<EntryId>; 2],
    /// Records of progress of entries that are not pending.
    pub(super) progress: Vec<EntryId>,
    /// Notes of suspects that run no more.
    pub(super) notes: Vec<EntryId>,
    /// Dead letters of the last ten minutes, up to a limit.
    pub(super) lately: u64,
    /// Keys that are held back by a letter that is not there: key's hash and origin.
    pub(super) orphans: Vec<(String, String)>,
    /// What waits behind a dead letter: the oldest of those that were looked at.
    pub(super) parked: Option<EntryId>,
    /// What the server says is unread, and what is.
    pub(super) lag: Option<(u64, u64)>,
    /// The checkpoint knows more than the log ever had.
    pub(super) went_back: bool,
    /// The checkpoint lies beyond the log's end, and does not say that there was more.
    pub(super) beyond: bool,
    /// Entries that were trimmed before they were read.
    pub(super) trimmed: u64,
}

/// A pending entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: EntryId,
    pub(super) consumer: String,
    pub(super) idle_ms: u64,
    pub(super) deliveries: u64,
}

/// A consumer on a stream.
pub(super) struct Consumer {
    pub(super) name: String,
    pub(super) pending: u64,
}

/// Dead letters.
#[derive(Default)]
pub(super) struct Dead {
    pub(super) length: u64,
    pub(super) first: Option<EntryId>,
    pub(super) last: Option<EntryId>,
}

/// What lies under our prefix.
#[derive(Default)]
pub(super) struct Keyspace {
    pub(super) keys: Vec<Key>,
}

/// A key.
pub(super) struct Key {
    /// As far as it is text.
    pub(super) name: String,
    pub(super) kind: String,
    /// Milliseconds that it has left, where it expires.
    pub(super) expires: Option<u64>,
}

impl Evidence {
    /// Every group on every partition that was looked at.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&OnPartition, &OnLog)> {
        self.partitions.iter().flat_map(|on| on.groups.iter().map(move |group| (on, group)))
    }

    /// Those of them that were looked at closely, with the names of their keys.
    pub(super) fn owns(&self) -> impl Iterator<Item = (&OnPartition, &OnLog, GroupKeys)> {
        self.pairs().filter(|(_, group)| group.own.looked).filter_map(|(on, group)| {
            let keys = self.keys.group(&on.partition, group.group.as_ref()?);
            Some((on, group, keys))
        })
    }

    /// Whether a consumer of the group was heard of lately.
    pub(super) fn is_live(&self, group: &str) -> bool {
        let heard = self.heartbeats.groups.get(group).into_iter().flat_map(BTreeMap::values);
        heard.into_iter().any(|heard| self.is_recent(*heard))
    }

    /// Whether this consumer was.
    pub(super) fn is_consumer_live(&self, group: &str, consumer: &str) -> bool {
        let heard = self.heartbeats.groups.get(group).and_then(|all| all.get(consumer));
        heard.is_some_and(|heard| self.is_recent(*heard))
    }

    fn is_recent(&self, heard: u64) -> bool {
        self.now.saturating_sub(heard) < millis(LIVE_WITHIN)
    }

    /// When a member of the group was last heard of, by its routes.
    pub(super) fn last_said(&self, group: &str) -> Option<u64> {
        let routes = self.routes.get(group).into_iter().flatten();
        routes.filter_map(|route| route.read.as_ref().map(|(_, seen)| *seen)).max()
    }

    /// Nobody of the group was heard of for so long that it holds nothing any more.
    pub(super) fn is_gone(&self, group: &str) -> bool {
        let silent = |seen| self.now.saturating_sub(seen) >= millis(self.group_kept);
        !self.is_live(group) && self.last_said(group).is_some_and(silent)
    }

    /// A group that has nothing of what ours have: it is another program's.
    pub(super) fn is_foreign(&self, group: &OnLog) -> bool {
        let own = &group.own;
        let has_keys = own.retries || !own.checkpoint.is_empty();
        group.group.is_none() || own.looked && !has_keys && self.last_said(&group.name).is_none()
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
