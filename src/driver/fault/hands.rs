//! Who may settle what: a consumer that lapsed and came back is another one to the store, and what
//! the first was given only the first may end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::delivery::{Bits, Delivery, Entry, EntryId, Partition, Queue};
use crate::driver::Settler;

/// An entry as it was handed out.
type Key = (Partition, Queue, EntryId, u64);

fn key_of(entry: &Entry) -> Key {
    (entry.partition.clone(), entry.queue, entry.id, entry.token.0)
}

struct Hand {
    settler: Arc<dyn Settler>,
    lease: CancellationToken,
    answered: Bits,
    /// How many events have an answer when all have.
    open: usize,
}

/// What was handed out and is not settled, with its settler.
pub(super) struct Hands(Mutex<State>);

struct State {
    now: Arc<dyn Settler>,
    hands: BTreeMap<Key, Hand>,
}

impl Hands {
    pub(super) fn new(settler: Arc<dyn Settler>) -> Self {
        Self(Mutex::new(State { now: settler, hands: BTreeMap::new() }))
    }

    /// The consumer came back as another.
    pub(super) fn come_back(&self, settler: Arc<dyn Settler>) {
        self.state().now = settler;
    }

    pub(super) fn give(&self, entries: &[Entry]) {
        let mut state = self.state();
        for entry in entries {
            let hand = Hand {
                settler: Arc::clone(&state.now),
                lease: entry.lease.clone(),
                answered: Bits::new(),
                open: entry.records.len() - entry.settled.len(),
            };
            state.hands.insert(key_of(entry), hand);
        }
    }

    /// Who settles the events of an entry.
    pub(super) fn settler(&self, entry: &Entry) -> Arc<dyn Settler> {
        let state = self.state();
        let hand = state.hands.get(&key_of(entry));
        Arc::clone(hand.map_or(&state.now, |hand| &hand.settler))
    }

    /// A settlement was answered: nothing is to be said of the event any more.
    pub(super) fn answered(&self, delivery: &Delivery) {
        let (mut state, key) = (self.state(), key_of(&delivery.entry));
        let Some(hand) = state.hands.get_mut(&key) else { return };
        hand.answered.insert(delivery.index);
        if hand.answered.len() >= hand.open {
            state.hands.remove(&key);
        }
    }

    /// Tells the consumer that it lost everything.
    pub(super) fn cancel_all(&self) {
        self.state().hands.values().for_each(|hand| hand.lease.cancel());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
