//! How far each partition was read.

use std::collections::BTreeMap;
use std::time::Duration;

use rumormill::delivery::{Entry, EntryId, Partition, Record};
use rumormill::driver::Tools;
use rumormill::{Clock, Error, Pattern, Position, SystemClock};

use super::matches;
use crate::settings::Start;

/// Most entries of a partition that are looked through for the last events of a pattern.
const LOOK_BACK_MAX: usize = 1 << 16;

/// The first id of a millisecond.
pub(super) fn entry_id(millis: u64) -> EntryId {
    EntryId { millis, seq: 0 }
}

/// The last entry that was read, by partition.
#[derive(Default)]
pub(crate) struct Cursor {
    after: BTreeMap<Partition, EntryId>,
}

impl Cursor {
    /// Where each partition begins, and what is shown before that.
    pub(crate) async fn begin(
        tools: &dyn Tools,
        patterns: &[Pattern],
        start: &Start,
    ) -> Result<(Self, Vec<Shown>), Error> {
        let cursor = match start {
            Start::New => Self::at_end(tools, patterns).await?,
            Start::Since(delay) => {
                let now = SystemClock.now().as_millis();
                let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                Self::from(tools, patterns, entry_id(now.saturating_sub(delay)), None).await?
            }
            Start::From(entry, position) => {
                Self::from(tools, patterns, *entry, position.clone()).await?
            }
            Start::Last(count) => return Self::before_end(tools, patterns, *count).await,
        };
        Ok((cursor, Vec::new()))
    }

    /// The last entry that was read, of each partition.
    pub(crate) fn into_places(self) -> impl Iterator<Item = (Partition, EntryId)> {
        self.after.into_iter()
    }

    /// Behind what is there now.
    pub(crate) async fn at_end(tools: &dyn Tools, patterns: &[Pattern]) -> Result<Self, Error> {
        let mut cursor = Self::default();
        for partition in partitions(tools, patterns).await? {
            let end = tools.end(&partition).await?;
            cursor.after.insert(partition, end);
        }
        Ok(cursor)
    }

    /// Before the first entry that is not earlier than `entry`.
    pub(super) async fn from(
        tools: &dyn Tools,
        patterns: &[Pattern],
        entry: EntryId,
        position: Option<Position>,
    ) -> Result<Self, Error> {
        // Another partition may have stored something in the same millisecond, with a lower count.
        let moment = match position {
            Some(_) => entry_id(entry.millis),
            None => entry,
        };
        let mut cursor = Self::default();
        for partition in partitions(tools, patterns).await? {
            let own = position.as_ref().is_some_and(|position| position.partition == partition);
            let from = if own { entry } else { moment };
            cursor.after.insert(partition, from.previous());
        }
        Ok(cursor)
    }

    /// Behind what is there now, and the last `count` events that match before that.
    pub(super) async fn before_end(
        tools: &dyn Tools,
        patterns: &[Pattern],
        count: usize,
    ) -> Result<(Self, Vec<Shown>), Error> {
        let mut cursor = Self::at_end(tools, patterns).await?;
        let mut found = Vec::new();
        for (partition, after) in &mut cursor.after {
            let latest = latest(tools, partition, patterns, count).await?;
            // What came between the two questions was answered by the second.
            *after = latest.iter().map(|entry| entry.id).fold(*after, EntryId::max);
            found.extend(latest);
        }
        let mut events = events(found);
        events.retain(|(_, record)| {
            record.as_ref().is_ok_and(|envelope| matches(patterns, envelope))
        });
        events.drain(..events.len().saturating_sub(count));
        Ok((cursor, events))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.after.is_empty()
    }

    /// Adds the partitions that appeared since: they are read from their beginning.
    pub(super) async fn find_topics(
        &mut self,
        tools: &dyn Tools,
        patterns: &[Pattern],
    ) -> Result<(), Error> {
        for partition in partitions(tools, patterns).await? {
            self.after.entry(partition).or_insert(EntryId::ZERO);
        }
        Ok(())
    }

    /// What comes next, in order within a partition and about in order between them.
    pub(super) async fn read(
        &mut self,
        tools: &dyn Tools,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Shown>, Error> {
        let after: Vec<_> = self.after.iter().map(|(name, id)| (name.clone(), *id)).collect();
        let entries = tools.read(&after, count, wait).await?;
        for entry in &entries {
            if let Some(after) = self.after.get_mut(&entry.partition) {
                *after = (*after).max(entry.id);
            }
        }
        Ok(events(entries))
    }

    /// Whether a position is not behind this cursor.
    pub(super) fn covers(&self, position: &Position) -> bool {
        self.after.get(&position.partition).is_some_and(|end| position.entry <= *end)
    }

    /// Drops the partitions that were read up to `ends`.
    pub(super) fn keep_before(&mut self, ends: &Self) {
        let left = |partition: &Partition, after: &EntryId| {
            ends.after.get(partition).is_some_and(|end| after < end)
        };
        self.after.retain(|partition, after| left(partition, after));
    }
}

/// What lies at a position.
pub(crate) type Shown = (Position, Record);

/// Each place of each entry, the entries by the time of the server.
pub(crate) fn events(mut entries: Vec<Entry>) -> Vec<Shown> {
    entries.sort_by(|a, b| (a.id, &a.partition).cmp(&(b.id, &b.partition)));
    let places = entries.into_iter().flat_map(|entry| {
        let Entry { partition, id, records, .. } = entry;
        (0..).zip(records.to_vec()).map(move |(index, record)| {
            (Position { partition: partition.clone(), entry: id, index }, record)
        })
    });
    places.collect()
}

/// The partitions of every topic whose events can match.
pub(crate) async fn partitions(
    tools: &dyn Tools,
    patterns: &[Pattern],
) -> Result<Vec<Partition>, Error> {
    let topics = tools.topics().await?;
    let covered = topics
        .iter()
        .filter(|shape| patterns.iter().any(|pattern| pattern.covers_topic(&shape.topic)));
    Ok(covered.flat_map(|shape| shape.partitions()).collect())
}

/// Entries from the end of a partition, enough to hold `count` events that match, if there are so
/// many.
async fn latest(
    tools: &dyn Tools,
    partition: &Partition,
    patterns: &[Pattern],
    count: usize,
) -> Result<Vec<Entry>, Error> {
    let mut ask = count.clamp(1, LOOK_BACK_MAX);
    loop {
        let entries = tools.latest(partition, ask).await?;
        let found: usize = entries.iter().map(|entry| count_matches(entry, patterns)).sum();
        if found >= count || entries.len() < ask || ask >= LOOK_BACK_MAX {
            return Ok(entries);
        }
        ask = (ask * 4).min(LOOK_BACK_MAX);
    }
}

fn count_matches(entry: &Entry, patterns: &[Pattern]) -> usize {
    let events = entry.records.iter().flatten();
    events.filter(|envelope| matches(patterns, envelope)).count()
}
