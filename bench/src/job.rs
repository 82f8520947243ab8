//! What is to be done: so many events of a size, for so many groups, as fast as it goes or at a
//! rate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes at the head of every payload: when it was due, in nanoseconds of the machine's clock.
const STAMP_BYTES: usize = 8;

/// The same for every peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Bytes of a payload, the stamp included.
    pub(crate) payload: usize,
    /// How many groups get every event.
    pub(crate) groups: usize,
    /// How many events are published.
    pub(crate) events: u64,
    /// At most so many publishes without an answer.
    pub(crate) window: usize,
    /// Events a second by schedule; 0: as fast as it goes.
    pub(crate) rate: u64,
}

impl Job {
    /// When the event of a number is due, from the first on.
    pub(crate) fn due(&self, number: u64) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(number * 1_000_000_000 / rate),
        }
    }

    /// A payload that is stamped with the moment at which it was due.
    pub(crate) fn payload(&self, due_ns: u64) -> Vec<u8> {
        let mut payload = vec![b'x'; self.payload.max(STAMP_BYTES)];
        payload[..STAMP_BYTES].copy_from_slice(&due_ns.to_be_bytes());
        payload
    }

    /// The stamp of a payload.
    pub(crate) fn stamp(payload: &[u8]) -> u64 {
        let head = payload.first_chunk::<STAMP_BYTES>();
        head.map_or(0, |head| u64::from_be_bytes(*head))
    }
}
