//! Reading logs without a group: what broadcasts are made of.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::{GroupName, Source};
use crate::delivery::{EntryId, Partition};
use crate::error::Error;
use crate::pattern::Pattern;

/// Reading logs from now on, in a place that only this process knows.
#[async_trait]
pub trait Follow: Send + Sync {
    /// Reads what is appended from now on to every partition that `patterns` cover, for the
    /// broadcast `name`, which only messages show.
    ///
    /// Returns when the place in every partition that matches now is a concrete id: what is
    /// published from then on comes. A topic or a partition that appears later is read from its
    /// beginning. Nothing is written to the store: no group, no route, no consumer, no topic.
    ///
    /// The source keeps the contract of [`Source`] but for the leases, since there are none: its
    /// entries are this follower's alone, come once, and per partition in their order. It goes on
    /// where it was after a lost connection, and reads no further while nobody fetches; what the
    /// store gave up meanwhile is counted in [`Followed::missed`].
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    ///
    /// # Cancel safety
    /// Dropped before it is done, nothing is left of it.
    async fn follow(&self, name: &GroupName, patterns: &[Pattern]) -> Result<Followed, Error>;
}

/// A follower's entries, and what is known of its place.
pub struct Followed {
    /// Where its entries come from.
    pub source: Box<dyn Source>,
    /// Where it began in each partition that matched then.
    pub anchors: Vec<(Partition, EntryId)>,
    /// What was gone from the store before it was read.
    pub missed: Missed,
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("anchors", &self.anchors).finish_non_exhaustive()
    }
}

/// Counts the entries that were trimmed or deleted before a follower read them. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct Missed(Arc<AtomicU64>);

impl Missed {
    /// So many entries of a partition were gone when they were to be read; says so aloud.
    pub fn add(&self, name: &GroupName, partition: &Partition, entries: u64) {
        if entries > 0 {
            self.0.fetch_add(entries, Ordering::Relaxed);
            tracing::warn!(broadcast = %name, %partition, entries, "trimmed before they were read");
        }
    }

    /// How many entries were missed so far.
    pub fn entries(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
