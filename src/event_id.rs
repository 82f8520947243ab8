//! The id of an event: a `UUIDv7`, made without a system call.

use std::cell::RefCell;
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
    static GENERATOR: RefCell<Generator> = RefCell::new(Generator::new());
}

/// Makes this thread's next ids the same as after every other call with this seed.
#[cfg(feature = "testing")]
pub(crate) fn seed(seed: u64) {
    GENERATOR.with_borrow_mut(|own| {
        own.random.seed(seed);
        own.last = (0, 0);
    });
}

/// Makes the ids of one thread.
#[derive(Clone)]
struct Generator {
    random: fastrand::Rng,
    /// Milliseconds and the 12-bit count of the last id.
    last: (u64, u16),
    /// The process that `random` was seeded in.
    process: u32,
}

impl Generator {
    fn new() -> Self {
        let random = fastrand::Rng::with_seed(entropy());
        Self { random, last: (0, 0), process: std::process::id() }
    }

    fn next(&mut self, now: u64, process: impl FnOnce() -> u32) -> (u64, u64) {
        self.last = next_tick(self.last, now);
        let (millis, count) = self.last;
        if count == 0 {
            self.reseed_in(process());
        }
        let high = (millis << 16) | 0x7000 | u64::from(count);
        let low = (self.random.u64(..) & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        (high, low)
    }

    /// A copy of a process must not make the ids that the original makes.
    fn reseed_in(&mut self, process: u32) {
        if self.process != process {
            self.process = process;
            self.random.seed(entropy());
        }
    }
}

/// From the system: a UUID's second half, 62 bits of which are random.
fn entropy() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

const COUNT_MAX: u16 = 0x0fff;

impl EventId {
    /// A new id at `now`. The generator is seeded once per thread from the system's entropy, and
    /// anew in a process that was forked: noticed with the thread's first id of a millisecond.
    pub fn new(now: Timestamp) -> Self {
        let (high, low) =
            GENERATOR.with_borrow_mut(|own| own.next(now.as_millis(), std::process::id));
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
    fn a_forked_process_makes_ids_of_its_own() {
        let mut parent = Generator::new();
        let process = parent.process;
        parent.next(1, || process);
        let (mut twin, mut child) = (parent.clone(), parent.clone());
        let next = parent.next(2, || process);
        assert_eq!(twin.next(2, || process), next, "a copy that does not know makes the same");
        let forked = child.next(2, || process + 1);
        assert_eq!(forked.0, next.0);
        assert_ne!(forked.1, next.1);
    }

    #[test]
    fn derived_ids_are_stable() {
        assert_eq!(EventId::derived(b"a"), EventId::derived(b"a"));
        assert_ne!(EventId::derived(b"a"), EventId::derived(b"b"));
        assert_eq!(EventId::derived(b"a").as_uuid().get_version_num(), 8);
    }
}
