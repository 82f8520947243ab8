//! What comes next of all partitions, in the order in which it was stored.
//!
//! A read brings so many entries of each partition; the history of a busy one covers seconds, that
//! of a quiet one hours. So what was read waits until nothing earlier can come: until every other
//! partition was read that far, or to its end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rumormill::delivery::{Entry, EntryId, Partition};
use rumormill::driver::{Extent, Tools};
use rumormill::{Error, Pattern, Timestamp};
use tokio::time::Instant;

use crate::settings::Start;
use crate::tail::cursor::{self, Cursor, Shown};

/// Entries of all partitions that one read brings, and those of one partition at most.
const ENTRIES_MAX: usize = 2048;
const ENTRIES_OF_PARTITION_MAX: usize = 256;
/// How long a read waits, and so how soon a new topic is found.
const WAIT: Duration = Duration::from_millis(500);
/// While something waits for its turn.
const NO_WAIT: Duration = Duration::from_millis(1);

/// Where a partition is.
struct Place {
    after: EntryId,
    /// The last entry that there was for certain when it was read or begun with.
    read: EntryId,
    /// How many entries there were up to here; where it began in the middle, at least so many.
    seen: u64,
    waiting: VecDeque<Entry>,
    /// The last read brought all there was.
    at_end: bool,
    /// Something may have been trimmed ahead since the last look.
    doubtful: bool,
    /// No entry behind this one is wanted.
    last: Option<EntryId>,
}

/// The partitions, and what is to be said of them.
pub(super) struct Reader<'a> {
    tools: &'a dyn Tools,
    patterns: &'a [Pattern],
    places: BTreeMap<Partition, Place>,
    topics_known: Instant,
    until_end: bool,
    notes: Vec<String>,
    missed: u64,
}

impl<'a> Reader<'a> {
    /// Finds where to begin, and what is written before that.
    pub(super) async fn begin(
        tools: &'a dyn Tools,
        patterns: &'a [Pattern],
        start: &Start,
        until_end: bool,
    ) -> Result<(Self, Vec<Shown>), Error> {
        let (cursor, first) = Cursor::begin(tools, patterns, start).await?;
        let mut places = BTreeMap::new();
        let mut notes = Vec::new();
        for (partition, after) in cursor.into_places() {
            let extent = tools.extent(&partition).await?;
            let last = until_end.then_some(extent.last);
            notes.extend(begins_late(&partition, after, extent));
            places.insert(partition, Place::begin(after, extent, last));
        }
        let topics_known = Instant::now();
        let reader = Self { tools, patterns, places, topics_known, until_end, notes, missed: 0 };
        Ok((reader, first))
    }

