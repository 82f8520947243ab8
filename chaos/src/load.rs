//! The events of a run, and what their handlers are told to do.

use rumormill::{Event, EventId};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The topic of all events.
pub(crate) const TOPIC: &str = "chaos";
/// The groups that handle them.
pub(crate) const GROUPS: [&str; 2] = ["alpha", "beta"];
/// The group that is idempotent: its handler publishes that it handled an event.
pub(crate) const ONCE: &str = "beta";
/// The topic of that.
pub(crate) const DONE: &str = "done";
/// Keys of one publisher.
pub(crate) const KEYS: u32 = 12;

/// What bodies are made of, which is found in nothing else.
pub(crate) const BODY: &str = "~~~~";

/// What the handler of an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    /// Succeeds.
    Fine,
    /// Fails once.
    Retry,
    /// Gives up after a while.
    Reject,
    /// Panics once.
    Panic,
    /// Takes longer than the lease.
    Slow,
    /// Takes its process along, once.
    Abort,
    /// Takes its process along, each time.
    Poison,
    /// Is too large to be published.
    Oversize,
}

impl Act {
    /// What the seed gives an event. The rarer ones are injected as faults.
    pub(crate) fn throw(dice: &mut fastrand::Rng) -> Self {
        match dice.u32(..1000) {
            0..20 => Self::Retry,
            20..26 => Self::Reject,
            26..28 => Self::Oversize,
            _ => Self::Fine,
        }
    }

    /// By its name in a command.
    pub(crate) fn named(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
    }

    /// Ends in the dead letters.
    pub(crate) fn dies(self) -> bool {
        matches!(self, Self::Reject | Self::Poison)
    }
}

/// An event of the load.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(type = "chaos.made", key = key)]
pub(crate) struct Made {
    /// `PUBLISHER/NUMBER`.
    pub(crate) name: String,
    pub(crate) key: String,
    /// When it was invoked.
    pub(crate) made: u64,
    pub(crate) act: Act,
    pub(crate) body: String,
    /// Of everything else.
    pub(crate) check: u64,
}

/// What a handler publishes with the end of its delivery.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "done.handled", key = key)]
pub(crate) struct Handled {
    /// Of the event.
    pub(crate) name: String,
    pub(crate) key: String,
}

impl Made {
    pub(crate) fn new(publisher: &str, number: u64, made: u64, act: Act, size: usize) -> Self {
        // One key has a third of the events.
        let key = if number.is_multiple_of(3) { 0 } else { number % u64::from(KEYS) };
        let key = format!("{publisher}-{key}");
        let name = format!("{publisher}/{number}");
        let body = BODY.repeat(size.div_ceil(BODY.len()));
        let mut event = Self { name, key, made, act, body, check: 0 };
        event.check = event.sum();
        event
    }

    fn sum(&self) -> u64 {
        let Self { name, key, made, act, body, check: _ } = self;
        xxh3_64(format!("{name} {key} {made} {act:?} {body}").as_bytes())
    }

    /// Nothing of it was changed.
    pub(crate) fn is_intact(&self) -> bool {
        self.sum() == self.check
    }

    /// The number of its key.
    pub(crate) fn key_number(&self) -> u32 {
        self.key.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
    }

    /// Known before it is published, so that what has no answer can be told apart.
    pub(crate) fn id(&self) -> EventId {
        EventId::derived(format!("{}@{}", self.name, self.made).as_bytes())
    }
}

/// Bytes of an event's body: mostly few, sometimes many.
pub(crate) fn size(dice: &mut fastrand::Rng) -> usize {
    let most = match dice.u32(..1000) {
        0..4 => 60_000,
        4..40 => 4_000,
        _ => 200,
    };
    dice.usize(..most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_event_is_not_intact() {
        let event = Made::new("p0-0", 17, 5, Act::Fine, 10);
        assert!(event.is_intact());
        assert_eq!(
            (event.key_number(), Made::new("p0-0", 12, 5, Act::Fine, 0).key_number()),
            (5, 0)
        );
        assert!(!Made { body: "~~~~".to_owned(), ..event.clone() }.is_intact());
        assert!(!Made { act: Act::Reject, ..event }.is_intact());
    }

    #[test]
    fn acts_have_names() {
        assert_eq!(Act::named("poison"), Some(Act::Poison));
        assert_eq!(Act::named("nothing"), None);
    }
}
