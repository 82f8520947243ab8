//! Appending: whole entries, in order, waiting for room up to a deadline.

use std::sync::Arc;

use async_trait::async_trait;
#[cfg(feature = "testing")]
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::state::State;
use super::{MemoryDriver, MemoryOptions, Store, after, closed};
use crate::delivery::{Durability, Record};
#[cfg(feature = "testing")]
use crate::delivery::{Malformed, Partition};
use crate::driver::{Append, Appended, Placed, Publish, TopicShape};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, PublishError};
use crate::event_id::EventId;
use crate::event_type::Topic;

#[cfg(feature = "testing")]
impl MemoryDriver {
    /// Puts an entry into a log that is no event, as another program may on a server.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], where the partition was not declared.
    pub fn append_foreign(
        &self,
        partition: &Partition,
        fields: Vec<(Bytes, Bytes)>,
    ) -> Result<(), Error> {
        let mut state = self.store.state();
        let place = state.part(partition)?;
        let reason = "the entry holds no event".to_owned();
        state.store(place, [Err(Malformed { reason, fields })].into());
        drop(state);
        self.store.changed.notify_waiters();
        Ok(())
    }
}

type Answer = Result<Appended, PublishError>;

#[async_trait]
impl Publish for MemoryDriver {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        self.check_open()?;
        let partitions = self.store.options.partitions_of(topic);
        Ok(self.store.state().declare(topic, partitions))
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Answer> {
        let deadline = after(Instant::now(), self.store.options.append_deadline);
        let turn = Turn::take(&self.store);
        let mut answers = Vec::with_capacity(appends.len());
        let mut rest = appends.into_iter().peekable();
        loop {
            let notified = self.store.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if turn.store(&self.closed, &mut rest, &mut answers) {
                return answers;
            }
            if timeout_at(deadline, notified).await.is_err() {
                turn.store(&self.closed, &mut rest, &mut answers);
                answers.extend(rest.map(|append| Err(turn.full(&append))));
                return answers;
            }
        }
    }
}

/// A call's place among those that wait: appends are stored in the order of their first poll.
struct Turn<'a> {
    store: &'a Arc<Store>,
    number: u64,
}

type Appends = std::iter::Peekable<std::vec::IntoIter<Append>>;

impl<'a> Turn<'a> {
    fn take(store: &'a Arc<Store>) -> Self {
        let mut state = store.state();
        let number = state.number();
        state.waiting.insert(number);
        Self { store, number }
    }

    /// Stores what has room, oldest first; true when nothing is left. No await from taking an
    /// append to its answer, so a call that is dropped has stored each whole or not at all.
    fn store(
        &self,
        closing: &CancellationToken,
        rest: &mut Appends,
        answers: &mut Vec<Answer>,
    ) -> bool {
        let now = Instant::now();
        let mut state = self.store.state();
        state.advance(now);
        let count = answers.len();
        let options = &self.store.options;
        while let Some(append) = rest.peek() {
            if closing.is_cancelled() {
                answers.extend(rest.map(|_| Err(PublishError::NotStored(closed()))));
                break;
            }
            let own_turn = state.waiting.first() == Some(&self.number);
            let place = match check(&state, append, options) {
                Ok(place) if own_turn && has_room(&state, place, append, options) => Ok(place),
                Ok(_) => break,
                Err(error) => Err(PublishError::NotStored(error)),
            };
            let Some(append) = rest.next() else { break };
            answers.push(place.map(|place| keep(&mut state, place, append, options, now)));
        }
        if answers.len() > count {
            self.store.changed.notify_waiters();
        }
        rest.len() == 0
    }

    /// Says who is in the way.
    fn full(&self, append: &Append) -> PublishError {
        let Append { partition, .. } = append;
        let MemoryOptions { unsettled_bytes_max: max, append_deadline: waited, .. } =
            self.store.options;
        let text = format!(
            "append to {partition}: the memory log is full, {max} bytes unsettled for {waited:?}"
        );
        let state = self.store.state();
        let slowest = state.part(partition).ok().and_then(|place| state.slowest(place));
        let help = match slowest {
            Some((group, unread)) => format!(
                "group {group} has {unread} entries of it unread; let it settle faster, or raise \
                 `unsettled_bytes_max`"
            ),
            None => "publish less with a delay, or raise `unsettled_bytes_max`".to_owned(),
        };
        PublishError::NotStored(Error::new(ErrorKind::Timeout, text).with_help(help))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        state.waiting.remove(&self.number);
        let others = !state.waiting.is_empty();
        drop(state);
        if others {
            self.store.room.notify_waiters();
        }
    }
}

/// The place of the append's partition, where it can be stored at all.
fn check(state: &State, append: &Append, options: &MemoryOptions) -> Result<usize, Error> {
    if append.envelopes.is_empty() {
        return Err(Error::invalid(format!("append to {} has no event", append.partition)));
    }
    if append.deduplicate && !append.delay.is_zero() {
        return Err(append.refuse_delayed());
    }
    let (weight, max) = (weight(append), options.unsettled_bytes_max);
    if weight > max {
        let text = format!("append to {} has {weight} bytes, {max} at most", append.partition);
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    state.part(&append.partition)
}

fn weight(append: &Append) -> usize {
    append.envelopes.iter().map(|envelope| envelope.weight()).sum()
}

/// What no group reads is history at once and needs no room.
fn has_room(state: &State, place: usize, append: &Append, options: &MemoryOptions) -> bool {
    let unread = state.parts[place].groups.is_empty() && append.delay.is_zero();
    unread || state.unsettled_bytes + weight(append) <= options.unsettled_bytes_max
}

fn keep(
    state: &mut State,
    place: usize,
    append: Append,
    options: &MemoryOptions,
    now: Instant,
) -> Appended {
    if append.deduplicate {
        return keep_new(state, place, &append, after(now, options.dedup_window), now);
    }
    let records: Arc<[Record]> = append.envelopes.into_iter().map(Ok).collect();
    let entry = if append.delay.is_zero() {
        Some(state.store(place, records))
    } else {
        state.delay(place, records, after(now, append.delay));
        None
    };
    Appended { entry, durability: Durability::Memory, places: Vec::new() }
}

/// Stores the events that have no mark, and marks them.
fn keep_new(
    state: &mut State,
    place: usize,
    append: &Append,
    end: Instant,
    now: Instant,
) -> Appended {
    state.marks.forget(now);
    let mut fresh: Vec<Envelope> = Vec::new();
    for envelope in &append.envelopes {
        let id = envelope.id();
        let is_marked = state.marks.find(place, id).is_some();
        if !is_marked && fresh.iter().all(|known| known.id() != id) {
            fresh.push(envelope.clone());
        }
    }
    let mut open: Vec<EventId> = fresh.iter().map(Envelope::id).collect();
    let mut entry = None;
    if !fresh.is_empty() {
        let stored = state.store(place, fresh.into_iter().map(Ok).collect());
        for (id, index) in open.iter().zip(0..) {
            state.marks.set(place, *id, (stored, index), end);
        }
        entry = Some(stored);
    }
    let place_of = |envelope: &Envelope| {
        let id = envelope.id();
        let (entry, index) =
            state.marks.find(place, id).expect("an event that had no mark has one now");
        let first = open.iter().position(|own| *own == id);
        let repeated = first.map(|at| open.remove(at)).is_none();
        Placed { entry, index, repeated }
    };
    let places = append.envelopes.iter().map(place_of).collect();
    Appended { entry, durability: Durability::Memory, places }
}
