//! What there is to say about a topic.

use serde::Serialize;

use super::{Count, Holds, Retention, Waiting};
use crate::delivery::{EntryId, Partition};
use crate::driver::GroupName;
use crate::error::{Error, ErrorKind};
use crate::event_type::Topic;
use crate::time::Timestamp;

/// Most partitions of a topic: each costs every group two streams, and every read of it a little.
pub const PARTITIONS_MAX: u32 = 256;

/// What a topic holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    /// The topic.
    pub topic: Topic,
    /// What is kept of each of its partitions; nothing where that is up to the store alone.
    pub retention: Option<Retention>,
    /// Its partitions.
    pub partitions: Vec<TopicPartition>,
}

/// What a partition holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicPartition {
    /// The partition.
    pub partition: Partition,
    /// Entries of the log; each holds one event or more.
    pub entries: u64,
    /// The first entry kept.
    pub first: Option<EntryId>,
    /// When it was stored.
    pub first_time: Option<Timestamp>,
    /// The last entry kept.
    pub last: Option<EntryId>,
    /// When it was stored.
    pub last_time: Option<Timestamp>,
    /// Bytes of memory that the log takes: an estimate from a sample. Nothing where the store
    /// does not tell.
    pub bytes_estimate: Option<u64>,
    /// Events that were published with a delay and are not in the log yet.
    pub delayed: Waiting,
    /// The groups that read it, by name.
    pub groups: Vec<GroupOnPartition>,
}

/// A group that reads a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupOnPartition {
    /// The group.
    pub group: GroupName,
    /// The last entry that was handed out.
    pub position: EntryId,
    /// Entries of the log that were not handed out yet.
    pub unread: Count,
    /// Entries of the log that were handed out and are not settled.
    pub pending: u64,
    /// What it keeps from being trimmed, and why.
    pub holds: Holds,
    /// Entries that were dropped so far before it had settled them: over the hard cap, or while
    /// it was gone for too long.
    pub dropped: u64,
}

/// What became of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicChange {
    /// The topic.
    pub topic: Topic,
    /// How many partitions it had; nothing where it was not known.
    pub before: Option<u32>,
    /// How many it has.
    pub partitions: u32,
    /// The groups that were put on the new partitions.
    pub groups: Vec<GroupName>,
}

/// Refuses a number of partitions that is never right.
pub(crate) fn check_partitions(topic: &Topic, partitions: u32) -> Result<(), Error> {
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(());
    }
    let text = format!("topic {topic} cannot have {partitions} partitions");
    Err(Error::invalid(text).with_help(format!("1 to {PARTITIONS_MAX} will do")))
}

/// Refuses to take partitions away.
pub(crate) fn shrinking(topic: &Topic, before: u32, partitions: u32) -> Result<(), Error> {
    if partitions >= before {
        return Ok(());
    }
    let text = format!("topic {topic} has {before} partitions and cannot shrink to {partitions}");
    Err(Error::new(ErrorKind::Conflict, text).with_help(
        "what lies in the partitions that went away would never be read: publish to a new topic \
         instead",
    ))
}