    /// What comes next, perhaps nothing yet; `None` after the end that was asked for.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it has lost what it read: it is for the very end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Shown>>, Error> {
        if self.until_end && self.places.values().all(Place::is_done) {
            return Ok(None);
        }
        if !self.until_end {
            self.find_topics().await?;
        }
        self.look_for_gaps().await?;
        let wait = self.places.values().any(|place| !place.waiting.is_empty());
        let wait = if wait || self.until_end { NO_WAIT } else { WAIT };
        let asked: Vec<(Partition, EntryId)> = self.asked().collect();
        if asked.is_empty() {
            // With something waiting it goes on at once: that is what `bound` lets through.
            tokio::time::sleep(wait).await;
        } else {
            let count = (ENTRIES_MAX / self.places.len()).clamp(8, ENTRIES_OF_PARTITION_MAX);
            let entries = self.tools.read(&asked, count, wait).await?;
            self.took(&asked, entries, count);
        }
        Ok(Some(cursor::events(self.in_order())))
    }

    /// The store was away: something may have been trimmed meanwhile.
    pub(super) fn doubt(&mut self) {
        self.places.values_mut().for_each(|place| place.doubtful = true);
    }

    /// What is to be said since the last call.
    pub(super) fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Entries that were gone before they were read, at most so many.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    fn asked(&self) -> impl Iterator<Item = (Partition, EntryId)> {
        let hungry = |place: &Place| place.waiting.is_empty() && !place.is_done();
        let places = self.places.iter().filter(move |(_, place)| hungry(place));
        places.map(|(partition, place)| (partition.clone(), place.after))
    }

    /// Adds the partitions that appeared since: they are read from their beginning.
    async fn find_topics(&mut self) -> Result<(), Error> {
        if self.topics_known.elapsed() < WAIT && !self.places.is_empty() {
            return Ok(());
        }
        for partition in cursor::partitions(self.tools, self.patterns).await? {
            let fresh = || Place::begin(EntryId::ZERO, Extent::default(), None);
            self.places.entry(partition).or_insert_with(fresh);
        }
        self.topics_known = Instant::now();
        Ok(())
    }

    /// Asks what is gone where that is in doubt, before it is read on: the read would hide it.
    async fn look_for_gaps(&mut self) -> Result<(), Error> {
        for (partition, place) in &mut self.places {
            if !place.doubtful || !place.waiting.is_empty() {
                continue;
            }
            let extent = self.tools.extent(partition).await?;
            match place.look(extent) {
                Gap::None => {}
                Gap::Missed(entries) => {
                    self.missed += entries;
                    let text = "were trimmed before they were read";
                    self.notes.push(format!("up to {entries} entries of {partition} {text}"));
                }
                Gap::WentBack => {
                    let text = "the store has lost what was recorded last, and goes on before it";
                    self.notes.push(format!("the log of {partition} went back: {text}"));
                }
            }
        }
        Ok(())
    }

    fn took(&mut self, asked: &[(Partition, EntryId)], entries: Vec<Entry>, count: usize) {
        for (partition, _) in asked {
            if let Some(place) = self.places.get_mut(partition) {
                place.at_end = true;
            }
        }
        for entry in entries {
            if let Some(place) = self.places.get_mut(&entry.partition) {
                place.took(entry);
            }
        }
        for (partition, _) in asked {
            let Some(place) = self.places.get_mut(partition) else { continue };
            if place.waiting.len() >= count {
                (place.at_end, place.doubtful) = (false, true);
            } else if let Some(last) = place.last {
                // Up to the end there is no more, even where the last entry itself is gone.
                place.after = place.after.max(last);
            }
        }
    }

    /// Takes what waits up to the first place behind which something may come still.
    fn in_order(&mut self) -> Vec<Entry> {
        let bounds = self.places.values().filter_map(Place::bound);
        let bound = bounds.min();
        let mut entries = Vec::new();
        for place in self.places.values_mut() {
            let early = |entry: &Entry| bound.is_none_or(|bound| entry.id <= bound);
            while place.waiting.front().is_some_and(early) {
                entries.extend(place.waiting.pop_front());
            }
            // What is read next may be earlier than what the others have read by then.
            place.at_end &= place.waiting.is_empty();
        }
        entries
    }
}

/// Something is gone of a log that begins after the moment that was asked for. Whether it was
/// stored after that moment, nobody knows.
fn begins_late(partition: &Partition, after: EntryId, extent: Extent) -> Option<String> {
    let first = extent.first.filter(|first| *first > after)?;
    let asked_before = extent.last > after && extent.gone() > 0 && after != EntryId::ZERO;
    let begins = Timestamp::from_millis(first.millis);
    asked_before.then(|| {
        let gone = extent.gone();
        format!("the log of {partition} begins at {begins}: {gone} earlier entries are gone")
    })
}

/// What is missing of a log.
#[derive(Debug, PartialEq, Eq)]
enum Gap {
    None,
    /// At most so many entries.
    Missed(u64),
    WentBack,
}

impl Place {
    fn begin(after: EntryId, extent: Extent, last: Option<EntryId>) -> Self {
        // At the end, all entries are behind; else those that are gone are, at least.
        let at_end = after >= extent.last;
        let seen = if at_end { extent.added } else { extent.gone() };
        let read = if at_end { extent.last } else { EntryId::ZERO };
        let waiting = VecDeque::new();
        Self { after, read, seen, waiting, at_end: false, doubtful: false, last }
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.last.is_some_and(|last| self.after >= last)
    }

    fn took(&mut self, entry: Entry) {
        (self.after, self.read) = (entry.id, entry.id);
        self.seen += 1;
        if self.last.is_none_or(|last| entry.id <= last) {
            self.waiting.push_back(entry);
        }
    }

    /// The last entry behind which this partition may bring more; nothing where it cannot.
    fn bound(&self) -> Option<EntryId> {
        let exhausted = self.at_end || self.last.is_some_and(|last| self.after >= last);
        (!exhausted).then_some(self.after)
    }

    /// Compares the place with its log.
    fn look(&mut self, extent: Extent) -> Gap {
        self.doubtful = false;
        if extent.last < self.read {
            (self.after, self.read, self.seen) = (extent.last, extent.last, extent.added);
            return Gap::WentBack;
        }
        // While the place itself, or something before it, is there, nothing behind it is gone.
        let whole = extent.first.is_some_and(|first| first <= self.after);
        let missed = extent.gone().saturating_sub(self.seen);
        if whole || missed == 0 {
            return Gap::None;
        }
        self.seen += missed;
        Gap::Missed(missed)
    }
}

#[cfg(test)]
mod tests;
