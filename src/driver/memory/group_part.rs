//! What a group has on one partition: cursor, pending entries, retry stream, due set and dead
//! letters.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handled::Handled;
use super::log::{Ids, Log, weigh};
use super::parking::Parking;
use super::{after, state::Member};
use crate::delivery::{
    Bits, DeadLetter, Entry, EntryId, Partition, Position, Queue, Record, Token,
};
use crate::driver::{Backlog, SUSPECT_FROM};
use crate::time::Timestamp;

/// An event of the group's own: in its due set or its retry stream.
#[derive(Debug)]
pub(super) struct Retried {
    pub(super) record: Record,
    pub(super) attempt: u32,
    pub(super) origin: Position,
    pub(super) suspect: bool,
}

impl Retried {
    pub(super) fn weight(&self) -> usize {
        weigh(&self.record)
    }
}

/// An entry that was handed out and is not settled.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) consumer: u64,
    /// How often it was handed out: the fence.
    pub(super) count: u64,
    pub(super) settled: Bits,
    /// Its events.
    pub(super) size: usize,
    /// A suspect that was begun.
    pub(super) running: Option<Running>,
    /// Its place in `abandoned`, where its consumer is gone.
    abandoned: Option<(Instant, u64)>,
    lease: CancellationToken,
}

/// The note that a suspect is running.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    /// How often those who took it over found it running.
    pub(super) found: u32,
    /// The count at which it was begun last.
    pub(super) count: u64,
}

impl Pending {
    pub(super) fn is_done(&self) -> bool {
        self.settled.len() >= self.size
    }

    /// Whether a consumer holds it, at the hand-out that it was given.
    pub(super) fn is_held_by(&self, member: Member, token: Token) -> bool {
        self.consumer == member.consumer && self.count == token.0
    }
}

/// Which entry of a group on one partition.
pub(super) type Key = (Queue, EntryId);

/// What a group has on one partition.
#[derive(Debug, Default)]
pub(super) struct GroupPart {
    /// The last entry of the log that was handed out.
    pub(super) cursor: EntryId,
    /// Entries of the log after the cursor.
    pub(super) unread: u64,
    pub(super) pending: BTreeMap<Key, Pending>,
    /// Pending entries whose consumer is gone, by the end of their lease.
    abandoned: BTreeMap<(Instant, u64), Key>,
    /// The retry stream: entries of one event.
    pub(super) retry: BTreeMap<EntryId, Retried>,
    /// Those of the retry stream that were not handed out yet, oldest first.
    ready: VecDeque<EntryId>,
    pub(super) due: BTreeMap<(Instant, u64), Retried>,
    pub(super) dead: VecDeque<DeadLetter>,
    retry_ids: Ids,
    pub(super) dead_ids: Ids,
    pub(super) parking: Parking,
    pub(super) handled: Handled,
    /// Whose turn it is: neither the log nor the retry stream may starve the other.
    log_first: bool,
    /// Breaks ties of one instant.
    count: u64,
}

impl GroupPart {
    /// A group that begins after `cursor`, with so many entries of the log before it.
    pub(super) fn at(cursor: EntryId, unread: u64) -> Self {
        Self { cursor, unread, ..Self::default() }
    }

    /// Puts an event back, to be handed out `delay` from now.
    pub(super) fn schedule(
        &mut self,
        event: Retried,
        delay: Duration,
        now: Instant,
        wall: Timestamp,
    ) {
        if delay.is_zero() {
            self.add_retry(event, wall);
        } else {
            let place = self.place(after(now, delay));
            self.due.insert(place, event);
        }
    }

    fn add_retry(&mut self, event: Retried, wall: Timestamp) {
        let id = self.retry_ids.next(wall);
        self.retry.insert(id, event);
        self.ready.push_back(id);
    }

    /// Adds a letter that was one before; it gets a new id.
    pub(super) fn add_letter(&mut self, letter: DeadLetter, wall: Timestamp) -> EntryId {
        let id = self.dead_ids.next(wall);
        self.dead.push_back(DeadLetter { id, ..letter });
        id
    }

    fn place(&mut self, at: Instant) -> (Instant, u64) {
        self.count += 1;
        (at, self.count)
    }

