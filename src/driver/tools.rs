//! What [`Tools`](super::Tools) answer.

use crate::delivery::{EntryId, Partition};
use crate::event_type::Topic;

/// What a group has before it, over all partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Entries that were not handed out yet, the retry stream's among them. A lower bound: exact
    /// about whether there is any.
    pub unread: u64,
    /// Entries that were handed out and not settled.
    pub pending: u64,
    /// Events that wait for their next attempt.
    pub due: u64,
    /// Dead letters.
    pub dead: u64,
}

impl Backlog {
    /// Nothing is to be done: nothing unread, pending or due.
    pub fn is_settled(&self) -> bool {
        self.unread == 0 && self.pending == 0 && self.due == 0
    }
}

/// What a log says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The id of the first entry that is there; nothing where none is.
    pub first: Option<EntryId>,
    /// The id that the last entry had or has; [`EntryId::ZERO`] where there never was one.
    pub last: EntryId,
    /// Entries that were ever added.
    pub added: u64,
    /// Entries that are there.
    pub kept: u64,
}

impl Extent {
    /// Entries that were trimmed or deleted.
    pub fn gone(&self) -> u64 {
        self.added.saturating_sub(self.kept)
    }
}

/// A topic as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicShape {
    /// The name.
    pub topic: Topic,
    /// How many partitions it has, at least 1.
    pub partitions: u32,
}

impl TopicShape {
    /// Its partitions.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> {
        (0..self.partitions).map(|index| Partition { topic: self.topic.clone(), index })
    }
}
