//! What there is to say about a group.

use std::time::Duration;

use serde::Serialize;

use super::{Count, Waiting};
use crate::delivery::{EntryId, Partition};
use crate::driver::GroupName;
use crate::pattern::Pattern;
use crate::time::Timestamp;

/// A group: where it is, what it routes, who its consumers are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// The group.
    pub group: GroupName,
    /// What it has on each partition that it reads.
    pub partitions: Vec<GroupPartition>,
    /// What its members can route.
    pub routes: Vec<RouteReport>,
    /// Its consumers, those that are gone and hold something among them.
    pub consumers: Vec<ConsumerReport>,
}

impl GroupReport {
    /// Its dead letters over all partitions: how many, and from when to when.
    pub fn dead(&self) -> Dead {
        self.partitions.iter().fold(Dead::default(), |sum, part| sum.plus(part.dead))
    }
}

/// A group on a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupPartition {
    /// The partition.
    pub partition: Partition,
    /// The last entry of the log that was handed out, `0-0` before the first.
    pub position: EntryId,
    /// When that entry was stored.
    pub position_time: Option<Timestamp>,
    /// Entries of the log that were not handed out yet.
    pub unread: Count,
    /// Entries of the log and of the retry stream that were handed out and are not settled.
    pub pending: Pending,
    /// Events that wait for their next attempt.
    pub due: Waiting,
    /// Events of the retry stream, those that are being handled among them.
    pub retry_length: u64,
    /// What was given up.
    pub dead: Dead,
    /// Events that wait behind a dead letter of their key, where the group parks keys.
    pub parked: u64,
}

/// Entries that were handed out and are not settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// How many entries.
    pub count: u64,
    /// When the oldest of them was stored.
    pub oldest: Option<Timestamp>,
    /// Who holds them, by name; without those that hold none.
    pub by_consumer: Vec<ConsumerPending>,
}

/// What one consumer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsumerPending {
    /// The consumer.
    pub consumer: String,
    /// How many entries.
    pub pending: u64,
}

/// A group's dead letters on a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dead {
    /// How many.
    pub count: u64,
    /// The id of the first, which tells when it was given up.
    pub first: Option<EntryId>,
    /// When the first was given up.
    pub first_time: Option<Timestamp>,
    /// The id of the last.
    pub last: Option<EntryId>,
    /// When the last was given up.
    pub last_time: Option<Timestamp>,
}

impl Dead {
    /// So many letters, from the first to the last.
    pub(crate) fn new(count: u64, first: Option<EntryId>, last: Option<EntryId>) -> Self {
        let time = |id: Option<EntryId>| id.and_then(super::time_of);
        Self { count, first, first_time: time(first), last, last_time: time(last) }
    }

    /// How long the oldest letter has been lying there; nothing where there is none.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        self.first_time.map(|first| now.since(first))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let first = [self.first, other.first].into_iter().flatten().min();
        Self::new(self.count + other.count, first, self.last.max(other.last))
    }
}

/// What a group can route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteReport {
    /// The pattern.
    pub pattern: Pattern,
    /// The newest version that is decoded; nothing where any is taken.
    pub version: Option<u32>,
    /// When a member that has it was last heard of.
    pub last_seen: Option<Timestamp>,
}

/// A member of a group, or what is left of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsumerReport {
    /// The name.
    pub name: String,
    /// When it was last heard of; nothing where it left.
    pub last_heartbeat: Option<Timestamp>,
    /// Milliseconds since it last asked the store for something; nothing where it never did.
    pub idle_ms: Option<u64>,
    /// Entries it holds.
    pub pending: u64,
    /// It was heard of within [`LIVE_WITHIN`](super::LIVE_WITHIN).
    pub live: bool,
}