    /// Moves what is due into the retry stream.
    pub(super) fn move_due(&mut self, now: Instant, wall: Timestamp) {
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            let event = first.remove();
            self.add_retry(event, wall);
        }
    }

    /// The next moment at which there may be something to take.
    pub(super) fn next_instant(&self) -> Option<Instant> {
        let due = self.due.keys().next().map(|(at, _)| *at);
        let abandoned = self.abandoned.keys().next().map(|(at, _)| *at);
        due.into_iter().chain(abandoned).min()
    }

    /// Hands out one entry: an abandoned one, else one of the retry stream or the log.
    pub(super) fn take(
        &mut self,
        partition: &Partition,
        log: &Log,
        member: Member,
        now: Instant,
    ) -> Option<Entry> {
        let key = match self.claim(now) {
            Some(key) => key,
            None => self.next_key(log)?,
        };
        Some(self.hand_out(partition, log, member, key))
    }

    /// The abandoned entry whose lease ended first.
    fn claim(&mut self, now: Instant) -> Option<Key> {
        let first = self.abandoned.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    fn next_key(&mut self, log: &Log) -> Option<Key> {
        self.log_first = !self.log_first;
        if self.log_first {
            self.next_of_log(log).or_else(|| self.next_of_retry())
        } else {
            self.next_of_retry().or_else(|| self.next_of_log(log))
        }
    }

    fn next_of_retry(&mut self) -> Option<Key> {
        self.ready.pop_front().map(|id| (Queue::Retry, id))
    }

    fn next_of_log(&mut self, log: &Log) -> Option<Key> {
        if self.unread == 0 {
            return None;
        }
        let id = *log.entries.range((Bound::Excluded(self.cursor), Bound::Unbounded)).next()?.0;
        self.cursor = id;
        self.unread -= 1;
        Some((Queue::Log, id))
    }

    fn hand_out(&mut self, partition: &Partition, log: &Log, member: Member, key: Key) -> Entry {
        let (records, attempt, origin, marked): (Arc<[_]>, _, _, _) = match key {
            (Queue::Log, id) => (Arc::clone(&log.entries[&id].records), 1, None, false),
            (Queue::Retry, id) => {
                let event = &self.retry[&id];
                let origin = Some(event.origin.clone());
                ([event.record.clone()].into(), event.attempt, origin, event.suspect)
            }
        };
        let lease = CancellationToken::new();
        let pending = self.pending.entry(key).or_insert_with(|| Pending {
            consumer: member.consumer,
            count: 0,
            settled: Bits::new(),
            size: records.len(),
            running: None,
            abandoned: None,
            lease: lease.clone(),
        });
        pending.consumer = member.consumer;
        pending.count += 1;
        pending.abandoned = None;
        if pending.count > 1 {
            std::mem::replace(&mut pending.lease, lease.clone()).cancel();
        }
        Entry {
            partition: partition.clone(),
            queue: key.0,
            id: key.1,
            records,
            settled: pending.settled.clone(),
            attempt,
            origin,
            token: Token(pending.count),
            suspect: marked || pending.count >= SUSPECT_FROM,
            lease,
        }
    }

    /// The consumer is gone: what it holds is anyone's from `until` on.
    pub(super) fn abandon(&mut self, consumer: u64, until: Instant) {
        for (key, pending) in &mut self.pending {
            if pending.consumer == consumer && pending.abandoned.is_none() {
                self.count += 1;
                let place = (until, self.count);
                pending.abandoned = Some(place);
                self.abandoned.insert(place, *key);
            }
        }
    }

    /// Takes a pending entry off the books, all of its events being settled.
    pub(super) fn finish(&mut self, key: Key) {
        let abandoned = self.pending.remove(&key).and_then(|pending| pending.abandoned);
        if let Some(place) = abandoned {
            self.abandoned.remove(&place);
        }
    }

    /// The entries of the log that are pending and in a range.
    pub(super) fn pending_of_log(&self, within: impl Fn(EntryId) -> bool) -> Vec<EntryId> {
        let log = self.pending.keys().filter(|(queue, _)| *queue == Queue::Log);
        log.map(|(_, id)| *id).filter(|id| within(*id)).collect()
    }

    /// Takes entries of the log off the books, whoever has them.
    pub(super) fn drop_pending(&mut self, ids: &[EntryId]) {
        for id in ids {
            if let Some(pending) = self.pending.get(&(Queue::Log, *id)) {
                pending.lease.cancel();
            }
            self.finish((Queue::Log, *id));
        }
    }

    /// When the first event that is tried again later is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn backlog(&self) -> Backlog {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Backlog {
            unread: self.unread + count(self.ready.len()),
            pending: count(self.pending.len()),
            due: count(self.due.len()),
            dead: count(self.dead.len()),
        }
    }
}
