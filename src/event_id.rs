//! The id of an event: a `UUIDv7`, made without a system call.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, shown};
use crate::time::Timestamp;

/// The 128-bit id of an event, the same for every delivery and every retry of it.
///
/// Ids made here are `UUIDv7` (RFC 9562): 48 bits of milliseconds, 12 bits that count within a
/// thread, 62 random bits. Ids that one thread makes ascend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

thread_local! {
    static RANDOM: RefCell<fastrand::Rng> =
        RefCell::new(fastrand::Rng::with_seed(Uuid::new_v4().as_u64_pair().1));
    /// Milliseconds and the 12-bit count of the last id.
    static LAST: Cell<(u64, u16)> = const { Cell::new((0, 0)) };
}

/// Makes this thread's next ids the same as after every other call with this seed.
#[cfg(feature = "testing")]
pub(crate) fn seed(seed: u64) {
    RANDOM.with(|random| random.borrow_mut().seed(seed));
    LAST.with(|last| last.set((0, 0)));
}

const COUNT_MAX: u16 = 0x0fff;

impl EventId {
    /// A new id at `now`. The generator is seeded once per thread from the system's entropy.
    pub fn new(now: Timestamp) -> Self {
        let (millis, count) = LAST.with(|last| {
            let next = next_tick(last.get(), now.as_millis());
            last.set(next);
            next
        });
        let random = RANDOM.with(|random| random.borrow_mut().u64(..));
        let high = (millis << 16) | 0x7000 | u64::from(count);
        let low = (random & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        Self(Uuid::from_u64_pair(high, low))
    }

    /// The id of something that has none of its own: always the same for the same bytes.
    ///
    /// A `UUIDv8` of the 128-bit xxh3 hash.
    pub fn derived(bytes: &[u8]) -> Self {
        Self(uuid::Builder::from_custom_bytes(xxh3_128(bytes).to_be_bytes()).into_uuid())
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The UUID.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

/// Milliseconds never go back within a thread; the count restarts with each one, and runs into
/// the next when it is spent.
fn next_tick((millis, count): (u64, u16), now: u64) -> (u64, u16) {
    if now > millis {
        (now, 0)
    } else if count < COUNT_MAX {
        (millis, count + 1)
    } else {
        (millis + 1, 0)
    }
}

impl From<Uuid> for EventId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl From<[u8; 16]> for EventId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for EventId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Self).map_err(|error| {
            let text = format!("event id {:?} is not a UUID", shown(text));
            Error::invalid(text).with_source(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_thread_ascend_and_carry_the_time() {
        let now = Timestamp::from_millis(1_767_323_045_000);
        let ids: Vec<_> = (0..10_000).map(|_| EventId::new(now)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids.iter().all(|id| id.as_uuid().get_version_num() == 7));
        assert!(ids.iter().all(|id| id.as_uuid().get_variant() == uuid::Variant::RFC4122));
        let first = ids[0].as_uuid();
        assert_eq!(first.as_u64_pair().0 >> 16, now.as_millis());
    }

    #[test]
    fn a_clock_that_goes_back_does_not_repeat_ids() {
        assert_eq!(next_tick((10, 3), 9), (10, 4));
        assert_eq!(next_tick((10, COUNT_MAX), 10), (11, 0));
        assert_eq!(next_tick((10, 3), 11), (11, 0));
    }

    #[test]
    fn derived_ids_are_stable() {
        assert_eq!(EventId::derived(b"a"), EventId::derived(b"a"));
        assert_ne!(EventId::derived(b"a"), EventId::derived(b"b"));
        assert_eq!(EventId::derived(b"a").as_uuid().get_version_num(), 8);
    }
}
