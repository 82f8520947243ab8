//! What one consumer holds: entries that were read and are not fully settled.

use std::collections::{BTreeMap, HashMap, btree_map};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::delivery::{Bits, Entry, EntryId, Partition, Queue, Token};

/// One of the streams of a group.
pub(super) type Stream = (Partition, Queue);

/// The table of what is in flight, shared by reader, lease keeper and settler.
#[derive(Default)]
pub(super) struct Flight(Mutex<HashMap<Stream, InFlight>>);

/// What is in flight of one stream: what is done with many of its entries is done under one lock.
#[derive(Default)]
pub(super) struct InFlight(BTreeMap<EntryId, Held>);

struct Held {
    token: Token,
    lease: CancellationToken,
    /// Some of its events were settled by this consumer: there is a progress record.
    touched: bool,
    /// How many events it has, and of which the end was told and answered.
    events: usize,
    ended: Bits,
    /// A settlement of it was sent and not answered: it may have been applied.
    doubtful: bool,
    /// Its message was deleted: it cannot be renewed, and nobody else can have it.
    gone: bool,
    /// When it was handed out, or renewed last.
    renewed_at: Instant,
}

impl Held {
    /// Nobody else can have had the entry, and nothing was said about its end.
    fn is_sure(&self, token: Token, lease: Duration) -> bool {
        let is_leased = self.gone || self.renewed_at.elapsed() < lease;
        self.token == token && !self.doubtful && is_leased
    }
}

/// How sure it is that an entry which is pending for nobody was not settled; as `settle.lua` wants
/// to know it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sure {
    Not = 0,
    /// Nothing was said about its end, and the lease did not lapse.
    Held = 1,
    /// And its message is known to be deleted.
    Deleted = 2,
}

impl InFlight {
    /// Takes an entry up; false where it is in flight here already.
    pub(super) fn insert(&mut self, entry: &Entry) -> bool {
        let btree_map::Entry::Vacant(free) = self.0.entry(entry.id) else { return false };
        free.insert(Held {
            token: entry.token,
            lease: entry.lease.clone(),
            touched: false,
            events: entry.records.len(),
            ended: entry.settled.clone(),
            doubtful: false,
            gone: false,
            renewed_at: Instant::now(),
        });
        true
    }

    /// Whether a part of the entry was settled by this consumer.
    pub(super) fn is_touched(&self, id: EntryId) -> bool {
        self.0.get(&id).is_some_and(|held| held.touched)
    }

    /// Notes that a settlement is sent; tells how sure it is that nothing was said before.
    pub(super) fn ask(&mut self, id: EntryId, token: Token, lease: Duration) -> Sure {
        let Some(held) = self.0.get_mut(&id) else { return Sure::Not };
        let is_sure = held.is_sure(token, lease);
        held.doubtful = true;
        match (is_sure, held.gone) {
            (false, _) => Sure::Not,
            (true, false) => Sure::Held,
            (true, true) => Sure::Deleted,
        }
    }

    /// Lets an entry go that is fully settled; false where it was not in flight.
    pub(super) fn remove(&mut self, id: EntryId) -> bool {
        self.0.remove(&id).is_some()
    }
}

impl Flight {
    fn table(&self) -> MutexGuard<'_, HashMap<Stream, InFlight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with what is in flight of a stream.
    pub(super) fn of<T>(&self, stream: &Stream, act: impl FnOnce(&mut InFlight) -> T) -> T {
        let mut table = self.table();
        if let Some(own) = table.get_mut(stream) {
            return act(own);
        }
        act(table.entry(stream.clone()).or_default())
    }

    /// The delivery count of an entry in flight.
    pub(super) fn token(&self, stream: &Stream, id: EntryId) -> Option<Token> {
        self.table().get(stream)?.0.get(&id).map(|held| held.token)
    }

    /// Notes that these events of the entry were settled: what was sent was answered. False where
    /// there is none left to settle.
    pub(super) fn touch(
        &self,
        stream: &Stream,
        id: EntryId,
        indexes: impl Iterator<Item = u32>,
    ) -> bool {
        let mut table = self.table();
        let Some(held) = table.get_mut(stream).and_then(|held| held.0.get_mut(&id)) else {
            return true;
        };
        (held.touched, held.doubtful) = (true, false);
        indexes.for_each(|index| {
            held.ended.insert(index);
        });
        held.ended.len() < held.events
    }

    /// Notes that the message of an entry was deleted; false where that is known.
    pub(super) fn note_gone(&self, stream: &Stream, id: EntryId) -> bool {
        let mut table = self.table();
        let held = table.get_mut(stream).and_then(|held| held.0.get_mut(&id));
        held.is_some_and(|held| !std::mem::replace(&mut held.gone, true))
    }

    /// Whether the message of an entry in flight was deleted.
    pub(super) fn is_gone(&self, stream: &Stream, id: EntryId) -> bool {
        let table = self.table();
        table.get(stream).and_then(|held| held.0.get(&id)).is_some_and(|held| held.gone)
    }

    /// Notes that a lease was renewed by what was sent at a moment.
    pub(super) fn renewed(&self, stream: &Stream, id: EntryId, token: Token, sent: Instant) {
        let mut table = self.table();
        let held = table.get_mut(stream).and_then(|held| held.0.get_mut(&id));
        if let Some(held) = held.filter(|held| held.token == token) {
            held.renewed_at = held.renewed_at.max(sent);
        }
    }

    /// Whether nobody else can have had the entry since it was handed out to this consumer, and
    /// nothing was said about its end: only a stranger can have taken it off the books.
    pub(super) fn is_surely_held(
        &self,
        stream: &Stream,
        id: EntryId,
        token: Token,
        lease: Duration,
    ) -> bool {
        let table = self.table();
        let held = table.get(stream).and_then(|held| held.0.get(&id));
        held.is_some_and(|held| held.is_sure(token, lease))
    }

    /// Lets an entry go that is fully settled.
    pub(super) fn remove(&self, stream: &Stream, id: EntryId) {
        if let Some(held) = self.table().get_mut(stream) {
            held.remove(id);
        }
    }

    /// Lets an entry go that another consumer took, unless it was taken up again since.
    pub(super) fn lose(&self, stream: &Stream, id: EntryId, token: Token) -> bool {
        if self.token(stream, id) != Some(token) {
            return false;
        }
        if let Some(held) = self.table().get(stream).and_then(|held| held.0.get(&id)) {
            held.lease.cancel();
        }
        self.remove(stream, id);
        true
    }

    /// Everything in flight that can be renewed, by stream, ascending.
    pub(super) fn all(&self) -> Vec<(Stream, Vec<(EntryId, Token)>)> {
        let list = |held: &InFlight| -> Vec<(EntryId, Token)> {
            let open = held.0.iter().filter(|(_, held)| !held.gone);
            open.map(|(id, held)| (*id, held.token)).collect()
        };
        let table = self.table();
        let lists = table.iter().map(|(stream, held)| (stream.clone(), list(held)));
        lists.filter(|(_, list)| !list.is_empty()).collect()
    }
}
