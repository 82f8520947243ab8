//! What can go wrong below, one by one and counted.

use std::fmt;

use serde::Serialize;

use crate::delivery::{Durability, EntryId, Partition};
use crate::driver::GroupName;

/// Something that went wrong below, and was dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "incident")]
#[non_exhaustive]
pub enum Incident {
    /// A group was gone from a partition. It was made again.
    GroupLost {
        /// The group.
        group: GroupName,
        /// Where.
        partition: Partition,
        /// The entry after which it goes on; [`EntryId::ZERO`] is the beginning.
        after: EntryId,
    },
    /// A log is not the one that was known: it went back, or was made anew. What it held is gone.
    HistoryLost {
        /// Which.
        partition: Partition,
        /// The last entry that is known to have been there.
        known: EntryId,
        /// The last entry that it ever had, as it says now.
        found: EntryId,
    },
    /// Entries were trimmed from a log before a group had read them.
    RetentionLost {
        /// The group.
        group: GroupName,
        /// Where.
        partition: Partition,
        /// How many.
        entries: u64,
    },
    /// Entries that were handed out and not settled are gone: trimmed from the log, or dropped
    /// with their consumer by a stranger.
    PendingGone {
        /// The group.
        group: GroupName,
        /// Where.
        partition: Partition,
        /// How many.
        entries: u64,
    },
    /// Entries that were to be settled were not pending any more, and nobody here had settled
    /// them.
    SettleMissed {
        /// The group.
        group: GroupName,
        /// Where.
        partition: Partition,
        /// How many.
        entries: u64,
    },
    /// A key holds another type than it must, or may not be touched: the partition is not read
    /// until that is mended.
    KeyUnusable {
        /// The group that cannot read.
        group: GroupName,
        /// Where.
        partition: Partition,
        /// What the server said.
        reason: String,
    },
    /// The server does more or less than before to keep what it is given.
    DurabilityChanged {
        /// What it did.
        from: Durability,
        /// What it does.
        to: Durability,
    },
    /// The server deleted keys to make room: logs may be among them.
    Evicted {
        /// How many since it was asked last.
        keys: u64,
    },
    /// Another server, or another life of it, answers now.
    ServerChanged {
        /// Its run id.
        run_id: String,
    },
    /// Something else about the server that an operator should know: see
    /// [`ServerHealth::findings`].
    ServerAilment {
        /// What.
        finding: String,
    },
}

impl Incident {
    /// The group it is about, where it is about one.
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Self::GroupLost { group, .. }
            | Self::RetentionLost { group, .. }
            | Self::PendingGone { group, .. }
            | Self::SettleMissed { group, .. }
            | Self::KeyUnusable { group, .. } => Some(group),
            _ => None,
        }
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GroupLost { group, partition, after } if *after == EntryId::ZERO => {
                write!(f, "group {group} was gone from {partition}: it goes on from the beginning")
            }
            Self::GroupLost { group, partition, after } => {
                write!(f, "group {group} was gone from {partition}: it goes on after {after}")
            }
            Self::HistoryLost { partition, known, found } => {
                write!(f, "the history of {partition} was lost: it had {known}, now has {found}")
            }
            Self::RetentionLost { group, partition, entries } => write!(
                f,
                "{entries} entries of {partition} were trimmed before group {group} read them"
            ),
            Self::PendingGone { group, partition, entries } => write!(
                f,
                "{entries} entries of {partition} were gone before group {group} settled them"
            ),
            Self::SettleMissed { group, partition, entries } => write!(
                f,
                "{entries} entries of {partition} were not pending when group {group} settled them"
            ),
            Self::KeyUnusable { group, partition, reason } => {
                write!(f, "group {group} cannot read {partition}: {reason}")
            }
            Self::DurabilityChanged { from, to } => {
                write!(f, "the server's durability is {to}, it was {from}")
            }
            Self::Evicted { keys } => write!(f, "the server evicted {keys} keys"),
            Self::ServerChanged { run_id } => write!(f, "another server answers: run id {run_id}"),
            Self::ServerAilment { finding } => f.write_str(finding),
        }
    }
}

/// How often each loss was seen, since the driver connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Losses {
    /// Times that a group was gone from a partition.
    pub group_lost: u64,
    /// Times that a log's history was lost.
    pub history_lost: u64,
    /// Entries that were trimmed before they were read.
    pub retention_lost: u64,
    /// Entries that were gone before they were settled.
    pub pending_gone: u64,
    /// Entries that were not pending when they were settled.
    pub settle_missed: u64,
}

impl Losses {
    /// Whether nothing was lost.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn count(&mut self, incident: &Incident) {
        match incident {
            Incident::GroupLost { .. } => self.group_lost += 1,
            Incident::HistoryLost { .. } => self.history_lost += 1,
            Incident::RetentionLost { entries, .. } => self.retention_lost += entries,
            Incident::PendingGone { entries, .. } => self.pending_gone += entries,
            Incident::SettleMissed { entries, .. } => self.settle_missed += entries,
            _ => {}
        }
    }
}
