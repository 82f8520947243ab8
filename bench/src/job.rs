//! What is to be done: so many events of a size, for so many groups, as fast as it goes or at a
//! rate.

use serde::{Deserialize, Serialize};

/// Bytes of the number at the head of every payload.
const NUMBER_BYTES: usize = 8;
/// Bytes of the moment at which it was due, where there is a schedule.
const DUE_BYTES: usize = 8;
/// Of so many events one is slow, where a job has slow ones.
const SLOW_ONE_IN: u64 = 1000;

/// The same for every peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Bytes of a payload, number and moment included.
    pub(crate) payload: usize,
    /// How many groups get every event.
    pub(crate) groups: usize,
    /// How many events are published.
    pub(crate) events: u64,
    /// At most so many publishes without an answer.
    pub(crate) window: usize,
    /// Events a second by schedule; 0: as fast as it goes.
    pub(crate) rate: u64,
    /// Keys by turns, each in order; 0: events have none.
    pub(crate) keys: u64,
    /// Topics by turns; 0: one.
    pub(crate) topics: usize,
    /// Patterns in the group besides the one that matches.
    pub(crate) patterns: usize,
    /// Events handled at a time; 0: the default.
    pub(crate) lanes: usize,
    /// How long the publisher waits for company, in microseconds.
    pub(crate) linger_us: u64,
    /// How long every handler waits, in microseconds.
    pub(crate) handler_us: u64,
    /// How long one of a thousand waits, in microseconds.
    pub(crate) slow_us: u64,
    /// A round trip to the server takes so much longer, in microseconds.
    pub(crate) delay_us: u64,
    /// There is a proxy before the server, also where it adds nothing.
    pub(crate) proxied: bool,
    /// All is published before anything is consumed.
    pub(crate) backlog: bool,
    /// Redis appends to a file, and syncs it every second.
    pub(crate) everysec: bool,
}

impl Job {
    /// Nanoseconds from the first event to the one of a number.
    pub(crate) fn due_ns(&self, number: u64) -> u64 {
        (number * 1_000_000_000).checked_div(self.rate).unwrap_or(0)
    }

    /// The payload of an event, with the moment at which it was due.
    pub(crate) fn payload(&self, number: u64, due_ns: u64) -> Vec<u8> {
        let mut payload = vec![b'x'; self.payload.max(NUMBER_BYTES)];
        payload[..NUMBER_BYTES].copy_from_slice(&number.to_be_bytes());
        if let Some(due) = payload.get_mut(NUMBER_BYTES..NUMBER_BYTES + DUE_BYTES) {
            due.copy_from_slice(&due_ns.to_be_bytes());
        }
        payload
    }

    /// The number of an event.
    pub(crate) fn number(payload: &[u8]) -> u64 {
        payload.first_chunk::<NUMBER_BYTES>().map_or(u64::MAX, |head| u64::from_be_bytes(*head))
    }

    /// When an event was due.
    pub(crate) fn due(payload: &[u8]) -> u64 {
        let due = payload.get(NUMBER_BYTES..).and_then(|rest| rest.first_chunk::<DUE_BYTES>());
        due.map_or(0, |due| u64::from_be_bytes(*due))
    }

    /// The key of an event, where the job has keys.
    pub(crate) fn key(&self, number: u64) -> Option<u64> {
        (self.keys > 0).then(|| number % self.keys)
    }

    /// Whether an event is one of the slow ones.
    pub(crate) fn is_slow(&self, number: u64) -> bool {
        self.slow_us > 0 && number.is_multiple_of(SLOW_ONE_IN)
    }

    /// How long the handler of an event waits, in microseconds.
    pub(crate) fn handler_us(&self, number: u64) -> u64 {
        if self.is_slow(number) { self.slow_us } else { self.handler_us }
    }
}
