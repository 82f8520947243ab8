//! Moving a group: what it would do, and what it did.

use serde::Serialize;

use super::Count;
use crate::delivery::{EntryId, Partition, Start};
use crate::driver::GroupName;
use crate::error::{Error, ErrorKind};

/// What moving a group would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeekPlan {
    /// The group.
    pub group: GroupName,
    /// Its live consumers: while there are any, the move has to be forced.
    pub live_consumers: Vec<String>,
    /// The move on each partition.
    pub partitions: Vec<SeekStep>,
}

/// The move on one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeekStep {
    /// The partition.
    pub partition: Partition,
    /// The last entry that was handed out, as of now.
    pub from: EntryId,
    /// The entry after which the group goes on.
    pub to: EntryId,
    /// Entries of the log that were handed out and will be again.
    pub repeats: Count,
    /// Entries of the log that were not handed out and never will be.
    pub skips: Count,
    /// Entries that were handed out and are not settled, and will no longer be pending: they are
    /// among what is repeated when the group goes back, and given up when it goes forward.
    pub pending_dropped: Count,
    /// Events of the retry stream and the due set, which stay and are handled all the same.
    pub retrying: u64,
}

impl SeekStep {
    /// The group stays where it is.
    pub fn is_nothing(&self) -> bool {
        self.from == self.to
    }
}

/// What moving a group did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeekReport {
    /// The group.
    pub group: GroupName,
    /// What was done on each partition.
    pub partitions: Vec<SeekDone>,
}

/// What was done on one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeekDone {
    /// The partition.
    pub partition: Partition,
    /// Where the group was.
    pub from: EntryId,
    /// Where it is.
    pub to: EntryId,
    /// Entries that were pending and no longer are: unread again when the group went back, given
    /// up when it went forward.
    pub pending_dropped: u64,
}

/// The entry after which a group goes on, in a log that ends with `end`.
pub(crate) fn target(to: Start, end: EntryId) -> EntryId {
    let wanted = match to {
        Start::Earliest => EntryId::ZERO,
        Start::New => end,
        Start::After(id) => id,
        Start::At(time) => EntryId { millis: time.as_millis(), seq: 0 }.previous(),
    };
    wanted.min(end)
}

/// Refuses to move a group that is at work.
pub(crate) fn not_alone(group: &GroupName, live: &[String]) -> Result<(), Error> {
    let [first, rest @ ..] = live else { return Ok(()) };
    let others = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    let text = format!("group {group} has live consumers: {first}{others}");
    Err(Error::new(ErrorKind::Conflict, text).with_help(
        "stop them first, which takes 30 s to show where they were killed, or force the move",
    ))
}

/// Refuses to move a group that is not where the plan found it, and not where it goes.
pub(crate) fn has_moved(group: &GroupName, step: &SeekStep, here: EntryId) -> Error {
    let SeekStep { partition, from, .. } = step;
    let text = format!("group {group} is at {here} on {partition}, the plan found it at {from}");
    Error::new(ErrorKind::Conflict, text).with_help("plan again: somebody reads for the group")
}

/// The error for a partition that a group does not read.
pub(crate) fn not_on(group: &GroupName, partition: &Partition) -> Error {
    Error::invalid(format!("group {group} does not read partition {partition}"))
        .with_help("look at the group: it says which partitions it reads")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_group_never_goes_beyond_the_end() {
        let id = |millis, seq| EntryId { millis, seq };
        let end = id(10, 3);
        let at = |millis| Start::At(Timestamp::from_millis(millis));
        let cases = [
            (Start::Earliest, EntryId::ZERO),
            (Start::New, end),
            (Start::After(id(7, 1)), id(7, 1)),
            (Start::After(id(10, 4)), end),
            (at(10), id(9, u64::MAX)),
            (at(11), end),
        ];
        for (to, expected) in cases {
            assert_eq!(target(to, end), expected, "{to:?}");
        }
    }
}
