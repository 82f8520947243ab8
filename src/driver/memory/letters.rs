//! Dead letters as tools deal with them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::MemoryDriver;
use super::group_part::{GroupPart, Retried};
use super::state::State;
use crate::delivery::{DeadLetter, EntryId, Partition};
use crate::driver::GroupName;
use crate::driver::admin::{DeadLetterPage, DeadLetters, Redriven, STEP_MAX, check_step, not_on};
use crate::error::Error;
use crate::time::Timestamp;

#[async_trait]
impl DeadLetters for MemoryDriver {
    async fn page(
        &self,
        group: &GroupName,
        partition: &Partition,
        after: EntryId,
        count: usize,
    ) -> Result<DeadLetterPage, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        let count = count.min(STEP_MAX);
        let letters = match own(&mut state, group, partition)? {
            Some(own) => {
                let from = own.dead.partition_point(|letter| letter.id <= after);
                own.dead.iter().skip(from).take(count).cloned().collect()
            }
            None => Vec::new(),
        };
        Ok(DeadLetterPage::new(letters, count))
    }

    async fn redrive(
        &self,
        group: &GroupName,
        partition: &Partition,
        ids: &[EntryId],
    ) -> Result<Redriven, Error> {
        self.check_open()?;
        check_step(ids)?;
        let mut state = self.store.state();
        let (now, wall) = (Instant::now(), state.now());
        let (mut done, mut weight) = (Redriven::default(), 0);
        if let Some(own) = own(&mut state, group, partition)? {
            for id in ids {
                match own.dead.binary_search_by_key(id, |letter| letter.id) {
                    Err(_) => done.missing += 1,
                    Ok(at) if own.dead[at].record.is_err() => done.malformed += 1,
                    Ok(at) => {
                        let letter = own.dead.remove(at).expect("it was found there");
                        own.parking.redriven(*id);
                        let (record, origin) = (letter.record, letter.origin);
                        let event = Retried { record, attempt: 1, origin, suspect: false };
                        weight += event.weight();
                        own.schedule(event, Duration::ZERO, now, wall);
                        done.moved += 1;
                    }
                }
            }
        } else {
            done.missing = count_of(ids.len());
        }
        state.unsettled_bytes += weight;
        drop(state);
        self.store.changed.notify_waiters();
        Ok(done)
    }

    async fn edit(
        &self,
        group: &GroupName,
        partition: &Partition,
        id: EntryId,
        payload: Bytes,
    ) -> Result<Option<EntryId>, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        let wall = state.now();
        let Some(own) = own(&mut state, group, partition)? else { return Ok(None) };
        let Ok(at) = own.dead.binary_search_by_key(&id, |letter| letter.id) else {
            return Ok(None);
        };
        let edited = own.dead[at].clone().edited(payload)?;
        own.dead.remove(at);
        let after = own.add_letter(edited, wall);
        own.parking.renamed(id, after);
        Ok(Some(after))
    }

    async fn restore(
        &self,
        group: &GroupName,
        partition: &Partition,
        letters: &[DeadLetter],
        last: EntryId,
    ) -> Result<Option<EntryId>, Error> {
        self.check_open()?;
        check_step(letters)?;
        let mut state = self.store.state();
        let wall = state.now();
        let own = own(&mut state, group, partition)?.ok_or_else(|| not_on(group, partition))?;
        if own.dead.back().is_some_and(|letter| letter.id > last) {
            return Ok(None);
        }
        let added = letters.iter().map(|letter| own.add_letter(letter.clone(), wall));
        Ok(Some(added.last().unwrap_or(last)))
    }

    async fn purge(
        &self,
        group: &GroupName,
        partition: &Partition,
        ids: &[EntryId],
    ) -> Result<u64, Error> {
        self.check_open()?;
        check_step(ids)?;
        let mut state = self.store.state();
        let (now, wall) = (Instant::now(), state.now());
        let mut purged = 0;
        if let Some(own) = own(&mut state, group, partition)? {
            let gone = own.dead.iter().map(|letter| letter.id).filter(|id| ids.contains(id));
            let gone: Vec<EntryId> = gone.collect();
            own.dead.retain(|letter| !gone.contains(&letter.id));
            run_behind(own, &gone, now, wall);
            purged = count_of(gone.len());
        }
        drop(state);
        // The group may have paused for them.
        self.store.changed.notify_waiters();
        Ok(purged)
    }

    async fn purge_until(
        &self,
        group: &GroupName,
        partition: &Partition,
        last: EntryId,
    ) -> Result<u64, Error> {
        self.check_open()?;
        let mut state = self.store.state();
        let (now, wall) = (Instant::now(), state.now());
        let mut purged = 0;
        if let Some(own) = own(&mut state, group, partition)? {
            let end = own.dead.partition_point(|letter| letter.id <= last).min(STEP_MAX);
            let gone: Vec<EntryId> = own.dead.drain(..end).map(|letter| letter.id).collect();
            run_behind(own, &gone, now, wall);
            purged = count_of(gone.len());
        }
        drop(state);
        self.store.changed.notify_waiters();
        Ok(purged)
    }
}

/// The next events of the keys that these letters parked are handed out.
fn run_behind(own: &mut GroupPart, gone: &[EntryId], now: Instant, wall: Timestamp) {
    for id in gone {
        if let Some(event) = own.parking.dropped(*id) {
            own.schedule(event, Duration::ZERO, now, wall);
        }
    }
}

/// What a group has on a partition.
fn own<'a>(
    state: &'a mut State,
    group: &GroupName,
    partition: &Partition,
) -> Result<Option<&'a mut GroupPart>, Error> {
    let place = state.part(partition)?;
    let Some(group) = state.group_places.get(group).copied() else { return Ok(None) };
    Ok(state.parts[place].groups.get_mut(&group))
}

fn count_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
