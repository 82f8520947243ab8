//! A partition's log: entries by id, each knowing how many groups have still to settle it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::delivery::{EntryId, Malformed, Record};
use crate::driver::Extent;
use crate::time::Timestamp;

/// Entry ids that ascend whatever the clock does.
#[derive(Debug, Default)]
pub(super) struct Ids {
    pub(super) last: EntryId,
    /// How many were given.
    pub(super) given: u64,
}

impl Ids {
    pub(super) fn next(&mut self, now: Timestamp) -> EntryId {
        self.given += 1;
        let millis = now.as_millis();
        self.last = if millis > self.last.millis {
            EntryId { millis, seq: 0 }
        } else {
            EntryId { millis: self.last.millis, seq: self.last.seq + 1 }
        };
        self.last
    }
}

/// An entry as it is kept.
#[derive(Debug)]
pub(super) struct Stored {
    /// How many entries the log was given before it.
    pub(super) number: u64,
    /// Shared with whom they were handed to.
    pub(super) records: Arc<[Record]>,
    /// Bytes, as the limit counts them.
    pub(super) weight: usize,
    /// Groups that have still to settle it. With none it is history.
    pub(super) open: usize,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) ids: Ids,
    pub(super) entries: BTreeMap<EntryId, Stored>,
}

impl Log {
    /// How far it reaches.
    pub(super) fn extent(&self) -> Extent {
        Extent {
            first: self.entries.keys().next().copied(),
            last: self.ids.last,
            added: self.ids.given,
            kept: self.entries.len() as u64,
        }
    }
}

/// What a record costs to hold. Bytes.
pub(super) fn weigh(record: &Record) -> usize {
    match record {
        Ok(envelope) => envelope.weight(),
        Err(Malformed { reason, fields }) => {
            let fields: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
            reason.len() + fields
        }
    }
}
