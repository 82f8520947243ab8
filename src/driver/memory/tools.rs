//! The powers that tools use.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::log::Stored;
use super::state::State;
use super::{MemoryDriver, after};
use crate::delivery::{Bits, DeadLetter, Entry, EntryId, Partition, Queue, Token};
use crate::driver::{Backlog, Extent, GroupName, Tools, TopicShape};
use crate::error::Error;

#[async_trait]
impl Tools for MemoryDriver {
    async fn topics(&self) -> Result<Vec<TopicShape>, Error> {
        self.check_open()?;
        Ok(self.store.state().shapes())
    }

    async fn read(
        &self,
        ids: &[(Partition, EntryId)],
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Entry>, Error> {
        let deadline = after(Instant::now(), wait);
        loop {
            let notified = self.store.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            self.check_open()?;
            let (entries, next) = {
                let mut state = self.store.state();
                state.advance(Instant::now());
                (entries_after(&state, ids, count)?, state.next_delayed())
            };
            if !entries.is_empty() || Instant::now() >= deadline {
                return Ok(entries);
            }
            tokio::select! {
                biased;
                () = notified => {}
                () = sleep_until(next.map_or(deadline, |next| next.min(deadline))) => {}
            }
        }
    }

    async fn latest(&self, partition: &Partition, count: usize) -> Result<Vec<Entry>, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        state.advance(Instant::now());
        let log = &state.parts[state.part(partition)?].log;
        let last = log.entries.iter().rev().take(count);
        let mut last: Vec<Entry> = last.map(|(id, stored)| entry(partition, *id, stored)).collect();
        last.reverse();
        Ok(last)
    }

    async fn end(&self, partition: &Partition) -> Result<EntryId, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        state.advance(Instant::now());
        Ok(state.parts[state.part(partition)?].log.ids.last)
    }

    async fn extent(&self, partition: &Partition) -> Result<Extent, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        state.advance(Instant::now());
        Ok(state.parts[state.part(partition)?].log.extent())
    }

    async fn backlog(&self, group: &GroupName) -> Result<Backlog, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        state.advance(Instant::now());
        let mut sum = Backlog::default();
        for own in state.parts_of_group(group) {
            let Backlog { unread, pending, due, dead } = own.backlog();
            sum.unread += unread;
            sum.pending += pending;
            sum.due += due;
            sum.dead += dead;
        }
        Ok(sum)
    }

    async fn dead_letters(
        &self,
        group: &GroupName,
        count: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        self.check_open()?;
        let state = self.store.state();
        let parts = state.parts_of_group(group);
        Ok(parts.flat_map(|own| own.dead.iter().take(count).cloned()).collect())
    }
}

fn entries_after(
    state: &State,
    ids: &[(Partition, EntryId)],
    count: usize,
) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for (partition, id) in ids {
        let log = &state.parts[state.part(partition)?].log;
        let later = log.entries.range((Bound::Excluded(*id), Bound::Unbounded)).take(count);
        entries.extend(later.map(|(id, stored)| entry(partition, *id, stored)));
    }
    Ok(entries)
}

/// An entry under no lease.
pub(super) fn entry(partition: &Partition, id: EntryId, stored: &Stored) -> Entry {
    Entry {
        partition: partition.clone(),
        queue: Queue::Log,
        id,
        records: Arc::clone(&stored.records),
        settled: Bits::new(),
        attempt: 1,
        origin: None,
        token: Token(0),
        suspect: false,
        lease: CancellationToken::new(),
    }
}
